"""The referee's rules, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.rollout import ACTOR_KINDS, EVENTS
from onshore.world.referee import ENDINGS, Box, Referee, Sight, _overlap

NUMBERS = st.floats(-20, 20)
BOXES = st.builds(
    Box,
    x_m=NUMBERS,
    y_m=NUMBERS,
    yaw_rad=st.floats(-4, 4),
    half_length_m=st.floats(0.2, 6),
    half_width_m=st.floats(0.2, 2),
)


def sight(t_s: float = 1.0, **changes: object) -> Sight:
    ego = Box(x_m=0.0, y_m=0.0, yaw_rad=0.0, half_length_m=2.3, half_width_m=0.95)
    neighbours = changes.pop("neighbours", [])
    kinds = [ACTOR_KINDS.index(kind) for kind, *_ in neighbours]  # type: ignore[attr-defined]
    fields = {
        "ego": ego,
        "speed_mps": 5.0,
        "progress_m": 1.0,
        "off_route_m": 0.0,
        "on_road": True,
        "oncoming": False,
        "red_passed": None,
        "stop_passed": None,
        "light_holds": False,
        "neighbours_M5": np.array([row[1:] for row in neighbours], float).reshape(-1, 5),  # type: ignore[attr-defined]
        "neighbour_ids": np.arange(len(kinds), dtype=np.int32),
        "neighbour_kinds": np.array(kinds, np.int8),
    }
    return Sight(t_s=t_s, **{**fields, **changes})


def judged(count: int = 1, **changes: object) -> Referee:
    referee = Referee(route_m=100.0, max_time_s=200.0, step_s=0.1)
    for step in range(count):
        if not referee.ended:
            referee.judge(sight(0.1 * (step + 1), **dict(changes)))
    return referee


def overlap(a: Box, b: Box) -> bool:
    sizes = [(box.half_length_m, box.half_width_m) for box in (a, b)]
    return bool(_overlap(b.x_m - a.x_m, b.y_m - a.y_m, a.yaw_rad, sizes[0], b.yaw_rad, sizes[1]))


@settings(deadline=None)  # the first call compiles
@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_agrees_with_distance(a: Box, b: Box) -> None:
    assert overlap(a, b) == overlap(b, a)
    apart = math.hypot(a.x_m - b.x_m, a.y_m - b.y_m)
    if apart > math.hypot(a.half_length_m, a.half_width_m) + math.hypot(b.half_length_m, b.half_width_m) + 1e-6:
        assert not overlap(a, b)
    if apart < min(a.half_length_m, a.half_width_m):
        assert overlap(a, b)


def test_endings_are_events_of_core() -> None:
    assert set(EVENTS) >= ENDINGS


@pytest.mark.parametrize(
    ("neighbour", "speed", "kind"),
    [
        (("car", 4.0, 0.0, 0.0, 4.6, 1.9), 5.0, "collision_vehicle"),
        (("ebike", 0.0, 1.0, 0.0, 1.8, 0.7), 5.0, "collision_vehicle"),
        (("pedestrian", 2.0, 0.0, 1.5, 0.5, 0.5), 5.0, "collision_pedestrian"),
        (("static", 2.0, 0.5, 0.0, 0.6, 0.6), 5.0, "collision_static"),
        (("pedestrian", 2.0, 0.0, 1.5, 0.5, 0.5), 0.0, "collision_not_at_fault"),
        (("car", -4.0, 0.0, 0.0, 4.6, 1.9), 5.0, "collision_not_at_fault"),
        (("car", 4.0, 0.0, 3.1, 4.6, 1.9), 0.05, "collision_not_at_fault"),
    ],
)
def test_fault_lies_with_who_drives_into_the_other(neighbour: tuple, speed: float, kind: str) -> None:
    referee = judged(3, neighbours=[neighbour], speed_mps=speed)
    assert [event.kind for event in referee.events] == [kind]
    assert referee.events[0].detail["with"] == neighbour[0]
    assert referee.ended == (kind != "collision_not_at_fault")


def test_passing_close_is_no_collision() -> None:
    assert judged(5, neighbours=[("car", 0.0, 2.2, 0.0, 4.6, 1.9)]).events == []


@pytest.mark.parametrize(
    ("changes", "steps", "kind"),
    [
        ({"on_road": False}, 25, "off_road"),
        ({"oncoming": True}, 40, "wrong_way"),
        ({"speed_mps": 0.0}, 600, "blocked"),
        ({"off_route_m": 21.0}, 1, "route_deviation"),
        ({"progress_m": 100.5}, 1, "route_complete"),
    ],
)
def test_each_ending_comes_at_its_time(changes: dict, steps: int, kind: str) -> None:
    assert judged(steps - 1, **changes).events == []
    assert [event.kind for event in judged(steps + 5, **changes).events] == [kind]


def test_waiting_with_a_reason_is_not_blocked() -> None:
    assert judged(700, speed_mps=0.0, light_holds=True).events == []
    assert judged(700, speed_mps=0.0, neighbours=[("car", 9.0, 0.0, 0.0, 4.6, 1.9)]).events == []
    assert judged(2001, speed_mps=0.0, light_holds=True).events[-1].kind == "timeout"


def test_a_red_light_and_a_stop_sign_are_noted_and_the_run_goes_on() -> None:
    referee = judged(1, red_passed="e1", stop_passed="e2")
    assert [(event.kind, event.detail["street"]) for event in referee.events] == [
        ("red_light", "e1"),
        ("stop_sign", "e2"),
    ]
    assert not referee.ended
