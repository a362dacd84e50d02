"""Families on one street: bends, queues, who brakes, slips in or steps out, and which lanes and lines are whose.

Rule: as `family.py`; each function draws one world from the region's roads and a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from onshore.world.jobs import Start
from onshore.world.layout import ConnectionSpec, CrosswalkSpec, EdgeSpec, LaneSpec, Layout, NodeSpec
from onshore.world.roads import Roads
from onshore.world.scenarios import places
from onshore.world.scenarios.driving import Ignored, Manner
from onshore.world.scenarios.family import Family, Plot, Stage, layout_seed
from onshore.world.scenarios.movers import (
    AgainstTraffic,
    Column,
    Cross,
    CutIn,
    HardBrake,
    Keep,
    Mover,
    SlipIn,
    StopAndGo,
    WaitThenGo,
)
from onshore.world.scenarios.places import STREET, lane, lane_line, own_lanes, shifted, station
from onshore.world.scenarios.verdicts import (
    arrives,
    bends_gently,
    crosses_no_solid_line,
    keeps_to_open_lanes,
    stays_on_road,
    touches_nobody,
    yields_at_crosswalks,
)
from onshore.world.town import Town

Floats = NDArray[np.float64]
SAFE = (touches_nobody, stays_on_road, arrives)
START_M = 14.0


def straight(
    name: str, seed: int, roads: Roads, lanes: list[LaneSpec], *, length_m: float = 130.0, **more: object
) -> Layout:
    """A straight street of `length_m` and 60 m after it."""
    shape, after = ((0.0, 0.0), (length_m, 0.0)), ((length_m, 0.0), (length_m + 60.0, 0.0))
    layout = places.street(name, shape, after, lanes, speed_mps=roads.town["speed_limit_mps"], **more)  # type: ignore[arg-type]
    return replace(layout, seed=seed)


def staged(
    layout: Layout,
    lane_index: int,
    speed_mps: float,
    plot: Callable[[Town], Plot],
    *,
    route_m: float,
    max_time_s: float = 40.0,
    clock_h: float = 10.0,
) -> Stage:
    start = Start(route=STREET, lane=lane_index, at_m=START_M, speed_mps=speed_mps)
    return Stage(layout=layout, start=start, plot=plot, route_m=route_m, max_time_s=max_time_s, clock_h=clock_h)


def one_line(
    lane_index: int,
    cruise_mps: float,
    movers: Callable[[Floats, Town], list[Mover]],
    *ignores: Ignored,
    slow: tuple[tuple[float, float, float], ...] = (),
) -> Callable[[Town], Plot]:
    """A plot in which both drivers keep to one lane and the careless one ignores something."""

    def plot(town: Town) -> Plot:
        line = lane_line(town, ("street", lane_index), ("on", lane_index))
        careful = Manner(front_N2=line, cruise_mps=cruise_mps, slow=slow)
        careless = Manner(front_N2=line, cruise_mps=cruise_mps, ignores=frozenset(ignores))
        return Plot(movers=tuple(movers(line, town)), careful=careful, careless=careless)

    return plot


def lane_step(town: Town, low: int, high: int) -> float:
    """Metres between the centres of two lanes of the street."""
    lanes = town.edges["street"].lanes
    return float(np.hypot(*(lanes[high].xy_N2[0] - lanes[low].xy_N2[0])))


# -- bends, queues, leaders --------------------------------------------------------------------------------------


def _curves(roads: Roads, rng: Random) -> Stage:
    radius, turn = rng.uniform(24.0, 32.0), rng.uniform(0.9, 1.3)
    shape, after = places.bends(radius, turn, 45.0, sign=rng.choice((-1, 1)))
    layout = places.street("curves", shape, after, own_lanes(roads), speed_mps=roads.town["speed_limit_mps"])
    ego = roads.car_lanes[0]

    def plot(town: Town) -> Plot:
        line = lane_line(town, ("street", ego), ("on", ego))
        return Plot(
            movers=(),
            careful=Manner(front_N2=line, cruise_mps=11.0),
            careless=Manner(front_N2=line, cruise_mps=13.5, ignores=frozenset({"curves"})),
        )

    length = 45.0 + 2 * radius * turn + 27.0
    layout = replace(layout, seed=layout_seed(radius))
    return staged(layout, ego, rng.uniform(8.0, 10.0), plot, route_m=length - START_M, max_time_s=45.0)


def _stop_and_go(roads: Roads, rng: Random) -> Stage:
    ego, cars = rng.choice(roads.car_lanes), rng.randint(2, 4)
    gap, pace = rng.uniform(16.0, 24.0), rng.uniform(5.0, 7.0)
    wave = StopAndGo(
        cruise_mps=pace,
        go_s=rng.uniform(3.0, 5.0),
        stop_s=rng.uniform(3.0, 5.0),
        end_s=22.0,
        phase_s=rng.uniform(0.0, 3.0),
    )

    def movers(line: Floats, town: Town) -> list[Mover]:
        return [
            Mover(kind="car", line_N2=line, behaviour=wave, s_m=START_M + gap + 8.0 * k, speed_mps=pace)
            for k in range(cars)
        ]

    layout = straight("stop_and_go", layout_seed(gap), roads, own_lanes(roads))
    return staged(
        layout, ego, rng.uniform(7.0, 10.0), one_line(ego, 11.0, movers, "leaders"), route_m=100.0, max_time_s=60.0
    )


def _hard_braking_lead(roads: Roads, rng: Random) -> Stage:
    ego, speed = rng.choice(roads.car_lanes), rng.uniform(8.0, 11.0)
    gap = speed * rng.uniform(1.3, 1.7) + 4.6
    brake = HardBrake(
        cruise_mps=speed, at_s_m=START_M + rng.uniform(35.0, 55.0), to_mps=0.0, stand_s=rng.uniform(2.0, 4.0)
    )

    def movers(line: Floats, town: Town) -> list[Mover]:
        return [Mover(kind="car", line_N2=line, behaviour=brake, s_m=START_M + gap, speed_mps=speed)]

    layout = straight("hard_braking_lead", layout_seed(gap), roads, own_lanes(roads))
    return staged(layout, ego, speed, one_line(ego, speed, movers, "leaders"), route_m=110.0)


def _cut_in(roads: Roads, rng: Random) -> Stage:
    ego, speed = roads.car_lanes[0], rng.uniform(8.5, 11.0)
    ahead, then, at = rng.uniform(9.0, 11.0), rng.uniform(3.5, 5.0), START_M + rng.uniform(30.0, 50.0)

    def movers(line: Floats, town: Town) -> list[Mover]:
        step = lane_step(town, ego, ego + 1)
        slips = CutIn(ahead_m=ahead, left_from_m=step, left_to_m=0.0, at_s_m=at, then_mps=then, top_mps=12.0)
        return [Mover(kind="car", line_N2=line, behaviour=slips, s_m=START_M + ahead, left_m=step, speed_mps=speed)]

    layout = straight("cut_in", layout_seed(ahead), roads, own_lanes(roads))
    return staged(layout, ego, speed, one_line(ego, speed, movers, "leaders"), route_m=105.0)


def _three_wheeler(roads: Roads, rng: Random) -> Stage:
    ego, speed = roads.car_lanes[0], rng.uniform(8.5, 11.0)
    pace, gap, ahead = rng.uniform(3.5, 5.0), rng.uniform(15.0, 19.0), rng.uniform(35.0, 50.0)

    def movers(line: Floats, town: Town) -> list[Mover]:
        side = -right_side(town, ego)
        slips = SlipIn(speed_mps=pace, left_from_m=side, left_to_m=0.0, gap_m=gap)
        return [Mover(kind="tricycle", line_N2=line, behaviour=slips, s_m=START_M + ahead, left_m=side, speed_mps=pace)]

    layout = straight("three_wheeler_cut_in", layout_seed(gap), roads, own_lanes(roads))
    return staged(layout, ego, speed, one_line(ego, speed, movers, "leaders"), route_m=100.0, max_time_s=50.0)


def right_side(town: Town, ego: int) -> float:
    """How far to the right of the ego's lane a slower road user rides: the next lane's centre, or the kerb's edge."""
    return lane_step(town, ego - 1, ego) if ego else town.edges["street"].lanes[0].width_m * 0.75


def _merge(roads: Roads, rng: Random) -> Stage:
    car = lane(roads, "car")
    angle, speed = math.radians(rng.uniform(16.0, 24.0)), rng.uniform(8.0, 10.0)
    foot = (-75.0 * math.cos(angle), -75.0 * math.sin(angle))
    limit = roads.town["speed_limit_mps"]
    nodes = {"a": foot, "m": (-110.0, 0.0), "b": (0.0, 0.0), "c": (110.0, 0.0)}
    ends = {"street": ("a", "b", (car,), 3), "main": ("m", "b", (car, car), 5), "on": ("b", "c", (car, car), 5)}
    layout = Layout(
        name="merge",
        nodes=tuple(NodeSpec(id=name, x_m=x, y_m=y, radius_m=4.0) for name, (x, y) in nodes.items()),
        edges=tuple(
            EdgeSpec(
                id=name, start=a, end=b, shape=(nodes[a], nodes[b]), lanes=lanes, speed_mps=limit, priority=priority
            )
            for name, (a, b, lanes, priority) in ends.items()
        ),
        connections=tuple(
            ConnectionSpec(start=a, end="on", from_lane=low, to_lane=high)
            for a, low, high in (("street", 0, 0), ("main", 0, 0), ("main", 1, 1))
        ),
        seed=layout_seed(angle),
    )
    count, pace, first = rng.randint(3, 5), rng.uniform(8.5, 10.5), rng.uniform(-1.8, -0.8)

    def movers(line: Floats, town: Town) -> list[Mover]:
        main = lane_line(town, ("main", 0), ("on", 0))
        meet = town.edges["on"].lanes[0].xy_N2[0]
        reach_s = (station(line, meet) - START_M) / speed
        return stream("car", main, station(main, meet), reach_s + first, count=count, pace_mps=pace, headway_s=1.5)

    return staged(layout, 0, speed, one_line(0, speed, movers, "crossing", "leaders"), route_m=115.0, max_time_s=45.0)


def stream(
    kind: str, line: Floats, at_m: float, first_s: float, *, count: int, pace_mps: float, headway_s: float
) -> list[Mover]:
    """Road users at one pace of whom the first passes `at_m` of the line at `first_s`, the others at their headways."""
    return [
        Mover(
            kind=kind,
            line_N2=line,
            behaviour=Column(speed_mps=pace_mps),
            s_m=at_m - pace_mps * (first_s + k * headway_s),
            speed_mps=pace_mps,
        )
        for k in range(count)
    ]


# -- people ------------------------------------------------------------------------------------------------------


def _walker(line: Floats, town: Town, at_m: float, *, pace_mps: float, late_s: float, off_m: float = 0.6) -> Mover:
    """A pedestrian at the right kerb, who meets the ego in the middle of the ego's lane if nobody yields."""
    lanes = town.edges["street"].lanes
    y = float(np.interp(at_m, line[:, 0], line[:, 1]))
    edge = float(lanes[0].xy_N2[0, 1]) - lanes[0].width_m / 2 - off_m
    far = float(lanes[-1].xy_N2[0, 1]) + 14.0
    lead = (y - edge) / pace_mps + late_s
    across = np.array([[at_m, edge], [at_m, far]])
    return Mover(
        kind="pedestrian", line_N2=across, behaviour=Cross(point_xy=(at_m, y), speed_mps=pace_mps, lead_s=lead)
    )


def _jaywalker(roads: Roads, rng: Random) -> Stage:
    ego, speed = roads.car_lanes[0], rng.uniform(8.0, 10.5)
    at, pace, late = START_M + rng.uniform(55.0, 80.0), rng.uniform(1.3, 2.0), rng.uniform(0.3, 0.6)

    def movers(line: Floats, town: Town) -> list[Mover]:
        return [_walker(line, town, at, pace_mps=pace, late_s=late)]

    layout = straight("jaywalker", layout_seed(at), roads, own_lanes(roads))
    return staged(layout, ego, speed, one_line(ego, speed, movers, "crossing", "leaders"), route_m=110.0)


def _occluded(roads: Roads, rng: Random) -> Stage:
    speed, at = rng.uniform(9.0, 11.0), START_M + rng.uniform(55.0, 80.0)
    pace, late, long = rng.uniform(1.3, 1.9), rng.uniform(0.3, 0.6), rng.uniform(5.5, 8.0)
    car = lane(roads, "car")

    def movers(line: Floats, town: Town) -> list[Mover]:
        edge = float(town.edges["street"].lanes[0].xy_N2[0, 1]) - car.width_m / 2
        kerb = np.array([[0.0, edge - 1.2], [200.0, edge - 1.2]])
        van = Mover(kind="truck", line_N2=kerb, behaviour=Keep(), s_m=at - 1.0 - long / 2, size_m=(long, 2.2, 2.7))
        return [van, _walker(line, town, at, pace_mps=pace, late_s=late, off_m=1.1)]

    layout = straight("occluded_pedestrian", layout_seed(at), roads, [car, car])
    slow = ((at - 14.0, at + 4.0, 5.0),)
    return staged(layout, 0, speed, one_line(0, speed, movers, "crossing", "leaders", slow=slow), route_m=110.0)


def _crosswalk_yield(roads: Roads, rng: Random) -> Stage:
    ego, speed, length = rng.choice(roads.car_lanes), rng.uniform(8.0, 10.0), rng.uniform(85.0, 110.0)
    pace, late = rng.uniform(1.1, 1.6), rng.uniform(0.2, 1.2)
    at = length - 3.5

    def movers(line: Floats, town: Town) -> list[Mover]:
        return [_walker(line, town, at, pace_mps=pace, late_s=late)]

    walk = (CrosswalkSpec(edge="street", before_end_m=1.5, depth_m=4.0),)
    layout = straight("crosswalk_yield", layout_seed(length), roads, own_lanes(roads), length_m=length, crosswalks=walk)
    plot = one_line(ego, speed, movers, "crossing", "leaders", "crosswalks")
    return staged(layout, ego, speed, plot, route_m=length + 15.0 - START_M)


def _wrong_way_e_bike(roads: Roads, rng: Random) -> Stage:
    ego, speed = roads.car_lanes[0], rng.uniform(8.0, 10.5)
    pace, side, at = rng.uniform(4.0, 6.0), rng.uniform(0.1, 0.7), START_M + rng.uniform(75.0, 95.0)

    def movers(line: Floats, town: Town) -> list[Mover]:
        back = line[::-1].copy()
        rides = AgainstTraffic(speed_mps=pace, left_m=side, dodge_left_m=2.5)
        return [
            Mover(
                kind="ebike",
                line_N2=back,
                behaviour=rides,
                s_m=station(back, (at, float(line[0, 1]))),
                left_m=side,
                speed_mps=pace,
            )
        ]

    layout = straight("wrong_way_e_bike", layout_seed(at), roads, own_lanes(roads))
    return staged(layout, ego, speed, one_line(ego, speed, movers, "crossing", "leaders"), route_m=100.0)


# -- whose lane, which line --------------------------------------------------------------------------------------


def _around(line: Floats, at_m: float, left_m: float, length_m: float = 22.0) -> Floats:
    """Past something that stands at `at_m`: `left_m` aside (negative: right) and back."""
    return shifted(line, (at_m - 30.0, 20.0, left_m), (at_m + length_m - 10.0, 20.0, -left_m))


def _blocked(name: str, roads: Roads, rng: Random, lanes: list[LaneSpec], *, open_now: bool, clock_h: float) -> Stage:
    """A car stands in the only car lane beside a special lane. Where that lane is open, it stands for good."""
    ego, speed, at = 1, rng.uniform(8.0, 10.0), START_M + rng.uniform(50.0, 65.0)
    stand_s = 1e9 if open_now else rng.uniform(9.0, 13.0)

    def plot(town: Town) -> Plot:
        line = lane_line(town, ("street", ego), ("on", ego))
        past = _around(line, at, -lane_step(town, ego - 1, ego))
        stands = Mover(kind="car", line_N2=line, behaviour=WaitThenGo(until_s=stand_s, speed_mps=9.0), s_m=at)
        keeps = Manner(front_N2=line, cruise_mps=speed)
        passes = Manner(front_N2=past, cruise_mps=speed)
        careful, careless = (passes, keeps) if open_now else (keeps, passes)
        return Plot(movers=(stands,), careful=careful, careless=careless)

    layout = straight(name, layout_seed(at), roads, lanes)
    return staged(layout, ego, speed, plot, route_m=105.0, max_time_s=35.0, clock_h=clock_h)


def _bus_lane_by_hour(roads: Roads, rng: Random) -> Stage:
    bus, car = lane(roads, "bus"), lane(roads, "car")
    bus = replace(bus, hours=bus.hours or ((7.0, 9.0), (17.0, 19.0)), others=car.allow)
    open_now = rng.random() < 0.5
    start, end = rng.choice(bus.hours)
    clock = rng.uniform(10.0, 16.0) if open_now else rng.uniform(start + 0.1, end - 0.3)
    return _blocked("bus_lane_by_hour", roads, rng, [bus, car], open_now=open_now, clock_h=clock)


def _non_motor_lane(roads: Roads, rng: Random) -> Stage:
    lanes = [lane(roads, "bike"), lane(roads, "car")]
    return _blocked("non_motor_lane", roads, rng, lanes, open_now=False, clock_h=rng.uniform(8.0, 18.0))


def _solid_line(roads: Roads, rng: Random) -> Stage:
    car, speed = lane(roads, "car"), rng.uniform(8.0, 10.0)
    length, pace, ahead = rng.uniform(80.0, 100.0), rng.uniform(3.0, 4.0), rng.uniform(28.0, 36.0)
    kind = rng.choice(("tricycle", "ebike", "truck"))

    def plot(town: Town) -> Plot:
        line = lane_line(town, ("street", 0), ("on", 0))
        step = lane_step(town, 0, 1)
        slow = Mover(kind=kind, line_N2=line, behaviour=Keep(speed_mps=pace), s_m=START_M + ahead, speed_mps=pace)
        patient = shifted(line, (length + 3.0, 22.0, step))
        hasty = shifted(line, (START_M + 5.0, 22.0, step))
        return Plot(
            movers=(slow,),
            careful=Manner(front_N2=patient, cruise_mps=speed),
            careless=Manner(front_N2=hasty, cruise_mps=speed),
        )

    solid = [replace(car, line_left="solid"), car]
    dashed = [replace(car, line_left="dashed"), car]
    layout = straight("solid_line", layout_seed(length), roads, solid, length_m=length, on_lanes=dashed)
    return staged(layout, 0, speed, plot, route_m=length + 40.0 - START_M, max_time_s=60.0)


STREET_FAMILIES: tuple[Family, ...] = (
    Family(
        name="curves",
        tells="an S-bend too tight for the limit",
        careless="takes the bends at full speed",
        eyes="the road's bends: no side input tells its course",
        build=_curves,
        conditions=(*SAFE, bends_gently(5.0)),
    ),
    Family(
        name="stop_and_go",
        tells="a queue that moves in waves",
        careless="does not look at the car ahead",
        eyes="the car ahead, when it brakes and when it moves off",
        build=_stop_and_go,
        conditions=SAFE,
    ),
    Family(
        name="hard_braking_lead",
        tells="the car ahead brakes to a stand",
        careless="does not look at the car ahead",
        eyes="the car ahead and its brake lights",
        build=_hard_braking_lead,
        conditions=SAFE,
    ),
    Family(
        name="cut_in",
        tells="a car from the next lane slips in close ahead and slows down",
        careless="does not look at the car ahead",
        eyes="the car that slips in",
        build=_cut_in,
        conditions=SAFE,
    ),
    Family(
        name="merge",
        tells="a ramp joins a lane with dense traffic that has priority",
        careless="joins without looking",
        eyes="the gaps in the traffic on the main road",
        build=_merge,
        conditions=SAFE,
    ),
    Family(
        name="jaywalker",
        tells="a pedestrian crosses in the middle of the block",
        careless="drives on",
        eyes="the pedestrian",
        build=_jaywalker,
        conditions=SAFE,
    ),
    Family(
        name="occluded_pedestrian",
        tells="a pedestrian steps out from behind a parked van",
        careless="neither slows down beside the van nor brakes",
        eyes="the van, and who steps out behind it",
        build=_occluded,
        conditions=SAFE,
    ),
    Family(
        name="crosswalk_yield",
        tells="somebody walks onto a crosswalk without lights",
        careless="drives on before or behind them",
        eyes="the crosswalk and who walks onto it",
        build=_crosswalk_yield,
        conditions=(yields_at_crosswalks, *SAFE),
    ),
    Family(
        name="bus_lane_by_hour",
        tells="a car blocks the only car lane beside a bus lane: open to cars off-peak, closed in its hours",
        careless="reads the hours the wrong way round",
        eyes="the car that stands in the way; the hour itself is not among what a policy is told",
        build=_bus_lane_by_hour,
        conditions=(keeps_to_open_lanes, *SAFE),
    ),
    Family(
        name="non_motor_lane",
        tells="a car blocks the only car lane beside a lane for bicycles",
        careless="passes through the bicycle lane",
        eyes="the car that stands in the way, and when it drives on",
        build=_non_motor_lane,
        conditions=(keeps_to_open_lanes, *SAFE),
    ),
    Family(
        name="solid_line",
        tells="a slow vehicle ahead; the line to the next lane is solid, later dashed",
        careless="changes lane over the solid line",
        eyes="the slow vehicle ahead and the line beside it",
        build=_solid_line,
        conditions=(crosses_no_solid_line, *SAFE),
    ),
    Family(
        name="wrong_way_e_bike",
        tells="an e-bike comes towards the ego in its own lane",
        careless="drives on",
        eyes="the rider who comes the wrong way",
        build=_wrong_way_e_bike,
        conditions=SAFE,
    ),
    Family(
        name="three_wheeler_cut_in",
        tells="a slow three-wheeler moves over into the ego's lane",
        careless="does not look at who slips in",
        eyes="the three-wheeler that moves over",
        build=_three_wheeler,
        conditions=SAFE,
    ),
)
