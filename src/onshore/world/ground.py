"""The painted ground: what the camera sees of it (RGB with mip levels) and what it means (lane kind and direction).

Rule: both rasters are drawn from the same lanes in one pass order: verge, asphalt, junctions, paint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import LANE_KINDS
from onshore.world.roads import Line as Paint
from onshore.world.town import Edge, Town

CELL_M = 0.125
MEANING_CELL_M = 0.25
LEVELS = 7
MARGIN_M = 45.0
NO_DIRECTION = 255
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Mip levels of an N x N picture, one after the other in `pixels` (cells, 3); origin at its (0, 0) corner."""

    origin_x_m: float
    origin_y_m: float
    pixels: Bytes
    level_start: NDArray[np.int64]
    level_size: NDArray[np.int64]
    kind: Bytes
    direction: Bytes

    @property
    def picture(self) -> Bytes:
        """The finest level as a picture (rows = y upwards)."""
        size = int(self.level_size[0])
        return self.pixels[: size * size].reshape(size, size, 3)

    def meaning(self, x_m: float, y_m: float) -> tuple[int, float | None]:
        """(LANE_KINDS index, lane direction in degrees or None) under a point."""
        row, column = int((y_m - self.origin_y_m) / MEANING_CELL_M), int((x_m - self.origin_x_m) / MEANING_CELL_M)
        if not (0 <= row < len(self.kind) and 0 <= column < len(self.kind)):
            return 0, None
        direction = int(self.direction[row, column])
        return int(self.kind[row, column]), None if direction == NO_DIRECTION else direction * 2.0


def paint_ground(town: Town) -> Ground:
    """Draw a town's ground."""
    min_x, min_y, max_x, max_y = town.bounds
    origin = np.array([min_x - MARGIN_M, min_y - MARGIN_M])
    unit = 1 << LEVELS
    size = int((max(max_x - min_x, max_y - min_y) + 2 * MARGIN_M) / CELL_M) // unit * unit + unit
    canvas = _Canvas(town, origin, size)
    canvas.verges()
    canvas.asphalt()
    canvas.lines()
    pixels, starts, sizes = _mips(canvas.picture)
    return Ground(
        origin_x_m=float(origin[0]),
        origin_y_m=float(origin[1]),
        pixels=pixels,
        level_start=starts,
        level_size=sizes,
        kind=canvas.kind,
        direction=canvas.direction,
    )


def _mips(picture: Bytes) -> tuple[Bytes, NDArray[np.int64], NDArray[np.int64]]:
    levels = [picture]
    for _ in range(LEVELS - 1):
        last = levels[-1]
        half = (last.shape[1] // 2, last.shape[0] // 2)
        levels.append(np.asarray(cv2.resize(last, half, interpolation=cv2.INTER_AREA), np.uint8))
    sizes = np.array([level.shape[0] for level in levels], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes**2)[:-1]]).astype(np.int64)
    return np.concatenate([level.reshape(-1, 3) for level in levels]), starts, sizes


class _Canvas:
    """The rasters while they are drawn."""

    def __init__(self, town: Town, origin: Floats, size: int) -> None:
        self.town, self.origin = town, origin
        rng = np.random.default_rng(town.seed)
        noise = rng.integers(-18, 18, (size // 32, size // 32), dtype=np.int16).astype(np.float32)
        grass = noise[..., None] + np.array(town.roads.looks.grass, np.float32)
        coarse = cv2.resize(np.clip(grass, 0, 255).astype(np.uint8), (size // 4, size // 4))
        enlarged = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_NEAREST)
        self.picture: Bytes = np.asarray(enlarged, np.uint8)
        cells = int(size * CELL_M / MEANING_CELL_M)
        self.kind: Bytes = np.zeros((cells, cells), np.uint8)
        self.direction: Bytes = np.full((cells, cells), NO_DIRECTION, np.uint8)

    def _at(self, points: Floats, cell_m: float = CELL_M) -> NDArray[np.int32]:
        """Fixed-point pixel coordinates (4 fractional bits)."""
        return np.round((points - self.origin) / cell_m * 16 - 8).astype(np.int32)

    def verges(self) -> None:
        colour, side = self.town.roads.looks.side, self.town.roads.town["side_m"]
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                for quad, _ in _quads(lane.xy_N2, lane.width_m + 2 * side):
                    cv2.fillPoly(self.picture, [self._at(quad)], colour, shift=4)
        for junction in self.town.junctions.values():
            cv2.polylines(self.picture, [self._at(junction.shape_N2)], True, colour, int(2 * side / CELL_M), shift=4)

    def asphalt(self) -> None:
        looks = self.town.roads.looks
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                colour = looks.lane_paint.get(lane.kind, looks.asphalt)
                for quad, degrees in _quads(lane.xy_N2, lane.width_m + 0.1):
                    cv2.fillPoly(self.picture, [self._at(quad)], colour, shift=4)
                    cells = [self._at(quad, MEANING_CELL_M)]
                    cv2.fillPoly(self.kind, cells, LANE_KINDS.index(lane.kind), shift=4)
                    cv2.fillPoly(self.direction, cells, int(degrees % 360 / 2), shift=4)
        for junction in self.town.junctions.values():
            cv2.fillPoly(self.picture, [self._at(junction.shape_N2)], looks.asphalt, shift=4)
            cells = [self._at(junction.shape_N2, MEANING_CELL_M)]
            cv2.fillPoly(self.kind, cells, LANE_KINDS.index("junction"), shift=4)
            cv2.fillPoly(self.direction, cells, NO_DIRECTION, shift=4)

    def lines(self) -> None:
        for edge in self.town.edges.values():
            self._lines_of(edge)

    def _lines_of(self, edge: Edge) -> None:
        paint = self.town.roads.paint
        stops = edge.stop_rule != "none"
        for lane in edge.lanes:
            xy, half = lane.xy_N2, lane.width_m / 2
            if lane.index == 0:
                self._stroke(_beside(xy, 0.15 - half), paint["kerb"])
            if lane.index == len(edge.lanes) - 1:
                self._stroke(_beside(xy, half - 0.12), paint["centre"])
            elif lane.kind in paint:
                self._stroke(_beside(xy, half), paint[lane.kind])
            if stops:
                along = (xy[-1] - xy[-2]) / np.hypot(*(xy[-1] - xy[-2]))
                across = np.array([-along[1], along[0]]) * half
                self._stroke(np.array([xy[-1] + across - along * 0.5, xy[-1] - across - along * 0.5]), paint["stop"])

    def _stroke(self, xy: Floats, paint: Paint) -> None:
        width = max(1, round(paint.width_m / CELL_M))
        pieces = [xy] if paint.dash_m is None else _dashes(xy, *paint.dash_m)
        cv2.polylines(self.picture, [self._at(piece) for piece in pieces], False, paint.colour, width, cv2.LINE_AA, 4)


def _quads(xy: Floats, width_m: float) -> list[tuple[Floats, float]]:
    """The line's segments as rectangles that overlap a little, with their directions in degrees."""
    quads = []
    for a, b in pairwise(xy):
        length = float(np.hypot(*(b - a)))
        if length < 0.05:
            continue
        along = (b - a) / length
        across, overlap = np.array([-along[1], along[0]]) * width_m / 2, along * 0.1
        corners = np.array([a + across - overlap, b + across + overlap, b - across + overlap, a - across - overlap])
        quads.append((corners, float(np.degrees(np.arctan2(along[1], along[0])))))
    return quads


def _beside(xy: Floats, left_m: float) -> Floats:
    """The line `left_m` to the left of another."""
    along = np.gradient(xy, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    return np.asarray(xy + np.stack([-along[:, 1], along[:, 0]], 1) * left_m, np.float64)


def _dashes(xy: Floats, dash_m: float, gap_m: float) -> list[Floats]:
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    pieces = []
    for start in np.arange(0.0, along[-1], dash_m + gap_m):
        at = np.linspace(start, min(start + dash_m, along[-1]), 4)
        pieces.append(np.stack([np.interp(at, along, xy[:, 0]), np.interp(at, along, xy[:, 1])], 1))
    return pieces
