"""The camera of the town: ground from the mip-mapped raster, upright things as ray-cast boxes, signs and lamps from an atlas.

Rule: a picture is a function of (town, scene, pose, camera, look) alone. Nearer things hide farther ones by depth, pixel by
pixel; signs and lamps are laid over what is behind them, far ones first. It draws shapes, paint and light, no shadows and no
textures of the real world: it tests decisions, not perception.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.recording import Camera
from onshore.world.furniture import Boxes, Fixed, Furniture
from onshore.world.ground import CELL_M, Ground
from onshore.world.looks import AMBIENT, BEAM, GLOW, HAZE, HAZE_RGB, HORIZON, PLAIN, WET, ZENITH, look_named
from onshore.world.roads import Colour
from onshore.world.signs import LEVELS, SIDE, Atlas

MAX_BOXES = 160
MAX_DECALS = 120
FAR_M = 130.0
#: Nothing is seen nearer than this, and no box that ends before BLIND_M.
NEAR_M, BLIND_M = 0.1, 0.3
#: A tilted camera is cut out of a level one; rays steeper or farther aside than this are not seen by any level picture.
WIDEST_RAD = 1.4
Floats = NDArray[np.float64]
Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One moment: what stands in the town (`fixed`: boxes, signs and lamps), vehicles as boxes, and what their lamps show."""

    fixed: Fixed
    vehicles: Boxes
    look: str = "day"


class TownCamera:
    """Renders one rig camera in one town, at its own pose in the rig."""

    def __init__(self, camera: Camera, ground: Ground, atlas: Atlas, sky: Colour) -> None:
        self.camera, self.ground, self.atlas = camera, ground, atlas
        x, y, z, _, _, yaw = camera.pose_camera_in_rig
        self._offset, self._yaw, self._sky = (x, y), yaw, sky
        self._level, self._cut = _level_camera(camera)
        self._lens = np.array(
            [self._level.focal_px, self._level.centre_x_px, self._level.centre_y_px, z, yaw], np.float32
        )
        self._origin = np.array([ground.origin_x_m, ground.origin_y_m])
        self._looks: dict[str, NDArray[np.float32]] = {}

    def render(self, scene: Scene, poses_P3: Floats, own_P: NDArray[np.int64] | None = None) -> Frames:
        """Frames (P, H, W, 3) uint8 RGB from rig poses (x, y, yaw); `own_P` names each pose's own vehicle (-1: none)."""
        poses = np.ascontiguousarray(poses_P3, np.float64).reshape(-1, 3)
        own = np.full(len(poses), -1, np.int64) if own_P is None else np.asarray(own_P, np.int64)
        level, ground, atlas = self._level, self.ground, self.atlas
        frames = np.empty((len(poses), level.height_px, level.width_px, 3), np.uint8)
        eyes = poses.copy()
        cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        eyes[:, 0] += cos * self._offset[0] - sin * self._offset[1]
        eyes[:, 1] += sin * self._offset[0] + cos * self._offset[1]
        eyes[:, 2] += self._yaw
        if scene.look not in self._looks:
            self._looks[scene.look] = look_named(scene.look).vector(self._sky)
        _render(
            *(eyes, scene.fixed.boxes, scene.vehicles, scene.fixed.decals, own, self._lens, self._looks[scene.look]),
            *(ground.pixels, ground.level_start, ground.level_size, self._origin),
            *(atlas.texels, atlas.level_start, atlas.index["lamp_glow"], frames),
        )
        return frames if self._cut is None else self._tilted(frames, self._cut)

    def _tilted(self, frames: Frames, cut: Floats) -> Frames:
        """Turning a pinhole camera about its own centre moves pixels by a homography, whatever stands before it."""
        size = (self.camera.width_px, self.camera.height_px)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.stack([np.asarray(cv2.warpPerspective(frame, cut, size, flags=flags), np.uint8) for frame in frames])


def _level_camera(camera: Camera) -> tuple[Camera, Floats | None]:
    """The level camera that sees all a pitched and rolled one sees, and the homography (its pixel to the level one's)."""
    _, _, _, roll, pitch, _ = camera.pose_camera_in_rig
    if abs(roll) < 1e-9 and abs(pitch) < 1e-9:
        return camera, None
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    # camera axes (x ahead, y left, z up): pitch down about y after roll about x
    turn = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    f, cx, cy = camera.focal_px, camera.centre_x_px, camera.centre_y_px
    ray_of_pixel = np.array([[0, 0, 1.0], [-1 / f, 0, cx / f], [0, -1 / f, cy / f]])
    w, h = camera.width_px, camera.height_px
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], np.float64).T
    rays = turn @ ray_of_pixel @ corners
    if (np.arctan2(np.hypot(rays[1], rays[2]), rays[0]) > WIDEST_RAD).any():
        raise InputError(
            "bad_config", f"camera {camera.name}", "it looks too far up, down or aside for the town's camera."
        )
    left, up = rays[1] / rays[0] * f, rays[2] / rays[0] * f
    centre_x, centre_y = math.ceil(left.max()) + 1.0, math.ceil(up.max()) + 1.0
    level = replace(
        camera,
        width_px=int(centre_x - math.floor(left.min()) + 1),
        height_px=int(centre_y - math.floor(up.min()) + 1),
        centre_x_px=centre_x,
        centre_y_px=centre_y,
    )
    pixel_of_ray = np.array([[centre_x, -f, 0], [centre_y, 0, -f], [1, 0, 0]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    return level, np.linalg.inv(half) @ pixel_of_ray @ turn @ ray_of_pixel @ half


def town_camera(camera: Camera, ground: Ground, furniture: Furniture, sky: Colour) -> TownCamera:
    """A camera, compiled: the first frame of a process must not pay for the compiler inside a timed run."""
    made = TownCamera(camera, ground, furniture.atlas, sky)
    made.render(Scene(fixed=furniture.standing, vehicles=furniture.standing.boxes[:0]), np.zeros((1, 3)))
    return made


@numba.njit(fastmath=True, error_model="numpy", cache=True, nogil=True)
def _render(  # type: ignore[no-untyped-def]
    eyes, fixed, vehicles, decals, own, lens, look, pixels, starts, sizes, origin, texels, levels, halo, frames
):
    height, width = frames.shape[1], frames.shape[2]
    depth = np.empty((height, width), np.float32)
    rows = np.empty(height, np.float32)
    shine = np.empty((height, width), np.uint8)
    order, near = np.empty(MAX_BOXES, np.int64), np.empty(MAX_BOXES, np.float32)
    columns = np.empty((4, width), np.float32)
    plain = look[PLAIN] > 0.5
    for v in range(height):
        drop = (v + 0.5 - lens[2]) / lens[0]
        rows[v] = lens[3] / drop if drop > 1e-3 else 1e9
    for index in range(len(eyes)):
        x, y, yaw = eyes[index, 0], eyes[index, 1], eyes[index, 2]
        cos, sin = math.cos(yaw), math.sin(yaw)
        for v in range(height):
            for u in range(width):
                depth[v, u] = rows[v]
                shine[v, u] = 0
        spread = max(lens[1], width - lens[1]) / lens[0]
        count = _visible(fixed, vehicles, own[index], x, y, cos, sin, spread, order, near)
        for rank in range(count):
            box = order[rank]
            row = fixed[box] if box < len(fixed) else vehicles[box - len(fixed)]
            _draw_box(row, x, y, cos, sin, lens, depth, columns, shine, frames[index])
        _draw_ground(x, y, cos, sin, lens, look, depth, pixels, starts, sizes, origin, frames[index])
        if not plain:
            _light_up(lens, look, rows, depth, shine, frames[index])
        count = _visible_decals(decals, x, y, cos, sin, spread, order, near)
        for rank in range(count - 1, -1, -1):
            row = decals[order[rank]]
            for kind in range(3 if row[10] > 0.5 else 1):
                if kind == 0 or look[GLOW if kind == 1 else WET] > 0.0:
                    _draw_decal(row, kind, halo, x, y, cos, sin, lens, look, rows, depth, texels, levels, frames[index])


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _visible(fixed, vehicles, own, x, y, cos, sin, spread, order, near):  # type: ignore[no-untyped-def]
    """Indices of the nearest boxes in front of the eye, near ones first (insertion sort: lists are short)."""
    count = 0
    total = len(fixed) + len(vehicles)
    for box in range(total):
        row = fixed[box] if box < len(fixed) else vehicles[box - len(fixed)]
        if own >= 0 and box >= len(fixed) and int(row[11]) == own:
            continue
        dx, dy = row[0] - x, row[1] - y
        ahead, left = dx * cos + dy * sin, -dx * sin + dy * cos
        reach = row[3] + row[4]
        if ahead < -reach or ahead > FAR_M or abs(left) > (ahead + reach) * spread + reach + 1.0:
            continue
        if count == MAX_BOXES and ahead >= near[count - 1]:
            continue
        count = _insert(order, near, count, MAX_BOXES, box, ahead)
    return count


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _visible_decals(decals, x, y, cos, sin, spread, order, near):  # type: ignore[no-untyped-def]
    count = 0
    for index in range(len(decals)):
        dx, dy = decals[index, 0] - x, decals[index, 1] - y
        ahead = dx * cos + dy * sin
        if ahead < 0.3 or ahead > FAR_M or abs(-dx * sin + dy * cos) > ahead * spread + 1.5:
            continue
        if count == MAX_DECALS and ahead >= near[count - 1]:
            continue
        count = _insert(order, near, count, MAX_DECALS, index, ahead)
    return count


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _insert(order, near, count, most, item, ahead):  # type: ignore[no-untyped-def]
    place = count if count < most else count - 1
    while place > 0 and near[place - 1] > ahead:
        near[place], order[place] = near[place - 1], order[place - 1]
        place -= 1
    near[place], order[place] = ahead, item
    return min(count + 1, most)


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _screen_box(row, x, y, cos, sin, lens, width, height):  # type: ignore[no-untyped-def]
    """(first column, last, first row, last, nearest depth) a box may cover; last < first when it covers nothing."""
    cb, sb = math.cos(row[6]), math.sin(row[6])
    low, high = row[2] - row[5] - lens[3], row[2] + row[5] - lens[3]
    u0, u1, v0, v1, nearest, farthest = 1e9, -1e9, 1e9, -1e9, 1e9, -1e9
    ahead, left = 0.0, 0.0
    for corner in range(
        -1, 4
    ):  # around the footprint, beginning with the last corner, so that every side has both its ends
        bx = row[3] if corner == 0 or corner == 3 or corner == -1 else -row[3]
        by = row[4] if corner == 0 or corner == 1 else -row[4]
        wx, wy = cb * bx - sb * by + row[0] - x, sb * bx + cb * by + row[1] - y
        before, left_before = ahead, left
        ahead, left = cos * wx + sin * wy, -sin * wx + cos * wy
        if corner < 0:
            continue
        nearest, farthest = min(nearest, ahead), max(farthest, ahead)
        if (before > NEAR_M) != (ahead > NEAR_M):  # a side that comes from behind is seen from the nearest depth on
            u = lens[1] - lens[0] * (left_before + (NEAR_M - before) / (ahead - before) * (left - left_before)) / NEAR_M
            u0, u1 = min(u0, u), max(u1, u)
            v0, v1 = min(v0, lens[2] - lens[0] * high / NEAR_M), max(v1, lens[2] - lens[0] * low / NEAR_M)
        if ahead > NEAR_M:
            u = lens[1] - lens[0] * left / ahead
            u0, u1 = min(u0, u), max(u1, u)
            v0, v1 = min(v0, lens[2] - lens[0] * high / ahead), max(v1, lens[2] - lens[0] * low / ahead)
    if farthest <= BLIND_M:
        return 0, -1, 0, -1, nearest
    u0, u1 = max(u0 - 1.0, 0.0), min(u1 + 1.0, width - 1.0)
    v0, v1 = max(v0 - 1.0, 0.0), min(v1 + 1.0, height - 1.0)
    return int(u0), int(u1) if u1 >= u0 else -1, int(v0), int(v1) if v1 >= v0 else -1, max(nearest, NEAR_M)


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _draw_box(row, x, y, cos, sin, lens, depth, columns, shine, frame):  # type: ignore[no-untyped-def]
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
        columns[0, u] = max(NEAR_M, max(enter_x, enter_y))
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
                across = oy + enter * columns[2, u]
                ahead = ox + enter * (
                    cb * (cos - sin * (lens[1] - u - 0.5) / lens[0]) + sb * (sin + cos * (lens[1] - u - 0.5) / lens[0])
                )
                shine[v, u] = _shade(row, face, oz + enter * up, across, ahead, enter, frame[v, u])


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _shade(row, face, up, across, ahead, enter, pixel):  # type: ignore[no-untyped-def]
    """face: 1 rear, -1 front, 0 side, 2 top; up, across, ahead: the hit point from the box's centre. Returns how it shines."""
    mode = row[10]
    light = 255.0 if mode == 2 else (230.0 if face == 2.0 else (184.0 if face != 0.0 else 140.0))
    red, green, blue = row[7] * light, row[8] * light, row[9] * light
    shine = 0
    if mode == 1 and face != 2.0 and enter < 70.0:
        storey = row[12]
        floor = (up + row[5]) / storey
        along = (across if face != 0.0 else ahead) / 2.6 + 100.0
        in_floor, in_bay = floor - math.floor(floor), along - math.floor(along)
        if in_floor > 0.4 and in_floor < 0.85 and floor > 0.3 and (in_bay > 0.3 or enter > 45.0):
            red, green, blue = red * 0.62, green * 0.66, blue * 0.75
            if (int(floor) * 7919 + int(along) * 104729 + int(abs(row[0]) * 31.0)) % 5 == 0:
                shine = 150
    elif mode == 3 or mode == 4:
        lamp = abs(across) > row[4] * 0.55 and up > -row[5] * 0.2 and up < row[5] * 0.45
        if face == 1.0 and lamp:
            red, green, blue, shine = (255.0 if mode == 4 else 150.0), 20.0, 20.0, (255 if mode == 4 else 170)
        elif face == -1.0 and lamp:
            red, green, blue, shine = 250.0, 250.0, 220.0, 255
        elif up < -row[5] * 0.62 and face != 2.0:
            red, green, blue = red * 0.35, green * 0.35, blue * 0.35
        elif row[12] > 0.5 and up > row[5] * 0.15 and up < row[5] * 0.75 and face != 2.0:
            red, green, blue = 48.0, 54.0, 64.0
    elif mode == 5 and face != 2.0:
        red, green, blue = 46.0, 52.0, 62.0
    elif mode == 6:
        spot = math.sin(across * 5.1 + row[0]) * math.sin(up * 6.3 + ahead) + 0.6 * math.sin(ahead * 9.1) * math.sin(
            across * 3.0 - up * 8.7
        )
        red, green, blue = red * (0.9 + 0.1 * spot), green * (0.9 + 0.1 * spot), blue * (0.9 + 0.1 * spot)
    elif mode == 7:
        band = (up + row[5]) * 3.0
        if band - math.floor(band) > 0.5 and face != 2.0:
            red, green, blue = 200.0, 200.0, 200.0
    elif mode == 2:
        shine = 255
    pixel[0], pixel[1], pixel[2] = np.uint8(min(red, 255.0)), np.uint8(min(green, 255.0)), np.uint8(min(blue, 255.0))
    return shine


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _draw_ground(x, y, cos, sin, lens, look, depth, pixels, starts, sizes, origin, frame):  # type: ignore[no-untyped-def]
    """Ground and sky where no box was drawn: bilinear in the level whose cells match the pixel's footprint."""
    height, width = depth.shape
    for v in range(height):
        drop = (v + 0.5 - lens[2]) / lens[0]
        if drop <= 1e-3:
            share = min(max(-drop * 2.2, 0.0), 1.0)
            red, green, blue = (
                np.uint8(look[HORIZON] * (1.0 - share) + look[ZENITH] * share),
                np.uint8(look[HORIZON + 1] * (1.0 - share) + look[ZENITH + 1] * share),
                np.uint8(look[HORIZON + 2] * (1.0 - share) + look[ZENITH + 2] * share),
            )
            for u in range(width):
                if depth[v, u] > 9e8:
                    frame[v, u, 0], frame[v, u, 1], frame[v, u, 2] = red, green, blue
            continue
        t = np.float32(lens[3] / drop)
        footprint = max(t / lens[0], t * t / lens[0] / lens[3] * 0.25) / CELL_M
        level = 0
        while footprint > 1.4 and level < len(sizes) - 1:
            footprint *= 0.5
            level += 1
        scale, size, start = 1.0 / (CELL_M * (1 << level)), sizes[level], starts[level]
        one, below_by = np.uintp(1), np.uintp(size)
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
            at = np.uintp(start + i * size + j)  # unsigned: nothing is counted from the end
            here, below = pixels[at], pixels[at + below_by]
            right, across = pixels[at + one], pixels[at + below_by + one]
            w11 = wc * wr
            w10, w01 = wr * 64 - w11, wc * 64 - w11
            w00 = 4096 - wr * 64 - wc * 64 + w11
            for k in range(3):
                total = here[k] * w00 + right[k] * w01 + below[k] * w10 + across[k] * w11
                frame[v, u, k] = np.uint8(total >> 12)


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _beam(t, left, up, lens, look):  # type: ignore[no-untyped-def]
    """Own headlights at a point of the picture: `left`, `up` metres from the camera's axis. Low beams fall off above 1 m."""
    turn = lens[4]
    ahead = t - left * turn if abs(turn) < 0.2 else t * math.cos(turn) - left * math.sin(turn)
    aside = left + t * turn if abs(turn) < 0.2 else t * math.sin(turn) + left * math.cos(turn)
    if ahead < 1.0:
        return 0.0
    wide = aside / (1.6 + 0.42 * ahead)
    high = max(0.0, up + lens[3] - 1.0) / (1.0 + 0.06 * ahead)
    return look[BEAM] * _fades(wide * wide + ahead / 26.0 + high) * ahead / (ahead + 2.0)


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _fades(x):  # type: ignore[no-untyped-def]
    """About exp(-x) for x >= 0, four times as fast: close enough for light."""
    y = 1.0 + x * (0.25 + x * 0.03125)
    y *= y
    return 1.0 / (y * y)


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _light_up(lens, look, rows, depth, shine, frame):  # type: ignore[no-untyped-def]
    """What the look does to the finished picture: light, wet ground, what shines of itself, haze."""
    height, width = depth.shape
    for v in range(height):
        rise = (lens[2] - v - 0.5) / lens[0]
        for u in range(width):
            t = depth[v, u]
            if t > 9e8:
                continue
            left = (lens[1] - u - 0.5) / lens[0] * t
            beam = _beam(t, left, rise * t, lens, look)
            own = shine[v, u] / 255.0
            wet = look[WET] if t == rows[v] else 0.0
            mirror = wet * min(0.08 + t * 0.012, 0.5)
            left_of_haze = _fades(t * look[HAZE])
            for k in range(3):
                light = max(min(look[AMBIENT + k] + beam, 1.25), own)
                tone = frame[v, u, k] * (1.0 - 0.38 * wet) * light
                if own > 0.4 and own < 0.65:
                    tone = max(tone, (235.0 - 50.0 * k) * own * (1.0 - look[AMBIENT]))
                tone = tone * (1.0 - mirror) + look[HORIZON + k] * mirror
                tone = tone * left_of_haze + look[HAZE_RGB + k] * (1.0 - left_of_haze)
                frame[v, u, k] = np.uint8(min(tone, 255.0))


@numba.njit(fastmath=True, error_model="numpy", cache=True)
def _draw_decal(row, kind, halo, x, y, cos, sin, lens, look, rows, depth, texels, levels, frame):  # type: ignore[no-untyped-def]
    """kind 0: the face itself; 1: the halo around a burning lamp; 2: its mirror image on wet ground."""
    height, width = depth.shape
    face, half_w, half_h, z = int(row[6]), row[3], row[4], row[2]
    if kind == 1:
        face, half_w, half_h = halo, half_w * 2.4, half_h * 2.4
    elif kind == 2:
        face, half_w, half_h, z = halo, half_w * 1.5, half_h * 4.5, -z
    ny, nx = math.sin(row[5]), math.cos(row[5])
    rx, ry = row[0] - x, row[1] - y
    ahead, left = rx * cos + ry * sin, -rx * sin + ry * cos
    lean = -ny * cos + nx * sin
    slide = ny * sin + nx * cos
    near_a, far_a = ahead - lean * half_w, ahead + lean * half_w
    if min(near_a, far_a) < 0.3:
        return
    ua = lens[1] - lens[0] * (left - slide * half_w) / near_a
    ub = lens[1] - lens[0] * (left + slide * half_w) / far_a
    u0, u1 = int(max(min(ua, ub), 0.0)), int(min(max(ua, ub), width - 1.0))
    plane = rx * nx + ry * ny
    own = row[10] if kind == 0 else 1.0
    strength = 1.0 if kind == 0 else (0.55 * look[GLOW] if kind == 1 else 0.5 * look[WET])
    for u in range(u0, u1 + 1):
        aside = (lens[1] - u - 0.5) / lens[0]
        dx, dy = cos - sin * aside, sin + cos * aside
        facing = dx * nx + dy * ny
        if abs(facing) < 0.02 or (facing < 0.0 and row[10] > 0.5):
            continue
        t = plane / facing
        if t < 0.3:
            continue
        offset = (dx * t - rx) * -ny + (dy * t - ry) * nx
        s = 0.5 - 0.5 * offset / half_w
        if s < 0.0 or s > 1.0:
            continue
        top = lens[2] - lens[0] * (z + half_h - lens[3]) / t
        tall = lens[0] * 2.0 * half_h / t
        v0, v1 = int(max(top, 0.0)), int(min(top + tall, height - 1.0))
        footprint = SIDE * max(1.0 / tall, min(t / (lens[0] * 2.0 * half_w * max(abs(facing), 0.05)), 3.0 / tall))
        level = 0
        while footprint > 1.3 and level < LEVELS - 1:
            footprint *= 0.5
            level += 1
        side = SIDE >> level
        start = face * levels[LEVELS] + levels[level]
        haze = _fades(t * look[HAZE])
        back = facing < 0.0
        for v in range(v0, v1 + 1):
            r = (v + 0.5 - top) / tall
            if r < 0.0 or r > 1.0 or (depth[v, u] < t - 0.15 if kind != 2 else depth[v, u] != rows[v]):
                continue
            c, w = s * side - 0.5, r * side - 0.5
            c, w = min(max(c, 0.0), side - 1.001), min(max(w, 0.0), side - 1.001)
            j, i = int(c), int(w)
            fc, fw = c - j, w - i
            at = start + i * side + j
            below = at + (side if side > 1 else 0)
            step = 1 if side > 1 else 0
            cover = (texels[at, 3] * (1 - fc) + texels[at + step, 3] * fc) * (1 - fw) + (
                texels[below, 3] * (1 - fc) + texels[below + step, 3] * fc
            ) * fw
            if cover < 1.0:
                continue
            cover *= strength / 255.0
            beam = _beam(t, aside * t, -lens[3], lens, look) * 1.6 if own < 0.5 else 0.0
            for k in range(3):
                tone = (texels[at, k] * (1 - fc) + texels[at + step, k] * fc) * (1 - fw) + (
                    texels[below, k] * (1 - fc) + texels[below + step, k] * fc
                ) * fw
                tone = (95.0 * cover if back else tone * row[7 + k] * strength) * max(
                    own, min(look[AMBIENT + k] + beam, 1.05)
                )
                tone = tone * haze + look[HAZE_RGB + k] * (1.0 - haze) * cover * (1.0 if kind == 0 else 0.0)
                under = frame[v, u, k] * ((1.0 - cover) if kind == 0 else 1.0)
                frame[v, u, k] = np.uint8(min(under + tone, 255.0))
