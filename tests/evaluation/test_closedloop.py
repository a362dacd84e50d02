"""Closed loop in real (tiny) worlds: driven once, stored, and scored from what was stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.rollouts import straight
from onshore.core.errors import InputError
from onshore.evaluation import closed_loop, compare
from onshore.evaluation.closedloop import pack_rollouts, score_suite, unpack_rollouts
from onshore.store import Center


def test_a_suite_is_scored_by_world() -> None:
    done = (19.9, "route_complete", {})
    hit = (5.0, "collision_vehicle", {"id": 4})
    rollouts = [
        straight(done, world_seed=1, ego=0),
        straight(done, hit, world_seed=1, ego=1),
        straight(hit, done, world_seed=2, ego=0),
        straight((1.0, "collision_not_at_fault", {"id": 9}), done, world_seed=2, ego=1),
    ]
    record = score_suite(rollouts)
    assert record["score"]["mean"] == 80.0 and record["score"]["worlds"] == 2 and record["score"]["routes"] == 4
    assert record["rates"]["collision_vehicle"] == 0.5 and record["rates"]["collision_not_at_fault"] == 0.25
    assert set(record["by_formula"]) == {"carla20", "carla21", "bench2drive"}


def test_rollouts_come_back_as_they_were_packed() -> None:
    rollouts = [straight((19.9, "route_complete", {}), ego=ego) for ego in range(3)]
    again = unpack_rollouts(pack_rollouts(rollouts))
    assert [one.digest for one in again] == [one.digest for one in rollouts]
    assert pack_rollouts(again) == pack_rollouts(rollouts)


def test_no_rollouts_are_no_score() -> None:
    with pytest.raises(InputError):
        score_suite([])


@pytest.mark.timeout(120)
def test_a_policy_drives_a_suite_once(tmp_path: Path) -> None:
    from onshore.world import PolicySpec

    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    policies = [PolicySpec(kind="stop"), PolicySpec(kind="expert")]
    stop, expert = closed_loop(center, policies, "us-tiny")
    assert stop.fresh and stop.synthetic and 2 * stop.score.mean < expert.score.mean
    assert (stop.policy, expert.policy) == ("stop", "expert")
    assert stop.score.worlds == 2 and len(stop.rollouts) == 2 and stop.worlds == expert.worlds
    again, _ = closed_loop(center, policies, "us-tiny")
    assert not again.fresh and again == stop
    stored = [rollout for name in stop.rollouts for rollout in unpack_rollouts(center.read(name))]
    assert score_suite(stored)["score"]["mean"] == stop.score.mean
    assert center.artifact(stop.id).parents == stop.rollouts
    result = compare(stop.scores, expert.scores)
    assert result.difference == pytest.approx(expert.score.mean - stop.score.mean) and result.worlds == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_clear_difference_is_decided_in_a_few_batches_of_held_out_worlds(tmp_path: Path) -> None:
    from onshore.evaluation.closedloop import batch_jobs, compare_in_batches
    from onshore.evaluation.statistics import SequentialPlan
    from onshore.region import load_pack
    from onshore.world import PolicySpec, suite

    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    stop, expert = PolicySpec(kind="stop"), PolicySpec(kind="expert")
    plan = SequentialPlan(minimum_effect=20.0, most_worlds=6)
    found, _ = compare_in_batches(center, stop, expert, "us-tiny", plan, batch=6)
    assert found.decision == "better" and found.worlds <= 6 and found.difference > 20.0
    same, _ = compare_in_batches(center, stop, stop, "us-tiny", replace(plan, most_worlds=6), batch=6)
    assert same.decision != "better" and same.difference == 0.0
    pack = load_pack("us")
    seeds = {(job.town_seed, job.traffic_seed) for job in batch_jobs(pack, "us-core", stop, 0, 160)}
    assert len(seeds) == 160 and not seeds & {(job.town_seed, job.traffic_seed) for job in suite(pack, "us-core")}
    assert {town for town, _ in seeds} <= set(pack.suites["held_out_towns"])
