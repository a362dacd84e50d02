"""The traffic engine (SUMO through libsumo) behind a few calls: start, step, read, and move the cars that policies drive.

Rule: everything the engine knows about vehicles comes out as a `Moment`; no other module imports libsumo. One world per
process: the engine is a global, and a crash of it takes the process along, so only child processes use this module.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.frames import wrap_angle
from onshore.core.policy import RouteCommand
from onshore.core.rollout import ACTOR_KINDS
from onshore.world.actors import FIRST_NUMBER, Actor
from onshore.world.jobs import Start
from onshore.world.layout import within
from onshore.world.roads import Roads, Share
from onshore.world.town import Town

STEP_S = 0.1
#: How often a driver of the traffic looks and decides; between, it carries out what it decided. Also what traffic costs.
DECIDE_S = 0.1
#: The same for drivers further than ATTEND_M from every place that somebody watches; who is near is asked every ATTEND_STEPS.
FAR_DECIDE_S, ATTEND_M, ATTEND_STEPS = 0.5, 70.0, 5
BRAKE_SIGNAL = 8
#: What bodies ask of every driver, as the engine names it. No vehicle slides sideways: standing not at all, else by a share of
#: its speed (unsaid, the engine turns cars on the spot). Who waits inside a junction stops this far (m) before a crossing
#: car's way: the engine knows ways by their centre lines, and corners reach over them.
BODILY = {"lcMaxSpeedLatStanding": 0.0, "lcMaxSpeedLatFactor": 0.25, "jmExtraGap": 1.5}
#: No vehicle passes a street in less than this, so a walk of horizon / this streets never ends early.
FASTEST_STREET_S = 9.0
#: Worlds shorter than this have the same traffic, however long they run.
LONG_S = 400.0
#: No vehicle starts on a street shorter than this.
SHORTEST_START_M = 25.0
#: The ego is placed exactly, may leave its lane and route, and may use lanes forbidden to it (bits 1, 2 and 4). Inside a
#: junction not the last: with it the engine knows one way to each next street, that of the first lane that goes there, and
#: who turns from another lane would be nowhere, unseen by others and without an answer for itself.
PLACE_FREELY, PLACE_IN_JUNCTION = 7, 3
OBEY_NOTHING, OBEY_ALL = 0, 31
#: Vehicles by which the engine sees scripted actors.
STAND_IN, STAND_IN_TYPE = "scripted-", "scripted"
#: Who is this near beyond a stop line stands, for the engine, at the line.
BEYOND_LINE_M = 8.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All road users and lights at one step: front poses (N, 3: x, y, yaw), speeds, brake lights, sizes, lamps per head.

    The engine's vehicles come first, then the actors that a script moves.
    """

    t_s: float
    ids: tuple[str, ...]
    numbers: NDArray[np.int32]
    kinds: NDArray[np.int8]
    poses_N3: Floats
    speed_N: Floats
    braking_N: NDArray[np.bool_]
    sizes_N3: Floats
    lights: NDArray[np.int8]
    programs: dict[str, str]

    @cached_property
    def rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row(self, vehicle: str) -> int | None:
        return self.rows.get(vehicle)

    @cached_property
    def boxes_N5(self) -> Floats:
        """Every box as centre, yaw, length, width."""
        yaw, length = self.poses_N3[:, 2], self.sizes_N3[:, 0]
        boxes = np.empty((len(self.ids), 5))
        boxes[:, 0] = self.poses_N3[:, 0] - np.cos(yaw) * length / 2
        boxes[:, 1] = self.poses_N3[:, 1] - np.sin(yaw) * length / 2
        boxes[:, 2], boxes[:, 3:] = yaw, self.sizes_N3[:, :2]
        return boxes


@dataclass(frozen=True, kw_only=True)
class _Users:
    """What does not change of the engine's vehicles while none comes and none goes. named: with stand-ins, which ids lack."""

    named: tuple[str, ...]
    ids: tuple[str, ...]
    numbers: NDArray[np.int32]
    kinds: NDArray[np.int8]
    sizes_N3: Floats


class Traffic:
    """One running world of traffic. Use as a context manager: the engine is stopped on the way out.

    watched: drivers decide at every step only where `attend` says that somebody watches; else everywhere.
    """

    def __init__(
        self,
        town: Town,
        seed: int,
        horizon_s: float,
        *,
        clock_h: float = 8.0,
        vehicles: int | None = None,
        watched: bool = False,
    ) -> None:
        import libsumo

        self.town, self._engine = town, libsumo
        # the engine's own functions, without the wrapper in Python around each: they are called for every vehicle at every step
        bare = libsumo._libsumo
        self._position = bare.vehicle_getPosition
        self._rest = (bare.vehicle_getAngle, bare.vehicle_getSpeed, bare.vehicle_getSignals)
        self._names, self._count = bare.vehicle_getIDList, bare.vehicle_getIDCount
        self._departed, self._now = bare.simulation_getDepartedNumber, bare.simulation_getTime
        self._state, self._switch = bare.trafficlight_getRedYellowGreenState, bare.trafficlight_getNextSwitch
        self._watched, self._near = watched, frozenset[str]()
        self._users, self._newcomers = self._known(()), False
        self._shown: dict[str, str] = {}
        self._switches_s = -math.inf
        self._lit = np.zeros(len(town.heads), np.int8)
        self._actors: tuple[Actor, ...] = ()
        self._stand_ins: dict[str, str] = {}
        self._places = _LanePlaces(town)
        self._programs = sorted({head.program for head in town.heads})
        self._routes: dict[str, tuple[str, ...]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="onshore-traffic-")
        demand = Path(self._folder.name) / "demand.rou.xml"
        demand.write_text(demand_xml(town, seed, horizon_s, vehicles), encoding="utf8")
        options: dict[str, Any] = {
            "-n": town.net.path,
            "-r": demand,
            "--step-length": STEP_S,
            "--lateral-resolution": 0.8,
            "--default.action-step-length": FAR_DECIDE_S if watched else DECIDE_S,
            "--seed": seed,
            "--time-to-teleport": -1,
            "--collision.action": "none",
            "--max-depart-delay": 5,
            "--default.speeddev": 0.1,
            "--time-to-impatience": town.roads.traffic["impatient_after_s"],
        }
        argv = ["sumo", "--no-step-log", "--no-warnings"]
        for name, value in options.items():
            argv += [name, str(value)]
        libsumo.start(argv)
        self._open_lanes(clock_h)

    def _open_lanes(self, clock_h: float) -> None:
        """Lanes reserved by the hour let others in while they are not."""
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                if lane.spec.hours and not within(lane.spec.hours, clock_h):
                    allowed = [*lane.spec.allow.split(), *lane.spec.others.split()]
                    self._engine.lane.setAllowed(f"{edge.id}_{lane.index}", allowed)

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.close()
        self._folder.cleanup()

    def step(self) -> None:
        self._engine.simulationStep()
        self._newcomers = self._newcomers or self._departed() > 0

    def attend(self, moment: Moment, places_E2: Floats) -> None:
        """From now on who is near a place decides at every step, and who is not does so less often."""
        if not self._watched:
            return
        engine_knows = moment.poses_N3[: len(moment.ids) - len(self._actors), :2]
        gaps = engine_knows[:, None] - places_E2[None]
        rows = np.flatnonzero(((gaps * gaps).sum(-1) < ATTEND_M**2).any(1))
        near = frozenset(moment.ids[row] for row in rows)
        for name in sorted(near - self._near):
            self._engine.vehicle.setActionStepLength(name, DECIDE_S)
        for name in sorted((self._near - near) & moment.rows.keys()):
            self._engine.vehicle.setActionStepLength(name, FAR_DECIDE_S)
        self._near = near

    def moment(self) -> Moment:
        """Read every vehicle and light."""
        if self._newcomers or self._count() != len(self._users.named):
            self._users, self._newcomers = self._known(tuple(self._names())), False
        users, now_s = self._users, float(self._now())
        found = users.named
        # asked one by one: the engine's subscriptions cost it more in its step than they save here
        poses = np.empty((len(found), 3))
        places = np.fromiter(chain.from_iterable(map(self._position, found)), np.float64, 2 * len(found))
        poses[:, :2] = places.reshape(-1, 2)
        angle, speed, signals = (np.fromiter(map(get, found), np.float64, len(found)) for get in self._rest)
        poses[:, 2] = wrap_angle(np.radians(90.0 - angle))
        if len(found) > len(users.ids):
            own = [not name.startswith(STAND_IN) for name in found]
            poses, speed, signals = poses[own], speed[own], signals[own]
        if now_s >= self._switches_s:
            self._read_lights()
        moment = Moment(
            t_s=now_s,
            ids=users.ids,
            numbers=users.numbers,
            kinds=users.kinds,
            poses_N3=poses,
            speed_N=speed,
            braking_N=(signals.astype(np.int64) & BRAKE_SIGNAL) > 0,
            sizes_N3=users.sizes_N3,
            lights=self._lit,
            programs=self._shown,
        )
        return self._with_actors(moment) if self._actors else moment

    def _known(self, names: tuple[str, ...]) -> _Users:
        """What is known of the vehicles of these names, kind.number each, stand-ins left out."""
        ids = tuple(name for name in names if not name.startswith(STAND_IN))
        parts = [name.partition(".") for name in ids]
        kinds = np.array([ACTOR_KINDS.index(kind) for kind, _, _ in parts], np.int8)
        numbers = np.array([int(number) for _, _, number in parts], np.int32)
        return _Users(named=names, ids=ids, numbers=numbers, kinds=kinds, sizes_N3=self.town.roads.sizes[kinds])

    def _read_lights(self) -> None:
        """What every program shows, until one of them switches."""
        self._switches_s = min((self._switch(name) for name in self._programs), default=math.inf)
        programs = {name: self._state(name) for name in self._programs}
        lights = np.zeros(len(self.town.heads), np.int8)
        for index, head in enumerate(self.town.heads):
            state = {programs[head.program][link].lower() for link in head.links}
            lights[index] = 2 if "g" in state else 1 if "y" in state or "u" in state else 0
        self._shown, self._lit = programs, lights

    def _with_actors(self, moment: Moment) -> Moment:
        actors = self._actors
        sizes = np.array([actor.size(self.town.roads) for actor in actors])
        fronts = np.array(
            [
                (
                    actor.x_m + math.cos(actor.yaw_rad) * size[0] / 2,
                    actor.y_m + math.sin(actor.yaw_rad) * size[0] / 2,
                    actor.yaw_rad,
                )
                for actor, size in zip(actors, sizes, strict=True)
            ]
        )
        numbers = np.array([FIRST_NUMBER + actor.number for actor in actors], np.int32)
        kinds = np.array([ACTOR_KINDS.index(actor.kind) for actor in actors], np.int8)
        return replace(
            moment,
            ids=(*moment.ids, *(f"{actor.kind}.{number}" for actor, number in zip(actors, numbers, strict=True))),
            numbers=np.concatenate([moment.numbers, numbers]),
            kinds=np.concatenate([moment.kinds, kinds]),
            poses_N3=np.concatenate([moment.poses_N3, fronts]),
            speed_N=np.concatenate([moment.speed_N, [actor.speed_mps for actor in actors]]),
            braking_N=np.concatenate([moment.braking_N, [actor.braking for actor in actors]]),
            sizes_N3=np.concatenate([moment.sizes_N3, sizes]),
        )

    def set_actors(self, actors: Sequence[Actor]) -> None:
        """Where a script's actors are at the end of the coming step; on lanes the engine gets a stand-in for each."""
        self._actors = tuple(actors)
        engine, kept = self._engine.vehicle, dict[str, str]()
        for actor in self._actors:
            size = actor.size(self.town.roads)
            place = self._places.find(actor.x_m, actor.y_m, max(size[:2]) / 2)
            if place is None:
                continue
            name = f"{STAND_IN}{actor.number}-{place.edge}"
            if name not in self._stand_ins:
                self._add_stand_in(name, place, actor, size)
            kept[name] = place.edge
            reach = size[0] / 2 if abs(math.cos(actor.yaw_rad - place.yaw_rad)) > 0.7 else size[1] / 2
            x, y = place.x_m + math.cos(place.yaw_rad) * reach, place.y_m + math.sin(place.yaw_rad) * reach
            engine.setSpeed(name, max(0.0, actor.speed_mps * math.cos(actor.yaw_rad - place.yaw_rad)))
            angle = (90.0 - math.degrees(place.yaw_rad)) % 360.0
            engine.moveToXY(name, place.edge, place.lane, x, y, angle=angle, keepRoute=PLACE_FREELY)
        for name in sorted(set(self._stand_ins) - set(kept)):
            self.remove(name)
        self._stand_ins = kept

    def _add_stand_in(self, name: str, place: LanePlace, actor: Actor, size: tuple[float, float, float]) -> None:
        """A vehicle as large as the actor is along and across the lane, on a route of that street alone."""
        engine = self._engine
        route = f"{STAND_IN}{place.edge}"
        if route not in engine.route.getIDList():
            engine.route.add(route, [place.edge])
        engine.vehicle.add(
            name, route, typeID=STAND_IN_TYPE, depart="now", departLane=str(place.lane), departPos="base"
        )
        self._newcomers = True
        lengthwise = abs(math.cos(actor.yaw_rad - place.yaw_rad)) > 0.7
        engine.vehicle.setLength(name, max(size[0] if lengthwise else size[1], 0.5))
        engine.vehicle.setWidth(name, max(size[1] if lengthwise else size[0], 0.4))
        engine.vehicle.setSpeedMode(name, OBEY_NOTHING)
        engine.vehicle.setLaneChangeMode(name, 0)

    def start_ego(self, name: str, start: Start) -> None:
        """Put an ego's car into the town; it is there after the next step, where `put` then says."""
        route = f"{name}-route"
        # the engine takes nobody in on a lane that is closed to cars; `put` does
        open_ = self.town.edges[start.route[0]].lanes[start.lane].kind == "car"
        self._engine.route.add(route, list(start.route))
        self._routes[name] = start.route
        self._engine.vehicle.add(
            name,
            route,
            typeID=name.partition(".")[0],
            depart="now",
            departLane=str(start.lane) if open_ else "first",
            departPos=str(start.at_m),
            departSpeed=str(start.speed_mps),
        )
        self._newcomers = True  # placing it may take it in without a departure

    def route(self, vehicle: str) -> tuple[str, ...]:
        if vehicle not in self._routes:
            self._routes[vehicle] = tuple(self._engine.vehicle.getRoute(vehicle))
        return self._routes[vehicle]

    def place(self, vehicle: str) -> tuple[int, float | None]:
        """(index into its route, metres to the end of its street; None inside a junction)."""
        index = int(self._engine.vehicle.getRouteIndex(vehicle))
        lane = self._engine.vehicle.getLaneID(vehicle)
        if lane.startswith(":"):
            return index, None
        return index, float(self._engine.lane.getLength(lane) - self._engine.vehicle.getLanePosition(vehicle))

    def take_over(self, vehicle: str, edges: Sequence[str], *, ask_engine: bool) -> None:
        """From now on the vehicle goes only where `put` puts it; with `ask_engine` the engine keeps having an opinion.

        edges: its route from where it is; a longer one would be searched at every `put`.
        """
        if self.route(vehicle) != tuple(edges):
            self._engine.vehicle.setRoute(vehicle, list(edges))
            self._routes[vehicle] = tuple(edges)
        self._engine.vehicle.setSpeedMode(vehicle, OBEY_ALL if ask_engine else OBEY_NOTHING)
        self._engine.vehicle.setLaneChangeMode(vehicle, 0)
        if ask_engine:
            # the answer of a careful driver without the random slackening that the engine gives everybody
            careful = self.town.roads.expert
            self._engine.vehicle.setActionStepLength(vehicle, STEP_S)
            self._engine.vehicle.setImperfection(vehicle, 0.0)
            self._engine.vehicle.setTau(vehicle, careful["time_gap_s"])
            self._engine.vehicle.setMinGap(vehicle, careful["standing_gap_m"])

    def put(
        self,
        vehicle: str,
        front_xy_m: tuple[float, float],
        yaw_rad: float,
        speed_mps: float | None,
        *,
        in_junction: bool = False,
    ) -> None:
        """Place a taken-over vehicle for the coming step; must be called before every step, also when it stands.

        in_junction: it is on its own way through one; of a car that is on no way of its route, the engine would die.
        """
        if speed_mps is not None:
            self._engine.vehicle.setSpeed(vehicle, speed_mps)
        angle, how = (90.0 - math.degrees(yaw_rad)) % 360.0, PLACE_IN_JUNCTION if in_junction else PLACE_FREELY
        self._engine.vehicle.moveToXY(vehicle, "", -1, *front_xy_m, angle=angle, keepRoute=how)

    def engine_speed(self, vehicle: str) -> float:
        """The speed the engine's own driver would have chosen for the step just made, in the vehicle's actual place."""
        return float(self._engine.vehicle.getSpeedWithoutTraCI(vehicle))

    def remove(self, vehicle: str) -> None:
        self._engine.vehicle.remove(vehicle)


@dataclass(frozen=True, kw_only=True)
class LanePlace:
    """A place on a lane: its lane, the direction there, and where the engine is told of it."""

    edge: str
    lane: int
    x_m: float
    y_m: float
    yaw_rad: float


class _LanePlaces:
    """Every lane segment of a town, to find the lane under a point; the first metres beyond a stop line count as its end."""

    def __init__(self, town: Town) -> None:
        rows, self._names = [], []
        for edge in town.edges.values():
            for lane in edge.lanes:
                ends = lane.xy_N2
                for index in range(len(ends) - 1):
                    last = index == len(ends) - 2
                    rows.append((*ends[index], *ends[index + 1], lane.width_m / 2, BEYOND_LINE_M if last else 0.0))
                    self._names.append((edge.id, lane.index))
        table = np.array(rows)
        self._start, step = table[:, :2], table[:, 2:4] - table[:, :2]
        self._length = np.maximum(np.hypot(*step.T), 1e-6)
        self._along = step / self._length[:, None]
        self._half, self._beyond = table[:, 4], table[:, 5]

    def find(self, x_m: float, y_m: float, reach_m: float) -> LanePlace | None:
        """The lane whose middle is nearest, if the point is on it; None beside all lanes and inside junctions."""
        gap = np.array([x_m, y_m]) - self._start
        ahead = (gap * self._along).sum(1)
        left = self._along[:, 0] * gap[:, 1] - self._along[:, 1] * gap[:, 0]
        fits = (ahead >= -0.2) & (ahead <= self._length + self._beyond) & (np.abs(left) <= self._half + 0.1)
        if not fits.any():
            return None
        beyond = np.maximum(ahead - self._length, 0.0)
        best = int(np.argmin(np.where(fits, np.abs(left) + beyond, np.inf)))
        at = min(float(ahead[best]), float(self._length[best]) - 0.3 - reach_m)
        along = self._along[best]
        x, y = self._start[best] + along * at + np.array([-along[1], along[0]]) * left[best]
        edge, lane = self._names[best]
        return LanePlace(edge=edge, lane=lane, x_m=float(x), y_m=float(y), yaw_rad=math.atan2(along[1], along[0]))


def demand_xml(town: Town, seed: int, horizon_s: float, vehicles: int | None = None) -> str:
    """Vehicles on random walks, as the region mixes them: a function of (town, seed, horizon, vehicles)."""
    rng, roads = random.Random(seed * 7919 + town.seed), town.roads
    edges = [name for name in sorted(town.edges) if town.edges[name].lanes[0].length_m > SHORTEST_START_M]
    lines = [_type_xml(roads, kind) for kind in sorted(roads.vehicles)]
    lines.append(f'<vType id="{STAND_IN_TYPE}" vClass="ignoring" minGap="0.5" maxSpeed="20"/>')
    traffic = roads.traffic
    filling_until = traffic["vehicles"] if vehicles is None else vehicles
    t_s, number = 0.0, 0
    while t_s < horizon_s and filling_until:
        share = _drawn(rng, roads.mix)
        walk = _walk(town, rng, rng.choice(edges), share, math.ceil(max(horizon_s, LONG_S) / FASTEST_STREET_S))
        attributes = {
            "id": f"{share.kind}.{number}",
            "type": share.kind,
            "depart": f"{t_s:.1f}",
            "departLane": rng.choice(_start_lanes(town, walk[0], share)),
            "departPos": f"{min(rng.uniform(15, 50), 0.8 * town.edges[walk[0]].lanes[0].length_m):.0f}",
            "departSpeed": 0,
        }
        lines.append(f'<vehicle {_xml(attributes)}><route edges="{" ".join(walk)}"/></vehicle>')
        number += 1
        filling = number < filling_until
        t_s += (traffic["fill_s"] / filling_until if filling else traffic["period_s"]) * rng.uniform(0.5, 1.5)
    return f"<routes>{''.join(lines)}</routes>"


def _type_xml(roads: Roads, kind: str) -> str:
    style = roads.vehicles[kind]
    size = {"id": kind, "length": style.length_m, "width": style.width_m}
    return f"<vType {_xml({**size, **BODILY, **style.engine})}/>"


def _xml(attributes: dict[str, Any]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in attributes.items())


def _drawn(rng: random.Random, mix: tuple[Share, ...]) -> Share:
    left = rng.random() * sum(share.share for share in mix)
    for share in mix:
        left -= share.share
        if left < 0:
            return share
    return mix[-1]


def _start_lanes(town: Town, edge: str, share: Share) -> Sequence[int]:
    """The pack's lanes for this kind of vehicle; on a street with lanes of its own, those of the same kinds."""
    lanes, usual = town.edges[edge].lanes, town.roads.lanes
    if [lane.kind for lane in lanes] == [lane.kind for lane in usual]:
        return share.lanes
    kinds = {usual[lane].kind for lane in share.lanes}
    return [lane.index for lane in lanes if lane.kind in kinds] or town.edges[edge].car_lanes


def _walk(town: Town, rng: random.Random, start: str, share: Share, length: int) -> list[str]:
    """A random walk on streets; a kind that keeps to one lane takes only turns its lane has. Ends at a dead end."""
    walk = [start]
    for _ in range(length):
        exits = [b for b in town.net.successors.get(walk[-1], ()) if town.net.turn_lanes[walk[-1], b]]
        if not exits:
            break
        if town.roads.lanes[share.lanes[0]].kind != "car":
            far = (RouteCommand.LEFT, RouteCommand.RIGHT)[int(town.roads.inward < 0)]
            kept = [b for b in exits if len(exits) == 1 or town.command(walk[-1], b) is not far]
            exits = kept or exits
        walk.append(rng.choice(exits))
    return walk
