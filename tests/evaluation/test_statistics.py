"""The world is the resampling unit: no false alarms on shared traffic, real effects are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.errors import InputError
from onshore.evaluation.statistics import RouteKey, compare, crossed, interval


def routes(rng: np.random.Generator, worlds: int, egos: int, effect: float) -> tuple[dict[RouteKey, float], ...]:
    """Two policies on the same routes: a world's traffic helps or hurts all its egos together."""
    shared = rng.normal(0, 15, worlds)
    twists = rng.normal(0, 8, (2, worlds))
    a, b = {}, {}
    for w in range(worlds):
        for e in range(egos):
            a[f"w{w}", e] = 50 + shared[w] + twists[0, w] + rng.normal(0, 20)
            b[f"w{w}", e] = 50 + shared[w] + twists[1, w] + rng.normal(0, 20) + effect
    return a, b


def test_equal_policies_are_rarely_called_different() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(compare(*routes(rng, 8, 6, 0.0), draws=200).p < 0.05 for _ in range(1000))
    assert alarms <= 50


def test_routes_as_units_would_raise_false_alarms() -> None:
    """The same data with every route called a world of its own: the error this room exists to avoid."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        a, b = ({(f"{w}-{e}", 0): v for (w, e), v in side.items()} for side in routes(rng, 8, 16, 0.0))
        alarms += compare(a, b, draws=400).p < 0.05
    assert alarms > 20


def test_a_known_effect_is_found() -> None:
    rng = np.random.default_rng(3)
    found = sum(compare(*routes(rng, 10, 6, 25.0), draws=200).p < 0.05 for _ in range(200))
    assert found >= 190


def test_interval_covers_the_mean_of_worlds() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        means = rng.normal(50, 10, 16)
        found = interval(
            np.repeat(means, 4) + rng.normal(0, 5, 64), np.repeat([str(w) for w in range(16)], 4), draws=400
        )
        covered += found.low <= 50 <= found.high
    assert covered >= 265


def test_exact_and_drawn_p_agree() -> None:
    rng = np.random.default_rng(5)
    a, b = routes(rng, 14, 2, 6.0)
    exact = compare(a, b)
    more = {(f"x{w}", e): v for (w, e), v in a.items()}
    drawn = compare({**a, **more}, {**b, **more}, draws=50_000)
    assert exact.exact and exact.draws == 2**14
    assert not drawn.exact and drawn.p == pytest.approx(exact.p, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=20))
def test_swapping_sides_turns_the_sign_and_keeps_p(rows: list[tuple[int, float, float]]) -> None:
    a = {(f"w{w}", i): x for i, (w, x, _) in enumerate(rows)}
    b = {(f"w{w}", i): y for i, (w, _, y) in enumerate(rows)}
    there, back = compare(a, b, draws=50), compare(b, a, draws=50)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p == back.p and 0 < there.p <= 1
    assert there.p >= 2 / 2**there.worlds or there.difference == pytest.approx(0, abs=1e-6)


def test_the_same_policy_twice_has_no_difference() -> None:
    a = {(f"w{w}", e): float(w * e) for w in range(6) for e in range(3)}
    same = compare(a, dict(a))
    assert (same.difference, same.p) == (0.0, 1.0)


def test_one_world_gives_a_mean_and_no_interval() -> None:
    found = interval([1.0, 3.0], ["w", "w"])
    assert found.mean == 2.0 and math.isnan(found.low) and found.worlds == 1


def test_unpaired_or_unknown_scores_are_not_measurable() -> None:
    with pytest.raises(InputError, match="same worlds"):
        compare({("w", 0): 1.0}, {("w", 1): 1.0})
    for call in (lambda: compare({}, {}), lambda: interval([], []), lambda: interval([float("nan")], ["w"])):
        with pytest.raises(InputError):
            call()


def planted(effect: float, seeds: int, seed_spread: float, seed: int = 0) -> tuple[list[dict[RouteKey, float]], ...]:
    """Two rows of `seeds` models over 12 worlds of 4 egos; b is better by `effect`."""
    chance = np.random.default_rng(seed)
    worlds = chance.normal(0, 8, 12)
    both: tuple[list[dict[RouteKey, float]], ...] = ([], [])
    for _ in range(seeds):
        for row, gain in zip(both, (0.0, effect), strict=True):
            level = 40 + gain + chance.normal(0, seed_spread)
            row.append({(f"w{w}", e): level + worlds[w] + chance.normal(0, 10) for w in range(12) for e in range(4)})
    return both


def test_crossed_finds_a_planted_effect_and_not_none() -> None:
    a, b = planted(12.0, 3, 2.0)
    found = crossed(b, a)
    assert found.p is not None and found.p < 0.01 and found.low > 0 and found.seeds_above == 3
    assert (found.seeds, found.worlds, found.routes) == (3, 12, 48)
    same = crossed(a, a)
    assert same.mean == 0 and same.p == 1.0 and (same.low, same.high) == (0, 0)


def test_what_a_comparison_could_show_is_shown_four_times_in_five() -> None:
    """World differences of sd 10 over 12 worlds: 2.8 x 10 / sqrt(12) points, and of that effect p < 0.05 finds about 80 %."""
    chance, shown, told = np.random.default_rng(1), 0, []
    for _ in range(100):
        a = {(f"w{w}", e): 0.0 for w in range(12) for e in range(4)}
        worlds = 8.09 + chance.normal(0, 10, 12)
        found = crossed([{key: float(worlds[int(key[0][1:])]) for key in a}], [a], draws=10)
        assert found.p is not None and found.detectable is not None
        shown += found.p < 0.05
        told.append(found.detectable)
    assert np.mean(told) == pytest.approx(8.09, rel=0.05) and 62 <= shown <= 90
    assert crossed([a]).detectable is None


def test_seeds_that_differ_widen_the_interval() -> None:
    calm, wild = (crossed(planted(0.0, 3, spread)[1]) for spread in (0.1, 20.0))
    assert wild.high - wild.low > 1.5 * (calm.high - calm.low)


def test_crossed_of_one_seed_is_the_interval_by_world() -> None:
    (row,), _ = planted(0.0, 1, 0.0)
    one, usual = crossed([row]), interval(list(row.values()), [world for world, _ in row])
    assert one.p is None and one.mean == pytest.approx(usual.mean)
    assert one.low == pytest.approx(usual.low, abs=0.7) and one.high == pytest.approx(usual.high, abs=0.7)
    with pytest.raises(InputError, match="not_measurable"):
        crossed([row, {}])
