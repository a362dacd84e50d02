"""The traffic engine (SUMO through libsumo) behind a few calls: start, step, read, and move the cars that policies drive.

Rule: everything the engine knows about vehicles comes out as a `Moment`; no other module imports libsumo. One world per
process: the engine is a global, and a crash of it takes the process along, so only child processes use this module.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.frames import wrap_angle
from onshore.core.policy import RouteCommand
from onshore.core.rollout import ACTOR_KINDS
from onshore.world.roads import Roads, Share
from onshore.world.town import Town

STEP_S = 0.1
BRAKE_SIGNAL = 8
#: No vehicle passes a street in less than this, so a walk of horizon / this streets never ends early.
FASTEST_STREET_S = 9.0
#: Worlds shorter than this have the same traffic, however long they run.
LONG_S = 400.0
#: No vehicle starts on a street shorter than this.
SHORTEST_START_M = 25.0
#: The ego is placed exactly, may leave its lane and route, and may use lanes forbidden to it (bits 1, 2 and 4).
PLACE_FREELY = 7
OBEY_NOTHING, OBEY_ALL = 0, 31
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All vehicles and lights at one step: front-bumper poses (N, 3: x, y, yaw), speeds, brake lights, lamps per head."""

    t_s: float
    ids: tuple[str, ...]
    numbers: NDArray[np.int32]
    kinds: NDArray[np.int8]
    poses_N3: Floats
    speed_N: Floats
    braking_N: NDArray[np.bool_]
    lights: NDArray[np.int8]
    programs: dict[str, str]

    def row(self, vehicle: str) -> int | None:
        try:
            return self.ids.index(vehicle)
        except ValueError:
            return None


class Traffic:
    """One running world of traffic. Use as a context manager: the engine is stopped on the way out."""

    def __init__(self, town: Town, seed: int, horizon_s: float) -> None:
        import libsumo

        self.town, self._engine = town, libsumo
        self._programs = sorted({head.program for head in town.heads})
        self._routes: dict[str, tuple[str, ...]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="onshore-traffic-")
        demand = Path(self._folder.name) / "demand.rou.xml"
        demand.write_text(demand_xml(town, seed, horizon_s), encoding="utf8")
        options: dict[str, Any] = {
            "-n": town.net.path,
            "-r": demand,
            "--step-length": STEP_S,
            "--lateral-resolution": 0.8,
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

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.close()
        self._folder.cleanup()

    def step(self) -> None:
        self._engine.simulationStep()

    def moment(self) -> Moment:
        """Read every vehicle and light."""
        vehicle = self._engine.vehicle
        ids = vehicle.getIDList()
        poses = np.empty((len(ids), 3))
        speed, signals = np.empty(len(ids)), np.empty(len(ids), np.int64)
        for row, name in enumerate(ids):
            poses[row, 0], poses[row, 1] = vehicle.getPosition(name)
            poses[row, 2] = vehicle.getAngle(name)
            speed[row] = vehicle.getSpeed(name)
            signals[row] = vehicle.getSignals(name)
        poses[:, 2] = wrap_angle(np.radians(90.0 - poses[:, 2]))
        programs = {name: self._engine.trafficlight.getRedYellowGreenState(name) for name in self._programs}
        split = [name.partition(".") for name in ids]
        return Moment(
            t_s=float(self._engine.simulation.getTime()),
            ids=tuple(ids),
            numbers=np.array([int(number) for _, _, number in split], np.int32),
            kinds=np.array([ACTOR_KINDS.index(kind) for kind, _, _ in split], np.int8),
            poses_N3=poses,
            speed_N=speed,
            braking_N=(signals & BRAKE_SIGNAL) > 0,
            lights=self._lights(programs),
            programs=programs,
        )

    def _lights(self, programs: dict[str, str]) -> NDArray[np.int8]:
        lights = np.zeros(len(self.town.heads), np.int8)
        for index, head in enumerate(self.town.heads):
            state = {programs[head.program][link].lower() for link in head.links}
            lights[index] = 2 if "g" in state else 1 if "y" in state or "u" in state else 0
        return lights

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

    def take_over(self, vehicle: str, *, ask_engine: bool) -> None:
        """From now on the vehicle goes only where `put` puts it; with `ask_engine` the engine keeps having an opinion."""
        self._engine.vehicle.setSpeedMode(vehicle, OBEY_ALL if ask_engine else OBEY_NOTHING)
        self._engine.vehicle.setLaneChangeMode(vehicle, 0)
        if ask_engine:
            # the answer of a careful driver without the random slackening that the engine gives everybody
            careful = self.town.roads.expert
            self._engine.vehicle.setImperfection(vehicle, 0.0)
            self._engine.vehicle.setTau(vehicle, careful["time_gap_s"])
            self._engine.vehicle.setMinGap(vehicle, careful["standing_gap_m"])

    def put(self, vehicle: str, front_x_m: float, front_y_m: float, yaw_rad: float, speed_mps: float | None) -> None:
        """Place a taken-over vehicle for the coming step; must be called before every step, also when it stands."""
        if speed_mps is not None:
            self._engine.vehicle.setSpeed(vehicle, speed_mps)
        angle = (90.0 - math.degrees(yaw_rad)) % 360.0
        self._engine.vehicle.moveToXY(vehicle, "", -1, front_x_m, front_y_m, angle=angle, keepRoute=PLACE_FREELY)

    def engine_speed(self, vehicle: str) -> float:
        """The speed the engine's own driver would have chosen for the step just made, in the vehicle's actual place."""
        return float(self._engine.vehicle.getSpeedWithoutTraCI(vehicle))

    def remove(self, vehicle: str) -> None:
        self._engine.vehicle.remove(vehicle)


def demand_xml(town: Town, seed: int, horizon_s: float) -> str:
    """Vehicles on random walks, as the region mixes them: a function of (town, seed, horizon)."""
    rng, roads = random.Random(seed * 7919 + town.seed), town.roads
    edges = [name for name in sorted(town.edges) if town.edges[name].lanes[0].length_m > SHORTEST_START_M]
    lines = [_type_xml(roads, kind) for kind in sorted(roads.vehicles)]
    traffic = roads.traffic
    t_s, number = 0.0, 0
    while t_s < horizon_s:
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
        filling = number < traffic["vehicles"]
        t_s += (traffic["fill_s"] / traffic["vehicles"] if filling else traffic["period_s"]) * rng.uniform(0.5, 1.5)
    return f"<routes>{''.join(lines)}</routes>"


def _type_xml(roads: Roads, kind: str) -> str:
    style = roads.vehicles[kind]
    size = {"id": kind, "length": style.length_m, "width": style.width_m}
    return f"<vType {_xml({**size, **style.engine})}/>"


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
        if town.roads.lanes[share.lanes[0]].kind == "bus":
            kept = [b for b in exits if len(exits) == 1 or town.command(walk[-1], b) is not RouteCommand.LEFT]
            exits = kept or exits
        walk.append(rng.choice(exits))
    return walk
