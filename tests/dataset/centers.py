"""A center with a few drives in it, by the same way that every drive takes: written as MCAP, added, anonymised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dataset.recordings import recording, shifted, signals
from onshore import drive
from onshore.core.recording import Recording
from onshore.store import Center
from onshore.wire import write_mcap

SECOND = 1_000_000_000


def weaving(t: float) -> tuple[float, float]:
    """Drives, brakes hard at 4 s to a stop, goes on at 8 s, turns at 11 s."""
    if 4 <= t < 6.2:
        return 0.0, -3.7
    return (0.2 if t >= 11 else 0.0), (2.5 if 8 <= t < 11 else 0.0)


def fleet(cars: int, *, seconds: float = 13.0, segments: int = 1, place: bool = False) -> list[Recording]:
    """`cars` drives of `segments` segments each, five pictures a second, on clocks that do not meet."""
    made = []
    for car in range(cars):
        # no two cars drive alike: the same pictures with other times would be a conflict
        whole = signals(seconds * segments, weaving, start_speed_mps=8.0 + 0.1 * car)
        for index in range(segments):
            first = round(seconds * 10) * index
            past = first + round(seconds * 10) if index < segments - 1 else None
            part = replace(whole, **{name: column[first:past] for name, column in vars(whole).items()})
            made.append(
                recording(
                    vehicle=f"car-{car:04d}",
                    drive_key=f"route-{car}",
                    segment_index=index,
                    hz=5.0,
                    moves=shifted(part, car * 10_000 * SECOND),
                    facts={"place": f"town-{car % 2 + 1}"} if place else {},
                )
            )
    return made


def write_fleet(folder: Path, recordings: list[Recording]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in recordings:
        path = folder / f"{one.vehicle}-{one.segment_index}.mcap"
        write_mcap(one, path)
        paths.append(path)
    return paths


def center_with(folder: Path, recordings: list[Recording], region: str = "us") -> Center:
    center = Center.init(folder / "center", region, keys_dir=folder / "keys", seed=0)
    report = drive.add(center, write_fleet(folder / "in", recordings))
    if report.quarantined:
        raise AssertionError(report.quarantined)
    return center
