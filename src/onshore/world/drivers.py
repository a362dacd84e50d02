"""Who answers observations with plans inside a world, and the takeovers a collecting run brings home. Runs in a child.

Rule: a policy sees Observations only; the oracle alone may ask the engine. A takeover sample is what the network would
have been shown, with the expert's answer to the very same moment.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, side_inputs, view_maps, warp
from onshore.core.errors import InputError
from onshore.core.plan import SPEED_TIMES_S, Plan
from onshore.core.policy import ConstantSpeedPolicy, Observation, Policy, StopPolicy, straight_plan
from onshore.core.recording import Camera
from onshore.core.rollout import Rollout
from onshore.region import load_pack
from onshore.region.packs import PACKS
from onshore.world.closed_loop import Ego, Towns, TownWorld
from onshore.world.jobs import PolicySpec, RolloutJob
from onshore.world.rivals import MappedOnnx, Program, Signature
from onshore.world.roads import Roads

#: A takeover sample every other plan: neighbours in time are nearly the same picture.
TAKEOVER_EVERY = 2
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

    def __init__(self, spec: PolicySpec, camera: Camera) -> None:
        from onshore.bundle.runner import OnnxPolicy

        if spec.onnx is None:
            raise InputError("bad_config", "policy", "an onnx policy needs the network's bytes.")
        self._policy = OnnxPolicy(spec.onnx, spec.metadata, camera)

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        egos = list(observations)
        return dict(zip(egos, self._policy.act_many([observations[ego] for ego in egos], egos=egos), strict=True))


class Rival:
    """A driver from elsewhere; when it fails, the run of every ego it fails ends there and says why."""

    def __init__(self, spec: PolicySpec, world: TownWorld, camera: Camera) -> None:
        self.world = world
        self._program: Program | None = None
        self._network: MappedOnnx | None = None
        if spec.kind == "process":
            self._program = Program(spec.entry, camera)
            for ego in world.egos:
                self._program.reset(ego.index)
        else:
            self._network = MappedOnnx(spec.onnx or b"", Signature.from_toml(spec.entry), camera.name)

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        plans = {}
        for ego, observation in observations.items():
            try:
                plans[ego] = self._act(ego, observation)
            except InputError as problem:
                if problem.code != "policy_failed":
                    raise
                self.world.give_up(ego, problem.advice)
        return plans

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
    """The engine's wish and the lane's centre through our controller: privileged, and not an upper bound."""

    world: TownWorld

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        plans = {}
        for ego in self.world.active:
            path, usable = self.world.answer(ego)
            speeds = wanted_speeds(self.world.roads, ego.state.speed_mps, ego.engine_accel_mps2)
            plans[ego.index] = Plan(path_xy_m=path if usable else straight_plan(0.0).path_xy_m, speed_mps=speeds)
        return plans


def wanted_speeds(roads: Roads, speed_mps: float, accel_mps2: float) -> NDArray[np.float64]:
    """Target speeds of a driver who goes on accelerating as the engine asked, within its limits."""
    low, high = roads.expert["accel_mps2"]
    top = roads.town["speed_limit_mps"] * roads.expert["speed_over_limit"]
    wanted = speed_mps + min(max(accel_mps2, low), high) * np.array(SPEED_TIMES_S)
    return np.asarray(np.clip(wanted, 0.0, top), np.float64)


def make_driver(spec: PolicySpec, world: TownWorld, camera: Camera) -> Driver:
    egos = range(len(world.egos))
    if spec.kind == "onnx":
        return Network(spec, camera)
    if spec.kind in ("process", "mapped"):
        return Rival(spec, world, camera)
    if spec.kind == "oracle":
        return Oracle(world)
    if spec.kind == "expert":
        return Nobody()
    if spec.kind == "stop":
        return EachItsOwn({ego: StopPolicy() for ego in egos})
    if spec.kind == "constant-speed":
        return EachItsOwn({ego: ConstantSpeedPolicy(spec.speed_mps) for ego in egos})
    module, _, name = spec.entry.partition(":")
    make = getattr(importlib.import_module(module), name)
    if spec.kind == "scripted":
        driver: Driver = make(world)
        return driver
    policies = {ego: make() for ego in egos}
    for policy in policies.values():
        policy.reset(None)
    return EachItsOwn(policies)


@dataclass
class Takeovers:
    """Samples of one run: what the network saw, and the expert's path and speeds for that moment."""

    world: TownWorld
    view: View
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _open: list[tuple[Ego, dict[str, Any], float]] = field(default_factory=list)

    def before(self, observations: dict[int, Observation]) -> None:
        """Note what is seen and the path back to the lane; the speed is known only after the step."""
        camera = self.world.camera
        maps = view_maps(camera, self.view)
        for ego in self.world.active:
            observation = observations[ego.index]
            path, usable = self.world.answer(ego)
            row = {
                "frames_NTHWC": warp(observation.frames[camera.name], maps),
                "side_N9": side_inputs(
                    observation.speed_mps,
                    observation.command,
                    observation.junction_distance_m,
                    observation.in_junction,
                ),
                "path_NK2": path.astype(np.float32),
                "path_mask_NK": np.full(len(path), float(usable), np.float32),
                "speed_mask_N": np.float32(self._speed_counts(ego)),
            }
            self._open.append((ego, row, ego.state.speed_mps))

    def _speed_counts(self, ego: Ego) -> bool:
        return bool(self.world.roads.expert["junction_speed_label"]) or not ego.fix.in_junction

    def after(self) -> None:
        """Add the engine's wish to the samples noted before the step; egos whose run ended bring none."""
        for ego, row, speed in self._open:
            if not ego.done:
                row["speed_NT"] = wanted_speeds(self.world.roads, speed, ego.engine_accel_mps2).astype(np.float32)
                self._rows.append(row)
        self._open.clear()

    def arrays(self) -> Arrays:
        """Stacked samples; empty arrays of the right shape when there are none."""
        if not self._rows:
            return {}
        return {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}


def run_job(job: RolloutJob, towns: Towns) -> tuple[list[Rollout], Arrays]:
    """Run one world to its end."""
    world = TownWorld(Roads.from_record(job.region, load_pack(job.region, job.packs or PACKS).roads), towns)
    driver: Driver = Nobody()
    try:
        world.reset(job, job.traffic_seed)
        driver = make_driver(job.policy, world, towns.camera)
        takeovers = Takeovers(world, job.policy.metadata.view if job.policy.metadata else View())
        tick = 0
        while not world.done:
            observations = world.observe()
            if job.collect and tick % TAKEOVER_EVERY == 0:
                takeovers.before(observations)
            world.step(driver.plans(observations))
            takeovers.after()
            tick += 1
        return world.rollouts(), takeovers.arrays()
    finally:
        if isinstance(driver, Rival):
            driver.close()
        world.close()
