"""Points, segments and polygons on the plane: who touches whom, decided exactly.

Rule: a verdict never depends on rounding. Signs that floating point cannot settle are computed again with fractions,
so two shapes that share one point touch, and a point on an edge is not inside.
Shapes: a polygon is (M, 2) corners in metres, either winding, not closed; points are (N, 2).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: relative rounding error of a 2x2 determinant of differences (Shewchuk 1997, bound A)
DETERMINANT_ERROR = 3.3306690738754716e-16


def box_corners(center: Floats, yaw_rad: Floats, length_m: Floats | float, width_m: Floats | float) -> Floats:
    """Corners (..., 4, 2) of boxes in the order front left, rear left, rear right, front right.

    center: (..., 2); yaw_rad, length_m, width_m broadcast to (...).
    """
    lon = np.stack([np.cos(yaw_rad), np.sin(yaw_rad)], axis=-1)
    lat = np.stack([np.cos(yaw_rad + np.pi / 2.0), np.sin(yaw_rad + np.pi / 2.0)], axis=-1)
    half_length = np.asarray(length_m, dtype=np.float64)[..., None] / 2.0
    half_width = np.asarray(width_m, dtype=np.float64)[..., None] / 2.0
    signs = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))
    return np.stack([center + (side * half_width * lat + end * half_length * lon) for end, side in signs], axis=-2)


def turn(a: Floats, b: Floats, c: Floats) -> NDArray[np.int8]:
    """Exact sign of the turn a -> b -> c: 1 left, -1 right, 0 straight; inputs (..., 2) broadcast."""
    a, b, c = np.broadcast_arrays(a, b, c)
    left = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1])
    right = (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    sign = np.array(np.sign(left - right), dtype=np.int8)
    size = np.abs(left) + np.abs(right)
    for index in np.argwhere((np.abs(left - right) <= DETERMINANT_ERROR * size) & (size > 0)):
        at = tuple(index)
        sign[at] = _exact_turn(a[at], b[at], c[at])
    return sign


def _exact_turn(a: Any, b: Any, c: Any) -> int:
    (ax, ay), (bx, by), (cx, cy) = ((Fraction(float(p[0])), Fraction(float(p[1]))) for p in (a, b, c))
    value = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return (value > 0) - (value < 0)


def inside(points: Floats, polygon: Floats) -> Flags:
    """Which points (..., 2) lie strictly inside; a point on an edge or corner does not."""
    flat = points.reshape(-1, 1, 2)
    a, b = polygon[None], np.roll(polygon, -1, axis=0)[None]
    side = turn(a, b, flat)
    on_edge = (side == 0) & _between(flat, a, b)
    rises, falls = (
        (a[..., 1] <= flat[..., 1]) & (b[..., 1] > flat[..., 1]),
        ((a[..., 1] > flat[..., 1]) & (b[..., 1] <= flat[..., 1])),
    )
    crossings = ((rises & (side > 0)) | (falls & (side < 0))).sum(axis=1)
    return np.asarray((crossings % 2 == 1) & ~on_edge.any(axis=1)).reshape(points.shape[:-1])


def _between(points: Floats, a: Floats, b: Floats) -> Flags:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.asarray(((points >= low) & (points <= high)).all(axis=-1))


def boxes_overlap(a: Floats, b: Floats) -> Flags:
    """Whether the upright bounds of shapes (..., M, 2) and (..., K, 2) share a point: a quick, exact 'no'."""
    a_low, a_high, b_low, b_high = a.min(axis=-2), a.max(axis=-2), b.min(axis=-2), b.max(axis=-2)
    return np.asarray(((a_low <= b_high) & (b_low <= a_high)).all(axis=-1))


def segments_touch(a: Floats, b: Floats, c: Floats, d: Floats) -> Flags:
    """Whether segments a-b and c-d share a point (broadcast over leading axes)."""
    low_1, high_1, low_2, high_2 = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)
    near = ((low_1 <= high_2) & (low_2 <= high_1)).all(axis=-1)
    if not near.any():
        return np.asarray(near)
    across_1 = turn(a, b, c) * turn(a, b, d) <= 0
    across_2 = turn(c, d, a) * turn(c, d, b) <= 0
    return np.asarray(near & across_1 & across_2)


def touch(a: Floats, b: Floats) -> bool:
    """Whether two simple polygons share a point: edges that meet, or one within the other."""
    if not boxes_overlap(a, b):
        return False
    if _edges_meet(a, np.roll(a, -1, axis=0), b):
        return True
    return bool(inside(a[0], b) or inside(b[0], a))


def segment_touches(start: Floats, end: Floats, polygon: Floats) -> bool:
    """Whether a segment shares a point with a polygon."""
    return _edges_meet(start[None], end[None], polygon) or bool(inside(start, polygon))


def _edges_meet(start: Floats, end: Floats, polygon: Floats) -> bool:
    c, d = polygon[None], np.roll(polygon, -1, axis=0)[None]
    return bool(segments_touch(start[:, None], end[:, None], c, d).any())


def path_position(points: Floats, path: Floats) -> tuple[Floats, Floats]:
    """Arc length along a path (K, 2) of the nearest place to each point (N, 2), and the distance to it, both (N,) metres.

    Among equally near places the first along the path counts.
    """
    start, step = path[None, :-1], np.diff(path, axis=0)[None]
    squared = (step**2).sum(axis=-1)
    offset = points[:, None] - start
    share = np.clip((offset * step).sum(axis=-1) / squared, 0.0, 1.0)
    distance = np.hypot(*np.moveaxis(offset - share[..., None] * step, -1, 0))
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(points))
    length = np.sqrt(squared[0])
    before = np.concatenate([[0.0], np.cumsum(length)[:-1]])
    return before[nearest] + share[rows, nearest] * length[nearest], distance[rows, nearest]
