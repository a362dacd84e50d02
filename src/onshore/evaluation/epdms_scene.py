"""One scored moment of driving: the road, a reference plan, the ego's plan, the others and red lights, read from a record.

Rule: nothing is guessed. A field that is missing, of the wrong kind, infinite or out of range is an InputError that
names the field; what a record may leave out is listed with `OPTIONAL`.
Frame: one flat map frame in metres and radians; ego rows are the rear axle, other boxes their centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError

Floats = NDArray[np.float64]

STEP_S = 0.1
ROWS = 41
#: classes whose at-fault collision costs everything; the others are objects and cost half
AGENT_CLASSES = ("vehicle", "pedestrian", "bicycle")
OBJECT_CLASSES = ("traffic_cone", "barrier", "czone_sign", "generic_object")
COLUMNS = ("x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2", "yaw_rate_radps")
#: fields of a road that may be absent: polygons the ego may drive on besides roadblocks
AREAS = ("intersections", "drivable_areas", "carparks")
#: fields of a scene that may be absent
OPTIONAL = ("road", "reference", "past", "previous_plan")
#: numbers beyond this are mistakes, not places
LARGEST = 1e7


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """Ego rows at the rear axle, 0.1 s apart from `start_s`: columns (N,) in metres, radians and seconds."""

    start_s: float = 0.0
    x_m: Floats
    y_m: Floats
    yaw_rad: Floats
    speed_mps: Floats
    accel_mps2: Floats
    yaw_rate_radps: Floats

    def __len__(self) -> int:
        return len(self.x_m)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Another road user or object: a box at t = 0 that keeps its velocity."""

    kind: str
    x_m: float
    y_m: float
    yaw_rad: float
    vx_mps: float
    vy_mps: float
    length_m: float
    width_m: float

    @property
    def is_agent(self) -> bool:
        return self.kind in AGENT_CLASSES


@dataclass(frozen=True, kw_only=True, eq=False)
class Lane:
    """A lane's polygon (M, 2) and whether the route uses it."""

    id: str
    polygon: Floats
    on_route: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Road:
    """What may be driven on: lanes, roadblocks (all lanes of one direction), further areas, and the route's centreline (K, 2)."""

    lanes: tuple[Lane, ...]
    roadblocks: tuple[Floats, ...]
    centerline: Floats
    intersections: tuple[Floats, ...] = ()
    drivable_areas: tuple[Floats, ...] = ()
    carparks: tuple[Floats, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Four seconds to score: `ego` and `reference` have 41 rows from t = 0.

    past: human rows up to and with t = 0, for history comfort. previous_plan: this driver's plan of up to 0.5 s earlier
    in the same frame, for extended comfort. Without them those two are not measurable.
    """

    name: str
    road: Road
    reference: States
    ego: States
    tracks: tuple[Track, ...] = ()
    red_lights: tuple[Floats, ...] = ()
    past: States | None = None
    previous_plan: States | None = None
    expected: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Field:
    """A value of a record, with its file and the way that leads to it."""

    value: Any
    file: str
    where: str = ""

    def fail(self, expected: str) -> InputError:
        return InputError("unknown_format", f"{self.file} {self.where}".strip(), f"expected {expected}.")

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> _Field:
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        below = _Field(self.value.get(key), self.file, f"{self.where}.{key}".lstrip("."))
        if key not in self.value:
            raise below.fail("this field to be present")
        return below

    def items(self, least: int = 0) -> Iterator[_Field]:
        if not isinstance(self.value, list) or len(self.value) < least:
            raise self.fail(f"a list of at least {least}" if least else "a list")
        return (_Field(value, self.file, f"{self.where}[{at}]") for at, value in enumerate(self.value))

    def number(self, low: float = -LARGEST, high: float = LARGEST) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(f"a number of {low:g} to {high:g}")
        return float(value)

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.fail("a text")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.fail("true or false")
        return self.value

    def column(self, least: int, most: int) -> Floats:
        values = [entry.number() for entry in self.items()]
        if not least <= len(values) <= most:
            raise self.fail(f"{least} values" if least == most else f"{least} to {most} values")
        return np.array(values)

    def points(self, least: int) -> Floats:
        pairs = [[entry.number() for entry in pair.pair()] for pair in self.items(least)]
        return np.array(pairs, dtype=np.float64)

    def pair(self) -> Iterator[_Field]:
        if not isinstance(self.value, list) or len(self.value) != 2:
            raise self.fail("a pair [x, y]")
        return self.items()

    def polygon(self) -> Floats:
        points = self.points(3)
        if len(points) > 3 and (points[0] == points[-1]).all():
            points = points[:-1]
        x, y = (points - points[0]).T
        if abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) < 1e-9:
            raise self.fail("a polygon with an area")
        return points


def read_scenes(record: Any, path: object = "file") -> list[Scene]:
    """All scenes of a file's record shaped like `epdms.json`; InputError names the first field that is wrong."""
    file = _Field(record, str(path))
    road = _road(file["road"]) if "road" in file else None
    reference = _plan(file["reference"]) if "reference" in file else None
    scenes = [_scene(entry, road, reference) for entry in file["scenes"].items(least=1)]
    seen: set[str] = set()
    for at, scene in enumerate(scenes):
        if scene.name in seen:
            raise InputError("unknown_format", f"{path} scenes[{at}].name", f"{scene.name!r} repeats; name each scene.")
        seen.add(scene.name)
    return scenes


def _scene(record: _Field, road: Road | None, reference: States | None) -> Scene:
    expected = record["expected"]
    if not isinstance(expected.value, dict):
        raise expected.fail("an object")
    return Scene(
        name=record["name"].text(),
        road=_road(record["road"]) if road is None or "road" in record else road,
        reference=_plan(record["reference"]) if reference is None or "reference" in record else reference,
        ego=_plan(record["ego"]),
        tracks=tuple(_track(entry) for entry in record["agents"].items()),
        red_lights=_areas(record["red_light_polygons"]),
        past=_past(record["past"]) if "past" in record else None,
        previous_plan=_previous(record["previous_plan"]) if "previous_plan" in record else None,
        expected=expected.value,
    )


def _road(record: _Field) -> Road:
    return Road(
        lanes=tuple(_lane(entry) for entry in record["lanes"].items()),
        roadblocks=_areas(record["roadblocks"]),
        centerline=_centerline(record["route_centerline"]),
        **{name: _areas(record[name]) for name in AREAS if name in record},
    )


def _lane(record: _Field) -> Lane:
    return Lane(id=record["id"].text(), polygon=record["polygon"].polygon(), on_route=record["on_route"].flag())


def _area(record: _Field) -> Floats:
    """A polygon given as a list of points or as an object with the field `polygon`."""
    return record["polygon"].polygon() if isinstance(record.value, dict) else record.polygon()


def _areas(record: _Field) -> tuple[Floats, ...]:
    return tuple(_area(entry) for entry in record.items())


def _centerline(record: _Field) -> Floats:
    """Points of the centreline, given as `points_m` or as a straight line along x at one `y_m`."""
    if "points_m" in record:
        points = record["points_m"].points(2)
        if (np.diff(points, axis=0) == 0.0).all(axis=1).any():
            raise record["points_m"].fail("points that do not repeat")
        return points
    start, end = record["x_from_m"].number(), record["x_to_m"].number()
    step = record["step_m"].number(low=1e-3)
    if not step <= end - start <= step * 1e6:
        raise record["x_to_m"].fail("one to a million steps beyond x_from_m")
    x = start + step * np.arange(math.floor((end - start) / step + 1e-9) + 1)
    return np.stack([x, np.full_like(x, record["y_m"].number())], axis=1)


def _states(record: _Field, least: int = ROWS, most: int = ROWS) -> States:
    times = record["t_s"].column(least, most)
    if np.abs(times - times[0] - STEP_S * np.arange(len(times))).max() > 1e-3:
        raise record["t_s"].fail(f"times {STEP_S} s apart")
    return States(start_s=float(times[0]), **{name: record[name].column(len(times), len(times)) for name in COLUMNS})


def _plan(record: _Field) -> States:
    states = _states(record)
    if abs(states.start_s) > 1e-3:
        raise record["t_s"].fail("times from 0 on")
    return states


def _past(record: _Field) -> States:
    states = _states(record, 3, 1000)
    if abs(states.start_s + STEP_S * (len(states) - 1)) > 1e-3:
        raise record["t_s"].fail("times up to and with 0")
    return states


def _previous(record: _Field) -> States:
    states = _states(record)
    if not -0.55 < states.start_s < -STEP_S / 2:
        raise record["t_s"].fail("a plan that starts 0.1 to 0.5 s earlier")
    return states


def _track(record: _Field) -> Track:
    kind = record["type"].text()
    if kind not in AGENT_CLASSES + OBJECT_CLASSES:
        raise record["type"].fail(f"one of {', '.join(AGENT_CLASSES + OBJECT_CLASSES)}")
    places = {name: record[name].number() for name in ("x_m", "y_m", "yaw_rad", "vx_mps", "vy_mps")}
    sizes = {name: record[name].number(low=1e-3, high=1e3) for name in ("length_m", "width_m")}
    return Track(kind=kind, **places, **sizes)
