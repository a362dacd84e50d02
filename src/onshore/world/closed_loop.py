"""The town in closed loop: several egos of one traffic world, driven by plans, judged, and written down as rollouts.

Rule: between `reset` and `rollouts` nothing random happens outside the traffic engine's seed. Plans are asked for at 5 Hz;
the controller turns each into one action, held for two physics steps of 0.1 s. An ego obeys its plan alone: every step
puts it where the bicycle model says, and the engine's traffic reacts to it.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import random
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.control import Action, Bicycle, Controller, EgoState
from onshore.core.errors import InputError
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
    Event,
    Rollout,
)
from onshore.world.actors import Script
from onshore.world.camera import Scene, TownCamera, town_camera
from onshore.world.context import Place, RoadContext
from onshore.world.furniture import Furniture, vehicle_boxes
from onshore.world.generated import generated_layout
from onshore.world.ground import Ground, paint_ground
from onshore.world.jobs import WIDE_CAMERA, RolloutJob, Start
from onshore.world.layout import Layout
from onshore.world.navigation import Fix, Navigation, front_of
from onshore.world.referee import STANDING_MPS, STOP_SIGN_M, Box, Referee, Sight
from onshore.world.roads import Roads
from onshore.world.towing import rear_axle_track
from onshore.world.town import Town
from onshore.world.traffic import ATTEND_STEPS, STEP_S, Moment, Traffic

HISTORY_STEPS, EXTRA_WARM_S = 30, 40.0
STEPS_PER_PLAN = 2
FRAME_GAP_STEPS = 4
ACTOR_RANGE_M = 60.0
APART_M, LEAST_SPEED_MPS, LEAST_DISTANCE_M = 50.0, 2.0, 12.0
BLEND_M = 10.0
#: So near its way through a junction an ego is on it, for the engine too.
ON_WAY_M = 1.0
#: So far beyond a line it is passed.
PAST_LINE_M = 2.0
ONCOMING_DEG = 120.0
TOWNS_KEPT = 3
WAY_M, WAY_STEP_M = 55.0, 1.0
#: Numbers of egos that a job starts itself.
FIRST_EGO = 900_000
LOOK_BACK_STEPS = (FRAME_GAP_STEPS, FRAME_GAP_STEPS // 2)
LANE_OPEN = STEP_COLUMNS.index("lane_open") - FIRST_CONTEXT_COLUMN
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
        self._open: OrderedDict[tuple[str, int | str], TownAssets] = OrderedDict()

    def get(self, roads: Roads, town: int | Layout) -> TownAssets:
        """A generated town by its seed, or the town of a layout."""
        key = (roads.digest, town if isinstance(town, int) else town.digest)
        if key not in self._open:
            while len(self._open) >= TOWNS_KEPT:
                self._open.popitem(last=False)
            layout = generated_layout(roads, town) if isinstance(town, int) else town
            built = Town.of(roads, layout, self.cache_dir)
            ground = paint_ground(built)
            furniture = Furniture(built, ground)
            camera = town_camera(self.camera, ground, furniture, roads.looks.sky)
            self._open[key] = TownAssets(town=built, ground=ground, furniture=furniture, camera=camera)
        self._open.move_to_end(key)
        return self._open[key]

    def eyes(self, roads: Roads, assets: TownAssets, cameras: Sequence[Camera]) -> tuple[TownCamera, ...]:
        """A rig's cameras in one town; for the wide one, the camera that these towns were opened with."""
        ground, atlas, sky = assets.ground, assets.furniture.atlas, roads.looks.sky
        shared = {WIDE_CAMERA: assets.camera}
        return tuple(shared.get(camera) or TownCamera(camera, ground, atlas, sky) for camera in cameras)


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
    context: RoadContext
    #: When, and what each camera of the rig showed.
    frames: deque[tuple[float, tuple[NDArray[np.uint8], ...]]] = field(
        default_factory=lambda: deque(maxlen=FRAME_GAP_STEPS + 1)
    )
    plan: Plan | None = None
    action: Action = Action(steering_rad=0.0, accel_mps2=0.0)
    response: Action = Action(steering_rad=0.0, accel_mps2=0.0)
    underway: deque[Action] = field(default_factory=deque)
    engine_accel_mps2: float = 0.0
    #: The street whose waiting area it drove into on red.
    waits: int | None = None
    red_at_line: dict[int, bool] = field(default_factory=dict)
    #: The street before whose stop line it last stood.
    stood: int | None = None
    done: bool = False
    rows: list[tuple[float, ...]] = field(default_factory=list)
    plans: list[Plan | None] = field(default_factory=list)
    actors: list[tuple[Floats, Floats, NDArray[np.int32], NDArray[np.int8]]] = field(default_factory=list)
    seen: Any = field(default_factory=hashlib.sha256)


def _script(job: RolloutJob) -> Script | None:
    """What moves further road users, as the job names it."""
    if not job.script:
        return None
    module, _, name = job.script.partition(":")
    made: Script = getattr(importlib.import_module(module), name)(**job.script_facts)
    return made


class TownWorld:
    """A closed-loop world: `reset`, then `observe` and `step` until `done`, then `rollouts`.

    freely: egos in junctions are placed on whatever lane is there; the engine then does not see all of them (docs/world.md),
    but has not been seen to die of one that left its way.
    """

    def __init__(
        self, roads: Roads, towns: Towns, controller: Controller | None = None, *, freely: bool = False
    ) -> None:
        self.roads, self._towns, self.freely = roads, towns, freely
        self._controller, self.bicycle = controller, Bicycle(geometry=roads.ego_geometry)
        self._traffic: Traffic | None = None
        self.egos: list[Ego] = []

    def close(self) -> None:
        if self._traffic is not None:
            self._traffic.__exit__(None, None, None)
            self._traffic = None

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The egos' rig."""
        return tuple(eye.camera for eye in self._eyes)

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
        self.controller = self._controller or scenario.policy.controller
        self.assets = self._towns.get(self.roads, scenario.town)
        self._eyes = self._towns.eyes(self.roads, self.assets, scenario.rig_cameras)
        self.expert = scenario.policy.kind == "expert"
        self.ask_engine = (scenario.collect and not scenario.teacher) or scenario.policy.kind == "oracle"
        horizon = scenario.warm_s + EXTRA_WARM_S + scenario.max_time_s + 10
        self._traffic = Traffic(
            self.assets.town, seed, horizon, clock_h=scenario.clock_h, vehicles=scenario.vehicles, watched=True
        )
        self._script = _script(scenario)
        history = self._fill(round(scenario.warm_s / STEP_S))
        self._steps = 0
        if scenario.starts:
            self._start(history)
        else:
            self._take_over_some(history)
        self._attend()

    def _attend(self) -> None:
        """The traffic around the egos decides at every step."""
        self.traffic.attend(self.moment, np.array([(ego.state.x_m, ego.state.y_m) for ego in self.active]))

    def _fill(self, steps: int) -> deque[Moment]:
        """Let the traffic fill the town; the last moments."""
        history: deque[Moment] = deque(maxlen=HISTORY_STEPS)
        for step in range(steps):
            self.traffic.step()
            if step >= steps - HISTORY_STEPS:
                history.append(self.traffic.moment())
        return history

    def _start(self, history: deque[Moment]) -> None:
        """Egos where the job says, at the end of the filling."""
        egos = [(f"car.{FIRST_EGO + index}", start) for index, start in enumerate(self.job.starts)]
        for name, start in egos:
            self.traffic.start_ego(name, start)
        self._move_actors(0.0)
        poses = [self._start_pose(start) for _, start in egos]
        for (name, start), (x, y, yaw) in zip(egos, poses, strict=True):
            if not self.expert:
                self.traffic.put(name, (x, y), yaw, start.speed_mps)
        self.traffic.step()
        self.moment = self.traffic.moment()
        self.egos = [
            self._ego(index, name, start.route, self._standing(pose, start.speed_mps))
            for index, ((name, start), pose) in enumerate(zip(egos, poses, strict=True))
        ]
        self._look_back([[self._rolled_back(ego.state, back) for ego in self.egos] for back in LOOK_BACK_STEPS])

    def _start_pose(self, start: Start) -> tuple[float, float, float]:
        """Front bumper and heading on the lane."""
        xy = self.assets.town.edges[start.route[0]].lanes[start.lane].xy_N2
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
        x, y = (float(np.interp(start.at_m, along, xy[:, axis])) for axis in (0, 1))
        index = int(np.clip(np.searchsorted(along, start.at_m) - 1, 0, len(xy) - 2))
        return x, y, math.atan2(*(xy[index + 1] - xy[index])[::-1])

    def _standing(self, front: tuple[float, float, float], speed_mps: float) -> EgoState:
        x, y, yaw = front
        reach = self.bicycle.geometry.axle_to_front_m
        return EgoState(x_m=x - math.cos(yaw) * reach, y_m=y - math.sin(yaw) * reach, yaw_rad=yaw, speed_mps=speed_mps)

    def _rolled_back(self, state: EgoState, steps: int) -> tuple[Moment, tuple[float, float, float]]:
        """Where a car that came straight was `steps` ago."""
        way = state.speed_mps * steps * STEP_S
        pose = (state.x_m - math.cos(state.yaw_rad) * way, state.y_m - math.sin(state.yaw_rad) * way, state.yaw_rad)
        return self.moment, pose

    def _take_over_some(self, history: deque[Moment]) -> None:
        scenario = self.job
        chosen = self._choose(history)
        for _ in range(round(EXTRA_WARM_S / STEP_S)):
            if len(chosen) >= scenario.egos:
                break
            self.traffic.step()
            history.append(self.traffic.moment())
            chosen = self._choose(history)
        self._move_actors(0.0)
        self.moment = history[-1] if self._script is None else self.traffic.moment()
        tracks = [self._track(vehicle, history) for vehicle in chosen]
        self.egos = [
            self._take(index, vehicle, history, track)
            for index, (vehicle, track) in enumerate(zip(chosen, tracks, strict=True))
        ]
        if not self.egos:
            raise InputError("bad_config", f"{scenario.scenario} seed {self.seed}", "no car was fit to be taken over.")
        self._look_back(
            [[(history[-1 - back], tuple(track[-1 - back])) for track in tracks] for back in LOOK_BACK_STEPS]
        )

    def _move_actors(self, t_s: float) -> None:
        if self._script is not None:
            self.traffic.set_actors(self._script.step(t_s, self))

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
        lengths = np.cumsum([self.assets.town.edges[edge].lanes[-1].length_m for edge in edges[1:]])
        enough = int(np.searchsorted(lengths, self.job.route_m + 60.0))
        return edges[: enough + 3] if enough + 2 < len(edges) else ()

    def _track(self, vehicle: str, history: deque[Moment]) -> Floats:
        """(T, 3) rear-axle poses of a car over the history."""
        fronts = np.array([moment.poses_N3[moment.rows[vehicle]] for moment in history])
        return rear_axle_track(fronts[:, :2], float(fronts[0, 2]), self.bicycle.geometry.axle_to_front_m)

    def _take(self, index: int, vehicle: str, history: deque[Moment], track: Floats) -> Ego:
        x, y, yaw = track[-1].tolist()  # plain numbers: everything that follows counts with them, and faster
        speed = float(history[-1].speed_N[history[-1].rows[vehicle]])
        state = EgoState(x_m=x, y_m=y, yaw_rad=yaw, speed_mps=speed)
        return self._ego(index, vehicle, self._edges_left(vehicle, self.traffic.place(vehicle)[0]), state)

    def _ego(self, index: int, vehicle: str, edges: tuple[str, ...], state: EgoState) -> Ego:
        geometry, town = self.bicycle.geometry, self.assets.town
        front = front_of(state, geometry)
        navigation = Navigation(town, edges, front)
        if not self.expert:
            self.traffic.take_over(vehicle, edges, ask_engine=self.ask_engine)
        return Ego(
            index=index,
            vehicle=vehicle,
            number=int(vehicle.partition(".")[2]),
            state=state,
            navigation=navigation,
            fix=navigation.update(front),
            referee=Referee(route_m=self.job.route_m, max_time_s=self.job.max_time_s, step_s=STEP_S),
            context=RoadContext(town, navigation, geometry, self.job.clock_h),
        )

    def _look_back(self, earlier: list[list[tuple[Moment, Any]]]) -> None:
        """Frames of the last 0.4 s before the takeover, so that the first plan sees motion."""
        if not self.sees:
            return
        for back, seen in zip(LOOK_BACK_STEPS, earlier, strict=True):
            self._film(seen[0][0], np.array([pose for _, pose in seen]), -back * STEP_S)

    @property
    def sees(self) -> bool:
        """Whether anybody looks at the pictures."""
        return self.job.collect or self.job.policy.kind in ("onnx", "python", "process", "mapped")

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
        own = np.array([moment.rows.get(ego.vehicle, -1) for ego in self.active], np.int64)
        if self.job.policy.blind:
            sizes = [(len(poses), camera.height_px, camera.width_px, 3) for camera in self.cameras]
            seen = [np.zeros(size, np.uint8) for size in sizes]
        else:
            seen = [eye.render(scene, poses, own) for eye in self._eyes]
        for ego, *frames in zip(self.active, *seen, strict=True):
            ego.frames.append((at_s, tuple(frames)))

    def scene(self, moment: Moment) -> Scene:
        """The boxes of one moment."""
        vehicles = vehicle_boxes(
            *(self.roads, moment.kinds, moment.numbers, moment.poses_N3, moment.braking_N, moment.sizes_N3),
            look=self.job.look,
        )
        return Scene(fixed=self.assets.furniture.lit(moment.lights), vehicles=vehicles, look=self.job.look)

    def _observation(self, ego: Ego, now_s: float) -> Observation:
        shown = []
        if ego.frames:
            wanted_s = now_s - FRAME_GAP_STEPS * STEP_S
            shown = [min(ego.frames, key=lambda kept: abs(kept[0] - wanted_s)), ego.frames[-1]]
            for frame in ego.frames[-1][1]:
                ego.seen.update(frame)
        names = [camera.name for camera in self.cameras] if shown else []
        ages = tuple(round(now_s - at_s, 3) for at_s, _ in shown)
        return Observation(
            t_ns=round((now_s + self.job.warm_s) * 1e9),
            frames={name: np.stack([frames[index] for _, frames in shown]) for index, name in enumerate(names)},
            frame_ages_s=dict.fromkeys(names, ages),
            speed_mps=ego.state.speed_mps,
            command=ego.fix.command,
            junction_distance_m=ego.fix.distance_m,
            in_junction=ego.fix.in_junction,
        )

    def give_up(self, index: int, why: str) -> None:
        """End one ego's run because its driver failed."""
        ego = self.egos[index]
        ego.referee.events.append(Event(t_s=self._steps * STEP_S, kind="policy_failed", detail={"why": why}))
        ego.done = True
        self.traffic.remove(ego.vehicle)

    def step(self, plans: dict[int, Plan], steps: int = STEPS_PER_PLAN) -> None:
        """Drive every active ego by its plan for so many steps of 0.1 s (the expert needs none)."""
        for ego in self.active:
            if not self.expert:
                ego.plan = plans[ego.index]
                ego.action = self.controller.act(ego.plan, ego.state.speed_mps, self.bicycle.geometry)
            ego.engine_accel_mps2 = 0.0
        for _ in range(steps):
            if not self.done:
                self._physics(1.0 / steps)

    def _physics(self, share: float) -> None:
        """One step, which is this share of a plan's time."""
        driven = self.active
        # the engine counts from the speed it saw itself, which is the mean over the last step, not the model's
        before = self.moment
        if not self.expert:
            for ego in driven:
                ego.state = self.bicycle.step(ego.state, self._carried_out(ego), STEP_S)
                front = front_of(ego.state, self.bicycle.geometry)
                # the engine dies of a car that is on no lane of its route: there its copy keeps to the lane's edge
                place = ego.navigation.on_route(front)
                speed = None if self.ask_engine else ego.state.speed_mps
                inside = not self.freely and ego.fix.in_junction and abs(ego.fix.lateral_m) < ON_WAY_M
                self.traffic.put(ego.vehicle, place, ego.state.yaw_rad, speed, in_junction=inside)
        self._move_actors((self._steps + 1) * STEP_S)
        self.traffic.step()
        self._steps += 1
        self.moment = self.traffic.moment()
        if self._steps % ATTEND_STEPS == 0:
            self._attend()
        rows = self.moment.rows
        still = [ego for ego in driven if self._advance(ego, rows.get(ego.vehicle), before, share)]
        for ego, (centre, near) in zip(still, self._around(still), strict=True):
            self._judge(ego, centre, near)

    def _advance(self, ego: Ego, row: int | None, before: Moment, share: float) -> bool:
        """Take over what the engine says of an ego; False when the engine has lost it."""
        if row is None:
            ego.referee.lost(self._steps * STEP_S)
            ego.done = True
            return False
        if self.expert:
            ego.state = self._towed(ego.state, self.moment.poses_N3[row, :2], float(self.moment.speed_N[row]))
        elif self.ask_engine:
            asked = self.traffic.engine_speed(ego.vehicle)
            seen = float(before.speed_N[before.rows[ego.vehicle]])
            ego.engine_accel_mps2 += (asked - seen) / STEP_S * share
        return True

    def _carried_out(self, ego: Ego) -> Action:
        """What the ego's actuators do in the coming step: what was asked a dead time ago, through their lag."""
        actuators = self.job.actuators
        ego.underway.append(ego.action)
        asked = ego.underway.popleft() if len(ego.underway) > actuators.delay_steps(STEP_S) else ego.response
        ego.response = actuators.respond(ego.response, asked, STEP_S)
        return ego.response

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

    def boxes_around(self, ego: Ego) -> tuple[Floats, Floats]:
        """Boxes (M, 5: centre, yaw, length, width) and speeds (M,) of everybody else within ACTOR_RANGE_M of an ego."""
        ((_, near),) = self._around([ego])
        return self.moment.boxes_N5[near], self.moment.speed_N[near]

    def _around(self, egos: Sequence[Ego]) -> list[tuple[tuple[float, float], NDArray[np.int64]]]:
        """The centre of each ego, and the rows of everybody else within ACTOR_RANGE_M of it."""
        boxes, rows = self.moment.boxes_N5, self.moment.rows
        centres = [self._centre(ego) for ego in egos]
        return [
            (centre, _rows_near(boxes, *centre, rows.get(ego.vehicle, -1)))
            for ego, centre in zip(egos, centres, strict=True)
        ]

    def _centre(self, ego: Ego) -> tuple[float, float]:
        state, ahead = ego.state, self.bicycle.geometry.axle_to_centre_m
        return state.x_m + math.cos(state.yaw_rad) * ahead, state.y_m + math.sin(state.yaw_rad) * ahead

    @property
    def clock_h(self) -> float:
        """Local time of day."""
        return (self.job.clock_h + self._steps * STEP_S / 3600) % 24

    def _judge(self, ego: Ego, centre: tuple[float, float], near: NDArray[np.int64]) -> None:
        geometry, state = self.bicycle.geometry, ego.state
        front = front_of(state, geometry)
        ego.fix = ego.navigation.update(front)
        kind, direction = self.assets.ground.meaning(*centre)
        on_road = kind > 0 or self.assets.ground.meaning(*front)[0] > 0
        oncoming = direction is not None and self._against(state.yaw_rad, direction)
        light, light_m = self.light(ego)
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
            stop_passed=self._stop_passed(ego),
            light_holds=light in ("red", "yellow") and light_m < 40.0,
            neighbours_M5=self.moment.boxes_N5.take(near, 0),
            neighbour_ids=self.moment.numbers.take(near),
            neighbour_kinds=self.moment.kinds.take(near),
        )
        ego.referee.judge(sight)
        self._write(ego, sight, kind, (LIGHTS.index(light), light_m), self.moment.speed_N.take(near))
        if ego.referee.ended:
            ego.done = True
            if not self.expert:
                self.traffic.remove(ego.vehicle)

    @staticmethod
    def _against(yaw_rad: float, lane_degrees: float) -> bool:
        return abs((math.degrees(yaw_rad) - lane_degrees + 180.0) % 360.0 - 180.0) > ONCOMING_DEG

    def light(self, ego: Ego) -> tuple[str, float]:
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
        """The street whose stop line now lies 2 m behind although its light was red at the line, is red, and nothing frees it.

        Who crossed the line on yellow is not judged by what the light shows 2 m later.
        Who drove into an open waiting area is judged again at the area's end.
        """
        edges, programs = ego.navigation.edges, self.moment.programs
        for street in ego.navigation.crossed:
            ego.red_at_line[street] = self._red(edges, street)
        for street in ego.navigation.passed:
            if self._red(edges, street) and ego.red_at_line.get(street, True):
                if not ego.context.may_pass_red(street, programs):
                    return edges[street]
                ego.waits = street if ego.context.area_m(street) else None
        waits = ego.waits
        if waits is not None and ego.context.beyond_line_m(waits) > ego.context.area_m(waits) + PAST_LINE_M:
            ego.waits = None
            return edges[waits] if self._red(edges, waits) else None
        return None

    def _stop_passed(self, ego: Ego) -> str | None:
        """The street with a stop sign whose line the ego has just passed without having stood before it."""
        fix, edges, town = ego.fix, ego.navigation.edges, self.assets.town
        if ego.state.speed_mps < STANDING_MPS and not fix.in_junction and fix.distance_m <= STOP_SIGN_M:
            ego.stood = fix.street
        passed = [edges[street] for street in ego.navigation.crossed if street != ego.stood]
        return next((edge for edge in passed if town.edges[edge].stop_rule == "stop_sign"), None)

    def _red(self, edges: tuple[str, ...], street: int) -> bool:
        links = self.assets.town.links_for(edges[street], edges[street + 1])
        return links is not None and self._shown(links) == "red"

    def _write(self, ego: Ego, sight: Sight, kind: int, light: tuple[int, float], speeds: Floats) -> None:
        state, fix = ego.state, ego.fix
        place = Place(
            state=state,
            fix=fix,
            clock_h=self.clock_h,
            neighbours_M5=sight.neighbours_M5,
            speeds_M=speeds,
            kinds_M=sight.neighbour_kinds,
        )
        asked = ego.context.row(place, self.moment.programs)
        reserved = LANE_KINDS[kind] in ("bus", "bike")
        forbidden = reserved and asked[LANE_OPEN] != 1.0
        ego.rows.append(
            (
                *(sight.t_s, state.x_m, state.y_m, state.yaw_rad, state.speed_mps, state.accel_mps2),
                *(state.steering_rad, ego.action.steering_rad, ego.action.accel_mps2, fix.progress_m, fix.lateral_m),
                *(float(kind), float(sight.on_road), float(sight.oncoming), float(forbidden), float(fix.in_junction)),
                *(float(light[0]), light[1], *asked),
            )
        )
        ego.plans.append(ego.plan)
        ego.actors.append((sight.neighbours_M5, speeds, sight.neighbour_ids, sight.neighbour_kinds))

    def answer(self, ego: Ego) -> tuple[Floats, bool]:
        """The path the expert would want from the ego's place, and whether it is usable."""
        return ego.navigation.answer(ego.fix, ego.state, self.bicycle.geometry, BLEND_M)

    def way_ahead(self, ego: Ego) -> Floats:
        """The centre of the wanted lane from the front bumper on: points WAY_STEP_M apart."""
        return ego.navigation.ahead(ego.fix, front_of(ego.state, self.bicycle.geometry), WAY_M, WAY_STEP_M)

    def rollouts(self) -> list[Rollout]:
        """One Rollout per ego; `actors` are box centres within 60 m of the ego."""
        return [self._rollout(ego) for ego in self.egos]

    def _rollout(self, ego: Ego) -> Rollout:
        steps = np.array(ego.rows, np.float64).reshape(-1, len(STEP_COLUMNS))
        boxes = np.concatenate([*(seen[0] for seen in ego.actors), np.zeros((0, 5))])
        speeds, ids, kinds = (np.concatenate([*(seen[part] for seen in ego.actors), []]) for part in (1, 2, 3))
        actors = np.column_stack([boxes[:, :3], speeds, boxes[:, 3:]]).astype(np.float32)
        actor_rows = np.repeat(np.arange(len(ego.actors)), [len(seen[1]) for seen in ego.actors])
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
            actor_row=actor_rows.astype(np.int32),
            actor_id=ids.astype(np.int32),
            actor_kind=kinds.astype(np.int8),
            events=tuple(ego.referee.events),
            frame_digest=ego.seen.hexdigest() if self.sees else "",
            placed_freely=self.freely,
        )


@numba.njit(cache=True)
def _rows_near(boxes_N5: Floats, x: float, y: float, own: int) -> NDArray[np.int64]:
    """The rows within ACTOR_RANGE_M of a place, but for one's own."""
    rows, count = np.empty(len(boxes_N5), np.int64), 0
    for row in range(len(boxes_N5)):
        dx, dy = boxes_N5[row, 0] - x, boxes_N5[row, 1] - y
        if dx * dx + dy * dy < ACTOR_RANGE_M**2 and row != own:
            rows[count] = row
            count += 1
    return rows[:count]
