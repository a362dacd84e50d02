"""The nouns: ids, labels, frames, plans, control, triggers, rollouts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onshore.core.control import FOR_ESTIMATES, Action, Bicycle, Controller, EgoState, VehicleGeometry, _between
from onshore.core.digest import blob_id, canonical_json, check_id, record_digest, salted_id
from onshore.core.errors import ERROR_CODES, InputError, OnshoreError, Refusal, RefusedError
from onshore.core.frames import from_frame, path_at_arcs, to_frame, wrap_angle
from onshore.core.label import Label
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import Observation, StopPolicy, straight_plan
from onshore.core.recording import ClipRef, Signals
from onshore.core.rollout import ACTOR_COLUMNS, STEP_COLUMNS, Event, Rollout
from onshore.core.trigger import Trigger

finite = st.floats(-1e4, 1e4)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "ä"]}) == '{"a":[1.5,null,"ä"],"b":1}'.encode()
    assert record_digest({"x": 1, "y": 2}) == record_digest({"y": 2, "x": 1})


def test_a_not_a_number_never_enters_a_record() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": math.nan})


def test_blob_ids_bind_the_region() -> None:
    assert blob_id("cn", b"x") != blob_id("us", b"x")
    with pytest.raises(InputError):
        blob_id("CN/..", b"x")


@pytest.mark.parametrize("bad", ["", "a/b", "..", "A", "x" * 81, "é"])
def test_ids_cannot_be_paths(bad: str) -> None:
    with pytest.raises(InputError, match="bad_id"):
        check_id(bad)


def test_salted_ids_hide_the_name_and_depend_on_the_salt() -> None:
    one = salted_id(b"1" * 32, "vehicle", "car-0007")
    assert one == salted_id(b"1" * 32, "vehicle", "car-0007")
    assert one != salted_id(b"2" * 32, "vehicle", "car-0007")
    assert "0007" not in one


def test_every_error_carries_a_known_code_and_an_exit_code() -> None:
    with pytest.raises(ValueError, match="unknown error code"):
        OnshoreError("made_up", "x", "y")
    refusal = Refusal(code="raw_ban", subject="drive-1", rule="raw-ban", clause="CN-03", remedy="Export a model.")
    assert RefusedError(refusal).exit_code == 3
    assert "CN-03" in str(refusal) and "Export a model." in str(refusal)
    assert all(code == code.lower() and text for code, text in ERROR_CODES.items())


def test_a_label_has_no_defaults_when_read_back() -> None:
    record = Label(region="cn", kind="clip").as_record()
    assert Label.from_record(record) == Label(region="cn", kind="clip")
    for name in record:
        with pytest.raises(InputError, match="unlabelled"):
            Label.from_record({key: value for key, value in record.items() if key != name})


@pytest.mark.parametrize("change", [{"kind": "x"}, {"sensitivity": frozenset({"x"})}, {"region": "china"}])
def test_a_label_knows_its_words(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Label(**{"region": "cn", "kind": "clip", **change})  # type: ignore[arg-type]


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=5), finite, finite, st.floats(-10, 10))
def test_frames_round_trip(points: list[tuple[float, float]], x: float, y: float, yaw: float) -> None:
    there = to_frame(points, x, y, yaw)
    assert np.allclose(from_frame(there, x, y, yaw), points, atol=1e-6)


@given(st.floats(-50, 50))
def test_wrapped_angles_are_the_same_angle(angle: float) -> None:
    wrapped = float(wrap_angle(angle))
    assert -math.pi < wrapped <= math.pi + 1e-12
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-9)


def test_path_at_arcs_says_where_the_path_ends() -> None:
    points, reached = path_at_arcs([[0, 0], [3, 4]], [2.5, 5.0, 6.0])
    assert np.allclose(points[0], [1.5, 2.0]) and reached.tolist() == [True, True, False]


def test_a_straight_plan_drives_straight() -> None:
    trajectory = straight_plan(10.0).trajectory(10.0)
    assert (
        np.allclose(trajectory.x_m[-1], 20.0) and np.allclose(trajectory.y_m, 0) and np.allclose(trajectory.yaw_rad, 0)
    )


def test_a_plan_that_turns_back_looks_back() -> None:
    """A left U-turn of 5 m radius at 6 m/s, along a quarter of a radian a step."""
    angle = np.asarray(PATH_ARCS_M) / 5.0
    path = np.stack([5.0 * np.sin(angle), 5.0 * (1 - np.cos(angle))], -1)
    trajectory = Plan(path_xy_m=path, speed_mps=np.full(len(SPEED_TIMES_S), 6.0)).trajectory(6.0)
    assert np.degrees(trajectory.yaw_rad[-1]) == pytest.approx(np.degrees(12.0 / 5.0), abs=6)


def test_a_plan_must_fit_its_own_lengths() -> None:
    with pytest.raises(ValueError, match="plan shapes"):
        Plan(path_xy_m=np.zeros((3, 2)), speed_mps=np.zeros(4))


def test_the_controller_follows_a_circle() -> None:
    """A car that re-plans the same circle stays on it: controller and bicycle agree."""
    radius, state, controller, bicycle = 25.0, EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=6.0), Controller(), Bicycle()
    for _ in range(300):
        angle = math.atan2(state.x_m, radius - state.y_m) + np.array(PATH_ARCS_M) / radius
        world = np.stack([radius * np.sin(angle), radius - radius * np.cos(angle)], -1)
        path = to_frame(world, state.x_m, state.y_m, state.yaw_rad)
        plan = Plan(path_xy_m=path, speed_mps=np.full(len(SPEED_TIMES_S), 6.0))
        state = bicycle.step(state, controller.act(plan, state.speed_mps, VehicleGeometry()), 0.1)
    assert abs(math.hypot(state.x_m, state.y_m - radius) - radius) < 0.5


def test_who_drives_by_estimates_stops_before_who_knows_would() -> None:
    """The same late wish to slow down: harder braking ends nearer to where it began, and full braking stays the limit."""
    geometry, ways = VehicleGeometry(), []
    for controller in (Controller(), FOR_ESTIMATES):
        state, bicycle = EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=11.0), Bicycle()
        for _ in range(80):
            plan = replace(
                straight_plan(0.0), speed_mps=np.maximum(state.speed_mps - 2.5 * np.array(SPEED_TIMES_S), 0.0)
            )
            action = controller.act(plan, state.speed_mps, geometry)
            assert -controller.max_brake_mps2 <= action.accel_mps2 <= 0
            state = bicycle.step(state, action, 0.1)
        ways.append(state.x_m)
    assert ways[1] < 0.75 * ways[0]


@given(st.integers(0, 2**32 - 1), st.floats(-1.0, 8.0))
def test_the_controller_reads_a_plan_as_numpy_would(seed: int, at: float) -> None:
    rng = np.random.default_rng(seed)
    known, values = np.cumsum(rng.uniform(0.1, 2.0, 5)), rng.normal(0, 10, 5)
    for place in (at, *known.tolist()):
        assert _between(place, known.tolist(), values.tolist()) == float(np.interp(place, known, values))


def test_stop_stops_and_never_reverses() -> None:
    state, controller, bicycle = EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=14.0), Controller(), Bicycle()
    plan = StopPolicy().act(Observation(t_ns=0, frames={}, frame_ages_s={}, speed_mps=14.0))
    for _ in range(100):
        state = bicycle.step(state, controller.act(plan, state.speed_mps, VehicleGeometry()), 0.1)
        assert state.speed_mps >= 0
    assert state.speed_mps == 0


@given(st.floats(-10, 10), st.floats(-20, 20), st.floats(0, 40))
def test_the_bicycle_obeys_its_steering_rate(steering: float, accel: float, speed: float) -> None:
    before = EgoState(x_m=0, y_m=0, yaw_rad=0, speed_mps=speed)
    after = Bicycle().step(before, Action(steering_rad=steering, accel_mps2=accel), 0.1)
    assert abs(after.steering_rad) <= 0.12 + 1e-12


SECOND = 10**9
TIMES = np.arange(0, 10 * SECOND, SECOND // 10)


def test_a_trigger_asks_for_the_seconds_around_it() -> None:
    accel = np.where((TIMES >= 4 * SECOND) & (TIMES <= 5 * SECOND), -4.0, 0.0)
    trigger = Trigger(name="hard_brake", when="accel_mps2 < -3.0", for_s=0.3, before_s=2, after_s=1)
    assert trigger.spans(TIMES, {"accel_mps2": accel}) == [(2 * SECOND, 6 * SECOND)]


def test_unknown_signals_trigger_nothing() -> None:
    trigger = Trigger(name="t", when="abs(speed_mps) >= 0 and not (speed_mps > 5)")
    assert trigger.spans(TIMES, {"speed_mps": np.full(len(TIMES), np.nan)}) == []
    assert trigger.spans(TIMES, {}) == []


def test_windows_look_back() -> None:
    speed = np.where(TIMES < 5 * SECOND, 10.0, 0.0)
    spans = Trigger(name="t", when="max_over(speed_mps, 2.0) - speed_mps > 5", before_s=0, after_s=0).spans(
        TIMES, {"speed_mps": speed}
    )
    assert spans == [(5 * SECOND, int(6.9 * SECOND))]


@pytest.mark.parametrize(
    "bad", ["import os", "__import__('os')", "a.b > 1", "x[0] > 1", "lambda: 1", "1 <", "x == 1", "'a' < 2"]
)
def test_a_trigger_is_no_program(bad: str) -> None:
    with pytest.raises(InputError, match="bad_trigger"):
        Trigger(name="t", when=bad).spans(TIMES, {"x": np.zeros(len(TIMES)), "a": np.zeros(len(TIMES))})


def test_signals_refuse_clocks_that_run_backwards() -> None:
    with pytest.raises(InputError, match="clock_disorder"):
        Signals.build(np.array([1, 3, 2]))


def test_a_clip_is_its_place_in_a_segment() -> None:
    clip = ClipRef(segment_id="segment-1", start_ns=0, end_ns=5)
    assert clip.id == ClipRef(segment_id="segment-1", start_ns=0, end_ns=5).id != replace(clip, end_ns=6).id


def a_rollout(score: float = 1.0) -> Rollout:
    return Rollout(
        region="cn",
        suite="cn-tiny",
        scenario="town",
        world_seed=7,
        ego=0,
        policy="stop",
        route_length_m=250.0,
        steps={name: np.arange(5.0) * score for name in STEP_COLUMNS},
        plan_path_NK2=np.zeros((5, 8, 2), np.float32),
        plan_speed_NT=np.zeros((5, 4), np.float32),
        actors={name: np.zeros(3, np.float32) for name in ACTOR_COLUMNS},
        actor_row=np.array([0, 0, 4], np.int32),
        actor_id=np.array([1, 2, 1], np.int32),
        actor_kind=np.zeros(3, np.int8),
        events=(Event(t_s=0.4, kind="timeout"),),
    )


def test_a_rollout_survives_its_bytes() -> None:
    rollout = a_rollout()
    again = Rollout.from_bytes(rollout.to_bytes())
    assert again.digest == rollout.digest and again.ended == "timeout" and again.world == "cn/town/7"
    assert a_rollout(2.0).digest != rollout.digest
