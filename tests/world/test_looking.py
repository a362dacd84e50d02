"""What the camera lets one tell apart: signs by colour and shape at 20 m and by glyph at 6 m, lamps at 40 m, in every look.

A nearest-template classifier is the eye: every sign of the region is drawn once by day against a plain wall, and a crop from
another scene (other background, off the axis, another look) is given to the template it correlates with best.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from onshore.core.recording import Camera
from onshore.region import load_pack, regions
from onshore.world.camera import BLIND_M, NEAR_M, Scene, TownCamera
from onshore.world.furniture import BOX_COLUMNS, DECAL_COLUMNS, LAMP_COLOURS, LAMP_OFF, PLAIN, Fixed, sign_decal
from onshore.world.ground import CELL_M, Ground
from onshore.world.looks import LOOKS
from onshore.world.roads import Roads
from onshore.world.signs import Atlas, build_atlas

Pixels = NDArray[np.float64]
EYE_M = 1.4
BIG = Camera(
    name="big", width_px=512, height_px=256, focal_px=256.0, centre_x_px=256.0, centre_y_px=128.0,
    pose_camera_in_rig=(0.0, 0.0, EYE_M, 0.0, 0.0, 0.0),
)  # fmt: skip
MIDDLE = replace(BIG, width_px=256, height_px=128, focal_px=128.0, centre_x_px=128.0, centre_y_px=64.0)
REGIONS = sorted(region for region in regions() if load_pack(region).roads)


@lru_cache(maxsize=8)
def region_of(name: str) -> tuple[Roads, Atlas]:
    roads = Roads.from_record(name, load_pack(name).roads)
    return roads, build_atlas(roads)


def plain_ground(tone: int) -> Ground:
    size, sizes = 1 << 11, [1 << (11 - level) for level in range(7)]
    pixels = np.full((sum(side * side for side in sizes), 3), tone, np.uint8)
    return Ground(
        origin_x_m=-size * CELL_M / 4,
        origin_y_m=-size * CELL_M / 2,
        pixels=pixels,
        level_start=np.concatenate([[0], np.cumsum(np.array(sizes) ** 2)[:-1]]).astype(np.int64),
        level_size=np.array(sizes, np.int64),
        kind=np.zeros((4, 4), np.uint8),
        direction=np.zeros((4, 4), np.uint8),
    )


GROUND = plain_ground(80)


def picture(
    region: str, camera: Camera, decals: list[tuple[float, ...]], look: str, wall: tuple[float, float, float]
) -> Pixels:
    """One frame of faces before a wall 60 m away."""
    roads, atlas = region_of(region)
    rows = np.array([(60.0, 0.0, 20.0, 1.0, 80.0, 20.0, 0.0, *wall, PLAIN, -1.0, 0.0)], np.float32)
    assert rows.shape[1] == len(BOX_COLUMNS)
    fixed = Fixed(boxes=rows, decals=np.array(decals, np.float32).reshape(-1, len(DECAL_COLUMNS)))
    eye = TownCamera(camera, GROUND, atlas, roads.looks.sky)
    return eye.render(Scene(fixed=fixed, vehicles=rows[:0], look=look), np.zeros((1, 3)))[0].astype(np.float64)


def covered(camera: Camera, box: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Every pixel whose ray meets a box (x, y, z, half sizes, yaw) beyond the nearest depth: all rays against all of it."""
    x, y, z, hx, hy, hz, yaw = (float(value) for value in box[:7])
    left = (camera.centre_x_px - np.arange(camera.width_px) - 0.5)[None] / camera.focal_px
    up = (camera.centre_y_px - np.arange(camera.height_px) - 0.5)[:, None] / camera.focal_px
    cos, sin = np.cos(yaw), np.sin(yaw)
    eye, ray = (-x * cos - y * sin, x * sin - y * cos, EYE_M - z), (cos + left * sin, -sin + left * cos, up)
    enter, leave = np.full((camera.height_px, camera.width_px), NEAR_M), np.full((1, 1), np.inf)
    for start, step, half in zip(eye, ray, (hx, hy, hz), strict=True):
        ends = np.sort(np.stack(np.broadcast_arrays((-half - start) / step, (half - start) / step)), 0)
        enter, leave = np.maximum(enter, ends[0]), np.minimum(leave, ends[1])
    return enter < leave


def test_a_box_beside_or_behind_the_camera_covers_what_its_rays_say() -> None:
    rng, (roads, atlas) = np.random.default_rng(5), region_of("us")
    eye, straddling = TownCamera(MIDDLE, GROUND, atlas, roads.looks.sky), 0
    for _ in range(300):
        half = rng.uniform((0.2, 0.2, 0.2), (6.0, 3.0, 3.0))
        x, y, yaw = rng.uniform((-6.0, -6.0, -3.2), (8.0, 6.0, 3.2))
        row = np.array([(x, y, half[2], *half, yaw, 1.0, 0.0, 0.0, PLAIN, -1.0, 0.0)], np.float32)
        if (
            abs(x * np.cos(yaw) + y * np.sin(yaw)) < half[0] + 0.2
            and abs(x * np.sin(yaw) - y * np.cos(yaw)) < half[1] + 0.2
        ):
            continue  # the camera is inside
        corners = [x + a * half[0] * np.cos(yaw) - b * half[1] * np.sin(yaw) for a in (-1, 1) for b in (-1, 1)]
        straddling += min(corners) < NEAR_M < BLIND_M < max(corners)
        scene = Scene(fixed=Fixed(boxes=row, decals=np.zeros((0, len(DECAL_COLUMNS)), np.float32)), vehicles=row[:0])
        frame = eye.render(scene, np.zeros((1, 3)))[0]
        red = (frame[..., 0] > 100) & (frame[..., 1] == 0)
        wanted = covered(MIDDLE, row[0]) & (max(corners) > BLIND_M)
        assert (red != wanted).sum() <= 2, row  # a ray along an edge may fall either way
    assert straddling > 80


def crop(frame: Pixels, camera: Camera, at: tuple[float, float, float], half_m: tuple[float, float]) -> Pixels:
    """What lies around a face that stands at (ahead, left, height), resampled to 24 x 24, mean and contrast taken out."""
    import cv2

    scale = camera.focal_px / at[0]
    x, y = camera.centre_x_px - at[1] * scale, camera.centre_y_px - (at[2] - EYE_M) * scale
    wide, high = 2.3 * half_m[0] * scale, 2.3 * half_m[1] * scale
    grid = (np.arange(24) + 0.5) / 24 - 0.5
    across = np.tile((x + grid * wide - 0.5)[None], (24, 1)).astype(np.float32)
    down = np.tile((y + grid * high - 0.5)[:, None], (1, 24)).astype(np.float32)
    return cv2.remap(frame, across, down, cv2.INTER_LINEAR).astype(np.float64)


def likeness(a: Pixels, b: Pixels) -> float:
    """Correlation of two crops after taking each colour's mean out: light and haze change gains and offsets only."""
    one, two = (part - part.mean((0, 1)) for part in (a, b))
    # the colour of the whole counts as well: shape alone does not tell a blue disc from a red one
    tints = [part.mean((0, 1)) / (np.linalg.norm(part.mean((0, 1))) + 1e-9) for part in (a, b)]
    shape = float((one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two) + 1e-9))
    return shape + 2.0 * float(tints[0] @ tints[1])


def face_at(
    region: str, camera: Camera, name: str, look: str, at: tuple[float, float, float], wall: tuple[float, float, float]
) -> Pixels:
    roads, atlas = region_of(region)
    half = 0.45
    aspect = roads.sign_faces[name].aspect
    frame = picture(region, camera, [sign_decal(roads, atlas, name, at, 0.0, half)], look, wall)
    return crop(frame, camera, at, (half * aspect, half))


def looks_of(region: str, name: str) -> tuple[object, ...]:
    """What of a sign must be told apart at 20 m: its shape and its main colours."""
    face = region_of(region)[0].sign_faces[name]
    return face.shape, face.fill, face.border, face.aspect, face.panel, face.bar


TEMPLATE_WALL, SCENE_WALL = (0.62, 0.6, 0.58), (0.42, 0.46, 0.5)
TEMPLATE_AT, SCENE_AT = (0.0, 2.4), (1.3, 2.6)


def confusions(region: str, look: str, distance_m: float) -> list[tuple[str, str]]:
    """(shown, taken for) of the signs that are not taken for themselves."""
    names = sorted(region_of(region)[0].sign_faces)
    place = (distance_m, *TEMPLATE_AT)
    known = {name: face_at(region, BIG, name, look, place, TEMPLATE_WALL) for name in names}
    found = []
    for name in names:
        seen = face_at(region, BIG, name, look, (distance_m, *SCENE_AT), SCENE_WALL)
        taken = max(names, key=lambda other: likeness(seen, known[other]))
        if taken != name:
            found.append((name, taken))
    return found


@pytest.mark.parametrize("look", sorted(LOOKS))
@pytest.mark.parametrize("region", REGIONS)
def test_colour_and_shape_of_signs_are_told_apart_at_20_m(region: str, look: str) -> None:
    wrong = [(a, b) for a, b in confusions(region, look, 20.0) if looks_of(region, a) != looks_of(region, b)]
    assert wrong == []


@pytest.mark.parametrize("look", sorted(LOOKS))
@pytest.mark.parametrize("region", REGIONS)
def test_glyphs_of_signs_are_told_apart_at_6_m(region: str, look: str) -> None:
    assert confusions(region, look, 6.0) == []


def test_a_sign_seen_from_behind_shows_no_face() -> None:
    roads, atlas = region_of("us")
    front = sign_decal(roads, atlas, "stop", (8.0, 0.0, 2.0), 0.0, 0.45)
    behind = sign_decal(roads, atlas, "stop", (8.0, 0.0, 2.0), np.pi, 0.45)
    shown, hidden = (picture("us", BIG, [row], "day", SCENE_WALL)[99, 256] for row in (front, behind))
    assert shown[0] > 150 > shown[1] + 50
    assert np.ptp(hidden) < 12


# -- lamps ----------------------------------------------------------------------------------------------------------

STATES = ("red", "yellow", "green", "off")


def lamps(
    region: str, state: str, face: str, at: tuple[float, float, float]
) -> tuple[list[tuple[float, ...]], tuple[float, float]]:
    """Three lamps as the region hangs them (housing left out: the wall is behind), and half the size of the group."""
    roads, atlas = region_of(region)
    style, rows = roads.lights, []
    for position, (name, colour) in zip((1, 0, -1), zip(STATES, LAMP_COLOURS, strict=False), strict=True):
        step = position * style.lamp_step_m
        left, up = (0.0, step) if style.stack == "vertical" else (step, 0.0)
        tint, shines = (colour, 1.0) if name == state else (LAMP_OFF, 0.0)
        place = (at[0], at[1] + left, at[2] + up)
        rows.append((*place, style.lamp_half_m, style.lamp_half_m, 0.0, atlas.index[f"lamp_{face}"], *tint, shines))
    return rows, style.half_size_m


def lamps_seen(
    region: str, look: str, state: str, face: str, place: tuple[float, float], wall: tuple[float, float, float]
) -> Pixels:
    at = (40.0, place[0], region_of(region)[0].lights.height_m)
    rows, half = lamps(region, state, face, at)
    return crop(picture(region, MIDDLE, rows, look, wall), MIDDLE, at, half)


@pytest.mark.parametrize("look", sorted(LOOKS))
@pytest.mark.parametrize("region", REGIONS)
def test_the_state_of_a_light_is_told_at_40_m(region: str, look: str) -> None:
    dark, darker = (0.1, 0.1, 0.1), (0.14, 0.14, 0.15)
    known = {state: lamps_seen(region, look, state, "disc", (0.0, 0.0), dark) for state in STATES}
    for state in STATES:
        for left in (-3.0, 1.7, 6.0):
            seen = lamps_seen(region, look, state, "disc", (left, 0.0), darker)
            assert max(STATES, key=lambda other: likeness(seen, known[other])) == state


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_an_arrow_is_told_from_a_disc_at_20_m(look: str) -> None:
    faces = ("disc", "left", "right", "straight")
    at = (20.0, 0.0, 4.6)
    known = {}
    for face in faces:
        rows, half = lamps("cn", "green", face, at)
        known[face] = crop(picture("cn", MIDDLE, rows, look, (0.1, 0.1, 0.1)), MIDDLE, at, half)
    there = (20.0, 1.1, 4.6)
    for face in faces:
        rows, half = lamps("cn", "green", face, there)
        seen = crop(picture("cn", MIDDLE, rows, look, (0.14, 0.14, 0.15)), MIDDLE, there, half)
        assert max(faces, key=lambda other: likeness(seen, known[other])) == face


# -- what hides what, cameras of a rig ------------------------------------------------------------------------------


def test_nearer_things_hide_farther_ones_and_faces_are_laid_in_depth() -> None:
    roads, atlas = region_of("us")
    far, near = (
        sign_decal(roads, atlas, face, (x, 0.0, 1.4), 0.0, 0.5) for face, x in (("stop", 12.0), ("one_way", 6.0))
    )
    alone = picture("us", BIG, [near], "day", SCENE_WALL)
    both = picture("us", BIG, [near, far], "day", SCENE_WALL)
    assert np.array_equal(alone, picture("us", BIG, [far, near], "day", SCENE_WALL)) or np.array_equal(
        both[120:136, 240:272], alone[120:136, 240:272]
    )
    behind_wall = sign_decal(roads, atlas, "stop", (70.0, 0.0, 3.0), 0.0, 0.5)
    empty = picture("us", BIG, [], "day", SCENE_WALL)
    assert np.array_equal(picture("us", BIG, [behind_wall], "day", SCENE_WALL), empty)


def test_each_camera_of_a_rig_sees_from_its_own_pose() -> None:
    """A sign to the left is ahead of a camera that looks left; a pitched camera moves the horizon as geometry says."""
    roads, atlas = region_of("us")
    left = [sign_decal(roads, atlas, "stop", (0.0, 10.0, EYE_M), np.pi / 2, 0.45)]
    looks_left = replace(BIG, pose_camera_in_rig=(0.0, 0.0, EYE_M, 0.0, 0.0, np.pi / 2))
    seen = picture("us", looks_left, left, "day", SCENE_WALL)[128 - 8 : 128 + 8, 256 - 3 : 256 + 3].mean((0, 1))
    assert seen[0] > seen[2] + 60
    ahead = [sign_decal(roads, atlas, "stop", (10.0, 0.0, EYE_M), 0.0, 0.45)]
    pitch = 0.12
    pitched = replace(BIG, pose_camera_in_rig=(0.0, 0.0, EYE_M, 0.0, pitch, 0.0))
    row = 128 - 256 * np.tan(pitch)
    frame = picture("us", pitched, ahead, "day", SCENE_WALL)
    assert frame.shape == (256, 512, 3)
    reds = np.nonzero(frame[:, 256, 0] > frame[:, 256, 2] + 60)[0]
    assert abs(reds.mean() - row) < 1.5


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_the_same_scene_has_the_same_pixels(look: str) -> None:
    roads, atlas = region_of("cn")
    rows = [
        sign_decal(roads, atlas, "bus_lane", (9.0, -2.0, 2.5), 0.1, 0.5),
        *lamps("cn", "red", "disc", (30.0, 0.0, 4.6))[0],
    ]
    first = picture("cn", BIG, rows, look, SCENE_WALL)
    assert np.array_equal(first, picture("cn", BIG, rows, look, SCENE_WALL))
    assert look == "day" or not np.array_equal(first, picture("cn", BIG, rows, "day", SCENE_WALL))
