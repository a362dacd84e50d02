"""Planar poses and where they live: `rig` (x forward, y left, z up, origin on the ground under the rear axle) and `local`.

SI units, radians counter-clockwise. Names carry both frames: `pose_rig_in_local`.
"""

from __future__ import annotations

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
