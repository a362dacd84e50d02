"""The sweeper: destroys what has expired. Nothing waits for it, since what has expired is unreadable already.

Rule: it believes the center's clock only while that is within weeks of the ledger's last line; receipts are ledger lines.
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

    Errors: OnshoreError `clock_jump` when the wall clock is behind the ledger or over 35 days ahead of its last line.
    """
    now = center.clock.now_ns(most_forward_ns=MOST_FORWARD_NS)
    late = custody.expired(center)
    if not late:
        return {"ticket": "", "destroyed": 0, "kinds": {}}
    ticket = short_id("sweep", [center.id, now, late[0], len(late)])
    kinds: dict[str, int] = {}
    for one in center.many(late):
        kinds[one.label.kind] = kinds.get(one.label.kind, 0) + 1
    done = custody.destroy(center, late, reason="retention", ticket=ticket)
    names = {one.name for one in center.many(done) if one.label.kind == "segment" and one.name}
    listed = ", ".join(f"'{name}'" for name in sorted(names))
    clips = center.table("clips").rows(where=f"segment IN ({listed})", columns=["id"]) if names else []
    custody.bury(center, [*names, *(row["id"] for row in clips)], reason="retention", ticket=ticket)
    rows = sum(center.table(table).forget(names) for table in ("segments", "clips") if names)
    center.ledger.append(
        "border.sweep", {"ticket": ticket, "destroyed": len(done), "kinds": kinds, "by": acting(center)}
    )
    return {"ticket": ticket, "destroyed": len(done), "kinds": dict(sorted(kinds.items())), "rows": rows}
