"""Worlds on a Ray cluster: the same rollouts as in a process here, also when an actor is killed on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onshore.core.errors import InputError
from onshore.world import run_jobs
from onshore.world.pool import RAY_VARIABLE, Task, Workers, workers_for
from world.conftest import job

JOBS = [job(traffic_seed=seed, max_time_s=2.0, warm_s=5.0) for seed in (11, 12, 13)]


def test_without_the_variable_children_are_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RAY_VARIABLE, raising=False)
    assert type(workers_for(2, tmp_path)) is Workers


def test_without_ray_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_VARIABLE, "local")
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match="extra `ray`"), workers_for(1, tmp_path):
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv(RAY_VARIABLE, "local")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_rollouts_of_one_process(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_jobs(JOBS[:1], workers=1, cache_dir=tmp_path)
    spread = run_jobs(JOBS, workers=64, cache_dir=tmp_path)  # more than there are processors: no task may wait for ever
    monkeypatch.delenv(RAY_VARIABLE)
    here = run_jobs(JOBS, workers=1, cache_dir=tmp_path)
    assert [[one.digest for one in rollouts] for rollouts in spread] == [
        [one.digest for one in rollouts] for rollouts in here
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_actor_costs_time_and_no_result(cluster: None, tmp_path: Path) -> None:
    class Murderous(type(workers_for(1, tmp_path))):  # type: ignore[misc]
        """Kills its first actor as soon as that has a task."""

        killed = 0

        def _feed(self, tasks: list[Task], waiting: list[int]) -> None:
            super()._feed(tasks, waiting)
            while not self.killed:
                for place in Path("/proc").glob("[0-9]*/cmdline"):
                    with contextlib.suppress(OSError):
                        if b"ray::_World" in place.read_bytes():
                            os.kill(int(place.parent.name), signal.SIGKILL)
                            self.killed += 1
                time.sleep(0.05)

    tasks = [Task(name="rollout", argument=one, affinity=one.town_seed) for one in JOBS[:2]]
    with Murderous(count=1, cache_dir=tmp_path, address="local") as pool:
        found = pool.map(tasks, what="worlds")
    assert len(pool.crashes) == 1 and "actor" in pool.crashes[0]
    here = run_jobs(JOBS[:2], workers=1, cache_dir=tmp_path)
    assert [[one.digest for one in rollouts] for rollouts, _ in found] == [
        [one.digest for one in rollouts] for rollouts in here
    ]
