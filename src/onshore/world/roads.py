"""A region's roads, looks and traffic as typed records, read from the pack's `roads.toml`.

Rule: everything that differs between regions is a value here; no other module asks which region it is in. Sides are named
from the driver: the kerb is at the `near` side (right where traffic keeps right), the middle of the road at the far side.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cached_property
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.digest import record_digest
from onshore.core.errors import InputError
from onshore.core.rollout import ACTOR_KINDS, LANE_KINDS
from onshore.world.glyphs import glyph_problems, shared_glyphs

Colour = tuple[int, int, int]
Hours = tuple[tuple[float, float], ...]
#: Where a sign stands: at approaches that give way, have priority or stop; after each junction where a lane of `lane_kind`
#: starts; at the start of each street; before crosswalks; over the lanes of an approach; beside a waiting area; or only
#: where a scenario puts it.
SignPlace = Literal[
    "give_way",
    "priority",
    "stop",
    "lane_start",
    "street_start",
    "crosswalk",
    "approach_lanes",
    "waiting_area",
    "scenario",
]
SignShape = Literal["circle", "octagon", "triangle", "triangle_down", "square", "diamond", "rectangle"]
REQUIRED_PAINT = ("kerb", "centre", "stop")


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One lane of the region's streets, kerb first. `reserved_h`: hours of day at which it is its kind's alone; () = always."""

    kind: str
    width_m: float
    allow: str
    reserved_h: Hours = ()

    def open_to_cars(self, clock_h: float) -> bool:
        """Whether a car may use the lane at this time of day."""
        if self.kind == "car":
            return True
        return bool(self.reserved_h) and not any(start <= clock_h % 24 < end for start, end in self.reserved_h)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Paint: colour, width and, when broken, the lengths of dash and gap; two lines `double_gap_m` apart; or a zigzag."""

    colour: Colour
    width_m: float
    dash_m: tuple[float, float] | None = None
    double_gap_m: float | None = None
    zigzag_m: float | None = None

    @property
    def meaning(self) -> str:
        """The `core.rollout.LINES` name of this paint between two lanes."""
        if self.dash_m is not None:
            return "dashed"
        return "solid" if self.double_gap_m is None else "double_solid"


@dataclass(frozen=True, kw_only=True)
class Approach:
    """The last metres before a stop line: lines between lanes are solid over `solid_m`; arrows lie at `arrow_at_m`."""

    solid_m: float
    arrow_at_m: tuple[float, ...]
    arrow_length_m: float
    arrow_width_m: float
    colour: Colour
    stop_gap_m: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Crosswalk:
    """Bars along the road (`zebra`) or two lines across it (`lines`), `after_stop_m` beyond the stop line, at these junctions."""

    style: Literal["zebra", "lines", "ladder"]
    width_m: float
    after_stop_m: float
    bar_m: float
    gap_m: float
    colour: Colour
    at: tuple[Literal["traffic_light", "priority"], ...]
    priority: bool = True


@dataclass(frozen=True, kw_only=True)
class WaitingArea:
    """A box ahead of the stop line in which turns across the oncoming traffic wait while straight traffic has green."""

    length_m: float
    paint: Line
    text: str
    turn: Literal["left", "right"] = "left"


@dataclass(frozen=True, kw_only=True)
class LaneText:
    """A word painted on lanes of a kind, every `every_m`."""

    kind: str
    text: str
    every_m: float
    height_m: float
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """What the law lets a car do here. The near turn is the right turn where traffic keeps right."""

    near_turn_on_red: bool
    stop_before_near_turn_on_red: bool
    u_turn_at_lights: bool
    bus_lane_right_turn_m: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Temporary:
    """A light on a trailer or on the ground, for roadworks: lamps this high, beside the lane."""

    height_m: float
    half_size_m: tuple[float, float]
    lamp_step_m: float
    housing: Colour
    stack: Literal["vertical", "horizontal"] = "vertical"


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Where lamps hang: `across` 0 = middle of the car lanes, 1 = kerb; `far` = share of the junction's depth.

    `turn_arrows`: an extra housing with arrow lamps for the far turn; `countdown`: digits beside the lamps.
    """

    stack: Literal["vertical", "horizontal"]
    across: float
    far: float
    beyond_m: float
    height_m: float
    half_size_m: tuple[float, float]
    lamp_step_m: float
    housing: Colour
    pole: Colour
    lamp_half_m: float = 0.55
    turn_arrows: bool = False
    countdown: bool = False
    temporary: Temporary | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A smaller shape on a sign's face, under its glyph."""

    shape: SignShape
    fill: Colour
    border: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class SignFace:
    """A sign as drawn: shape, colours, a glyph, a text ({speed} and {hours} are filled in), a bar across.

    `aspect` is width over height. Glyphs are those of `world/glyphs.toml` and of the pack's own `[glyphs]`.
    """

    shape: SignShape
    fill: Colour
    ink: Colour
    border: Colour | None = None
    border_share: float = 0.1
    glyph: str | None = None
    text: str = ""
    bar: Colour | None = None
    panel: Panel | None = None
    aspect: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A face at a place; `half_size_m` is half its height."""

    face: str
    where: SignPlace
    height_m: float
    half_size_m: float
    lane_kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """One kind's share of the traffic and the lanes it starts in."""

    kind: str
    share: float
    lanes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VehicleKind:
    """A kind's box, colours, and attributes handed to the traffic engine as they are."""

    length_m: float
    width_m: float
    height_m: float
    colours: tuple[Colour, ...]
    engine: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pedestrians:
    """People on foot: how they walk and look. Who comes when is a scenario's matter."""

    speed_mps: tuple[float, float]
    height_m: tuple[float, float]
    length_m: float
    width_m: float
    coats: tuple[Colour, ...]
    trousers: tuple[Colour, ...]
    per_crosswalk_min: float


@dataclass(frozen=True, kw_only=True)
class House:
    """A style of house: its share, colours, half heights, storey height and windows."""

    share: float
    colours: tuple[Colour, ...]
    half_height_m: tuple[float, float]
    half_width_m: tuple[float, float] = (4.0, 8.0)
    storey_m: float = 3.0
    window: Colour = (60, 66, 76)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Colours of ground and sky by day; `vary` is how far a town's seed moves them (0 = not at all)."""

    asphalt: Colour
    grass: Colour
    side: Colour
    sky: Colour
    houses: tuple[House, ...]
    lane_paint: dict[str, Colour] = field(default_factory=dict)
    vary: float = 0.06
    tree_share: float = 0.0
    tree: Colour = (60, 95, 50)


@dataclass(frozen=True, kw_only=True)
class Roads:
    """`roads.toml` of one region. `town`, `traffic` and `expert` keep their figures by name."""

    region: str
    digest: str
    drive_on: Literal["right", "left"]
    speed_unit_mps: float
    town: dict[str, Any]
    lanes: tuple[Lane, ...]
    paint: dict[str, Line]
    approach: Approach
    permissions: Permissions
    looks: Looks
    lights: Lights
    sign_faces: dict[str, SignFace]
    signs: tuple[Sign, ...]
    traffic: dict[str, Any]
    mix: tuple[Share, ...]
    vehicles: dict[str, VehicleKind]
    pedestrians: Pedestrians
    expert: dict[str, Any]
    crosswalk: Crosswalk | None = None
    waiting_area: WaitingArea | None = None
    lane_text: tuple[LaneText, ...] = ()
    glyphs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def car_lanes(self) -> tuple[int, ...]:
        return tuple(index for index, lane in enumerate(self.lanes) if lane.kind == "car")

    @property
    def inward(self) -> float:
        """+1 where the middle of the road lies to the left of a lane (traffic keeps right), -1 where to its right."""
        return 1.0 if self.drive_on == "right" else -1.0

    @property
    def ego_geometry(self) -> VehicleGeometry:
        car = self.vehicles["car"]
        return VehicleGeometry(length_m=car.length_m, width_m=car.width_m, height_m=car.height_m)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Length, width, height by ACTOR_KINDS index; NaN for kinds this region does not have."""
        table = np.full((len(ACTOR_KINDS), 3), np.nan)
        for name, kind in self.vehicles.items():
            table[ACTOR_KINDS.index(name)] = kind.length_m, kind.width_m, kind.height_m
        walker = self.pedestrians
        table[ACTOR_KINDS.index("pedestrian")] = walker.length_m, walker.width_m, sum(walker.height_m) / 2
        return table

    def line_between(self, lane_kind: str, *, before_stop_m: float, outermost: bool = False) -> Line:
        """The paint on the middle side of a lane of this kind; `outermost`: no lane of this direction follows."""
        if outermost:
            return self.paint["centre"]
        line = self.paint.get(lane_kind, self.paint["kerb"])
        solid = 0.0 <= before_stop_m <= self.approach.solid_m and lane_kind == "car"
        return self.paint.get("approach", _undashed(line)) if solid else line

    @classmethod
    def from_record(cls, region: str, record: dict[str, Any]) -> Roads:
        """Check and type one `roads.toml`; InputError `bad_config` names the field and what it must be."""
        where = f"{region}/roads.toml"
        known = {name: value for name, value in record.items() if name != "schema_version"}
        traffic = dict(known.get("traffic", {}))
        if record.get("schema_version") != SCHEMA_VERSION:
            raise InputError("bad_config", f"{where} schema_version", f"must be {SCHEMA_VERSION}; see docs/region.md.")
        typed = {"region": region, "digest": record_digest(record), **known, "mix": traffic.pop("mix", [])}
        roads = _typed(cls, {**typed, "traffic": traffic}, where, "")
        roads._check(where)
        return roads  # type: ignore[no-any-return]

    def _check(self, where: str) -> None:
        problems = [
            *[f"town.{name}: missing" for name in TOWN_FIGURES if name not in self.town],
            *[f"traffic.{name}: missing" for name in TRAFFIC_FIGURES if name not in self.traffic],
            *[f"expert.{name}: missing" for name in EXPERT_FIGURES if name not in self.expert],
            *[
                f"lanes[{n}].kind {x.kind!r}: one of {LANE_KINDS}"
                for n, x in enumerate(self.lanes)
                if x.kind not in LANE_KINDS
            ],
            *[
                f"lanes[{n}].reserved_h: hours rise within 0 to 24"
                for n, x in enumerate(self.lanes)
                if not _rising(x.reserved_h)
            ],
            *([] if self.car_lanes else ["lanes: at least one must be of kind 'car'"]),
            *[f"paint.{name}: missing" for name in REQUIRED_PAINT if name not in self.paint],
            *[f"traffic.mix names unknown vehicle {s.kind!r}" for s in self.mix if s.kind not in self.vehicles],
            *[f"traffic.mix {s.kind}: no lane {n}" for s in self.mix for n in s.lanes if n >= len(self.lanes)],
            *[f"vehicles.{name}: not one of {ACTOR_KINDS}" for name in self.vehicles if name not in ACTOR_KINDS],
            *([] if "car" in self.vehicles else ["vehicles.car: missing"]),
            *[
                f"signs[{n}].face: no sign_faces.{s.face}"
                for n, s in enumerate(self.signs)
                if s.face not in self.sign_faces
            ],
            *self._glyph_problems(),
            *([] if self.looks.houses else ["looks.houses: at least one style"]),
        ]
        if problems:
            raise InputError("bad_config", where, f"{'; '.join(problems)}.")

    def _glyph_problems(self) -> list[str]:
        known = {**shared_glyphs(), **self.glyphs}
        named = [(f"sign_faces.{name}.glyph", face.glyph) for name, face in self.sign_faces.items() if face.glyph]
        named += [
            (f"lane_text[{n}].text", word.text[1:]) for n, word in enumerate(self.lane_text) if word.text[0] == "@"
        ]
        broken = [problem for name, paths in self.glyphs.items() for problem in glyph_problems(name, paths)]
        return broken + [f"{where}: no glyph {glyph!r}" for where, glyph in named if glyph not in known]


SCHEMA_VERSION = 2
TOWN_FIGURES = (
    "grid",
    "block_m",
    "jitter_m",
    "bends_m",
    "speed_limit_mps",
    "junction_radius_m",
    "light_cycle_s",
    "yellow_s",
    "side_m",
)
TRAFFIC_FIGURES = ("vehicles", "fill_s", "period_s", "impatient_after_s")
EXPERT_FIGURES = ("accel_mps2", "speed_over_limit", "time_gap_s", "standing_gap_m", "max_time_s")


def _rising(hours: Hours) -> bool:
    flat = [hour for span in hours for hour in span]
    return flat == sorted(set(flat)) and all(0 <= hour <= 24 for hour in flat)


def _undashed(line: Line) -> Line:
    return Line(colour=line.colour, width_m=line.width_m)


# -- typing of parsed TOML -----------------------------------------------------------------------------------------


def _typed(wanted: Any, value: Any, where: str, path: str) -> Any:
    """`value` as `wanted` (records, tuples, dicts, literals, plain values); InputError names `path` and what it must be."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _record(wanted, value, where, path)
    if origin in (Union, UnionType):
        return _typed(arguments[0], value, where, path)
    if origin is Literal:
        return value if value in arguments else _wrong(where, path, f"one of {', '.join(map(str, arguments))}", value)
    if origin is tuple:
        return _tuple(arguments, value, where, path)
    if origin is dict:
        if not isinstance(value, dict):
            _wrong(where, path, "a table", value)
        return {name: _typed(arguments[1], item, where, f"{path}.{name}") for name, item in value.items()}
    if wanted is Any:
        return _tuples(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is wanted else _wrong(where, path, wanted.__name__, value)


def _record(wanted: type, value: Any, where: str, path: str) -> Any:
    if not isinstance(value, dict):
        _wrong(where, path, "a table", value)
    hints, known = get_type_hints(wanted), {item.name: item for item in fields(wanted)}
    prefix = f"{path}." if path else ""
    for name in value:
        if name not in known:
            raise InputError(
                "bad_config", f"{where} {prefix}{name}", f"unexpected field; known are {', '.join(known)}."
            )
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise InputError("bad_config", f"{where} {prefix}{name}", "the field is missing.")
    return wanted(**{name: _typed(hints[name], item, where, prefix + name) for name, item in value.items()})


def _tuple(arguments: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        _wrong(where, path, "a list", value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_typed(arguments[0], item, where, f"{path}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        _wrong(where, path, f"a list of {len(arguments)}", value)
    return tuple(
        _typed(kind, item, where, f"{path}[{n}]") for n, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _wrong(where: str, path: str, expected: str, value: Any) -> Any:
    raise InputError("bad_config", f"{where} {path}", f"expected {expected}, found {value!r}.")


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
