"""The painted ground: what the camera sees of it (RGB with mip levels) and what it means (lane kind and direction).

Rule: both rasters are drawn from the same lanes in one pass order: verge, asphalt, junctions, paint.
What is painted where follows from the lanes' own data and, where they say nothing, from the pack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from onshore.core.policy import RouteCommand
from onshore.core.rollout import LANE_KINDS, TURNS
from onshore.world.glyphs import draw_glyph, draw_text, shared_glyphs
from onshore.world.roads import Colour
from onshore.world.roads import Line as Paint
from onshore.world.town import Edge, LaneLine, Town

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
        self.town, self.roads, self.origin = town, town.roads, origin
        self.glyphs = {**shared_glyphs(), **town.roads.glyphs}
        rng = np.random.default_rng(town.seed)
        noise = rng.integers(-18, 18, (size // 32, size // 32), dtype=np.int16).astype(np.float32)
        varied = np.random.default_rng(town.seed + 9).uniform(-1, 1, 3) * town.roads.looks.vary
        self.asphalt_tone, self.side_tone, grass_tone = 1 + varied
        grass = noise[..., None] + np.array(town.roads.looks.grass, np.float32) * grass_tone
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
        colour, side = _toned(self.roads.looks.side, self.side_tone), self.roads.town["side_m"]
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                for quad, _ in _quads(lane.xy_N2, lane.width_m + 2 * side):
                    cv2.fillPoly(self.picture, [self._at(quad)], colour, shift=4)
        for junction in self.town.junctions.values():
            cv2.polylines(self.picture, [self._at(junction.shape_N2)], True, colour, int(2 * side / CELL_M), shift=4)

    def asphalt(self) -> None:
        looks = self.roads.looks
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                colour = _toned(looks.lane_paint.get(lane.kind, looks.asphalt), self.asphalt_tone)
                for quad, degrees in _quads(lane.xy_N2, lane.width_m + 0.1):
                    cv2.fillPoly(self.picture, [self._at(quad)], colour, shift=4)
                    cells = [self._at(quad, MEANING_CELL_M)]
                    cv2.fillPoly(self.kind, cells, LANE_KINDS.index(lane.kind), shift=4)
                    cv2.fillPoly(self.direction, cells, int(degrees % 360 / 2), shift=4)
        for junction in self.town.junctions.values():
            inside = _toned(looks.asphalt, self.asphalt_tone)
            cv2.fillPoly(self.picture, [self._at(junction.shape_N2)], inside, shift=4)
            cells = [self._at(junction.shape_N2, MEANING_CELL_M)]
            cv2.fillPoly(self.kind, cells, LANE_KINDS.index("junction"), shift=4)
            cv2.fillPoly(self.direction, cells, NO_DIRECTION, shift=4)

    # -- paint ---------------------------------------------------------------------------------------------------

    def lines(self) -> None:
        for edge in self.town.edges.values():
            for lane in edge.lanes:
                self._beside_lane(edge, lane)
                self._at_its_end(edge, lane)
                self._words(lane)
            self._through_junction(edge)
        for crosswalk in self.town.crosswalks:
            self._crosswalk(crosswalk.corners_42)

    def _beside_lane(self, edge: Edge, lane: LaneLine) -> None:
        """The kerb's line, and the one towards the middle of the road: solid over the last metres before a stop line."""
        paint, inward = self.roads.paint, self.roads.inward
        xy, half = lane.xy_N2, lane.width_m / 2
        if lane.index == 0:
            self._stroke(_beside(xy, (0.15 - half) * inward), paint["kerb"])
        outermost = lane.index == len(edge.lanes) - 1
        if outermost and edge.id not in self.town.reverse:
            self._stroke(_beside(xy, (half - 0.15) * inward), paint["kerb"])
            return
        line = _beside(xy, half * inward)
        solid_m = lane.spec.solid_end_m or (self.roads.approach.solid_m if edge.stop_rule != "none" else 0.0)
        far, near = _cut(line, solid_m)
        for piece, before_stop_m in ((far, np.inf), (near, 0.0)):
            found = self._line(lane, before_stop_m, outermost)
            if found is not None and len(piece) > 1:
                self._stroke(piece, found)
        if lane.spec.turns_by_hour and "variable" in paint:
            for side in (half - 0.5, 0.5 - half):
                self._stroke(_cut(_beside(xy, side), 40.0)[1], paint["variable"])

    def _line(self, lane: LaneLine, before_stop_m: float, outermost: bool) -> Paint | None:
        """The paint on the middle side of a lane, as the lane itself says or as the region usually has it; None for none."""
        usual = self.roads.line_between(lane.kind, before_stop_m=before_stop_m, outermost=outermost)
        asked = lane.spec.line_left
        if asked and before_stop_m == 0.0 and lane.spec.solid_end_m:
            asked = "solid"
        if asked in ("", usual.meaning):
            return usual
        if asked == "none":
            return None
        dash = usual.dash_m or self.roads.paint.get("car", usual).dash_m or (4.0, 6.0)
        return replace(
            usual, dash_m=dash if asked == "dashed" else None, double_gap_m=0.14 if asked == "double_solid" else None
        )

    def _at_its_end(self, edge: Edge, lane: LaneLine) -> None:
        """The stop line, and the arrows before it."""
        paint, approach = self.roads.paint, self.roads.approach
        along, across = _ends(lane)
        end = lane.xy_N2[-1]
        if edge.stop_rule != "none":
            line = paint["give_way"] if edge.stop_rule == "give_way" and "give_way" in paint else paint["stop"]
            at = end - along * approach.stop_gap_m
            self._stroke(np.array([at + across * lane.width_m / 2, at - across * lane.width_m / 2]), line)
        names = [name for name, bit in TURNS.items() if lane.spec.turns & bit]
        glyph = _ARROWS.get("_".join(names))
        if not names or glyph not in self.glyphs:
            return
        for before_m in approach.arrow_at_m:
            if before_m + approach.arrow_length_m + 1.0 < lane.length_m:
                box = (approach.arrow_width_m, approach.arrow_length_m)
                self._stamp(f"@{glyph}", *on_lane(lane, -before_m - approach.stop_gap_m), box, approach.colour)

    def _words(self, lane: LaneLine) -> None:
        for word in self.roads.lane_text:
            if word.kind != lane.kind:
                continue
            for at_m in np.arange(16.0, lane.length_m - 34.0, word.every_m):
                box = (min(lane.width_m * 0.6, 1.8), word.height_m)
                self._stamp(_read_from_near(word.text), *on_lane(lane, float(at_m)), box, word.colour)

    def _through_junction(self, edge: Edge) -> None:
        """Guide lines and waiting areas of turns across the oncoming traffic."""
        town, paint = self.town, self.roads.paint
        far = RouteCommand.LEFT if self.roads.inward > 0 else RouteCommand.RIGHT
        for following in town.net.successors.get(edge.id, ()):
            if town.command(edge.id, following) is not far or edge.stop_rule != "light":
                continue
            lane = edge.lanes[town.lanes_for(edge.id, following)[-1]]
            inside = town.inside(edge.id, following, lane.index)
            if inside is None or len(inside) < 4:
                continue
            if "guide" in paint:
                self._stroke(_cut(_beside(inside, -lane.width_m / 2 * self.roads.inward), 1.0)[0][2:], paint["guide"])
            if lane.spec.waiting_m and self.roads.waiting_area is not None:
                self._waiting_area(np.vstack([lane.xy_N2[-1:], inside]), lane)

    def _waiting_area(self, xy: Floats, lane: LaneLine) -> None:
        area = self.roads.waiting_area
        if area is None:
            return
        box = _upto(xy, lane.spec.waiting_m)
        half = lane.width_m / 2 - 0.1
        for side in (half, -half):
            self._stroke(_beside(box, side), area.paint)
        ahead = (box[-1] - box[-2]) / np.hypot(*(box[-1] - box[-2]))
        across = np.array([-ahead[1], ahead[0]]) * half
        self._stroke(np.array([box[-1] + across, box[-1] - across]), replace(self.roads.paint["stop"], width_m=0.3))
        middle = box[len(box) // 2]
        tall = min(4.0, lane.spec.waiting_m * 0.6)
        self._stamp(_read_from_near(area.text), middle + ahead * tall / 2, ahead, (1.5, tall), area.paint.colour)

    def _crosswalk(self, corners_42: Floats) -> None:
        """Corners: far edge at the kerb, far edge across, near edge across, near edge at the kerb."""
        style = self.roads.crosswalk
        if style is None:
            return
        far, near = (corners_42[0], corners_42[1]), (corners_42[3], corners_42[2])
        length = float(np.hypot(*(far[1] - far[0])))
        if style.style in ("zebra", "ladder"):
            for start in np.arange(0.4, length - style.bar_m, style.bar_m + style.gap_m):
                share = np.array([start, start + style.bar_m]) / length
                quad = [far[0] + (far[1] - far[0]) * share[0], far[0] + (far[1] - far[0]) * share[1]]
                quad += [near[0] + (near[1] - near[0]) * share[1], near[0] + (near[1] - near[0]) * share[0]]
                cv2.fillPoly(self.picture, [self._at(np.array(quad))], style.colour, cv2.LINE_AA, 4)
        if style.style in ("lines", "ladder"):
            for a, b in (far, near):
                self._stroke(np.array([a, b]), Paint(colour=style.colour, width_m=0.3))

    def _stroke(self, xy: Floats, paint: Paint) -> None:
        if paint.double_gap_m is not None:
            side, single = (paint.double_gap_m + paint.width_m) / 2, replace(paint, double_gap_m=None)
            self._stroke(_beside(xy, side), single)
            self._stroke(_beside(xy, -side), single)
            return
        if paint.zigzag_m is not None:
            xy, paint = _zigzag(xy, paint.zigzag_m), replace(paint, zigzag_m=None)
        pieces = [xy] if paint.dash_m is None else _dashes(xy, *paint.dash_m)
        if paint.width_m >= CELL_M * 1.5:
            width = max(1, round(paint.width_m / CELL_M))
            at = [self._at(piece) for piece in pieces]
            cv2.polylines(self.picture, at, False, paint.colour, width, cv2.LINE_AA, 4)
            return
        # a line thinner than a cell covers a share of it
        for piece in pieces:
            for quad, _ in _quads(piece, paint.width_m):
                cv2.fillPoly(self.picture, [self._at(quad)], paint.colour, cv2.LINE_AA, 4)

    def _stamp(self, text: str, tip: Floats, along: Floats, box_m: tuple[float, float], colour: Colour) -> None:
        """A symbol or words painted on the ground: `tip` is the middle of the far edge, `along` the reader's direction."""
        width, length = box_m
        scale = 16.0
        mask = np.zeros((max(4, round(length * scale)), max(4, round(width * scale))), np.uint8)
        room = (0.0, 0.0, float(mask.shape[1]), float(mask.shape[0]))
        if text.startswith("@"):
            draw_glyph(mask, self.glyphs[text[1:]], room)
        else:
            draw_text(mask, text, room, self.glyphs, stretch=True)
        right = np.array([along[1], -along[0]])
        corner = (tip - right * width / 2 - self.origin) / CELL_M - 0.5
        per_px = np.column_stack([right, -along]) / scale / CELL_M
        low = (
            np.floor(
                np.min([corner, *(corner + per_px @ p for p in ((room[2], 0), (0, room[3]), room[2:]))], 0)
            ).astype(int)
            - 1
        )
        reach = int(np.hypot(width, length) / CELL_M) + 3
        matrix = np.column_stack([per_px, corner - low])
        cover = cv2.warpAffine(mask, matrix, (reach, reach), flags=cv2.INTER_LINEAR).astype(np.float32)[..., None] / 255
        part = self.picture[low[1] : low[1] + reach, low[0] : low[0] + reach]
        cover = cover[: part.shape[0], : part.shape[1]]
        part[:] = (part * (1 - cover) + np.array(colour, np.float32) * cover).astype(np.uint8)


#: Painted arrows by the names of the turns they allow, in the order of TURNS.
_ARROWS = {
    "straight": "straight",
    "left": "left",
    "right": "right",
    "straight_left": "straight_left",
    "straight_right": "straight_right",
    "left_right": "left_right",
    "straight_left_right": "all_ways",
    "u_turn": "u_turn",
    "left_u_turn": "u_turn_left",
    "straight_left_u_turn": "straight_left",
}


def _read_from_near(text: str) -> str:
    """Words on the road are met one after the other: the first lies nearest, at the foot of the picture."""
    if text.startswith("@"):
        return text
    return " ".join(reversed(text.split() if text.isascii() else list(text)))


def _toned(colour: Colour, tone: float) -> Colour:
    return (min(255, int(colour[0] * tone)), min(255, int(colour[1] * tone)), min(255, int(colour[2] * tone)))


def _ends(lane: LaneLine) -> tuple[Floats, Floats]:
    """Directions at a lane's end: along it, and to its left."""
    along = (lane.xy_N2[-1] - lane.xy_N2[-2]) / np.hypot(*(lane.xy_N2[-1] - lane.xy_N2[-2]))
    return along, np.array([-along[1], along[0]])


def on_lane(lane: LaneLine, at_m: float) -> tuple[Floats, Floats]:
    """A lane's point `at_m` from its start (from its end when negative) and the direction there."""
    xy = lane.xy_N2
    arcs = _arcs(xy)
    at = at_m if at_m >= 0 else arcs[-1] + at_m
    piece = int(np.clip(np.searchsorted(arcs, at) - 1, 0, len(xy) - 2))
    along = (xy[piece + 1] - xy[piece]) / max(float(arcs[piece + 1] - arcs[piece]), 1e-6)
    return xy[piece] + along * (at - arcs[piece]), along


def _arcs(xy: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])


def _cut(xy: Floats, last_m: float) -> tuple[Floats, Floats]:
    """A line without its last metres, and those."""
    arcs = _arcs(xy)
    at = max(float(arcs[-1]) - last_m, 0.0)
    point = np.array([np.interp(at, arcs, xy[:, 0]), np.interp(at, arcs, xy[:, 1])])
    return np.vstack([xy[arcs < at], point]), np.vstack([point, xy[arcs > at]])


def _upto(xy: Floats, first_m: float) -> Floats:
    """A line's first metres, with points about 0.5 m apart."""
    arcs = _arcs(xy)
    at = np.linspace(0.0, min(first_m, float(arcs[-1])), max(4, int(first_m * 2)))
    return np.stack([np.interp(at, arcs, xy[:, 0]), np.interp(at, arcs, xy[:, 1])], 1)


def _zigzag(xy: Floats, step_m: float) -> Floats:
    dense = _upto(xy, float(_arcs(xy)[-1]))[:: max(1, int(step_m * 2))]
    along = np.gradient(dense, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.where(np.arange(len(dense)) % 2, 0.3, -0.3)[:, None]
    return np.asarray(dense + np.stack([-along[:, 1], along[:, 0]], 1) * side, np.float64)


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
