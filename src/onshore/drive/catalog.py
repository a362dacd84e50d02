"""The tables `drives` and `segments`, and the only way from a row to frames.

Rule: rows hold ids, times, counts and ranges: nothing personal, no position. A drive's row follows from its segments'.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onshore.core.digest import check_id
from onshore.core.errors import CorruptError, NotFoundError
from onshore.core.recording import Recording
from onshore.store import Center
from onshore.wire import read_mcap

DRIVES, SEGMENTS = "drives", "segments"
LISTS = ("signals", "cameras", "dropped_topics")


@dataclass(frozen=True, kw_only=True)
class DriveRow:
    """One drive as listed. `duration_s` counts its segments, gaps left out; `video_s` the time that has pictures.

    speed_min_mps, speed_max_mps: NaN for public video without signals.
    """

    id: str
    region: str
    vehicle: str
    segments: int
    start_ns: int
    duration_s: float
    video_s: float
    frames: int
    signals: list[str]
    cameras: list[str]
    dropped_topics: list[str]
    speed_min_mps: float
    speed_max_mps: float
    place: str
    synthetic: bool
    public: bool
    reader: str

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def drives(center: Center) -> list[dict[str, Any]]:
    """Every drive, in the order of vehicles and times; the shape of `drive list --json`."""
    rows = [_read_row(row) for row in center.table(DRIVES).rows()]
    return sorted(rows, key=lambda row: (row["vehicle"], row["start_ns"], row["id"]))


def segments(center: Center, drive_id: str | None = None) -> list[dict[str, Any]]:
    """Every segment (of one drive), in the order of drives and indices. `artifact` is the anonymised recording's id.

    Raises NotFoundError for a drive that is not here.
    """
    where = None if drive_id is None else f"drive = '{check_id(drive_id, 'drive')}'"
    rows = [_read_row(row) for row in center.table(SEGMENTS).rows(where)]
    if drive_id is not None and not rows:
        raise NotFoundError(f"drive {drive_id}", "`drive list` shows the drives of this center.")
    return sorted(rows, key=lambda row: (row["drive"], row["index"], row["id"]))


def segment_row(center: Center, segment_id: str) -> dict[str, Any] | None:
    rows = center.table(SEGMENTS).rows(f"id = '{check_id(segment_id, 'segment')}'")
    return _read_row(rows[0]) if rows else None


def open_segment(center: Center, segment_id: str) -> Recording:
    """The anonymised recording of a segment. Raises NotFoundError, RefusedError, CorruptError."""
    row = segment_row(center, segment_id)
    if row is None:
        raise NotFoundError(f"segment {segment_id}", "`drive list` shows what this center has.")
    recording = read_mcap(center.read(row["artifact"]))
    if not recording.anonymised:
        raise CorruptError("corrupt", segment_id, "the stored recording was never anonymised; it is not given out.")
    return recording


def export_mcap(center: Center, drive_id: str, out_dir: Path | str) -> list[Path]:
    """Write a drive's anonymised segments as `<segment id>.mcap`; each carries its ids and its label.

    The caller has checked that `out_dir` is in-region or covered by a permit. Raises NotFoundError, RefusedError.
    """
    rows = segments(center, drive_id)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for row in rows:
        target = folder / f"{row['id']}.mcap"
        _write(target, center.read(row["artifact"], purpose="export"))
        written.append(target)
    return written


def _write(target: Path, data: bytes) -> None:
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def settle_drives(center: Center, drive_ids: set[str] | None = None) -> list[DriveRow]:
    """Bring the rows of these drives (None: of all) in line with their segments; returns those that have segments.

    A drive without any loses its row. Where nothing differs, nothing is written.
    """
    known = {row["id"]: _comparable(row) for row in center.table(DRIVES).rows()}
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in segments(center):  # after the drives: one that comes in meanwhile is not taken for empty
        parts.setdefault(row["drive"], []).append(row)
    wanted = known.keys() | parts.keys() if drive_ids is None else drive_ids
    settled = [_drive_row(center.region, parts[drive_id]) for drive_id in sorted(wanted & parts.keys())]
    changed = [record for row in settled if _comparable(record := _stored_row(row.as_record())) != known.get(row.id)]
    center.table(DRIVES).upsert(changed)
    if empty := (wanted & known.keys()) - parts.keys():
        center.table(DRIVES).forget(sorted(empty))
    return settled


def add_segment(center: Center, row: dict[str, Any]) -> None:
    center.table(SEGMENTS).upsert([_stored_row(row)])


def _drive_row(region: str, rows: list[dict[str, Any]]) -> DriveRow:
    first = rows[0]

    def together(name: str) -> list[str]:
        return sorted({item for row in rows for item in row[name]})

    return DriveRow(
        id=first["drive"],
        region=region,
        vehicle=first["vehicle"],
        segments=len(rows),
        start_ns=min(row["start_ns"] for row in rows),
        duration_s=sum(row["end_ns"] - row["start_ns"] for row in rows) / 1e9,
        video_s=sum(row["video_end_ns"] - row["video_start_ns"] for row in rows) / 1e9,
        frames=sum(row["frames"] for row in rows),
        signals=together("signals"),
        cameras=together("cameras"),
        dropped_topics=together("dropped_topics"),
        speed_min_mps=min(known_numbers(row["speed_min_mps"] for row in rows), default=math.nan),
        speed_max_mps=max(known_numbers(row["speed_max_mps"] for row in rows), default=math.nan),
        place=first["place"],
        synthetic=any(row["synthetic"] for row in rows),
        public=all(row["public"] for row in rows),
        reader=first["reader"],
    )


def known_numbers(values: Iterable[float | None]) -> list[float]:
    """The numbers among them: a drive without signals has no speeds."""
    return [value for value in values if value is not None and not math.isnan(value)]


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A row in which what is not known equals itself."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _stored_row(row: dict[str, Any]) -> dict[str, Any]:
    """Lists as text, so that SQL can ask for them and an empty one has a type."""
    return {name: ",".join(value) if name in LISTS else value for name, value in row.items()}


def _read_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [item for item in value.split(",") if item] if name in LISTS else value for name, value in row.items()
    }
