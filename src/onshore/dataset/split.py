"""Which drives are held out. Pure.

Rule: a split never cuts a place (or, where no place is known, a drive) in two, and a drive that was once given a split
keeps it, however the fleet grows: what was trained on is never held out later. With two places or drives and more, at
least one is held out and at least one is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError

TRAIN, HELD_OUT = "train", "held_out"


def split_drives(
    places: Mapping[str, str],
    *,
    held_out: float,
    seed: int,
    by: str = "place",
    settled: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """drive id -> "train" or "held_out", from drive id -> place ("" where not known).

    held_out: the share of places (or drives) to hold out; lots drawn from the seed and the names alone decide which.
    by: "place" keeps every place whole; "drive" looks at drives alone; when all drives share one place, drives are split,
    unless that place was given one split before.
    settled: splits given before, which hold. Raises InputError `bad_config` for a share outside 0..1.
    """
    if not 0 <= held_out < 1 or by not in ("place", "drive"):
        raise InputError("bad_config", "held_out", "give a share of at least 0 and below 1, by place or by drive.")
    groups = _groups(places, by, {split for drive, split in (settled or {}).items() if drive in places})
    before = {groups[drive]: "" for drive in places}
    for drive, split in sorted((settled or {}).items()):
        if drive in groups:
            # a place cut in two before it had a second one beside it takes new drives for training only
            before[groups[drive]] = split if before[groups[drive]] in ("", split) else TRAIN
    count = len(before)
    wanted = min(max(round(held_out * count), 1), count - 1) if held_out > 0 else 0
    open_groups = sorted((group for group in before if not before[group]), key=lambda group: (_lot(group, seed), group))
    missing = max(0, wanted - sum(split == HELD_OUT for split in before.values()))
    chosen = {**before, **{group: HELD_OUT if rank < missing else TRAIN for rank, group in enumerate(open_groups)}}
    return {drive: (settled or {}).get(drive) or chosen[groups[drive]] for drive in places}


def _groups(places: Mapping[str, str], by: str, kept: Set[str]) -> dict[str, str]:
    """kept: the splits that some of these drives have already; a lone place that has one was settled beside another."""
    named = {
        drive: f"place {place}" if by == "place" and place else f"drive {drive}" for drive, place in places.items()
    }
    alone = len(set(named.values())) == 1 and len(kept) != 1
    return {drive: f"drive {drive}" for drive in places} if alone else named


def _lot(group: str, seed: int) -> str:
    """What only the seed and the name decide."""
    return sha256_hex(f"{seed}/{group}".encode())
