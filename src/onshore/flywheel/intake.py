"""Taking fleet logs in: what `drive` admits is cut into clips at once, so that nothing waits unseen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onshore import clip, drive
from onshore.core.digest import canonical_json
from onshore.core.errors import InputError
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
    """Try every quarantined file again, read as it was to be read and public if it was; what arrives leaves the list.

    So does a file that somebody took out of its folder; one whose folder is not there stays. Nothing leaves before its
    retry is done.
    """
    total: dict[str, Any] = {"added": [], "quarantined": []}
    total |= dict.fromkeys(("known", "drives", "segments", "frames", "clips", "ignored"), 0)
    waiting = center.quarantine_list()
    ways = {canonical_json(row["asked"]): row["asked"] for row in waiting}
    for _, asked in sorted(ways.items()):
        rows = [row for row in waiting if row["asked"] == asked]
        paths = [row["path"] for row in rows if Path(row["path"]).exists()]
        report = _again(center, rows, paths, asked, progress) if paths else {"quarantined": []}
        out = {row["id"] for row in report["quarantined"]}
        total = {name: value + report.get(name, type(value)()) for name, value in total.items()}
        listed = {row["id"] for row in center.quarantine_list()}
        for row in rows:
            if row["id"] in listed - out and Path(row["path"]).parent.exists():
                center.quarantine_remove(row["id"])
    return total


def _again(
    center: Center, rows: list[dict[str, Any]], paths: list[str], asked: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """One retry. Files that are no drives any more, or whose column map is gone, stay; the others' turn comes all the same."""
    try:
        return take_in(center, sorted(set(paths)), **asked, progress=progress)
    except InputError as error:
        if error.code not in ("empty_input", "bad_config"):
            raise
        kept = [{name: row[name] for name in ("id", "path")} for row in rows]
        return {"quarantined": [row | {"code": error.code, "reason": str(error)} for row in kept]}


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
