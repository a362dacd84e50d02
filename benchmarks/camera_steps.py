"""How many camera steps does one core give? Frames a second of the town camera alone, and of whole worlds with 1 and 8 egos.

    python benchmarks/camera_steps.py [us|cn]

A camera step of a world is one ego for one plan (0.2 s): traffic, camera, policy input, controller, referee, columns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob
from onshore.world.camera import Scene
from onshore.world.closed_loop import Towns, TownWorld
from onshore.world.drivers import run_job
from onshore.world.furniture import vehicle_boxes
from onshore.world.roads import Roads
from row import print_row


class Slow:
    """A policy that costs nothing and keeps its ego going for long: what remains is the world."""

    def __new__(cls) -> object:
        from onshore.core.policy import ConstantSpeedPolicy

        return ConstantSpeedPolicy(1.0)


def camera_alone(roads: Roads, towns: Towns) -> float:
    job = RolloutJob(region=roads.region, suite="bench", town_seed=1, traffic_seed=1, policy=PolicySpec(kind="stop"))
    world = TownWorld(roads, towns)
    world.reset(job, 1)
    boxes = vehicle_boxes(
        roads, world.moment.kinds, world.moment.numbers, world.moment.poses_N3, world.moment.braking_N
    )
    scene = Scene(fixed=world.assets.furniture.lit(world.moment.lights), vehicles=boxes)
    cars = np.nonzero(world.moment.kinds == 0)[0][:32]
    poses = world.moment.poses_N3[cars]
    began, frames = time.perf_counter(), 0
    while time.perf_counter() - began < 2.0:
        world.assets.camera.render(scene, poses, cars)
        frames += len(poses)
    world.close()
    return frames / (time.perf_counter() - began)


def whole_world(region: str, towns: Towns, egos: int) -> float:
    policy = PolicySpec(kind="python", entry="__main__:Slow", name="slow")
    job = RolloutJob(
        region=region, suite="bench", town_seed=1, traffic_seed=1, policy=policy, egos=egos, max_time_s=40.0
    )
    began = time.perf_counter()
    rollouts, _ = run_job(job, towns)
    return sum(len(rollout.steps["t_s"]) for rollout in rollouts) / 2 / (time.perf_counter() - began)


def main() -> None:
    region = sys.argv[1] if len(sys.argv) > 1 else "us"
    roads = Roads.from_record(region, load_pack(region).roads)
    with tempfile.TemporaryDirectory() as folder:
        towns = Towns(Path(folder))
        print_row(
            "camera_steps",
            region=region,
            limit_camera_alone_frames_per_s=round(camera_alone(roads, towns)),
            whole_world_steps_per_s={egos: round(whole_world(region, towns, egos)) for egos in (1, 8)},
            note="warm-up of the traffic included; synthetic",
        )


if __name__ == "__main__":
    main()
