"""Hostile SQL through the doors that take SQL from a person: `clip find --sql` and `dataset freeze --query`.

Each text is refused by the locked DuckDB alone (asked without a jail), and, where it reaches for a file or the network,
by the jail alone (asked of a DuckDB that nobody locked).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from onshore import cli
from onshore.core.errors import OnshoreError
from onshore.jail import Jail, Limits
from onshore.store import Center, tables

SECRET = "marker-of-a-key-file"
#: Conditions and questions; {key} is a file with a secret, {out} a place to write.
HOSTILE = (
    "id IN (SELECT content FROM read_text('{key}'))",
    "id IN (SELECT content::VARCHAR FROM read_blob('{key}'))",
    "id IN (SELECT column0 FROM read_csv('{key}'))",
    "id IN (SELECT json FROM read_json('{key}'))",
    "id IN (SELECT file_name FROM parquet_metadata('{key}'))",
    "id IN (SELECT * FROM '{key}')",
    "id IN (SELECT file FROM glob('{folder}/*'))",
    "id IN (SELECT Columns FROM sniff_csv('{key}'))",
    "id IN (SELECT * FROM read_csv('http://192.0.2.1/x.csv'))",
    "id IN (SELECT * FROM read_parquet('s3://bucket/x.parquet'))",
    "id IN (SELECT * FROM 'https://192.0.2.1/x.json')",
    "id IN (SELECT * FROM postgres_scan('host=192.0.2.1', 'public', 'x'))",
    "id IN (SELECT * FROM sqlite_scan('{key}', 'x'))",
    "id IN (SELECT * FROM mysql_query('x', 'select 1'))",
    "id = getenv('HOME')",
    "id = current_setting('home_directory')",
    "id IN (SELECT name FROM duckdb_secrets())",
    "id IN (SELECT value FROM duckdb_settings())",
    "id IN (SELECT path FROM duckdb_databases())",
    "id IN (SELECT table_name FROM information_schema.tables)",
    "id IN (SELECT vehicle FROM segments)",
    "1=1) UNION (SELECT content FROM read_text('{key}')",
    "1=1); COPY clips TO '{out}'; --",
    "1=1); EXPORT DATABASE '{out}'; --",
    "1=1); ATTACH '{out}' AS x; --",
    "1=1); INSTALL httpfs; --",
    "1=1); LOAD httpfs; --",
    "1=1); SET enable_external_access = true; --",
    "1=1); PRAGMA enable_external_access = true; --",
    "1=1); RESET lock_configuration; --",
    "1=1); CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b'); --",
    "1=1); CALL enable_logging(); --",
    "1=1); DROP TABLE clips; --",
    "write_log('x') IS NULL",
)
#: What a DuckDB without its lock would do, so that only the jail is left to say no.
REACHING = (
    "SELECT content FROM read_text('{key}')",
    "SELECT content FROM read_blob('{key}')",
    "SELECT * FROM read_csv('{key}')",
    "SELECT unnest([file]) FROM glob('{folder}/*')",
    "COPY (SELECT 1) TO '{out}'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS x",
    "INSTALL httpfs",
    "SELECT * FROM read_csv('http://192.0.2.1/x.csv')",
)


def unlocked(sql: str) -> list[Any]:
    """Runs in the jail: plain DuckDB, nothing switched off."""
    import duckdb

    return [[str(cell) for cell in row] for row in duckdb.connect(":memory:").execute(sql).fetchall()]


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Center:
    folder = tmp_path_factory.mktemp("sql")
    made = Center.init(folder / "center", "us", keys_dir=folder / "keys")
    row = {"trigger": "hard_brake", "duration_s": 5.0, "start_ns": 0, "segment": "segment-1", "vehicle": "vehicle-1"}
    made.table("clips").append([{"id": "clip-1", **row}, {"id": "clip-2", **row, "duration_s": 2.0}])
    made.table("segments").append([{"id": "segment-1", "vehicle": "vehicle-1"}])
    (folder / "secret").mkdir()
    (folder / "secret/key").write_text(SECRET, encoding="utf8")
    return made


def spelled(text: str, center: Center) -> str:
    folder = center.root.parent
    return text.format(key=folder / "secret/key", folder=folder / "secret", out=folder / "out")


def test_an_honest_condition_is_answered_and_its_jail_is_in_the_ledger(
    center: Center, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sum(entry.kind == "jail" for entry in center.ledger.entries())
    assert cli.run(["--center", str(center.root), "--json", "clip", "find", "--sql", "duration_s > 3"]) == 0
    told = capsys.readouterr().out
    assert "clip-1" in told and "clip-2" not in told
    lines = [entry for entry in Center.open(center.root).ledger.entries() if entry.kind == "jail"]
    assert len(lines) == before + 1 and lines[-1].body["work"] == "sql" and lines[-1].body["open"] == []


#: The door takes seconds a text: every third at once, the others in `make proof`. Lock and jail are asked all of them below.
AT_THE_DOOR = [text if not at % 3 else pytest.param(text, marks=pytest.mark.slow) for at, text in enumerate(HOSTILE)]


@pytest.mark.parametrize("text", AT_THE_DOOR)
def test_hostile_sql_is_refused_by_the_find_door(center: Center, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--center", str(center.root), "clip", "find", "--sql", spelled(text, center)]) == 2
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err and not (center.root.parent / "out").exists()
    assert center.table("clips").count() == 2


@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[8], HOSTILE[22], HOSTILE[27]])
def test_hostile_sql_is_refused_by_the_freeze_door(
    center: Center, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--center", str(center.root), "dataset", "freeze", "stolen", "--query", spelled(text, center)]
    assert cli.run(words) == 2
    assert SECRET not in "".join(capsys.readouterr()) and not (center.root.parent / "out").exists()


def test_the_lock_alone_refuses_each(center: Center) -> None:
    arguments = {"folder": str(center.root / "tables"), "locks": str(center.root / "locks"), "table": "clips"}
    for text in HOSTILE:
        with pytest.raises(OnshoreError):
            tables.jailed_condition({**arguments, "where": spelled(text, center)})
    assert tables.jailed_condition({**arguments, "where": "duration_s > 3"}) == ["clip-1"]


def test_the_jail_alone_refuses_what_reaches_out(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    if Jail(tolerant=True).run_attested("onshore.jail.probes:probe").attestation["missing"]:
        pytest.skip("this machine does not give the whole jail")
    assert unlocked(spelled(REACHING[0], center)) == [[SECRET]]  # without a jail it can be read
    with Jail(limits=Limits(memory_bytes=64 << 30)).open(f"{__name__}:unlocked") as cell:
        assert cell.call("SELECT 1") == [["1"]]
        for text in REACHING:
            try:
                rows = cell.call(spelled(text, center), 120.0)
            except OnshoreError:
                continue
            assert rows == [], text  # DuckDB takes a path that is not there for a pattern without matches
    assert not os.path.lexists(center.root.parent / "out")
