"""Policies that tests hand to worlds by name."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from onshore.core.plan import Plan
from onshore.core.policy import ConstantSpeedPolicy, Observation, straight_plan
from onshore.world.closed_loop import TownWorld
from onshore.world.drivers import Rule


class DieOnce(ConstantSpeedPolicy):
    """Drives at a constant speed, but kills its whole process the first time it is asked after the mark was made."""

    def act(self, observation: Observation) -> Plan:
        mark = Path(os.environ.get("ONSHORE_TEST_MARK", "/nonexistent"))
        if mark.exists():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().act(observation)


class Looking(ConstantSpeedPolicy):
    """Fails unless it is shown two pictures of the right size and age, and a command of the map."""

    def act(self, observation: Observation) -> Plan:
        frames, ages = observation.frames["wide"], observation.frame_ages_s["wide"]
        if frames.shape != (2, 96, 192, 3) or ages != (0.4, 0.0) or not frames.any():
            raise ValueError(f"shown {frames.shape} aged {ages}")
        if observation.speed_mps is None or observation.junction_distance_m is None or observation.command < 1:
            raise ValueError("speed, distance or command missing")
        return super().act(observation)


class Brightest(ConstantSpeedPolicy):
    """Drives faster the brighter the picture; stands where it is black."""

    def act(self, observation: Observation) -> Plan:
        self.speed_mps = float(observation.frames["wide"].mean()) / 5.0
        return super().act(observation)


class MadeAtReset:
    """Drives straight on at the speed that it takes when a run begins."""

    def reset(self, route: object | None) -> None:
        self.speed_mps = 8.0

    def act(self, observation: Observation) -> Plan:
        return straight_plan(self.speed_mps)


class LookingAround(ConstantSpeedPolicy):
    """Fails unless it is shown the pictures of three cameras, each another view of the same moments."""

    def act(self, observation: Observation) -> Plan:
        shown = {name: frames.shape for name, frames in observation.frames.items()}
        if shown != dict.fromkeys(("wide", "left", "right"), (2, 96, 192, 3)):
            raise ValueError(f"shown {shown}")
        if set(observation.frame_ages_s) != set(shown) or len(set(observation.frame_ages_s.values())) != 1:
            raise ValueError(f"aged {observation.frame_ages_s}")
        if (observation.frames["left"] == observation.frames["right"]).all():
            raise ValueError("left and right show the same")
        return super().act(observation)


class Followed:
    """The rule driver, who fails where the engine does not follow an ego through a junction."""

    def __init__(self, world: TownWorld) -> None:
        self.world, self.rule, self.inside = world, Rule(world), Counter[int]()

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        for ego in self.world.active:
            lane = self.world.traffic._engine.vehicle.getLaneID(ego.vehicle)
            self.inside[ego.index] = self.inside[ego.index] + 1 if ego.fix.in_junction else 0
            before = lane.startswith(f"{ego.navigation.edges[ego.fix.street]}_")
            if self.inside[ego.index] > 3 and (before or not lane):
                raise ValueError(f"ego {ego.index} is in a junction, for the engine on {lane or 'no lane'}")
        return self.rule.plans(observations)


class DieOfPlacing(Rule):
    """The rule driver, whose process dies as the engine does, unless egos are placed freely."""

    how = signal.SIGSEGV

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        if not self.world.freely:
            os.kill(os.getpid(), self.how)
        return super().plans(observations)


class Killed(DieOfPlacing):
    """The same, killed as from outside."""

    how = signal.SIGKILL
