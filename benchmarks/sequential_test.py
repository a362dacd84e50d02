"""The sequential test in numbers: false promotions of a policy against itself, effects found, kilometres saved.

python benchmarks/sequential_test.py [--write]      # docs/results/sequential.{json,md}

Simulated suites, 1,000 per row: bounded scores of 4 egos a world, most of them 100 or cut by an infraction's factor, with a
difficulty that the world's egos share. Synthetic. Seeds 0 to 5.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.evaluation.statistics import SequentialPlan, sequential_many, worlds_for
from row import print_row

RESULTS = Path(__file__).parents[1] / "docs" / "results"
REPEATS, EGOS, ROUTE_KM = 1000, 4, 0.25
PLAN = SequentialPlan()


def scores(rng: np.random.Generator, worlds: int, shared: NDArray[np.float64], skill: NDArray[np.float64]) -> Any:
    """Driving scores (R, W, E): a route is completed, or cut at a random place, and multiplied per infraction."""
    shape = (REPEATS, worlds, EGOS)
    ability = (shared + skill)[..., None] + rng.normal(0, 1.0, shape)
    completion = np.where(ability > 0, 1.0, rng.uniform(0.05, 1.0, shape))
    hits = rng.poisson(np.clip(0.5 - 0.35 * ability, 0.05, 1.5))
    return 100.0 * completion * 0.6 ** np.minimum(hits, 6)


def differences(seed: int, gain: float, worlds: int) -> NDArray[np.float64]:
    """World differences (R, W) of two policies on the same worlds, the second `gain` more able."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0.2, 0.5, (REPEATS, worlds))
    first, second = (rng.normal(0, 0.3, (REPEATS, worlds)) for _ in range(2))
    a, b = scores(rng, worlds, shared, first), scores(rng, worlds, shared, second + gain)
    return np.asarray((b - a).mean(2))


def gain_for(effect: float) -> float:
    """The ability that raises the mean score by `effect`, by bisection on one large sample."""
    low, high = 0.0, 3.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if differences(99, middle, 200).mean() < effect else (low, middle)
    return (low + high) / 2


def measure() -> dict[str, Any]:
    spread = float(differences(98, 0.0, 200).std())
    fixed = worlds_for(PLAN.minimum_effect, spread)
    rows = []
    for seed, times in enumerate((0.0, 1.0, 1.5, 2.0, 3.0)):
        effect = times * PLAN.minimum_effect
        found = differences(seed, gain_for(effect) if times else 0.0, PLAN.most_worlds)
        decision, worlds, _, _ = sequential_many(found, PLAN)
        rows.append(
            {
                "effect": effect,
                "promoted_pct": round(100 * float((decision == 1).mean()), 1),
                "no_better_pct": round(100 * float((decision == 2).mean()), 1),
                "undecided_pct": round(100 * float((decision == 0).mean()), 1),
                "worlds_mean": round(float(worlds.mean()), 1),
                "worlds_median": int(np.median(worlds)),
                "km_mean": round(float(worlds.mean()) * EGOS * ROUTE_KM * 2, 1),
                "km_saved": round((fixed - float(worlds.mean())) * EGOS * ROUTE_KM * 2, 1),
            }
        )
    power = min(max(rows[1]["promoted_pct"] / 100.0, 0.5), 0.999)
    return {
        "fixed_worlds_equal_power": worlds_for(PLAN.minimum_effect, spread, power=power),
        "synthetic": True,
        "comparisons_per_row": REPEATS,
        "minimum_effect": PLAN.minimum_effect,
        "level": PLAN.level,
        "most_worlds": PLAN.most_worlds,
        "egos": EGOS,
        "world_spread": round(spread, 2),
        "fixed_worlds": fixed,
        "fixed_km": round(fixed * EGOS * ROUTE_KM * 2, 1),
        "rows": rows,
    }


def page(document: dict[str, Any]) -> str:
    head = (
        "# The sequential test in numbers\n\n"
        "Made by `python benchmarks/sequential_test.py --write`. Simulated suites (synthetic), "
        f"{document['comparisons_per_row']:,} comparisons a row, {document['egos']} egos a world on 250 m each; the spread of a "
        f"world's difference is {document['world_spread']} points. Minimum effect {document['minimum_effect']:g} points, "
        f"level {document['level']:g}, at most {document['most_worlds']} worlds.\n\n"
        f"A test of fixed size needs {document['fixed_worlds']} worlds ({document['fixed_km']} km, both policies) to find "
        "the minimum effect with 80 % power, and drives them whatever the effect is; with the power that the sequential "
        f"test reached it needs {document['fixed_worlds_equal_power']}. Saved is counted against the former.\n\n"
        "| true effect | promoted | called no better | undecided | worlds, mean (median) | km, mean | km saved |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    rows = [
        f"| {row['effect']:g}{' (itself)' if not row['effect'] else ''} | {row['promoted_pct']} % | {row['no_better_pct']} % "
        f"| {row['undecided_pct']} % | {row['worlds_mean']} ({row['worlds_median']}) | {row['km_mean']} | {row['km_saved']} |"
        for row in document["rows"]
    ]
    foot = (
        "\n\nNegative savings are costs: looking after every world has a price, paid where the effect is just the smallest one\n"
        "worth finding, and earned back where it is larger. A difference at an early stop is biased upwards.\n"
    )
    return head + "\n".join(rows) + foot


def main() -> None:
    document = measure()
    if "--write" in sys.argv[1:]:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "sequential.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf8")
        (RESULTS / "sequential.md").write_text(page(document), encoding="utf8")
    print_row("sequential_test", **document)


if __name__ == "__main__":
    main()
