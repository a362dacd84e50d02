"""Planar poses and where they live: `rig` (x forward, y left, z up, origin on the ground under the rear axle) and `local`.

SI units, radians counter-clockwise. Names carry both frames: `pose_rig_in_local`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def wrap_angle(angle_rad: ArrayLike) -> Floats:
    """Angles folded to (-pi, pi]."""
    return np.asarray(-((-np.asarray(angle_rad, np.float64) + np.pi) % (2 * np.pi) - np.pi))


def to_frame(points_XY: ArrayLike, x_m: float, y_m: float, yaw_rad: float) -> Floats:
    """Points (…, 2) of the parent frame as seen from the pose (x_m, y_m, yaw_rad) in that parent."""
    offset = np.asarray(points_XY, np.float64) - (x_m, y_m)
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.stack([offset[..., 0] * cos + offset[..., 1] * sin, -offset[..., 0] * sin + offset[..., 1] * cos], -1)


def from_frame(points_XY: ArrayLike, x_m: float, y_m: float, yaw_rad: float) -> Floats:
    """The inverse of `to_frame`."""
    points = np.asarray(points_XY, np.float64)
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.stack(
        [x_m + points[..., 0] * cos - points[..., 1] * sin, y_m + points[..., 0] * sin + points[..., 1] * cos], -1
    )


def path_at_arcs(xy_N2: ArrayLike, arcs_m: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Points of a polyline at arc lengths from its first point: (K, 2) and a mask of those the polyline reaches."""
    xy = np.asarray(xy_N2, np.float64)
    along_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))]) if len(xy) > 1 else np.zeros(1)
    arcs = np.asarray(arcs_m, np.float64)
    points = np.stack([np.interp(arcs, along_m, xy[:, 0]), np.interp(arcs, along_m, xy[:, 1])], -1)
    return points, arcs <= along_m[-1] + 1e-9


def rear_axle_track(front_xy_N2: ArrayLike, yaw0_rad: float, axle_to_front_m: float) -> Floats:
    """Rear-axle poses (N, 3: x, y, yaw) that follow front-bumper points as a trailer does (the tractrix).

    A traffic engine reports the front bumper and a chord angle; cameras and labels need the smooth heading. Long steps
    are taken in pieces of at most 0.1 m, since the tractrix is only followed exactly in the limit.
    """
    front = np.asarray(front_xy_N2, np.float64)
    poses = np.empty((len(front), 3))
    last_x, last_y = float(front[0, 0]), float(front[0, 1])
    rear_x, rear_y = last_x - axle_to_front_m * math.cos(yaw0_rad), last_y - axle_to_front_m * math.sin(yaw0_rad)
    yaw = yaw0_rad
    for index, (x, y) in enumerate(front.tolist()):
        pieces = max(1, math.ceil(math.hypot(x - last_x, y - last_y) / 0.1))
        for piece in range(1, pieces + 1):
            tow_x, tow_y = last_x + (x - last_x) * piece / pieces, last_y + (y - last_y) * piece / pieces
            yaw = math.atan2(tow_y - rear_y, tow_x - rear_x)
            rear_x, rear_y = tow_x - axle_to_front_m * math.cos(yaw), tow_y - axle_to_front_m * math.sin(yaw)
        poses[index] = (rear_x, rear_y, yaw)
        last_x, last_y = x, y
    return poses
