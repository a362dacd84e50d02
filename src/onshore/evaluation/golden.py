"""Recompute published scorer outputs and list every disagreement: what was asked for and cannot be done is an error.

Rule: a case counts as agreeing only when every column was recomputed and is equal to the last digit given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onshore.core.errors import InputError
from onshore.evaluation.scores import RouteScore, score_route

#: formula names in golden files -> ours
FORMULA_NAMES = {"carla_2_0": "carla20", "carla_2_1": "carla21", "bench2drive": "bench2drive"}
#: infraction names that differ from ours: those of the leaderboards' own result files
EVENT_NAMES = {
    "collisions_pedestrian": "collision_pedestrian",
    "collisions_vehicle": "collision_vehicle",
    "collisions_layout": "collision_static",
    "traffic_light_infraction": "red_light",
    "stop": "stop_sign",
    "stop_infraction": "stop_sign",
    "scenario_timeouts": "scenario_timeout",
    "yield_to_emergency_vehicle": "yield_emergency",
    "yield_emergency_vehicle": "yield_emergency",
    "yield_emergency_vehicle_infractions": "yield_emergency",
    "outside_route_lanes": "outside_route_lanes_pct",
    "min_speed": "min_speed_pct",
    "min_speed_infractions": "min_speed_pct",
    "route_timeout": "timeout",
    "route_dev": "route_deviation",
    "vehicle_blocked": "blocked",
}
COLUMNS = ("route_completion", "penalty", "driving_score", "status")


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One recomputed value that differs from the published one."""

    case: str
    formula: str
    column: str
    expected: Any
    computed: Any

    def __str__(self) -> str:
        return f"{self.case} {self.formula} {self.column}: published {self.expected}, recomputed {self.computed}"


def golden(path: Path) -> list[Disagreement]:
    """Recompute every case of a file shaped like `carla.json`; [] means all agree exactly.

    Raises InputError `unknown_format` for another shape and `not_measurable` for EPDMS cases, which are not scored yet.
    """
    return [found for case in _cases(Path(path)) for found in _compare(case)]


def golden_cases(path: Path) -> int:
    """How many (case, formula) pairs `golden` recomputes."""
    return sum(len(case["expected"]) for case in _cases(Path(path)))


def _cases(path: Path) -> list[dict[str, Any]]:
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except OSError as problem:
        raise InputError("unknown_format", path, "the file cannot be read; give a golden file.") from problem
    except ValueError as problem:
        raise InputError("unknown_format", path, "the file is not JSON; give a golden file.") from problem
    if isinstance(record, dict) and "scenes" in record:
        raise InputError(
            "not_measurable", path, "EPDMS is not measurable yet: no scorer for it is built; use a CARLA file."
        )
    if not isinstance(record, dict) or not isinstance(record.get("cases"), list) or not record["cases"]:
        raise InputError("unknown_format", path, "expected an object with a list 'cases', as in golden/carla.json.")
    if tuple(record.get("columns", COLUMNS)) != COLUMNS:
        raise InputError("unknown_format", f"{path} columns", f"expected {', '.join(COLUMNS)}.")
    return [_checked(case, path) for case in record["cases"]]


def _checked(case: Any, path: Path) -> dict[str, Any]:
    fields = ("name", "route_completion_pct", "events", "expected")
    if not isinstance(case, dict) or any(name not in case for name in fields) or not case["expected"]:
        raise InputError("unknown_format", f"{path} case", f"expected the fields {', '.join(fields)}, none empty.")
    for formula, values in case["expected"].items():
        if formula not in FORMULA_NAMES or len(values) != len(COLUMNS):
            raise InputError("unknown_format", f"{path} {case['name']} {formula}", f"use {', '.join(FORMULA_NAMES)}.")
    return case


def _compare(case: Mapping[str, Any]) -> Iterator[Disagreement]:
    events = {EVENT_NAMES.get(name, name): value for name, value in case["events"].items()}
    for name, expected in case["expected"].items():
        score = score_route(float(case["route_completion_pct"]), events, FORMULA_NAMES[name])
        for column, value, computed in zip(COLUMNS, expected, _row(score), strict=True):
            if value != computed:
                yield Disagreement(case=case["name"], formula=name, column=column, expected=value, computed=computed)


def _row(score: RouteScore) -> tuple[float, float, float, str]:
    status = f"{score.status} - {score.failure}" if score.failure else score.status
    return (score.route_completion_pct, score.penalty, score.driving_score, status)
