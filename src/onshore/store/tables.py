"""Catalog tables: Lance datasets in the center, read with filters, written under a lock, asked in SQL.

Rule: column types are settled by the first rows and stay; a missing table is an empty one; SQL sees the tables alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import check_id
from onshore.core.errors import InputError, NotFoundError
from onshore.store.files import locked

if TYPE_CHECKING:
    import duckdb
    import lance
    import pyarrow as pa


class Table:
    """One catalog table. Rows are dicts of str, int, float, bool, None and lists of these."""

    def __init__(self, folder: Path, name: str, locks: Path) -> None:
        self.name = check_id(name.replace("_", "-"), "table") and name
        self._path, self._lock = folder / f"{name}.lance", locks / f"table-{name}.lock"

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Add rows, all or none."""
        import lance

        if not rows:
            return
        with locked(self._lock):
            stored = self._open()
            if stored is None:
                lance.write_dataset(_arrow(rows, None, self.name), self._path, enable_stable_row_ids=True)
            else:
                stored.insert(_arrow(rows, stored.schema, self.name))

    def upsert(self, rows: list[dict[str, Any]], on: str = "id") -> None:
        """Replace rows whose `on` is known, add the others; all or none. Of rows with one `on`, the last holds."""
        rows = list({row[on]: row for row in rows}.values())
        if not rows:
            return
        with locked(self._lock):
            stored = self._open()
            if stored is not None:
                fresh = _arrow(rows, stored.schema, self.name)
                stored.merge_insert(on).when_matched_update_all().when_not_matched_insert_all().execute(fresh)
                return
        self.append(rows)

    def delete(self, where: str) -> None:
        """Delete the rows for which the SQL expression holds."""
        with locked(self._lock):
            stored = self._open()
            if stored is not None:
                stored.delete(where)

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
            table = table.sort_by([(column, "descending" if direction.lower() == "desc" else "ascending")])
            table = table.select(columns) if columns else table
        found: list[dict[str, Any]] = table.slice(0, limit).to_pylist()
        return found

    def count(self, where: str | None = None) -> int:
        stored = self._open()
        return 0 if stored is None else int(stored.count_rows(filter=where))

    def arrow(
        self, where: str | None = None, columns: list[str] | None = None, limit: int | None = None
    ) -> pa.Table | None:
        """The rows as one Arrow table; None while the table is missing."""
        stored = self._open()
        if stored is None:
            return None
        try:
            return stored.to_table(filter=where, columns=columns, limit=limit)
        except (OSError, ValueError) as fault:
            raise InputError("missing_column", f"table {self.name}, where {where!r}", f"{fault}") from fault

    def _open(self) -> lance.LanceDataset | None:
        import lance

        return lance.dataset(self._path) if (self._path / "_versions").is_dir() else None


def query(folder: Path, locks: Path, sql: str) -> list[dict[str, Any]]:
    """Run SQL over the tables it names: no files, no network, no extensions, settings locked."""
    import duckdb

    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", sql))
    with duckdb.connect(":memory:") as connection:
        for path in sorted(folder.glob("*.lance")):
            if path.stem in words:
                connection.register(path.stem, Table(folder, path.stem, locks).arrow())
        lock_down(connection)
        try:
            answer = connection.execute(sql)
            names = [column[0] for column in answer.description or ()]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
        except duckdb.CatalogException as fault:
            raise NotFoundError("sql", str(fault)) from fault
        except duckdb.Error as fault:
            raise InputError("usage", "sql", str(fault)) from fault


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    for setting in (
        "python_enable_replacements=false",
        "enable_external_access=false",
        "threads=2",
        "lock_configuration=true",
    ):
        connection.execute(f"SET {setting}")


def _arrow(rows: list[dict[str, Any]], schema: pa.Schema | None, name: str) -> pa.Table:
    import pyarrow as pa

    if schema is None:
        table = pa.Table.from_pylist(rows)
        return table.cast(pa.schema([_settled(field) for field in table.schema]))
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise InputError("missing_column", f"table {name}", f"it has no column {sorted(unknown)}; its columns stay.")
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as fault:
        raise InputError("missing_column", f"table {name}", f"a value does not fit its column: {fault}.") from fault


def _settled(field: pa.Field) -> pa.Field:
    """A column that is empty in the first rows is text; a list that is empty is a list of text."""
    import pyarrow as pa

    if pa.types.is_null(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type):
        return pa.field(field.name, pa.list_(pa.string()))
    return field
