"""Runs closed-loop jobs in child processes and brings back rollouts and takeovers.

Rule: the same jobs give the same results for any number of workers; a child's crash costs time, never a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.progress import Progress, silent
from onshore.core.rollout import Rollout
from onshore.world.jobs import RolloutJob
from onshore.world.pool import Task, workers_for


def run_jobs(
    jobs: Sequence[RolloutJob], *, workers: int = 2, progress: Progress = silent, cache_dir: Path | None = None
) -> list[list[Rollout]]:
    """One list of rollouts (one per ego) for each job, in order."""
    return [rollouts for rollouts, _ in _results(jobs, workers, progress, cache_dir)]


def collect_takeovers(
    jobs: Sequence[RolloutJob], *, workers: int = 2, progress: Progress = silent, cache_dir: Path | None = None
) -> tuple[list[list[Rollout]], dict[str, NDArray[Any]]]:
    """As `run_jobs` for jobs with `collect=True`, with their takeover samples in the order of the jobs.

    Arrays: frames_NTHWC uint8 at the network's view, side_N9, path_NK2, path_mask_NK, speed_NT, speed_mask_N (float32),
    and world_N (int32), the job a sample came from. No key at all when no sample was collected.
    """
    results = _results(jobs, workers, progress, cache_dir)
    filled = [(index, arrays) for index, (_, arrays) in enumerate(results) if arrays]
    merged: dict[str, NDArray[Any]] = {}
    if filled:
        merged = {name: np.concatenate([arrays[name] for _, arrays in filled]) for name in filled[0][1]}
        counts = [len(arrays["side_N9"]) for _, arrays in filled]
        merged["world_N"] = np.repeat([index for index, _ in filled], counts).astype(np.int32)
    return [rollouts for rollouts, _ in results], merged


def _results(jobs: Sequence[RolloutJob], workers: int, progress: Progress, cache_dir: Path | None) -> list[Any]:
    tasks = [
        Task(
            name="rollout",
            argument=job,
            affinity=(job.region, job.layout.digest if job.layout else job.town_seed),
            last="rollout-freely",
            foreign=job.foreign,
        )
        for job in jobs
    ]
    with workers_for(workers, cache_dir) as pool:
        return pool.map(tasks, what="worlds", progress=progress)
