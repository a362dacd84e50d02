"""The sweeper: destroys what has expired. Nothing waits for it, since what has expired is unreadable already.

Rule: it believes the center's clock only while that is within weeks of the ledger's last line, and the lines within weeks of
each other, or a person has accepted it; receipts are ledger lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onshore.border.lines import acting
from onshore.core.digest import short_id
from onshore.store import custody
from onshore.store.clock import DAY_NS

if TYPE_CHECKING:
    from onshore.store import Center

#: A center that has written nothing for longer does not destroy by its own clock alone.
MOST_FORWARD_NS = 35 * DAY_NS


def sweep(center: Center) -> dict[str, Any]:
    """Destroy every artifact whose retention has ended. Returns counts by kind; a second run finds nothing.

    One that was killed is gone on with under its own ticket.

    Errors: OnshoreError `clock_jump` when the wall clock is behind the ledger or over 35 days ahead of its last line, or when
    time leapt so far between two lines and nobody accepted the clock since.
    """
    now = center.clock.now_ns(most_forward_ns=MOST_FORWARD_NS)
    begun = custody.unfinished(center, "retention")
    late = list(dict.fromkeys([*begun, *custody.expired(center)]))
    if not late and not _rows_left(center):
        return {"ticket": "", "destroyed": 0, "kinds": {}}
    center.clock.refuse_leaps(MOST_FORWARD_NS)
    ticket = next(iter(begun.values()), short_id("sweep", [center.id, now, *late[:1], len(late)]))
    kinds: dict[str, int] = {}
    for one in center.many(late):
        kinds[one.label.kind] = kinds.get(one.label.kind, 0) + 1
    done = custody.destroy(center, late, reason="retention", ticket=ticket)
    names = _rows_left(center)
    custody.bury(center, names, reason="retention", ticket=ticket)
    rows = sum(center.table(table).forget(names) for table in ("segments", "clips") if names)
    center.ledger.append(
        "border.sweep", {"ticket": ticket, "destroyed": len(done), "kinds": kinds, "by": acting(center)}
    )
    return {"ticket": ticket, "destroyed": len(done), "kinds": dict(sorted(kinds.items())), "rows": rows}


def _rows_left(center: Center) -> list[str]:
    """Segments that some sweep destroyed and their clips, as far as the tables still name them.

    Asked of all tombstones and not of one run's: a sweep that was killed may have left rows.
    """
    dead = [one.artifact for one in custody.tombstones(center).values() if one.reason == "retention"]
    gone = {one.name for one in center.many(dead) if one.label.kind == "segment" and one.name}
    segments = {row["id"] for row in center.table("segments").rows(columns=["id"])} & gone
    clips = [row for row in center.table("clips").rows(columns=["id", "segment"]) if row["segment"] in gone]
    return sorted({*segments, *(row["segment"] for row in clips), *(row["id"] for row in clips)})
