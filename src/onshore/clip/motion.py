"""How a car moved, from whatever its log knows: speed, acceleration, yaw rate and rear-axle poses, with their sources.

Rule: a measured column is used as it is; a missing one is derived from the others and the derivation is named in
`sources`; what cannot be derived stays NaN. Pure arithmetic over `Signals`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.recording import Signals

Floats = NDArray[np.float64]

MAX_GAP_S = 0.5
STANDING_MPS = 0.05


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Columns of one length on `t_ns`; `poses_N3` are x, y (m) and unwrapped yaw (rad) of the rear axle in `local`.

    sources: column -> "measured", "poses", "speed", "steering", "integrated" or "unknown".
    """

    t_ns: NDArray[np.int64]
    speed_mps: Floats
    accel_mps2: Floats
    yaw_rate_radps: Floats
    poses_N3: Floats
    sources: dict[str, str]


def motion(signals: Signals, geometry: VehicleGeometry) -> Motion:
    """Fill what a log leaves out; gaps of at most half a second inside a column are interpolated."""
    t_s = seconds(signals.t_ns)
    x, y, yaw = (bridged(t_s, column) for column in (signals.x_m, signals.y_m, unwrapped(signals.yaw_rad)))
    measured = len(t_s) > 0 and bool(np.isfinite(x).all() and np.isfinite(y).all())
    speed, speed_source = _speed(t_s, signals, x, y, measured)
    if measured and not np.isfinite(yaw).all():
        yaw = _heading(x, y)
    rate, rate_source = _yaw_rate(t_s, signals, yaw if measured else None, speed, geometry)
    accel, accel_source = bridged(t_s, signals.accel_mps2), "measured"
    if not np.isfinite(accel).any():
        accel, accel_source = slope(t_s, speed), "speed" if np.isfinite(speed).any() else "unknown"
    poses = np.stack([x, y, yaw], -1) if measured else integrate(t_s, speed, rate)
    pose_source = "measured" if measured else ("integrated" if np.isfinite(poses).all() else "unknown")
    return Motion(
        t_ns=signals.t_ns,
        speed_mps=speed,
        accel_mps2=accel,
        yaw_rate_radps=rate,
        poses_N3=poses,
        sources={"pose": pose_source, "speed": speed_source, "yaw_rate": rate_source, "accel": accel_source},
    )


def seconds(t_ns: NDArray[np.int64]) -> Floats:
    """Times in seconds from the first one."""
    return (t_ns - (t_ns[0] if len(t_ns) else 0)) / 1e9


def bridged(t_s: Floats, column: Floats, max_gap_s: float = MAX_GAP_S) -> Floats:
    """A column whose gaps of at most `max_gap_s` between known values are interpolated; longer ones stay NaN."""
    known = np.flatnonzero(np.isfinite(column))
    if len(known) == len(column) or len(known) == 0:
        return column
    after = np.searchsorted(known, np.arange(len(column)))
    before = np.clip(np.where(np.isin(np.arange(len(column)), known), after, after - 1), 0, len(known) - 1)
    inside = (after < len(known)) & (np.arange(len(column)) >= known[0])
    gap = t_s[known[np.clip(after, 0, len(known) - 1)]] - t_s[known[before]]
    return np.where(inside & (gap <= max_gap_s), np.interp(t_s, t_s[known], column[known]), np.nan)


def unwrapped(yaw_rad: Floats) -> Floats:
    """Angles without jumps of a full turn; NaN stays where it was."""
    known = np.isfinite(yaw_rad)
    result = yaw_rad.copy()
    result[known] = np.unwrap(yaw_rad[known])
    return result


def slope(t_s: Floats, column: Floats) -> Floats:
    """The time derivative by central differences; NaN where fewer than two samples exist."""
    return np.gradient(column, t_s) if len(t_s) > 1 else np.full(len(t_s), np.nan)


def integrate(t_s: Floats, speed_mps: Floats, yaw_rate_radps: Floats) -> Floats:
    """Poses (N, 3) from the origin by the midpoint rule; a standing car does not turn."""
    if len(t_s) == 0:
        return np.empty((0, 3))
    step = np.diff(t_s)
    speed = (speed_mps[1:] + speed_mps[:-1]) / 2
    turn = np.where(np.abs(speed) > STANDING_MPS, (yaw_rate_radps[1:] + yaw_rate_radps[:-1]) / 2, 0.0) * step
    yaw = np.concatenate([[0.0], np.cumsum(turn)])
    middle = yaw[:-1] + turn / 2
    x = np.concatenate([[0.0], np.cumsum(speed * np.cos(middle) * step)])
    y = np.concatenate([[0.0], np.cumsum(speed * np.sin(middle) * step)])
    return np.stack([x, y, yaw], -1)


def _speed(t_s: Floats, signals: Signals, x: Floats, y: Floats, measured: bool) -> tuple[Floats, str]:
    speed = bridged(t_s, signals.speed_mps)
    if np.isfinite(speed).any():
        return speed, "measured"
    if measured and len(t_s) > 1:
        return np.hypot(slope(t_s, x), slope(t_s, y)), "poses"
    return speed, "unknown"


def _heading(x: Floats, y: Floats) -> Floats:
    """Direction of motion, held while the car moves less than 5 cm a sample."""
    step = np.hypot(np.diff(x), np.diff(y))
    moving = np.flatnonzero(step > 0.05)
    if len(moving) == 0:
        return np.zeros(len(x))
    angle = np.unwrap(np.arctan2(np.diff(y)[moving], np.diff(x)[moving]))
    return np.interp(np.arange(len(x)), moving + 0.5, angle)


def _yaw_rate(
    t_s: Floats, signals: Signals, yaw: Floats | None, speed: Floats, geometry: VehicleGeometry
) -> tuple[Floats, str]:
    rate = bridged(t_s, signals.yaw_rate_radps)
    if np.isfinite(rate).any():
        return rate, "measured"
    if yaw is not None and len(t_s) > 1:
        return slope(t_s, yaw), "poses"
    steering = bridged(t_s, signals.steering_rad)
    if np.isfinite(steering).any() and np.isfinite(speed).any():
        return speed * np.tan(steering) / geometry.wheelbase_m, "steering"
    return rate, "unknown"
