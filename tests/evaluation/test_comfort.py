"""The smoothing filter: exact on polynomials, equal to the reference implementation where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from onshore.evaluation.comfort import comfortable, plan_differences, smoothed, unwrapped

T = 0.1 * np.arange(41)


@pytest.mark.parametrize(("window", "order", "derivative"), [(15, 2, 1), (5, 2, 1), (5, 3, 2), (5, 2, 0)])
def test_odd_windows_keep_polynomials(window: int, order: int, derivative: int) -> None:
    values = np.polynomial.Polynomial([0.5, -1.0, 2.0, 0.3 if order == 3 else 0.0])
    found = smoothed(values(T), window, order=order, derivative=derivative, step_s=0.1)
    np.testing.assert_allclose(found, values.deriv(derivative)(T) if derivative else values(T), atol=2e-8)


def test_even_windows_run_half_a_step_ahead_between_the_ends() -> None:
    found = smoothed(T, 8)
    np.testing.assert_allclose(found[4:-4], T[4:-4] + 0.05, atol=1e-8)
    np.testing.assert_allclose(found[:4], T[:4], atol=1e-8)
    np.testing.assert_allclose(found[-4:], T[-4:], atol=1e-8)


def test_the_filter_is_the_usual_one() -> None:
    signal = pytest.importorskip("scipy.signal")
    noise = np.random.default_rng(7)
    for count in (6, 8, 9, 14, 15, 16, 36, 41, 80):
        values = noise.normal(size=count)
        for window, order, derivative in ((8, 2, 0), (15, 2, 1), (5, 2, 1), (5, 3, 2), (5, 2, 2)):
            usual = signal.savgol_filter(values, min(window, count), order, deriv=derivative, delta=0.1)
            ours = smoothed(values, window, order=order, derivative=derivative, step_s=0.1)
            np.testing.assert_allclose(ours, usual, atol=2e-8)


def test_headings_unwrap_by_whole_turns() -> None:
    yaw = np.linspace(3.0, 12.0, 41)
    wrapped = np.arctan2(np.sin(yaw), np.cos(yaw))
    np.testing.assert_allclose(np.diff(unwrapped(wrapped)), np.diff(yaw), atol=1e-12)


def test_a_fast_turn_pushes_the_centre_outwards() -> None:
    """At 1.4 rad/s the centre of the box, 1.461 m ahead of the axle, feels 2.86 m/s^2: over the bound of 2.40."""
    zero = np.zeros(41)
    turning = {"yaw_rad": zero, "accel_mps2": zero, "yaw_rate_radps": np.full(41, 1.4), "step_s": 0.1}
    assert not comfortable(**turning, axle_to_center_m=1.461)["lon_accel_mps2"]
    assert comfortable(**turning, axle_to_center_m=0.0)["lon_accel_mps2"]


def test_equal_plans_do_not_differ_and_others_do_by_their_signals() -> None:
    zero = np.zeros(36)
    assert set(plan_differences((zero, zero), (zero, zero), 0.1).values()) == {0.0}
    differs = plan_differences((zero + 0.7, 0.2 * T[:36]), (zero, zero), 0.1)
    assert differs["accel_mps2"] == pytest.approx(0.7) and differs["yaw_rate_radps"] == pytest.approx(0.2)
    assert differs["jerk_mps3"] == pytest.approx(0.0, abs=1e-6)
