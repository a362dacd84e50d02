"""What was driven, as the rules see it: one record that a Rollout and a recorded drive with map context both become.

Rule: a value that is not known is NaN and stays so; nothing is filled in. The map context of a recorded drive is one JSON
document (`onshore.map-context`, docs/evaluation.md): columns on the recording's own clock, null where not known,
categories by name.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.digest import canonical_json
from onshore.core.errors import InputError
from onshore.core.recording import Clock, Recording, Rig, Signals
from onshore.core.rollout import (
    ACTOR_COLUMNS,
    ACTOR_KINDS,
    LANE_KINDS,
    LIGHT_SHAPES,
    LIGHTS,
    LINES,
    STEP_COLUMNS,
    STOP_RULES,
    TURNS,
    Rollout,
)

Floats = NDArray[np.float64]
SCHEMA, VERSION = "onshore.map-context", 1
#: Columns that a recorded drive has by itself; every other column of a step is map context.
EGO_COLUMNS = ("x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2", "steering_rad")
#: Columns of a rollout that no recorded drive has and no rule reads.
WORLD_COLUMNS = ("action_steering_rad", "action_accel_mps2")
CONTEXT_COLUMNS = tuple(name for name in STEP_COLUMNS if name not in (*EGO_COLUMNS, *WORLD_COLUMNS, "t_s"))
CATEGORIES: dict[str, tuple[str, ...]] = {
    "lane_kind": LANE_KINDS,
    "light": LIGHTS,
    "line_left": LINES,
    "line_right": LINES,
    "stop_rule": STOP_RULES,
    "light_shape": LIGHT_SHAPES,
}
#: Ego samples further than this from a context moment do not speak for it.
NEAR_S = 0.25
START_NS = 1_000_000_000
#: Moments whose differences, and ids that as such, fit the integers in which rollouts have them.
MOST_NS, MOST_ID = 2**62 - 1, 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Actors:
    """Other road users, flattened: `row` (M,) is the step they belong to; boxes by their centre, columns (M,)."""

    row: NDArray[np.int64]
    id: NDArray[np.int64]
    kind: NDArray[np.int64]
    columns: dict[str, Floats]

    def at(self, row: int) -> dict[str, NDArray[Any]]:
        """The actors of one step: id, kind and every column of ACTOR_COLUMNS."""
        low, high = np.searchsorted(self.row, [row, row + 1])
        found: dict[str, NDArray[Any]] = {name: values[low:high] for name, values in self.columns.items()}
        return {"id": self.id[low:high], "kind": self.kind[low:high], **found}


@dataclass(frozen=True, kw_only=True)
class Driven:
    """One ego's drive: `steps` has every column of STEP_COLUMNS, (N,), NaN where not known. actors: None = not seen."""

    name: str
    region: str
    origin: str
    synthetic: bool
    steps: dict[str, Floats]
    actors: Actors | None
    geometry: VehicleGeometry = field(default_factory=VehicleGeometry)

    def __len__(self) -> int:
        return len(self.steps["t_s"])

    def __getitem__(self, column: str) -> Floats:
        return self.steps[column]

    @property
    def km(self) -> float:
        steps_m = np.hypot(np.diff(self["x_m"]), np.diff(self["y_m"]))
        return float(np.nansum(steps_m)) / 1000.0

    @classmethod
    def from_rollout(cls, rollout: Rollout, geometry: VehicleGeometry | None = None) -> Driven:
        """A closed-loop run as it was stored; `geometry` is its region's ego box."""
        order = np.argsort(rollout.actor_row, kind="stable")
        actors = Actors(
            row=rollout.actor_row[order].astype(np.int64),
            id=rollout.actor_id[order].astype(np.int64),
            kind=rollout.actor_kind[order].astype(np.int64),
            columns={name: rollout.actors[name][order].astype(np.float64) for name in ACTOR_COLUMNS},
        )
        return cls(
            name=f"{rollout.world}/ego-{rollout.ego}",
            region=rollout.region,
            origin="rollout",
            synthetic=rollout.synthetic,
            steps={name: np.asarray(rollout.steps[name], np.float64) for name in STEP_COLUMNS},
            actors=actors if rollout.others_known else None,
            geometry=geometry or VehicleGeometry(),
        )

    @classmethod
    def from_recording(cls, recording: Recording, context: MapContext | None, *, name: str, region: str) -> Driven:
        """A recorded segment at its context's moments; without context, at its own, and every map column unknown."""
        signals = recording.signals
        t_ns = signals.t_ns if context is None else context.within(recording)
        start_ns = int(t_ns[0]) if context is None else context.start_ns
        steps = {column: np.full(len(t_ns), np.nan) for column in STEP_COLUMNS}
        steps["t_s"] = (t_ns - start_ns) / 1e9
        for column in EGO_COLUMNS:
            steps[column] = _sampled(signals.t_ns, getattr(signals, column), t_ns, angle=column == "yaw_rad")
        actors = None
        if context is not None:
            rows = np.isin(context.t_ns, t_ns)
            steps |= {column: values[rows] for column, values in context.columns.items()}
            actors = context.actors_of(rows)
        return cls(
            name=name,
            region=region,
            origin="recording",
            synthetic=recording.synthetic,
            steps=steps,
            actors=actors,
            geometry=recording.rig.vehicle,
        )


@dataclass(frozen=True, kw_only=True)
class MapContext:
    """What map and sensors knew along a recorded drive, (N,) columns on the recording's clock. start_ns: its time zero."""

    region: str
    start_ns: int
    t_ns: NDArray[np.int64]
    columns: dict[str, Floats]
    actors: Actors | None

    def within(self, recording: Recording) -> NDArray[np.int64]:
        """The moments that lie in a recording; InputError `not_measurable` when there are none."""
        signals_ns = recording.signals.t_ns
        inside = (self.t_ns >= signals_ns[0]) & (self.t_ns <= signals_ns[-1])
        if not inside.any():
            raise InputError("not_measurable", "map context", "no moment of it lies in the recording; check its clock.")
        moments: NDArray[np.int64] = self.t_ns[inside]
        return moments

    def covers(self, recording: Recording) -> bool:
        """Whether any moment lies in a recording."""
        first, last = np.searchsorted(self.t_ns, [recording.signals.t_ns[0], recording.signals.t_ns[-1] + 1])
        return bool(last > first)

    def actors_of(self, rows: NDArray[np.bool_]) -> Actors | None:
        """The actors of some rows, renumbered."""
        if self.actors is None:
            return None
        keep = rows[self.actors.row]
        renumbered = np.cumsum(rows) - 1
        return Actors(
            row=renumbered[self.actors.row[keep]],
            id=self.actors.id[keep],
            kind=self.actors.kind[keep],
            columns={name: values[keep] for name, values in self.actors.columns.items()},
        )

    def to_bytes(self) -> bytes:
        """The JSON document; unknown values are null, columns that are unknown throughout are left out."""
        columns = {name: _named(name, values) for name, values in self.columns.items() if np.isfinite(values).any()}
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "version": VERSION,
            "region": self.region,
            "start_ns": self.start_ns,
            "t_ns": self.t_ns.tolist(),
            "columns": columns,
        }
        if self.actors is not None:
            record["actors"] = {
                "row": self.actors.row.tolist(),
                "id": self.actors.id.tolist(),
                "kind": [ACTOR_KINDS[kind] for kind in self.actors.kind],
                **{name: values.tolist() for name, values in self.actors.columns.items()},
            }
        return canonical_json(record)

    @classmethod
    def from_bytes(cls, data: bytes, subject: str = "map context") -> MapContext:
        """Read the document. Raises InputError `unknown_format` naming the field that is wrong."""
        try:
            record = json.loads(data)
        except (ValueError, RecursionError) as problem:
            raise InputError("unknown_format", subject, "expected a JSON document.") from problem
        if not isinstance(record, dict) or record.get("schema") != SCHEMA or record.get("version") != VERSION:
            raise InputError("unknown_format", subject, f"expected schema {SCHEMA!r} of version {VERSION}.")
        t_ns = _integers(record, "t_ns", subject, MOST_NS)
        if len(t_ns) == 0 or (np.diff(t_ns) <= 0).any():
            raise InputError("clock_disorder", f"{subject} t_ns", "give moments that rise strictly.")
        given = record.get("columns")
        if not isinstance(given, dict):
            raise InputError("unknown_format", f"{subject} columns", "expected an object of columns.")
        unknown = sorted(set(given) - set(CONTEXT_COLUMNS))
        if unknown:
            raise InputError(
                "unknown_format", f"{subject} columns.{unknown[0]}", f"known: {', '.join(CONTEXT_COLUMNS)}."
            )
        start_ns = record.get("start_ns", int(t_ns[0]))
        if not _whole(start_ns, MOST_NS):
            raise InputError("unknown_format", f"{subject} start_ns", "expected a whole number of nanoseconds.")
        return cls(
            region=str(record.get("region", "")),
            start_ns=start_ns,
            t_ns=t_ns,
            columns={
                name: _values(name, values, len(t_ns), f"{subject} columns.{name}") for name, values in given.items()
            },
            actors=_actors(record["actors"], len(t_ns), subject) if "actors" in record else None,
        )


def as_log(rollout: Rollout, geometry: VehicleGeometry | None = None) -> tuple[Recording, MapContext]:
    """A rollout as an ordinary recording (ego state, no pictures) and the map context beside it."""
    driven = Driven.from_rollout(rollout, geometry)
    t_ns = START_NS + np.rint(driven["t_s"] * 1e9).astype(np.int64)
    recording = Recording(
        vehicle=f"ego-{rollout.ego}",
        clock=Clock(kind="boot"),
        rig=Rig(cameras=(), vehicle=driven.geometry),
        signals=Signals.build(t_ns, **{name: driven[name] for name in EGO_COLUMNS}),
        videos=(),
        drive_key=f"{rollout.region}-{rollout.scenario}-{rollout.world_seed}-{rollout.ego}",
        synthetic=rollout.synthetic,
    )
    context = MapContext(
        region=rollout.region,
        start_ns=START_NS,
        t_ns=t_ns,
        columns={name: driven[name] for name in CONTEXT_COLUMNS},
        actors=driven.actors,
    )
    return recording, context


def _sampled(t_ns: NDArray[np.int64], values: Floats, at_ns: NDArray[np.int64], *, angle: bool) -> Floats:
    """Values at other moments: the sample itself where one stands there, else between neighbours within NEAR_S."""
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(at_ns), np.nan)
    times, samples = t_ns[known], values[known]
    continuous = np.unwrap(samples) if angle else samples
    found = np.interp((at_ns - times[0]) / 1e9, (times - times[0]) / 1e9, continuous)
    right = np.clip(np.searchsorted(times, at_ns), 0, len(times) - 1)
    left = np.clip(right - 1, 0, len(times) - 1)
    exact = times[right] == at_ns
    far = np.maximum(np.abs(times[right] - at_ns), np.abs(at_ns - times[left])) > NEAR_S * 1e9
    found = np.where(exact, samples[right], np.where(far, np.nan, found))
    return np.asarray(
        [math.remainder(v, 2 * math.pi) if angle and not e else v for v, e in zip(found, exact, strict=True)]
    )


def _named(name: str, values: Floats) -> list[Any]:
    names = CATEGORIES.get(name)
    if names is None:
        return [float(value) if math.isfinite(value) else None for value in values]
    return [names[int(value)] if math.isfinite(value) else None for value in values]


def _values(name: str, values: Any, count: int, where: str, *, known: bool = False) -> Floats:
    """One column (count,), NaN for null; known: null is an error, too."""
    if not isinstance(values, list) or len(values) != count:
        raise InputError("unknown_format", where, f"expected a list of {count}, one per moment.")
    names = CATEGORIES.get(name)
    found = np.full(count, np.nan)
    for row, value in enumerate(values):
        if value is None and not known:
            continue
        if names is not None:
            if value not in names:
                raise InputError("unknown_format", f"{where}[{row}]", f"expected one of {', '.join(names)} or null.")
            found[row] = names.index(value)
        elif type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            wanted = "expected a finite number." if known else "expected a finite number or null."
            raise InputError("unknown_format", f"{where}[{row}]", wanted)
        else:
            found[row] = value
    return found


def _integers(record: Mapping[str, Any], name: str, subject: str, most: int) -> NDArray[np.int64]:
    values = record.get(name)
    if not isinstance(values, list) or not all(_whole(value, most) for value in values):
        raise InputError("unknown_format", f"{subject} {name}", f"expected a list of whole numbers of at most {most}.")
    return np.array(values, np.int64)


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and abs(value) <= most


def _actors(record: Any, count: int, subject: str) -> Actors:
    where = f"{subject} actors"
    if not isinstance(record, dict) or not {"row", "id", "kind", *ACTOR_COLUMNS} <= set(record):
        raise InputError("unknown_format", where, f"expected row, id, kind, {', '.join(ACTOR_COLUMNS)}.")
    row, identity = _integers(record, "row", where, count), _integers(record, "id", where, MOST_ID)
    if len(row) and (row.min() < 0 or row.max() >= count or (np.diff(row) < 0).any()):
        raise InputError("unknown_format", f"{where}.row", f"expected rows of 0 to {count - 1} in order.")
    if len(identity) != len(row):
        raise InputError("unknown_format", f"{where}.id", f"expected {len(row)}, one per row.")
    kinds = record["kind"]
    if not isinstance(kinds, list) or len(kinds) != len(row) or any(kind not in ACTOR_KINDS for kind in kinds):
        raise InputError("unknown_format", f"{where}.kind", f"expected one of {', '.join(ACTOR_KINDS)} per row.")
    # a box of which something is unknown cannot be told to touch nobody
    columns = {name: _values(name, record[name], len(row), f"{where}.{name}", known=True) for name in ACTOR_COLUMNS}
    numbers = np.array([ACTOR_KINDS.index(kind) for kind in kinds], np.int64)
    return Actors(row=row, id=identity, kind=numbers, columns=columns)


def turn_names(bits: float) -> str:
    """The movements of a TURNS value, for people."""
    return "+".join(name for name, bit in TURNS.items() if int(bit) & bit) or "none"
