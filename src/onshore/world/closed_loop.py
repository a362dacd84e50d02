"""The town in closed loop: several egos of one traffic world, driven by plans, judged, and written down as rollouts.

Rule: between `reset` and `rollouts` nothing random happens outside the traffic engine's seed. Plans are asked for at 5 Hz;
the controller turns each into one action, held for two physics steps of 0.1 s. An ego obeys its plan alone: every step
puts it where the bicycle model says, and the engine's traffic reacts to it.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import Action, Bicycle, Controller, EgoState
from onshore.core.errors import InputError
from onshore.core.frames import rear_axle_track
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import Observation
from onshore.core.recording import Camera
from onshore.core.rollout import (
    ACTOR_COLUMNS,
    ACTOR_KINDS,
    FIRST_CONTEXT_COLUMN,
    LANE_KINDS,
    LIGHTS,
    STEP_COLUMNS,
    Rollout,
)
from onshore.world.camera import Scene, TownCamera, town_camera
from onshore.world.furniture import Furniture, vehicle_boxes
from onshore.world.ground import Ground, paint_ground
from onshore.world.jobs import WIDE_CAMERA, RolloutJob
from onshore.world.navigation import Fix, Navigation, front_of
from onshore.world.referee import Box, Referee, Sight
from onshore.world.roads import Roads
from onshore.world.town import Town
from onshore.world.traffic import STEP_S, Moment, Traffic

WARM_S, HISTORY_STEPS, EXTRA_WARM_S = 45.0, 30, 40.0
STEPS_PER_PLAN = 2
FRAME_GAP_STEPS = 4
ACTOR_RANGE_M = 60.0
APART_M, LEAST_SPEED_MPS, LEAST_DISTANCE_M = 50.0, 2.0, 12.0
BLEND_M = 10.0
ONCOMING_DEG = 120.0
TOWNS_KEPT = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TownAssets:
    """A town with everything that is drawn once."""

    town: Town
    ground: Ground
    furniture: Furniture
    camera: TownCamera


class Towns:
    """The towns a process has open; the least recently used goes when there are more than TOWNS_KEPT."""

    def __init__(self, cache_dir: Path, camera: Camera = WIDE_CAMERA) -> None:
        self.cache_dir, self.camera = cache_dir, camera
        self._open: OrderedDict[tuple[str, int], TownAssets] = OrderedDict()

    def get(self, roads: Roads, seed: int) -> TownAssets:
        key = (roads.digest, seed)
        if key not in self._open:
            while len(self._open) >= TOWNS_KEPT:
                self._open.popitem(last=False)
            town = Town.open(roads, seed, self.cache_dir)
            ground = paint_ground(town)
            furniture = Furniture(town, ground)
            camera = town_camera(self.camera, ground, furniture, roads.looks.sky)
            self._open[key] = TownAssets(town=town, ground=ground, furniture=furniture, camera=camera)
        self._open.move_to_end(key)
        return self._open[key]


@dataclass
class Ego:
    """One driven car while it drives."""

    index: int
    vehicle: str
    number: int
    state: EgoState
    navigation: Navigation
    fix: Fix
    referee: Referee
    frames: deque[tuple[float, NDArray[np.uint8]]] = field(default_factory=lambda: deque(maxlen=FRAME_GAP_STEPS))
    plan: Plan | None = None
    action: Action = Action(steering_rad=0.0, accel_mps2=0.0)
    engine_accel_mps2: float = 0.0
    done: bool = False
    rows: list[tuple[float, ...]] = field(default_factory=list)
    plans: list[Plan | None] = field(default_factory=list)
    actors: list[Floats] = field(default_factory=list)
    actor_meta: list[NDArray[np.int32]] = field(default_factory=list)
    seen: Any = field(default_factory=hashlib.sha256)


class TownWorld:
    """A closed-loop world: `reset`, then `observe` and `step` until `done`, then `rollouts`."""

    def __init__(self, roads: Roads, towns: Towns, controller: Controller | None = None) -> None:
        self.roads, self._towns = roads, towns
        self.controller, self.bicycle = controller or Controller(), Bicycle(geometry=roads.ego_geometry)
        self._traffic: Traffic | None = None
        self.egos: list[Ego] = []

    def close(self) -> None:
        if self._traffic is not None:
            self._traffic.__exit__(None, None, None)
            self._traffic = None

    @property
    def camera(self) -> Camera:
        return self._towns.camera

    @property
    def traffic(self) -> Traffic:
        if self._traffic is None:
            raise InputError("bad_config", "world", "call reset before anything else.")
        return self._traffic

    @property
    def active(self) -> list[Ego]:
        return [ego for ego in self.egos if not ego.done]

    @property
    def done(self) -> bool:
        return not self.active

    # -- start ---------------------------------------------------------------------------------------------------

    def reset(self, scenario: RolloutJob, seed: int) -> None:
        """Start the town's traffic with `seed`, let it fill, and take over `scenario.egos` running cars."""
        self.close()
        self.job, self.seed = scenario, seed
        self.assets = self._towns.get(self.roads, scenario.town_seed)
        self.expert = scenario.policy.kind == "expert"
        self.ask_engine = scenario.collect or scenario.policy.kind == "oracle"
        horizon = WARM_S + EXTRA_WARM_S + scenario.max_time_s + 10
        self._traffic = Traffic(self.assets.town, seed, horizon)
        history: deque[Moment] = deque(maxlen=HISTORY_STEPS)
        for step in range(round(WARM_S / STEP_S)):
            self.traffic.step()
            if step >= round(WARM_S / STEP_S) - HISTORY_STEPS:
                history.append(self.traffic.moment())
        chosen = self._choose(history)
        for _ in range(round(EXTRA_WARM_S / STEP_S)):
            if len(chosen) >= scenario.egos:
                break
            self.traffic.step()
            history.append(self.traffic.moment())
            chosen = self._choose(history)
        self.moment, self._start_s, self._steps = history[-1], history[-1].t_s, 0
        self.egos = [self._take(index, vehicle, history) for index, vehicle in enumerate(chosen)]
        if not self.egos:
            raise InputError("bad_config", f"{scenario.scenario} seed {seed}", "no car was fit to be taken over.")
        self._look_back(history)

    def _choose(self, history: deque[Moment]) -> list[str]:
        """Cars on the move, on a street, well before its end, with enough route left, far from one another."""
        moment = history[-1]
        rng = random.Random(self.seed)
        order = np.nonzero(moment.kinds == ACTOR_KINDS.index("car"))[0].tolist()
        rng.shuffle(order)
        chosen: list[int] = []
        for row in order:
            if len(chosen) == self.job.egos:
                break
            name = moment.ids[row]
            if moment.speed_N[row] < LEAST_SPEED_MPS or history[0].row(name) is None:
                continue
            index, distance = self.traffic.place(name)
            if distance is None or distance < LEAST_DISTANCE_M or not self._edges_left(name, index):
                continue
            gaps = moment.poses_N3[chosen, :2] - moment.poses_N3[row, :2]
            if len(chosen) and float(np.hypot(*gaps.T).min()) < APART_M:
                continue
            chosen.append(row)
        return [moment.ids[row] for row in chosen]

    def _edges_left(self, vehicle: str, index: int) -> tuple[str, ...]:
        """The streets ahead, as many as the route needs; empty when there are too few."""
        edges = self.traffic.route(vehicle)[index:]
        lane = self.roads.car_lanes[-1]
        lengths = np.cumsum([self.assets.town.edges[edge].lanes[lane].length_m for edge in edges[1:]])
        enough = int(np.searchsorted(lengths, self.job.route_m + 60.0))
        return edges[: enough + 3] if enough + 2 < len(edges) else ()

    def _take(self, index: int, vehicle: str, history: deque[Moment]) -> Ego:
        geometry = self.bicycle.geometry
        track = np.array([moment.poses_N3[moment.ids.index(vehicle)] for moment in history])
        x, y, yaw = rear_axle_track(track[:, :2], float(track[0, 2]), geometry.axle_to_front_m)[-1]
        row = history[-1].ids.index(vehicle)
        state = EgoState(x_m=x, y_m=y, yaw_rad=yaw, speed_mps=float(history[-1].speed_N[row]))
        edges = self._edges_left(vehicle, self.traffic.place(vehicle)[0])
        front = np.array(front_of(state, geometry))
        navigation = Navigation(self.assets.town, edges, front)
        if not self.expert:
            self.traffic.take_over(vehicle, ask_engine=self.ask_engine)
        return Ego(
            index=index,
            vehicle=vehicle,
            number=int(history[-1].numbers[row]),
            state=state,
            navigation=navigation,
            fix=navigation.update(front),
            referee=Referee(route_m=self.job.route_m, max_time_s=self.job.max_time_s, step_s=STEP_S),
        )

    def _look_back(self, history: deque[Moment]) -> None:
        """Frames of the last 0.4 s before the takeover, so that the first plan sees motion."""
        if not self.sees:
            return
        geometry = self.bicycle.geometry
        tracks = []
        for ego in self.egos:
            track = np.array([moment.poses_N3[moment.ids.index(ego.vehicle)] for moment in history])
            tracks.append(rear_axle_track(track[:, :2], float(track[0, 2]), geometry.axle_to_front_m))
        for back in (FRAME_GAP_STEPS, FRAME_GAP_STEPS // 2):
            moment = history[-1 - back]
            self._film(moment, np.array([track[-1 - back] for track in tracks]), -back * STEP_S)

    @property
    def sees(self) -> bool:
        """Whether anybody looks at the pictures."""
        return self.job.collect or self.job.policy.kind in ("onnx", "python")

    # -- drive ---------------------------------------------------------------------------------------------------

    def observe(self) -> dict[int, Observation]:
        """What each driving ego sees now, by ego index."""
        now_s = self._steps * STEP_S
        if self.sees:
            states = [ego.state for ego in self.active]
            self._film(self.moment, np.array([(s.x_m, s.y_m, s.yaw_rad) for s in states]), now_s)
        return {ego.index: self._observation(ego, now_s) for ego in self.active}

    def _film(self, moment: Moment, poses: Floats, at_s: float) -> None:
        scene = self.scene(moment)
        own = np.array([moment.ids.index(ego.vehicle) for ego in self.active], np.int64)
        frames = self.assets.camera.render(scene, poses, own)
        for ego, frame in zip(self.active, frames, strict=True):
            ego.frames.append((at_s, frame))

    def scene(self, moment: Moment) -> Scene:
        """The boxes of one moment."""
        vehicles = vehicle_boxes(self.roads, moment.kinds, moment.numbers, moment.poses_N3, moment.braking_N)
        return Scene(fixed=self.assets.furniture.lit(moment.lights), vehicles=vehicles)

    def _observation(self, ego: Ego, now_s: float) -> Observation:
        shown = []
        if ego.frames:
            wanted_s = now_s - FRAME_GAP_STEPS * STEP_S
            shown = [min(ego.frames, key=lambda kept: abs(kept[0] - wanted_s)), ego.frames[-1]]
            ego.seen.update(ego.frames[-1][1].tobytes())
        camera = self._towns.camera.name
        return Observation(
            t_ns=round((now_s + WARM_S) * 1e9),
            frames={camera: np.stack([frame for _, frame in shown])} if shown else {},
            frame_ages_s={camera: tuple(round(now_s - at_s, 3) for at_s, _ in shown)} if shown else {},
            speed_mps=ego.state.speed_mps,
            command=ego.fix.command,
            junction_distance_m=ego.fix.distance_m,
            in_junction=ego.fix.in_junction,
        )

    def step(self, plans: dict[int, Plan]) -> None:
        """Drive every active ego by its plan for 0.2 s (the expert needs none)."""
        for ego in self.active:
            if not self.expert:
                ego.plan = plans[ego.index]
                ego.action = self.controller.act(ego.plan, ego.state.speed_mps, self.bicycle.geometry)
            ego.engine_accel_mps2 = 0.0
        for _ in range(STEPS_PER_PLAN):
            if not self.done:
                self._physics()

    def _physics(self) -> None:
        driven = self.active
        # the engine counts from the speed it saw itself, which is the mean over the last step, not the model's
        before = dict(zip(self.moment.ids, self.moment.speed_N, strict=True))
        if not self.expert:
            for ego in driven:
                ego.state = self.bicycle.step(ego.state, ego.action, STEP_S)
                front = front_of(ego.state, self.bicycle.geometry)
                # the engine dies of a car that is on no lane of its route: there its copy keeps to the lane's edge
                x, y = ego.navigation.on_route(np.array(front))
                speed = None if self.ask_engine else ego.state.speed_mps
                self.traffic.put(ego.vehicle, x, y, ego.state.yaw_rad, speed)
        self.traffic.step()
        self._steps += 1
        self.moment = self.traffic.moment()
        centres = self._centres(self.moment)
        rows = {name: row for row, name in enumerate(self.moment.ids)}
        for ego in driven:
            row = rows.get(ego.vehicle)
            if row is None:
                ego.referee.lost(self._steps * STEP_S)
                ego.done = True
                continue
            if self.expert:
                ego.state = self._towed(ego.state, self.moment.poses_N3[row, :2], float(self.moment.speed_N[row]))
            elif self.ask_engine:
                asked = self.traffic.engine_speed(ego.vehicle)
                ego.engine_accel_mps2 += (asked - float(before[ego.vehicle])) / STEP_S / STEPS_PER_PLAN
            self._judge(ego, row, centres)

    def _towed(self, state: EgoState, front_xy: Floats, speed_mps: float) -> EgoState:
        """The rear axle follows the front bumper that the engine moved."""
        reach = self.bicycle.geometry.axle_to_front_m
        dx, dy = float(front_xy[0]) - state.x_m, float(front_xy[1]) - state.y_m
        length = max(math.hypot(dx, dy), 1e-9)
        return EgoState(
            x_m=float(front_xy[0]) - dx / length * reach,
            y_m=float(front_xy[1]) - dy / length * reach,
            yaw_rad=math.atan2(dy, dx),
            speed_mps=speed_mps,
            accel_mps2=(speed_mps - state.speed_mps) / STEP_S,
        )

    # -- judge and write down ------------------------------------------------------------------------------------

    def _centres(self, moment: Moment) -> Floats:
        """Every vehicle's box: centre, yaw, length, width."""
        boxes = np.empty((len(moment.ids), 5))
        sizes = self.roads.sizes[moment.kinds, :2]
        yaw = moment.poses_N3[:, 2]
        boxes[:, 0] = moment.poses_N3[:, 0] - np.cos(yaw) * sizes[:, 0] / 2
        boxes[:, 1] = moment.poses_N3[:, 1] - np.sin(yaw) * sizes[:, 0] / 2
        boxes[:, 2], boxes[:, 3:] = yaw, sizes
        return boxes

    def _judge(self, ego: Ego, row: int, centres: Floats) -> None:
        geometry, state = self.bicycle.geometry, ego.state
        front = np.array(front_of(state, geometry))
        ego.fix = ego.navigation.update(front)
        cos, sin = math.cos(state.yaw_rad), math.sin(state.yaw_rad)
        centre = (state.x_m + cos * geometry.axle_to_centre_m, state.y_m + sin * geometry.axle_to_centre_m)
        kind, direction = self.assets.ground.meaning(*centre)
        on_road = kind > 0 or self.assets.ground.meaning(float(front[0]), float(front[1]))[0] > 0
        oncoming = direction is not None and self._against(state.yaw_rad, direction)
        near = np.hypot(*(centres[:, :2] - centre).T) < ACTOR_RANGE_M
        near[row] = False
        light, light_m = self._light(ego)
        sight = Sight(
            t_s=self._steps * STEP_S,
            ego=Box(
                x_m=centre[0],
                y_m=centre[1],
                yaw_rad=state.yaw_rad,
                half_length_m=geometry.length_m / 2,
                half_width_m=geometry.width_m / 2,
            ),
            speed_mps=state.speed_mps,
            progress_m=ego.fix.progress_m,
            off_route_m=ego.navigation.off_m,
            on_road=on_road,
            oncoming=oncoming,
            red_passed=self._red_passed(ego),
            light_holds=light in ("red", "yellow") and light_m < 40.0,
            neighbours_M5=centres[near],
            neighbour_ids=self.moment.numbers[near],
            neighbour_kinds=self.moment.kinds[near],
        )
        ego.referee.judge(sight)
        self._write(ego, sight, kind, LIGHTS.index(light), light_m)
        if ego.referee.ended:
            ego.done = True
            if not self.expert:
                self.traffic.remove(ego.vehicle)

    @staticmethod
    def _against(yaw_rad: float, lane_degrees: float) -> bool:
        return abs((math.degrees(yaw_rad) - lane_degrees + 180.0) % 360.0 - 180.0) > ONCOMING_DEG

    def _light(self, ego: Ego) -> tuple[str, float]:
        """The light that rules the ego's next stop line and the distance to it; ('none', NaN) without one."""
        fix, edges = ego.fix, ego.navigation.edges
        if fix.in_junction or fix.street + 1 >= len(edges):
            return "none", math.nan
        links = self.assets.town.links_for(edges[fix.street], edges[fix.street + 1])
        if links is None:
            return "none", math.nan
        return self._shown(links), fix.distance_m

    def _shown(self, links: tuple[str, tuple[int, ...]]) -> str:
        states = {self.moment.programs[links[0]][link].lower() for link in links[1]}
        return "green" if "g" in states else "yellow" if states & {"y", "u"} else "red"

    def _red_passed(self, ego: Ego) -> str | None:
        """The street whose stop line now lies 2 m behind the front bumper although its light is red."""
        edges = ego.navigation.edges
        for street in ego.navigation.passed:
            links = self.assets.town.links_for(edges[street], edges[street + 1])
            if links is not None and self._shown(links) == "red":
                return edges[street]
        return None

    def _write(self, ego: Ego, sight: Sight, kind: int, light: int, light_m: float) -> None:
        state, fix = ego.state, ego.fix
        forbidden = LANE_KINDS[kind] in ("bus", "bike")
        ego.rows.append(
            (
                *(sight.t_s, state.x_m, state.y_m, state.yaw_rad, state.speed_mps, state.accel_mps2),
                *(state.steering_rad, ego.action.steering_rad, ego.action.accel_mps2, fix.progress_m, fix.lateral_m),
                *(float(kind), float(sight.on_road), float(sight.oncoming), float(forbidden), float(fix.in_junction)),
                *(float(light), light_m),
                *(math.nan,) * (len(STEP_COLUMNS) - FIRST_CONTEXT_COLUMN),
            )
        )
        ego.plans.append(ego.plan)
        near, rows = sight.neighbours_M5, len(ego.rows) - 1
        speeds = self.moment.speed_N[np.isin(self.moment.numbers, sight.neighbour_ids)]
        ego.actors.append(np.column_stack([near[:, :3], speeds, near[:, 3:]]))
        meta = np.column_stack([np.full(len(near), rows), sight.neighbour_ids, sight.neighbour_kinds])
        ego.actor_meta.append(meta.astype(np.int32))

    def answer(self, ego: Ego) -> tuple[Floats, bool]:
        """The path the expert would want from the ego's place, and whether it is usable."""
        return ego.navigation.answer(ego.fix, ego.state, self.bicycle.geometry, BLEND_M)

    def rollouts(self) -> list[Rollout]:
        """One Rollout per ego; `actors` are box centres within 60 m of the ego."""
        return [self._rollout(ego) for ego in self.egos]

    def _rollout(self, ego: Ego) -> Rollout:
        steps = np.array(ego.rows, np.float64).reshape(-1, len(STEP_COLUMNS))
        actors = np.concatenate([*ego.actors, np.zeros((0, 6))]).astype(np.float32)
        meta = np.concatenate([*ego.actor_meta, np.zeros((0, 3), np.int32)])
        path = np.full((len(ego.plans), len(PATH_ARCS_M), 2), np.nan, np.float32)
        speed = np.full((len(ego.plans), len(SPEED_TIMES_S)), np.nan, np.float32)
        for row, plan in enumerate(ego.plans):
            if plan is not None:
                path[row], speed[row] = plan.path_xy_m, plan.speed_mps
        return Rollout(
            region=self.roads.region,
            suite=self.job.suite,
            scenario=self.job.scenario,
            world_seed=self.seed,
            ego=ego.index,
            policy=self.job.policy.title,
            route_length_m=self.job.route_m,
            steps={name: steps[:, column].copy() for column, name in enumerate(STEP_COLUMNS)},
            plan_path_NK2=path,
            plan_speed_NT=speed,
            actors={name: actors[:, column].copy() for column, name in enumerate(ACTOR_COLUMNS)},
            actor_row=meta[:, 0].astype(np.int32),
            actor_id=meta[:, 1].astype(np.int32),
            actor_kind=meta[:, 2].astype(np.int8),
            events=tuple(ego.referee.events),
            frame_digest=ego.seen.hexdigest() if self.sees else "",
        )
