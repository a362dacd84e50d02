"""Cumulative budgets: how much one recipient may get in a calendar year, counted from the ledger itself.

Rule: the ledger is the only counter; nothing that can be reset on its own. A repeat of an export that was written before
(same permit, same bytes) is the same export. Splitting one quantity over many exports does not get around a sum.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onshore.border.book import read_book
from onshore.core.errors import InputError, Refusal

if TYPE_CHECKING:
    from onshore.store import Center


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits per recipient and calendar year (UTC): bytes and number of distinct exports."""

    bytes: int = 4 << 30
    exports: int = 100

    @classmethod
    def from_law(cls, law: Mapping[str, Any]) -> Budget:
        given = law.get("export", {}).get("budget", {})
        if set(given) - {"bytes", "exports"} or any(type(value) is not int or value < 0 for value in given.values()):
            raise InputError("bad_config", "export.budget", "region.toml gives `bytes` and `exports` as whole numbers.")
        return cls(**given)


def spent(center: Center, recipient: str, year: int) -> dict[tuple[str, str], int]:
    """What a recipient (salted id) got in a year: (artifact, sha256) -> bytes, repeats counted once."""
    return {
        (one.artifact, one.sha256): one.bytes
        for one in read_book(center).exports
        if one.recipient == recipient and year_of(one.time_ns) == year
    }


def objection(center: Center, recipient: str, fresh: tuple[str, str], size: int, time_ns: int) -> Refusal | None:
    """A refusal when this export (artifact, sha256) of `size` bytes would exceed the recipient's budget of the year."""
    limit = Budget.from_law(center.pack.law)
    year = year_of(time_ns)
    got = spent(center, recipient, year)
    got[fresh] = size
    if len(got) <= limit.exports and sum(got.values()) <= limit.bytes:
        return None
    clause = (
        f"{len(got)} exports and {sum(got.values())} bytes in {year}; {limit.exports} and {limit.bytes} are allowed"
    )
    return Refusal(
        code="limit_exceeded",
        subject=f"export to {recipient}",
        rule="yearly-budget",
        clause=f"CN-02: no export beyond the scale assessed, and no splitting to stay below it; {clause}",
        remedy="Wait for the next year, or have the assessment and the budget in region.toml raised.",
    )


def year_of(time_ns: int) -> int:
    return datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.UTC).year
