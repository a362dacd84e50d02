"""EPDMS sub-metrics of a closed-loop run: as far as a Rollout's columns go, and 'not measured' beyond that.

Rule: each window of 4 s is what was driven, not what was planned; others keep the velocity they had when it began, and the
box is the ego's own. A Rollout holds no polygons, so flags come from columns: off the road from `on_road`, off the route
from `oncoming` and `forbidden`, several lanes from the distance to the lane's lines. EP is against a reference of our own
and EC over the 1.6 s that two of our plans overlap (`epdms_reference.py`): a score tells rows of one table apart and is no
published level.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.rollout import ACTOR_KINDS, Rollout
from onshore.evaluation.driven import Driven
from onshore.evaluation.epdms import (
    FACTORS,
    KEEPING_M,
    KEEPING_STEPS,
    WEIGHTS,
    Row,
    SubMetric,
    driving_direction,
    ego_progress,
    history_comfort,
    no_at_fault_collision,
    time_to_collision,
    traffic_of,
    weighted_mean,
)
from onshore.evaluation.epdms_reference import plans_alike, reference_progress_m
from onshore.evaluation.epdms_scene import ROWS, STEP_S, States, Track
from onshore.evaluation.polygons import box_corners
from onshore.evaluation.predicates import RED, crossings

SUB_METRICS = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC", "EC")
PAST_ROWS = 16
KINDS = {"pedestrian": "pedestrian", "bicycle": "bicycle", "ebike": "bicycle", "static": "generic_object"}
#: Sub-metrics are 1 at best; what cannot be measured has no value.
NO_REFERENCE = SubMetric(value=math.nan, measured=False, why="without map and speed limit there is no reference")
NO_PLANS = SubMetric(value=math.nan, measured=False, why="there are no two plans 0.4 s apart")
NO_LINES = SubMetric(value=math.nan, measured=False, why="it hangs on lane lines that are not known")
NO_MAP = SubMetric(value=math.nan, measured=False, why="there is no map of where it drove")
NOBODY_LOOKED = SubMetric(value=math.nan, measured=False, why="nobody looked for other road users")


def epdms_windows(rollout: Rollout, geometry: VehicleGeometry | None = None) -> list[dict[str, SubMetric]]:
    """The nine sub-metrics of each 4 s of a run, one window after the other; a rest below 4 s is left out."""
    driven = Driven.from_rollout(rollout, geometry)
    t_s = driven["t_s"]
    if len(t_s) < ROWS or float(np.abs(np.diff(t_s) - STEP_S).max()) > 1e-3:
        return []
    lights = {crossing.row for crossing in crossings(driven) if driven["light"][crossing.row] == RED}
    windows = []
    for first in range(0, len(t_s) - ROWS + 1, ROWS - 1):
        found = _window(driven, first, lights)
        alike = plans_alike(rollout, first)
        windows.append(found | {"EC": NO_PLANS if alike is None else SubMetric(value=float(alike))})
    return windows


def window_scores(window: dict[str, SubMetric]) -> tuple[float, float]:
    """(score without EC, score) of one window in [0, 1]; NaN where a sub-metric they need has no value."""
    product = math.prod(window[name].value for name in FACTORS)
    parts = {name: window[name] for name in WEIGHTS}
    without = {name: each for name, each in parts.items() if name != "EC"}
    return product * weighted_mean(without), product * weighted_mean(parts)


def _window(driven: Driven, first: int, red_rows: set[int]) -> dict[str, SubMetric]:
    rows = slice(first, first + ROWS)
    lines = np.fmin(driven["line_left_m"][rows], driven["line_right_m"][rows])
    junction = driven["junction"][rows] > 0.5
    known = bool((np.isfinite(lines) | junction).all())
    variants = [lines < 0.0] if known else [np.zeros(ROWS, np.bool_), ~junction]
    tracks = _tracks(driven, first)
    traffic = traffic_of(tracks, ROWS)
    candidates = [_row(driven, rows, several) for several in variants]
    collisions = [no_at_fault_collision(row, traffic) for row in candidates]
    times = [time_to_collision(row, traffic) for row in candidates]
    red = any(first <= row < first + ROWS - 1 for row in red_rows)
    looked = driven.actors is not None

    def known_all(*columns: str) -> bool:
        return all(bool(np.isfinite(driven[name][rows]).all()) for name in columns)

    past = _states(driven, slice(first - PAST_ROWS + 1, first + 1)) if first >= PAST_ROWS else None
    found = {
        "NC": _agreed(collisions) if looked else NOBODY_LOOKED,
        "DAC": SubMetric(value=float((driven["on_road"][rows] > 0.5).all())) if known_all("on_road") else NO_MAP,
        "DDC": driving_direction(candidates[0]) if known_all("oncoming", "forbidden", "junction") else NO_MAP,
        "TLC": SubMetric(value=0.0 if red else 1.0) if known_all("light") else NO_MAP,
        "TTC": _agreed(times) if looked else NOBODY_LOOKED,
        "LK": _lane_keeping(driven["lateral_m"][rows], junction) if known_all("junction") else NO_MAP,
        "HC": history_comfort(_states(driven, rows), past),
    }
    return found | {"EP": _progress(driven, first, tracks, math.prod(found[name].value for name in FACTORS))}


def _progress(driven: Driven, first: int, tracks: tuple[Track, ...], product: float) -> SubMetric:
    """EP against the reference: what this window gained along its route, beside what the reference or it itself could."""
    reference_m = reference_progress_m(driven, first, tracks)
    gained_m = max(0.0, float(driven["progress_m"][first + ROWS - 1] - driven["progress_m"][first]))
    best_m = max(reference_m, gained_m * product)
    if not math.isfinite(reference_m) or not math.isfinite(product):
        return NO_REFERENCE
    return ego_progress(gained_m, best_m)


def _agreed(found: list[SubMetric]) -> SubMetric:
    """One answer if it does not depend on what is not known."""
    return found[0] if len({metric.value for metric in found}) == 1 else NO_LINES


def _row(driven: Driven, rows: slice, several: NDArray[np.bool_]) -> Row:
    states, geometry = _states(driven, rows), driven.geometry
    axle = np.stack([states.x_m, states.y_m], axis=1)
    heading = np.stack([np.cos(states.yaw_rad), np.sin(states.yaw_rad)], axis=1)
    center = axle + geometry.axle_to_centre_m * heading
    junction = driven["junction"][rows] > 0.5
    return Row(
        states=states,
        corners=box_corners(center, states.yaw_rad, geometry.length_m, geometry.width_m),
        center=center,
        axle=axle,
        several_lanes=several & ~junction,
        off_road=driven["on_road"][rows] < 0.5,
        off_route=(driven["oncoming"][rows] > 0.5) | (driven["forbidden"][rows] > 0.5),
        center_in_junction=junction,
        axle_in_junction=junction,
    )


def _states(driven: Driven, rows: slice) -> States:
    yaw = np.unwrap(driven["yaw_rad"])
    rate = np.gradient(yaw, STEP_S)
    return States(
        x_m=driven["x_m"][rows],
        y_m=driven["y_m"][rows],
        yaw_rad=yaw[rows],
        speed_mps=driven["speed_mps"][rows],
        accel_mps2=driven["accel_mps2"][rows],
        yaw_rate_radps=rate[rows],
    )


def _tracks(driven: Driven, row: int) -> tuple[Track, ...]:
    """Others at one row, each with the velocity it has there."""
    if driven.actors is None:
        return ()
    users = driven.actors.at(row)
    return tuple(
        Track(
            kind=KINDS.get(ACTOR_KINDS[int(users["kind"][index])], "vehicle"),
            x_m=float(users["x_m"][index]),
            y_m=float(users["y_m"][index]),
            yaw_rad=float(users["yaw_rad"][index]),
            vx_mps=float(users["speed_mps"][index] * np.cos(users["yaw_rad"][index])),
            vy_mps=float(users["speed_mps"][index] * np.sin(users["yaw_rad"][index])),
            length_m=float(users["length_m"][index]),
            width_m=float(users["width_m"][index]),
        )
        for index in range(len(users["id"]))
    )


def _lane_keeping(lateral_m: NDArray[np.float64], junction: NDArray[np.bool_]) -> SubMetric:
    """LK by the distance to the nearest lane of the route: 0 after 20 steps in a row beyond 0.5 m, junctions left out."""
    judged = ~junction
    if not judged.any():
        return SubMetric(value=1.0, measured=False, why="the whole window lies in a junction")
    run = longest = 0
    for away in np.abs(lateral_m[judged]) > KEEPING_M:
        run = run + 1 if away else 0
        longest = max(longest, run)
    return SubMetric(value=0.0 if longest >= KEEPING_STEPS else 1.0)
