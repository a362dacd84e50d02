"""Which segments are one drive: what a file says itself, else its route folder, else clocks that continue.

Rule: segments of one drive share one clock and never overlap; a drive's key does not depend on where its folder lies.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise

from onshore.core.recording import Recording
from onshore.drive.digests import signals_digest, source_digest
from onshore.drive.discover import Source
from onshore.drive.table import read_lone_video, read_signals
from onshore.wire import read_mcap

#: Clocks that go on within this time belong to one ignition cycle.
CONTINUES_NS = 2_000_000_000
#: The vehicle of recordings that name none.
UNNAMED = "unnamed vehicle"


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A source and where it belongs. stated: the file itself says which drive and segment it is.

    drive_id: the drive that it joins, or is of, where segments of it came in before.
    """

    source: Source
    vehicle: str
    drive_key: str
    index: int
    start_ns: int
    end_ns: int
    signals: str
    stated: bool = False
    drive_id: str = ""


def place(source: Source) -> Placed:
    """Read as much of a source as tells where it belongs; raises what its reader raises."""
    if source.reader == "mcap":
        return _place_mcap(source, read_mcap(source.path))
    if source.reader == "video":
        return _place_video(source)
    column_map = source.column_map
    if column_map is None:
        raise ValueError("a table source without a map")
    signals, _ = read_signals(source.path, column_map)
    folder, parents = source.path.parent.name, source.path.resolve().parents
    routed = column_map.drive_folder is not None and re.fullmatch(column_map.drive_folder, folder) is not None
    level = column_map.vehicle_levels_up
    number = re.search(column_map.index, source.path.stem)
    return Placed(
        source=source,
        vehicle=parents[level - 1].name if routed and level <= len(parents) else UNNAMED,
        drive_key=folder if routed else "",
        index=int(number[1]) if number else 0,
        start_ns=int(signals.t_ns[0]),
        end_ns=int(signals.t_ns[-1]),
        signals=signals_digest(signals),
    )


def _place_mcap(source: Source, recording: Recording) -> Placed:
    return Placed(
        source=source,
        vehicle=recording.vehicle or UNNAMED,
        drive_key=recording.drive_key,
        index=recording.segment_index,
        start_ns=int(recording.signals.t_ns[0]),
        end_ns=int(recording.signals.t_ns[-1]),
        signals=signals_digest(recording.signals),
        stated=bool(recording.drive_id or recording.drive_key),
    )


def _place_video(source: Source) -> Placed:
    """A video without signals is a drive of its own, known by its bytes, and so is whoever filmed it."""
    recording, digest = read_lone_video(source.path), source_digest(source.files)[:24]
    return replace(
        _place_mcap(source, recording), vehicle=f"public video {digest}", drive_key=f"public-{digest}", stated=True
    )


def group(placed: list[Placed]) -> list[Placed]:
    """Settle drive key and index of every source that does not state them, in the order of drives and times.

    Those that come with a drive_id are here already: they are left out of the answer, and what goes on with them joins
    their drive.
    """
    stated = [one for one in placed if one.stated]
    folders: dict[tuple[str, str, str], list[Placed]] = {}
    for one in placed:
        if not one.stated:
            folders.setdefault((str(one.source.path.parent), one.vehicle, one.drive_key), []).append(one)
    return [*stated, *(one for folder in folders.values() for one in _settled(folder))]


def _settled(folder: list[Placed]) -> list[Placed]:
    """What is new in one folder. The plain key of a route folder is its first drive's, which may be one that is here."""
    here = [one for one in folder if one.drive_id]
    settled: list[Placed] = []
    first = not here
    for chain in _split(folder):
        joined, alone = _joined(chain, here)
        here += joined
        settled += [*joined, *(_numbered(_keyed(alone, first=first)) if alone else [])]
        first = False
    return settled


def _joined(chain: list[Placed], here: list[Placed]) -> tuple[list[Placed], list[Placed]]:
    """The new segments of a chain: those that join the drive of the nearest one that is here, and the rest."""
    joined: list[Placed] = []
    alone: list[Placed] = []
    for position, one in enumerate(chain):
        if one.drive_id:
            continue
        beside = [*reversed(chain[:position]), *chain[position:]]
        drive_id = next((other.drive_id for other in beside if other.drive_id), "")
        index = _free_index(one, [other for other in (*here, *joined) if other.drive_id == drive_id])
        if drive_id and index is not None:
            joined.append(replace(one, drive_id=drive_id, index=index))
        else:
            alone.append(one)
    return joined, alone


def _free_index(one: Placed, parts: list[Placed]) -> int | None:
    """Its own index or the next one, so that indices rise with time; None where it overlaps a part or nothing is free."""
    before = [part.index for part in parts if part.end_ns <= one.start_ns]
    after = [part.index for part in parts if part.end_ns > one.start_ns and part.start_ns >= one.end_ns]
    if len(before) + len(after) < len(parts):
        return None
    low, high = max(before, default=-1), min(after, default=math.inf)
    return next((index for index in (one.index, low + 1) if low < index < high), None)


def _split(folder: list[Placed]) -> list[list[Placed]]:
    """The drives of one folder: in a route folder, whatever does not overlap; elsewhere, whatever goes on.

    The same signals again, in another file, part no drive; each such is one of its own.
    """
    drives: list[list[Placed]] = []
    again: list[list[Placed]] = []
    for one in sorted(folder, key=_order):
        if drives and _shows_same(one, drives[-1][-1]):
            again.append([one])
            continue
        gap = one.start_ns - drives[-1][-1].end_ns if drives else 0
        if drives and gap >= 0 and (one.drive_key or gap <= CONTINUES_NS):
            drives[-1].append(one)
        else:
            drives.append([one])
    return [*drives, *again]


def _order(one: Placed) -> tuple[int, bool, int, str]:
    """By time; of two that begin at once what is here goes first, then the shorter name: copies have longer ones."""
    return one.start_ns, not one.drive_id, len(one.source.path.name), one.source.path.name


def _shows_same(one: Placed, other: Placed) -> bool:
    return (one.signals, one.start_ns, one.end_ns) == (other.signals, other.start_ns, other.end_ns)


def _keyed(drive: list[Placed], *, first: bool) -> list[Placed]:
    """A route folder's name is the key of its first drive; every other drive is known by what its signals were."""
    key = drive[0].drive_key if first and drive[0].drive_key else f"{drive[0].drive_key}{drive[0].signals[:24]}"
    return [replace(one, drive_key=key) for one in drive]


def _numbered(drive: list[Placed]) -> list[Placed]:
    """Indices as the names tell them, if they rise with time; else by time."""
    indices = [one.index for one in drive]
    if all(later > earlier for earlier, later in pairwise(indices)):
        return drive
    return [replace(one, index=position) for position, one in enumerate(drive)]
