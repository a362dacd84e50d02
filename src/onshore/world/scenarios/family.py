"""What a scenario family is, and how one of its worlds becomes a job that anybody can be asked to drive.

Rule: a world is a function of (family, region's roads, seed). Who drives has no part in it, and whether a run succeeded is
read from its Rollout alone. Names of families are names of scenarios, so statistics resample by (family, seed).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onshore.core.digest import record_digest
from onshore.core.rollout import Rollout
from onshore.world.actors import Actor
from onshore.world.jobs import PolicySpec, RolloutJob, Start
from onshore.world.layout import Layout
from onshore.world.navigation import front_of
from onshore.world.roads import Roads
from onshore.world.scenarios.driving import Manner
from onshore.world.scenarios.movers import Mover
from onshore.world.scenarios.verdicts import Condition, Verdict, verdict
from onshore.world.town import Town
from onshore.world.traffic import STEP_S

if TYPE_CHECKING:
    from onshore.world.closed_loop import TownWorld

SCRIPT = "onshore.world.scenarios.family:Cast"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What happens in a place: who else is there, and how the careful and the careless driver go about it."""

    movers: tuple[Mover, ...]
    careful: Manner
    careless: Manner


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One world of a family before it runs. `plot` needs the built town, for its lines."""

    layout: Layout
    start: Start
    plot: Callable[[Town], Plot]
    route_m: float
    max_time_s: float
    clock_h: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """A parameterised scenario.

    tells: what happens, in one line. careless: what the careless driver leaves out. needs_eyes: whether success hangs on
    what the camera alone shows; eyes: what that is, or why it is not needed. conditions: what a Rollout must show. build: draws one world's stage from the region's roads and a seed.
    """

    name: str
    tells: str
    careless: str
    eyes: str
    build: Callable[[Roads, random.Random], Stage]
    conditions: tuple[Condition, ...]
    needs_eyes: bool = True

    def stage(self, roads: Roads, seed: int) -> Stage:
        return self.build(roads, random.Random(f"{self.name}/{seed}"))

    def job(self, roads: Roads, seed: int, policy: PolicySpec, *, suite: str = "scenario") -> RolloutJob:
        """The world of one seed, for this driver."""
        stage = self.stage(roads, seed)
        return RolloutJob(
            region=roads.region,
            suite=suite,
            town_seed=seed,
            traffic_seed=seed,
            policy=policy,
            egos=1,
            route_m=stage.route_m,
            max_time_s=stage.max_time_s,
            layout=stage.layout,
            clock_h=stage.clock_h,
            vehicles=0,
            warm_s=0.0,
            starts=(stage.start,),
            script=SCRIPT,
            script_facts={"family": self.name, "seed": seed},
        )

    def verdict(self, rollout: Rollout) -> Verdict:
        """Whether the run succeeded, from its columns and events alone; None where a column it needs is not known."""
        return verdict(self.conditions, rollout)


class Cast:
    """The script of a scenario's world: moves its road users, step by step."""

    def __init__(self, *, family: str, seed: int) -> None:
        self.family, self.seed = family, seed
        self._movers: tuple[Mover, ...] | None = None
        self._last_s = 0.0

    def step(self, t_s: float, world: TownWorld) -> Sequence[Actor]:
        """Where everybody is at `t_s`."""
        if self._movers is None:
            self._movers = plot_of(world).movers
        elif t_s > self._last_s and world.egos:
            ego = world.egos[0].state
            front = front_of(ego, world.bicycle.geometry)
            for mover in self._movers:
                mover.step(t_s, ego, front, STEP_S)
        self._last_s = t_s
        return [_actor(number, mover) for number, mover in enumerate(self._movers)]


def _actor(number: int, mover: Mover) -> Actor:
    x, y, yaw = mover.pose
    return Actor(
        number=number,
        kind=mover.kind,
        x_m=x,
        y_m=y,
        yaw_rad=yaw,
        speed_mps=mover.speed_mps,
        braking=mover.braking,
        size_m=mover.size_m,
    )


def plot_of(world: TownWorld) -> Plot:
    """The plot of the scenario that a world is running."""
    from onshore.world.scenarios import families

    facts: dict[str, Any] = world.job.script_facts
    stage = families()[facts["family"]].stage(world.roads, facts["seed"])
    return stage.plot(world.assets.town)


def layout_seed(*parts: object) -> int:
    """A stable small number for what a layout leaves to its seed (houses, noise of the ground)."""
    return int(record_digest([str(part) for part in parts])[:6], 16)
