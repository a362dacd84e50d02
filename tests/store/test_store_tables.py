"""Tables: stable types, whole commits, and SQL that sees nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onshore.core.errors import InputError, NotFoundError, OnshoreError
from onshore.store import Center, tables


def rows(count: int, **more: object) -> list[dict[str, object]]:
    return [{"id": f"row-{index}", "n": index, "speed_mps": index / 2, **more} for index in range(count)]


def test_a_missing_table_is_empty(center: Center) -> None:
    table = center.table("drives")
    assert table.rows() == [] and table.count() == 0 and table.arrow() is None
    table.delete("n > 1")
    table.append([])
    table.upsert([])
    table.compact()
    assert table.rows() == []


def test_append_upsert_delete(center: Center) -> None:
    table = center.table("drives")
    table.append(rows(3))
    table.upsert([{"id": "row-1", "n": 10, "speed_mps": 1}, {"id": "row-9", "n": 9, "speed_mps": 0.0}])
    assert [row["n"] for row in center.table("drives").rows(order="n")] == [0, 2, 9, 10]
    assert [row["id"] for row in table.rows(order="n desc", limit=2)] == ["row-1", "row-9"]
    assert table.rows("n = 2", columns=["id"]) == [{"id": "row-2"}]
    assert table.rows(order="n", columns=["id"], limit=1) == [{"id": "row-0"}]
    assert table.count("n >= 9") == 2
    table.delete("n >= 9")
    assert table.count() == 2


def test_the_first_upsert_makes_the_table_and_the_last_of_equals_holds(center: Center) -> None:
    center.table("a").upsert([{"id": "x", "n": 1}, {"id": "x", "n": 2}])
    assert center.table("a").rows() == [{"id": "x", "n": 2}]


def test_types_settle_with_the_first_value_and_stay(center: Center) -> None:
    table = center.table("clips")
    table.append([{"id": "a", "score": None, "tags": [], "n": 1}])
    table.append([{"id": "b", "score": None, "tags": [], "n": 2}])
    table.append([{"id": "c", "score": 0.5, "tags": ["x"], "n": 3}])
    table.append([{"id": "d", "score": 1, "tags": [], "n": 4}])
    table.append([{"id": "e", "score": None, "tags": None, "n": None}])
    found = {row["id"]: row for row in table.rows()}
    assert [found[key]["score"] for key in "abcde"] == [None, None, 0.5, 1.0, None]
    assert [found[key]["tags"] for key in "abcde"] == [[], [], ["x"], [], None]
    with pytest.raises(InputError, match="clips"):
        table.append([{"id": "f", "n": "text"}])
    with pytest.raises(InputError, match="clips"):
        table.append([{"id": "f", "n": 1.5}])
    assert table.count() == 5, "a batch that does not fit leaves nothing"


def test_columns_may_come_later_and_rows_may_lack_some(center: Center) -> None:
    table = center.table("clips")
    table.append([{"id": "a"}, {"id": "b", "n": 1}])
    table.upsert([{"id": "a", "trigger": "hard_brake"}])
    found = {row["id"]: row for row in table.rows()}
    assert found == {
        "a": {"id": "a", "n": None, "trigger": "hard_brake"},
        "b": {"id": "b", "n": 1, "trigger": None},
    }


def test_writers_at_once_lose_nothing(center: Center) -> None:
    def write(worker: int) -> None:
        table = Center.open(center.root).table("clips")
        for index in range(5):
            table.upsert([{"id": f"{worker}-{index}", "n": index}])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert center.table("clips").count() == 20


def test_many_small_commits_become_few_files(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FRAGMENTS_BEFORE_TIDYING", 8)
    table = center.table("clips")
    for index in range(20):
        table.append([{"id": f"row-{index}"}])
    stored = table._open()
    assert stored is not None and len(stored.get_fragments()) < 9 and table.count() == 20


def test_compacting_leaves_no_trace_of_what_was_deleted(center: Center) -> None:
    table = center.table("clips")
    table.append([{"id": "kept"}, {"id": "marker-to-delete"}])
    table.delete("id = 'marker-to-delete'")
    table.compact()
    files = [path for path in (center.root / "tables").rglob("*") if path.is_file()]
    assert files and not any(b"marker-to-delete" in path.read_bytes() for path in files)
    assert table.rows() == [{"id": "kept"}]


@pytest.mark.parametrize("name", ["", "../x", "A", "x" * 81, "a/b"])
def test_bad_names(center: Center, name: str) -> None:
    with pytest.raises(InputError, match="bad_id"):
        center.table(name)


def test_a_bad_filter_is_an_input_error(center: Center) -> None:
    center.table("clips").append(rows(1))
    for where in ("colour = 1", "n = = 1"):
        with pytest.raises(InputError):
            center.table("clips").rows(where)
        with pytest.raises(InputError):
            center.table("clips").count(where)
    with pytest.raises(InputError):
        center.table("clips").rows(columns=["colour"])
    with pytest.raises(InputError):
        center.table("clips").rows(order="colour")


def test_sql_over_the_tables(center: Center) -> None:
    center.table("drives").append(rows(4))
    center.table("clips").append([{"id": "c", "drive": "row-1"}])
    assert center.sql("select sum(n) as total from drives") == [{"total": 6}]
    joined = center.sql("select d.n from clips c join drives d on c.drive = d.id")
    assert joined == [{"n": 1}] and center.sql("select * from drives where n > 9") == []
    with pytest.raises(NotFoundError):
        center.sql("select * from releases")
    with pytest.raises(InputError):
        center.sql("select nothing from drives")


def test_sql_reads_and_writes_nothing_else(center: Center, tmp_path: Path) -> None:
    center.table("drives").append(rows(1))
    key, target = center.config.keys_dir / "region-1.key", tmp_path / "out.csv"
    secret = "a local variable of the caller"
    for text in (
        f"select * from read_blob('{key}')",
        f"select * from drives where id in (select content from read_text('{key}'))",
        f"select * from '{key}'",
        f"copy drives to '{target}'",
        f"attach '{tmp_path}/x.db' as x",
        f"export database '{tmp_path}/dump'",
        "install httpfs",
        "load httpfs",
        "select * from read_csv('http://192.0.2.1/x.csv')",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset enable_external_access",
        "pragma enable_external_access = true",
        "select * from secret",
        "select * from rows",
    ):
        with pytest.raises((InputError, NotFoundError)):
            center.sql(text)
    assert not target.exists() and not (tmp_path / "dump").exists() and secret


def test_sql_in_the_jail_answers_the_same(center: Center) -> None:
    center.table("drives").append(rows(4))
    text = "select id, sum(n) as total from drives group by id order by id"
    assert center.sql(text, jailed=True) == [{"id": f"row-{number}", "total": number} for number in range(4)]
    with pytest.raises(OnshoreError, match="usage"):
        center.sql(f"select * from read_blob('{center.config.keys_dir}/region-1.key')", jailed=True)


def test_a_record_whose_field_nobody_had_set_takes_it_later_and_the_other_way_round(center: Center) -> None:
    table = center.table("asked")
    for number, dataset in enumerate((None, "first", None, "second")):
        table.upsert([{"id": f"row-{number}", "asked": {"gate": "bench", "dataset": dataset}}])
    found = {row["id"]: row["asked"]["dataset"] for row in table.rows()}
    assert found == {"row-0": None, "row-1": "first", "row-2": None, "row-3": "second"}
    with pytest.raises(InputError, match="columns keep their type"):
        table.upsert([{"id": "row-9", "asked": {"gate": "bench", "dataset": 3}}])
