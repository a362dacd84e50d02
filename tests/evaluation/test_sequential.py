"""The sequential test: false promotions stay below the level however often one looks, real effects are found, worlds saved."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from onshore.core.errors import InputError
from onshore.evaluation.statistics import (
    SequentialPlan,
    gamma_cdf,
    gamma_quantile,
    sequential,
    sequential_many,
    weighted_rate,
    worlds_for,
)

PLAN = SequentialPlan()
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def test_a_policy_against_itself_is_promoted_in_at_most_five_percent_of_1000_comparisons() -> None:
    from sequential_test import differences

    for seed in (10, 11):
        decisions, _, _, _ = sequential_many(differences(seed, 0.0, PLAN.most_worlds), PLAN)
        assert int((decisions == 1).sum()) <= 50


def test_heavy_tails_do_not_raise_false_promotions() -> None:
    """Most worlds equal, a few decided by one crash: still symmetric, still at most the level."""
    rng = np.random.default_rng(3)
    crash = rng.choice([-100.0, 0.0, 100.0], (1000, PLAN.most_worlds), p=[0.08, 0.84, 0.08])
    decisions, _, _, _ = sequential_many(crash, SequentialPlan(spread=5.0))
    assert int((decisions == 1).sum()) <= 50


def test_the_minimum_effect_is_found_in_four_of_five_and_twice_of_it_for_less_than_a_fixed_size() -> None:
    from sequential_test import differences, gain_for

    spread = float(differences(98, 0.0, 200).std())
    fixed = worlds_for(PLAN.minimum_effect, spread)
    found, _, _, _ = sequential_many(differences(12, gain_for(PLAN.minimum_effect), PLAN.most_worlds), PLAN)
    assert (found == 1).mean() >= 0.8
    twice, worlds, _, _ = sequential_many(differences(13, gain_for(2 * PLAN.minimum_effect), PLAN.most_worlds), PLAN)
    assert (twice == 1).mean() >= 0.99 and worlds.mean() < 0.6 * fixed


def test_a_world_that_comes_later_changes_no_earlier_decision() -> None:
    rng = np.random.default_rng(4)
    column = rng.normal(15.0, 15.0, 60)
    whole = sequential(column)
    assert whole.decision == "better" and whole.evidence >= 20.0
    cut = sequential(column[: whole.worlds])
    assert cut == whole and sequential(column[: whole.worlds - 1]).decision == "undecided"


def test_equal_policies_to_the_bit_stay_undecided_or_are_called_no_better() -> None:
    found = sequential(np.zeros(PLAN.most_worlds))
    assert found.decision == "no better" and found.evidence == pytest.approx(1.0)
    assert sequential([]).decision == "undecided"
    with pytest.raises(InputError):
        sequential([math.nan])
    with pytest.raises(InputError):
        SequentialPlan(minimum_effect=0.0)


def test_poisson_intervals_are_the_exact_ones() -> None:
    """Garwood's table: 0 (0, 3.689), 5 (1.624, 11.668), 100 (81.36, 121.63)."""
    for count, low, high in ((0, 0.0, 3.6889), (5, 1.6235, 11.6683), (100, 81.3640, 121.6268)):
        rate = weighted_rate([count], [1.0], 1.0)
        assert (rate.low, rate.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert gamma_cdf(gamma_quantile(0.3, 2.5), 2.5) == pytest.approx(0.3)
    with pytest.raises(InputError):
        weighted_rate([1], [1.0], 0.0)


def test_weighted_rates_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    means, weights = np.array([3.0, 1.0, 0.2]), [1.0, 3.0, 6.0]
    truth = float(means @ weights)
    rates = [weighted_rate(rng.poisson(means).tolist(), weights, 1.0) for _ in range(500)]
    assert sum(rate.low <= truth <= rate.high for rate in rates) >= 0.93 * 500
