"""Who drives: the rule driver, blind policies, cars that obey late; and worlds that repeat in any number of processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onshore.core.control import Action, Actuators
from onshore.core.rollout import LIGHTS
from onshore.evaluation.epdms_rollout import epdms_windows, window_scores
from onshore.world import PolicySpec, run_jobs
from onshore.world.drivers import idm
from onshore.world.jobs import SURROUND, WIDE_CAMERA
from world.conftest import job
from world.test_layouts import ON, STANDING, drive, scene

SEEING = PolicySpec(kind="python", entry="world.policies:Brightest", name="brightness")


def test_idm_keeps_its_distance_and_its_speed() -> None:
    assert idm(10.0, 12.0, float("inf"), 0.0) > 0.3
    assert idm(12.0, 12.0, float("inf"), 0.0) == pytest.approx(0.0)
    assert idm(10.0, 12.0, 8.0, 0.0) < -4.0
    assert idm(0.0, 12.0, 1.0, 0.0) < 0.0


def test_the_rule_driver_stops_for_red_and_for_what_stands_in_its_lane(cache: Path) -> None:
    north = ("s_in", "n_out")
    red, free, blocked = drive(
        cache,
        scene("rule", 0, north, max_time_s=18.0),
        scene("rule", 1, ON, max_time_s=18.0),
        scene(
            "rule", 1, ON, script=STANDING, script_facts={"kind": "static", "pose": (-60.0, -4.7, 0.0)}, max_time_s=18.0
        ),
    )
    assert LIGHTS[int(red.steps["light"][-1])] == "red"
    assert red.steps["speed_mps"][-1] < 0.3
    assert 0.0 < red.steps["stop_line_m"][-1] < 4.0
    assert free.steps["progress_m"][-1] > 100
    assert blocked.steps["speed_mps"][-1] < 0.3
    assert blocked.steps["x_m"][-1] + 3.7 < -60.3
    assert not [event for run in (red, blocked) for event in run.events if event.kind != "timeout"]
    for run in (red, free, blocked):
        scores = [window_scores(window) for window in epdms_windows(run)]
        assert len(scores) == 4 and all(0.0 <= without <= 1.0 for without, _ in scores)
        assert all(0.0 <= score <= 1.0 for _, score in scores[1:])
    # who waits at red or behind what stands loses no progress
    assert epdms_windows(red)[-1]["EP"].value == epdms_windows(blocked)[-1]["EP"].value == 1.0


def test_the_engine_follows_an_ego_through_every_turn(cache: Path) -> None:
    """Of two car lanes that turn, the second has a way of its own through the junction; there egos were once nowhere."""
    followed = PolicySpec(kind="scripted", entry="world.policies:Followed", name="followed")
    world = job(region="cn", town_seed=1, traffic_seed=960, egos=6, route_m=200.0, max_time_s=30.0, policy=followed)
    (turned,) = run_jobs([world], workers=1, cache_dir=cache)  # the driver raises where the engine does not
    assert sum(int((run.steps["junction"] > 0).any()) for run in turned) >= 4


def test_a_blind_policy_is_shown_black(cache: Path) -> None:
    seeing, blind = run_jobs(
        [job(policy=policy, egos=1, max_time_s=3.0) for policy in (SEEING, replace(SEEING, blind=True))],
        cache_dir=cache,
    )
    assert seeing[0].plan_speed_NT[0].max() > 0.0
    assert blind[0].plan_speed_NT.max() == 0.0
    assert (seeing[0].policy, blind[0].policy) == ("brightness", "brightness")


def test_a_rig_of_three_cameras_shows_three_views_of_a_moment(cache: Path) -> None:
    around = PolicySpec(kind="python", entry="world.policies:LookingAround", name="around")
    cameras = (WIDE_CAMERA, SURROUND[1], SURROUND[2])
    many = job(policy=around, egos=1, max_time_s=2.0, cameras=cameras)
    (seen,), (one_eyed,) = run_jobs([many, replace(many, policy=SEEING, cameras=())], cache_dir=cache)
    assert seen.ended == "timeout" and seen.frame_digest != one_eyed.frame_digest


def test_actuators_wait_and_lag() -> None:
    lag = Actuators(dead_time_s=0.3, steering_lag_s=0.2, accel_lag_s=0.0)
    assert lag.delay_steps(0.1) == 3
    asked = Action(steering_rad=0.4, accel_mps2=2.0)
    after = lag.respond(Action(steering_rad=0.0, accel_mps2=0.0), asked, 0.2)
    assert after.steering_rad == pytest.approx(0.4 * (1 - np.exp(-1)))
    assert after.accel_mps2 == 2.0


def test_a_car_that_obeys_late_stops_later(cache: Path) -> None:
    prompt, late = drive(
        cache,
        scene("stop", 1, ON, max_time_s=6.0),
        scene("stop", 1, ON, actuators=Actuators(dead_time_s=0.5, accel_lag_s=0.3), max_time_s=6.0),
    )
    assert prompt.steps["accel_mps2"][0] < -4.0
    assert late.steps["accel_mps2"][:5] == pytest.approx(0.0)
    longer = late.steps["progress_m"][-1] - prompt.steps["progress_m"][-1]
    assert longer == pytest.approx(8.0 * 0.8, abs=1.2)


@pytest.mark.slow
def test_500_seeds_give_500_worlds_and_the_same_digests_twice(cache: Path) -> None:
    """Short worlds of both regions; every fiftieth again, alone, in another process."""
    looking = PolicySpec(kind="python", entry="world.policies:Looking")
    jobs = [
        job(
            region=("us", "cn")[seed % 2],
            policy=looking if seed % 5 == 0 else PolicySpec(kind="constant-speed", speed_mps=2.0 + seed % 9),
            town_seed=1 + seed // 125,
            traffic_seed=20_000 + seed,
            max_time_s=12.0,
            warm_s=20.0,
        )
        for seed in range(500)
    ]
    worlds = run_jobs(jobs, workers=2, cache_dir=cache)
    assert len(worlds) == 500
    assert all(rollouts and all(rollout.events for rollout in rollouts) for rollouts in worlds)
    again = run_jobs(jobs[::50], workers=1, cache_dir=cache)
    assert [r.digest for world in again for r in world] == [r.digest for world in worlds[::50] for r in world]
