"""What EP and EC compare a closed-loop run with: a lane-following reference, and the plan of 0.4 s before.

Rule: both come from the Rollout alone. The reference drives the ego's own way from the ego's own speed as the `rule` row
does (IDM behind whoever is in that way, bends, the speed limit, a light that is not green); it stands where NAVSIM has its
PDM-Closed planner, so EP tells policies of one table apart and is no published level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onshore.core.plan import Plan
from onshore.core.rollout import LIGHTS, Rollout
from onshore.evaluation.comfort import ALIKE, plan_differences
from onshore.evaluation.driven import Driven
from onshore.evaluation.epdms_scene import ROWS, STEP_S, Track

Floats = NDArray[np.float64]
#: Rows between the two plans that EC compares; how far the way is looked at, and its points.
PLANS_APART, BEYOND_M, WAY_STEP_M = 4, 80.0, 1.0
SIDEWAYS_MPS2, SIDE_ROOM_M = 2.0, 0.3
HELD = (LIGHTS.index("red"), LIGHTS.index("yellow"))


def reference_progress_m(driven: Driven, first: int, tracks: tuple[Track, ...]) -> float:
    """Metres the reference gets in 4 s from row `first`; NaN where no speed limit is known there."""
    from onshore.world.drivers import RULE_GAP_M, STOP_SHORT_M, idm

    limit = float(driven["speed_limit_mps"][first])
    if not limit > 0:
        return math.nan
    way_N2 = _way(driven, first)
    top = np.minimum(limit, _bend_speeds(way_N2))
    blocks = [_Blocker(track, way_N2, driven.geometry.width_m) for track in tracks]
    held = int(driven["light"][first]) in HELD if math.isfinite(driven["light"][first]) else False
    light_m = float(driven["light_distance_m"][first]) if held else math.inf
    along, speed = 0.0, float(driven["speed_mps"][first])
    for step in range(ROWS - 1):
        index = min(int(along / WAY_STEP_M), len(top) - 1)
        wish = float(top[index : index + 8].min())
        front = along + driven.geometry.axle_to_front_m
        gaps = [found for block in blocks if (found := block.at(step * STEP_S, front)) is not None]
        accels = [idm(speed, wish, gap, lead) for gap, lead in (gaps or [(math.inf, 0.0)])]
        if light_m - along > -1.0:
            accels.append(idm(speed, wish, light_m - along + RULE_GAP_M - STOP_SHORT_M, 0.0))
        after = max(0.0, speed + max(min(accels), -6.0) * STEP_S)
        along, speed = along + (speed + after) / 2 * STEP_S, after
    return along


class _Blocker:
    """A road user at constant velocity against a way: how far ahead it is in it, if it is."""

    def __init__(self, track: Track, way_N2: Floats, width_m: float) -> None:
        self.track, self.way = track, way_N2
        self.beside_m = (width_m + track.width_m) / 2 + SIDE_ROOM_M
        step = np.gradient(way_N2, axis=0)
        self.heading = np.arctan2(step[:, 1], step[:, 0])

    def at(self, t_s: float, front_m: float) -> tuple[float, float] | None:
        """(gap from the front bumper, speed along the way), or None for who is not in the way ahead."""
        track = self.track
        apart = np.hypot(*(self.way - (track.x_m + track.vx_mps * t_s, track.y_m + track.vy_mps * t_s)).T)
        nearest = int(np.argmin(apart))
        centre = nearest * WAY_STEP_M
        if apart[nearest] > self.beside_m or centre < front_m:
            return None
        along = math.cos(self.heading[nearest]) * track.vx_mps + math.sin(self.heading[nearest]) * track.vy_mps
        return max(centre - track.length_m / 2 - front_m, 0.1), max(along, 0.0)


def _way(driven: Driven, first: int) -> Floats:
    """The rear axle's way from row `first` to the end of the run and straight on, points WAY_STEP_M apart."""
    xy = np.stack([driven["x_m"][first:], driven["y_m"][first:]], -1)
    xy = xy[np.concatenate([[True], np.hypot(*np.diff(xy, axis=0).T) > 1e-3])]
    yaw = float(driven["yaw_rad"][-1])
    xy = np.vstack([xy, xy[-1] + BEYOND_M * np.array([math.cos(yaw), math.sin(yaw)])])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    at = np.arange(0.0, min(float(along[-1]), BEYOND_M), WAY_STEP_M)
    return np.stack([np.interp(at, along, xy[:, axis]) for axis in (0, 1)], -1)


def _bend_speeds(way_N2: Floats) -> Floats:
    """The speed at which each point of a way is passed with SIDEWAYS_MPS2."""
    step = np.gradient(way_N2, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    bend = np.convolve(np.pad(np.gradient(heading, WAY_STEP_M), 3, mode="edge"), np.ones(7) / 7, mode="valid")
    return np.asarray(np.sqrt(SIDEWAYS_MPS2 / np.maximum(np.abs(bend), 1e-4)), np.float64)


def plans_alike(rollout: Rollout, row: int) -> bool | None:
    """Whether the plan in force at `row` and the one 0.4 s before differ little where they overlap (1.6 s); None without both."""
    if row < PLANS_APART + 1:
        return None
    now, before = (_planned(rollout, at) for at in (row, row - PLANS_APART))
    if now is None or before is None:
        return None
    cut = len(now[0]) - PLANS_APART
    differences = plan_differences(
        (now[0][:cut], now[1][:cut]), (before[0][PLANS_APART:], before[1][PLANS_APART:]), STEP_S
    )
    return all(differences[name] <= most for name, most in ALIKE.items())


def _planned(rollout: Rollout, row: int) -> tuple[Floats, Floats] | None:
    """(acceleration, heading in local) of the plan in force at a row, from the moment before it on; None without a plan."""
    path, speed = rollout.plan_path_NK2[row].astype(float), rollout.plan_speed_NT[row].astype(float)
    if not (np.isfinite(path).all() and np.isfinite(speed).all()):
        return None
    steps = rollout.steps
    driven = Plan(path_xy_m=path, speed_mps=speed).trajectory(float(steps["speed_mps"][row - 1]))
    return np.gradient(driven.speed_mps, STEP_S), driven.yaw_rad + float(steps["yaw_rad"][row - 1])
