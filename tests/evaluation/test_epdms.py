"""EPDMS: each branch of the definition, worked out by hand; published vectors; files that must not pass."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.epdms_scenes import FILE, JUNCTION, SIDE, document, other, plan, road, scene, strip, written
from onshore.core.errors import InputError
from onshore.evaluation.epdms import Epdms, score_scene
from onshore.evaluation.epdms_scene import AGENT_CLASSES, OBJECT_CLASSES, Scene, read_scenes
from onshore.evaluation.golden import golden, golden_cases

Record = dict[str, Any]


def read(record: Record) -> Scene:
    (found,) = read_scenes({"road": road(), "reference": plan(), "scenes": [record]})
    return found


def score(*agents: Record, **parts: Any) -> Epdms:
    return score_scene(read(scene("scene", *agents, **parts)))


def test_the_hand_worked_scenes_agree() -> None:
    assert golden(FILE) == []
    assert golden_cases(FILE) == len(document()["scenes"]) == 18


def test_the_file_is_what_its_builder_writes() -> None:
    assert FILE.read_text(encoding="utf8") == written()


def test_the_original_scorers_vectors() -> None:
    folder = os.environ.get("ONSHORE_GOLDEN")
    if folder is None:
        pytest.skip("ONSHORE_GOLDEN does not name the folder of the original scorers' files")
    assert golden(Path(folder) / "epdms.json") == []


# --- collisions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AGENT_CLASSES + OBJECT_CLASSES)
def test_agents_cost_everything_and_objects_half(kind: str) -> None:
    result = score(other(25.0, kind=kind))
    assert result.NC.value == (0.0 if kind in AGENT_CLASSES else 0.5) and result.TTC.value == 0.0


def test_an_object_and_an_agent_cost_what_the_agent_costs() -> None:
    assert score(other(20.0, kind="barrier"), other(30.0)).NC.value == 0.0


@pytest.mark.parametrize(("speed", "fault"), [(0.05, 1.0), (0.051, 0.0)])
def test_an_ego_that_stands_is_never_at_fault(speed: float, fault: float) -> None:
    assert score(other(4.0), ego=plan(speed)).NC.value == fault


@pytest.mark.parametrize(("speed", "fault"), [(0.05, 0.0), (0.051, 1.0)])
def test_a_track_that_stands_is_always_hit_by_fault(speed: float, fault: float) -> None:
    """In touch from behind at the start: only its own speed tells a rear collision from a stopped track."""
    assert score(other(-2.5, speed=speed), ego=plan(0.06)).NC.value == fault


def test_an_object_that_rolls_still_counts_as_standing() -> None:
    assert score(other(-15.0, speed=20.0, kind="generic_object")).NC.value == 0.5


def test_a_crossing_pedestrian_in_front_is_a_front_collision() -> None:
    walker = other(24.0, -3.6, 1.5, math.pi / 2, "pedestrian", length_m=0.6, width_m=0.6)
    assert score(walker).NC.value == 0.0


def test_touching_counts_as_hitting() -> None:
    # the ego's left side is at 1.1485 exactly, and so is the right side of a box as wide at y = 2.297
    assert score(other(30.0, 2.297, width_m=2.297)).NC.value == 0.0
    assert score(other(30.0, 2.2970001, width_m=2.297)).NC.value == 1.0


def test_what_was_hit_without_fault_is_not_looked_at_again() -> None:
    """The bicycle touches the side within the lane at 2.6 s; later the ego straddles two lanes, still in touch."""
    into_two_lanes = np.where(np.arange(41) < 30, 0.0, 1.0)
    assert score(SIDE, ego=plan(y=into_two_lanes)).NC.value == 1.0
    assert score(SIDE, ego=plan(y=np.full(41, 1.0))).NC.value == 0.0


@pytest.mark.parametrize(("bearing_deg", "fault"), [(140.0, 0.0), (160.0, 1.0)])
def test_a_track_met_beyond_150_degrees_is_behind(bearing_deg: float, fault: float) -> None:
    """An ego in two lanes, so that a contact from the side is at fault; the other keeps its place in the ego's frame."""
    x, y = 1.0 * math.cos(math.radians(bearing_deg)), 1.2 + math.sin(math.radians(bearing_deg))
    near = other(x, y, 0.1, kind="bicycle", length_m=0.2, width_m=0.2)
    assert score(near, ego=plan(0.1, y=1.2)).NC.value == fault


def test_within_one_lane_is_not_in_several_even_where_lanes_overlap() -> None:
    wide = road()
    wide["lanes"].append({"id": "wide", "polygon": strip(-1.75, 5.25), "on_route": True})
    assert score(SIDE, ego=plan(y=1.2), road=wide).NC.value == 1.0


def test_a_side_contact_off_the_road_is_at_fault() -> None:
    bicycle = {**SIDE, "y_m": SIDE["y_m"] - 0.7}
    result = score(bicycle, ego=plan(y=-0.7))
    assert (result.NC.value, result.DAC.value) == (0.0, 0.0)


@pytest.mark.parametrize(("meets_at_step", "seen"), [(4, True), (5, False)])
def test_others_are_observed_every_second_step(meets_at_step: int, seen: bool) -> None:
    """A box at 100 m/s is on the ego's front for one step only: at an odd one it is still where it was before."""
    speed = 100.0
    front_m = 1.0 * meets_at_step + 4.049
    fast = other(front_m, -speed * meets_at_step * 0.1, speed, math.pi / 2, "bicycle", length_m=0.5, width_m=0.5)
    result = score(fast)
    assert result.NC.value == (0.0 if seen else 1.0)


# --- time to collision ----------------------------------------------------------------------------------------------


def test_time_to_collision_looks_nine_steps_ahead_and_no_further() -> None:
    """At 10 m/s to a standstill: the front reaches 9 m ahead of its last moving place."""
    speeds = np.where(np.arange(41) < 20, 10.0, 0.0)
    front_m = 19 * 1.0 + 4.049 + 9.0  # the last moving step is at x = 19 m
    near, far = other(front_m - 0.01 + 2.25), other(front_m + 0.01 + 2.25)
    assert score(near, ego=plan(speeds)).TTC.value == 0.0
    assert score(far, ego=plan(speeds)).TTC.value == 1.0
    assert score(near, ego=plan(speeds)).NC.value == 1.0


def test_a_standing_ego_has_no_time_to_collision() -> None:
    assert score(other(4.0), ego=plan(0.004)).TTC.value == 1.0
    assert score(other(4.0), ego=plan(0.005)).TTC.value == 0.0


def beside(bearing_deg: float = 90.0, y: float = 0.0) -> Record:
    """A small standing bicycle that touches the left side, seen from the rear axle of an ego at `y`."""
    x = 1.33 / math.tan(math.radians(bearing_deg))
    return other(x, y + 1.33, kind="bicycle", length_m=0.4, width_m=0.4)


@pytest.mark.parametrize(
    ("bearing_deg", "y", "junction_x", "value"),
    [
        (25.0, 0.0, None, 0.0),  # ahead
        (32.0, 0.0, None, 1.0),  # beside
        (90.0, 1.2, None, 0.0),  # beside, in two lanes
        (90.0, -0.7, None, 0.0),  # beside, off the road
        (90.0, 0.0, (-5.0, 5.0), 0.0),  # beside, in an intersection
        (90.0, 0.0, (-1.0, 1.0), 0.0),  # with the rear axle in it
        (90.0, 0.0, (1.0, 5.0), 1.0),  # with no more than the rest in it
    ],
)
def test_what_is_beside_counts_only_astray_or_in_an_intersection(
    bearing_deg: float, y: float, junction_x: tuple[float, float] | None, value: float
) -> None:
    where = road(intersections=[strip(-9.0, 9.0, *junction_x)]) if junction_x else road()
    assert score(beside(bearing_deg, y), ego=plan(0.1, y=y), road=where).TTC.value == value


def test_what_is_behind_never_counts() -> None:
    behind = other(-1.3, 0.0, kind="bicycle", length_m=0.6, width_m=0.4)
    assert score(behind, ego=plan(0.1), road=JUNCTION).TTC.value == 1.0


# --- where the ego is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("area", ["intersections", "drivable_areas", "carparks"])
def test_every_kind_of_drivable_area_carries_the_ego(area: str) -> None:
    ego = plan(y=-0.7)
    assert score(ego=ego).DAC.value == 0.0
    assert score(ego=ego, road=road(**{area: [strip(-4.0, 0.0)]})).DAC.value == 1.0


def test_a_corner_on_the_edge_is_not_on_the_road() -> None:
    shifted = road()
    shifted["roadblocks"][0]["polygon"] = strip(-1.1485, 5.25)
    assert score(road=shifted).DAC.value == 0.0


def test_lanes_alone_are_no_drivable_area() -> None:
    assert score(road={**road(), "roadblocks": []}).DAC.value == 0.0


def test_the_line_between_two_lanes_is_in_neither() -> None:
    assert score(ego=plan(y=1.75)).DDC.value == 0.0
    assert score(ego=plan(y=1.74)).DDC.value == 1.0


@pytest.mark.parametrize(("speed", "value"), [(19.0, 1.0), (21.0, 0.5), (59.0, 0.5), (61.0, 0.0)])
def test_driving_direction_by_the_way_in_the_opposite_lane(speed: float, value: float) -> None:
    """One step ends in the opposite lane: 1.9, 2.1, 5.9 or 6.1 m, and the way back to the route does not count."""
    ego = plan(speed, y=7.0)
    ego["y_m"] = [7.0 if at == 0 else 0.0 for at in range(41)]
    assert score(ego=ego).DDC.value == 1.0
    ego["y_m"] = [7.0 if at >= 40 else 5.2 for at in range(41)]
    ego["x_m"] = [
        0.1 * speed * at if at < 40 else 3.9 * speed + math.sqrt((0.1 * speed) ** 2 - 1.8**2) for at in range(41)
    ]
    assert score(ego=ego).DDC.value == value


@pytest.mark.parametrize(("speed", "value"), [(1.81, 1.0), (1.82, 0.5), (5.45, 0.5), (5.46, 0.0)])
def test_the_window_of_a_second_holds_eleven_steps(speed: float, value: float) -> None:
    """2 m / 1.1 s = 1.818 m/s and 6 m / 1.1 s = 5.454 m/s."""
    assert score(ego=plan(speed, y=7.0)).DDC.value == value


def test_a_red_light_counts_while_standing_and_for_any_shape() -> None:
    def notched(tip_x: float) -> list[list[float]]:
        """Open towards the ego: at its front the arms are over 1.2 m to either side."""
        return [[2.0, -3.0], [9.0, -3.0], [9.0, 3.0], [2.0, 3.0], [tip_x, 0.0]]

    standing = plan(0.0)
    assert score(ego=standing, red=[strip(-1.0, 1.0, 0.0, 1.0)]).TLC.value == 0.0
    assert score(ego=standing, red=[notched(7.0)]).TLC.value == 1.0
    assert score(ego=standing, red=[notched(4.0)]).TLC.value == 0.0
    assert score(ego=standing, red=[{"id": "light", "polygon": notched(4.0)}]).TLC.value == 0.0


# --- progress, lane, comfort -----------------------------------------------------------------------------------------


def test_progress_is_relative_to_the_best_plan_that_keeps_the_rules() -> None:
    slow = score(ego=plan(4.0))
    assert (slow.EP.value, slow.progress_m, slow.best_progress_m) == (0.4, 16.0, 40.0)
    alone = score(other(30.0), ego=plan(4.0))  # the reference runs into the parked car, this plan does not
    assert (alone.NC.value, alone.EP.value, alone.best_progress_m) == (1.0, 1.0, 16.0)


def test_progress_of_five_metres_counts_as_full_and_says_so() -> None:
    assert score(ego=plan(0.0), reference=plan(1.25)).EP == score(ego=plan(0.0), reference=plan(0.0)).EP
    assert not score(ego=plan(0.0), reference=plan(1.25)).EP.measured
    assert score(ego=plan(0.0), reference=plan(1.26)).EP.value == 0.0


def test_backwards_is_no_progress() -> None:
    backwards = score(ego={**plan(), "x_m": [-0.1 * at for at in range(41)]})
    assert (backwards.EP.value, backwards.progress_m) == (0.0, 0.0)


def test_a_plan_that_breaks_a_rule_sets_no_standard() -> None:
    off_road = score(ego=plan(20.0, y=-0.7), reference=plan(1.0))
    assert off_road.progress_m == pytest.approx(80.0)
    assert off_road.best_progress_m == pytest.approx(4.0) and not off_road.EP.measured


@pytest.mark.parametrize(("steps", "value"), [(19, 1.0), (20, 0.0)])
def test_lane_keeping_fails_after_two_seconds(steps: int, value: float) -> None:
    y = np.where(np.arange(41) < steps, 0.51, 0.5)
    assert score(ego=plan(y=y)).LK.value == value


def test_an_intersection_neither_counts_nor_ends_a_run() -> None:
    away = np.where((np.arange(41) < 10) | (np.arange(41) >= 20), 0.6, 0.0)
    away[30:] = 0.0
    crossing = road(intersections=[strip(-5.0, 9.0, 10.0 + 1.0, 20.0 + 1.0)])  # the centre is 1.461 m ahead
    assert score(ego=plan(y=away)).LK.value == 1.0
    assert score(ego=plan(y=away), road=crossing).LK.value == 0.0


def test_lane_keeping_within_an_intersection_is_not_measured() -> None:
    result = score(ego=plan(y=3.5), road=JUNCTION)
    assert result.LK.value == 1.0 and not result.LK.measured


def test_progress_and_distance_follow_a_bent_centreline() -> None:
    bent = {**road(), "route_centerline": {"points_m": [[-50.0, 0.0], [20.0, 0.0], [20.0, 60.0]]}}
    result = score(road=bent)
    assert result.progress_m == pytest.approx(20.0 - 1.461)
    assert result.LK.value == 0.0


def test_bounds_are_strict() -> None:
    names = list(score().comfort)
    assert names[0] == "lon_accel_mps2"
    assert not score(ego=plan(accel=2.4)).comfort["lon_accel_mps2"]
    assert score(ego=plan(accel=2.39)).comfort["lon_accel_mps2"]
    assert not score(ego=plan(accel=-4.05)).comfort["lon_accel_mps2"]
    turning = plan(yaw=0.1 * np.arange(41) * 0.95)
    assert not score(ego=turning).comfort["yaw_rate_radps"]
    assert score(ego=plan(yaw=0.1 * np.arange(41) * 0.94)).comfort["yaw_rate_radps"]


def test_whole_turns_of_the_heading_are_no_motion() -> None:
    yaw = np.where(np.arange(41) % 2 == 0, 0.0, 2 * np.pi)
    assert all(score(ego=plan(yaw=yaw)).comfort.values())


def test_braking_hard_breaks_only_the_bounds_it_touches() -> None:
    braking = plan(accel=np.where(np.arange(41) < 34, -6.0, 0.0))
    assert list(score(ego=braking).comfort.values()) == [False, True, True, False, True, True]


def past(accel: Any) -> Record:
    return {**plan(accel=accel), "t_s": [round(0.1 * at - 4.0, 6) for at in range(41)]}


def test_history_comfort_needs_a_history() -> None:
    alone = score(ego=plan(accel=3.0))
    assert alone.HC.value == 1.0 and not alone.HC.measured
    assert score(ego=plan(accel=3.0), past=past(3.0)).HC.value == 0.0
    assert score(past=past(0.0)).HC.value == 1.0 and score(past=past(0.0)).HC.measured


def test_a_rough_past_costs_comfort_except_in_its_last_two_rows() -> None:
    rows = np.arange(41)
    assert score(past=past(np.where(rows >= 30, 3.0, 0.0))).HC.value == 0.0
    assert score(past=past(np.where(rows >= 39, 9.0, 0.0))).HC.value == 1.0


def test_extended_comfort_compares_two_plans() -> None:
    without = score()
    assert not without.EC.measured and math.isnan(without.EC.value) and without.score is None
    for accel, value in ((0.0, 1.0), (0.69, 1.0), (0.71, 0.0)):
        both = score(previous_plan=plan(accel=accel, start_s=-0.5))
        assert (both.EC.value, both.score) == (value, (14 + 2 * value) / 16)
    turned = plan(yaw=0.1 * np.arange(41) * 0.11, start_s=-0.5)
    assert score(previous_plan=turned).EC.value == 0.0


def test_extended_comfort_compares_equal_instants() -> None:
    """A plan that brakes at one instant, seen half a second later, is the same plan; shifted by that, it is not."""
    step = np.where(np.arange(41) >= 20, -3.0, 0.0)
    earlier = np.where(np.arange(41) >= 25, -3.0, 0.0)
    assert score(ego=plan(accel=step), previous_plan=plan(accel=earlier, start_s=-0.5)).EC.value == 1.0
    assert score(ego=plan(accel=step), previous_plan=plan(accel=step, start_s=-0.5)).EC.value == 0.0


# --- invariants ------------------------------------------------------------------------------------------------------

SPEEDS = st.floats(0.0, 20.0)
PLACES = st.tuples(st.floats(-20, 50), st.floats(-4, 8), st.floats(0, 15), st.sampled_from([0.0, math.pi / 2, 3.0]))


def values(result: Epdms) -> dict[str, float]:
    return {name: getattr(result, name).value for name in ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC")}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SPEEDS, st.floats(-2, 8), st.lists(PLACES, max_size=3))
def test_scores_stay_in_range_and_others_never_help(speed: float, y: float, places: list[Any]) -> None:
    crowded, alone = score(*(other(*place) for place in places), ego=plan(speed, y=y)), score(ego=plan(speed, y=y))
    assert all(0.0 <= value <= 1.0 for value in values(crowded).values())
    assert 0.0 <= crowded.score_without_ec <= 1.0 and crowded.product <= alone.product
    assert crowded.NC.value <= alone.NC.value == 1.0 and crowded.TTC.value <= alone.TTC.value == 1.0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SPEEDS, st.floats(-2, 8), st.lists(PLACES, max_size=2))
def test_a_mirrored_scene_scores_the_same(speed: float, y: float, places: list[Any]) -> None:
    record = scene("scene", *(other(*place) for place in places), ego=plan(speed, y=y), road=road(), reference=plan())
    assert values(score_scene(read(mirrored(record)))) == values(score_scene(read(record)))


def mirrored(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: mirrored(below, name) for name, below in value.items()}
    if key == "polygon":
        return [[x, -y] for x, y in value]
    if isinstance(value, list):
        return [mirrored(below, key) for below in value]
    return -value if key in ("y_m", "yaw_rad", "vy_mps", "yaw_rate_radps") else value


def test_tracks_may_come_in_any_order() -> None:
    one = read(scene("scene", other(25.0, kind="barrier"), SIDE, other(-15.0, speed=20.0)))
    assert values(score_scene(one)) == values(score_scene(replace(one, tracks=one.tracks[::-1])))


# --- files that must not pass ----------------------------------------------------------------------------------------


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field of a record; of a list only to its last entry."""
    below = value.items() if isinstance(value, dict) else list(enumerate(value))[-1:] if isinstance(value, list) else ()
    for key, each in below:
        yield (*way, key)
        yield from leaves(each, (*way, key))


def damaged(way: tuple[Any, ...], value: Any) -> Record:
    record = copy.deepcopy(full())
    place = record
    for key in way[:-1]:
        place = place[key]
    if value is None:
        del place[way[-1]]
    else:
        place[way[-1]] = value
    return record


def full() -> Record:
    extras = {"past": past(0.0), "previous_plan": plan(start_s=-0.5)}
    everything = scene("all", other(25.0), red=[strip(0.0, 1.0)], **extras)
    return {"road": road(intersections=[strip(0.0, 9.0, 0.0, 9.0)]), "reference": plan(), "scenes": [everything]}


MAY_BE_ABSENT = {("road", "intersections"), ("scenes", 0, "past"), ("scenes", 0, "previous_plan")}
WAYS = [way for way in leaves(full()) if way[-1] not in ("expected", "id") or "lanes" in way]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: ".".join(map(str, way)))
def test_no_damaged_field_is_taken_for_a_value(way: tuple[Any, ...]) -> None:
    named = next(key for key in reversed(way) if isinstance(key, str))
    wrong = [math.nan, 1e300, {}, ""] if named == "on_route" else [math.nan, 1e300, {}, "", True]
    missing = [None] if isinstance(way[-1], str) and way not in MAY_BE_ABSENT else []
    for value in wrong + missing:
        with pytest.raises(InputError) as caught:
            read_scenes(damaged(way, value), "file.json")
        assert caught.value.subject.startswith("file.json ") and named in caught.value.subject


@pytest.mark.parametrize(
    ("way", "value", "named"),
    [
        (("scenes",), [], "scenes"),
        (("scenes", 0, "agents", 0, "type"), "teapot", r"scenes\[0\].agents\[0\].type"),
        (("scenes", 0, "agents", 0, "width_m"), 0.0, "width_m"),
        (("scenes", 0, "ego", "t_s"), [0.2 * at for at in range(41)], "ego.t_s"),
        (("scenes", 0, "ego", "t_s"), [1 + 0.1 * at for at in range(41)], "ego.t_s"),
        (("scenes", 0, "ego", "x_m"), [0.0] * 40, "ego.x_m"),
        (("scenes", 0, "past", "t_s"), [0.1 * at for at in range(41)], "past.t_s"),
        (("scenes", 0, "previous_plan", "t_s"), [0.1 * at for at in range(41)], "previous_plan.t_s"),
        (("scenes", 0, "red_light_polygons"), [[[0, 0], [1, 1], [2, 2]]], r"red_light_polygons\[0\]"),
        (("road", "lanes", 2, "polygon"), [[0, 0], [1, 1, 1], [2, 0]], r"lanes\[2\].polygon\[1\]"),
        (("road", "route_centerline", "step_m"), 0.0, "step_m"),
        (("road", "route_centerline", "x_to_m"), -60, "x_to_m"),
        (("road", "route_centerline"), {"points_m": [[0, 0], [0, 0]]}, "points_m"),
    ],
)
def test_impossible_values_are_named(way: tuple[Any, ...], value: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_scenes(damaged(way, value))


def test_a_name_that_repeats_is_refused() -> None:
    with pytest.raises(InputError, match="repeats"):
        read_scenes({"road": road(), "reference": plan(), "scenes": [scene("twice"), scene("twice")]})


# --- golden files ----------------------------------------------------------------------------------------------------


def published(folder: Path, **changes: Any) -> Path:
    record = document()
    record["scenes"] = record["scenes"][:1]
    record["scenes"][0]["expected"].update(changes)
    path = folder / "epdms.json"
    path.write_text(json.dumps(record), encoding="utf8")
    return path


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("NC", 0.5),
        ("LK", 0.999),
        ("EP", 0.99999),
        ("comfort6", [True] * 5 + [False]),
        ("comfort6", [True] * 5),
        ("score_without_EC", 0.998),
        ("score_without_EC", None),
        ("NC", True),
        ("DAC", "1.0"),
        ("EC", 1.0),
        ("HC", 1.0),
        ("score", 1.0),
        ("TTC", float("nan")),
    ],
)
def test_every_published_column_is_compared(tmp_path: Path, column: str, value: Any) -> None:
    """Also where nothing could be measured: EC, HC and the score that needs them agree with no figure."""
    (found,) = golden(published(tmp_path, **{column: value}))
    assert (found.case, found.formula, found.column) == ("free", "epdms", column)


def test_a_score_within_a_thousandth_agrees(tmp_path: Path) -> None:
    assert golden(published(tmp_path, score_without_EC=0.9991)) == []


def test_a_column_nobody_computes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scenes\[0\].expected.PDMS"):
        golden(published(tmp_path, PDMS=1.0))


def test_a_scene_without_published_values_is_refused(tmp_path: Path) -> None:
    record = document()
    record["scenes"][2]["expected"] = {}
    path = tmp_path / "epdms.json"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"scenes\[2\].expected"):
        golden(path)
