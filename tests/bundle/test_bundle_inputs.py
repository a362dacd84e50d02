"""The virtual camera and the side inputs: geometry, exact arithmetic, and the same answer for wide and narrow views."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.bundle.inputs import (
    FAR_JUNCTION_M,
    SIDE_INPUTS,
    View,
    camera_for,
    front_video,
    side_inputs,
    view_maps,
    warp,
)
from onshore.core.errors import InputError
from onshore.core.policy import RouteCommand
from onshore.core.recording import Camera, Clock, Packet, Recording, Rig, Signals, Video

Pose = tuple[float, float, float, float, float, float]


def camera(width: int, height: int, focal: float, pose: Pose = (1.6, 0.0, 1.4, 0.0, 0.0, 0.0)) -> Camera:
    return Camera(
        name="front",
        width_px=width,
        height_px=height,
        focal_px=focal,
        centre_x_px=width / 2,
        centre_y_px=height / 2,
        pose_camera_in_rig=pose,
    )


def noise(width: int, height: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_level_camera_with_the_views_focal_length_is_only_cropped() -> None:
    source = camera(160, 80, 64.0)
    frames = noise(160, 80, 3)
    view_map = view_maps(source, View())
    assert view_map.crop == (8, 16)
    assert np.array_equal(warp(frames, view_map), frames[:, 8:72, 16:144])


def test_the_narrow_view_is_the_middle_of_the_wide_one() -> None:
    view = View()
    source = camera(320, 200, 80.0, (1.2, 0.1, 1.3, 0.02, 0.05, -0.03))
    frames = noise(320, 200, 2)
    columns, rows = view.margin_px
    wide = warp(frames, view_maps(source, view, wide=True))
    assert wide.shape == (2, 96, 192, 3)
    assert np.array_equal(wide[:, rows:-rows, columns:-columns], warp(frames, view_maps(source, view)))


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_cameras_that_look_the_same_way_a_view_takes_the_one_that_fills_it_best(order: int) -> None:
    wide = replace(camera(192, 96, 64.0), name="wide")
    narrow = replace(camera(192, 96, 160.0, (1.6, 0.0, 1.4, 0.0, 0.02, 0.03)), name="narrow")
    left = replace(camera(192, 96, 300.0, (1.6, 0.0, 1.4, 0.0, 0.0, 0.5)), name="left")
    rig = [wide, narrow, left][::order]
    assert camera_for(View(), rig) is wide
    assert camera_for(View(focal_px=160.0), rig) is narrow
    assert camera_for(View(focal_px=160.0), [wide, left]) is wide


def test_one_frame_and_many_give_the_same_bytes_and_flat_colour_stays() -> None:
    view_map = view_maps(camera(526, 330, 722.0, (1.6, 0.0, 1.3, 0.0, 0.04, 0.0)), View(focal_px=176.0))
    frames = noise(526, 330, 2)
    assert view_map.box == 4
    assert np.array_equal(warp(frames[1], view_map), warp(frames, view_map)[1])
    flat = np.full((330, 526, 3), (255, 0, 131), np.uint8)
    assert (warp(flat, view_map) == (255, 0, 131)).all()


@pytest.mark.parametrize(
    ("pose", "dx", "dy"),
    [
        ((1.6, 0.0, 1.4, 0.0, 0.1, 0.0), 0.0, -math.tan(0.1)),  # looks down: the horizon moves up in its picture
        ((1.6, 0.0, 1.4, 0.0, 0.0, 0.1), math.tan(0.1), 0.0),  # looks left: straight ahead moves right
        ((1.6, 0.0, 1.4, 0.5, 0.0, 0.0), 0.0, 0.0),  # rolls about the centre
    ],
)
def test_straight_ahead_lands_where_the_rotation_says(pose: Pose, dx: float, dy: float) -> None:
    source = camera(400, 300, 100.0, pose)
    view_map = view_maps(source, View(width_px=129, height_px=65))
    centre = view_map.map_x_px[32, 64], view_map.map_y_px[32, 64]
    assert centre == pytest.approx((200 + 100 * dx, 150 + 100 * dy), abs=1e-3)


def test_ground_points_of_a_higher_camera_land_where_the_view_expects_them() -> None:
    source, view = camera(400, 300, 100.0, (1.6, 0.0, 2.0, 0.0, 0.0, 0.0)), View()
    view_map = view_maps(source, view)
    ground_m, left_m = 10.0, 2.0
    row = view.height_px / 2 + view.focal_px * view.height_m / ground_m
    column = view.width_px / 2 - view.focal_px * left_m / ground_m
    rows = np.arange(view.height_px) + 0.5
    columns = np.arange(view.width_px) + 0.5
    assert np.interp(row, rows, view_map.map_y_px[:, 0]) == pytest.approx(150 + 100 * 2.0 / ground_m, abs=0.01)
    assert np.interp(column, columns, view_map.map_x_px[40]) == pytest.approx(200 - 100 * left_m / ground_m, abs=0.01)
    assert view_map.map_y_px[0, 0] == pytest.approx(150 - 100 * 31.5 / 64, abs=1e-3)  # the sky only turns


def test_pixels_outside_repeat_the_border_and_say_so() -> None:
    frame = noise(64, 64)[0]
    view_map = view_maps(camera(64, 64, 64.0), View())
    seen = warp(frame, view_map)
    assert view_map.inside.mean() == pytest.approx(0.5)
    assert np.array_equal(seen[:, 0], frame[:, 0]) and np.array_equal(seen[:, -1], frame[:, -1])


def test_averaging_keeps_fine_stripes_grey() -> None:
    stripes = np.zeros((320, 640, 3), np.uint8)
    stripes[:, ::2] = 254
    seen = warp(stripes, view_maps(camera(640, 320, 256.0), View()))
    assert (np.abs(seen.astype(int) - 127) <= 1).all()


def test_frames_of_another_size_are_refused() -> None:
    view_map = view_maps(camera(160, 80, 64.0), View())
    with pytest.raises(InputError, match="80 x 160") as problem:
        warp(noise(80, 160), view_map)
    assert problem.value.code == "bad_config"
    with pytest.raises(InputError, match="bad_config"):
        View(width_px=0)
    with pytest.raises(InputError, match="unexpected"):
        View.from_record({"width": 3})
    assert View.from_record(View(focal_px=176).as_record()) == View(focal_px=176.0)


@settings(max_examples=25, deadline=None)
@given(
    focal=st.floats(20, 300),
    height=st.floats(0.8, 3.0),
    angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    seed=st.integers(0, 99),
)
def test_every_pixel_lies_between_the_darkest_and_brightest_source(
    focal: float, height: float, angles: tuple[float, float, float], seed: int
) -> None:
    source = camera(96, 60, focal, (1.6, 0.0, height, *angles))
    view_map = view_maps(source, View(width_px=32, height_px=16, focal_px=20.0))
    assert (view_map.weights_KP.sum(0) == 256).all()
    frame = np.random.default_rng(seed).integers(40, 200, (60, 96, 3), dtype=np.uint8)
    seen = warp(frame, view_map)
    assert seen.min() >= frame.min() and seen.max() <= frame.max()


def test_side_inputs_say_what_is_known() -> None:
    assert len(SIDE_INPUTS) == 9
    assert not side_inputs(None, RouteCommand.UNKNOWN, None, None).any()
    known = side_inputs(5.0, RouteCommand.LEFT, 10.0, False)
    assert known.dtype == np.float32
    assert known == pytest.approx([0.5, 1, 0, 1, 0, 0.1, math.exp(-0.5), 0, 1])
    standing = side_inputs(0.0, RouteCommand.RIGHT, None, True)
    assert standing == pytest.approx([0, 1, 0, 0, 1, FAR_JUNCTION_M / 100, math.exp(-10), 1, 1])


def test_side_inputs_of_arrays_equal_those_one_by_one() -> None:
    speed, command = np.array([3.0, np.nan, 0.0]), np.array([0, 1, 3])
    distance, inside = np.array([np.nan, 12.0, 900.0]), np.array([np.nan, 0.0, 1.0])
    many = side_inputs(speed, command, distance, inside)
    one = [side_inputs(*row) for row in zip(speed, command, distance, inside, strict=True)]
    assert np.array_equal(many, np.stack(one))


def test_the_front_camera_is_the_one_that_looks_ahead() -> None:
    def mounted(name: str, yaw_rad: float) -> Camera:
        return replace(camera(64, 32, 32.0, (1.0, 0.0, 1.4, 0.0, 0.0, yaw_rad)), name=name)

    t_ns = np.array([0, 1], np.int64)
    packet = Packet(t_ns=0, data=b"x", keyframe=True)
    rig = Rig(cameras=(mounted("rear", math.pi), mounted("wide", 6.2), mounted("front", 0.1)))
    videos = tuple(Video(camera=name, codec="jpeg", packets=(packet,)) for name in ("rear", "front", "wide"))
    made = Recording(vehicle="v", clock=Clock(kind="boot"), rig=rig, signals=Signals.build(t_ns), videos=videos)
    assert front_video(made)[0].name == "wide"  # 6.2 rad is 0.08 rad to the right
    with pytest.raises(InputError, match="no frames of any"):
        front_video(replace(made, videos=()))
