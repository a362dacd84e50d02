"""A drawn face that a working face detector finds (score about 0.9), so that one that finds nothing is noticed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onshore.privacy.detector import Boxes, Frames

#: Half the face's width in pixels, where the frame has room, and the smallest canvas that shows it.
HALF_WIDTH_PX, LEAST_SIDE_PX = 28.0, 96
_ASPECT = 1.4

#: centre x, centre y, half width, half height (in half face widths and half face heights), edge softness (px), colour
_SHAPES: tuple[tuple[float, float, float, float, float, tuple[int, int, int]], ...] = (
    (0.0, -0.25, 1.15, 0.95, 2.0, (40, 30, 25)),  # hair
    (0.0, 1.5, 1.8, 0.8, 2.0, (60, 70, 110)),  # shoulders
    (0.0, 0.0, 1.0, 1.0, 3.0, (170, 134, 113)),  # face
    (-0.42, -0.15, 0.22, 0.09, 2.0, (90, 65, 55)),  # eyes, pupils, brows
    (0.42, -0.15, 0.22, 0.09, 2.0, (90, 65, 55)),
    (-0.42, -0.13, 0.10, 0.07, 1.5, (30, 20, 20)),
    (0.42, -0.13, 0.10, 0.07, 1.5, (30, 20, 20)),
    (-0.42, -0.30, 0.26, 0.05, 2.0, (70, 50, 40)),
    (0.42, -0.30, 0.26, 0.05, 2.0, (70, 50, 40)),
    (0.0, 0.22, 0.20, 0.08, 3.0, (165, 115, 95)),  # nose
    (0.0, 0.52, 0.36, 0.09, 2.0, (150, 70, 70)),  # mouth
)


def drawn_face(height_px: int, width_px: int) -> tuple[Frames, Boxes]:
    """A picture (1, H, W, 3) of at least 96 x 96 pixels with one drawn face in its middle, and that face's box (1, 5)."""
    height, width = max(height_px, LEAST_SIDE_PX), max(width_px, LEAST_SIDE_PX)
    half_w, half_h = HALF_WIDTH_PX, HALF_WIDTH_PX * _ASPECT
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = (x - width / 2) / half_w, (y - height / 2) / half_h
    picture = np.full((height, width, 3), 120.0)
    for cx, cy, rx, ry, softness, colour in _SHAPES:
        inside = _coverage((x - cx) / rx, (y - cy) / ry, min(rx * half_w, ry * half_h) / softness)
        picture = picture * (1 - inside) + np.array(colour, np.float64) * inside
    picture *= 1 - 0.2 * np.clip(x, -1, 1)[..., None]  # light from the left
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h, 1.0)
    return np.clip(picture, 0, 255).astype(np.uint8)[None], np.array([box], np.float32)


def _coverage(x: NDArray[np.float64], y: NDArray[np.float64], sharpness: float) -> NDArray[np.float64]:
    return np.clip((1 - np.hypot(x, y)) * sharpness + 0.5, 0, 1)[..., None]
