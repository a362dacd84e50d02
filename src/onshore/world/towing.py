"""How a rear axle follows a front bumper: what turns the engine's fronts into the poses that cameras and labels need."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The tractrix is only followed exactly in the limit: no piece is longer than this.
PIECE_M = 0.1
Floats = NDArray[np.float64]


def rear_axle_track(front_xy_N2: ArrayLike, yaw0_rad: float, axle_to_front_m: float) -> Floats:
    """Rear-axle poses (N, 3: x, y, yaw) that follow front-bumper points as a trailer does (the tractrix).

    A traffic engine reports the front bumper and a chord angle; cameras and labels need the smooth heading.
    """
    front = np.ascontiguousarray(front_xy_N2, np.float64)
    x, y = front[0].tolist()
    pieces = np.ones(len(front), np.int64)
    for index, (dx, dy) in enumerate(np.diff(front, axis=0).tolist(), 1):
        pieces[index] = max(1, math.ceil(math.hypot(dx, dy) / PIECE_M))
    rear = (x - axle_to_front_m * math.cos(yaw0_rad), y - axle_to_front_m * math.sin(yaw0_rad))
    poses = np.empty((len(front), 3))
    _tow(front, pieces, *rear, axle_to_front_m, poses)
    return poses


@numba.njit(cache=True)
def _tow(
    front_N2: Floats, pieces_N: NDArray[np.int64], rear_x: float, rear_y: float, reach: float, poses_N3: Floats
) -> None:
    last_x, last_y, yaw = front_N2[0, 0], front_N2[0, 1], 0.0
    for index in range(len(front_N2)):
        x, y, pieces = front_N2[index, 0], front_N2[index, 1], pieces_N[index]
        for piece in range(1, pieces + 1):
            tow_x, tow_y = last_x + (x - last_x) * piece / pieces, last_y + (y - last_y) * piece / pieces
            yaw = math.atan2(tow_y - rear_y, tow_x - rear_x)
            rear_x, rear_y = tow_x - reach * math.cos(yaw), tow_y - reach * math.sin(yaw)
        poses_N3[index, 0], poses_N3[index, 1], poses_N3[index, 2] = rear_x, rear_y, yaw
        last_x, last_y = x, y
