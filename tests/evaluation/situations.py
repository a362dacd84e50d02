"""Micro-situations with rule verdicts stated by hand: each a few seconds of driving on one street, and which rules it breaks.

Nothing here calls a predicate. `violated` is the whole set of broken rules, `unknown` the whole set of rules that cannot
be judged; every other rule of the region must be ok.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onshore.core.control import VehicleGeometry
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

CAR = VehicleGeometry()
NAN = float("nan")
REGIONS = ("cn", "us", "eu")
S, L, R, U = TURNS["straight"], TURNS["left"], TURNS["right"], TURNS["u_turn"]
ONLY_CN = {"waiting_area_closed", "waiting_area_left"}
NOT_CN = {"turn_on_red_forbidden"}
SPEED_RULES = {
    "cn": {"speed_10", "speed_20", "speed_50"},
    "us": {"speed_1", "speed_16", "speed_26"},
    "eu": {"speed_1", "speed_21", "speed_31"},
}
LANE_RULES = {"bus_lane", "non_motor_lane", "emergency_lane"}
LIGHT_RULES = {
    *("red_light", "temporary_light", "turn_on_red", "turn_on_red_forbidden"),
    *("left_turn_yield", "waiting_area_left", "stop_over_line"),
}


@dataclass(frozen=True, kw_only=True)
class Situation:
    name: str
    region: str
    rollout: Rollout
    violated: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    sees_actors: bool = True
    offences: int | None = None


@dataclass
class Street:
    """A few seconds along a street, everything known and harmless until a situation says otherwise.

    speed (N,) m/s at 10 Hz; yaw (N,) rad. `front_m` is the way the front bumper has come.
    """

    speed: ArrayLike = 10.0
    seconds: float = 8.0
    yaw: ArrayLike = 0.0
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    actors: list[tuple[int, int, int, tuple[float, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.t = np.round(np.arange(0.1, self.seconds + 0.05, 0.1), 3)
        count = len(self.t)
        speed = np.broadcast_to(np.asarray(self.speed, float), count).copy()
        yaw = np.broadcast_to(np.asarray(self.yaw, float), count).copy()
        x = np.concatenate([[0.0], np.cumsum(speed[1:] * np.cos(yaw[1:]) * 0.1)])
        y = np.concatenate([[0.0], np.cumsum(speed[1:] * np.sin(yaw[1:]) * 0.1)])
        self.front_m = np.concatenate([[0.0], np.cumsum(speed[1:] * 0.1)])
        calm = {"lane_kind": 1, "on_road": 1, "clock_h": 12, "speed_limit_mps": 100, "lane_index": 1, "lane_open": 1}
        calm |= {"line_left": 1, "line_left_m": 0.7, "line_right": 1, "line_right_m": 0.7, "movement": S}
        unset = ("light_distance_m", "stop_line_m", "crosswalk_m")
        base = {name: np.full(count, NAN if name in unset else float(calm.get(name, 0))) for name in STEP_COLUMNS}
        base |= {"t_s": self.t, "x_m": x, "y_m": y, "yaw_rad": yaw, "speed_mps": speed, "progress_m": self.front_m}
        self.columns = base

    def set(self, when: Any = None, **values: Any) -> Street:
        """Columns to values, over all rows or where `when` holds."""
        for name, value in values.items():
            if when is None:
                self.columns[name] = np.broadcast_to(np.asarray(value, float), len(self.t)).copy()
            else:
                self.columns[name][when] = np.broadcast_to(np.asarray(value, float), len(self.t))[when]
        return self

    def between(self, begin_s: float, end_s: float) -> NDArray[np.bool_]:
        """Rows with begin_s < t <= end_s."""
        return (self.t > begin_s + 1e-9) & (self.t <= end_s + 1e-9)

    def line(
        self, at_m: float, rule: str = "none", *, junction: bool = True, light: Any = "none", **more: Any
    ) -> Street:
        """A stop line `at_m` metres of the front bumper's way ahead, and a junction of 20 m behind it."""
        to_line = at_m - self.front_m
        self.columns["stop_line_m"] = np.where(to_line >= -10.0, to_line, NAN)
        self.set(to_line >= -10.0, stop_rule=STOP_RULES.index(rule))
        if junction:
            self.set((to_line < -1.0) & (to_line > -21.0), junction=1)
        if rule == "light":
            self.set(light=LIGHTS.index(light), light_shape=LIGHT_SHAPES.index("round"))
            self.columns["light_distance_m"] = np.where(to_line >= 0, to_line, NAN)
        return self.set(**more)

    def actor(self, x: float, y: float, yaw: float, speed: float, kind: str = "car", brakes: bool = False) -> Street:
        """A road user that starts with its centre at (x, y) and keeps going."""
        length, width = (0.6, 0.6) if kind == "pedestrian" else (4.6, 1.9)
        identity = 100 + len({entry[1] for entry in self.actors})
        for row, t_s in enumerate(self.t):
            way = speed * (t_s - self.t[0])
            place = (x + np.cos(yaw) * way, y + np.sin(yaw) * way, yaw, speed, length, width)
            self.actors.append((row, identity, ACTOR_KINDS.index(kind), place))
        return self

    def rollout(self, region: str, name: str) -> Rollout:
        rows = sorted(self.actors, key=lambda entry: (entry[0], entry[1]))
        table = np.array([entry[3] for entry in rows], np.float32).reshape(-1, len(ACTOR_COLUMNS))
        count = len(self.t)
        return Rollout(
            region=region,
            suite="situations",
            scenario=name,
            world_seed=0,
            ego=0,
            policy="scripted",
            route_length_m=1000.0,
            steps={column: np.asarray(values, np.float64) for column, values in self.columns.items()},
            plan_path_NK2=np.full((count, 8, 2), np.nan, np.float32),
            plan_speed_NT=np.full((count, 4), np.nan, np.float32),
            actors={column: table[:, index].copy() for index, column in enumerate(ACTOR_COLUMNS)},
            actor_row=np.array([entry[0] for entry in rows], np.int32),
            actor_id=np.array([entry[1] for entry in rows], np.int32),
            actor_kind=np.array([entry[2] for entry in rows], np.int8),
            events=(),
        )


def situation(
    name: str,
    region: str,
    street: Street,
    violated: str | set[str] = "",
    unknown: set[str] | None = None,
    **more: Any,
) -> Situation:
    broken = {violated} if isinstance(violated, str) else violated
    foreign = NOT_CN if region == "cn" else ONLY_CN
    return Situation(
        name=f"{region}-{name}",
        region=region,
        rollout=street.rollout(region, name),
        violated=frozenset(broken - {""} - foreign),
        unknown=frozenset((unknown or set()) - foreign),
        **more,
    )


def all_situations() -> list[Situation]:
    families = (bus_lanes, other_lanes, lines, turn_lanes, red_lights, turns_on_red, stop_signs, giving_way)
    more = (left_turns, crosswalks, waiting_areas, standing, wrong_ways, u_turns, speeds, distances, unknowns)
    return [one for family in (*families, *more) for one in family()]


# -- lanes ---------------------------------------------------------------------------------------------------------


def lane(kind: str, seconds: float, **columns: Any) -> Street:
    """`seconds` in a lane of a kind that is closed to cars."""
    street = Street()
    inside = street.between(2.0, 2.0 + seconds)
    return street.set(inside, lane_kind=LANE_KINDS.index(kind), lane_open=0).set(inside, **columns)


def bus_lanes() -> Iterator[Situation]:
    for region in REGIONS:
        yield situation("bus-closed", region, lane("bus", 3.0), "bus_lane")
        yield situation("bus-open", region, lane("bus", 3.0, lane_open=1))
        yield situation("bus-short", region, lane("bus", 0.8))
        yield situation("bus-just-long-enough", region, lane("bus", 1.2), "bus_lane")
    hours = {"cn": ((6.99, 7.01, 8.99, 9.01), (16.99, 17.01, 18.99, 19.01)), "eu": ((5.99, 6.01, 8.99, 9.01),)}
    for region, periods in hours.items():
        for before, begun, late, after in periods:
            for clock, broken in ((before, ""), (begun, "bus_lane"), (late, "bus_lane"), (after, "")):
                street = lane("bus", 3.0, lane_open=NAN).set(clock_h=clock)
                yield situation(f"bus-at-{clock}", region, street, broken)
        street = lane("bus", 3.0, lane_open=NAN).set(clock_h=NAN)
        yield situation("bus-no-clock", region, street, unknown={"bus_lane"})
    yield situation("bus-no-hours-known", "us", lane("bus", 3.0, lane_open=NAN).set(clock_h=NAN), "bus_lane")
    street = lane("bus", 6.0).line(80.0, movement=R)
    street.set(street.front_m < 51.0, lane_kind=1)
    yield situation("bus-to-turn-right", "cn", street)
    street = lane("bus", 6.0).line(80.0, movement=R)
    street.set(street.front_m > 49.0, lane_kind=1)
    yield situation("bus-too-early-to-turn", "cn", street, "bus_lane")
    street = lane("bus", 6.0).line(80.0, movement=S)
    street.set(street.front_m < 51.0, lane_kind=1)
    yield situation("bus-and-straight-on", "cn", street, "bus_lane")


def other_lanes() -> Iterator[Situation]:
    for region in REGIONS:
        for kind, rule in (("bike", "non_motor_lane"), ("shoulder", "emergency_lane")):
            yield situation(f"{kind}-long", region, lane(kind, 2.0), rule)
            yield situation(f"{kind}-brief", region, lane(kind, 0.6))
        yield situation("bike-standing", region, lane("bike", 3.0).set(speed_mps=0.0))
        yield situation("bike-twice", region, _twice("bike"), "non_motor_lane", offences=2)
    street = lane("bike", 6.0).line(90.0, movement=R)
    street.set((street.front_m < 35.0) | (street.front_m > 70.0), lane_kind=1)
    yield situation("bike-20m-before-a-turn", "us", street)
    street = lane("bike", 6.0).line(90.0, movement=R)
    street.set((street.front_m < 35.0) | (street.front_m > 70.0), lane_kind=1)
    yield situation("bike-20m-before-a-turn", "cn", street, "non_motor_lane")


def _twice(kind: str) -> Street:
    street = lane(kind, 1.5)
    return street.set(street.between(6.0, 7.5), lane_kind=LANE_KINDS.index(kind), lane_open=0)


def lines() -> Iterator[Situation]:
    def over(kind: str, by_m: float, side: str = "left", seconds: float = 1.0) -> Street:
        street = Street()
        inside = street.between(3.0, 3.0 + seconds)
        return street.set(**{f"line_{side}": LINES.index(kind)}).set(inside, **{f"line_{side}_m": -by_m})

    barred = {"cn": ("solid", "double_solid"), "us": ("double_solid",), "eu": ("solid", "double_solid")}
    for region in REGIONS:
        for kind in ("dashed", "solid", "double_solid"):
            yield situation(f"over-{kind}", region, over(kind, 0.4), "solid_line" if kind in barred[region] else "")
        yield situation("barely-over", region, over("double_solid", 0.15, "right"), "solid_line")
        yield situation("just-touching", region, over("double_solid", 0.05, "right"))
    yield situation("over-for-a-moment", "cn", over("solid", 0.4, seconds=0.2))
    yield situation("over-inside-junction", "cn", over("solid", 0.4).set(junction=1))
    street = over("solid", 0.4)
    street.set(street.between(6.0, 7.0), line_left_m=-0.4)
    yield situation("over-twice", "cn", street, "solid_line", offences=2)
    yield situation("line-of-unknown-place", "cn", over("solid", 0.4).set(line_left_m=NAN), unknown={"solid_line"})
    yield situation(
        "line-of-unknown-kind",
        "eu",
        over("solid", 0.4).set(line_left=NAN),
        unknown={
            "solid_line",
        },
    )


def turn_lanes() -> Iterator[Situation]:
    cases = (
        ("straight-from-left-only", L, S, True),
        ("straight-from-right-only", R, S, True),
        ("left-from-left-only", L, L, False),
        ("left-from-straight-only", S, L, True),
        ("right-from-straight-and-right", S | R, R, False),
        ("straight-from-straight-and-left", S | L, S, False),
        ("left-without-arrows", 0, L, False),
    )
    for region in REGIONS:
        for name, arrows, movement, broken in cases:
            street = Street().line(50.0, lane_turns=arrows, movement=movement)
            yield situation(name, region, street, "turn_lane" if broken else "")
        street = Street().line(50.0, movement=L)
        street.set(lane_turns=L).set(street.front_m > 30.0, lane_turns=S)
        yield situation("variable-now-straight", region, street, "variable_lane")
        street = Street().line(50.0, movement=S)
        street.set(lane_turns=L).set(street.front_m > 30.0, lane_turns=S)
        yield situation("variable-followed", region, street)
    street = Street(seconds=4.0).line(50.0, lane_turns=L)
    yield situation("line-not-reached", "cn", street)
    street = Street(yaw=np.clip((np.arange(80) - 55) / 15.0, 0, 1) * 1.5).line(50.0, lane_turns=S, movement=NAN)
    yield situation("movement-read-from-heading", "us", street, "turn_lane")
    street = Street().line(50.0, movement=L, lane_turns=NAN)
    yield situation("arrows-not-known", "cn", street, unknown={"turn_lane", "variable_lane"})


# -- lights --------------------------------------------------------------------------------------------------------


def red_lights() -> Iterator[Situation]:
    for region in REGIONS:
        yield situation("red-straight", region, Street().line(40.0, "light", light="red"), "red_light")
        yield situation("green-straight", region, Street().line(40.0, "light", light="green"))
        yield situation("yellow-straight", region, Street().line(40.0, "light", light="yellow"))
        street = Street().line(40.0, "light", light="green")
        yield situation("red-after-the-line", region, street.set(street.front_m > 40.0, light=LIGHTS.index("red")))
        street = Street().line(40.0, "light", light="red")
        yield situation("green-before-the-line", region, street.set(street.front_m > 35.0, light=LIGHTS.index("green")))
        for shape, rule in (("arrow", "red_light"), ("temporary", "temporary_light")):
            street = Street().line(40.0, "light", light="red").set(light_shape=LIGHT_SHAPES.index(shape))
            yield situation(f"red-{shape}", region, street, rule)
        for beyond, seconds, rule in ((1.5, 3.0, "stop_over_line"), (1.5, 0.6, ""), (0.1, 3.0, "")):
            yield situation(f"over-by-{beyond}-for-{seconds}", region, stopping(beyond, seconds), rule)
    street = Street().line(40.0, "light", light="red", light_shape=NAN)
    yield situation("red-shape-not-known", "cn", street, "red_light", {"temporary_light"})
    street = Street().line(40.0, "light", light="red", movement=NAN, turn_on_red=NAN)
    street.set(junction=0)
    yield situation("red-movement-not-known", "us", street, unknown=_red_not_known())
    street = Street().line(40.0, "light", light="red", stop_line_m=NAN)
    yield situation("red-line-from-the-light", "cn", street, "red_light")


def _red_not_known() -> set[str]:
    return {"red_light", "turn_on_red_forbidden"}


def stopping(beyond_m: float, stands_s: float) -> Street:
    """Stops `beyond_m` past the line of a red light, and goes on when it is green."""
    slow = np.full(120, 5.0)
    stop, go = 40, 40 + round(stands_s * 10)
    slow[stop:go] = 0.0
    at_m = 5.0 * 0.1 * (stop - 1) - beyond_m
    street = Street(speed=slow, seconds=12.0).line(at_m, "light", light="red")
    green = street.t > street.t[go - 1]
    return street.set(green, light=LIGHTS.index("green"))


def right_turn(speed: ArrayLike, light: str = "red", **columns: Any) -> Street:
    """A right turn at a light, 30 m on."""
    street = Street(speed=speed, seconds=10.0)
    turned = -np.clip((street.front_m - 31.0) / 12.0, 0, 1) * 1.57
    return Street(speed=speed, seconds=10.0, yaw=turned).line(30.0, "light", light=light, movement=R, **columns)


def turns_on_red() -> Iterator[Situation]:
    rolling = np.full(100, 6.0)
    stops = np.concatenate([np.full(48, 6.0), np.zeros(10), np.full(42, 6.0)])
    early = np.concatenate([np.full(20, 6.0), np.zeros(10), np.full(70, 6.0)])
    for region in REGIONS:
        lenient = region == "cn"
        name = "" if lenient else "turn_on_red"
        yield situation("right-on-red-rolling", region, right_turn(rolling, turn_on_red=1), name)
        yield situation("right-on-red-after-a-stop", region, right_turn(stops, turn_on_red=1))
        yield situation("right-on-red-stopped-too-early", region, right_turn(early, turn_on_red=1), name)
        forbidden = "red_light" if lenient else "turn_on_red_forbidden"
        yield situation("right-on-red-forbidden", region, right_turn(stops, turn_on_red=0), forbidden)
        yield situation("right-on-green", region, right_turn(rolling, "green"))
        # the ego is at the line after 5.8 s and in the crossing lane some 1 s later
        into = right_turn(stops, turn_on_red=1).actor(33.0 + 4.0, 8.0 + 10.0 * 6.9, -1.57, 10.0)
        yield situation("right-on-red-into-the-way", region, into, "turn_on_red")
        free = right_turn(stops, turn_on_red=1).actor(37.0, 8.0 + 10.0 * 12.0, -1.57, 10.0)
        yield situation("right-on-red-with-time", region, free)
    street = right_turn(stops, turn_on_red=1)
    yield situation(
        "right-on-red-nobody-seen",
        "us",
        street,
        unknown={"turn_on_red", "following"},
        sees_actors=False,
    )
    unknown = {"red_light"}
    yield situation(
        "right-on-red-not-known", "cn", right_turn(rolling, turn_on_red=NAN), unknown=unknown | {"turn_on_red"}
    )


# -- signs and giving way ------------------------------------------------------------------------------------------


def stop_signs() -> Iterator[Situation]:
    for region in REGIONS:
        for slowest, stop_m, broken in (
            *((0.0, 2.0, False), (0.2, 2.0, False), (0.5, 2.0, True), (0.0, 12.0, True)),
            *((0.0, -0.15, False), (0.5, -0.15, True), (0.0, -0.8, True)),
        ):
            speed = np.full(160, 5.0)
            stop = 80 - round(stop_m / 0.5)
            speed[stop : stop + 10] = slowest
            street = Street(speed=speed, seconds=16.0)
            at_m = float(street.front_m[stop]) + stop_m
            street.line(at_m, "stop_sign")
            yield situation(f"stop-sign-{slowest}-at-{stop_m}", region, street, "stop_sign" if broken else "")
        street = Street().line(40.0, "stop_sign", stop_rule=NAN)
        unknown = {"stop_sign", "give_way", "stop_over_line"}
        yield situation("stop-sign-not-known", region, street, unknown=unknown)


def giving_way() -> Iterator[Situation]:
    def crossing(arrives_s: float, light: float = 0.0) -> Street:
        """The ego passes its line at 4 s and the other road, 8 m on, at about 4.8 s; the other arrives at `arrives_s`."""
        place = 40.0 + CAR.axle_to_centre_m + 8.0
        return Street().line(40.0, "give_way").actor(place, -10.0 * arrives_s - 2.3, 1.57, 10.0)

    for region in REGIONS:
        yield situation("give-way-taken", region, crossing(6.0), "give_way")
        yield situation("give-way-far", region, crossing(9.5))
        yield situation("give-way-passed-before", region, crossing(2.0))
        yield situation("give-way-empty", region, Street().line(40.0, "give_way"))
        unseen = Street().line(40.0, "give_way")
        yield situation("give-way-blind", region, unseen, unknown={"give_way", "following"}, sees_actors=False)


def left_turn(other_s: float | None, **columns: Any) -> Street:
    """A left turn at 6 m/s across the lane 3.5 m to the left, entered about 1 s after the line."""
    way = Street(speed=6.0, seconds=10.0).front_m
    street = Street(speed=6.0, seconds=10.0, yaw=np.clip((way - 31.0) / 12.0, 0, 1) * 1.57)
    street.line(30.0, "light", light="green", movement=L).set(**columns)
    if other_s is not None:
        street.actor(41.0 + 12.0 * other_s, 5.0, 3.14159, 12.0)
    return street


def left_turns() -> Iterator[Situation]:
    for region in REGIONS:
        yield situation("left-before-oncoming", region, left_turn(8.0), "left_turn_yield")
        yield situation("left-with-time", region, left_turn(13.0))
        yield situation("left-alone", region, left_turn(None))
        protected = left_turn(8.0, light_shape=LIGHT_SHAPES.index("arrow"))
        yield situation("left-on-an-arrow", region, protected)
        passed = left_turn(2.0)
        yield situation("left-after-it-passed", region, passed)
    street = left_turn(None)
    unknown = {"left_turn_yield", "following"}
    yield situation("left-blind", "eu", street, unknown=unknown, sees_actors=False)


def crosswalks() -> Iterator[Situation]:
    def over(speed: float, used_from_m: float | None) -> Street:
        street = Street(speed=speed, seconds=10.0)
        at_m = speed * 5.0
        to = at_m - street.front_m
        street.columns["crosswalk_m"] = np.where(to > -4.0, to, NAN)
        if used_from_m is not None:
            street.set((to <= used_from_m) & (to > -4.0), crosswalk_used=1)
        return street

    for region in REGIONS:
        yield situation("crosswalk-used", region, over(5.0, 20.0), "crosswalk")
        yield situation("crosswalk-free", region, over(5.0, None))
        yield situation("crosswalk-at-a-crawl", region, over(0.4, 20.0))
        yield situation("crosswalk-used-behind-the-front", region, over(5.0, -1.0))
        street = over(5.0, 20.0).set(crosswalk_used=NAN)
        yield situation("crosswalk-not-known", region, street, unknown={"crosswalk", "stop_on_crosswalk"})


def waiting_areas() -> Iterator[Situation]:
    def area(opened: float, light: str) -> Street:
        street = Street(speed=5.0, seconds=10.0)
        inside = (street.front_m > 20.0) & (street.front_m < 32.0)
        street.set(movement=L).set(inside, waiting_area=1, waiting_open=opened).set(light=LIGHTS.index(light))
        street.set(light_shape=LIGHT_SHAPES.index("arrow"))
        return street.set((street.front_m > 20.0) & (street.front_m < 45.0), junction=1)

    yield situation("waiting-open-then-green", "cn", area(1, "green"))
    yield situation("waiting-closed", "cn", area(0, "green"), "waiting_area_closed")
    yield situation("waiting-left-on-red", "cn", area(1, "red"), "waiting_area_left")
    yield situation("waiting-closed-and-red", "cn", area(0, "red"), {"waiting_area_closed", "waiting_area_left"})
    yield situation("waiting-not-known-open", "cn", area(NAN, "green"), unknown={"waiting_area_closed"})
    street = area(1, "green").set(waiting_area=NAN)
    yield situation("waiting-not-known", "cn", street, unknown={"waiting_area_closed", "waiting_area_left"})


def standing() -> Iterator[Situation]:
    def stands(seconds: float, **columns: Any) -> Street:
        speed = np.full(200, 5.0)
        speed[40 : 40 + round(seconds * 10)] = 0.0
        street = Street(speed=speed, seconds=20.0)
        return street.set((street.t > 3.0) & (street.t < 4.2 + seconds), **columns)

    for region in REGIONS:
        yield situation("stands-on-crosswalk", region, stands(1.5, crosswalk_m=-1.0), "stop_on_crosswalk")
        yield situation("stands-on-crosswalk-briefly", region, stands(0.5, crosswalk_m=-1.0))
        yield situation("stands-before-crosswalk", region, stands(5.0, crosswalk_m=1.0))
        yield situation("blocks-junction", region, stands(11.0, junction=1), "junction_blocked")
        yield situation("waits-in-junction", region, stands(8.0, junction=1))
    street = stands(12.0, junction=1, waiting_area=1, waiting_open=1)
    yield situation("stands-in-waiting-area", "cn", street)


def wrong_ways() -> Iterator[Situation]:
    for region in REGIONS:
        for seconds, columns, broken in ((1.5, {}, True), (0.6, {}, False), (1.5, {"junction": 1}, False)):
            street = Street()
            street.set(street.between(3.0, 3.0 + seconds), oncoming=1, **columns)
            name = f"against-{seconds}-{'junction' if columns else 'street'}"
            yield situation(name, region, street, "wrong_way" if broken else "")


def u_turns() -> Iterator[Situation]:
    way = np.clip((np.arange(100) - 40) / 40.0, 0, 1) * 3.1
    for region in REGIONS:
        for arrows, broken in ((L, True), (L | U, False), (0, False)):
            street = Street(speed=4.0, seconds=10.0, yaw=way).line(14.0, movement=U, lane_turns=arrows)
            yield situation(f"u-turn-from-{arrows}", region, street, "u_turn" if broken else "")
        for line in ("dashed", "double_solid"):
            street = Street(speed=4.0, seconds=10.0, yaw=way).set(line_left=LINES.index(line))
            broken = line == "double_solid" and region != "us"
            yield situation(f"u-turn-over-{line}", region, street, "u_turn" if broken else "")


# -- speed and distance --------------------------------------------------------------------------------------------


def speeds() -> Iterator[Situation]:
    limit = 15.0
    shares = (
        (1.09, ""),
        (1.11, "speed_10"),
        (1.19, "speed_10"),
        (1.21, "speed_20"),
        (1.49, "speed_20"),
        (1.51, "speed_50"),
    )
    for share, rule in shares:
        yield situation(f"at-{share}-of-the-limit", "cn", Street(speed=limit * share).set(speed_limit_mps=limit), rule)
    for over, rule in (
        (0.5, ""),
        (1.5, "speed_1"),
        (15.5, "speed_1"),
        (16.5, "speed_16"),
        (25.5, "speed_16"),
        (26.5, "speed_26"),
    ):
        street = Street(speed=limit + over * 0.44704).set(speed_limit_mps=limit)
        yield situation(f"{over}-mph-over", "us", street, rule)
    for over, rule in (
        (0.5, ""),
        (1.5, "speed_1"),
        (20.5, "speed_1"),
        (21.5, "speed_21"),
        (30.5, "speed_21"),
        (31.5, "speed_31"),
    ):
        street = Street(speed=limit + over / 3.6).set(speed_limit_mps=limit)
        yield situation(f"{over}-kmh-over", "eu", street, rule)
    spike = np.full(80, limit * 1.15)
    spike[40:45] = limit * 1.6
    yield situation("a-peak-too-short-to-count", "cn", Street(speed=spike).set(speed_limit_mps=limit), "speed_10")
    spike[40:55] = limit * 1.6
    yield situation("a-peak-that-counts", "cn", Street(speed=spike).set(speed_limit_mps=limit), "speed_50")
    for region in REGIONS:
        yield situation("limit-not-known", region, Street().set(speed_limit_mps=NAN), unknown=SPEED_RULES[region])


def distances() -> Iterator[Situation]:
    def behind(gap_s: float, speed: float = 12.0, aside: float = 0.0, yaw: float = 0.0, seconds: float = 8.0) -> Street:
        street = Street(speed=speed, seconds=seconds)
        return street.actor(CAR.axle_to_front_m + gap_s * speed + 2.3, aside, yaw, speed)

    for region in REGIONS:
        yield situation("close-behind", region, behind(0.45), "following")
        yield situation("far-enough-behind", region, behind(0.55))
        yield situation("close-but-slow", region, behind(0.45, speed=7.0))
        yield situation("close-to-the-next-lane", region, behind(0.45, aside=3.2))
        yield situation("close-for-a-moment", region, behind(0.45, seconds=1.5))
        yield situation("nobody-can-be-seen", region, Street(), unknown={"following"}, sees_actors=False)


def unknowns() -> Iterator[Situation]:
    for region in REGIONS:
        yield situation("lane-kind-not-known", region, Street().set(lane_kind=NAN), unknown=LANE_RULES)
        yield situation("light-not-known", region, Street().set(light=NAN), unknown=LIGHT_RULES)
        yield situation("lines-not-known", region, Street().set(line_right=NAN), unknown={"solid_line"})
        yield situation("direction-not-known", region, Street().set(oncoming=NAN), unknown={"wrong_way"})
        half = Street()
        half.set(half.t < 4.0, speed_limit_mps=NAN)
        yield situation("limit-half-known", region, half, unknown=SPEED_RULES[region])
