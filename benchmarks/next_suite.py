"""What does a run of worlds cost a process that has just driven one, whose idle children it takes over?

    python benchmarks/next_suite.py [--rounds 5]

Prints one JSON object: median seconds of the tiny us suite by the rule driver in one child, when it is a new one (peer) and when
it is the last run's; and of a world's driving alone within one run (limit), which no reuse can do without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

from onshore.region import load_pack
from onshore.world import PolicySpec, run_jobs, suite
from onshore.world.pool import SPARE
from row import print_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    jobs = [replace(job, max_time_s=20.0) for job in suite(load_pack("us"), "us-tiny", PolicySpec(kind="rule"))]

    def seconds(times: int = 1) -> float:
        began = time.perf_counter()
        run_jobs(jobs * times, workers=1)
        return time.perf_counter() - began

    seconds()  # what is compiled is compiled
    found: dict[str, list[float]] = {"new": [], "idle": [], "more": []}
    for _ in range(asked.rounds):
        SPARE.end()
        found["new"].append(seconds())
        found["idle"].append(seconds())
        found["more"].append((seconds(3) - seconds(1)) / 2)
    new, idle, more = (statistics.median(found[name]) for name in ("new", "idle", "more"))
    print_row(
        "next_suite",
        seconds=round(idle, 2),
        seconds_new_child=round(new, 2),
        seconds_driving_alone=round(more, 2),
        times_new_child=round(new / idle, 2),
        of_driving_alone=round(idle / more, 2),
        worlds=len(jobs),
        rounds=asked.rounds,
    )


if __name__ == "__main__":
    main()
