"""What may be asked: suites on held-out towns, training elsewhere, and asks that have no meaning."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from onshore.core.errors import InputError, NotFoundError, UsageError
from onshore.region import RegionPack, load_pack
from onshore.world import PolicySpec, RolloutJob, suite, training_jobs
from onshore.world.roads import Roads


def test_suites_are_distinct_held_out_worlds(pack: RegionPack) -> None:
    core = suite(pack, f"{pack.region}-core")
    assert len(core) >= 12
    assert len({(job.town_seed, job.traffic_seed) for job in core}) == len(core)
    assert len({job.town_seed for job in core}) >= 3
    assert {job.egos for job in core} == {4}


def test_training_never_meets_a_suite(pack: RegionPack) -> None:
    names = pack.suites["suites"]
    tested = [job for name in names for job in suite(pack, name)]
    policy = PolicySpec(kind="stop")
    trained = [job for seed in range(400) for job in training_jobs(pack, policy, worlds=3, egos=8, seed=seed)]
    assert not {job.town_seed for job in tested} & {job.town_seed for job in trained}
    assert not {job.traffic_seed for job in tested} & {job.traffic_seed for job in trained}
    assert not set(pack.suites["held_out_towns"]) & set(pack.suites["training_towns"])


def test_two_seeds_of_collecting_share_no_world(pack: RegionPack) -> None:
    policy = PolicySpec(kind="stop")
    worlds = [
        (job.town_seed, job.traffic_seed)
        for seed in range(20)
        for job in training_jobs(pack, policy, worlds=4, egos=2, seed=seed)
    ]
    assert len(set(worlds)) == len(worlds)


def test_a_suite_on_a_training_town_is_refused(pack: RegionPack) -> None:
    suites = copy.deepcopy(pack.suites)
    suites["suites"][f"{pack.region}-tiny"]["worlds"] = [[suites["training_towns"][0], 2000]]
    with pytest.raises(InputError, match="not held out"):
        suite(replace(pack, suites=suites), f"{pack.region}-tiny")
    with pytest.raises(NotFoundError, match="tiny"):
        suite(pack, "moon-core")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: PolicySpec(kind="teleport"),  # type: ignore[arg-type]
        lambda: PolicySpec(kind="onnx"),
        lambda: PolicySpec(kind="python", entry="nowhere"),
        lambda: RolloutJob(region="us", suite="x", town_seed=1, traffic_seed=1, policy=PolicySpec(kind="stop"), egos=0),
        lambda: RolloutJob(
            region="us", suite="x", town_seed=1, traffic_seed=1, policy=PolicySpec(kind="expert"), collect=True
        ),
    ],
)
def test_asks_without_meaning_are_refused(ask: object) -> None:
    with pytest.raises(UsageError):
        ask()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("table", "field", "value", "named"),
    [
        ("traffic", "mix", [{"kind": "rocket", "share": 1.0, "lanes": [0]}], "rocket"),
        ("traffic", "mix", [{"kind": "car", "share": 1.0, "lanes": [9]}], "no lane 9"),
        ("lights", "stack", "diagonal", "stack"),
        ("lights", "colour", "green", "lights.colour.*unexpected"),
        ("lights", "housing", [1, 2], r"lights.housing: expected a list of 3"),
        ("lights", "height_m", "high", "lights.height_m: expected float"),
        ("approach", "arrow_at_m", [1.0, "far"], r"approach.arrow_at_m\[1\]: expected float"),
        ("paint", "centre", {"colour": [1, 2, 3]}, "paint.centre.width_m.*missing"),
        (
            "signs",
            0,
            {"face": "moon", "where": "stop", "height_m": 2.0, "half_size_m": 0.4},
            r"signs\[0\].face: no .*moon",
        ),
        ("lanes", 0, {"kind": "car", "width_m": 3, "allow": "bus", "reserved_h": [[9, 7]]}, r"lanes\[0\].reserved_h"),
        ("town", "grid", None, "town.grid"),
    ],
)
def test_bad_roads_name_the_field(pack: RegionPack, table: str, field: str | int, value: object, named: str) -> None:
    record = copy.deepcopy(pack.roads)
    if value is None:
        del record[table][field]
    else:
        record[table][field] = value
    with pytest.raises(InputError, match=named):
        Roads.from_record(pack.region, record)


def test_roads_without_a_table_name_it(pack: RegionPack) -> None:
    record = {name: value for name, value in pack.roads.items() if name != "lights"}
    with pytest.raises(InputError, match="lights"):
        Roads.from_record(pack.region, record)


def test_a_bus_lane_is_the_buses_at_its_hours_alone() -> None:
    bus = next(lane for lane in Roads.from_record("cn", load_pack("cn").roads).lanes if lane.kind == "bus")
    assert [bus.open_to_cars(hour) for hour in (6.9, 7.0, 8.9, 9.0, 12.0, 18.0, 19.0, 31.5)] == [
        *(True, False, False, True),
        *(True, False, True, False),
    ]
