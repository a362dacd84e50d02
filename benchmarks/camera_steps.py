"""How many camera steps does one core give? Frames a second of the town camera alone, and of whole worlds with 1 and 8 egos.

    python benchmarks/camera_steps.py [us|cn]

A camera step of a world is one ego for one plan (0.2 s): traffic, camera, policy input, controller, referee, columns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob
from onshore.world.camera import Scene, TownCamera
from onshore.world.closed_loop import Towns, TownWorld
from onshore.world.drivers import run_job
from onshore.world.furniture import vehicle_boxes
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.looks import LOOKS
from onshore.world.roads import Roads
from row import print_row


class Slow:
    """A policy that costs nothing and keeps its ego going for long: what remains is the world."""

    def __new__(cls) -> object:
        from onshore.core.policy import ConstantSpeedPolicy

        return ConstantSpeedPolicy(1.0)


SMALL = replace(WIDE_CAMERA, width_px=128, height_px=64, centre_x_px=64.0, centre_y_px=32.0)


def camera_alone(roads: Roads, towns: Towns) -> dict[str, int]:
    """Frames per second of processor time: at the fleet's 192x96 by day, and at the network's 128x64 in every look."""
    job = RolloutJob(region=roads.region, suite="bench", town_seed=1, traffic_seed=1, policy=PolicySpec(kind="stop"))
    world = TownWorld(roads, towns)
    world.reset(job, 1)
    boxes = vehicle_boxes(
        roads, world.moment.kinds, world.moment.numbers, world.moment.poses_N3, world.moment.braking_N
    )
    fixed, furniture = world.assets.furniture.lit(world.moment.lights), world.assets.furniture
    cars = np.nonzero(world.moment.kinds == 0)[0][:32]
    poses = world.moment.poses_N3[cars]
    small = TownCamera(SMALL, world.assets.ground, furniture.atlas, roads.looks.sky)
    rates = {"192x96 day": _rate(world.assets.camera, Scene(fixed=fixed, vehicles=boxes), poses, cars)}
    for look in LOOKS:
        rates[f"128x64 {look}"] = _rate(small, Scene(fixed=fixed, vehicles=boxes, look=look), poses, cars)
    world.close()
    return rates


def _rate(camera: TownCamera, scene: Scene, poses: NDArray[np.float64], cars: NDArray[np.int64]) -> int:
    began, frames = time.process_time(), 0
    while time.process_time() - began < 1.5:
        camera.render(scene, poses, cars)
        frames += len(poses)
    return round(frames / (time.process_time() - began))


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
            limit_camera_alone_frames_per_cpu_s=camera_alone(roads, towns),
            whole_world_steps_per_s={egos: round(whole_world(region, towns, egos)) for egos in (1, 8)},
            note="warm-up of the traffic included; synthetic",
        )


if __name__ == "__main__":
    main()
