"""Erasing a subject: what came of it is found by lineage, destroyed, marked, and counted until nothing holds it any more.

Rule: the reach is written down before anything is destroyed, so that a killed erasure goes on where it stopped; a second
run finds nothing to do; and a ticket closes only when every store was searched and holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from onshore.border.lines import acting, refuse
from onshore.border.seen import Seen, seen
from onshore.border.workdays import Calendar
from onshore.core.digest import short_id
from onshore.core.errors import NotFoundError, Refusal
from onshore.core.label import Artifact
from onshore.store import custody
from onshore.store.files import idle
from onshore.store.files import sweep as sweep_scratch

if TYPE_CHECKING:
    from onshore.store import Center

#: Kinds that hold what a camera or a receiver recorded, and unfinished training; the others hold figures, ids or weights made of it.
HOLDING = frozenset(
    ["raw_drive", "drive", "segment", "clip", "proxy", "embedding", "picture", "positions", "checkpoint"]
)
MODELS = frozenset(["weights", "inbound_model"])
SUBJECT = re.compile("(vehicle|driver)-[0-9a-f]{24}")
#: A scratch file that nobody has written to for so long was left by a killed process.
IDLE_S = 60.0
_TICKETS = sa.Table(
    "border_erasures",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("record", sa.JSON, nullable=False),
)
_MARKS = sa.Table(
    "border_model_marks",
    sa.MetaData(),
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("ticket", sa.String, nullable=False),
    sa.Column("answer", sa.String, nullable=False),
    sa.Column("proofs", sa.JSON, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a subject's data became. names: drives, segments, clips; blobs: artifacts to destroy; the rest are kept."""

    names: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    cars: tuple[str, ...] = ()

    def joined(self, other: Reach) -> Reach:
        mine, theirs = asdict(self), asdict(other)
        return Reach(**{name: tuple(sorted({*mine[name], *theirs[name]})) for name in mine})


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """One request. state: open, erased (bytes gone), closed (every store searched). due, alarm: days of the region.

    models: each with answer (yes, no, not measurable) of "did it see the subject"; plan: what to run to be rid of it.
    """

    id: str
    subject: str
    state: str
    opened_ns: int
    due: str
    alarm: str
    reach: Reach = field(default_factory=Reach)
    models: tuple[dict[str, Any], ...] = ()
    plan: tuple[str, ...] = ()
    receipts: dict[str, int] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def erase(center: Center, subject: str) -> Erasure:
    """Erase a vehicle or driver, named as its center names it or by its salted id.

    A name is a vehicle's unless `driver:` stands before it; `vehicle:` may stand before one that begins like that itself.
    Errors: NotFoundError when nothing of the subject is here and nothing was.
    """
    _make_tables(center)
    subject = _salted(center, subject)
    ticket = _current(center, subject)
    reach = _reach(center, subject, ticket.reach if ticket else Reach(), thorough=ticket is not None)
    if ticket is None or (ticket.state == "closed" and reach != ticket.reach):
        if not reach.names and not reach.blobs:
            raise NotFoundError(f"subject {subject}", "nothing of it is in this center; give a name or a salted id.")
        ticket = _opened(center, subject)
    elif ticket.state == "closed" or (ticket.state == "erased" and not holding(center, ticket)):
        return ticket
    ticket = replace(ticket, reach=reach)
    _keep(center, ticket)
    marks = _mark(center, ticket)
    receipts = _destroy(center, ticket)
    ticket = replace(ticket, state="erased", models=marks, plan=_plan(center, ticket, marks), receipts=receipts)
    body = {"ticket": ticket.id, "subject": subject, "receipts": receipts, "models": len(marks), "by": acting(center)}
    center.ledger.append("border.erasure.done", body)
    _keep(center, ticket)
    return ticket


def holding(center: Center, ticket: Erasure) -> dict[str, list[str]]:
    """What still holds bytes of the subject, by store; empty when nothing does. Reads every label and every table."""
    reach = _reach(center, ticket.subject, ticket.reach, thorough=True)
    words = _words(ticket.subject, reach)
    kinds = {one.id: one.label.kind for one in center.many(reach.blobs)}
    dead = custody.tombstones(center, reach.blobs)
    alive = [one for one in reach.blobs if one not in dead or center.has_bytes(one)]
    marked = {mark["model"] for mark in marks_of(center, subject=ticket.subject)}
    found = {
        "blobs": [one for one in alive if kinds.get(one) != "proxy"],
        "proxies": [one for one in alive if kinds.get(one) == "proxy"],
        "keys": custody.idle_keys(center, reach.blobs),
        "tables": [name for name in center.tables() if center.table(name).mentions(words)],
        "runs": custody.stages_naming(center, [*reach.names, *reach.blobs]),
        "model list": [model for model in reach.models if model not in marked],
        "dataset cache": _files_naming(center, words),
        "scratch": [path.name for path in idle(center.root / "scratch", IDLE_S)],
        "quarantine": [row["id"] for row in center.quarantine_list() if any(word in row["path"] for word in words)],
    }
    return {store: names for store, names in found.items() if names}


def close(center: Center, ticket_id: str) -> Erasure:
    """Close a ticket after searching every store. Errors: RefusedError `still_held` naming the stores that hold bytes."""
    ticket = erasure(center, ticket_id)
    if ticket.state == "closed":
        return ticket
    held = holding(center, ticket)
    if held or ticket.state != "erased":
        what = ", ".join(f"{store} ({len(names)})" for store, names in sorted(held.items())) or "not erased yet"
        refusal = Refusal(
            code="still_held",
            subject=f"close {ticket.id}",
            rule="erased-everywhere",
            clause=f"CN-17: an erasure is done when no store holds bytes; still holding: {what}",
            remedy="Run `onshore border erase` again for this subject, then close.",
        )
        refuse(center, refusal, [ticket.id])
    center.ledger.append(
        "border.erasure.closed", {"ticket": ticket.id, "subject": ticket.subject, "by": acting(center)}
    )
    ticket = replace(ticket, state="closed")
    _keep(center, ticket)
    return ticket


def erasures(center: Center) -> list[dict[str, Any]]:
    """Every ticket, oldest first: state, due day, working days left, and whether its alarm has sounded."""
    _make_tables(center)
    calendar = Calendar.of(center.pack.law)
    today = calendar.day_of(center.clock.now_ns())
    with center.reader.connect() as connection:
        found = [_read(row) for row in connection.execute(sa.select(_TICKETS.c.record)).scalars()]
    return [
        {
            "id": one.id,
            "subject": one.subject,
            "state": one.state,
            "due": one.due,
            "days_left": calendar.between(today, date.fromisoformat(one.due)) if one.state != "closed" else None,
            "alarm": one.state != "closed" and today >= date.fromisoformat(one.alarm),
            "models": sum(mark["answer"] != "no" for mark in one.models),
        }
        for one in sorted(found, key=lambda one: (one.opened_ns, one.id))
    ]


def erasure(center: Center, ticket_id: str) -> Erasure:
    """One ticket. Errors: NotFoundError."""
    _make_tables(center)
    with center.reader.connect() as connection:
        record = connection.execute(sa.select(_TICKETS.c.record).where(_TICKETS.c.id == ticket_id)).scalar_one_or_none()
    if record is None:
        raise NotFoundError(f"erasure {ticket_id}", "`onshore border erasure list` shows them.")
    return _read(record)


def marks_of(center: Center, *, model: str | None = None, subject: str | None = None) -> list[dict[str, Any]]:
    """What erasures found out about models: subject, ticket, answer, proofs."""
    _make_tables(center)
    asked = sa.select(_MARKS).order_by(_MARKS.c.model, _MARKS.c.subject)
    asked = asked if model is None else asked.where(_MARKS.c.model == model)
    asked = asked if subject is None else asked.where(_MARKS.c.subject == subject)
    with center.reader.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(asked)]


def _salted(center: Center, subject: str) -> str:
    if SUBJECT.fullmatch(subject):
        return subject
    kind, _, name = subject.partition(":")
    return center.subject(kind, name) if kind in {"vehicle", "driver"} else center.subject("vehicle", subject)


def _reach(center: Center, subject: str, known: Reach, *, thorough: bool = False) -> Reach:
    """Down the lineage from where the subject came in, joined with what is known of it. thorough: every label is read
    too, in case an edge is missing. How the subject moved, read off its own video, goes with the video; what the same
    network read off somebody else's stays."""
    rows = center.table("drives").rows(where=f"vehicle = '{subject}'", columns=["id"])
    drives = {row["id"] for row in rows}
    seeds = set(custody.artifacts_of(center, subject))
    seeds |= {row["artifact"] for row in _rows_in(center, "segments", "drive", drives) if row.get("artifact")}
    seeds |= set(custody.carrying(center, subject)) if thorough else set()
    made = center.many(sorted(custody.descendants(center, seeds)))
    drives |= {str(one.meta["drive"]) for one in made if one.label.kind in HOLDING and "drive" in one.meta}
    parts = [*_rows_in(center, "segments", "drive", drives), *_rows_in(center, "clips", "drive", drives)]
    names = {*known.names, *drives, *(row["id"] for row in parts)}

    def holds(one: Artifact) -> bool:
        return one.label.kind in HOLDING or (one.label.kind == "pseudo_labels" and one.meta.get("segment") in names)

    def of(*kinds: str) -> tuple[str, ...]:
        return tuple(sorted(one.id for one in made if one.label.kind in kinds))

    found = Reach(
        names=tuple(sorted(names)),
        blobs=tuple(sorted(one.id for one in made if holds(one))),
        datasets=of("dataset"),
        models=of(*MODELS),
        releases=of("release"),
        cars=tuple(sorted({car for one in made for car in _cars(one)})),
    )
    return found.joined(known)


def _cars(one: Artifact) -> list[str]:
    """Cars that are known to have run something: they reported about it."""
    return [str(one.meta["vehicle"])] if one.label.kind == "shadow_report" and "vehicle" in one.meta else []


def _rows_in(center: Center, table: str, column: str, values: Iterable[str]) -> list[dict[str, Any]]:
    listed = ", ".join(f"'{value}'" for value in sorted(values))
    return center.table(table).rows(where=f"{column} IN ({listed})") if listed else []


def _opened(center: Center, subject: str) -> Erasure:
    now = center.clock.now_ns()
    calendar, limits = Calendar.of(center.pack.law), center.pack.law.get("limits", {})
    today = calendar.day_of(now)
    due = calendar.after(today, int(limits.get("erasure_working_days", 10)))
    alarm = calendar.after(today, int(limits.get("erasure_alarm_working_days", 7)))
    identity = short_id("erasure", [subject, now])
    body = {"ticket": identity, "subject": subject, "due": due.isoformat(), "by": acting(center)}
    center.ledger.append("border.erasure.opened", body)
    ticket = Erasure(
        id=identity, subject=subject, state="open", opened_ns=now, due=due.isoformat(), alarm=alarm.isoformat()
    )
    _keep(center, ticket)
    return ticket


def _mark(center: Center, ticket: Erasure) -> tuple[dict[str, Any], ...]:
    """Ask every model that descends from the subject whether it saw it; the answer and its proofs stay with the model."""
    known = {mark["model"]: mark for mark in marks_of(center, subject=ticket.subject)}
    lines: list[tuple[str, dict[str, Any]]] = []
    for model in ticket.reach.models:
        if model in known:
            continue
        found: Seen = seen(center, model, ticket.subject)
        known[model] = {
            "model": model,
            "subject": ticket.subject,
            "ticket": ticket.id,
            "answer": found.answer,
            "proofs": found.proofs,
        }
        roots = [proof["root"] for proof in found.proofs]
        lines.append(
            ("border.erasure.model", {"ticket": ticket.id, "model": model, "answer": found.answer, "roots": roots[:16]})
        )
        with center.db.begin() as connection:
            connection.execute(insert(_MARKS).values(known[model]).on_conflict_do_nothing())
    center.ledger.append_many(lines)
    return tuple({"model": mark["model"], "answer": mark["answer"]} for _, mark in sorted(known.items()))


def _destroy(center: Center, ticket: Erasure) -> dict[str, int]:
    reach, words = ticket.reach, _words(ticket.subject, ticket.reach)
    custody.bury(center, reach.names, reason="erasure", ticket=ticket.id)
    blobs = custody.destroy(center, reach.blobs, reason="erasure", ticket=ticket.id)
    rows = sum(center.table(name).forget(words) for name in center.tables())
    custody.forget_subject(center, ticket.subject)
    runs = custody.forget_stages(center, [*reach.names, *reach.blobs])
    sweep_scratch(center.root / "scratch", older_than_s=IDLE_S)
    before = ticket.receipts
    return {
        "blobs": before.get("blobs", 0) + len(blobs),
        "rows": before.get("rows", 0) + rows,
        "runs": before.get("runs", 0) + runs,
        "names": len(reach.names),
    }


def _plan(center: Center, ticket: Erasure, marks: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    """The commands that lead to models which never saw the subject, in order; releases made of marked ones are named."""
    steps: dict[str, None] = {}
    bad = [mark["model"] for mark in marks if mark["answer"] != "no"]
    for one in sorted(center.many(bad), key=lambda model: model.id):
        if "recipe" not in one.meta:
            steps[f"replace {one.id}: it came from elsewhere and what it saw is not known here"] = None
            continue
        names = [parent.name for parent in center.many(one.parents) if parent.label.kind == "dataset"]
        for name in names:
            steps[f"onshore dataset freeze {name}  # its next version, without the subject"] = None
        base = f" --base {one.meta['base']}" if one.meta.get("base") else ""
        base = " --base (its retrained base)" if one.meta.get("base") in bad else base
        recipe, dataset = one.meta["recipe"]["name"], names[0] if names else "?"
        steps[f"onshore model train --recipe {recipe} --dataset {dataset}{base}  # in place of {one.id}"] = None
    steps |= {f"withdraw or replace release {release}": None for release in ticket.reach.releases if bad}
    return tuple(steps)


def _words(subject: str, reach: Reach) -> list[str]:
    """Everything by which a row would name the subject's data."""
    return [subject, *reach.names, *reach.blobs]


def _files_naming(center: Center, words: list[str]) -> list[str]:
    """Files of the center that no store owns (caches of any kind) and that name one of the words."""
    owned = {"blobs", "tables", "ledger", "locks", "scratch"}
    found = []
    for path in sorted(center.root.rglob("*")):
        top = path.relative_to(center.root).parts[0]
        if top in owned or top.startswith(("state.sqlite", "center.toml")) or not path.is_file():
            continue
        content = str(path.name).encode() + b"\n" + path.read_bytes()
        if any(word.encode() in content for word in words):
            found.append(str(path.relative_to(center.root)))
    return found


def _current(center: Center, subject: str) -> Erasure | None:
    with center.reader.connect() as connection:
        rows = connection.execute(sa.select(_TICKETS.c.record).where(_TICKETS.c.subject == subject)).scalars()
        found = sorted((_read(row) for row in rows), key=lambda one: (one.opened_ns, one.id))
    return found[-1] if found else None


def _keep(center: Center, ticket: Erasure) -> None:
    row = {"id": ticket.id, "subject": ticket.subject, "state": ticket.state, "record": ticket.as_record()}
    kept = insert(_TICKETS).values(row)
    with center.db.begin() as connection:
        connection.execute(kept.on_conflict_do_update(index_elements=[_TICKETS.c.id], set_=row))


def _read(record: dict[str, Any]) -> Erasure:
    reach = Reach(**{name: tuple(values) for name, values in record["reach"].items()})
    tuples = {"models": tuple(record["models"]), "plan": tuple(record["plan"])}
    return Erasure(**{**record, **tuples, "reach": reach})


def _make_tables(center: Center) -> None:
    with center.db.begin() as connection:
        _TICKETS.metadata.create_all(connection)
        _MARKS.metadata.create_all(connection)
