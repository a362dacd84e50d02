"""A score from a Rollout alone: completion, infractions, and what counts once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.rollouts import straight
from onshore.core.rollout import Rollout
from onshore.evaluation import driving_score
from onshore.evaluation.scores import FORMULAS, infractions, outside_route_lanes_pct

DONE = (19.9, "route_complete", {})


def hit(
    t_s: float, actor: int = 7, kind: str = "collision_vehicle", **detail: object
) -> tuple[float, str, dict[str, object]]:
    return (t_s, kind, {"id": actor, **detail})


def test_a_clean_complete_route_is_perfect() -> None:
    score = driving_score(straight(DONE))
    assert (score.route_completion_pct, score.penalty, score.driving_score, score.status) == (100, 1, 100, "Perfect")


def test_half_a_route_is_failed_and_half() -> None:
    score = driving_score(straight((10.0, "timeout", {}), route_m=398.0))
    assert score.driving_score == pytest.approx(50.0) and score.status == "Failed"
    assert score.failure == "Agent timed out"


def test_only_the_world_says_complete() -> None:
    """A car that reached the end by dead reckoning but was not confirmed stays below 100."""
    score = driving_score(straight(route_m=100.0))
    assert 99.9 < score.route_completion_pct <= 100 and score.status == "Failed"


def test_ebikes_are_vehicles() -> None:
    score = driving_score(straight(hit(5.0, kind="collision_vehicle", actor_kind="ebike"), DONE))
    assert score.driving_score == 60.0 and score.status == "Completed"


@pytest.mark.parametrize(
    ("hits", "counted"),
    [
        ([hit(5.0), hit(9.9)], 1),  # the same actor within 5 s
        ([hit(5.0), hit(10.1)], 2),  # later and further on
        ([hit(5.0), hit(5.0, actor=8)], 2),  # another actor
        ([hit(5.0), hit(8.0), hit(11.0), hit(14.0)], 1),  # in touch all the time
    ],
)
def test_one_collision_counts_once(hits: list[tuple[float, str, dict[str, object]]], counted: int) -> None:
    assert infractions(straight(*hits, DONE))["collision_vehicle"] == counted


def test_the_same_actor_in_the_same_place_counts_once_however_late() -> None:
    slow = straight(hit(1.0), hit(15.0), speed_mps=0.3)
    assert infractions(slow)["collision_vehicle"] == 1


def test_an_ego_that_stands_is_not_at_fault() -> None:
    assert "collision_vehicle" not in infractions(straight(hit(5.0), speed_mps=0.0))
    assert "collision_not_at_fault" not in infractions(straight((5.0, "collision_not_at_fault", {"id": 3})))


def test_a_crash_that_stops_the_ego_is_still_its_fault() -> None:
    stopped = straight(hit(5.0), speed_mps=10.0)
    stopped.steps["speed_mps"][50:] = 0.0
    assert infractions(stopped)["collision_vehicle"] == 1


def test_distance_in_wrong_lanes_lowers_the_score_by_its_share() -> None:
    wrong = np.arange(200) >= 150
    for column in ("forbidden", "oncoming"):
        rollout = straight(DONE, **{column: wrong})
        assert outside_route_lanes_pct(rollout) == pytest.approx(25.0, abs=0.5)
        assert driving_score(rollout).driving_score == pytest.approx(75.0, abs=0.5)
    assert outside_route_lanes_pct(straight(DONE, forbidden=wrong, junction=np.ones(200))) == 0.0


def test_standing_in_a_wrong_lane_is_no_distance() -> None:
    assert outside_route_lanes_pct(straight(speed_mps=0.0, forbidden=np.ones(200))) == 0.0


def test_an_empty_run_scores_nothing() -> None:
    score = driving_score(straight(seconds=0.0))
    assert score.driving_score == 0.0 and score.status == "Failed"


def test_a_score_survives_storage_and_ignores_everything_else() -> None:
    rollout = straight(hit(5.0), (8.0, "red_light", {}), DONE)
    for formula in FORMULAS:
        assert driving_score(Rollout.from_bytes(rollout.to_bytes()), formula) == driving_score(rollout, formula)


EVENTS = st.sampled_from(["collision_vehicle", "collision_static", "collision_pedestrian", "red_light", "stop_sign"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 19), EVENTS, st.integers(0, 3)), max_size=8), st.floats(0, 60))
def test_scores_stay_in_range_and_more_events_never_help(
    events: list[tuple[float, str, int]], reached_m: float
) -> None:
    rows = [(t, kind, {"id": actor}) for t, kind, actor in events]
    for formula in FORMULAS:
        full = driving_score(straight(*rows, route_m=200 + reached_m), formula)
        assert 0 <= full.driving_score <= full.route_completion_pct <= 100 and 0 <= full.penalty <= 1
        if rows:
            fewer = driving_score(straight(*sorted(rows, key=lambda r: r[0])[:-1], route_m=200 + reached_m), formula)
            assert fewer.driving_score >= full.driving_score
