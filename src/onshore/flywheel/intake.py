"""Taking fleet logs in: what `drive` admits is cut into clips at once, so that nothing waits unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore import clip, drive
from onshore.core.progress import Progress, silent

if TYPE_CHECKING:
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
    """Admit every drive below `paths` and cut it into clips. Returns the report that `drive add` prints.

    added: segment rows of this run; known: segments that were here already; quarantined: path, code, reason;
    drives, segments, frames: counts of this run; clips: clips of the center afterwards.
    """
    report = drive.add(
        center, paths, reader=reader, column_map=column_map, public=public, workers=workers, progress=progress
    )
    clips = clip.cut(center, progress=progress)
    return {
        "added": report.added,
        "known": report.known,
        "quarantined": report.quarantined,
        "drives": len({row["drive"] for row in report.added}),
        "segments": len(report.added),
        "frames": sum(row["frames"] for row in report.added),
        "clips": len(clips),
    }


def retry(center: Center, *, progress: Progress = silent) -> dict[str, Any]:
    """Try every quarantined file again; what arrives, or is no longer there, leaves the list."""
    waiting = center.quarantine_list()
    for row in waiting:
        center.quarantine_remove(row["id"])
    paths = [row["path"] for row in waiting if Path(row["path"]).exists()]
    if not paths:
        return {"added": [], "known": 0, "quarantined": [], "drives": 0, "segments": 0, "frames": 0, "clips": 0}
    return take_in(center, paths, progress=progress)


def summary(report: dict[str, Any]) -> list[str]:
    """What arrived, in words."""
    lines = [
        f"{report['segments']} segments of {report['drives']} drives, {report['frames']:,} frames, {report['clips']} clips",
        f"{report['known']} already here, {len(report['quarantined'])} in quarantine",
    ]
    speeds = [row for row in report["added"] if row.get("speed_max_mps") is not None]
    if speeds:
        seconds = sum(row["duration_s"] for row in report["added"])
        low, high = min(row["speed_min_mps"] for row in speeds), max(row["speed_max_mps"] for row in speeds)
        lines.append(f"{seconds:.1f} s of signals, speeds from {low:.1f} to {high:.1f} m/s")
    return lines
