"""Recompute published scorer outputs and list every disagreement: what was asked for and cannot be done is an error.

Rule: a case counts as agreeing only when every published column was recomputed and is equal: CARLA's to the last digit,
EPDMS sub-metrics exactly (EP, a ratio, to the last digit of inputs printed with six), EPDMS scores within 1e-3.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onshore.core.errors import InputError
from onshore.evaluation.epdms import Epdms, score_scene
from onshore.evaluation.epdms_scene import Scene, read_scenes
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
#: EPDMS columns of golden files that are sub-metrics by name; the others are computed in `_epdms_row`
SUB_METRICS = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK")
EPDMS_COLUMNS = (*SUB_METRICS, "HC", "HC_noHistory", "EC", "comfort6", "score_without_EC", "score")
#: largest difference that still counts as equal; exact where not listed
EPDMS_CLOSE = {"EP": 2e-6, "score_without_EC": 1e-3, "score": 1e-3}


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
    """Recompute every case of a file shaped like `carla.json` or `epdms.json`; [] means all agree.

    Raises InputError `unknown_format`, naming the field, for another shape and for a published column nobody computes.
    """
    record = _record(Path(path))
    if "scenes" in record:
        return [found for scene in _scenes(record, path) for found in _compare_scene(scene)]
    return [found for case in _cases(record, path) for found in _compare(case)]


def golden_cases(path: Path) -> int:
    """How many (case, formula) pairs `golden` recomputes; EPDMS counts as one formula."""
    record = _record(Path(path))
    if "scenes" in record:
        return len(_scenes(record, path))
    return sum(len(case["expected"]) for case in _cases(record, path))


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except OSError as problem:
        raise InputError("unknown_format", path, "the file cannot be read; give a golden file.") from problem
    except (ValueError, RecursionError) as problem:
        raise InputError("unknown_format", path, "the file is not JSON; give a golden file.") from problem
    if not isinstance(record, dict):
        raise InputError("unknown_format", path, "expected an object with a list 'cases' or 'scenes'.")
    return record


def _cases(record: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    if not isinstance(record.get("cases"), list) or not record["cases"]:
        raise InputError("unknown_format", path, "expected a list 'cases' or 'scenes', as in golden/carla.json.")
    if tuple(record.get("columns", COLUMNS)) != COLUMNS:
        raise InputError("unknown_format", f"{path} columns", f"expected {', '.join(COLUMNS)}.")
    return [_checked(case, path) for case in record["cases"]]


def _checked(case: Any, path: Path) -> dict[str, Any]:
    fields = ("name", "route_completion_pct", "events", "expected")
    if not isinstance(case, dict) or any(name not in case for name in fields) or not case["expected"]:
        raise InputError("unknown_format", f"{path} case", f"expected the fields {', '.join(fields)}, none empty.")
    where = f"{path} {case['name']}"
    for name in ("events", "expected"):
        if not isinstance(case[name], dict):
            raise InputError("unknown_format", f"{where} {name}", "expected an object.")
    for name, value in [("route_completion_pct", case["route_completion_pct"]), *case["events"].items()]:
        if not _is_number(value):
            raise InputError("unknown_format", f"{where} {name}", f"expected a finite number, not {value!r}.")
    for formula, values in case["expected"].items():
        if formula not in FORMULA_NAMES or not isinstance(values, list) or len(values) != len(COLUMNS):
            advice = f"use {', '.join(FORMULA_NAMES)}, each a list of {', '.join(COLUMNS)}."
            raise InputError("unknown_format", f"{where} {formula}", advice)
    return case


def _is_number(value: Any) -> bool:
    """Whether JSON gave a number that a float can hold; true and false are none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


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


def _scenes(record: dict[str, Any], path: Path) -> list[Scene]:
    scenes = read_scenes(record, path)
    for at, scene in enumerate(scenes):
        unknown = sorted(set(scene.expected) - set(EPDMS_COLUMNS))
        if unknown or not scene.expected:
            where = f"{path} scenes[{at}].expected{'.' + unknown[0] if unknown else ''}"
            raise InputError("unknown_format", where, f"use the columns {', '.join(EPDMS_COLUMNS)}.")
    return scenes


def _compare_scene(scene: Scene) -> Iterator[Disagreement]:
    row = _epdms_row(score_scene(scene))
    for column, expected in scene.expected.items():
        computed = row[column]
        if not _agree(expected, computed, EPDMS_CLOSE.get(column, 0.0)):
            yield Disagreement(case=scene.name, formula="epdms", column=column, expected=expected, computed=computed)


def _epdms_row(result: Epdms) -> dict[str, Any]:
    """Every column a golden file may publish; None where this scene does not let it be measured."""
    return {
        **{name: getattr(result, name).value for name in SUB_METRICS},
        "HC": result.HC.value if result.HC.measured else None,
        "HC_noHistory": None if result.HC.measured else result.HC.value,
        "EC": result.EC.value if result.EC.measured else None,
        "comfort6": list(result.comfort.values()),
        "score_without_EC": result.score_without_ec,
        "score": result.score,
    }


def _agree(expected: Any, computed: Any, within: float) -> bool:
    """A figure that could not be measured agrees with nothing; `nan` neither."""
    if isinstance(computed, float):
        number = isinstance(expected, int | float) and not isinstance(expected, bool)
        return number and math.isfinite(expected) and abs(expected - computed) <= within
    return computed is not None and type(expected) is type(computed) and bool(expected == computed)
