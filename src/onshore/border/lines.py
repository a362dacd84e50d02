"""The ledger's line for every no.

Rule: a refusal is written down before it is raised, with digests and salted ids only; what it was about stays readable
for people in the refusal itself, never in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from onshore.border.people import person, pseudonym
from onshore.core.errors import Refusal, RefusedError

if TYPE_CHECKING:
    from onshore.store import Center

MOST_NAMED = 64


def acting(center: Center) -> str:
    """The salted id of the person this center is open for."""
    return pseudonym(center, "person", person(center.actor))


def refuse(center: Center, refusal: Refusal, artifacts: list[str]) -> NoReturn:
    """Write the refusal down, then raise it as RefusedError. artifacts: digests and ids of permits it was about."""
    body = {"code": refusal.code, "rule": refusal.rule, "artifacts": artifacts[:MOST_NAMED], "count": len(artifacts)}
    center.ledger.append("border.refused", {**body, "by": acting(center)})
    raise RefusedError(refusal)


def refuse_if(center: Center, refusal: Refusal | None, artifacts: list[str]) -> None:
    if refusal is not None:
        refuse(center, refusal, artifacts)
