"""The catalog of clips: cut what arrived, find it again, count what a new trigger would have found.

Rule: a clip is a reference and never a copy; a segment is cut once per version of the triggers; the catalog holds figures
and salted ids, nothing personal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from onshore.clip.cutting import (
    ORDINARY,
    TILE_NS,
    Span,
    clip_record,
    find_trigger,
    load_triggers,
    picture_span,
    spans,
    trigger_columns,
)
from onshore.clip.motion import motion
from onshore.core.digest import ID_PATTERN, record_digest
from onshore.core.errors import InputError, NotFoundError, OnshoreError, RefusedError, UsageError
from onshore.core.progress import Progress, silent
from onshore.core.recording import ClipRef, Recording
from onshore.core.trigger import Trigger
from onshore.drive import open_segment, segments
from onshore.store import Center, Table

#: Part of what a cut is a function of: raise it when the same segment and triggers would give other clips.
CUTTING_VERSION = 1
#: Ids asked for in one filter.
PORTION = 400


class ClipRow(TypedDict):
    """A row of the `clips` table; figures that are not known are None."""

    id: str
    segment: str
    drive: str
    vehicle: str
    place: str
    start_ns: int
    end_ns: int
    duration_s: float
    trigger: str
    trigger_version: int
    frames: int
    speed_mean_mps: float | None
    speed_min_mps: float | None
    speed_max_mps: float | None
    accel_min_mps2: float | None
    yaw_rate_max_radps: float | None
    junction_share: float | None
    synthetic: bool


def cut(center: Center, *, triggers: Path | None = None, progress: Progress = silent) -> list[ClipRow]:
    """Cut every segment that was not yet cut with these triggers; returns the rows that are new.

    triggers: a TOML file in place of the packaged ones. A segment that cannot be opened is left for the next run: the
    others go on, and the first error is raised at the end.
    """
    rules = load_triggers(triggers)
    identity = record_digest([CUTTING_VERSION, TILE_NS, [rule.as_record() for rule in rules]])
    known = segments(center)
    fresh: list[ClipRow] = []
    problems: list[OnshoreError] = []
    for done, segment in enumerate(known):
        progress("cutting clips", done, len(known))
        try:
            fresh += _cut_segment(center, segment, rules, identity)
        except OnshoreError as problem:
            problems.append(problem)
    progress("cutting clips", len(known), len(known))
    if problems:
        raise problems[0]
    return fresh


def _cut_segment(center: Center, segment: Mapping[str, Any], rules: list[Trigger], identity: str) -> list[ClipRow]:
    made: list[ClipRow] = []

    def run() -> dict[str, Any]:
        recording = open_segment(center, segment["id"])
        moved = motion(recording.signals, recording.rig.vehicle)
        rows = [_row(clip_record(segment, recording, moved, span)) for span in spans(recording, rules)]
        made.extend(_merge(center, rows))
        return {"clips": len(rows)}

    center.stage("clip.cut", {"segment": segment["id"], "triggers": identity}, run)
    return made


def add_requested(
    center: Center,
    requests: Iterable[Mapping[str, Any] | ClipRef],
    trigger: str = "shadow_disagreement",
    *,
    progress: Progress = silent,
) -> list[ClipRow]:
    """Clips somebody asked for by place: each request names `segment` (or `segment_id`), `start_ns` and `end_ns`.

    Spans are clamped to the segment's pictures. Returns the rows that are new (or were merely ordinary before). Raises
    NotFoundError for a segment that is not here, InputError for a span outside its pictures; the others are added first.
    """
    by_segment: dict[str, list[tuple[int, int]]] = {}
    for request in requests:
        segment_id, start_ns, end_ns = _requested(request)
        by_segment.setdefault(segment_id, []).append((start_ns, end_ns))
    known = {segment["id"]: segment for segment in segments(center)}
    version = _version(trigger)
    fresh: list[ClipRow] = []
    problems: list[OnshoreError] = []
    for done, (segment_id, wanted) in enumerate(sorted(by_segment.items())):
        progress("adding clips", done, len(by_segment))
        if segment_id not in known:
            problems.append(NotFoundError(f"segment {segment_id}", "ask only for segments that `drive list` shows."))
            continue
        recording = open_segment(center, segment_id)
        rows, missed = _requested_rows(known[segment_id], recording, wanted, trigger, version)
        fresh += _merge(center, rows)
        problems += missed
    if problems:
        raise problems[0]
    return fresh


def _requested(request: Mapping[str, Any] | ClipRef) -> tuple[str, int, int]:
    if isinstance(request, ClipRef):
        return request.segment_id, request.start_ns, request.end_ns
    try:
        segment_id = request["segment"] if "segment" in request else request["segment_id"]
        return str(segment_id), int(request["start_ns"]), int(request["end_ns"])
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError(
            "bad_id", "requested clip", f"it names segment, start_ns and end_ns; {problem} is wrong."
        ) from problem


def _version(trigger: str) -> int:
    return next((rule.version for rule in load_triggers() if rule.name == trigger), 1)


def _requested_rows(
    segment: Mapping[str, Any], recording: Recording, wanted: list[tuple[int, int]], trigger: str, version: int
) -> tuple[list[ClipRow], list[OnshoreError]]:
    pictures = picture_span(recording) or (0, -1)
    moved = motion(recording.signals, recording.rig.vehicle)
    rows, problems = [], list[OnshoreError]()
    for start, end in sorted(set(wanted)):
        start, end = max(start, pictures[0]), min(end, pictures[1])
        if end <= start:
            subject = f"segment {segment['id']}"
            problems.append(InputError("empty_input", subject, "the span asked for has no pictures."))
            continue
        span = Span(start_ns=start, end_ns=end, trigger=trigger, version=version)
        rows.append(_row(clip_record(segment, recording, moved, span)))
    return rows, problems


def _merge(center: Center, rows: list[ClipRow]) -> list[ClipRow]:
    """Write rows that are not there; a row that was ordinary takes the name of who asked. Returns what was written."""
    if not rows:
        return []
    table = center.table("clips")
    wanted = ", ".join(f"'{row['id']}'" for row in rows)
    stored = {row["id"]: row for row in table.rows(where=f"id IN ({wanted})")}
    fresh = [
        row
        for row in rows
        if row["id"] not in stored or (stored[row["id"]]["trigger"] == ORDINARY and row["trigger"] != ORDINARY)
    ]
    if fresh:
        _settle_types(table, fresh)
        table.upsert([dict(row) for row in fresh], on="id")
    return fresh


def _settle_types(table: Table, rows: list[ClipRow]) -> None:
    """The first rows settle the column types, and a column of None alone would become text: write numbers first."""
    if table.count() == 0:
        unknown = {key for row in rows for key, value in row.items() if value is None}
        table.append([{**row, **{key: math.nan for key in unknown if row[key] is None}} for row in rows])  # type: ignore[literal-required]


def _row(record: dict[str, Any]) -> ClipRow:
    """NaN becomes None: SQL counts NaN as larger than everything."""
    plain = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}
    return plain  # type: ignore[return-value]


def find(
    center: Center, where: str | None = None, trigger: str | None = None, limit: int | None = 50
) -> list[dict[str, Any]]:
    """Clips for which `where` (an SQL expression over the clips table, read in the jail) holds, oldest first.

    Raises UsageError when the expression cannot be read or names an unknown column.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}", "ask for at least one clip.")
    rows = with_ids(center, _asked(center, where)) if where else center.table("clips").rows()
    rows = [row for row in rows if trigger in (None, row["trigger"])]
    rows.sort(key=lambda row: (row["start_ns"], row["segment"], row["id"]))
    return rows[:limit]


def with_ids(center: Center, ids: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of these clips, those that are not there left out; the order is the table's."""
    asked = sorted({identity for identity in ids if ID_PATTERN.fullmatch(identity)})
    rows: list[dict[str, Any]] = []
    for first in range(0, len(asked), PORTION):
        names = ", ".join(f"'{identity}'" for identity in asked[first : first + PORTION])
        rows += center.table("clips").rows(where=f"id IN ({names})")
    return rows


def _asked(center: Center, where: str) -> list[str]:
    try:
        return center.matching("clips", where)
    except RefusedError:
        raise
    except OnshoreError as problem:
        columns = ", ".join(ClipRow.__annotations__)
        reason = problem.advice or problem
        raise UsageError(f"where {where!r}", f"it cannot be read as SQL over ({columns}): {reason}") from problem


def show(center: Center, clip_id: str) -> dict[str, Any]:
    """One clip, the rule that asked for it, and the clips of the same segment that overlap it."""
    rows = center.table("clips").rows(where="id = '{}'".format(clip_id.replace("'", "''")))
    if not rows:
        raise NotFoundError(f"clip {clip_id}", "see `onshore clip find`.")
    clip = rows[0]
    same = center.table("clips").rows(where=f"segment = '{clip['segment']}'")
    rule = next((rule for rule in load_triggers() if rule.name == clip["trigger"]), None)
    overlapping = [
        {"id": other["id"], "trigger": other["trigger"]}
        for other in sorted(same, key=lambda row: (row["start_ns"], row["id"]))
        if other["id"] != clip["id"] and other["start_ns"] < clip["end_ns"] and other["end_ns"] > clip["start_ns"]
    ]
    current = rule.as_record() if rule and rule.version == clip["trigger_version"] else None
    return {**clip, "rule": current, "overlapping": overlapping}


def backtest(center: Center, trigger: str | Path | Trigger, *, progress: Progress = silent) -> dict[str, Any]:
    """What a trigger would have found in the drives that are here: counts, rate per hour, share of the time, per drive.

    `precision` is "not measurable": nobody has judged the spans. `columns_missing` counts segments that know none of a
    column the rule reads; they count neither as hours nor as misses.
    """
    rule = trigger if isinstance(trigger, Trigger) else find_trigger(trigger)
    known = segments(center)
    found: list[dict[str, Any]] = []
    hours = asked_s = 0.0
    missing = 0
    for segment, recording in _opened(center, known, progress):
        moved = motion(recording.signals, recording.rig.vehicle)
        columns = trigger_columns(recording.signals, moved)
        if not _all_known(rule, columns):
            missing += 1
            continue
        t_ns = recording.signals.t_ns
        hours += float(t_ns[-1] - t_ns[0]) / 3.6e12
        for start, end in rule.spans(t_ns, columns):
            asked_s += (end - start) / 1e9
            found.append({"segment": segment["id"], "drive": segment["drive"], "start_ns": start, "end_ns": end})
    drives: dict[str, int] = {}
    for row in found:
        drives[row["drive"]] = drives.get(row["drive"], 0) + 1
    return {
        "trigger": rule.as_record(),
        "segments": len(known) - missing,
        "columns_missing": missing,
        "hours": hours,
        "count": len(found),
        "per_hour": len(found) / hours if hours > 0 else None,
        "time_share": asked_s / (hours * 3600) if hours > 0 else None,
        "precision": "not measurable",
        "drives": drives,
        "spans": found,
    }


def _opened(
    center: Center, known: list[dict[str, Any]], progress: Progress
) -> Iterator[tuple[dict[str, Any], Recording]]:
    for done, segment in enumerate(known):
        progress("back-testing", done, len(known))
        yield segment, open_segment(center, segment["id"])
    progress("back-testing", len(known), len(known))


def _all_known(rule: Trigger, columns: Mapping[str, Any]) -> bool:
    return all(name in columns and bool(np.isfinite(np.asarray(columns[name], float)).any()) for name in rule.columns)
