"""How many camera steps a second does a town give on one core? 128x64, at least 60 road users, no network, 1 and 16 egos.

    python benchmarks/town_speed.py [us|cn] [vehicles]

A camera step is one ego for one plan (0.2 s): traffic, picture, observation, controller, two physics steps, referee and
columns. Filling the town is timed apart. Seconds are this process's own CPU time, so that a busy machine counts less.
MetaDrive's 5.3 to 5.7 camera steps a second on one core (128x64, 3 cars, road surface not drawn) is quoted from our notes of
an earlier measurement, not run again: its assets cannot be installed here.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from onshore.core.control import Actuators
from onshore.core.policy import straight_plan
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob
from onshore.world.closed_loop import Towns, TownWorld
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.roads import Roads
from row import print_row

EGOS, SECONDS = (1, 16), 30.0
CAMERA = replace(WIDE_CAMERA, width_px=128, height_px=64, focal_px=48.0, centre_x_px=64.0, centre_y_px=32.0)
LOOKS = PolicySpec(kind="python", entry="onshore.core.policy:StopPolicy", name="slow")


def whole_world(roads: Roads, towns: Towns, egos: int, vehicles: int) -> dict[str, Any]:
    job = RolloutJob(
        region=roads.region,
        suite="bench",
        town_seed=1,
        traffic_seed=1,
        policy=LOOKS,
        egos=egos,
        vehicles=vehicles,
        max_time_s=SECONDS,
        actuators=Actuators(),
    )
    world = TownWorld(roads, towns)
    began = time.process_time()
    world.reset(job, 1)
    filled = time.process_time() - began
    plan, steps, least = straight_plan(1.0), 0, 10**6
    began = time.process_time()
    while not world.done:
        steps += len(world.observe())
        least = min(least, len(world.moment.ids))
        world.step({ego.index: plan for ego in world.active})
    seconds = time.process_time() - began
    found = len(world.egos)
    world.rollouts()
    world.close()
    return {
        "egos": found,
        "camera_steps_per_s": round(steps / seconds),
        "road_users_at_least": least,
        "steps": steps,
        "filling_s": round(filled, 2),
    }


def main() -> None:
    region = sys.argv[1] if len(sys.argv) > 1 else "us"
    vehicles = int(sys.argv[2]) if len(sys.argv) > 2 else 66
    roads = Roads.from_record(region, load_pack(region).roads)
    with tempfile.TemporaryDirectory() as folder:
        towns = Towns(Path(folder), CAMERA)
        print_row(
            "town_speed",
            region=region,
            camera="128x64",
            worlds=[whole_world(roads, towns, egos, vehicles) for egos in EGOS],
            wanted={"1": 600, "16": 1500},
            metadrive_quoted_not_rerun="5.3-5.7",
            clock="process CPU time; synthetic",
        )


if __name__ == "__main__":
    main()
