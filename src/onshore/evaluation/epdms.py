"""EPDMS, the extended predictive driver-model score, from a Scene alone: nine sub-metrics, a product and a weighted mean.

    score without EC = NC x DAC x DDC x TLC x (5 EP + 5 TTC + 2 LK + 2 HC) / 14
    score            = NC x DAC x DDC x TLC x (5 EP + 5 TTC + 2 LK + 2 HC + 2 EC) / 16

Rule: every sub-metric is a pure function of the Scene and says itself whether it was measured. Definitions, thresholds
and quirks are those of NAVSIM v2.2 (`pdm_scorer.py`, `pdm_scorer_utils.py`, `pdm_comfort_metrics.py`); the car is the
Pacifica of nuPlan. What the original does before the scorer (tracking control, traffic that reacts) and after it (human
filter, two stages) is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onshore.evaluation.comfort import ALIKE, comfortable, plan_differences
from onshore.evaluation.epdms_scene import STEP_S, Road, Scene, States, Track
from onshore.evaluation.polygons import box_corners, boxes_overlap, inside, path_position, segment_touches, touch

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: nuPlan's Pacifica (`vehicle_parameters.py`): distances from the rear axle to both bumpers, and the width
FRONT_M, REAR_M, WIDTH_M = 4.049, 1.127, 1.1485 * 2.0
LENGTH_M = FRONT_M + REAR_M
AXLE_TO_CENTER_M = LENGTH_M / 2.0 - REAR_M

#: others are observed every second step and stand still in between
OBSERVED_EVERY = 2
EGO_STANDS_MPS = 0.05
TRACK_STANDS_MPS = 0.05
AHEAD_RAD, BEHIND_RAD = math.radians(30.0), math.radians(150.0)
DIRECTION_STEPS = 10
DIRECTION_FAIR_M, DIRECTION_WRONG_M = 2.0, 6.0
PROGRESS_COUNTS_M = 5.0
TTC_STEPS = (0, 3, 6, 9)
TTC_STANDS_MPS = 0.005
KEEPING_M, KEEPING_STEPS = 0.5, 20
WEIGHTS = {"EP": 5.0, "TTC": 5.0, "LK": 2.0, "HC": 2.0, "EC": 2.0}
FACTORS = ("NC", "DAC", "DDC", "TLC")


@dataclass(frozen=True, kw_only=True)
class SubMetric:
    """One sub-metric: a value in [0, 1] (nan when there is none), whether it was measured, and if not, why."""

    value: float
    measured: bool = True
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Epdms:
    """All sub-metrics of one scene, their product and the two scores.

    score is None where extended comfort was not measured. progress_m and best_progress_m are the two lengths that EP
    compares: EP means nothing without the reference plan it is relative to. comfort: the six bounds on the plan alone.
    """

    name: str
    NC: SubMetric
    DAC: SubMetric
    DDC: SubMetric
    TLC: SubMetric
    EP: SubMetric
    TTC: SubMetric
    LK: SubMetric
    HC: SubMetric
    EC: SubMetric
    comfort: dict[str, bool]
    progress_m: float
    best_progress_m: float
    product: float
    score_without_ec: float
    score: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A trajectory's box over time and what it stands on: corners (T, 4, 2), center and axle (T, 2), flags (T,)."""

    states: States
    corners: Floats
    center: Floats
    axle: Floats
    several_lanes: Flags
    off_road: Flags
    off_route: Flags
    center_in_junction: Flags
    axle_in_junction: Flags


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """Others as observed at every step: corners (T, K, 4, 2) and center (T, K, 2) of the K tracks."""

    tracks: tuple[Track, ...]
    corners: Floats
    center: Floats


def score_scene(scene: Scene) -> Epdms:
    """Score the ego of a scene; the reference plan is scored too, for it sets the progress that counts as full."""
    row, reference = _row(scene.ego, scene.road), _row(scene.reference, scene.road)
    traffic = traffic_of(scene.tracks, len(scene.ego))
    factors = _factors(row, traffic, scene)
    product = math.prod(factors[name].value for name in FACTORS)
    reference_product = math.prod(each.value for each in _factors(reference, traffic, scene).values())
    progress_m = progress(row, scene.road)
    best_m = max(progress(reference, scene.road) * reference_product, progress_m * product)
    weighted = {
        "EP": ego_progress(progress_m, best_m),
        "TTC": time_to_collision(row, traffic),
        "LK": lane_keeping(row, scene.road),
        "HC": history_comfort(scene.ego, scene.past),
        "EC": extended_comfort(scene.ego, scene.previous_plan),
    }
    return Epdms(
        name=scene.name,
        **factors,
        **weighted,
        comfort=_comfort(scene.ego),
        progress_m=progress_m,
        best_progress_m=best_m,
        product=product,
        score_without_ec=product * weighted_mean({name: each for name, each in weighted.items() if name != "EC"}),
        score=product * weighted_mean(weighted) if weighted["EC"].measured else None,
    )


def weighted_mean(weighted: dict[str, SubMetric]) -> float:
    """Mean of sub-metrics by WEIGHTS."""
    total = math.fsum(WEIGHTS[name] * each.value for name, each in weighted.items())
    return total / sum(WEIGHTS[name] for name in weighted)


def _factors(row: Row, traffic: Traffic, scene: Scene) -> dict[str, SubMetric]:
    return {
        "NC": no_at_fault_collision(row, traffic),
        "DAC": drivable_area(row),
        "DDC": driving_direction(row),
        "TLC": traffic_lights(row, scene.red_lights),
    }


def no_at_fault_collision(row: Row, traffic: Traffic) -> SubMetric:
    """NC: 1, or 0.5 after an at-fault collision with an object, or 0 with an agent (`_calculate_no_at_fault_collision`).

    A track that was hit without fault is never looked at again; one that was hit at fault stays at fault.
    """
    value, done = 1.0, set[int]()
    for at in range(len(row.states)):
        for index in _touching(row.corners[at], traffic, at):
            if index in done:
                continue
            if _at_fault(row, at, traffic, index):
                value = min(value, 0.0 if traffic.tracks[index].is_agent else 0.5)
            else:
                done.add(index)
    return SubMetric(value=value)


def _at_fault(row: Row, at: int, traffic: Traffic, index: int) -> bool:
    kind = collision_kind(row, at, traffic, index)
    astray = bool(row.several_lanes[at] or row.off_road[at])
    return kind in ("stopped_track", "front") or (kind == "lateral" and astray)


def collision_kind(row: Row, at: int, traffic: Traffic, index: int) -> str:
    """stopped_ego, stopped_track, rear, front or lateral, in this order of precedence (`get_collision_type`).

    An object that is no agent counts as stopped whatever its velocity. Rear: its centre lies more than 150 degrees off
    the ego's heading as seen from the rear axle. Front: it touches the ego's front edge.
    """
    track = traffic.tracks[index]
    if abs(row.states.speed_mps[at]) <= EGO_STANDS_MPS:
        return "stopped_ego"
    if not track.is_agent or math.hypot(track.vx_mps, track.vy_mps) <= TRACK_STANDS_MPS:
        return "stopped_track"
    if _bearing(row, at, traffic.center[at, index]) > BEHIND_RAD:
        return "rear"
    front_left, front_right = row.corners[at, 0], row.corners[at, 3]
    return "front" if segment_touches(front_left, front_right, traffic.corners[at, index]) else "lateral"


def drivable_area(row: Row) -> SubMetric:
    """DAC: 0 once any corner is in no roadblock, intersection, drivable area or car park, else 1."""
    return SubMetric(value=0.0 if row.off_road.any() else 1.0)


def driving_direction(row: Row) -> SubMetric:
    """DDC by the longest way off the route's lanes within any 1.0 s: under 2 m 1, under 6 m 0.5, else 0.

    A step counts where its end has the box centre in no lane of the route and in no intersection; a window holds the
    step that ends at its start too, eleven in all (`_calculate_driving_direction_compliance`).
    """
    steps_m = np.concatenate([[0.0], np.hypot(*np.diff(row.center, axis=0).T)])
    steps_m = np.where(row.off_route & ~row.center_in_junction, steps_m, 0.0)
    worst_m = max(steps_m[max(0, at - DIRECTION_STEPS) : at + 1].sum() for at in range(len(steps_m)))
    return SubMetric(value=1.0 if worst_m < DIRECTION_FAIR_M else 0.5 if worst_m < DIRECTION_WRONG_M else 0.0)


def traffic_lights(row: Row, red_lights: tuple[Floats, ...]) -> SubMetric:
    """TLC: 0 once the box touches the area that a red light closes, else 1; also while standing in it."""
    crossed = any(touch(corners, area) for area in red_lights for corners in row.corners)
    return SubMetric(value=0.0 if crossed else 1.0)


def progress(row: Row, road: Road) -> float:
    """Metres along the centreline from the first to the last box centre, never below 0."""
    along, _ = path_position(row.center[[0, -1]], road.centerline)
    return max(0.0, float(along[1] - along[0]))


def ego_progress(progress_m: float, best_m: float) -> SubMetric:
    """EP: share of the best progress of a plan that keeps the rules; 1, and not measured, where that is 5 m or less.

    best_m: the larger of progress x product over the reference plan and this one (`_aggregate_pdm_scores`).
    """
    if best_m > PROGRESS_COUNTS_M:
        return SubMetric(value=min(max(progress_m / best_m, 0.0), 1.0))
    return SubMetric(value=1.0, measured=False, why="no plan that keeps the rules gets further than 5 m; counted as 1")


def time_to_collision(row: Row, traffic: Traffic) -> SubMetric:
    """TTC: 0 if the box, moved ahead at its speed for 0, 0.3, 0.6 or 0.9 s, touches a track that counts (`_calculate_ttc`).

    A track counts if it is ahead (within 30 degrees), or not behind while the ego is in several lanes, off the road or
    its rear axle in an intersection. Both are judged from the present ego to the track's future place, so a car that
    closes in from behind counts once its future place is ahead. A track that did not count is not looked at again.
    """
    done = set[int]()
    for at, later, corners in _projections(row):
        for index in _touching(corners, traffic, later):
            if index in done:
                continue
            bearing = _bearing(row, at, traffic.center[later, index])
            astray = row.several_lanes[at] or row.off_road[at] or row.axle_in_junction[at]
            # an undefined bearing (the centre on the rear axle) is neither ahead nor behind
            if bearing < AHEAD_RAD or (astray and not bearing > BEHIND_RAD):
                return SubMetric(value=0.0)
            done.add(index)
    return SubMetric(value=1.0)


def _projections(row: Row) -> Iterator[tuple[int, int, Floats]]:
    """(step, later step, box moved ahead) for every moving step whose projections all end within the horizon."""
    states = row.states
    heading = np.stack([np.cos(states.yaw_rad), np.sin(states.yaw_rad)], axis=1)
    velocity = heading * np.abs(states.speed_mps)[:, None]
    for at in range(len(states) - max(TTC_STEPS)):
        if abs(states.speed_mps[at]) >= TTC_STANDS_MPS:
            for ahead in TTC_STEPS:
                yield at, at + ahead, row.corners[at] + velocity[at] * (ahead * STEP_S)


def lane_keeping(row: Row, road: Road) -> SubMetric:
    """LK: 0 after 20 steps in a row with the box centre over 0.5 m from the centreline, else 1.

    Steps in intersections are left out: they neither count nor end a run. The centreline is the route's, so a clean
    lane change fails (`_calculate_lane_keeping`).
    """
    judged = ~row.center_in_junction
    if not judged.any():
        return SubMetric(value=1.0, measured=False, why="the whole plan lies in intersections; counted as 1")
    _, distance = path_position(row.center[judged], road.centerline)
    run = 0
    for away in distance > KEEPING_M:
        run = run + 1 if away else 0
        if run >= KEEPING_STEPS:
            return SubMetric(value=0.0)
    return SubMetric(value=1.0)


def history_comfort(ego: States, past: States | None) -> SubMetric:
    """HC: 1 if all six bounds of `comfort.py` hold over past and plan; 1, and not measured, without a past.

    As published, the past ends 0.2 s before the plan begins (`history_time_us[:-1]` of an open interval) and the
    seam is taken as one ordinary step.
    """
    if past is None:
        return SubMetric(value=1.0, measured=False, why="no past is given; counted as 1")
    joined = {
        name: np.concatenate([getattr(past, name)[:-2], getattr(ego, name)])
        for name in ("yaw_rad", "accel_mps2", "yaw_rate_radps")
    }
    bounds = comfortable(**joined, step_s=STEP_S, axle_to_center_m=AXLE_TO_CENTER_M)
    return SubMetric(value=1.0 if all(bounds.values()) else 0.0)


def _comfort(ego: States) -> dict[str, bool]:
    return comfortable(
        yaw_rad=ego.yaw_rad,
        accel_mps2=ego.accel_mps2,
        yaw_rate_radps=ego.yaw_rate_radps,
        step_s=STEP_S,
        axle_to_center_m=AXLE_TO_CENTER_M,
    )


def extended_comfort(ego: States, previous: States | None) -> SubMetric:
    """EC: 1 if two plans of one driver, up to 0.5 s apart, differ little where they overlap (`scene_aggregator.py`).

    Little: the root-mean-square differences of `comfort.ALIKE`. Not measurable, with no value, without another plan.
    """
    if previous is None:
        return SubMetric(value=math.nan, measured=False, why="no earlier plan is given")
    shift = round((ego.start_s - previous.start_s) / STEP_S)
    now = (ego.accel_mps2[:-shift], ego.yaw_rad[:-shift])
    before = (previous.accel_mps2[shift:], previous.yaw_rad[shift:])
    differences = plan_differences(now, before, STEP_S)
    return SubMetric(value=1.0 if all(differences[name] <= most for name, most in ALIKE.items()) else 0.0)


def _row(states: States, road: Road) -> Row:
    axle = np.stack([states.x_m, states.y_m], axis=1)
    heading = np.stack([np.cos(states.yaw_rad), np.sin(states.yaw_rad)], axis=1)
    center = axle + AXLE_TO_CENTER_M * heading
    corners = box_corners(center, states.yaw_rad, LENGTH_M, WIDTH_M)
    in_lane = [inside(corners, lane.polygon).sum(axis=1) for lane in road.lanes]
    corners_in_lane = np.array(in_lane, dtype=np.int64).reshape(len(road.lanes), len(states))
    drivable = (*road.roadblocks, *road.intersections, *road.drivable_areas, *road.carparks)
    return Row(
        states=states,
        corners=corners,
        center=center,
        axle=axle,
        several_lanes=((corners_in_lane > 0).sum(axis=0) > 1) & (corners_in_lane != 4).all(axis=0),
        off_road=np.asarray(~_in_any(corners, drivable).all(axis=1)),
        off_route=~_in_any(center, tuple(lane.polygon for lane in road.lanes if lane.on_route)),
        center_in_junction=_in_any(center, road.intersections),
        axle_in_junction=_in_any(axle, road.intersections),
    )


def _in_any(points: Floats, polygons: tuple[Floats, ...]) -> Flags:
    found = np.zeros(points.shape[:-1], dtype=np.bool_)
    for polygon in polygons:
        found |= inside(points, polygon)
    return found


def traffic_of(tracks: tuple[Track, ...], steps: int) -> Traffic:
    """Boxes of all tracks at every step, each at its place at the last observation."""
    columns = np.array(
        [[t.x_m, t.y_m, t.yaw_rad, t.vx_mps, t.vy_mps, t.length_m, t.width_m] for t in tracks], dtype=np.float64
    ).reshape(len(tracks), 7)
    observed = np.arange(steps) // OBSERVED_EVERY * OBSERVED_EVERY
    moved = (observed * STEP_S)[:, None, None] * columns[None, :, 3:5]
    corners = box_corners(columns[:, :2], columns[:, 2], columns[:, 5], columns[:, 6])
    return Traffic(tracks=tracks, corners=corners[None] + moved[:, :, None], center=columns[None, :, :2] + moved)


def _touching(corners: Floats, traffic: Traffic, at: int) -> list[int]:
    """Which tracks share a point with a box at one step."""
    if not traffic.tracks:
        return []
    near = np.flatnonzero(boxes_overlap(corners[None], traffic.corners[at]))
    return [int(index) for index in near if touch(corners, traffic.corners[at, index])]


def _bearing(row: Row, at: int, place: Floats) -> float:
    """Angle (radians, 0 to pi) between the ego's heading and a place seen from its rear axle; nan on the axle itself."""
    away = place - row.axle[at]
    distance = math.hypot(*away)
    if distance == 0.0:
        return math.nan
    yaw = row.states.yaw_rad[at]
    return math.acos(min(max((math.cos(yaw) * away[0] + math.sin(yaw) * away[1]) / distance, -1.0), 1.0))
