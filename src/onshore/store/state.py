"""Operational state: one SQLite file through SQLAlchemy Core, written ahead and flushed before anything is acknowledged.

Rule: every write is one immediate transaction; readers never wait for writers.
"""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path
from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData()
ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False, index=True),
    sa.Column("label", sa.JSON, nullable=False),
    sa.Column("parents", sa.JSON, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("key_id", sa.String, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False, index=True),
    # When its retention clock began (POSIX ns); 0 in rows of a version that did not count.
    sa.Column("born_ns", sa.BigInteger, nullable=False, server_default="0"),
)
TOMBSTONES = sa.Table(
    "tombstones",
    METADATA,
    sa.Column("artifact", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("ticket", sa.String, nullable=False),
    sa.Column("time_ns", sa.BigInteger, nullable=False),
    sa.Column("receipt", sa.Boolean, nullable=False),
)
SUBJECTS = sa.Table(
    "subjects",
    METADATA,
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("artifact", sa.String, primary_key=True),
)
LINEAGE = sa.Table(
    "lineage",
    METADATA,
    sa.Column("parent", sa.String, primary_key=True),
    sa.Column("child", sa.String, primary_key=True),
)
STAGES = sa.Table(
    "stages",
    METADATA,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("outputs", sa.JSON, nullable=False),
)
QUARANTINE = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("code", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("bytes_digest", sa.String, nullable=False),
    sa.Column("asked", sa.JSON, nullable=False, server_default="{}"),
)


def open_state(path: Path) -> sa.Engine:
    """The engine of a center's state file; tables are made when missing."""
    engine = open_sqlite(path, METADATA)
    with engine.begin() as connection:
        _add_missing_columns(connection)
    return engine


def open_sqlite(path: Path, metadata: sa.MetaData) -> sa.Engine:
    """The engine of one SQLite file with these tables."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60.0})
    sa.event.listen(engine, "connect", _on_connect)
    sa.event.listen(engine, "begin", _on_begin)
    with engine.begin() as connection:
        metadata.create_all(connection)
    _let_go_in_children(engine)
    return engine


def snapshot(reader: sa.Engine, path: Path) -> None:
    """Copy the database as it is at one moment into a new file, while others write."""
    with reader.connect() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(path),))
    path.chmod(0o600)


def _add_missing_columns(connection: sa.Connection) -> None:
    """A center of an earlier version gets the columns that are new; the retention clock of its artifacts starts now."""
    known = {column["name"] for column in sa.inspect(connection).get_columns(ARTIFACTS.name)}
    if ARTIFACTS.c.born_ns.name not in known:
        connection.exec_driver_sql("ALTER TABLE artifacts ADD COLUMN born_ns BIGINT NOT NULL DEFAULT 0")
        connection.execute(sa.update(ARTIFACTS).values(born_ns=time.time_ns()))
    known = {column["name"] for column in sa.inspect(connection).get_columns(QUARANTINE.name)}
    if QUARANTINE.c.asked.name not in known:
        connection.exec_driver_sql("ALTER TABLE quarantine ADD COLUMN asked JSON NOT NULL DEFAULT '{}'")


def _let_go_in_children(engine: sa.Engine) -> None:
    """A forked child must not use its parent's SQLite connections; it opens its own."""
    held = weakref.ref(engine)

    def forget() -> None:
        if (parent_engine := held()) is not None:
            parent_engine.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


def _on_connect(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: sa.Connection) -> None:
    # A reader's single statement is a snapshot by itself; only writers need a transaction.
    if not connection.get_execution_options().get("onshore_read", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
