"""Families at one junction: lights of every shape, who turns across whom, and which lane leads where.

Rule: as `family.py`; each function draws one world from the region's roads and a seed. The ego comes from the west.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from onshore.world.jobs import Start
from onshore.world.layout import LaneSpec, Layout, LightSpec
from onshore.world.roads import Roads
from onshore.world.scenarios import places
from onshore.world.scenarios.driving import Hold, Ignored, Manner
from onshore.world.scenarios.family import Family, Plot, Stage, layout_seed
from onshore.world.scenarios.movers import Keep, Mover
from onshore.world.scenarios.places import (
    AHEAD,
    BACK,
    LEFT,
    RIGHT,
    crossing,
    lane,
    lane_line,
    light,
    own_lanes,
    shifted,
    station,
)
from onshore.world.scenarios.streets import SAFE, START_M, staged, straight, stream
from onshore.world.scenarios.verdicts import (
    obeys_lights,
    turns_from_its_lane,
    waits_where_painted,
)
from onshore.world.town import Town

Floats = NDArray[np.float64]
ON, LEFT_ROUTE, RIGHT_ROUTE, BACK_ROUTE = ("w_in", "e_out"), ("w_in", "n_out"), ("w_in", "s_out"), ("w_in", "w_out")
ARM_M = 90.0
#: Movements that are green together: along the ego's street, and across it.
ALONG = {("w_in", "e_out"): "G", ("e_in", "w_out"): "G", ("w_in", "s_out"): "g", ("e_in", "n_out"): "g"}
ACROSS = {("n_in", "s_out"): "G", ("s_in", "n_out"): "G"}
FOREVER_S = 300.0


def crossing_place(
    name: str,
    roads: Roads,
    seed: int,
    lanes: list[LaneSpec],
    signal: LightSpec | None,
    arms: str = "wsen",
    **more: object,
) -> Layout:
    arm_m = ARM_M
    layout = places.cross(
        name,
        {arm: lanes for arm in arms},
        arm_m=arm_m,
        speed_mps=roads.town["speed_limit_mps"],
        light=signal,
        **more,  # type: ignore[arg-type]
    )
    return replace(layout, seed=seed)


def approach(
    layout: Layout,
    route: tuple[str, ...],
    lane_index: int,
    speed_mps: float,
    away_m: float,
    plot: Callable[[Town], Plot],
    *,
    route_m: float,
    max_time_s: float = 45.0,
    clock_h: float = 10.0,
) -> Stage:
    """The ego starts about `away_m` before the junction."""
    at_m = START_M if route[0] == "far" else ARM_M - 10.0 - away_m
    start = Start(route=route, lane=lane_index, at_m=at_m, speed_mps=speed_mps)
    return Stage(layout=layout, start=start, plot=plot, route_m=route_m, max_time_s=max_time_s, clock_h=clock_h)


def along(
    route: tuple[str, ...],
    lanes: tuple[int, ...],
    cruise_mps: float,
    *ignores: Ignored,
    movers: Callable[[Floats, Town], list[Mover]] | None = None,
    holds: Callable[[Town, Floats], tuple[Hold, ...]] | None = None,
) -> Callable[[Town], Plot]:
    """Both drivers drive the engine's own line; the careless one ignores something."""

    def plot(town: Town) -> Plot:
        line = lane_line(town, *zip(route, lanes, strict=True))
        careful = Manner(front_N2=line, cruise_mps=cruise_mps, holds=holds(town, line) if holds else ())
        careless = Manner(front_N2=line, cruise_mps=cruise_mps, ignores=frozenset(ignores))
        return Plot(movers=tuple(movers(line, town)) if movers else (), careful=careful, careless=careless)

    return plot


def stop_line(town: Town, line: Floats) -> float:
    """Where a line passes the end of the western approach."""
    return station(line, town.edges["w_in"].lanes[0].xy_N2[-1])


# -- lights ------------------------------------------------------------------------------------------------------


def _red_then_green(
    red_s: float, shapes: tuple[tuple[str, str, str], ...] = (), green: Mapping[tuple[str, str], str] = ALONG
) -> LightSpec:
    yellow = dict.fromkeys(ACROSS, "y")
    return light((red_s - 4.0, ACROSS), (3.0, yellow), (1.0, {}), (FOREVER_S, green), shapes=shapes)


def _signal_approach(roads: Roads, rng: Random) -> Stage:
    ego, speed, away = rng.choice(roads.car_lanes), rng.uniform(8.0, 11.0), rng.uniform(45.0, 60.0)
    red_s = away / speed + rng.uniform(4.0, 9.0)
    layout = crossing_place("signal_approach", roads, layout_seed(away), own_lanes(roads), _red_then_green(red_s))
    return approach(layout, ON, ego, speed, away, along(ON, (ego, ego), speed, "lights"), route_m=away + 50.0)


def _horizontal_light(roads: Roads, rng: Random) -> Stage:
    ego, speed, away = rng.choice(roads.car_lanes), rng.uniform(8.5, 10.5), rng.uniform(55.0, 65.0)
    green_s = (away - rng.uniform(42.0, 48.0)) / speed
    phases: tuple[tuple[float, Mapping[tuple[str, str], str]], ...] = (
        (green_s, ALONG),
        (3.0, dict.fromkeys(ALONG, "y")),
        (rng.uniform(8.0, 12.0), ACROSS),
        (2.0, {}),
        (FOREVER_S, ALONG),
    )
    layout = crossing_place("horizontal_light", roads, layout_seed(away), own_lanes(roads), light(*phases))
    return approach(layout, ON, ego, speed, away, along(ON, (ego, ego), speed, "lights"), route_m=away + 50.0)


def _ground_light(roads: Roads, rng: Random) -> Stage:
    ego, speed, away = rng.choice(roads.car_lanes), rng.uniform(8.0, 10.0), rng.uniform(45.0, 60.0)
    red_s = away / speed + rng.uniform(4.0, 9.0)
    shapes = tuple((a, b, "temporary") for a, b in ALONG)
    layout = crossing_place("ground_light", roads, layout_seed(away), own_lanes(roads), _red_then_green(red_s, shapes))
    return approach(layout, ON, ego, speed, away, along(ON, (ego, ego), speed, "lights"), route_m=away + 50.0)


def _temporary_light(roads: Roads, rng: Random) -> Stage:
    ego, speed, length = 0, rng.uniform(8.0, 10.0), rng.uniform(75.0, 95.0)
    red_s = (length - START_M) / speed + rng.uniform(4.0, 9.0)
    car, go = lane(roads, "car"), {("street", "on"): "G"}
    signal = light((red_s, {("back", "home"): "G"}), (FOREVER_S, go), shapes=(("street", "on", "temporary"),), node="b")

    def plot(town: Town) -> Plot:
        line = lane_line(town, ("street", ego), ("on", ego))
        cones = places.beside(line, car.width_m / 2 + 0.3)
        first = station(cones, (length + 4.0, 0.0))
        movers = tuple(Mover(kind="static", line_N2=cones, behaviour=Keep(), s_m=first + 5.0 * k) for k in range(6))
        careless = Manner(front_N2=line, cruise_mps=speed, ignores=frozenset({"lights"}))
        return Plot(movers=movers, careful=Manner(front_N2=line, cruise_mps=speed), careless=careless)

    layout = straight(
        "temporary_light", layout_seed(length), roads, [car], length_m=length, light=signal, joint="traffic_light"
    )
    return staged(layout, ego, speed, plot, route_m=length + 35.0 - START_M, max_time_s=45.0)


def _right_on_red(roads: Roads, rng: Random) -> Stage:
    ego, speed, away = roads.car_lanes[0], rng.uniform(7.0, 9.0), rng.uniform(40.0, 50.0)
    may, must_stand = roads.permissions.near_turn_on_red, roads.permissions.stop_before_near_turn_on_red
    red_s = FOREVER_S if may else away / speed + 8.0
    count, pace, early = rng.randint(3, 5), rng.uniform(8.0, 10.0), rng.uniform(1.0, 2.0)

    def movers(line: Floats, town: Town) -> list[Mover]:
        through = lane_line(town, ("n_in", ego), ("s_out", ego))
        meet = town.edges["s_out"].lanes[ego].xy_N2[0]
        reach_s = (station(line, meet) - (ARM_M - 10.0 - away)) / speed + 1.0
        return stream(
            "car", through, station(through, meet), reach_s - early, count=count, pace_mps=pace, headway_s=1.5
        )

    def holds(town: Town, line: Floats) -> tuple[Hold, ...]:
        return (Hold(s_m=stop_line(town, line) - 0.8, stand_s=0.6),) if must_stand else ()

    layout = crossing_place("right_on_red", roads, layout_seed(away), own_lanes(roads), _red_then_green(red_s))
    plot = along(RIGHT_ROUTE, (ego, ego), speed, "lights", "crossing", "leaders", "holds", movers=movers, holds=holds)
    return approach(layout, RIGHT_ROUTE, ego, speed, away, plot, route_m=away + 35.0)


# -- who turns across whom ---------------------------------------------------------------------------------------


def _unprotected_left(roads: Roads, rng: Random) -> Stage:
    ego, speed, away = roads.car_lanes[-1], rng.uniform(7.5, 9.5), rng.uniform(40.0, 50.0)
    count, pace, early = rng.randint(4, 6), rng.uniform(8.5, 10.5), rng.uniform(1.5, 2.5)

    def movers(line: Floats, town: Town) -> list[Mover]:
        oncoming = lane_line(town, ("e_in", ego), ("w_out", ego))
        meet = crossing(line, oncoming)
        reach_s = (station(line, meet) - (ARM_M - 10.0 - away)) / speed + 0.8
        return stream(
            "car", oncoming, station(oncoming, meet), reach_s - early, count=count, pace_mps=pace, headway_s=1.4
        )

    green = {**ALONG, ("w_in", "n_out"): "g", ("e_in", "s_out"): "g"}
    layout = crossing_place(
        "unprotected_left", roads, layout_seed(away), own_lanes(roads), light((FOREVER_S, green), (3.0, ACROSS))
    )
    plot = along(LEFT_ROUTE, (ego, ego), speed, "crossing", "leaders", movers=movers)
    return approach(layout, LEFT_ROUTE, ego, speed, away, plot, route_m=away + 45.0)


def _e_bike_filtering(roads: Roads, rng: Random) -> Stage:
    lanes = [lane(roads, "bike"), lane(roads, "car"), lane(roads, "car")]
    ego, speed, away = 1, rng.uniform(7.0, 9.0), rng.uniform(40.0, 50.0)
    count, pace, early, headway = rng.randint(4, 6), rng.uniform(5.0, 6.5), rng.uniform(1.0, 2.0), rng.uniform(0.9, 1.3)

    def movers(line: Floats, town: Town) -> list[Mover]:
        bikes = lane_line(town, ("w_in", 0), ("e_out", 0))
        meet = crossing(line, bikes)
        reach_s = (station(line, meet) - (ARM_M - 10.0 - away)) / speed + 1.2
        return stream(
            "ebike", bikes, station(bikes, meet), reach_s - early, count=count, pace_mps=pace, headway_s=headway
        )

    layout = crossing_place(
        "e_bike_filtering", roads, layout_seed(away), lanes, light((FOREVER_S, ALONG), (3.0, ACROSS))
    )
    plot = along(RIGHT_ROUTE, (ego, ego), speed, "crossing", "leaders", movers=movers)
    return approach(layout, RIGHT_ROUTE, ego, speed, away, plot, route_m=away + 35.0)


# -- which lane leads where --------------------------------------------------------------------------------------


def arrows(roads: Roads, *turns: int, **last: object) -> list[LaneSpec]:
    """Car lanes from the kerb inwards with these arrows, and solid lines before the stop line."""
    car = lane(roads, "car")
    lanes = [replace(car, turns=bits, solid_end_m=25.0) for bits in turns]
    return [*lanes[:-1], replace(lanes[-1], **last)]  # type: ignore[arg-type]


def _before(roads: Roads, count: int) -> list[LaneSpec]:
    return [lane(roads, "car", line_left="dashed") for _ in range(count)]


FAR_M = 70.0


def _changing(route: tuple[str, ...], ego: int, wanted: int, stays_to: int, speed: float) -> Callable[[Town], Plot]:
    """The careful driver changes from lane `ego` to `wanted` well before the junction; the careless one stays."""

    def plot(town: Town) -> Plot:
        good = lane_line(town, ("far", wanted), (route[1], wanted), (route[2], _exit_lane(town, route, wanted)))
        careful = _entered(good, (ego - wanted) * _step(town))
        careless = lane_line(town, ("far", ego), (route[1], ego), (route[2], stays_to))
        return Plot(
            movers=(),
            careful=Manner(front_N2=careful, cruise_mps=speed),
            careless=Manner(front_N2=careless, cruise_mps=speed),
        )

    return plot


def _entered(line: Floats, from_left_m: float) -> Floats:
    """The line, but begun `from_left_m` beside it and joined over 28 m."""
    return shifted(places.beside(line, from_left_m), (START_M + 4.0, 28.0, -from_left_m))


def _step(town: Town) -> float:
    lanes = town.edges["far"].lanes
    return float(np.hypot(*(lanes[1].xy_N2[0] - lanes[0].xy_N2[0])))


def _exit_lane(town: Town, route: tuple[str, ...], lane_index: int) -> int:
    ways = [
        way
        for way in town.layout.connections
        if (way.start, way.end, way.from_lane) == (route[1], route[2], lane_index)
    ]
    return ways[0].to_lane if ways else lane_index


def _turn_only_lane(roads: Roads, rng: Random) -> Stage:
    speed = rng.uniform(8.0, 10.5)
    only = rng.choice((LEFT, RIGHT))
    lanes = arrows(roads, AHEAD, AHEAD, LEFT) if only == LEFT else arrows(roads, RIGHT, AHEAD, AHEAD | LEFT)
    ego, wanted = (2, 1) if only == LEFT else (0, 1)
    green = {**ALONG, ("w_in", "n_out"): "g"}
    layout = crossing_place(
        "turn_only_lane",
        roads,
        layout_seed(speed),
        lanes,
        light((FOREVER_S, green), (3.0, ACROSS)),
        before=_before(roads, 3),
        before_m=FAR_M,
    )
    route = ("far", *ON)
    plot = _changing(route, ego, wanted, ego, speed)
    return approach(layout, route, ego, speed, 0.0, plot, route_m=FAR_M + ARM_M + 35.0 - START_M)


def _variable_direction_lane(roads: Roads, rng: Random) -> Stage:
    speed, peak = rng.uniform(8.0, 10.0), rng.random() < 0.5
    clock = rng.uniform(7.2, 8.7) if peak else rng.uniform(10.0, 16.0)
    lanes = arrows(roads, AHEAD | RIGHT, AHEAD, LEFT)
    lanes[1] = replace(lanes[1], turns_by_hour=((7.0, 9.0, LEFT),))
    green = {**ALONG, ("w_in", "n_out"): "G", ("e_in", "w_out"): "r"}
    layout = crossing_place(
        "variable_direction_lane",
        roads,
        layout_seed(speed),
        lanes,
        light((FOREVER_S, green), (3.0, ACROSS)),
        before=_before(roads, 3),
        before_m=FAR_M,
    )
    # in the peak the middle lane leads left and the ego goes straight on; off-peak it is the other way round
    route, wanted = (("far", *ON), 0) if peak else (("far", *LEFT_ROUTE), 2)
    plot = _changing(route, 1, wanted, 1, speed)
    return approach(layout, route, 1, speed, 0.0, plot, route_m=FAR_M + ARM_M + 30.0 - START_M, clock_h=clock)


def _left_turn_waiting_area(roads: Roads, rng: Random) -> Stage:
    speed, away, wait_m = rng.uniform(7.5, 9.5), rng.uniform(40.0, 55.0), 8.0
    straight_s = away / speed + rng.uniform(5.0, 9.0)
    lanes = arrows(roads, AHEAD | RIGHT, AHEAD, LEFT, waiting_m=wait_m)
    turn = {("w_in", "n_out"): "G", ("e_in", "s_out"): "G"}
    signal = light(
        (straight_s, ALONG),
        (3.0, dict.fromkeys(ALONG, "y")),
        (1.0, {}),
        (FOREVER_S, turn),
        shapes=tuple((a, b, "arrow") for a, b in turn),
    )

    def holds(town: Town, line: Floats) -> tuple[Hold, ...]:
        at = station(line, town.edges["w_in"].lanes[2].xy_N2[-1])
        return (Hold(s_m=at + wait_m - 1.0, green=True),)

    layout = crossing_place("left_turn_waiting_area", roads, layout_seed(away), lanes, signal, radius_m=12.0)
    plot = along(LEFT_ROUTE, (2, 2), speed, "lights", "holds", holds=holds)
    return approach(layout, LEFT_ROUTE, 2, speed, away, plot, route_m=away + 50.0)


def _u_turn_lane(roads: Roads, rng: Random) -> Stage:
    speed, median = rng.uniform(7.0, 9.0), rng.uniform(7.0, 8.5)
    lanes = arrows(roads, AHEAD | RIGHT, AHEAD | LEFT, LEFT | BACK)
    green = {**ALONG, BACK_ROUTE: "G", ("w_in", "n_out"): "g"}
    layout = crossing_place(
        "u_turn_lane",
        roads,
        layout_seed(speed),
        lanes,
        light((FOREVER_S, green), (3.0, ACROSS)),
        before=_before(roads, 3),
        before_m=FAR_M,
        median_m=median,
    )

    def plot(town: Town) -> Plot:
        good, bad = _turnaround(town, 2, 2), _turnaround(town, 1, 2)
        return Plot(
            movers=(),
            careful=Manner(front_N2=_entered(good, -_step(town)), cruise_mps=speed),
            careless=Manner(front_N2=bad, cruise_mps=speed),
        )

    route = ("far", *BACK_ROUTE)
    return approach(layout, route, 1, speed, 0.0, plot, route_m=FAR_M + ARM_M + 35.0 - START_M, max_time_s=55.0)


def _turnaround(town: Town, from_lane: int, to_lane: int) -> Floats:
    """Into the junction, half a circle to the left, and back."""
    into = np.concatenate([town.edges[edge].lanes[from_lane].xy_N2 for edge in ("far", "w_in")])
    out = town.edges["w_out"].lanes[to_lane].xy_N2
    start = np.array([into[-1, 0] + 1.5, into[-1, 1]])
    radius = float(out[0, 1] - into[-1, 1]) / 2
    angles = np.linspace(-math.pi / 2, math.pi / 2, 24)
    arc = start + (0.0, radius) + radius * np.stack([np.cos(angles), np.sin(angles)], -1)
    return np.concatenate([into, arc, out])


LIT = (obeys_lights, *SAFE)
JUNCTION_FAMILIES: tuple[Family, ...] = (
    Family(
        name="signal_approach",
        tells="a light that is red on arrival and turns green",
        careless="ignores the light",
        eyes="the light",
        build=_signal_approach,
        conditions=LIT,
    ),
    Family(
        name="unprotected_left",
        tells="a left turn on green across a stream of oncoming cars",
        careless="turns without looking",
        eyes="the oncoming cars",
        build=_unprotected_left,
        conditions=LIT,
    ),
    Family(
        name="right_on_red",
        tells="a right turn at a red light into a street with traffic",
        careless="turns without looking",
        eyes="the light and the traffic of the street it turns into",
        build=_right_on_red,
        conditions=LIT,
    ),
    Family(
        name="turn_only_lane",
        tells="the ego's lane may only turn; its route goes straight on",
        careless="goes straight from the turn lane",
        eyes="on which side of the street it drives, hence to which side it has to change",
        build=_turn_only_lane,
        conditions=(turns_from_its_lane, *LIT),
    ),
    Family(
        name="left_turn_waiting_area",
        tells="a waiting area ahead of the stop line opens for left turns while straight traffic has green",
        careless="drives through the area on red",
        eyes="the light of the turn and the waiting area",
        build=_left_turn_waiting_area,
        conditions=(waits_where_painted, *LIT),
    ),
    Family(
        name="variable_direction_lane",
        tells="the middle lane's direction changes by the hour, and now it is not the ego's",
        careless="stays in it",
        needs_eyes=False,
        eyes="the route command alone says to which side to change, and nobody else is there",
        build=_variable_direction_lane,
        conditions=(turns_from_its_lane, *LIT),
    ),
    Family(
        name="u_turn_lane",
        tells="a U-turn, allowed from the innermost lane only",
        careless="turns from the lane beside it",
        needs_eyes=False,
        eyes="lane and turn are the same in every world, and nobody else is there",
        build=_u_turn_lane,
        conditions=(turns_from_its_lane, *LIT),
    ),
    Family(
        name="temporary_light",
        tells="roadworks with a temporary light in the middle of the block",
        careless="ignores the temporary light",
        eyes="the temporary light and the cones",
        build=_temporary_light,
        conditions=LIT,
    ),
    Family(
        name="horizontal_light",
        tells="a horizontal light that changes to red before the ego can pass",
        careless="drives on",
        eyes="the light",
        build=_horizontal_light,
        conditions=LIT,
    ),
    Family(
        name="ground_light",
        tells="a junction ruled by lights that stand on the ground",
        careless="ignores them",
        eyes="the light on the ground",
        build=_ground_light,
        conditions=LIT,
    ),
    Family(
        name="e_bike_filtering",
        tells="a right turn across a bicycle lane on which e-bikes come up from behind",
        careless="turns without looking",
        eyes="the riders who come up beside it",
        build=_e_bike_filtering,
        conditions=LIT,
    ),
)
