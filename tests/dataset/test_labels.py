"""Labels against drives whose future is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.recordings import START_NS, shifted, signals
from onshore.clip.motion import bridged, motion
from onshore.core.control import VehicleGeometry
from onshore.core.plan import PATH_ARCS_M
from onshore.core.recording import Signals
from onshore.dataset.labels import moments, sampling_weights, tracks

CAR = VehicleGeometry()


def at(seconds: float) -> np.ndarray:
    return np.array([START_NS + round(seconds * 1e9)], np.int64)


@pytest.mark.parametrize(
    "drop", [(), ("x_m", "y_m", "yaw_rad"), ("x_m", "y_m", "yaw_rad", "yaw_rate_radps"), ("yaw_rad",)]
)
@pytest.mark.parametrize("steering", [0.06, -0.1])
def test_a_circle_driven_gives_the_circle_as_path(steering: float, drop: tuple[str, ...]) -> None:
    track = tracks([(signals(12, lambda t: (steering, 0.0), drop=drop), CAR)])[0]
    found = moments(track, at(2.0))
    curvature = math.tan(steering) / CAR.wheelbase_m
    truth = np.array(
        [(math.sin(curvature * s) / curvature, (1 - math.cos(curvature * s)) / curvature) for s in PATH_ARCS_M]
    )
    assert found.path_mask_MK.all() and found.speed_mask_MS.all()
    # a heading read off positions alone is a sample coarse
    assert np.abs(found.path_MK2[0] - truth).max() < (0.5 if drop == ("yaw_rad",) else 0.06)
    assert found.speed_MS[0] == pytest.approx([8.0] * 4, abs=1e-6)


def test_the_source_of_poses_is_named() -> None:
    sources = [
        motion(signals(3, drop=drop), CAR).sources
        for drop in [(), ("x_m",), ("x_m", "yaw_rate_radps"), ("x_m", "yaw_rate_radps", "steering_rad")]
    ]
    assert [(s["pose"], s["yaw_rate"]) for s in sources] == [
        ("measured", "measured"),
        ("integrated", "measured"),
        ("integrated", "steering"),
        ("unknown", "unknown"),
    ]


def test_a_speed_that_looked_ahead_is_an_input_only_once_it_is_known() -> None:
    track = tracks([(signals(6, lambda t: (0.0, 1.0)), CAR)])[0]
    recorded, read_off = moments(track, at(3.0)), moments(track, at(3.0), ahead_s=0.4)
    assert read_off.side_M9[0, 0] * 10 == pytest.approx(recorded.side_M9[0, 0] * 10 - 0.4, abs=1e-5)
    assert read_off.speed_MS[0] == pytest.approx(recorded.speed_MS[0])  # labels are the future either way
    assert read_off.path_MK2[0] == pytest.approx(recorded.path_MK2[0])
    early = moments(track, at(0.2), ahead_s=0.4)
    assert early.side_M9[0, :2].tolist() == [0, 0] and early.speed_mask_MS.all()


def test_labels_end_where_the_drive_ends() -> None:
    track = tracks([(signals(10), CAR)])[0]
    found = moments(track, at(8.75))  # 10 m and 1.25 s are left
    assert found.path_mask_MK[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert found.speed_mask_MS[0].tolist() == [1, 1, 0, 0]
    assert not found.path_MK2[0, 4:].any() and not found.speed_MS[0, 2:].any()
    assert not moments(track, at(10.0)).usable_M.any()


def test_side_inputs_never_come_from_the_future() -> None:
    moves = signals(10, lambda t: (0.0, 1.0 if t >= 5 else 0.0))
    command = np.where(np.arange(101) >= 50, 2, 1).astype(np.int8)
    distance = np.where(np.arange(101) >= 50, 30.0, np.nan)
    moves = Signals.build(
        moves.t_ns,
        **{name: getattr(moves, name) for name in Signals.COLUMNS[:7]},
        command=command,
        junction_distance_m=distance,
    )
    track = tracks([(moves, CAR)])[0]
    before, after = moments(track, at(4.999)).side_M9[0], moments(track, at(5.0)).side_M9[0]
    assert before[:5] == pytest.approx([0.8, 1, 1, 0, 0]) and before[8] == 0
    assert after[:5] == pytest.approx([0.8, 1, 0, 1, 0]) and after[8] == 1 and after[5] == pytest.approx(0.3)


def test_unknown_speed_gives_no_speed_label_and_a_zero_validity() -> None:
    moves = signals(10, drop=("speed_mps", "x_m"))
    track = tracks([(moves, CAR)])[0]
    found = moments(track, at(3.0))
    assert not found.usable_M.any() and found.side_M9[0, 1] == 0 and np.isfinite(found.path_MK2).all()


def test_segments_that_continue_are_one_track_and_gaps_and_jumps_are_not() -> None:
    whole = signals(20)
    first = Signals(t_ns=whole.t_ns[:101], **{n: getattr(whole, n)[:101] for n in Signals.COLUMNS})
    rest = Signals(t_ns=whole.t_ns[101:], **{n: getattr(whole, n)[101:] for n in Signals.COLUMNS})
    joined = tracks([(rest, CAR), (first, CAR)])
    assert len(joined) == 1
    assert moments(joined[0], at(9.5)).path_mask_MK.all()
    assert len(tracks([(first, CAR), (shifted(rest, 2_000_000_000), CAR)])) == 2
    elsewhere = Signals(t_ns=rest.t_ns, **{n: getattr(rest, n) + (500 if n == "x_m" else 0) for n in Signals.COLUMNS})
    assert len(tracks([(first, CAR), (elsewhere, CAR)])) == 2


def test_a_standing_car_keeps_its_path() -> None:
    # stands from second 2.67 on for good, then drives again after 10 s
    def drive(t: float) -> tuple[float, float]:
        return 0.0, -3.0 if t < 4 else (0.0 if t < 10 else 2.0)

    track = tracks([(signals(30, drive), CAR)])[0]
    found = moments(track, at(6.0))
    assert found.path_mask_MK.all() and found.path_MK2[0, :, 0] == pytest.approx(PATH_ARCS_M, abs=0.05)
    assert found.speed_MS[0].max() == 0


@given(
    speeds=st.lists(st.floats(0, 30), min_size=30, max_size=60),
    steering=st.floats(-0.3, 0.3),
    when=st.floats(0.0, 2.9),
)
@settings(deadline=None, max_examples=40)
def test_paths_have_their_arc_lengths_whatever_was_driven(speeds: list[float], steering: float, when: float) -> None:
    t_ns = START_NS + np.arange(len(speeds), dtype=np.int64) * 100_000_000
    moves = Signals.build(t_ns, speed_mps=np.array(speeds), steering_rad=np.full(len(speeds), steering))
    track = tracks([(moves, CAR)])[0]
    found = moments(track, at(min(when, (len(speeds) - 1) / 10)))
    chord = np.hypot(*found.path_MK2[0].T)
    known = found.path_mask_MK[0] > 0
    assert (chord[known] <= np.array(PATH_ARCS_M)[known] + 1e-3).all()
    assert (np.diff(known.astype(int)) <= 0).all() and np.isfinite(found.path_MK2).all()
    reach = track.along_m[-1] - np.interp(
        (at(min(when, (len(speeds) - 1) / 10))[0] - t_ns[0]) / 1e9, (t_ns - t_ns[0]) / 1e9, track.along_m
    )
    assert known.sum() == (np.array(PATH_ARCS_M) <= reach + 1e-6).sum()


def test_weights_follow_the_recipe() -> None:
    now = np.array([0.0, 0.0, 8.0, 8.0, 8.0, 8.0, 8.0])
    soon = np.array([0.0, 2.0, 6.0, 8.0, 8.0, 8.0, 6.0])
    side = np.zeros((7, 9), np.float32)
    side[:, 0], side[:, 1] = now / 10, 1
    side[3, 7] = side[6, 7] = 1
    path, mask = np.zeros((7, 8, 2), np.float32), np.ones((7, 8), np.float32)
    path[4, 5, 1] = 3.0
    path[5, 5, 1], mask[5, 5] = 3.0, 0
    speed = np.repeat(soon[:, None], 4, 1).astype(np.float32)
    weights = sampling_weights(side, path, mask, speed, np.ones((7, 4), np.float32))
    assert weights == pytest.approx([0.35, 4.0, 2.0, 1.5, 1.7, 1.0, 1.5])


def test_short_gaps_are_bridged_and_long_ones_are_not() -> None:
    t_s = np.arange(20) / 10
    column = np.arange(20, dtype=float)
    column[3:6] = np.nan
    column[10:17] = np.nan
    filled = bridged(t_s, column)
    assert filled[3:6] == pytest.approx([3, 4, 5]) and np.isnan(filled[10:17]).all()
    assert np.isnan(bridged(t_s, np.full(20, np.nan))).all()
