"""Six comfort bounds on one ego trajectory, and how alike two plans are: nuPlan's filters, NAVSIM's windows.

Rule: signals are smoothed with a Savitzky-Golay filter, rounded to eight decimals, and must lie strictly within bounds.
Source of windows, orders and bounds: NAVSIM v2.2 `pdm_comfort_metrics.py`.
States are columns at the rear axle; accelerations are judged at the centre of the box, on the same rigid body.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: name -> (low, high), both excluded; order of the published list `comfort6`
BOUNDS: dict[str, tuple[float, float]] = {
    "lon_accel_mps2": (-4.05, 2.40),
    "lat_accel_mps2": (-4.89, 4.89),
    "jerk_mps3": (-8.37, 8.37),
    "lon_jerk_mps3": (-4.13, 4.13),
    "yaw_accel_radps2": (-1.93, 1.93),
    "yaw_rate_radps": (-0.95, 0.95),
}
#: name -> largest root-mean-square difference of two plans of one car, included
ALIKE: dict[str, float] = {"accel_mps2": 0.7, "jerk_mps3": 0.5, "yaw_rate_radps": 0.1, "yaw_accel_radps2": 0.1}
ACCEL_WINDOW, JERK_WINDOW, YAW_WINDOW = 8, 15, 5
DECIMALS = 8


def comfortable(
    *, yaw_rad: Floats, accel_mps2: Floats, yaw_rate_radps: Floats, step_s: float, axle_to_center_m: float
) -> dict[str, bool]:
    """Which of the six bounds hold over the whole trajectory; all columns (N,), N > 3, evenly spaced by `step_s`.

    Lateral acceleration and yaw acceleration of the rear axle are taken as zero: the states do not carry them. At the
    centre of the box the longitudinal acceleration is then larger by the centripetal term.
    """
    at_center = accel_mps2 + axle_to_center_m * yaw_rate_radps**2
    lon = smoothed(at_center, ACCEL_WINDOW)
    signals = {
        "lon_accel_mps2": lon,
        "lat_accel_mps2": smoothed(np.zeros_like(accel_mps2), ACCEL_WINDOW),
        "jerk_mps3": smoothed(smoothed(np.abs(accel_mps2), ACCEL_WINDOW), JERK_WINDOW, derivative=1, step_s=step_s),
        "lon_jerk_mps3": smoothed(lon, JERK_WINDOW, derivative=1, step_s=step_s),
        "yaw_accel_radps2": smoothed(unwrapped(yaw_rad), YAW_WINDOW, order=3, derivative=2, step_s=step_s),
        "yaw_rate_radps": smoothed(unwrapped(yaw_rad), YAW_WINDOW, derivative=1, step_s=step_s),
    }
    return {name: bool(((signals[name] > low) & (signals[name] < high)).all()) for name, (low, high) in BOUNDS.items()}


def plan_differences(first: tuple[Floats, Floats], second: tuple[Floats, Floats], step_s: float) -> dict[str, float]:
    """Root-mean-square differences of two overlapping plans, each (accel_mps2, yaw_rad) at the same instants."""
    a, b = _plan_signals(*first, step_s), _plan_signals(*second, step_s)
    return {name: float(np.sqrt(np.mean((a[name] - b[name]) ** 2))) for name in ALIKE}


def _plan_signals(accel_mps2: Floats, yaw_rad: Floats, step_s: float) -> dict[str, Floats]:
    accel = smoothed(np.abs(accel_mps2), ACCEL_WINDOW)
    yaw = unwrapped(yaw_rad)
    return {
        "accel_mps2": accel,
        "jerk_mps3": smoothed(accel, JERK_WINDOW, derivative=1, step_s=step_s),
        "yaw_rate_radps": smoothed(yaw, YAW_WINDOW, derivative=1, step_s=step_s),
        # unlike the bound above, the comparison of plans uses order 2 here: as published
        "yaw_accel_radps2": smoothed(yaw, YAW_WINDOW, derivative=2, step_s=step_s),
    }


def unwrapped(yaw_rad: Floats) -> Floats:
    """The same headings without jumps of whole turns."""
    turns = np.round(np.diff(yaw_rad) / (2.0 * np.pi))
    return yaw_rad - 2.0 * np.pi * np.concatenate([[0.0], np.cumsum(turns)])


def smoothed(values: Floats, window: int, *, order: int = 2, derivative: int = 0, step_s: float = 1.0) -> Floats:
    """Savitzky-Golay filter (or derivative), rounded; a window longer than the signal shrinks to it.

    Half a window from either end the polynomial of the first or last whole window is evaluated. An even window reaches
    one step further ahead than back and is evaluated in its middle: half a step after the point it stands for.
    """
    count = len(values)
    window = min(window, count)
    half = window // 2
    scale = math.factorial(derivative) / step_s**derivative
    fit = _fit(window, order, derivative, (window - 1) / 2.0)
    result = np.empty(count)
    inner = np.lib.stride_tricks.sliding_window_view(values, window) @ fit
    result[half : count - half] = inner[1 - window % 2 :]
    for at in range(half):
        result[at] = _fit(window, order, derivative, float(at)) @ values[:window]
        result[count - 1 - at] = _fit(window, order, derivative, float(window - 1 - at)) @ values[count - window :]
    return np.round(result * scale, DECIMALS)


def _fit(window: int, order: int, derivative: int, at: float) -> Floats:
    """Weights (window,) that give the `derivative`-th Taylor coefficient at place `at` of the fitted polynomial."""
    powers = np.vander(np.arange(window) - at, order + 1, increasing=True)
    weights: Floats = np.linalg.pinv(powers)[derivative]
    return weights
