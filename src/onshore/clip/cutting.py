"""Which spans of a segment are worth a clip. Pure: signals in, spans out.

Rule: a clip lies inside the segment's pictures; what nothing asked for is tiled as `ordinary`, so that common driving is
learned too; the same span is one clip, named by the first trigger that asked.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.clip.motion import Motion, motion
from onshore.core.errors import InputError, NotFoundError
from onshore.core.recording import ClipRef, Recording, Signals
from onshore.core.trigger import Trigger

ORDINARY = "ordinary"
ORDINARY_VERSION = 1
TILE_NS = 10_000_000_000
SHORTEST_NS = 1_000_000_000
_FIELDS = {"version", "when", "for_s", "before_s", "after_s"}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time (ns, on the recording's clock) and the rule that asked for it."""

    start_ns: int
    end_ns: int
    trigger: str
    version: int


def load_triggers(path: Path | None = None) -> list[Trigger]:
    """The packaged triggers, or those of a TOML file, in the file's order. Raises InputError `bad_trigger`."""
    subject = str(path) if path else "triggers.toml"
    try:
        text = path.read_text(encoding="utf8") if path else _packaged()
        tables = tomllib.loads(text)
    except FileNotFoundError as missing:
        raise NotFoundError(subject, "give a TOML file with one table per trigger.") from missing
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InputError("bad_trigger", subject, f"this is not TOML: {problem}.") from problem
    return [_trigger(name, table, subject) for name, table in tables.items()]


def _packaged() -> str:
    return files("onshore.clip").joinpath("triggers.toml").read_text(encoding="utf8")


def _trigger(name: str, table: Any, subject: str) -> Trigger:
    if not isinstance(table, dict) or not isinstance(table.get("when"), str):
        raise InputError("bad_trigger", f"{subject}: {name}", "a trigger is a table with a text 'when'.")
    unknown = set(table) - _FIELDS
    if unknown:
        raise InputError("bad_trigger", f"{subject}: {name}.{min(unknown)}", f"use {', '.join(sorted(_FIELDS))}.")
    for key, value in table.items():
        if key != "when" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError("bad_trigger", f"{subject}: {name}.{key}", "expected a number.")
    return Trigger(name=name, **table)


def find_trigger(name_or_file: str | Path) -> Trigger:
    """A packaged trigger by name, or the only trigger of a TOML file."""
    text = str(name_or_file)
    if text.endswith(".toml"):
        found = load_triggers(Path(text))
        if len(found) != 1:
            raise InputError("bad_trigger", text, f"a back-test takes a file with one trigger; this has {len(found)}.")
        return found[0]
    packaged = {trigger.name: trigger for trigger in load_triggers()}
    if text not in packaged:
        raise NotFoundError(f"trigger {text!r}", f"use {', '.join(packaged)}, or a .toml file.")
    return packaged[text]


def trigger_columns(signals: Signals, moved: Motion) -> dict[str, NDArray[Any]]:
    """The columns a trigger may read: the signals, with what could be derived filled in."""
    columns: dict[str, NDArray[Any]] = {name: getattr(signals, name) for name in Signals.COLUMNS}
    columns |= {
        "speed_mps": moved.speed_mps,
        "accel_mps2": moved.accel_mps2,
        "yaw_rate_radps": moved.yaw_rate_radps,
    }
    return columns


def picture_span(recording: Recording) -> tuple[int, int] | None:
    """First and last frame time over all cameras, or None without a picture."""
    times = [video.t_ns for video in recording.videos if video.packets]
    return (int(min(t[0] for t in times)), int(max(t[-1] for t in times))) if times else None


def spans(recording: Recording, triggers: Sequence[Trigger]) -> list[Span]:
    """Every clip span of a segment: triggers first, then the ordinary tiling; each (start, end) once."""
    pictures = picture_span(recording)
    if pictures is None:
        return []
    moved = motion(recording.signals, recording.rig.vehicle)
    columns = trigger_columns(recording.signals, moved)
    found: dict[tuple[int, int], Span] = {}
    for trigger in triggers:
        for start, end in trigger.spans(recording.signals.t_ns, columns):
            start, end = max(start, pictures[0]), min(end, pictures[1])
            if end - start >= SHORTEST_NS:
                span = Span(start_ns=start, end_ns=end, trigger=trigger.name, version=trigger.version)
                found.setdefault((start, end), span)
    for start, end in tiles(*pictures):
        found.setdefault((start, end), Span(start_ns=start, end_ns=end, trigger=ORDINARY, version=ORDINARY_VERSION))
    return sorted(found.values(), key=lambda span: (span.start_ns, span.end_ns))


def tiles(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Consecutive 10 s tiles; a rest shorter than 2 s joins the last one."""
    if end_ns <= start_ns:
        return []
    edges = list(range(start_ns, end_ns, TILE_NS))
    if len(edges) > 1 and end_ns - edges[-1] < 2_000_000_000:
        edges.pop()
    return list(zip(edges, [*edges[1:], end_ns], strict=True))


def clip_record(segment: Mapping[str, Any], recording: Recording, moved: Motion, span: Span) -> dict[str, Any]:
    """A catalog row: the reference, who asked, and plain figures over the span (NaN where not known)."""
    inside = (moved.t_ns >= span.start_ns) & (moved.t_ns <= span.end_ns)
    speed, accel, rate = (c[inside] for c in (moved.speed_mps, moved.accel_mps2, moved.yaw_rate_radps))
    frames = sum(int(((v.t_ns >= span.start_ns) & (v.t_ns <= span.end_ns)).sum()) for v in recording.videos)
    return {
        "id": ClipRef(segment_id=segment["id"], start_ns=span.start_ns, end_ns=span.end_ns).id,
        "segment": segment["id"],
        "drive": segment["drive"],
        "vehicle": str(segment.get("vehicle") or ""),
        "place": str(segment.get("place") or ""),
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "duration_s": (span.end_ns - span.start_ns) / 1e9,
        "trigger": span.trigger,
        "trigger_version": span.version,
        "frames": frames,
        "speed_mean_mps": figure(speed, "mean"),
        "speed_min_mps": figure(speed, "min"),
        "speed_max_mps": figure(speed, "max"),
        "accel_min_mps2": figure(accel, "min"),
        "yaw_rate_max_radps": figure(np.abs(rate), "max"),
        "junction_share": figure(recording.signals.in_junction[inside], "mean"),
        "synthetic": bool(recording.synthetic),
    }


def figure(column: NDArray[Any], name: str) -> float:
    """mean, min or max over the known values; NaN when none is known."""
    known = column[np.isfinite(column)]
    return float(getattr(np, name)(known)) if len(known) else float("nan")
