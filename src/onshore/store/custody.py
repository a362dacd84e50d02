"""What is kept for how long, and how it ends: expiry at read time, tombstones, destruction with receipts, subjects counted.

Rule: an artifact is unreadable from the moment its tombstone is committed, and its tombstone comes before anything is
destroyed; a killed destruction is gone on with and ends the same. Rows stay, so that lineage can be judged; bytes do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from onshore.core.errors import InputError, Refusal
from onshore.core.label import Label
from onshore.store import state
from onshore.store.clock import DAY_NS

if TYPE_CHECKING:
    from onshore.store.center import Center

PORTION, NAMED_IN_A_LINE = 400, 200
#: Reasons after which nothing more is made of a thing. What retention or a successor ended lives on in its descendants.
WITHDRAWN = ("erasure", "geofence")


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """Why an artifact is gone: reason (`erasure`, `retention`, `geofence`, `superseded`), the ticket that asked, and when (POSIX ns)."""

    artifact: str
    reason: str
    ticket: str
    time_ns: int

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def tombstones(center: Center, ids: Iterable[str] | None = None) -> dict[str, Tombstone]:
    """The tombstones among these artifacts, or all of the center's."""
    table = state.TOMBSTONES
    asked = sa.select(table.c.artifact, table.c.reason, table.c.ticket, table.c.time_ns)
    portions = [asked] if ids is None else [asked.where(table.c.artifact.in_(some)) for some in _portions(ids)]
    with center.reader.connect() as connection:
        rows = [row for portion in portions for row in connection.execute(portion)]
    return {row.artifact: Tombstone(**row._mapping) for row in rows}


def gone(row: Any) -> InputError:
    """The error of whoever asks for an artifact that has a tombstone."""
    advice = f"its bytes were destroyed ({row.reason}, {row.ticket}) and do not come back."
    return InputError("erased", row.id, advice)


def refuse_withdrawn(connection: sa.Connection, ids: Iterable[str]) -> None:
    """Errors: InputError `erased` when one of these was erased or fenced off.

    Asked in the transaction that writes a descendant: an erasure comes before it and is seen here, or after it and finds
    the descendant by its edge.
    """
    table = state.TOMBSTONES
    for some in _portions(ids):
        asked = sa.select(table.c.artifact.label("id"), table.c.reason, table.c.ticket)
        row = connection.execute(asked.where(table.c.artifact.in_(some), table.c.reason.in_(WITHDRAWN))).first()
        if row is not None:
            raise gone(row)


def expiry_ns(center: Center, retention: str, born_ns: int) -> int | None:
    """When an artifact born then stops being readable; None where the class has no end."""
    days = int(center.pack.law.get("retention_days", {}).get(retention, 0))
    return born_ns + days * DAY_NS if days > 0 and born_ns > 0 else None


def overdue(center: Center, row: Any) -> Refusal | None:
    """The refusal for an artifact whose time has passed, whether or not a sweeper ran."""
    retention = Label.from_record(row.label).retention
    end = expiry_ns(center, retention, row.born_ns)
    if end is None or center.clock.now_ns() < end:
        return None
    return Refusal(
        code="expired",
        subject=f"read {row.id}",
        rule="retention",
        clause=f"retention class {retention} of the region pack, counted from intake (CN-16)",
        remedy="It can no longer be read; `onshore border sweep` destroys it and leaves receipts.",
    )


def born(center: Center, label: Label, parents: Sequence[str]) -> int:
    """When a new artifact's clock began: with its oldest parent of the same class, so that copying prolongs nothing."""
    table, ages = state.ARTIFACTS, [center.clock.now_ns()]
    with center.reader.connect() as connection:
        for some in _portions(parents):
            same = table.c.label["retention"].as_string() == label.retention
            asked = sa.select(sa.func.min(table.c.born_ns)).where(table.c.id.in_(some), same, table.c.born_ns > 0)
            oldest = connection.execute(asked).scalar_one_or_none()
            ages += [oldest] if oldest else []
    return min(ages)


def expired(center: Center) -> list[str]:
    """Artifacts whose time has passed and whose bytes are still here, oldest first."""
    now = center.clock.now_ns()
    table = state.ARTIFACTS
    found: list[tuple[int, str]] = []
    with center.reader.connect() as connection:
        for retention, days in sorted(center.pack.law.get("retention_days", {}).items()):
            if not days:
                continue
            late = sa.and_(table.c.born_ns > 0, table.c.born_ns <= now - int(days) * DAY_NS)
            asked = sa.select(table.c.id, table.c.sequence).where(
                late, table.c.label["retention"].as_string() == retention
            )
            found += [(row.sequence, row.id) for row in connection.execute(asked)]
    return [identity for _, identity in sorted(found) if center.has_bytes(identity)]


def destroy(center: Center, ids: Iterable[str], *, reason: str, ticket: str) -> list[str]:
    """Destroy the bytes of these artifacts: tombstones, then data keys that seal nothing else, then the files, then receipts.

    Returns the ids whose receipt is new. The same call again is a no-op; after a kill it goes on where it stopped.
    """
    wanted = sorted(set(ids))
    _bury(center, wanted, reason, ticket)
    left = sorted({*_without_receipt(center, wanted), *(one for one in wanted if center.has_bytes(one))})
    center.shred(idle_keys(center, left))
    for identity in left:
        center.unlink(identity)
    _receipts(center, left, reason, ticket)
    return left


def unfinished(center: Center, reason: str) -> dict[str, str]:
    """Artifacts whose destruction for this reason was cut short before its receipts, oldest first, with its ticket."""
    table = state.TOMBSTONES
    asked = sa.select(table.c.artifact, table.c.ticket).where(table.c.reason == reason, sa.not_(table.c.receipt))
    with center.reader.connect() as connection:
        rows = connection.execute(asked.order_by(table.c.time_ns, table.c.artifact)).all()
    return {row.artifact: row.ticket for row in rows}


def bury(center: Center, ids: Iterable[str], *, reason: str, ticket: str) -> None:
    """Tombstones for what has no bytes of its own: drives, segments, clips."""
    _bury(center, sorted(set(ids)), reason, ticket, receipt=True)


def subjects_in(center: Center) -> int:
    """How many distinct vehicles and drivers this center has seen and not erased."""
    with center.reader.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count(state.SUBJECTS.c.subject.distinct()))).scalar_one())


def newest_subject(center: Center) -> int:
    """The number of the last row that named a subject; another number when one came in since."""
    asked = sa.select(sa.func.coalesce(sa.func.max(sa.literal_column("rowid", sa.Integer)), 0)).select_from(
        state.SUBJECTS
    )
    with center.reader.connect() as connection:
        return int(connection.execute(asked).scalar_one())


def artifacts_of(center: Center, subject: str) -> list[str]:
    """Where a subject came in: the artifacts that carry it and got it from no parent."""
    table = state.SUBJECTS
    with center.reader.connect() as connection:
        return list(connection.execute(sa.select(table.c.artifact).where(table.c.subject == subject)).scalars())


def carrying(center: Center, subject: str) -> list[str]:
    """Every artifact whose label names a subject, by reading all labels: slow, and misses nothing."""
    table = state.ARTIFACTS
    text = sa.cast(table.c.label, sa.Text)
    with center.reader.connect() as connection:
        return list(connection.execute(sa.select(table.c.id).where(text.like(f'%"{subject}"%'))).scalars())


def descendants(center: Center, seeds: Iterable[str]) -> set[str]:
    """The seeds and everything made of them, erased or not."""
    with center.reader.connect() as connection:
        return descendants_in(connection, seeds)


def descendants_in(connection: sa.Connection, seeds: Iterable[str]) -> set[str]:
    """As `descendants`, in a transaction that is open."""
    waiting = list(seeds)
    found = set(waiting)
    while waiting:
        fresh: set[str] = set()
        for some in _portions(waiting):
            asked = sa.select(state.LINEAGE.c.child).where(state.LINEAGE.c.parent.in_(some))
            fresh |= set(connection.execute(asked).scalars()) - found
        found |= fresh
        waiting = list(fresh)
    return found


def introduce(connection: sa.Connection, artifact: str, subjects: Iterable[str]) -> None:
    """Note the subjects that come in with this artifact."""
    rows = [{"subject": subject, "artifact": artifact} for subject in sorted(subjects)]
    if rows:
        connection.execute(insert(state.SUBJECTS).on_conflict_do_nothing(), rows)


def forget_subject(center: Center, subject: str) -> None:
    with center.db.begin() as connection:
        connection.execute(sa.delete(state.SUBJECTS).where(state.SUBJECTS.c.subject == subject))


def stages_naming(center: Center, words: Iterable[str]) -> list[str]:
    """Keys of the runs whose inputs or outputs name one of these ids."""
    wanted, table = set(words), state.STAGES
    with center.reader.connect() as connection:
        rows = connection.execute(sa.select(table.c.key, table.c.inputs, table.c.outputs)).all()
    return [row.key for row in rows if wanted & (set(_texts(row.inputs)) | set(_texts(row.outputs)))]


def forget_stages(center: Center, words: Iterable[str]) -> int:
    """Forget the runs whose inputs or outputs name one of these ids; how many there were."""
    keys, table = stages_naming(center, words), state.STAGES
    with center.db.begin() as connection:
        for some in _portions(keys):
            connection.execute(sa.delete(table).where(table.c.key.in_(some)))
    return len(keys)


def _bury(center: Center, ids: Sequence[str], reason: str, ticket: str, *, receipt: bool = False) -> None:
    known = tombstones(center, ids)
    now = center.clock.now_ns()
    rows = [
        {"artifact": one, "reason": reason, "ticket": ticket, "time_ns": now, "receipt": receipt}
        for one in ids
        if one not in known
    ]
    if rows:
        with center.db.begin() as connection:
            connection.execute(insert(state.TOMBSTONES).on_conflict_do_nothing(), rows)


def _without_receipt(center: Center, ids: Sequence[str]) -> list[str]:
    table = state.TOMBSTONES
    found: list[str] = []
    with center.reader.connect() as connection:
        for some in _portions(ids):
            asked = sa.select(table.c.artifact).where(table.c.artifact.in_(some), sa.not_(table.c.receipt))
            found += connection.execute(asked).scalars().all()
    return sorted(found)


def idle_keys(center: Center, ids: Iterable[str]) -> list[str]:
    """Data keys of these artifacts that seal nothing readable any more and were not destroyed yet."""
    table, dead = state.ARTIFACTS, state.TOMBSTONES
    keys: set[str] = set()
    busy: set[str] = set()
    with center.reader.connect() as connection:
        for some in _portions(ids):
            keys |= set(connection.execute(sa.select(table.c.key_id).where(table.c.id.in_(some))).scalars())
        for some in _portions(keys):
            joined = table.outerjoin(dead, dead.c.artifact == table.c.id)
            asked = (
                sa.select(table.c.key_id).select_from(joined).where(table.c.key_id.in_(some), dead.c.artifact.is_(None))
            )
            busy |= set(connection.execute(asked.distinct()).scalars())
    return [key for key in sorted(keys - busy - {"center"}) if center.has_key(key)]


def destroyed_since(center: Center, ids: Iterable[str]) -> list[str]:
    """Those of these artifacts that this center has destroyed: by a tombstone, or with their key."""
    table, shredded = state.ARTIFACTS, set(center.keys.shredded())
    found = set[str]()
    with center.reader.connect() as connection:
        for some in _portions(ids):
            rows = connection.execute(sa.select(table.c.id, table.c.key_id).where(table.c.id.in_(some)))
            found |= {row.id for row in rows if row.key_id in shredded}
    return sorted(found | set(tombstones(center, ids)))


def _receipts(center: Center, ids: Sequence[str], reason: str, ticket: str) -> None:
    lines: list[tuple[str, dict[str, Any]]] = [
        ("destroyed", {"reason": reason, "ticket": ticket, "artifacts": list(ids[first : first + NAMED_IN_A_LINE])})
        for first in range(0, len(ids), NAMED_IN_A_LINE)
    ]
    center.ledger.append_many(lines)
    table = state.TOMBSTONES
    with center.db.begin() as connection:
        for some in _portions(ids):
            connection.execute(sa.update(table).where(table.c.artifact.in_(some)).values(receipt=True))


def _portions(ids: Iterable[str]) -> list[list[str]]:
    listed = list(ids)
    return [listed[first : first + PORTION] for first in range(0, len(listed), PORTION)]


def _texts(record: Any) -> Iterable[str]:
    """Every text in a JSON record."""
    if isinstance(record, str):
        yield record
    elif isinstance(record, dict):
        for value in record.values():
            yield from _texts(value)
    elif isinstance(record, list):
        for value in record:
            yield from _texts(value)
