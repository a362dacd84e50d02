"""Perturbed views against what a camera really sees from there, and labels against the same geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.recordings import CAMERA, LEFT, ground_picture, view_of
from onshore.bundle.inputs import View
from onshore.core.errors import InputError
from onshore.dataset.perturb import Perturb, compiled_kernel, earlier_laterals, render, seen_from
from onshore.jail import Jail

VIEW = View()
MOUNT = np.array([CAMERA.pose_camera_in_rig[:2]], np.float32)


def cut(frame: np.ndarray, lateral_m: float, yaw_rad: float, mount: np.ndarray = MOUNT) -> np.ndarray:
    lateral, yaw = np.array([[lateral_m]], np.float32), np.array([yaw_rad], np.float32)
    return render(frame[None], np.zeros((1, 1), np.int32), lateral, yaw, mount, VIEW)[0, 0].transpose(1, 2, 0)


def test_on_the_line_is_the_plain_middle_of_the_wide_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    assert np.array_equal(cut(frame, 0.0, 0.0), frame[16:80, 32:160])


def test_the_general_path_agrees_with_the_plain_copy() -> None:
    # a pose too small to move a pixel goes through the arithmetic and must give the same bytes
    frame = np.random.default_rng(1).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    assert np.array_equal(cut(frame, 0.0, 1e-6), frame[16:80, 32:160])


@pytest.mark.parametrize(("lateral_m", "yaw_deg"), [(0.5, 0), (-1.2, 0), (0, 5), (0, -9), (0.8, -4), (-0.6, 8)])
def test_a_perturbed_view_is_what_a_camera_sees_from_there(lateral_m: float, yaw_deg: float) -> None:
    yaw = math.radians(yaw_deg)
    wide = ground_picture(CAMERA, 3.0, 1.0, 0.4)
    there = ground_picture(CAMERA, 3.0 - lateral_m * math.sin(0.4), 1.0 + lateral_m * math.cos(0.4), 0.4 + yaw)
    truth, plain = (view_of(picture, CAMERA, VIEW).astype(float) for picture in (there, wide))
    warped = cut(wide, lateral_m, yaw).astype(float)
    moved, error = np.abs(plain - truth).mean(), np.abs(warped - truth).mean()
    assert error < 2.0 and error < moved / 4, (moved, error)


def test_a_camera_beside_the_middle_turns_about_the_rear_axle() -> None:
    camera = CAMERA.__class__(**{**vars(CAMERA), "pose_camera_in_rig": (1.8, 0.4, 1.4, 0.0, 0.0, 0.0)})
    yaw, mount = math.radians(6), np.array([[1.8, 0.4]], np.float32)
    wide, there = ground_picture(camera, 0, 0, 0.0), ground_picture(camera, 0, 0, yaw)
    warped = cut(wide, 0.0, yaw, mount)
    assert np.abs(warped.astype(float) - view_of(there, camera, VIEW)).mean() < 2.0


@pytest.mark.parametrize(("lateral_m", "yaw_deg"), [(0.5, 0), (-0.5, 0), (0, 5), (0.3, -6)])
def test_a_side_view_moves_with_the_car(lateral_m: float, yaw_deg: float) -> None:
    view = View(yaw_rad=LEFT.pose_camera_in_rig[5])
    yaw, mount = math.radians(yaw_deg), np.array([LEFT.pose_camera_in_rig[:2]], np.float32)
    wide = ground_picture(LEFT, 3.0, 1.0, 0.4)
    there = ground_picture(LEFT, 3.0 - lateral_m * math.sin(0.4), 1.0 + lateral_m * math.cos(0.4), 0.4 + yaw)
    truth, plain = (view_of(picture, LEFT, view).astype(float) for picture in (there, wide))
    offsets, turned = np.array([[lateral_m]], np.float32), np.array([yaw], np.float32)
    warped = render(wide[None], np.zeros((1, 1), np.int32), offsets, turned, mount, view)[0, 0].transpose(1, 2, 0)
    moved, error = np.abs(plain - truth).mean(), np.abs(warped - truth).mean()
    assert error < 2.0 and error < moved / 4, (moved, error)


def test_a_jailed_process_takes_the_compiled_kernel_and_compiles_nothing() -> None:
    folder = compiled_kernel()
    found = Jail(probe=False).run("jail.prisoners:kernel_misses", folder, [folder])
    assert found == {"compiled": 0, "taken": 1}


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="wide form"):
        cut(np.zeros((64, 128, 3), np.uint8), 0.0, 0.0)


@given(lateral=st.floats(-1.2, 1.2), yaw=st.floats(-0.24, 0.24), x=st.floats(0, 30), y=st.floats(-10, 10))
@settings(deadline=None, max_examples=50)
def test_a_path_seen_from_a_pose_is_the_same_path(lateral: float, yaw: float, x: float, y: float) -> None:
    seen = seen_from(np.array([[[x, y]]], np.float32), np.array([lateral]), np.array([yaw]))[0, 0]
    back_x = seen[0] * math.cos(yaw) - seen[1] * math.sin(yaw)
    back_y = seen[0] * math.sin(yaw) + seen[1] * math.cos(yaw) + lateral
    assert abs(back_x - x) < 1e-4 and abs(back_y - y) < 1e-4


def test_the_earlier_frame_lies_on_the_way_of_the_perturbed_car() -> None:
    # a car that heads 0.1 rad to the left of its line was further right before
    offsets = earlier_laterals(np.array([0.5]), np.array([0.1]), np.array([[4.0, 0.0]]))
    assert offsets[0] == pytest.approx([0.5 - 4.0 * math.sin(0.1), 0.5], abs=1e-6)


def test_draws_keep_their_limits_and_their_share() -> None:
    lateral, yaw = Perturb().draw(np.random.default_rng(0), 20_000)
    moved = (lateral != 0) | (yaw != 0)
    assert 0.58 < moved.mean() < 0.62
    assert np.abs(lateral).max() <= np.float32(1.2) and np.abs(yaw).max() <= np.float32(math.radians(14))
    assert 0.44 < lateral[moved].std() < 0.52
    still, _ = Perturb(share=0.0).draw(np.random.default_rng(0), 100)
    assert not still.any()


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"lateral_sigma_m": -1.0}, {"yaw_max_rad": 2.0}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="bad_config"):
        Perturb(**bad)
