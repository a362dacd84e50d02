"""The camera of the town: ground from the mip-mapped raster, everything upright as ray-cast boxes, in one compiled kernel.

Rule: a picture is a function of (town, boxes, pose, camera) alone. The camera must be level; it sees what the rig's
`core.recording.Camera` describes. It draws shapes and lamps, no shadows, no weather: it tests decisions, not perception.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.recording import Camera
from onshore.world.furniture import Boxes, Furniture
from onshore.world.ground import CELL_M, Ground

MAX_BOXES = 120
FAR_M = 130.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One moment: every upright box but vehicles (`fixed`), and the vehicles."""

    fixed: Boxes
    vehicles: Boxes


class TownCamera:
    """Renders one rig camera in one town."""

    def __init__(self, camera: Camera, ground: Ground, sky: tuple[int, int, int]) -> None:
        x, y, z, roll, pitch, yaw = camera.pose_camera_in_rig
        if any(abs(angle) > 1e-9 for angle in (roll, pitch, yaw)):
            raise InputError("bad_config", f"camera {camera.name}", "the town's camera must be level and look ahead.")
        self.camera, self.ground = camera, ground
        self._offset, self._height_m = (x, y), z
        self._sky = np.array(sky, np.uint8)

    def render(self, scene: Scene, poses_P3: Floats, own_P: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Frames (P, H, W, 3) uint8 RGB from rig poses (x, y, yaw); `own_P` names each pose's own vehicle (-1: none)."""
        poses = np.ascontiguousarray(poses_P3, np.float64).reshape(-1, 3)
        own = np.full(len(poses), -1, np.int64) if own_P is None else np.asarray(own_P, np.int64)
        camera, ground = self.camera, self.ground
        frames = np.empty((len(poses), camera.height_px, camera.width_px, 3), np.uint8)
        eyes = poses.copy()
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        eyes[:, 0] += cos * self._offset[0] - sin * self._offset[1]
        eyes[:, 1] += sin * self._offset[0] + cos * self._offset[1]
        lens = np.array([camera.focal_px, camera.centre_x_px, camera.centre_y_px, self._height_m], np.float32)
        origin = np.array([ground.origin_x_m, ground.origin_y_m])
        _render(
            *(eyes, scene.fixed, scene.vehicles, own, lens, self._sky),
            *(ground.pixels, ground.level_start, ground.level_size, origin, frames),
        )
        return frames


def town_camera(camera: Camera, ground: Ground, furniture: Furniture, sky: tuple[int, int, int]) -> TownCamera:
    """A camera, compiled: the first frame of a process must not pay for the compiler inside a timed run."""
    made = TownCamera(camera, ground, sky)
    empty = np.zeros((0, furniture.fixed.shape[1]), np.float32)
    made.render(Scene(fixed=furniture.fixed, vehicles=empty), np.zeros((1, 3)))
    return made


@numba.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
def _render(eyes, fixed, vehicles, own, lens, sky, pixels, starts, sizes, origin, frames):  # type: ignore[no-untyped-def]
    height, width = frames.shape[1], frames.shape[2]
    depth = np.empty((height, width), np.float32)
    order = np.empty(MAX_BOXES, np.int64)
    near = np.empty(MAX_BOXES, np.float32)
    columns = np.empty((4, width), np.float32)
    for index in range(len(eyes)):
        x, y, yaw = eyes[index, 0], eyes[index, 1], eyes[index, 2]
        cos, sin = math.cos(yaw), math.sin(yaw)
        for v in range(height):
            drop = (v + 0.5 - lens[2]) / lens[0]
            row_depth = lens[3] / drop if drop > 1e-3 else 1e9
            for u in range(width):
                depth[v, u] = row_depth
        count = _visible(fixed, vehicles, own[index], x, y, cos, sin, order, near)
        for rank in range(count):
            box = order[rank]
            row = fixed[box] if box < len(fixed) else vehicles[box - len(fixed)]
            _draw_box(row, x, y, cos, sin, lens, depth, columns, frames[index])
        _draw_ground(x, y, cos, sin, lens, sky, depth, pixels, starts, sizes, origin, frames[index])


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _visible(fixed, vehicles, own, x, y, cos, sin, order, near):  # type: ignore[no-untyped-def]
    """Indices of the nearest boxes in front of the eye, near ones first (insertion sort: lists are short)."""
    count = 0
    total = len(fixed) + len(vehicles)
    for box in range(total):
        row = fixed[box] if box < len(fixed) else vehicles[box - len(fixed)]
        if box - len(fixed) == own:
            continue
        dx, dy = row[0] - x, row[1] - y
        ahead, left = dx * cos + dy * sin, -dx * sin + dy * cos
        reach = row[3] + row[4]
        if ahead < -reach or ahead > FAR_M or abs(left) > (ahead + reach) * 1.3 + 3.0:
            continue
        if count == MAX_BOXES and ahead >= near[count - 1]:
            continue
        place = count if count < MAX_BOXES else count - 1
        while place > 0 and near[place - 1] > ahead:
            near[place], order[place] = near[place - 1], order[place - 1]
            place -= 1
        near[place], order[place] = ahead, box
        count = min(count + 1, MAX_BOXES)
    return count


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _screen_box(row, x, y, cos, sin, lens, width, height):  # type: ignore[no-untyped-def]
    """(first column, last, first row, last, nearest depth) a box may cover; last < first when it covers nothing."""
    cb, sb = math.cos(row[6]), math.sin(row[6])
    u0, u1, v0, v1, nearest = 1e9, -1e9, 1e9, -1e9, 1e9
    behind = 0
    for corner in range(8):
        bx = row[3] if corner & 1 else -row[3]
        by = row[4] if corner & 2 else -row[4]
        up = row[2] + (row[5] if corner & 4 else -row[5]) - lens[3]
        wx, wy = cb * bx - sb * by + row[0] - x, sb * bx + cb * by + row[1] - y
        ahead, left = cos * wx + sin * wy, -sin * wx + cos * wy
        nearest = min(nearest, ahead)
        if ahead > 0.3:
            u, v = lens[1] - lens[0] * left / ahead, lens[2] - lens[0] * up / ahead
            u0, u1, v0, v1 = min(u0, u), max(u1, u), min(v0, v), max(v1, v)
        else:
            behind += 1
    if behind == 8:
        return 0, -1, 0, -1, nearest
    if behind:
        return 0, width - 1, 0, height - 1, 0.1
    u0, u1 = max(u0 - 1.0, 0.0), min(u1 + 1.0, width - 1.0)
    v0, v1 = max(v0 - 1.0, 0.0), min(v1 + 1.0, height - 1.0)
    return int(u0), int(u1) if u1 >= u0 else -1, int(v0), int(v1) if v1 >= v0 else -1, nearest


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _draw_box(row, x, y, cos, sin, lens, depth, columns, frame):  # type: ignore[no-untyped-def]
    """Slab test per pixel, separated: a column's entry into the two upright slabs, a row's into the flat one."""
    height, width = depth.shape
    u0, u1, v0, v1, nearest = _screen_box(row, x, y, cos, sin, lens, width, height)
    if u1 < u0 or v1 < v0:
        return
    cb, sb = math.cos(row[6]), math.sin(row[6])
    rx, ry = x - row[0], y - row[1]
    ox, oy, oz = cb * rx + sb * ry, -sb * rx + cb * ry, lens[3] - row[2]
    for u in range(u0, u1 + 1):
        left = (lens[1] - u - 0.5) / lens[0]
        dx, dy = cos - sin * left, sin + cos * left
        ex, ey = cb * dx + sb * dy + 1e-9, -sb * dx + cb * dy + 1e-9
        a, b = (-row[3] - ox) / ex, (row[3] - ox) / ex
        c, d = (-row[4] - oy) / ey, (row[4] - oy) / ey
        enter_x, enter_y = min(a, b), min(c, d)
        columns[0, u] = max(0.1, max(enter_x, enter_y))
        columns[1, u] = min(max(a, b), max(c, d))
        columns[2, u] = ey
        columns[3, u] = (1.0 if ex > 0 else -1.0) if enter_x >= enter_y else 0.0
    for v in range(v0, v1 + 1):
        up = (lens[2] - v - 0.5) / lens[0] + 1e-7
        a, b = (-row[5] - oz) / up, (row[5] - oz) / up
        enter_z, leave_z = min(a, b), max(a, b)
        for u in range(u0, u1 + 1):
            limit = depth[v, u]
            if limit <= nearest:
                continue
            enter = max(columns[0, u], enter_z)
            if enter < min(limit, min(columns[1, u], leave_z)):
                depth[v, u] = enter
                face = 2.0 if enter_z > columns[0, u] else columns[3, u]
                _shade(row, face, oz + enter * up, oy + enter * columns[2, u], enter, frame[v, u])


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _shade(row, face, up, across, enter, pixel):  # type: ignore[no-untyped-def]
    """face: 1 rear, -1 front, 0 side, 2 top; `up`, `across`: the hit point from the box's centre."""
    mode = row[10]
    light = 255.0 if mode == 2 else (230.0 if face == 2.0 else (184.0 if face != 0.0 else 140.0))
    red, green, blue = row[7] * light, row[8] * light, row[9] * light
    if mode == 1 and face != 2.0 and enter < 60.0:
        floor = (up + row[5]) / 3.0
        if floor - math.floor(floor) > 0.45 and floor > 0.3:
            red, green, blue = red * 0.75, green * 0.78, blue * 0.85
    elif mode >= 3 and (face == 1.0 or face == -1.0):
        lamp = up < 0.0 and abs(across) > row[4] * 0.45
        if face == 1.0 and lamp:
            red, green, blue = (255.0 if mode == 4 else 120.0), 20.0, 20.0
        elif lamp:
            red, green, blue = 250.0, 250.0, 220.0
        elif up > 0.25:
            red, green, blue = 40.0, 45.0, 55.0
    elif mode >= 3 and face == 0.0 and up > row[5] * 0.3 and row[4] > 0.6:
        red, green, blue = 50.0, 56.0, 66.0
    pixel[0], pixel[1], pixel[2] = np.uint8(min(red, 255.0)), np.uint8(min(green, 255.0)), np.uint8(min(blue, 255.0))


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _draw_ground(x, y, cos, sin, lens, sky, depth, pixels, starts, sizes, origin, frame):  # type: ignore[no-untyped-def]
    """Ground and sky where no box was drawn: bilinear in the level whose cells match the pixel's footprint."""
    height, width = depth.shape
    for v in range(height):
        drop = (v + 0.5 - lens[2]) / lens[0]
        if drop <= 1e-3:
            for u in range(width):
                if depth[v, u] > 9e8:
                    frame[v, u, 0], frame[v, u, 1], frame[v, u, 2] = sky[0], sky[1], sky[2]
            continue
        t = np.float32(lens[3] / drop)
        footprint = max(t / lens[0], t * t / lens[0] / lens[3] * 0.25) / CELL_M
        level = 0
        while footprint > 1.4 and level < len(sizes) - 1:
            footprint *= 0.5
            level += 1
        scale, size, start = 1.0 / (CELL_M * (1 << level)), sizes[level], starts[level]
        # column and row of the raster run linearly along a picture row
        left0, step = (lens[1] - 0.5) / lens[0], -1.0 / lens[0]
        col = np.float32((x + t * (cos - sin * left0) - origin[0]) * scale - 0.5)
        line = np.float32((y + t * (sin + cos * left0) - origin[1]) * scale - 0.5)
        col_step, line_step = np.float32(-t * sin * step * scale), np.float32(t * cos * step * scale)
        limit = np.float32(size) - np.float32(1.001)
        for u in range(width):
            if depth[v, u] < t:
                continue
            c = min(max(col + col_step * np.float32(u), np.float32(0.0)), limit)
            r = min(max(line + line_step * np.float32(u), np.float32(0.0)), limit)
            j, i = int(c), int(r)
            wc, wr = np.int32((c - j) * 64.0), np.int32((r - i) * 64.0)
            at = start + i * size + j
            w11 = wc * wr
            w10, w01 = wr * 64 - w11, wc * 64 - w11
            w00 = 4096 - wr * 64 - wc * 64 + w11
            for k in range(3):
                total = (
                    pixels[at, k] * w00
                    + pixels[at + 1, k] * w01
                    + pixels[at + size, k] * w10
                    + pixels[at + size + 1, k] * w11
                )
                frame[v, u, k] = np.uint8(total >> 12)
