"""How many camera steps a second does a town give on one core? 128x64, at least 60 road users, no network, 1 and 16 egos.

    python benchmarks/town_speed.py [us|cn] [vehicles]

A camera step is one ego for 0.1 s with its picture: traffic, picture, observation, controller, physics, referee and columns, as
the closed-loop steps of the simulators that this is held against. `per_plan` is what policies get, who plan at 5 Hz: one picture and two such
steps. The rule driver drives, so that egos keep going; its own time, as a network's, is not counted, nor is filling the
town. Worlds of following traffic seeds run until there are STEPS pictures; the figure is the median of seven such runs, in
this process's own CPU time, so that a busy machine counts less (it still shares caches and clock: the load is said).
MetaDrive's 5.3 to 5.7 camera steps a second on one core (128x64, 3 cars, road surface not drawn) is quoted from our notes of
an earlier measurement, not run again: its assets cannot be installed here.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onshore.core.control import Actuators
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob
from onshore.world.closed_loop import STEPS_PER_PLAN, Towns, TownWorld
from onshore.world.drivers import Rule
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.roads import Roads
from row import print_row

EGOS, STEPS, RUNS, WARM = (1, 16), 300, 7, 10
CAMERA = replace(WIDE_CAMERA, width_px=128, height_px=64, focal_px=48.0, centre_x_px=64.0, centre_y_px=32.0)
LOOKS = PolicySpec(kind="python", entry="onshore.core.policy:StopPolicy", name="looks")


@dataclass
class Run:
    """What one run adds up to."""

    seconds: float = 0.0
    pictures: int = 0
    camera_steps: int = 0
    least: int = 10**6


def drive(world: TownWorld, job: RolloutJob, run: Run, steps: int) -> None:
    """One world until it ends or the run has its pictures; the first ones only warm up."""
    world.reset(job, job.traffic_seed)
    driver = Rule(world)
    began = 0.0
    for picture in range(WARM + STEPS - run.pictures):
        if world.done:
            break
        began = time.process_time()
        seen = world.observe()
        looked = time.process_time()
        plans = driver.plans(seen)
        planned = time.process_time()
        world.step(plans, steps)
        if picture >= WARM:
            run.seconds += time.process_time() - planned + looked - began
            run.pictures, run.camera_steps = run.pictures + 1, run.camera_steps + len(seen)
            run.least = min(run.least, len(world.moment.ids))
    world.rollouts()


def measured(roads: Roads, towns: Towns, egos: int, vehicles: int, steps: int = 1) -> dict[str, Any]:
    runs = [Run() for _ in range(RUNS)]
    world = TownWorld(roads, towns)
    for run in runs:
        seed = 1
        while run.pictures < STEPS:
            job = RolloutJob(
                region=roads.region,
                suite="bench",
                town_seed=1,
                traffic_seed=seed,
                policy=LOOKS,
                egos=egos,
                vehicles=vehicles,
                route_m=600.0,
                max_time_s=120.0,
                actuators=Actuators(),
            )
            drive(world, job, run, steps)
            seed += 1
    world.close()
    rates = [run.camera_steps / run.seconds for run in runs]
    return {
        "egos": egos,
        "egos_driving_mean": round(runs[0].camera_steps / runs[0].pictures, 1),
        "camera_steps_per_s": round(statistics.median(rates)),
        "runs": [round(rate) for rate in rates],
        "road_users_at_least": min(run.least for run in runs),
        "pictures": runs[0].pictures,
    }


def main() -> None:
    region = sys.argv[1] if len(sys.argv) > 1 else "us"
    vehicles = int(sys.argv[2]) if len(sys.argv) > 2 else 54
    roads = Roads.from_record(region, load_pack(region).roads)
    with tempfile.TemporaryDirectory() as folder:
        towns = Towns(Path(folder), CAMERA)
        print_row(
            "town_speed",
            region=region,
            camera="128x64",
            worlds=[measured(roads, towns, egos, vehicles) for egos in EGOS],
            per_plan=[measured(roads, towns, egos, vehicles, STEPS_PER_PLAN) for egos in EGOS],
            wanted={"1": 600, "16": 1500},
            metadrive_quoted_not_rerun="5.3-5.7",
            clock="process CPU time; synthetic",
            load_average=round(os.getloadavg()[0], 1),
        )


if __name__ == "__main__":
    main()
