"""Which drives are held out. Pure.

Rule: a split never cuts a place (or, where no place is known, a drive) in two; it follows from a seed and the names
alone, so a drive that was trained on is never held out later, however much the fleet grows (unless drives are dropped).
With two places or drives and more, at least one is held out and at least one is not.
"""

from __future__ import annotations

from collections.abc import Mapping

from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError

TRAIN, HELD_OUT = "train", "held_out"


def split_drives(places: Mapping[str, str], *, held_out: float, seed: int, by: str = "place") -> dict[str, str]:
    """drive id -> "train" or "held_out", from drive id -> place ("" where not known).

    `by`: "place" keeps every place whole; "drive" looks at drives alone. When all drives share one place, drives are
    split. Raises InputError `bad_config` for a share outside 0..1.
    """
    if not 0 <= held_out < 1 or by not in ("place", "drive"):
        raise InputError("bad_config", "held_out", "give a share of at least 0 and below 1, by place or by drive.")
    groups = {
        drive: (f"place {place}" if by == "place" and place else f"drive {drive}") for drive, place in places.items()
    }
    if len(set(groups.values())) == 1:
        groups = {drive: f"drive {drive}" for drive in places}
    ranked = sorted({(_lot(group, seed), group) for group in groups.values()})
    chosen = {group for lot, group in ranked if lot < held_out}
    if held_out > 0 and len(ranked) > 1:
        chosen |= {ranked[0][1]}
        chosen -= {ranked[-1][1]}
    return {drive: HELD_OUT if groups[drive] in chosen and len(ranked) > 1 else TRAIN for drive in places}


def _lot(group: str, seed: int) -> float:
    """A number in 0..1 that only the seed and the name decide."""
    return int(sha256_hex(f"{seed}/{group}".encode())[:13], 16) / 16**13
