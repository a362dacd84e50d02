"""Taking fleet logs in: what `drive` admits is cut into clips at once, so that nothing waits unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onshore import clip, drive
from onshore.core.progress import Progress, silent
from onshore.drive.catalog import known_numbers
from onshore.store import Center


def take_in(
    center: Center,
    paths: Sequence[str | Path],
    *,
    reader: str | None = None,
    column_map: Path | None = None,
    public: bool = False,
    workers: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Admit every drive below `paths` and cut it into clips. Returns what `drive add` prints.

    added: rows of the drives that got new segments; known: segments that were here already; quarantined: path, code,
    reason; drives, segments, frames: counts of this run; clips: how many this run made.
    """
    report = drive.add(
        center, paths, reader=reader, column_map=column_map, public=public, workers=workers, progress=progress
    )
    clips = clip.cut(center, progress=progress)
    return {**report.as_record(), "drives": len(report.added), "clips": len(clips)}


def retry(center: Center, *, progress: Progress = silent) -> dict[str, Any]:
    """Try every quarantined file that still exists again; what arrives leaves the list, the rest returns to it."""
    waiting = center.quarantine_list()
    for row in waiting:
        center.quarantine_remove(row["id"])
    paths = [row["path"] for row in waiting if Path(row["path"]).exists()]
    if not paths:
        nothing: dict[str, Any] = {"added": [], "quarantined": []}
        return {**nothing, **dict.fromkeys(("known", "drives", "segments", "frames", "clips", "ignored"), 0)}
    return take_in(center, paths, progress=progress)


def summary(report: dict[str, Any]) -> list[str]:
    """What arrived, in words."""
    lines = [
        f"{report['segments']} segments of {report['drives']} drives, {report['frames']:,} frames, {report['clips']} clips",
        f"{report['known']} segments already here, {len(report['quarantined'])} files in quarantine",
    ]
    driven = [row for row in report["added"] if known_numbers([row.get("speed_max_mps")])]
    if driven:
        seconds = sum(row["duration_s"] for row in report["added"])
        low, high = min(row["speed_min_mps"] for row in driven), max(row["speed_max_mps"] for row in driven)
        lines.append(f"{seconds:.1f} s of driving, speeds from {low:.1f} to {high:.1f} m/s")
    return lines
