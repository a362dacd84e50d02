"""What drives: the Policy protocol, what it sees (Observation), and the two policies every table shows.

The expert is not a policy: it is the world's own mode in which the traffic engine keeps the ego.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan


class RouteCommand(IntEnum):
    """What navigation asks for at the next junction; never read from the future trajectory."""

    UNKNOWN = 0
    STRAIGHT = 1
    LEFT = 2
    RIGHT = 3


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a policy may see at one moment.

    frames: camera name -> (T, H, W, 3) uint8 RGB as the camera recorded them, oldest first.
    frame_ages_s: camera name -> (T,) ages; a missing camera is absent, a missing frame repeats with its true age.
    speed_mps and the map inputs are None where not known: None is the validity mask.
    """

    t_ns: int
    frames: dict[str, NDArray[np.uint8]]
    frame_ages_s: dict[str, tuple[float, ...]]
    speed_mps: float | None
    command: RouteCommand = RouteCommand.UNKNOWN
    junction_distance_m: float | None = None
    in_junction: bool | None = None


class Policy(Protocol):
    """Everything that drives in the world or in a car."""

    def reset(self, route: object | None) -> None: ...

    def act(self, observation: Observation) -> Plan: ...


def straight_plan(speed_mps: float) -> Plan:
    """Straight ahead at one speed."""
    path = np.stack([np.array(PATH_ARCS_M), np.zeros(len(PATH_ARCS_M))], -1)
    return Plan(path_xy_m=path, speed_mps=np.full(len(SPEED_TIMES_S), float(speed_mps)))


class StopPolicy:
    """Brakes and stands: the lowest row of every table."""

    def reset(self, route: object | None) -> None:
        pass

    def act(self, observation: Observation) -> Plan:
        return straight_plan(0.0)


class ConstantSpeedPolicy:
    """Straight ahead at one speed: what the world does to a policy that sees nothing."""

    def __init__(self, speed_mps: float = 7.0) -> None:
        self.speed_mps = speed_mps

    def reset(self, route: object | None) -> None:
        pass

    def act(self, observation: Observation) -> Plan:
        return straight_plan(self.speed_mps)
