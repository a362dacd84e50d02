"""Road users and things that a script moves, beside the traffic that the engine drives.

Rule: a script says where its actors are at each step; they obey nothing else. Where an actor stands on a lane the engine's
traffic sees it as a vehicle of that place and size; on the verge only cameras and collisions know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from onshore.core.errors import InputError
from onshore.core.rollout import ACTOR_KINDS
from onshore.world.roads import Roads

if TYPE_CHECKING:
    from onshore.world.closed_loop import TownWorld

#: Numbers of scripted actors start here, so that no vehicle of the traffic shares one.
FIRST_NUMBER = 1_000_000
#: Length, width, height (m) of kinds that a region's roads do not size.
USUAL_SIZES = {
    "car": (4.6, 1.8, 1.5),
    "truck": (8.0, 2.4, 3.2),
    "bus": (11.0, 2.5, 3.1),
    "ebike": (1.8, 0.7, 1.7),
    "bicycle": (1.8, 0.6, 1.7),
    "pedestrian": (0.5, 0.5, 1.7),
    "tricycle": (2.6, 1.1, 1.7),
    "static": (0.6, 0.6, 0.9),
}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One scripted road user or thing at one step; the pose is its box's centre. size: length, width, height, or usual."""

    number: int
    kind: str
    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float = 0.0
    braking: bool = False
    size_m: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ACTOR_KINDS:
            raise InputError("bad_config", f"actor {self.number}", f"kind {self.kind!r}: one of {ACTOR_KINDS}.")

    def size(self, roads: Roads) -> tuple[float, float, float]:
        """Its own size, else the region's, else the usual one of its kind."""
        if self.size_m is not None:
            return self.size_m
        if self.kind in roads.vehicles:
            style = roads.vehicles[self.kind]
            return style.length_m, style.width_m, style.height_m
        return USUAL_SIZES[self.kind]


class Script(Protocol):
    """Moves actors. `step` is asked once at the start (t_s = 0) and then before every physics step; numbers stay the same."""

    def step(self, t_s: float, world: TownWorld) -> Sequence[Actor]: ...
