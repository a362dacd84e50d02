"""Slow proof: 500 random worlds, children killed (-9) among them, and no run lost, none different."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from onshore.core.rollout import Rollout
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, run_jobs
from world.conftest import worlds_children

WORLDS, SEED, KILLED_EVERY, AGAIN = 500, 20261126, 25, 40
LOOKING = PolicySpec(kind="python", entry="world.policies:Looking")
POLICIES = (*(PolicySpec(kind=kind) for kind in ("stop", "constant-speed", "rule", "expert")), LOOKING)


def random_jobs() -> list[RolloutJob]:
    """Short worlds of both regions: town, traffic, who drives, how many, how long and how they look are drawn."""
    rng = random.Random(SEED)
    jobs = []
    for index in range(WORLDS):
        region = rng.choice(("us", "cn"))
        suites = load_pack(region).suites
        jobs.append(
            RolloutJob(
                region=region,
                suite="proof",
                town_seed=rng.choice(suites["held_out_towns"]),
                traffic_seed=100_000 + index,
                policy=rng.choice(POLICIES),
                egos=rng.choice((1, 1, 2)),
                vehicles=rng.choice((30, 45, 60)),
                warm_s=rng.choice((10.0, 15.0)),
                max_time_s=rng.choice((1.0, 2.0, 4.0)),
                look=rng.choice(("day", "night", "rain")),
            )
        )
    return jobs


def killing(what: str, done: int, total: int) -> None:
    """A progress that kills one child, whatever it is doing, after every KILLED_EVERY results."""
    if 0 < done < total and done % KILLED_EVERY == 0:
        os.kill(random.Random(done).choice(worlds_children()), signal.SIGKILL)


def digests(runs: list[list[Rollout]]) -> list[list[str]]:
    return [[rollout.digest for rollout in world] for world in runs]


@pytest.mark.slow
def test_no_run_of_five_hundred_worlds_is_lost_or_different(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = random_jobs()
    killed = digests(run_jobs(jobs, workers=2, progress=killing, cache_dir=cache))
    deaths = caplog.text.count("its job runs again")
    assert deaths >= (WORLDS - 1) // KILLED_EVERY - 1
    calm = run_jobs(jobs, workers=1, cache_dir=cache)
    assert [len(world) for world in calm] == [len(world) for world in killed]
    assert all(rollout.events and len(rollout.steps["t_s"]) for world in calm for rollout in world)
    assert killed == digests(calm)
    for workers in (1, 2):
        assert digests(run_jobs(jobs[:AGAIN], workers=workers, cache_dir=cache)) == killed[:AGAIN]
