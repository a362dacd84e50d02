"""Hand-made towns with lanes of their own, egos that start where they are told, and actors that a script moves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onshore.core.errors import InputError
from onshore.core.rollout import LIGHT_SHAPES, LIGHTS, LINES, STOP_RULES, TURNS, Rollout
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, run_jobs
from onshore.world.jobs import Start
from onshore.world.layout import Layout
from onshore.world.roads import Roads
from onshore.world.town import Town
from world.scenes import CAR, STRAIGHT, crossing

STANDING = "world.scenes:Standing"


def scene(kind: str, lane: int, route: tuple[str, ...], **changes: object) -> RolloutJob:
    """One ego alone on the hand-made crossing."""
    fields = {
        "region": "cn",
        "suite": "test",
        "town_seed": 0,
        "traffic_seed": 1,
        "egos": 1,
        "vehicles": 0,
        "warm_s": 0.0,
    }
    start = Start(route=route, lane=lane, at_m=30.0, speed_mps=8.0)
    policy = PolicySpec(kind=kind, speed_mps=8.0)  # type: ignore[arg-type]
    fields |= {"layout": crossing(), "starts": (start,), "policy": policy, "max_time_s": 16.0, "clock_h": 8.0}
    return RolloutJob(**{**fields, **changes})  # type: ignore[arg-type]


ON = ("w_in", "e_out")


def drive(cache: Path, *jobs: RolloutJob) -> list[Rollout]:
    return [rollouts[0] for rollouts in run_jobs(jobs, workers=1, cache_dir=cache)]


def test_each_street_has_its_own_lanes_turns_lights_and_crosswalks(cache: Path) -> None:
    town = Town.of(Roads.from_record("cn", load_pack("cn").roads), crossing(), cache)
    assert [lane.kind for lane in town.edges["w_in"].lanes] == ["bus", "car", "car"]
    assert [lane.width_m for lane in town.edges["w_in"].lanes] == [3.4, 3.2, 3.0]
    assert town.edges["s_in"].car_lanes == (0,)
    assert town.lanes_for("w_in", "n_out") == (2,)
    assert (town.movement("w_in", "n_out"), town.movement("s_in", "e_out")) == (TURNS["left"], TURNS["right"])
    assert town.light_shape("w_in", "n_out") == "arrow"
    assert sorted(head.shape for head in town.heads if head.edge == "w_in") == ["arrow", "round"]
    assert town.edges["w_in"].stop_rule == "light"
    (walk,) = town.crosswalks
    lane_end = town.edges["w_in"].lanes[0].xy_N2[-1]
    assert walk.holds(np.array([lane_end - (42.0, 0.0)])).all()
    assert not walk.holds(np.array([lane_end - (47.0, 0.0), lane_end])).any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"connections": (replace(crossing().connections[0], from_lane=7),)}, "no such lane"),
        ({"edges": (replace(crossing().edges[0], end="nowhere"),), "connections": ()}, "no node nowhere"),
        ({"edges": (replace(crossing().edges[0], lanes=(replace(CAR, kind="rail"),)),), "connections": ()}, "rail"),
    ],
)
def test_a_layout_that_cannot_be_says_why(change: dict, named: str) -> None:
    fields = {name: getattr(crossing(), name) for name in Layout.__dataclass_fields__}
    with pytest.raises(InputError, match=named):
        Layout(**{**fields, "crosswalks": (), "lights": (), **change})


def test_the_columns_say_what_the_road_asks(cache: Path) -> None:
    straight, bus, bus_later, left = drive(
        cache,
        scene("constant-speed", 1, ON),
        scene("constant-speed", 0, ON),
        scene("constant-speed", 0, ON, clock_h=10.0),
        scene("constant-speed", 2, ("w_in", "n_out")),
    )
    first = {name: column[0] for name, column in straight.steps.items()}
    assert (first["lane_index"], first["lane_turns"], first["lane_open"]) == (1.0, TURNS["straight"], 1.0)
    assert LINES[int(first["line_left"])] == "solid"
    assert first["line_left_m"] == pytest.approx((3.2 - 1.8) / 2, abs=0.05)
    assert (first["speed_limit_mps"], STOP_RULES[int(first["stop_rule"])]) == (11.0, "light")
    assert first["movement"] == TURNS["straight"]
    assert first["stop_line_m"] - first["crosswalk_m"] == pytest.approx(44.0, abs=0.6)
    passed = straight.steps["stop_line_m"]
    assert passed[passed < 0].min() == pytest.approx(-10, abs=1.0)
    assert (bus.steps["lane_open"][0], bus.steps["forbidden"][0]) == (0.0, 1.0)
    assert (bus_later.steps["lane_open"][0], bus_later.steps["forbidden"][0]) == (1.0, 0.0)
    assert LIGHT_SHAPES[int(left.steps["light_shape"][0])] == "arrow"
    assert left.steps["movement"][0] == TURNS["left"]
    # straight traffic has green for the first 20 s: the waiting area beyond the line is open, and the light for left is red
    assert LIGHTS[int(left.steps["light"][0])] == "red"
    assert left.steps["waiting_open"][0] == 1.0
    assert left.steps["waiting_area"][left.steps["stop_line_m"] < -1.0].max() == 1.0
    assert next(event.kind for event in left.events) == "red_light"


@pytest.mark.parametrize(
    ("kind", "event"),
    [("pedestrian", "collision_pedestrian"), ("static", "collision_static"), ("car", "collision_vehicle")],
)
def test_an_ego_can_hit_what_a_script_moves(cache: Path, kind: str, event: str) -> None:
    place = {"kind": kind, "pose": (-60.0, -4.7, math.pi / 2)}
    (rollout,) = drive(cache, scene("constant-speed", 1, ON, script=STANDING, script_facts=place))
    assert rollout.ended == event
    assert rollout.events[-1].detail["with"] == kind
    assert set(rollout.actor_kind) == {rollout.actor_kind[0]}


def test_the_engines_traffic_stops_for_an_actor_and_drives_on_when_it_has_gone(cache: Path) -> None:
    """The expert is the engine's own car; the control run has nobody in its way."""
    place = {"kind": "pedestrian", "pose": (-60.0, -4.7, math.pi / 2), "until_s": 12.0}
    job = scene("expert", 1, ON, script=STANDING, script_facts=place, max_time_s=30.0)
    held, free = drive(cache, job, replace(job, script="", script_facts={}))
    at_12_s = 115
    assert held.steps["speed_mps"][at_12_s] < 0.2
    assert -62.5 < held.steps["x_m"][at_12_s] + 3.7 < -60.2
    assert free.steps["progress_m"][at_12_s] > held.steps["progress_m"][at_12_s] + 20
    assert held.steps["progress_m"][-1] > held.steps["progress_m"][at_12_s] + 20
    assert not any(event.kind.startswith("collision") for event in held.events)


def test_somebody_on_a_crosswalk_uses_it(cache: Path) -> None:
    (empty,) = drive(cache, scene("constant-speed", 1, ON, max_time_s=3.0))
    x = -150.0 + 30.0 + empty.steps["crosswalk_m"][0] + 2.6
    (used,) = drive(
        cache,
        scene(
            "constant-speed",
            1,
            ON,
            max_time_s=3.0,
            script=STANDING,
            script_facts={"kind": "pedestrian", "pose": (x, -4.0, 1.6)},
        ),
    )
    near = empty.steps["crosswalk_m"] < 54.0
    assert near.any()
    assert set(empty.steps["crosswalk_used"][near]) == {0.0}
    assert set(used.steps["crosswalk_used"][near]) == {1.0}
    assert np.isnan(empty.steps["crosswalk_used"][~near][:3]).all()


@pytest.mark.parametrize(
    ("start", "y_m", "north_mps", "used"),
    [
        (Start(route=ON, lane=1, at_m=70.0, speed_mps=8.0), 2.4, 1.3, 0.0),  # has left our half
        (Start(route=ON, lane=1, at_m=70.0, speed_mps=8.0), 2.4, -1.3, 1.0),  # comes to it
        (Start(route=ON, lane=1, at_m=70.0, speed_mps=8.0), 2.4, 0.0, 1.0),  # waits in the middle
        (Start(route=ON, lane=1, at_m=70.0, speed_mps=8.0), -2.0, 1.3, 1.0),  # still on it
        (Start(route=("e_in", "w_out"), lane=1, at_m=130.0, speed_mps=8.0), -4.0, -1.3, 0.0),
        (Start(route=("e_in", "w_out"), lane=1, at_m=130.0, speed_mps=8.0), -4.0, 1.3, 1.0),
    ],
)
def test_who_leaves_the_other_half_of_a_crosswalk_uses_it_no_more(
    cache: Path, start: Start, y_m: float, north_mps: float, used: float
) -> None:
    (walk,) = Town.of(Roads.from_record("cn", load_pack("cn").roads), crossing(), cache).crosswalks
    x = float(walk.corners_42[:, 0].mean())
    pose = (x, y_m, math.copysign(math.pi / 2, north_mps or 1.0))
    facts = {"kind": "pedestrian", "pose": pose, "speed_mps": abs(north_mps)}
    job = scene("constant-speed", start.lane, start.route, max_time_s=3.0, script=STANDING, script_facts=facts)
    (run,) = drive(cache, replace(job, starts=(start,)))
    there = (run.steps["crosswalk_m"] > 5.0) & (run.steps["crosswalk_m"] < 54.0)
    assert there.any()
    assert set(run.steps["crosswalk_used"][there]) == {used}


def test_lanes_open_by_the_hour_and_arrows_change_with_it() -> None:
    bus = crossing().lanes["w_in"][0]
    assert [bus.open_to_cars(hour) for hour in (6.9, 7.0, 8.9, 9.0)] == [True, False, False, True]
    variable = replace(STRAIGHT, turns_by_hour=((22.0, 6.0, TURNS["left"]),))
    assert [variable.turns_at(hour) for hour in (23.0, 3.0, 12.0)] == [TURNS["left"], TURNS["left"], TURNS["straight"]]
