"""Worlds in child processes: determinism, obedience, reaction, crashes, takeovers, fleet recording, pictures."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from onshore.core.errors import OnshoreError
from onshore.core.rollout import ACTOR_COLUMNS, FIRST_CONTEXT_COLUMN, STEP_COLUMNS, Rollout
from onshore.evaluation.closedloop import score_suite
from onshore.region import load_pack
from onshore.wire import decode, read_mcap
from onshore.world import (
    PolicySpec,
    birdseye_pictures,
    camera_pictures,
    collect_takeovers,
    record_fleet,
    run_jobs,
)
from onshore.world.pool import SPARE
from world.conftest import job, worlds_children

CRASH = PolicySpec(kind="python", entry="world.policies:DieOnce", name="constant-speed")
LOOKING = PolicySpec(kind="python", entry="world.policies:Looking")


@pytest.fixture(scope="module")
def runs(cache: Path) -> dict[str, list[Rollout]]:
    """One world driven three ways, and the cn town once."""
    jobs = {
        "constant": job("constant-speed", egos=4, max_time_s=20.0),
        "stop": job("stop", egos=4, max_time_s=20.0),
        "expert": job("expert", egos=4, max_time_s=20.0, route_m=200.0),
        "looking": job(region="cn", policy=LOOKING, max_time_s=4.0),
    }
    return dict(zip(jobs, run_jobs(list(jobs.values()), workers=2, cache_dir=cache), strict=True))


def test_the_same_job_gives_the_same_bytes_for_any_number_of_workers(runs: dict, cache: Path) -> None:
    again = job("constant-speed", egos=4, max_time_s=20.0)
    looking = job(region="cn", policy=LOOKING, max_time_s=4.0)
    drive, look = run_jobs([again, looking], workers=1, cache_dir=cache)
    assert [rollout.digest for rollout in drive] == [rollout.digest for rollout in runs["constant"]]
    assert [rollout.digest for rollout in look] == [rollout.digest for rollout in runs["looking"]]
    assert all(rollout.frame_digest for rollout in look)


def test_rollouts_are_complete(runs: dict) -> None:
    for rollout in [rollout for world in runs.values() for rollout in world]:
        steps = rollout.steps
        assert set(steps) == set(STEP_COLUMNS)
        assert set(rollout.actors) == set(ACTOR_COLUMNS)
        assert np.allclose(np.diff(steps["t_s"]), 0.1)
        known = (*STEP_COLUMNS[:FIRST_CONTEXT_COLUMN], "clock_h", "speed_limit_mps", "stop_rule")
        assert all(np.isfinite(steps[name]).all() for name in known if name != "light_distance_m")
        assert len(rollout.plan_path_NK2) == len(steps["t_s"])
        assert np.isnan(rollout.plan_path_NK2).all() == (rollout.policy == "expert")
        assert rollout.actor_row.max(initial=0) < len(steps["t_s"])
        assert len(rollout.actor_row) > 0
        assert rollout.events
        assert Rollout.from_bytes(rollout.to_bytes()).digest == rollout.digest


def test_an_ego_obeys_its_plan_alone(runs: dict) -> None:
    """The same cars: the engine drives them on, the stop plan holds them, the constant plan never brakes."""
    for stopped, driven, constant in zip(runs["stop"], runs["expert"], runs["constant"], strict=True):
        assert stopped.steps["speed_mps"][-1] == 0.0
        assert np.ptp(stopped.steps["progress_m"][60:]) < 0.01
        assert driven.steps["progress_m"][-1] > stopped.steps["progress_m"][-1] + 3
        settled = constant.steps["speed_mps"][60:]
        assert not len(settled) or np.abs(settled - 7.0).max() < 0.2


def test_traffic_reacts_to_an_ego_that_brakes(cache: Path) -> None:
    """Cars that come up in the ego's lane: in the control run they drive on; behind the stopped ego nobody touches it."""
    common = {"egos": 8, "max_time_s": 15.0, "route_m": 200.0, "town_seed": 1, "traffic_seed": 24}
    stopped, control = run_jobs([job("stop", **common), job("expert", **common)], cache_dir=cache)
    slowed = []
    for braked, free in zip(stopped, control, strict=True):
        assert not any(event.kind.startswith("collision") for event in braked.events)
        for name in followers(braked):
            before, after = track(free, name), track(braked, name)
            if len(before) > 50 and before[:50, 3].min() > 4.0:
                slowed.append(after[:, 3].min() < 2.0)
    assert any(slowed), slowed


def followers(rollout: Rollout) -> list[int]:
    """Moving cars that start up to 60 m behind the ego in its lane."""
    first = rollout.actor_row == 0
    columns = {name: column[first] for name, column in rollout.actors.items()}
    x, y, yaw = (rollout.steps[name][0] for name in ("x_m", "y_m", "yaw_rad"))
    dx, dy = columns["x_m"] - x, columns["y_m"] - y
    ahead, left = dx * np.cos(yaw) + dy * np.sin(yaw), -dx * np.sin(yaw) + dy * np.cos(yaw)
    alike = np.cos(columns["yaw_rad"] - yaw) > 0.95
    chosen = (ahead < -3) & (ahead > -60) & (np.abs(left) < 1.2) & alike & (columns["speed_mps"] > 2)
    return rollout.actor_id[first][chosen].tolist()


def track(rollout: Rollout, name: int) -> np.ndarray:
    mine = rollout.actor_id == name
    return np.column_stack([rollout.actors[column][mine] for column in ("x_m", "y_m", "yaw_rad", "speed_mps")])


def test_a_killed_child_costs_time_and_no_result(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short = job(policy=CRASH, egos=1, max_time_s=3.0)
    calm = run_jobs([short], workers=1, cache_dir=cache)
    mark = tmp_path / "mark"
    mark.touch()
    monkeypatch.setenv("ONSHORE_TEST_MARK", str(mark))
    crashed = run_jobs([short], workers=1, cache_dir=cache)
    assert not mark.exists()
    assert "its job runs again" in caplog.text
    assert crashed[0][0].digest == calm[0][0].digest


def test_a_child_that_is_always_killed_is_given_up_and_drives_nothing_else(cache: Path) -> None:
    deadly = PolicySpec(kind="scripted", entry="world.policies:Killed", name="rule")
    with pytest.raises(OnshoreError, match="world_crashed"):
        run_jobs([job(policy=deadly, egos=1)], workers=1, cache_dir=cache)


def test_a_world_that_the_engine_dies_of_is_driven_with_egos_placed_freely(cache: Path) -> None:
    deadly = PolicySpec(kind="scripted", entry="world.policies:DieOfPlacing", name="rule")
    (driven,) = run_jobs([job(policy=deadly, egos=1, max_time_s=4.0)], workers=1, cache_dir=cache)
    assert driven[0].ended == "timeout"
    assert Rollout.from_bytes(driven[0].to_bytes()).placed_freely
    rates = score_suite(driven)["rates"]
    assert rates["placed_freely_pct"] == 100


@pytest.mark.filterwarnings("ignore:lance is not fork-safe")
def test_an_idle_child_serves_the_next_run_unless_it_ran_code_from_elsewhere(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drive(policy: PolicySpec) -> tuple[str, set[int]]:
        (driven,) = run_jobs([job(policy=policy, egos=1, max_time_s=1.0)], workers=1, cache_dir=cache)
        return driven[0].digest, set(worlds_children())

    stop = PolicySpec(kind="stop")
    SPARE.end()
    first, kept = drive(stop)
    again, same = drive(stop)
    assert first == again and len(kept) == 1 and same == kept
    assert drive(LOOKING)[1] == set()  # it took the idle child, which then ended
    _, fresh = drive(stop)
    os.kill(*fresh, signal.SIGKILL)
    after, other = drive(stop)
    assert after == first and len(other) == 1 and other != fresh
    fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    fork.start()
    assert SPARE.end() == [0], "a forked copy of this process keeps nobody's line open"
    fork.kill()
    fork.join()
    drive(stop)
    monkeypatch.setenv("ONSHORE_TEST_MARK", "x")
    assert len(drive(stop)[1]) == 2  # what it was started with no longer holds
    SPARE.end()
    assert worlds_children() == []


def test_what_a_child_raises_arrives(cache: Path) -> None:
    with pytest.raises(OnshoreError, match="no_such_module"):
        run_jobs([job(policy=PolicySpec(kind="python", entry="no_such_module:x"))], workers=1, cache_dir=cache)


def test_takeovers_hold_what_was_seen_and_the_experts_answer(cache: Path) -> None:
    slow = PolicySpec(kind="constant-speed", speed_mps=3.0)
    (rollouts,), arrays = collect_takeovers(
        [job(policy=slow, collect=True, town_seed=1, traffic_seed=5, max_time_s=6.0)], workers=1, cache_dir=cache
    )
    count = len(arrays["side_N9"])
    assert count >= 10
    assert arrays["frames_NTHWC"].shape == (count, 2, 64, 128, 3)
    assert arrays["path_NK2"].shape == (count, 8, 2)
    assert arrays["path_mask_NK"].shape == (count, 8)
    assert arrays["speed_NT"].shape == (count, 4)
    assert set(np.unique(arrays["speed_mask_N"])) <= {0.0, 1.0}
    assert arrays["speed_NT"].min() >= 0
    assert np.abs(arrays["path_NK2"][:, 0, 0] - 2).max() < 0.5
    assert len(rollouts) == 2
    _, again = collect_takeovers(
        [job(policy=slow, collect=True, town_seed=1, traffic_seed=5, max_time_s=6.0)], workers=2, cache_dir=cache
    )
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_a_fleet_brings_home_ordinary_drives(cache: Path, tmp_path: Path) -> None:
    pack = load_pack("cn")
    first = record_fleet(pack, town_seed=1, cars=2, minutes=0.2, seed=3, out_dir=tmp_path / "a", cache_dir=cache)
    again = record_fleet(
        pack, town_seed=1, cars=2, minutes=0.2, seed=3, out_dir=tmp_path / "b", cache_dir=cache, workers=1
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert len(first) == 2
    recording = read_mcap(first[0])
    assert recording.synthetic
    assert recording.vehicle == "car-0001"
    assert recording.facts["place"] == "cn-town-001"
    frames = list(decode(recording.videos[0]))
    assert len(frames) == len(recording.signals.t_ns) == 60
    assert frames[0][1].shape == (96, 192, 3)
    assert [t for t, _ in frames] == recording.signals.t_ns.tolist()
    known = recording.signals.known()
    assert {"speed_mps", "accel_mps2", "yaw_rate_radps", "x_m", "yaw_rad", "command", "in_junction"} <= set(known)
    moved = np.hypot(np.diff(recording.signals.x_m), np.diff(recording.signals.y_m)).sum()
    assert moved == pytest.approx(recording.signals.speed_mps.mean() * 5.9, rel=0.2, abs=1.0)


def test_pictures_of_a_rollout(runs: dict, cache: Path) -> None:
    pack, rollout = load_pack("us"), runs["constant"][0]
    through = camera_pictures(rollout, pack, at_s=(0.5, 1.5), scale=2, cache_dir=cache)
    above = birdseye_pictures(rollout, pack, at_s=(0.5,), cache_dir=cache)
    assert [picture[:8] for picture in (*through, *above)] == [b"\x89PNG\r\n\x1a\n"] * 3
    assert through[0] != through[1]
