"""How long does a suite take? 12 worlds x 4 egos on two processes, by policy.

python benchmarks/suite_time.py [us|cn] [stop|constant-speed|expert|oracle ...]
"""

from __future__ import annotations

import sys
import time

from onshore.region import load_pack
from onshore.world import PolicySpec, run_jobs, suite
from row import print_row


def main() -> None:
    region = sys.argv[1] if len(sys.argv) > 1 else "us"
    pack = load_pack(region)
    rows = []
    for kind in sys.argv[2:] or ["constant-speed", "expert"]:
        jobs = suite(pack, f"{region}-core", PolicySpec(kind=kind))  # type: ignore[arg-type]
        began = time.perf_counter()
        worlds = run_jobs(jobs, workers=2)
        seconds = time.perf_counter() - began
        steps = sum(len(rollout.steps["t_s"]) for world in worlds for rollout in world)
        rows.append(
            {"policy": kind, "worlds": len(jobs), "seconds": round(seconds, 1), "ego_seconds": round(steps / 10)}
        )
    print_row("suite_time", region=region, processes=2, rows=rows, note="synthetic")


if __name__ == "__main__":
    main()
