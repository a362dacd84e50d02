"""The last look of a careful driver: brake where going on as one wishes would end in somebody within the next moments.

Rule: it never asks for more than was wished, and for less only while a meeting is at hand. The traffic engine decides by its
rules who goes first and trusts them; people look all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.plan import PATH_ARCS_M

#: What is tried beside the wish, and for how long everybody is thought to go on as now.
BRAKINGS_MPS2 = (0.0, -2.0, -4.0, -6.0)
LOOK_S, TICK_S = 1.6, 0.2
#: Room around bodies, and how far away others count.
ROOM_M, NEAR_M = 0.25, 30.0
#: Bodies are rows of circles.
OWN_CIRCLES, OTHERS_CIRCLES = 3, 5
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """What is around one ego at one moment: its path (K, 2: rear axle, in its own frame at PATH_ARCS_M), others' boxes
    (M, 5: centre, yaw, length, width) and speeds."""

    state: EgoState
    geometry: VehicleGeometry
    path_K2: Floats
    boxes_M5: Floats
    speed_M: Floats

    def accel(self, wished_mps2: float) -> float:
        """The wish, or the gentlest braking that meets nobody within LOOK_S; where all do, the one that does so last."""
        near = np.hypot(self.boxes_M5[:, 0] - self.state.x_m, self.boxes_M5[:, 1] - self.state.y_m) < NEAR_M
        if not near.any():
            return wished_mps2
        tried = np.array([wished_mps2, *(braking for braking in BRAKINGS_MPS2 if braking < wished_mps2)])
        times = np.arange(0.0, LOOK_S + TICK_S / 2, TICK_S)
        own, reach = self._own(tried, times)
        others, reach_M = self._others(near, times)
        gaps = own[:, :, :, None, None] - others[None, :, None]  # (A, T, C, D, M, 2)
        apart_ATM = np.hypot(gaps[..., 0], gaps[..., 1]).min((2, 3))
        meets_ATM = apart_ATM < reach + reach_M + ROOM_M
        meets_AT = meets_ATM[:, 1:, ~meets_ATM[0, 0]].any(2)  # who is that close already is not met any more
        first_A = np.where(meets_AT.any(1), meets_AT.argmax(1), meets_AT.shape[1])
        return float(tried[int(first_A.argmax())])

    def _own(self, tried_A: Floats, times_T: Floats) -> tuple[Floats, float]:
        """The ego's circles (A, T, C, 2) for every acceleration, along its path, and their radius."""
        speed = self.state.speed_mps
        stops_A = np.where(tried_A < 0, speed / np.maximum(-tried_A, 1e-6), np.inf)
        driven_AT = np.minimum(times_T[None], stops_A[:, None])
        way_AT = speed * driven_AT + tried_A[:, None] * driven_AT**2 / 2
        arcs, points = np.array([0.0, *PATH_ARCS_M]), np.vstack([[0.0, 0.0], self.path_K2])
        offsets_C, radius = _circles(self.geometry.length_m, self.geometry.width_m, OWN_CIRCLES)
        # each circle rides on the path itself; beyond its end straight on
        at_ATC = way_AT[:, :, None] + self.geometry.axle_to_centre_m + offsets_C
        end, last = arcs[-1], points[-1] - points[-2]
        along = last / max(float(np.hypot(*last)), 1e-6)
        x, y = (
            np.interp(at_ATC, arcs, points[:, axis])
            + np.maximum(at_ATC - end, 0.0) * along[axis]
            + (np.minimum(at_ATC, 0.0) if axis == 0 else 0.0)
            for axis in (0, 1)
        )
        cos, sin = math.cos(self.state.yaw_rad), math.sin(self.state.yaw_rad)
        placed = np.stack([self.state.x_m + x * cos - y * sin, self.state.y_m + x * sin + y * cos], -1)
        return placed, radius

    def _others(self, near: NDArray[np.bool_], times_T: Floats) -> tuple[Floats, Floats]:
        """Their circles (T, D, M, 2), who all go straight on, and radii (M,)."""
        x, y, yaw, length, width = self.boxes_M5[near].T
        offsets_DM, radius_M = _circles(length, width, OTHERS_CIRCLES)
        along_TDM = self.speed_M[near] * times_T[:, None, None] + offsets_DM
        return np.stack([x + np.cos(yaw) * along_TDM, y + np.sin(yaw) * along_TDM], -1), radius_M


def _circles(length: Any, width: Any, count: int) -> tuple[Floats, Any]:
    """Offsets along a body of `count` circles (count, ...) as wide as it is, and their radius."""
    share = np.linspace(-1.0, 1.0, count)
    room = np.maximum(length - width, 0.0) / 2
    return share * room if np.ndim(length) == 0 else share[:, None] * room, width / 2
