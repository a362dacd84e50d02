"""Who answers observations with plans inside a world, and the takeovers a collecting run brings home. Runs in a child.

Rule: a policy sees Observations only; the oracle alone may ask the engine. A takeover sample is what the network would
have been shown, with the expert's answer to the very same moment.
"""

from __future__ import annotations

import importlib
import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, camera_for, frame_inputs, side_inputs, view_maps, warp
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import ConstantSpeedPolicy, Observation, Policy, StopPolicy, straight_plan
from onshore.core.recording import Camera
from onshore.core.rollout import Rollout
from onshore.region import load_pack
from onshore.region.packs import PACKS
from onshore.world.closed_loop import STEPS_PER_PLAN, WAY_STEP_M, Ego, Towns, TownWorld
from onshore.world.jobs import PolicySpec, RolloutJob, Supervision
from onshore.world.last_look import LastLook
from onshore.world.rivals import MappedOnnx, Program, Signature
from onshore.world.roads import Roads
from onshore.world.traffic import STEP_S

#: A takeover sample every other plan: neighbours in time are nearly the same picture.
TAKEOVER_EVERY = 2
#: A supervisor compares speeds 1 s ahead, aims aside fully at this distance, and drives exactly below this speed.
SOON, AIM_M, CREEP_MPS = SPEED_TIMES_S.index(1.0), 8.0, 1.0
#: The rule driver: gap and time behind a leader, accelerations, sideways acceleration in bends, room beside its own width.
RULE_GAP_M, RULE_TIME_S, RULE_ACCEL_MPS2, RULE_BRAKE_MPS2 = 2.5, 1.4, 2.0, 2.5
RULE_SIDEWAYS_MPS2, SIDE_ROOM_M, STOP_SHORT_M, YELLOW_BRAKE_MPS2 = 2.0, 0.3, 1.0, 3.0
Arrays = dict[str, NDArray[Any]]


class Driver(Protocol):
    """One plan per observation, by ego index."""

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]: ...


@dataclass
class EachItsOwn:
    """A Policy object per ego."""

    policies: dict[int, Policy]

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        return {ego: self.policies[ego].act(observation) for ego, observation in observations.items()}


class Network:
    """The exported network, all egos in one batch."""

    def __init__(self, spec: PolicySpec, cameras: tuple[Camera, ...]) -> None:
        from onshore.bundle.runner import OnnxPolicy

        if spec.onnx is None:
            raise InputError("bad_config", "policy", "an onnx policy needs the network's bytes.")
        self._policy = OnnxPolicy(spec.onnx, spec.metadata, cameras)

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        egos = list(observations)
        return dict(zip(egos, self._policy.act_many([observations[ego] for ego in egos], egos=egos), strict=True))


class Rival:
    """A driver from elsewhere; when it fails, the run of every ego it fails ends there and says why."""

    def __init__(self, spec: PolicySpec, world: TownWorld) -> None:
        self.world = world
        self._program: Program | None = None
        self._network: MappedOnnx | None = None
        if spec.kind == "process":
            self._program = Program(spec.entry, world.cameras)
            try:
                self._reset(self._program)
            except BaseException:  # nobody has this driver yet, so nobody else ends its program
                self.close()
                raise
        else:
            self._network = MappedOnnx(spec.onnx or b"", Signature.from_toml(spec.entry), world.cameras[0].name)

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        plans = {}
        for ego, observation in observations.items():
            with self._failing(ego):
                plans[ego] = self._act(ego, observation)
        return plans

    def _reset(self, program: Program) -> None:
        for ego in self.world.active:
            with self._failing(ego.index):
                program.reset(ego.index)

    @contextmanager
    def _failing(self, ego: int) -> Iterator[None]:
        """What the driver fails at here ends the run of this ego alone."""
        try:
            yield
        except InputError as problem:
            if problem.code != "policy_failed":
                raise
            self.world.give_up(ego, problem.advice)

    def _act(self, ego: int, observation: Observation) -> Plan:
        if self._network is not None:
            return self._network.act(observation)
        if self._program is None:
            raise InputError("policy_failed", "policy", "it was closed.")
        return self._program.act(ego, observation)

    def close(self) -> None:
        if self._program is not None:
            self._program.close()


class Nobody:
    """The traffic engine keeps its cars."""

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        return {}


@dataclass
class Oracle:
    """The engine's wish after a last look, and the lane's centre, through our controller: privileged, and not an upper bound."""

    world: TownWorld

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        plans = {}
        for ego in self.world.active:
            look = last_look(self.world, ego, *self.world.answer(ego))
            wish = look.accel(ego.engine_accel_mps2)
            plans[ego.index] = Plan(
                path_xy_m=look.path_K2, speed_mps=wanted_speeds(self.world.roads, ego.state.speed_mps, wish)
            )
        return plans


@dataclass
class Rule:
    """Follows the map's lane behind whoever is in it, and stops at lights that are not green. Sees perfectly, never looks aside.

    Following: Intelligent Driver Model (Treiber, Hennecke and Helbing 2000, Phys. Rev. E 62). It knows no right of way but
    the lights': the row shows what a map and perfect boxes are worth without it.
    """

    world: TownWorld

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        return {ego.index: self._plan(ego) for ego in self.world.active}

    def _plan(self, ego: Ego) -> Plan:
        path, usable = self.world.answer(ego)
        path = path if usable else straight_plan(0.0).path_xy_m
        speed = ego.state.speed_mps
        limit = self.world.assets.town.edges[ego.navigation.edges[ego.fix.street]].speed_mps
        gap, lead = self._leader(ego)
        accel = idm(speed, min(limit, _bend_speed(path)), gap, lead)
        light, light_m = self.world.light(ego)
        if light == "red" or (light == "yellow" and speed**2 < 2 * YELLOW_BRAKE_MPS2 * light_m):
            accel = min(accel, idm(speed, limit, light_m + RULE_GAP_M - STOP_SHORT_M, 0.0))
        wanted = np.clip(speed + max(accel, -6.0) * np.array(SPEED_TIMES_S), 0.0, limit)
        return Plan(path_xy_m=path, speed_mps=np.asarray(wanted, np.float64))

    def _leader(self, ego: Ego) -> tuple[float, float]:
        """(gap, speed along the lane) of the nearest road user in the ego's lane ahead; (inf, 0) without one."""
        boxes, speeds = self.world.boxes_around(ego)
        if not len(boxes):
            return math.inf, 0.0
        ahead, width = self.world.way_ahead(ego), self.world.bicycle.geometry.width_m
        apart = np.hypot(*(_corners(boxes)[:, :, None] - ahead[None, None]).transpose(3, 0, 1, 2)).min(1)
        inside = apart < width / 2 + SIDE_ROOM_M
        first = np.where(inside.any(1), inside.argmax(1), len(ahead))
        nearest = int(first.argmin())
        if first[nearest] >= len(ahead) - 1:
            return math.inf, 0.0
        at = int(first[nearest])
        step = ahead[min(at + 1, len(ahead) - 1)] - ahead[max(at - 1, 0)]
        along = math.cos(boxes[nearest, 2] - math.atan2(step[1], step[0]))
        return max(at * WAY_STEP_M, 0.1), max(0.0, float(speeds[nearest]) * along)


def idm(speed_mps: float, wish_mps: float, gap_m: float, lead_mps: float) -> float:
    """Acceleration of the Intelligent Driver Model."""
    free = 1.0 - (speed_mps / max(wish_mps, 0.1)) ** 4
    if gap_m == math.inf:
        return RULE_ACCEL_MPS2 * max(free, -2.0)
    closing = speed_mps * (speed_mps - lead_mps) / (2 * math.sqrt(RULE_ACCEL_MPS2 * RULE_BRAKE_MPS2))
    wanted = RULE_GAP_M + max(0.0, RULE_TIME_S * speed_mps + closing)
    return RULE_ACCEL_MPS2 * max(min(free, 1.0) - (wanted / max(gap_m, 0.1)) ** 2, -6.0)


def _bend_speed(path_K2: NDArray[np.float64]) -> float:
    """The speed at which the sharpest bend of a path is taken with RULE_SIDEWAYS_MPS2."""
    steps = np.diff(np.vstack([[0.0, 0.0], path_K2]), axis=0)
    turned = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))))
    bend = float((turned / np.maximum(np.hypot(*steps[1:].T), 0.1)).max())
    return math.sqrt(RULE_SIDEWAYS_MPS2 / max(bend, 1e-4))


def _corners(boxes_M5: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 5, 2): the centre and the corners of boxes."""
    signs = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]]) / 2
    local = signs[None] * boxes_M5[:, None, 3:5]
    cos, sin = np.cos(boxes_M5[:, 2])[:, None], np.sin(boxes_M5[:, 2])[:, None]
    turned = np.stack([local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos], -1)
    return np.asarray(boxes_M5[:, None, :2] + turned, np.float64)


def last_look(world: TownWorld, ego: Ego, path_K2: NDArray[np.float64], usable: bool) -> LastLook:
    """What an ego's driver sees around at this moment, on the way along a path or, where that is not usable, straight on."""
    boxes, speeds = world.boxes_around(ego)
    path = path_K2 if usable else straight_plan(0.0).path_xy_m
    return LastLook(state=ego.state, geometry=world.bicycle.geometry, path_K2=path, boxes_M5=boxes, speed_M=speeds)


def wanted_speeds(roads: Roads, speed_mps: float, accel_mps2: float) -> NDArray[np.float64]:
    """Target speeds of a driver who goes on accelerating as the engine asked, within its limits."""
    low, high = roads.expert["accel_mps2"]
    top = roads.town["speed_limit_mps"] * roads.expert["speed_over_limit"]
    wanted = speed_mps + min(max(accel_mps2, low), high) * np.array(SPEED_TIMES_S)
    return np.asarray(np.clip(wanted, 0.0, top), np.float64)


def make_driver(spec: PolicySpec, world: TownWorld) -> Driver:
    """Who drives, as a job names it."""
    egos = range(len(world.egos))
    if spec.kind == "onnx":
        return Network(spec, world.cameras)
    if spec.kind in ("process", "mapped"):
        return Rival(spec, world)
    if spec.kind == "oracle":
        return Oracle(world)
    if spec.kind == "rule":
        return Rule(world)
    if spec.kind == "expert":
        return Nobody()
    if spec.kind == "stop":
        return EachItsOwn({ego: StopPolicy() for ego in egos})
    if spec.kind == "constant-speed":
        return EachItsOwn({ego: ConstantSpeedPolicy(spec.speed_mps) for ego in egos})
    if spec.kind == "scripted":
        return _driver_named(spec.entry, world)
    module, _, name = spec.entry.partition(":")
    make = getattr(importlib.import_module(module), name)
    policies = {ego: make() for ego in egos}
    for policy in policies.values():
        policy.reset(None)
    return EachItsOwn(policies)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A driver at the wheel: the plan that is driven; what is written down of it, late and inexact; which takeover this is."""

    plan: Plan
    path: tuple[NDArray[np.float64], bool]
    speeds_T: NDArray[np.float64]
    takeover: int


@dataclass
class _Hands:
    """One ego's driver: the engine's wishes so far (oldest first), for how long the candidate errs, and a hold of the wheel."""

    wishes: deque[float]
    wrong_ticks: int = 0
    held_ticks: int = 0
    takeover: int = -1
    aside_m: float = 0.0
    faster_mps: float = 0.0


class Supervisor:
    """The driver who watches the candidate and takes the wheel late; what is learned of the driver's answers is inexact.

    The car itself is then driven exactly: people anticipate, and their own noise is not what makes them crash.
    """

    def __init__(self, world: TownWorld, how: Supervision) -> None:
        self.world, self.how = world, how
        self._patience, late = (round(s / (STEPS_PER_PLAN * STEP_S)) for s in (how.delay_s, how.late_s))
        self._hold = max(1, round(how.hold_s / (STEPS_PER_PLAN * STEP_S)))
        self._hands = {ego.index: _Hands(wishes=deque(maxlen=late + 1)) for ego in world.egos}

    def at_the_wheel(self, plans: dict[int, Plan]) -> dict[int, Answer]:
        """The answers for the egos whose driver has the wheel in the coming 0.2 s. plans: the candidate's."""
        held = {}
        for ego in self.world.active:
            hands = self._hands[ego.index]
            path, usable = self.world.answer(ego)
            wish = last_look(self.world, ego, path, usable).accel(ego.engine_accel_mps2)
            hands.wishes.append(wish)
            exact = wanted_speeds(self.world.roads, ego.state.speed_mps, wish)
            wrong = self.how.when == "always" or self._errs(plans[ego.index], path if usable else None, exact)
            self._decide(ego, hands, wrong)
            if hands.held_ticks > 0:
                held[ego.index] = self._answer(ego, hands, (path, usable), exact)
        return held

    def _decide(self, ego: Ego, hands: _Hands, wrong: bool) -> None:
        hands.wrong_ticks = hands.wrong_ticks + 1 if wrong else 0
        hands.held_ticks -= 1
        due = self.how.when == "always" or hands.wrong_ticks > self._patience
        if hands.held_ticks > 0 or not due:
            return
        hands.held_ticks, hands.wrong_ticks, hands.takeover = self._hold, 0, hands.takeover + 1
        chance = np.random.default_rng([self.world.seed, ego.index, hands.takeover])
        hands.aside_m, hands.faster_mps = (
            chance.normal(size=2) * (self.how.path_noise_m, self.how.speed_noise_mps)
        ).tolist()

    def _errs(self, plan: Plan, path_K2: NDArray[np.float64] | None, speeds_T: NDArray[np.float64]) -> bool:
        """Whether a plan goes somewhere else, or clearly faster or slower, than the driver would."""
        near = np.array(PATH_ARCS_M) <= self.how.error_arc_m
        aside = 0.0 if path_K2 is None else float(np.hypot(*(plan.path_xy_m - path_K2)[near].T).max())
        apart = abs(float(plan.speed_mps[SOON] - speeds_T[SOON]))
        return aside > self.how.path_error_m or apart > self.how.speed_error_mps

    def _answer(
        self, ego: Ego, hands: _Hands, path: tuple[NDArray[np.float64], bool], exact_T: NDArray[np.float64]
    ) -> Answer:
        aim = path[0].copy()
        aim[:, 1] += hands.aside_m * np.minimum(np.array(PATH_ARCS_M) / AIM_M, 1.0)
        speeds = wanted_speeds(self.world.roads, ego.state.speed_mps, hands.wishes[0])
        # nobody creeps forward because of a habit of driving a little faster
        shift = np.where(speeds > CREEP_MPS, hands.faster_mps, 0.0)
        return Answer(
            plan=Plan(path_xy_m=path[0] if path[1] else straight_plan(0.0).path_xy_m, speed_mps=exact_T),
            path=(aim, path[1]),
            speeds_T=np.maximum(speeds + shift, 0.0),
            takeover=hands.takeover,
        )


def _driver_named(entry: str, world: TownWorld) -> Driver:
    """The privileged driver that "module:callable" makes for a world."""
    module, _, name = entry.partition(":")
    made: Driver = getattr(importlib.import_module(module), name)(world)
    return made


class Takeovers:
    """Samples of one run: what the network saw, and the expert's path and speeds for that moment.

    The expert is the job's teacher, else the traffic engine.
    """

    def __init__(self, world: TownWorld) -> None:
        self.world = world
        seen = world.job.policy.metadata
        views = seen.views if seen else (View(),)
        cameras = [camera_for(view, world.cameras) for view in views]
        pictures = [f"{name}_NTHWC" for name in frame_inputs(len(views))]
        maps = [view_maps(camera, view) for camera, view in zip(cameras, views, strict=True)]
        self._views = [(name, camera.name, cut) for name, camera, cut in zip(pictures, cameras, maps, strict=True)]
        self._teacher = _driver_named(world.job.teacher, world) if world.job.teacher else None
        self._rows: list[dict[str, Any]] = []
        self._open: list[tuple[Ego, dict[str, Any], LastLook | None]] = []

    def before(
        self, observations: dict[int, Observation], *, keep: bool, held: dict[int, Answer] | None = None
    ) -> None:
        """Ask the teacher, where there is one, and note what is seen and answered; the engine's speed is known after the step.

        held: the answers of drivers who have the wheel, by ego; then nobody else's moments are noted.
        """
        told = self._teacher.plans(observations) if self._teacher else {}
        for ego in self.world.active if keep else ():
            if held is not None:
                if ego.index in held:
                    row = self._held(ego, observations[ego.index], held[ego.index])
                    self._open.append((ego, row, None))
            elif self._teacher is None:
                path, usable = self.world.answer(ego)
                row = self._row(ego, observations[ego.index], path, usable)
                self._open.append((ego, row, last_look(self.world, ego, path, usable)))
            elif ego.index in told:
                self._rows.append(self._taught(ego, observations[ego.index], told[ego.index]))

    def _row(self, ego: Ego, observation: Observation, path: NDArray[np.float64], usable: bool) -> dict[str, Any]:
        return {
            **self._seen(observation),
            "path_NK2": path.astype(np.float32),
            "path_mask_NK": np.full(len(path), float(usable), np.float32),
            "speed_mask_N": np.float32(self._speed_counts(ego)),
        }

    def _held(self, ego: Ego, observation: Observation, answer: Answer) -> dict[str, Any]:
        path, usable = answer.path
        return {
            **self._seen(observation),
            "path_NK2": path.astype(np.float32),
            "path_mask_NK": np.full(len(path), float(usable), np.float32),
            "speed_mask_N": np.float32(self._speed_counts(ego)),
            "speed_NT": answer.speeds_T.astype(np.float32),
            "ego_N": np.int32(ego.index),
            "takeover_N": np.int32(answer.takeover),
        }

    def _taught(self, ego: Ego, observation: Observation, plan: Plan) -> dict[str, Any]:
        return {
            **self._seen(observation),
            "path_NK2": plan.path_xy_m.astype(np.float32),
            "path_mask_NK": np.ones(len(plan.path_xy_m), np.float32),
            "speed_mask_N": np.float32(1.0),
            "speed_NT": plan.speed_mps.astype(np.float32),
        }

    def _seen(self, observation: Observation) -> dict[str, Any]:
        told = side_inputs(
            observation.speed_mps, observation.command, observation.junction_distance_m, observation.in_junction
        )
        return {name: warp(observation.frames[camera], cut) for name, camera, cut in self._views} | {"side_N9": told}

    def _speed_counts(self, ego: Ego) -> bool:
        return bool(self.world.roads.expert["junction_speed_label"]) or not ego.fix.in_junction

    def after(self) -> None:
        """Add the engine's wish to the samples noted before the step; egos whose run ended bring none."""
        for ego, row, look in self._open:
            if not ego.done:
                if look is not None:
                    wish = look.accel(ego.engine_accel_mps2)
                    row["speed_NT"] = wanted_speeds(self.world.roads, look.state.speed_mps, wish).astype(np.float32)
                self._rows.append(row)
        self._open.clear()

    def arrays(self) -> Arrays:
        """Stacked samples; empty arrays of the right shape when there are none."""
        if not self._rows:
            return {}
        return {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}


def run_job(job: RolloutJob, towns: Towns, *, freely: bool = False) -> tuple[list[Rollout], Arrays]:
    """Run one world to its end. freely: as `TownWorld` says, for a world that the engine died of otherwise."""
    roads = Roads.from_record(job.region, load_pack(job.region, job.packs or PACKS).roads)
    world = TownWorld(roads, towns, freely=freely)
    driver: Driver = Nobody()
    try:
        world.reset(job, job.traffic_seed)
        driver = make_driver(job.policy, world)
        takeovers = Takeovers(world)
        supervisor = Supervisor(world, job.supervision) if job.supervision else None
        tick = 0
        while not world.done:
            observations = world.observe()
            plans = driver.plans(observations)
            held = supervisor.at_the_wheel(plans) if supervisor else None
            if job.collect:
                takeovers.before(observations, keep=tick % TAKEOVER_EVERY == 0, held=held)
            world.step(plans | {ego: answer.plan for ego, answer in (held or {}).items()})
            takeovers.after()
            tick += 1
        return world.rollouts(), takeovers.arrays()
    finally:
        if isinstance(driver, Rival):
            driver.close()
        world.close()
