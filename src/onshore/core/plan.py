"""What a policy proposes (Plan) and what follows from it (Trajectory).

A plan is a path at fixed arc lengths plus target speeds at fixed times, in the `rig` frame of the moment it was made:
the path stays defined while the car stands, and the speeds may change without bending it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PATH_ARCS_M: tuple[float, ...] = (2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 18.0, 22.0)
SPEED_TIMES_S: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A path (`path_xy_m`, K x 2, rig frame) at `arcs_m` and target speeds (`speed_mps`, T) at `times_s`."""

    path_xy_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    arcs_m: tuple[float, ...] = PATH_ARCS_M
    times_s: tuple[float, ...] = SPEED_TIMES_S

    def __post_init__(self) -> None:
        if self.path_xy_m.shape != (len(self.arcs_m), 2) or self.speed_mps.shape != (len(self.times_s),):
            raise ValueError(
                f"plan shapes {self.path_xy_m.shape}, {self.speed_mps.shape} do not match "
                f"{len(self.arcs_m)} arc lengths and {len(self.times_s)} times"
            )

    def trajectory(self, speed_now_mps: float, step_s: float = 0.1) -> Trajectory:
        """Integrate the speeds (linear between times, from the present speed) along the path."""
        times = np.arange(0.0, self.times_s[-1] + step_s / 2, step_s)
        speeds = np.interp(times, (0.0, *self.times_s), (speed_now_mps, *self.speed_mps))
        along = np.concatenate([[0.0], np.cumsum((speeds[1:] + speeds[:-1]) / 2 * step_s)])
        arcs = np.array((0.0, *self.arcs_m))
        points = np.vstack([[0.0, 0.0], self.path_xy_m])
        # beyond the last arc the path goes on straight
        last = points[-1] - points[-2]
        last = last / max(float(np.hypot(*last)), 1e-9)
        arcs, points = np.append(arcs, arcs[-1] + 100.0), np.vstack([points, points[-1] + last * 100.0])
        x, y = np.interp(along, arcs, points[:, 0]), np.interp(along, arcs, points[:, 1])
        ahead = along + 0.5
        yaw = np.arctan2(
            np.interp(ahead, arcs, points[:, 1]) - np.interp(ahead - 1.0, arcs, points[:, 1]),
            np.interp(ahead, arcs, points[:, 0]) - np.interp(ahead - 1.0, arcs, points[:, 0]),
        )
        return Trajectory(t_s=times, x_m=x, y_m=y, yaw_rad=yaw, speed_mps=speeds)


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Timed poses and speeds, driven or derived from a plan: five columns of one length, rig frame of time 0."""

    t_s: NDArray[np.float64]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    speed_mps: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len({len(c) for c in (self.t_s, self.x_m, self.y_m, self.yaw_rad, self.speed_mps)}) != 1:
            raise ValueError("a trajectory's columns must have one length")
