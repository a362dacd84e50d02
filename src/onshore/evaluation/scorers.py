"""Every score of a set of stored rollouts, by name and version: one place that knows which scorers there are.

Rule: a scorer reads Rollouts alone. A row names worlds, egos and seeds and carries a 95 % interval (by world, or Poisson
for counts per distance); what a rollout does not let be measured is counted beside the mean, never as zero.

    carla20 carla21 b2d     driving score (percent); b2d also the success rate
    epdms                   sub-metrics of NAVSIM v2.2 over windows of 4 s, where columns allow
    comfort                 share of 2 s windows within six comfort bounds (percent)
    infractions             events per km driven
    rules-<region>          offences, points and fines per 100 km by a region's rules
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onshore.core.errors import UsageError
from onshore.core.rollout import Rollout
from onshore.evaluation.comfort import comfortable
from onshore.evaluation.driven import Driven
from onshore.evaluation.epdms_rollout import SUB_METRICS, epdms_windows, window_scores
from onshore.evaluation.recorded import from_rollout
from onshore.evaluation.rules import RULES_VERSION, RuleBook, judge, totals
from onshore.evaluation.scores import MIN_SPEED, RouteScore, distinct_collisions, driving_score, unmeasured
from onshore.evaluation.statistics import interval, weighted_rate
from onshore.region import load_pack

COMFORT_ROWS = 20
STEP_S = 0.1
FORMULAS = {"carla20": "carla20", "carla21": "carla21", "b2d": "bench2drive", "bench2drive": "bench2drive"}
VERSIONS = {
    "carla20": "leaderboard-2.0",
    "carla21": "leaderboard-2.1",
    "b2d": "bench2drive-0.0.4",
    "bench2drive": "bench2drive-0.0.4",
    "epdms": "navsim-2.2, rollout adapter 3 (own EP reference, EC over 1.6 s)",
    "comfort": "nuplan bounds, 2 s, 1",
    "infractions": "1",
}
RULES = "rules-"


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One figure of one scorer. value None: not measurable, and `why`. not_measurable: rollouts without a value."""

    scorer: str
    version: str
    column: str
    value: float | None
    low: float | None
    high: float | None
    routes: int
    worlds: int
    egos: int
    seeds: int
    synthetic: bool
    not_measurable: int = 0
    why: str = ""


def score_rollouts(rollouts: Sequence[Rollout], scorers: Sequence[str]) -> list[ScoreRow]:
    """The rows of each scorer over rollouts of one policy. Raises UsageError for a scorer there is not."""
    if not rollouts:
        raise UsageError("rescore", "there is no rollout to score.")
    return [row for name in scorers for row in _scorer(name)(rollouts)]


def known_scorers() -> list[str]:
    return [*(name for name in VERSIONS if name != "bench2drive"), f"{RULES}<region>"]


def _scorer(name: str) -> Callable[[Sequence[Rollout]], list[ScoreRow]]:
    if name in FORMULAS:
        return lambda rollouts: _driving(name, rollouts)
    if name.startswith(RULES):
        return lambda rollouts: _rules(name, rollouts)
    plain = {"epdms": _epdms, "comfort": _comfort, "infractions": _infractions}
    if name not in plain:
        raise UsageError(f"scorer {name!r}", f"choose of {', '.join(known_scorers())}.")
    return plain[name]


def _row(scorer: str, column: str, rollouts: Sequence[Rollout], figures: dict[str, Any]) -> ScoreRow:
    return ScoreRow(
        scorer=scorer,
        version=VERSIONS.get(scorer, str(RULES_VERSION)),
        column=column,
        routes=len(rollouts),
        worlds=len({rollout.world for rollout in rollouts}),
        egos=len({(rollout.world, rollout.ego) for rollout in rollouts}),
        seeds=len({rollout.world_seed for rollout in rollouts}),
        synthetic=any(rollout.synthetic for rollout in rollouts),
        **figures,
    )


def _mean_row(
    scorer: str, column: str, rollouts: Sequence[Rollout], values: Sequence[float], why: str = ""
) -> ScoreRow:
    """Mean over the rollouts that have a value, with an interval by world."""
    kept = [(value, rollout) for value, rollout in zip(values, rollouts, strict=True) if math.isfinite(value)]
    figures: dict[str, Any] = {"value": None, "low": None, "high": None, "not_measurable": len(rollouts) - len(kept)}
    if kept:
        found = interval([value for value, _ in kept], [rollout.world for _, rollout in kept]).as_record()
        figures |= {"value": found["mean"], "low": found["low"], "high": found["high"]}
    return _row(scorer, column, rollouts, {**figures, "why": why if figures["not_measurable"] else ""})


def _driving(name: str, rollouts: Sequence[Rollout]) -> list[ScoreRow]:
    whys = [unmeasured(rollout) for rollout in rollouts]
    why = next((reason for reason in whys if reason), "")
    scores = [
        None if reason else driving_score(rollout, FORMULAS[name])
        for rollout, reason in zip(rollouts, whys, strict=True)
    ]
    points = [math.nan if score is None else score.driving_score for score in scores]
    rows = [_mean_row(name, "driving_score", rollouts, points, why)]
    if FORMULAS[name] == "bench2drive":
        clean = [math.nan if score is None else 100.0 * succeeded(score) for score in scores]
        rows.append(_mean_row(name, "success_rate", rollouts, clean, why))
    return rows


def succeeded(score: RouteScore) -> bool:
    """Bench2Drive's success: the route is complete and nothing was counted but minimum speed (`merge_route_json.py`)."""
    return score.status != "Failed" and not any(value for name, value in score.events.items() if name != MIN_SPEED)


def _epdms(rollouts: Sequence[Rollout]) -> list[ScoreRow]:
    windows = [epdms_windows(rollout, from_rollout(rollout).geometry) for rollout in rollouts]
    rows = []
    for name in SUB_METRICS:
        values = []
        why = "shorter than 4 s"
        for found in windows:
            measured = [each[name].value for each in found if each[name].measured]
            why = next((each[name].why for each in found if not each[name].measured), why)
            values.append(float(np.mean(measured)) if measured else math.nan)
        rows.append(_mean_row("epdms", name, rollouts, values, why))
    for index, name in enumerate(("score_without_ec", "score")):
        scored = [[window_scores(window)[index] for window in found] for found in windows]
        kept = [[value for value in values if math.isfinite(value)] for values in scored]
        means = [float(np.mean(values)) if values else math.nan for values in kept]
        rows.append(_mean_row("epdms", name, rollouts, means, "no window of 4 s has every sub-metric it needs"))
    return rows


def _comfort(rollouts: Sequence[Rollout]) -> list[ScoreRow]:
    values = [comfort_pct(from_rollout(rollout)) for rollout in rollouts]
    return [_mean_row("comfort", "comfortable_pct", rollouts, values, "shorter than 2 s")]


def comfort_pct(driven: Driven) -> float:
    """Share (percent) of consecutive 2 s windows in which all six bounds hold; NaN for a shorter drive."""
    count = len(driven) // COMFORT_ROWS
    if count == 0:
        return math.nan
    yaw = np.unwrap(driven["yaw_rad"])
    rate = np.gradient(yaw, STEP_S)
    good = 0
    for index in range(count):
        rows = slice(index * COMFORT_ROWS, (index + 1) * COMFORT_ROWS)
        bounds = comfortable(
            yaw_rad=yaw[rows],
            accel_mps2=driven["accel_mps2"][rows],
            yaw_rate_radps=rate[rows],
            step_s=STEP_S,
            axle_to_center_m=driven.geometry.axle_to_centre_m,
        )
        good += all(bounds.values())
    return 100.0 * good / count


def _infractions(rollouts: Sequence[Rollout]) -> list[ScoreRow]:
    """Events per km of driving; collisions at fault, each actor and place once."""
    km = math.fsum(Driven.from_rollout(rollout).km for rollout in rollouts)
    counts: Counter[str] = Counter({name: 0 for name in ("collision_vehicle", "collision_pedestrian", "red_light")})
    for rollout in rollouts:
        counts.update(event.kind for event in distinct_collisions(rollout))
        counts.update(event.kind for event in rollout.events if not event.kind.startswith(("collision_", "route_comp")))
    rows = []
    for name, count in sorted(counts.items()):
        figures: dict[str, Any] = {"value": None, "low": None, "high": None, "why": "nothing was driven"}
        if km > 0:
            rate = weighted_rate([count], [1.0], km)
            figures = {"value": rate.value, "low": rate.low, "high": rate.high}
        rows.append(_row("infractions", f"{name}_per_km", rollouts, figures))
    return rows


def _rules(name: str, rollouts: Sequence[Rollout]) -> list[ScoreRow]:
    book = RuleBook.of(load_pack(name.removeprefix(RULES)))
    found = totals([judge(from_rollout(rollout), book) for rollout in rollouts], book)
    unjudged = [rule.rule for rule in found.rules if rule.not_measurable]
    rows = []
    for column in ("violations", "points", "fine"):
        rate = getattr(found, column)
        figures = {"value": None, "low": None, "high": None} if rate is None else vars(rate) | {}
        figures.pop("events", None)
        why = f"not measurable everywhere: {', '.join(unjudged)}" if unjudged else ""
        rows.append(_row(name, f"{column}_per_100_km", rollouts, {**figures, "why": why}))
    for rule in found.rules:
        rate = rule.per_100_km
        figures = {"value": rate and rate.value, "low": rate and rate.low, "high": rate and rate.high}
        more = {"not_measurable": rule.not_measurable, "why": ", ".join(rule.missing)}
        rows.append(_row(name, rule.rule, rollouts, {**figures, **more}))
    return rows
