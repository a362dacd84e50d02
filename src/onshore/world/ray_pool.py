"""Worlds on a Ray cluster: the same tasks and the same results, on as many machines as there are (extra `ray`).

Rule: an actor is a child like any other: one world at a time, fed, buried and replaced by `pool.Workers`. Every machine of
the cluster needs onshore installed, and stands where its data may be: Ray carries jobs and rollouts between them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onshore.core.errors import InputError
from onshore.world.pool import Child, Task, Workers, environment


@dataclass
class _Actor:
    """A child somewhere in the cluster."""

    ray: Any
    actor: Any
    affinity: object = None
    task: int | None = None
    foreign: bool = False
    answer: Any = None
    words: str = ""

    def send(self, task: Task) -> None:
        self.answer = self.actor.answer.remote(task)

    def receive(self) -> Any:
        try:
            return self.ray.get(self.answer)
        except self.ray.exceptions.RayActorError as death:
            self.words = str(death).strip()[-600:]
            raise EOFError from death

    def last_words(self) -> str:
        return self.words

    def kill(self) -> None:
        self.ray.kill(self.actor)

    def end(self) -> object:
        self.ray.kill(self.actor)
        return "an actor of the cluster"


class _World:
    """What lives in an actor."""

    def __init__(self, cache_dir: str) -> None:
        from onshore.world.closed_loop import Towns

        self.towns = Towns(Path(cache_dir))

    def answer(self, task: Task) -> Any:
        from onshore.world.child import answer

        return answer(task, self.towns)


@dataclass
class RayWorkers(Workers):
    """Up to `count` actors, one processor each and no more than the cluster has. address: "local", "auto", or that of a cluster's head."""

    address: str = "local"
    _ray: Any = field(default=None, repr=False)

    def __enter__(self) -> RayWorkers:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about this center is sent to anybody
        try:
            import ray
        except ImportError as missing:
            raise InputError("bad_config", "ONSHORE_RAY", "install the extra `ray`, or unset it.") from missing
        self._ray = ray
        if not ray.is_initialized():
            where = None if self.address == "local" else self.address
            ray.init(address=where, include_dashboard=False, log_to_driver=False, logging_level="error")
        # an actor for which there is no processor would keep its task for ever
        self.count = min(self.count, max(1, int(ray.cluster_resources().get("CPU", 1))))
        return self

    def _start(self) -> Child:
        remote = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_World)
        actor = remote.options(runtime_env={"env_vars": environment(self.cache_dir)}).remote(str(self.cache_dir))
        return _Actor(ray=self._ray, actor=actor)

    def _ready(self) -> list[Child]:
        busy = {child.answer: child for child in self._children if child.task is not None and isinstance(child, _Actor)}
        done, _ = self._ray.wait(list(busy), num_returns=1)
        return [busy[answer] for answer in done]
