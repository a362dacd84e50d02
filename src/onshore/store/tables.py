"""Catalog tables: Lance datasets in the center, read with filters, written under a lock, asked in SQL.

Rule: column types are settled by the first rows and stay; a missing table is an empty one; SQL sees the tables alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import check_id
from onshore.core.errors import InputError, NotFoundError
from onshore.store.files import locked

if TYPE_CHECKING:
    import duckdb
    import lance
    import pyarrow as pa

#: A table of more files than this is compacted after a write.
FRAGMENTS_BEFORE_TIDYING = 64
SQL_MEMORY = "2GB"
#: Table functions that make rows from their arguments alone; every other one reads files, settings or the catalog.
ROW_MAKERS = frozenset(["range", "generate_series", "unnest"])
#: Functions that tell of the process, or leave something in it.
FORBIDDEN = frozenset("current_setting getenv getvariable write_log which_secret current_database current_user".split())


class Table:
    """One catalog table. Rows are dicts of str, int, float, bool, None and lists of these."""

    def __init__(self, folder: Path, name: str, locks: Path) -> None:
        self.name = check_id(name.replace("_", "-"), "table") and name
        self._path, self._lock = folder / f"{name}.lance", locks / f"table-{name}.lock"

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Add rows, all or none."""
        if not rows:
            return
        with locked(self._lock):
            fresh = _fitted(rows, self._schema(), self.name)
            self._ready(fresh.schema).insert(fresh)
            self._tidy()

    def upsert(self, rows: list[dict[str, Any]], on: str = "id") -> None:
        """Replace rows whose `on` is known, add the others; all or none. Of rows with one `on`, the last holds."""
        rows = list({row[on]: row for row in rows}.values())
        if not rows:
            return
        with locked(self._lock):
            fresh = _fitted(rows, self._schema(), self.name)
            merge = self._ready(fresh.schema).merge_insert(on)
            merge.when_matched_update_all().when_not_matched_insert_all().execute(fresh)
            self._tidy()

    def delete(self, where: str) -> None:
        """Delete the rows for which the SQL expression holds."""
        with locked(self._lock):
            stored = self._open()
            with _explained(self.name, where):
                if stored is not None:
                    stored.delete(where)

    def mentions(self, words: Iterable[str]) -> int:
        """Rows, in any version that still lies on disk, with a text column that is one of these words."""
        stored = self._open()
        if stored is None:
            return 0
        found = 0
        for version in stored.versions():
            old = stored.checkout_version(version["version"])
            where = _naming(old.schema, words)
            found = max(found, int(old.count_rows(filter=where))) if where else found
        return found

    def forget(self, words: Iterable[str]) -> int:
        """Delete the rows that name one of these words, and every older version of the table; how many there were."""
        with locked(self._lock):
            stored = self._open()
            where = _naming(stored.schema, words) if stored is not None else None
            found = int(stored.count_rows(filter=where)) if stored is not None and where else 0
            if found and stored is not None:
                stored.delete(where)
        if found or self.mentions(words):
            self.compact()
        return found

    def rows(
        self,
        where: str | None = None,
        columns: list[str] | None = None,
        limit: int | None = None,
        order: str | None = None,
    ) -> list[dict[str, Any]]:
        """Rows for which `where` (SQL) holds. order: a column, with ' desc' for descending."""
        table = self.arrow(where, columns if order is None else None, limit if order is None else None)
        if table is None:
            return []
        if order is not None:
            column, _, direction = order.partition(" ")
            with _explained(self.name, order):
                table.schema.field(column)
            table = table.sort_by([(column, "descending" if direction.lower() == "desc" else "ascending")])
            table = table.select(columns) if columns else table
        found: list[dict[str, Any]] = table.slice(0, limit).to_pylist()
        return found

    def count(self, where: str | None = None) -> int:
        stored = self._open()
        with _explained(self.name, where):
            return 0 if stored is None else int(stored.count_rows(filter=where))

    def arrow(
        self, where: str | None = None, columns: list[str] | None = None, limit: int | None = None
    ) -> pa.Table | None:
        """The rows as one Arrow table; None while the table is missing."""
        stored = self._open()
        if stored is None:
            return None
        with _explained(self.name, where):
            return stored.to_table(filter=where, columns=columns, limit=limit)

    def compact(self) -> None:
        """Rewrite the table without deleted rows and drop every older version: what was deleted is gone from disk."""
        with locked(self._lock):
            stored = self._open()
            if stored is not None:
                stored.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
                self._reopened().cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)

    def _tidy(self) -> None:
        """Many small commits become few files; versions that a reader may still hold are kept for an hour."""
        stored = self._reopened()
        if len(stored.get_fragments()) >= FRAGMENTS_BEFORE_TIDYING:
            stored.optimize.compact_files()
            self._reopened().cleanup_old_versions(older_than=timedelta(hours=1))

    def _ready(self, schema: pa.Schema) -> lance.LanceDataset:
        """The dataset with exactly this schema: made, or rewritten once when a column gets its type or is new."""
        import lance

        stored = self._open()
        if stored is None:
            return lance.write_dataset(schema.empty_table(), self._path)
        if stored.schema == schema:
            return stored
        rows = stored.to_table()
        for field in schema:
            if field.name not in rows.schema.names:
                rows = rows.append_column(field, _nulls(len(rows), field))
        return lance.write_dataset(rows.select(schema.names).cast(schema), self._path, mode="overwrite")

    def _schema(self) -> pa.Schema | None:
        stored = self._open()
        return None if stored is None else stored.schema

    def _reopened(self) -> lance.LanceDataset:
        import lance

        return lance.dataset(self._path)

    def _open(self) -> lance.LanceDataset | None:
        return self._reopened() if (self._path / "_versions").is_dir() else None


@contextmanager
def _explained(name: str, where: str | None) -> Iterator[None]:
    """Lance says what is wrong with a filter as OSError or ValueError, with its own source lines behind a comma."""
    try:
        yield
    except (OSError, ValueError, KeyError) as fault:
        text = str(fault).split(", /")[0]
        raise InputError("missing_column", f"table {name}, where {where!r}", text) from fault


def _naming(schema: pa.Schema, words: Iterable[str]) -> str | None:
    """The filter for rows with a text column that is one of the words; ids only, so that nothing needs quoting."""
    import pyarrow as pa

    listed = ", ".join(f"'{check_id(word)}'" for word in sorted(set(words)))
    columns = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return " OR ".join(f"`{column}` IN ({listed})" for column in columns) if listed and columns else None


def jailed_query(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """`query`, as the jail calls it; values that JSON lacks come back as text."""
    rows = query(Path(arguments["folder"]), Path(arguments["locks"]), arguments["sql"])
    found: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
    return found


def jailed_condition(arguments: dict[str, Any]) -> list[str]:
    """Ids of the rows of one table for which a condition holds, as the jail calls it; other tables are not there.

    The condition must read as one with and without brackets, so that none closes them and goes on as another question.
    """
    table, where = arguments["table"], arguments["where"]
    with _asking(Path(arguments["folder"]), Path(arguments["locks"]), [table]) as connection:
        _check_question(connection, f"SELECT 1 FROM {table} WHERE\n{where}\n", {table})
        rows = _answer(connection, f"SELECT id FROM {table} WHERE (\n{where}\n)", {table})
    return [str(row["id"]) for row in rows]


def query(folder: Path, locks: Path, sql: str) -> list[dict[str, Any]]:
    """Run one SELECT over the tables it names: no files, no network, no extensions, settings locked."""
    known = [path.stem for path in sorted(folder.glob("*.lance"))]
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", sql))
    with _asking(folder, locks, [name for name in known if name in words]) as connection:
        return _answer(connection, sql, set(known))


@contextmanager
def _asking(folder: Path, locks: Path, names: list[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that holds these tables and is locked; what DuckDB finds wrong is an error of ours."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        for name in names:
            connection.register(name, Table(folder, name, locks).arrow())
        lock_down(connection)
        try:
            yield connection
        except duckdb.CatalogException as fault:
            raise NotFoundError("sql", str(fault)) from fault
        except duckdb.Error as fault:
            raise InputError("usage", "sql", str(fault)) from fault


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, known: set[str]) -> list[dict[str, Any]]:
    _check_question(connection, sql, known)
    answer = connection.execute(sql)
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def _check_question(connection: duckdb.DuckDBPyConnection, sql: str, known: set[str]) -> None:
    """One SELECT over known tables; functions that read files, settings or the catalog are no part of it."""
    told = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    tree: dict[str, Any] = json.loads(told[0]) if told else {"error": True, "error_message": "it cannot be read"}
    if tree["error"]:
        raise InputError("usage", "sql", f"ask with a SELECT: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise InputError("usage", "sql", "ask one question at a time.")
    nodes: list[dict[str, Any]] = list(_nodes(tree))
    named: set[str] = {entry["key"] for node in nodes for entry in (node.get("cte_map") or {}).get("map", [])}
    for node in nodes:
        if node.get("type") == "BASE_TABLE":
            whole: list[str] = [node[part] for part in ("catalog_name", "schema_name", "table_name") if node.get(part)]
            if len(whole) > 1 or whole[0] not in known | named:
                raise NotFoundError("sql", f"no table {'.'.join(whole)!r}; there are {', '.join(sorted(known))}.")
        function = node.get("function_name", "") if node.get("class") == "FUNCTION" else ""
        if function in FORBIDDEN or (node.get("type") == "TABLE_FUNCTION" and not _makes_rows(node)):
            raise InputError("usage", "sql", f"it may not call {function or 'a function'} in place of a table.")


def _makes_rows(node: dict[str, Any]) -> bool:
    return (node.get("function") or {}).get("function_name") in ROW_MAKERS


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(part)


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    for setting in (
        "python_enable_replacements=false",
        "enable_external_access=false",
        "threads=2",
        f"memory_limit='{SQL_MEMORY}'",
        "lock_configuration=true",
    ):
        connection.execute(f"SET {setting}")


def _fitted(rows: list[dict[str, Any]], stored: pa.Schema | None, name: str) -> pa.Table:
    """The rows as Arrow in the table's schema; columns that are new or had no value yet take their type from here."""
    import pyarrow as pa

    names = list(dict.fromkeys([*(stored.names if stored else ()), *(key for row in rows for key in row)]))
    try:
        fresh = pa.Table.from_pylist([{column: row.get(column) for column in names} for row in rows])
        schema = pa.schema([_settled(field, stored, name) for field in fresh.schema])
        return fresh.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as fault:
        raise InputError("missing_column", f"table {name}", f"a value does not fit its column: {fault}.") from fault


def _settled(fresh: pa.Field, stored: pa.Schema | None, name: str) -> pa.Field:
    """The stored type; or the fresh one where no value had settled it. Text never becomes a number nor the reverse."""
    if stored is None or fresh.name not in stored.names:
        return fresh
    known = stored.field(fresh.name)
    settled = _merged(fresh.type, known.type)
    if settled is not None:
        return known.with_type(settled)
    advice = f"column {fresh.name} holds {known.type}, not {fresh.type}; columns keep their type."
    raise InputError("missing_column", f"table {name}", advice)


def _merged(fresh: pa.DataType, known: pa.DataType) -> pa.DataType | None:
    """The stored type, with what no value had settled taken from the fresh one, in records field by field; None when they differ."""
    import pyarrow as pa

    if _fits(fresh, known):
        return known
    if pa.types.is_struct(fresh) and pa.types.is_struct(known) and {*fresh.names} == {*known.names}:
        parts = [(part.name, _merged(fresh.field(part.name).type, part.type)) for part in known]
        return pa.struct(parts) if all(kind is not None for _, kind in parts) else None
    return fresh if _unsettled(known) and _fits(known, fresh) else None


def _fits(fresh: pa.DataType, known: pa.DataType) -> bool:
    """Numbers fit numbers (the cast is exact or fails), nothing fits everything, lists fit by their items."""
    import pyarrow as pa

    if fresh == known or _is_null(fresh):
        return True
    if pa.types.is_list(fresh) and pa.types.is_list(known):
        return _fits(fresh.value_type, known.value_type)
    return all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (fresh, known))


def _is_null(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_null(kind))


def _unsettled(kind: pa.DataType) -> bool:
    """A type that no value has settled: null, or a list of such."""
    import pyarrow as pa

    return bool(_is_null(kind) or (pa.types.is_list(kind) and _unsettled(kind.value_type)))


def _nulls(count: int, field: pa.Field) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(count, field.type)
