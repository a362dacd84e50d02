"""Open-loop errors against hand-made drives: exact where geometry says so, and always beside their baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.drives import ARCS, straight_at
from onshore.core.errors import InputError
from onshore.core.plan import SPEED_TIMES_S
from onshore.evaluation.openloop import (
    NOTE,
    constant_turn,
    constant_velocity,
    mean_plan,
    measurable,
    score_plans,
)


def test_the_driven_plan_has_no_error() -> None:
    driven = straight_at(5.0, 10.0, 0.0)
    row = score_plans("driven", driven.plans, driven)
    assert row.ade_m.mean == pytest.approx(0, abs=1e-9) and row.fde_m.mean == pytest.approx(0, abs=1e-9)
    assert row.path_m == {"6": 0.0, "14": 0.0, "22": 0.0} and row.note == NOTE == row.as_record()["note"]


def test_constant_velocity_is_exact_on_a_straight_road_and_wrong_when_braking() -> None:
    driven = straight_at(10.0)
    assert score_plans("cv", constant_velocity(driven), driven).fde_m.mean == pytest.approx(0, abs=1e-9)
    braking = replace(driven, plans=replace(driven.plans, speed_NS=np.array([[7.5, 5.0, 2.5, 0.0]])))
    # 10 m/s for 2 s against uniform braking to 0: 20 m against 10 m; mean of 1.25 t^2 * 2 over the steps
    row = score_plans("cv", constant_velocity(braking), braking)
    assert row.fde_m.mean == pytest.approx(10.0, abs=1e-6)
    steps = np.arange(0.1, 2.05, 0.1)
    assert row.ade_m.mean == pytest.approx(float((2.5 * steps**2).mean()), abs=1e-6)


def test_constant_turn_is_exact_on_a_circle_and_straight_on_without_a_yaw_rate() -> None:
    straight, radius = straight_at(8.0, 8.0), 40.0
    angle = ARCS / radius
    circle = np.stack([radius * np.sin(angle), radius * (1 - np.cos(angle))], -1)
    driven = replace(straight, plans=replace(straight.plans, path_NK2=np.stack([circle, circle * (1, -1)])))
    turning = replace(driven, yaw_rate_now_N=np.array([8.0, -8.0]) / radius)
    assert np.allclose(constant_turn(turning).path_NK2, driven.plans.path_NK2)
    assert score_plans("ct", constant_turn(turning), turning).fde_m.mean == pytest.approx(0, abs=1e-6)
    unknown = replace(driven, yaw_rate_now_N=np.array([np.nan, np.nan]))
    for one in (driven, unknown):
        assert np.allclose(constant_turn(one).path_NK2, constant_velocity(one).path_NK2)


def test_a_path_to_the_side_is_off_by_its_distance() -> None:
    driven = straight_at(10.0)
    aside = replace(driven.plans, path_NK2=driven.plans.path_NK2 + np.array([0.0, 1.0]))
    row = score_plans("aside", aside, driven)
    assert row.path_m["14"] == pytest.approx(1.0) and row.fde_m.mean == pytest.approx(1.0, abs=0.1)


def test_the_mean_plan_knows_only_what_was_known() -> None:
    training = straight_at(4.0, 8.0, 100.0)
    mask = np.ones((3, len(SPEED_TIMES_S)))
    mask[2] = 0
    plan = mean_plan(replace(training, speed_mask_NS=mask, path_mask_NK=np.zeros((3, len(ARCS)))), 2)
    assert plan.speed_NS.tolist() == [[6.0] * 4] * 2
    assert np.allclose(plan.path_NK2[0, :, 0], ARCS)


def test_moments_without_a_known_future_are_left_out() -> None:
    driven = straight_at(10.0, 10.0, 10.0, 0.0, 2.9)
    speed, path = driven.speed_mask_NS.copy(), driven.path_mask_NK.copy()
    speed[0, 3] = 0  # the log ends within 2 s
    path[1, 4:] = 0  # 20 m are driven, 8 m of path known
    path[3:, 3:] = 0  # standing, and 5.8 m driven with 6 m known
    now = driven.speed_now_N.copy()
    now[2] = np.nan
    found = measurable(replace(driven, speed_mask_NS=speed, path_mask_NK=path, speed_now_N=now))
    assert found.tolist() == [False, False, False, True, True]
    with pytest.raises(InputError) as caught:
        score_plans("x", driven.plans, replace(driven, speed_mask_NS=np.zeros_like(speed)))
    assert caught.value.code == "not_measurable"


def test_intervals_resample_drives_not_moments() -> None:
    driven = straight_at(*[10.0] * 40, drives=("one",) * 20 + ("two",) * 20)
    off = driven.plans.path_NK2.copy()
    off[20:, :, 1] += 1.0
    row = score_plans("x", replace(driven.plans, path_NK2=off), driven)
    assert row.fde_m.worlds == 2 and row.fde_m.high - row.fde_m.low == pytest.approx(1.0, abs=0.1)
