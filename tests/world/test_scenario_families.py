"""Scenario families: the careful driver passes, the careless one fails, and success is read from the rollout alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onshore.core.errors import InputError, NotFoundError
from onshore.core.rollout import Event, Rollout
from onshore.evaluation.scenarios import by_family, eyes_matter, eyes_rows, wilson
from onshore.region import load_pack, regions
from onshore.world import PolicySpec, birdseye_pictures, collect_takeovers, run_jobs, suite
from onshore.world.roads import Roads
from onshore.world.scenarios import families, family
from onshore.world.scenarios.sharing import TEACHER, scripted, shares, training_jobs, weights

FINED_IN_2025 = (
    "bus_lane_by_hour",
    "non_motor_lane",
    "solid_line",
    "turn_only_lane",
    "temporary_light",
    "ground_light",
    "e_bike_filtering",
    "wrong_way_e_bike",
)
EVERYWHERE = (
    "curves",
    "stop_and_go",
    "signal_approach",
    "unprotected_left",
    "right_on_red",
    "merge",
    "cut_in",
    "hard_braking_lead",
    "jaywalker",
    "occluded_pedestrian",
)
SEEDS = (501,)


def roads_of(region: str) -> Roads:
    return Roads.from_record(region, load_pack(region).roads)


def drive(region: str, names: list[str], seeds: tuple[int, ...], cache: Path) -> dict[tuple[str, str], list[Rollout]]:
    """(family, manner) -> its runs."""
    roads, manners = roads_of(region), ("careful", "careless")
    keys = [(name, manner, seed) for name in names for seed in seeds for manner in manners]
    jobs = [family(name).job(roads, seed, scripted(manner)) for name, manner, seed in keys]
    runs: dict[tuple[str, str], list[Rollout]] = {}
    for (name, manner, _), (run,) in zip(keys, run_jobs(jobs, workers=2, cache_dir=cache), strict=True):
        runs.setdefault((name, manner), []).append(run)
    return runs


@pytest.fixture(scope="module")
def runs(cache: Path) -> dict[tuple[str, str], list[Rollout]]:
    """A few families, for what holds of all of them."""
    return drive("cn", ["jaywalker", "stop_and_go", "solid_line", "crosswalk_yield"], SEEDS, cache)


def test_the_careful_driver_passes_and_the_careless_one_fails_every_family(cache: Path) -> None:
    found = drive("cn", list(families()), SEEDS, cache)
    wrong = {}
    for (name, manner), (run,) in found.items():
        verdict = family(name).verdict(run)
        if verdict.passed is not (manner == "careful"):
            wrong[name, manner] = verdict
    assert wrong == {}


def test_what_was_fined_in_2025_is_a_family_of_the_region() -> None:
    assert set(FINED_IN_2025) <= set(weights(load_pack("cn")))
    assert all(set(EVERYWHERE) <= set(weights(load_pack(region))) for region in ("cn", "us"))


def test_the_verdict_does_not_know_who_drove(runs: dict) -> None:
    for (name, _), (run,) in runs.items():
        again = Rollout.from_bytes(replace(run, policy="somebody else").to_bytes())
        assert family(name).verdict(again) == family(name).verdict(run)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(runs: dict, cache: Path) -> None:
    roads = roads_of("cn")
    jobs = [family("jaywalker").job(roads, seed, scripted("careful")) for seed in (SEEDS[0], 502)]
    (same,), (other,) = run_jobs(jobs, workers=1, cache_dir=cache)
    assert same.digest == runs["jaywalker", "careful"][0].digest
    assert other.digest != same.digest
    assert (same.world, other.world) == ("cn/jaywalker/501", "cn/jaywalker/502")


def test_nothing_but_arriving_unharmed_counts_as_success(runs: dict) -> None:
    (run,) = runs["stop_and_go", "careful"]
    found = family("stop_and_go")
    hit = Event(t_s=1.0, kind="collision_not_at_fault", detail={"with": "car", "speed_mps": 3.0})
    assert found.verdict(replace(run, events=(hit, *run.events))).why == "collision_not_at_fault with car"
    standing = replace(hit, detail={"with": "car", "speed_mps": 0.0})
    assert found.verdict(replace(run, events=(standing, *run.events))).passed is True
    late = replace(run, events=(Event(t_s=60.0, kind="timeout"),))
    assert found.verdict(late).why == "ended by timeout"


def test_a_column_that_is_not_known_is_not_a_success(runs: dict) -> None:
    (run,) = runs["solid_line", "careful"]
    blank = np.full(len(run.steps["t_s"]), np.nan)
    verdict = family("solid_line").verdict(replace(run, steps={**run.steps, "line_left": blank}))
    assert verdict.passed is None
    assert "line_left" in verdict.why
    late = replace(run, steps={**run.steps, "line_left": blank}, events=(Event(t_s=60.0, kind="timeout"),))
    assert family("solid_line").verdict(late).passed is False, "what failed has failed, whatever else is not known"
    (row,) = by_family([replace(run, steps={**run.steps, "line_left": blank})])
    assert (row.passed, row.not_measurable, np.isnan(row.rate)) == (0, 1, True)


def test_a_driver_who_only_stands_passes_no_family(cache: Path) -> None:
    roads = roads_of("cn")
    stop = PolicySpec(kind="stop")
    jobs = [replace(found.job(roads, SEEDS[0], stop), max_time_s=12.0) for found in families().values()]
    stood = [run for (run,) in run_jobs(jobs, workers=2, cache_dir=cache)]
    assert [row.passed for row in by_family(stood)] == [0] * len(families())


def test_the_bus_lane_is_judged_by_the_clock(cache: Path) -> None:
    """The careful driver uses it off-peak and keeps out of it in its hours; the column says which it was."""
    roads = roads_of("cn")
    seeds = (1, 2, 3, 4, 5, 6)
    jobs = [family("bus_lane_by_hour").job(roads, seed, scripted("careful")) for seed in seeds]
    used = {}
    for (run,) in run_jobs(jobs, workers=2, cache_dir=cache):
        in_bus_lane = bool((run.steps["lane_index"] == 0).any())
        hour = float(run.steps["clock_h"][0])
        used.setdefault(7 <= hour < 9 or 17 <= hour < 19, set()).add(in_bus_lane)
    assert used == {True: {False}, False: {True}}


def test_a_suite_shares_its_worlds_out_by_weight() -> None:
    pack = load_pack("cn")
    counts = shares(pack, 144)
    assert sum(counts.values()) == 144
    assert set(counts) == set(weights(pack))
    assert counts["jaywalker"] > counts["curves"] >= 1
    jobs = suite(pack, "cn-scenarios")
    assert len(jobs) == 144
    assert len({(job.scenario, job.traffic_seed) for job in jobs}) == 144
    assert all(job.egos == 1 for job in jobs)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(NotFoundError, match="no_such_family"):
        family("no_such_family")
    pack = load_pack("cn")
    with pytest.raises(InputError, match="no_such_family"):
        weights(replace(pack, suites={**pack.suites, "families": {"no_such_family": 1.0}}))


def test_every_region_with_suites_weighs_its_families() -> None:
    for region in regions():
        pack = load_pack(region)
        if any("scenarios" in chosen for chosen in pack.suites.get("suites", {}).values()):
            assert weights(pack)


def test_a_blind_policy_sees_black(cache: Path) -> None:
    roads = roads_of("us")
    looking = PolicySpec(kind="python", entry="world.policies:Brightest", blind=True, name="blind")
    seeing = replace(looking, blind=False, name="seeing")
    jobs = [replace(family("curves").job(roads, 1, spec), max_time_s=2.0) for spec in (looking, seeing)]
    (blind,), (bright,) = run_jobs(jobs, workers=1, cache_dir=cache)
    assert blind.steps["speed_mps"][-1] < bright.steps["speed_mps"][-1]
    assert blind.frame_digest != bright.frame_digest


def test_a_scenario_is_redrawn_from_its_rollout(runs: dict, cache: Path) -> None:
    (run,) = runs["crosswalk_yield", "careful"]
    (picture,) = birdseye_pictures(run, load_pack("cn"), at_s=(6.0,), cache_dir=cache)
    assert picture.startswith(b"\x89PNG")


def test_every_family_says_what_its_eyes_are_for() -> None:
    assert all(len(found.eyes) > 8 for found in families().values())
    assert [name for name, found in families().items() if not found.needs_eyes] == [
        "variable_direction_lane",
        "u_turn_lane",
    ]


def test_eyes_are_apart_only_where_the_same_worlds_say_so(runs: dict) -> None:
    (good,), (bad,) = runs["jaywalker", "careful"], runs["jaywalker", "careless"]
    open_eyes = [replace(good, world_seed=seed) for seed in range(20)]
    shut = [replace(bad, world_seed=seed) for seed in range(20)]
    (row,) = eyes_rows(open_eyes, shut)
    assert (row.verdict, row.seeing.passed, row.blind.passed) == ("apart", 20, 0)
    assert row.paired is not None and row.paired.difference == 1.0 and row.paired.p < 0.001
    (same,) = eyes_rows(open_eyes, open_eyes)
    assert same.verdict == "not apart" and same.paired is not None and same.paired.p == 1.0
    (few,) = eyes_rows(open_eyes[:3], shut[:3])
    assert few.verdict == "not apart", "three worlds are not enough"
    with pytest.raises(InputError, match="jaywalker"):
        eyes_rows(open_eyes, runs["stop_and_go", "careful"])


def test_lessons_are_worlds_of_no_suite_and_every_second_one_is_shown() -> None:
    pack = load_pack("cn")
    policy = PolicySpec(kind="stop")
    lessons = [job for seed in range(4) for job in training_jobs(pack, policy, each=6, seed=seed)]
    tested = [job for name in ("cn-scenarios", "cn-eyes") for job in suite(pack, name)]
    worlds = {(job.scenario, job.traffic_seed) for job in lessons}
    assert len(worlds) == len(lessons) == 4 * 6 * len(weights(pack))
    assert not worlds & {(job.scenario, job.traffic_seed) for job in tested}
    assert [job.policy.kind for job in lessons[:4]] == ["stop", "scripted", "stop", "scripted"]
    assert all(job.collect and job.teacher for job in lessons)
    assert {name: count for name, count in Counter(job.scenario for job in tested[-480:]).items()} == dict.fromkeys(
        weights(pack), 20
    )


def test_the_teacher_answers_from_where_somebody_else_has_driven(cache: Path) -> None:
    """A driver who goes straight on at one speed is told to brake for the car ahead and to steer back in the bend."""
    roads, steady = roads_of("us"), PolicySpec(kind="constant-speed", speed_mps=8.0)
    lesson = {"collect": True, "teacher": TEACHER}
    jobs = [replace(family(name).job(roads, 3, steady), **lesson) for name in ("hard_braking_lead", "curves")]
    jobs.append(replace(family("curves").job(roads, 3, scripted("careful")), **lesson))
    (braking, bend, own), arrays = collect_takeovers(jobs, workers=1, cache_dir=cache)
    of = {number: arrays["world_N"] == number for number in range(3)}
    assert braking[0].ended == "collision_vehicle" and arrays["speed_NT"][of[0]].min() < 1.0
    assert np.abs(arrays["path_NK2"][of[0], -1, 1]).max() < 0.5
    assert bend[0].ended != "route_complete"
    asked = np.abs(arrays["path_NK2"][of[1], -1, 1])
    assert asked.max() > 3.0 and np.isfinite(arrays["path_NK2"]).all()
    # who is on the line is told what it does anyway
    told, did = arrays["speed_NT"][of[2]], own[0].plan_speed_NT[::4]
    assert np.abs(told - did[: len(told)]).max() < 0.3


def test_intervals_of_shares_are_wilsons() -> None:
    low, high = wilson(20, 20)
    assert low == pytest.approx(0.8389, abs=1e-3)
    assert high == 1.0
    assert wilson(0, 20)[1] == pytest.approx(0.1611, abs=1e-3)
    assert np.isnan(wilson(0, 0)).all()


def test_eyes_matter_only_where_intervals_are_apart(runs: dict) -> None:
    rows = by_family([run for (name, _), (run,) in runs.items() if name == "jaywalker"] * 10)
    (row,) = rows
    assert (row.worlds, row.passed) == (20, 10)
    better = replace(row, low=row.high + 0.01)
    assert eyes_matter(better, row)
    assert not eyes_matter(row, row)


@pytest.mark.slow
@pytest.mark.parametrize("region", ["us", "cn"])
def test_proof_every_family_holds_in_nineteen_of_twenty_worlds(region: str, cache: Path) -> None:
    names, seeds = list(weights(load_pack(region))), tuple(range(1, 21))
    found = drive(region, names, seeds, cache)
    wrong = {}
    for (name, manner), mine in found.items():
        expected = manner == "careful"
        wrong[name, manner] = sum(family(name).verdict(run).passed is not expected for run in mine)
    assert {key: count for key, count in wrong.items() if count > 1} == {}
