"""The three formulas against numbers of the original scorers, and what a file must not get away with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from onshore.core.errors import InputError
from onshore.evaluation.golden import golden, golden_cases
from onshore.evaluation.scores import FORMULAS, penalty, score_route

#: route completion, events, then (penalty, score, status) of CARLA 2.0, CARLA 2.1 and Bench2Drive
CASES = {
    "clean": (100, {}, (1.0, 100.0, "Perfect"), (1.0, 100.0, "Perfect"), (1.0, 100.0, "Perfect")),
    "two vehicles": (
        100,
        {"collision_vehicle": 2},
        (0.36, 36.0, "Completed"),
        (0.416667, 41.666667, "Completed"),
        (0.36, 36.0, "Completed"),
    ),
    "static at 60": (
        60,
        {"collision_static": 1},
        (0.65, 39.0, "Failed"),
        (0.625, 37.5, "Failed"),
        (0.65, 39.0, "Failed"),
    ),
    "outside 12.5": (
        100,
        {"outside_route_lanes_pct": 12.5},
        (0.875, 87.5, "Completed"),
        (0.875, 87.5, "Completed"),
        (0.875, 87.5, "Completed"),
    ),
}


def file_of(folder: Path, **changes: object) -> Path:
    cases = [
        {
            "name": name,
            "route_completion_pct": completion,
            "events": events,
            "expected": dict(
                zip(["carla_2_0", "carla_2_1", "bench2drive"], [[completion, *row] for row in rows], strict=True)
            ),
        }
        for name, (completion, events, *rows) in CASES.items()
    ]
    path = folder / "golden.json"
    path.write_text(json.dumps({"cases": cases, **changes}), encoding="utf8")
    return path


def test_published_numbers_agree_exactly(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    assert golden(path) == []
    assert golden_cases(path) == 3 * len(CASES)


def test_a_changed_digit_is_found(tmp_path: Path) -> None:
    record = json.loads(file_of(tmp_path).read_text())
    record["cases"][1]["expected"]["carla_2_1"][2] = 41.666668
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(record))
    (found,) = golden(path)
    assert (found.case, found.formula, found.column) == ("two vehicles", "carla_2_1", "driving_score")
    assert found.computed == 41.666667


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"scenes": [{}]}', "unknown_format"),
        ('{"scenes": 3}', "unknown_format"),
        ("{", "unknown_format"),
        ("[]", "unknown_format"),
        ('{"cases": []}', "unknown_format"),
        ('{"cases": [{"name": "x"}]}', "unknown_format"),
        ('{"columns": ["a"], "cases": [{}]}', "unknown_format"),
        (
            '{"cases": [{"name": "x", "route_completion_pct": 9, "events": {}, "expected": {"other": [1]}}]}',
            "unknown_format",
        ),
        (
            '{"cases": [{"name": "x", "route_completion_pct": 9, "events": {"teapot": 1},'
            ' "expected": {"carla_2_0": [1, 1, 1, "Failed"]}}]}',
            "unknown_format",
        ),
    ],
)
def test_a_file_that_cannot_be_recomputed_never_passes(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        golden(path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("red_light", {"events": {"red_light": None}}),
        ("red_light", {"events": {"red_light": "one"}}),
        ("red_light", {"events": {"red_light": True}}),
        ("red_light", {"events": {"red_light": 10**400}}),
        ("events", {"events": None}),
        ("route_completion_pct", {"route_completion_pct": None}),
        ("route_completion_pct", {"route_completion_pct": "all", "events": {"route_completion_pct": 1}}),
        ("route_completion_pct", {"route_completion_pct": float("nan")}),
        ("expected", {"expected": ["carla_2_0"]}),
        ("carla_2_0", {"expected": {"carla_2_0": None}}),
    ],
)
def test_a_field_that_is_no_number_or_table_is_named(tmp_path: Path, field: str, change: dict[str, object]) -> None:
    case = json.loads(file_of(tmp_path).read_text())["cases"][1]
    path = tmp_path / "changed.json"
    path.write_text(json.dumps({"cases": [{**case, **change}]}))
    for recompute in (golden, golden_cases):
        with pytest.raises(InputError) as caught:
            recompute(path)
        assert (caught.value.code, caught.value.subject) == ("unknown_format", f"{path} two vehicles {field}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        golden(tmp_path / "gone.json")


def test_the_mixed_case_of_the_three_formulas() -> None:
    events = {"collision_vehicle": 1, "red_light": 2, "outside_route_lanes_pct": 5.0, "min_speed_pct": 90.0}
    scores = [round(score_route(90.0, events, formula).driving_score, 3) for formula in FORMULAS]
    assert scores == [24.383, 33.661, 25.137]


def test_minimum_speed_is_an_infraction_everywhere_but_lowers_no_bench2drive_score() -> None:
    assert penalty({"min_speed_pct": 0.0}, "carla20") == pytest.approx(0.7)
    assert penalty({"min_speed_pct": 0.0}, "carla21") == pytest.approx(1 / 1.4)
    assert penalty({"min_speed_pct": 0.0}, "bench2drive") == 1.0
    assert score_route(100.0, {"min_speed_pct": 80.0}, "bench2drive").status == "Completed"


@pytest.mark.parametrize("events", [{"red_light": -1}, {"red_light": 0.5}, {"outside_route_lanes_pct": 101}, {"x": 1}])
def test_impossible_events_are_refused(events: dict[str, float]) -> None:
    with pytest.raises(InputError):
        score_route(50.0, events)


def test_every_infraction_lowers_every_score() -> None:
    for formula in FORMULAS:
        for name in ("collision_pedestrian", "collision_vehicle", "collision_static", "red_light", "stop_sign"):
            once, twice = penalty({name: 1}, formula), penalty({name: 2}, formula)
            assert 0 < twice < once < 1


@pytest.mark.data
def test_the_original_scorers_files() -> None:
    beside_data = Path(os.environ.get("ONSHORE_TEST_DATA", "data")).parent / "golden"
    folder = Path(os.environ.get("ONSHORE_GOLDEN", beside_data))
    if not (folder / "carla.json").exists():
        pytest.skip("the golden files of the original scorers are not here")
    assert golden(folder / "carla.json") == []
    assert golden(folder / "epdms.json") == []
