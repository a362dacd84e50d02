"""The driving score: three published formulas over route completion and counted infractions, from a Rollout alone.

    carla20       score = completion x product of multipliers                (CARLA leaderboard 1.0 and 2.0)
    carla21       score = completion x (1 - outside) / (1 + sum of coefficients)          (CARLA leaderboard 2.1)
    bench2drive   as carla20, minimum speed not counted                                  (Bench2Drive v0.0.4)

Rule: a score is a pure function of a Rollout; whatever is not in its columns and events has no influence.
Factors, rounding and statuses follow `statistics_manager.py` of those projects; event rules their `atomic_criteria.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.rollout import Event, Rollout

FORMULAS: tuple[str, ...] = ("carla20", "carla21", "bench2drive")
#: infraction -> (multiplier of 2.0 and Bench2Drive, coefficient of 2.1)
COUNTED: dict[str, tuple[float, float]] = {
    "collision_pedestrian": (0.50, 1.0),
    "collision_vehicle": (0.60, 0.7),
    "collision_static": (0.65, 0.6),
    "red_light": (0.70, 0.4),
    "stop_sign": (0.80, 0.25),
    "scenario_timeout": (0.70, 0.4),
    "yield_emergency": (0.70, 0.4),
}
#: infractions given in percent: outside route lanes (more is worse), minimum speed (100 is ideal)
OUTSIDE, MIN_SPEED = "outside_route_lanes_pct", "min_speed_pct"
MIN_SPEED_WEIGHTS = {"carla20": 0.3, "carla21": 0.4, "bench2drive": 0.0}
#: events that end a route: they lower its completion, not its penalty
STOPS: dict[str, str] = {
    "timeout": "Agent timed out",
    "route_deviation": "Agent deviated from the route",
    "blocked": "Agent got blocked",
}
SAME_COLLISION_S = 5.0
SAME_COLLISION_M = 5.0
STANDING_MPS = 0.1
ROUND_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class RouteScore:
    """One route's score: completion in percent, penalty in [0, 1], driving score in percent, and what was counted.

    status: Perfect (complete, no infraction), Completed or Failed; failure says what ended a failed route, if known.
    events: infraction -> count, or percent for names that end in `_pct`.
    """

    formula: str
    route_completion_pct: float
    penalty: float
    driving_score: float
    status: str
    failure: str = ""
    events: dict[str, float] = field(default_factory=dict)


def penalty(events: Mapping[str, float], formula: str = "carla20") -> float:
    """The factor in [0, 1] that infractions leave of a route's completion, unrounded.

    events: infraction -> count, `outside_route_lanes_pct` and `min_speed_pct` in percent. An unknown name is InputError.
    """
    check_formula(formula)
    check_events(events)
    outside = 1.0 - float(events.get(OUTSIDE, 0.0)) / 100.0
    slow = MIN_SPEED_WEIGHTS[formula] * (1.0 - float(events.get(MIN_SPEED, 100.0)) / 100.0)
    counts = {name: int(events.get(name, 0)) for name in COUNTED}
    if formula == "carla21":
        return outside / (1.0 + slow + math.fsum(COUNTED[name][1] * count for name, count in counts.items()))
    return outside * (1.0 - slow) * math.prod(COUNTED[name][0] ** count for name, count in counts.items())


def check_formula(formula: str) -> None:
    if formula not in FORMULAS:
        raise InputError("bad_config", f"formula {formula!r}", f"use one of {', '.join(FORMULAS)}.")


def check_events(events: Mapping[str, float]) -> None:
    known = {*COUNTED, *STOPS, OUTSIDE, MIN_SPEED}
    unknown = sorted(set(events) - known)
    if unknown:
        raise InputError(
            "unknown_format", f"infraction {unknown[0]!r}", f"the formulas know {', '.join(sorted(known))}."
        )
    for name, value in events.items():
        whole = name.endswith("_pct") or float(value).is_integer()
        if not math.isfinite(value) or value < 0 or not whole or (name.endswith("_pct") and value > 100):
            raise InputError("unknown_format", f"{name} = {value}", "give whole counts and percents of 0 to 100.")


def score_route(route_completion_pct: float, events: Mapping[str, float], formula: str = "carla20") -> RouteScore:
    """Score one route from its completion (percent) and counted infractions; rounded to six digits as the originals."""
    if not 0.0 <= route_completion_pct <= 100.0:
        raise InputError("unknown_format", f"route completion {route_completion_pct}", "give 0 to 100 percent.")
    factor = penalty(events, formula)
    complete = route_completion_pct >= 100.0
    clean = not any(value for name, value in events.items() if name != MIN_SPEED) and MIN_SPEED not in events
    failure = next((STOPS[name] for name in STOPS if events.get(name)), "")
    return RouteScore(
        formula=formula,
        route_completion_pct=round(route_completion_pct, ROUND_DIGITS),
        penalty=round(factor, ROUND_DIGITS),
        driving_score=round(max(route_completion_pct * factor, 0.0), ROUND_DIGITS),
        status=("Perfect" if clean else "Completed") if complete else "Failed",
        failure="" if complete else failure,
        events={name: float(value) for name, value in events.items() if value},
    )


def unmeasured(rollout: Rollout) -> str:
    """Why a run has no driving score; "" where it has one."""
    if any(event.kind == "left_valid_range" for event in rollout.events):
        return "it left the range in which recorded pictures can be trusted"
    on_road = rollout.steps["on_road"]
    return "there is no map of where it drove" if len(on_road) and np.isnan(on_road).all() else ""


def driving_score(rollout: Rollout, formula: str = "carla20") -> RouteScore:
    """Score a closed-loop run from its columns and events alone. Errors: InputError `not_measurable` (see `unmeasured`)."""
    why = unmeasured(rollout)
    if why:
        raise InputError("not_measurable", f"driving score of {rollout.world}", f"{why}.")
    return score_route(route_completion_pct(rollout), infractions(rollout), formula)


def route_completion_pct(rollout: Rollout) -> float:
    """How far along its route the ego came, in percent; 100 only when the world wrote `route_complete`."""
    if any(event.kind == "route_complete" for event in rollout.events):
        return 100.0
    progress = rollout.steps["progress_m"]
    if len(progress) == 0 or rollout.route_length_m <= 0:
        return 0.0
    reached = float(np.nanmax(progress, initial=0.0)) / rollout.route_length_m
    return min(max(100.0 * reached, 0.0), math.nextafter(100.0, 0.0))


def infractions(rollout: Rollout) -> dict[str, float]:
    """Infractions of a run under CARLA's names: counts, and the share of distance outside the route's lanes in percent."""
    counts: dict[str, float] = {}
    for event in rollout.events:
        if event.kind in ("red_light", "stop_sign", *STOPS):
            counts[event.kind] = counts.get(event.kind, 0) + 1
    for event in distinct_collisions(rollout):
        counts[event.kind] = counts.get(event.kind, 0) + 1
    outside = outside_route_lanes_pct(rollout)
    return {**counts, OUTSIDE: outside} if outside > 0 else counts


def outside_route_lanes_pct(rollout: Rollout) -> float:
    """Share (percent) of the driven distance on a lane this ego may not use or against its direction; junctions excepted."""
    steps = rollout.steps
    if len(steps["x_m"]) < 2:
        return 0.0
    driven_m = np.hypot(np.diff(steps["x_m"]), np.diff(steps["y_m"]))
    total_m = float(driven_m.sum())
    if total_m < 1e-6:
        return 0.0
    wrong = ((steps["forbidden"] > 0.5) | (steps["oncoming"] > 0.5)) & ~(steps["junction"] > 0.5)
    return min(100.0 * float(driven_m[wrong[1:]].sum()) / total_m, 100.0)


def distinct_collisions(rollout: Rollout) -> list[Event]:
    """At-fault collisions, one per actor and place: the same actor within 5 s or 5 m of ego travel counts once.

    An ego that stands (< 0.1 m/s) when it is hit is not at fault. E-bikes and bicycles are vehicles.
    """
    kept: list[Event] = []
    last: dict[tuple[str, str], tuple[float, NDArray[np.float64]]] = {}
    for event in sorted(rollout.events, key=lambda event: event.t_s):
        if not event.kind.startswith("collision_") or event.kind == "collision_not_at_fault":
            continue
        where, speed_mps = _ego_at(rollout, event.t_s)
        key = (event.kind, str(event.detail.get("id", "")))
        if event.kind != "collision_static" and speed_mps < STANDING_MPS:
            continue
        before = last.get(key)
        near = before is not None and (
            event.t_s - before[0] <= SAME_COLLISION_S or float(np.hypot(*(where - before[1]))) <= SAME_COLLISION_M
        )
        last[key] = (event.t_s, where)
        if not near:
            kept.append(event)
    return kept


def _ego_at(rollout: Rollout, t_s: float) -> tuple[NDArray[np.float64], float]:
    """Ego position and speed just before `t_s`: a crash itself may have stopped it."""
    times = rollout.steps["t_s"]
    if len(times) == 0:
        return np.zeros(2), math.inf
    row = int(np.clip(np.searchsorted(times, t_s) - 1, 0, len(times) - 1))
    now = min(row + 1, len(times) - 1)
    speed = max(float(rollout.steps["speed_mps"][row]), float(rollout.steps["speed_mps"][now]))
    return np.array([rollout.steps["x_m"][now], rollout.steps["y_m"][now]]), speed
