"""Intervals and comparisons in which the world is the resampling unit: egos of one world share its traffic.

Rule: nothing here treats two routes of one world as independent. Every figure is reproducible from its seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onshore.core.errors import InputError

Floats = NDArray[np.float64]
#: (world, ego)
RouteKey = tuple[str, int]
EXACT_WORLDS = 14


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over routes with a 95 % interval from resampling worlds. NaN bounds: fewer than two worlds."""

    mean: float
    low: float
    high: float
    routes: int
    worlds: int

    def as_record(self) -> dict[str, Any]:
        """For JSON: a bound that cannot be measured is None, never zero."""
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in vars(self).items()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Interval:
        fields: dict[str, Any] = {name: math.nan if value is None else value for name, value in record.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """Mean difference b - a over the same routes, its 95 % interval by world, and a two-sided sign-flip p over worlds.

    exact: every sign pattern was counted; else p comes from `draws` random ones (and counts itself, so never 0).
    """

    difference: float
    low: float
    high: float
    p: float
    routes: int
    worlds: int
    exact: bool
    draws: int


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Weighted events per unit of exposure with a 95 % interval. events: how many were counted."""

    value: float
    low: float
    high: float
    events: int


def interval(values: ArrayLike, worlds: Sequence[str], *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of one value per route with a cluster-bootstrap percentile interval over worlds."""
    column = np.asarray(values, np.float64)
    if len(column) == 0 or len(column) != len(worlds):
        raise InputError("not_measurable", "interval", "give one world per value, and at least one value.")
    if not bool(np.isfinite(column).all()):
        raise InputError("not_measurable", "interval", "every value must be finite; leave routes without a value out.")
    sums, counts = _by_world(column, worlds)
    low, high = _bootstrap(sums, counts, draws, seed)
    return Interval(mean=float(column.mean()), low=low, high=high, routes=len(column), worlds=len(sums))


def compare(
    a: Mapping[RouteKey, float], b: Mapping[RouteKey, float], *, draws: int = 20_000, seed: int = 0
) -> PairedResult:
    """Compare two policies on the same routes (world, ego) -> score. Raises InputError when their routes differ."""
    if not a or set(a) != set(b):
        odd = sorted(set(a) ^ set(b))[:1]
        raise InputError(
            "not_measurable", f"route {odd[0] if odd else 'none'}", "run both policies on the same worlds and egos."
        )
    keys = sorted(a)
    difference = np.array([b[key] - a[key] for key in keys], np.float64)
    if not bool(np.isfinite(difference).all()):
        raise InputError("not_measurable", "compare", "every score must be finite.")
    sums, counts = _by_world(difference, [world for world, _ in keys])
    low, high = _bootstrap(sums, counts, draws, seed)
    p, exact = _sign_flip(sums, draws, seed)
    return PairedResult(
        difference=float(difference.mean()),
        low=low,
        high=high,
        p=p,
        routes=len(keys),
        worlds=len(sums),
        exact=exact,
        draws=2 ** len(sums) if exact else draws,
    )


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A mean over training seeds and worlds, its 95 % interval from resampling both, and where it is a difference a p.

    p: two-sided sign-flip over worlds of the mean over seeds: about these trained models in other worlds. None for a level.
    detectable: the true difference that p < 0.05 would show in four of five such sets of worlds: 2.8 standard errors over
    worlds (the minimum detectable effect, Bloom 1995, doi 10.1177/0193841X9501900504). None for a level or one world.
    seeds_above: how many seeds alone lie above 0. NaN bounds: fewer than two worlds. With one seed only worlds are resampled.
    """

    mean: float
    low: float
    high: float
    p: float | None
    detectable: float | None
    seeds: int
    seeds_above: int
    worlds: int
    routes: int


def crossed(
    b_by_seed: Sequence[Mapping[RouteKey, float]],
    a_by_seed: Sequence[Mapping[RouteKey, float]] | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Crossed:
    """The level of b, or b - a paired by seed, world and ego. Seeds and worlds are resampled independently.

    The pigeonhole bootstrap (Owen 2007, doi 10.1214/07-AOAS122), which errs on the wide side. Raises InputError
    `not_measurable` when routes or seeds differ.
    """
    others = a_by_seed or [dict.fromkeys(one, 0.0) for one in b_by_seed]
    keys = sorted(b_by_seed[0]) if b_by_seed else []
    if not keys or len(others) != len(b_by_seed) or any(set(one) != set(keys) for one in (*b_by_seed, *others)):
        raise InputError("not_measurable", "crossed", "give the same routes for every seed of both.")
    change_SR = np.array([[b[k] - a[k] for k in keys] for a, b in zip(others, b_by_seed, strict=True)], np.float64)
    names = [world for world, _ in keys]
    counts_W = _by_world(change_SR[0], names)[1]
    sums_SW = np.stack([_by_world(row, names)[0] for row in change_SR])
    low = high = float("nan")
    if len(counts_W) > 1:
        chance = np.random.default_rng(seed)
        seeds_DS = chance.integers(len(sums_SW), size=(draws, len(sums_SW)))
        worlds_DW = chance.integers(len(counts_W), size=(draws, len(counts_W)))
        weight_DS = np.stack([(seeds_DS == s).sum(1) for s in range(len(sums_SW))], 1) / len(sums_SW)
        drawn_DW = np.take_along_axis(weight_DS @ sums_SW, worlds_DW, 1)
        low, high = np.percentile(drawn_DW.sum(1) / counts_W[worlds_DW].sum(1), [2.5, 97.5]).tolist()
    return Crossed(
        mean=float(change_SR.mean()),
        low=low,
        high=high,
        p=_sign_flip(sums_SW.mean(0), draws, seed)[0] if a_by_seed else None,
        detectable=_detectable(sums_SW.mean(0), counts_W) if a_by_seed and len(counts_W) > 1 else None,
        seeds=len(sums_SW),
        seeds_above=int((change_SR.mean(1) > 0).sum()),
        worlds=len(counts_W),
        routes=len(keys),
    )


def _by_world(values: Floats, worlds: Sequence[str]) -> tuple[Floats, Floats]:
    _, index = np.unique(np.asarray(worlds), return_inverse=True)
    sums = np.asarray(np.bincount(index, weights=values), np.float64)
    return sums, np.asarray(np.bincount(index), np.float64)


def _detectable(sums: Floats, counts: Floats) -> float:
    """2.8 standard errors of the mean over routes, worlds as the unit."""
    off = sums - counts * sums.sum() / counts.sum()
    error = math.sqrt(len(sums) / (len(sums) - 1) * float((off**2).sum())) / float(counts.sum())
    normal = NormalDist()
    return (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * error


def _bootstrap(sums: Floats, counts: Floats, draws: int, seed: int) -> tuple[float, float]:
    if len(sums) < 2:
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _sign_flip(sums: Floats, draws: int, seed: int) -> tuple[float, bool]:
    """Two-sided p of the sum under independent sign flips of worlds (Fisher's randomisation test)."""
    observed = abs(float(sums.sum()))
    slack = 1e-9 * max(float(np.abs(sums).sum()), 1e-300)
    if len(sums) <= EXACT_WORLDS:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((1 - 2 * patterns) @ sums) >= observed - slack).mean()), True
    signs = np.random.default_rng(seed).integers(0, 2, size=(draws, len(sums))) * 2 - 1
    extreme = int((np.abs(signs @ sums) >= observed - slack).sum())
    return (1 + extreme) / (1 + draws), False


def weighted_rate(counts: Sequence[int], weights: Sequence[float], exposure: float, *, level: float = 0.95) -> Rate:
    """Sum of weights x Poisson counts over an exposure, with the gamma interval of Fay and Feuer (1997).

    With one weight for all it is the exact interval of Garwood (1936). Kinds of events whose weight is zero do not count.
    """
    if exposure <= 0 or len(counts) != len(weights) or any(count < 0 for count in counts):
        raise InputError("not_measurable", "rate", "give a positive exposure, and one weight for each count.")
    kept = [(count, weight) for count, weight in zip(counts, weights, strict=True) if weight > 0]
    heaviest = max((weight for _, weight in kept), default=0.0)
    total = math.fsum(weight * count for count, weight in kept)
    variance = math.fsum(weight * weight * count for count, weight in kept)
    tail = (1.0 - level) / 2.0
    low = high = 0.0
    if total > 0:
        low = variance / total * gamma_quantile(tail, total * total / variance)
    if heaviest > 0:
        above, spread = total + heaviest, variance + heaviest * heaviest
        high = spread / above * gamma_quantile(1.0 - tail, above * above / spread)
    events = sum(count for count, _ in kept)
    return Rate(value=total / exposure, low=low / exposure, high=high / exposure, events=events)


def gamma_quantile(p: float, shape: float) -> float:
    """The value below which a gamma variable of this shape and scale 1 lies with probability p, by bisection."""
    low, high = 0.0, max(1.0, 2.0 * shape)
    while gamma_cdf(high, shape) < p:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if gamma_cdf(middle, shape) < p else (low, middle)
    return (low + high) / 2.0


def gamma_cdf(x: float, shape: float) -> float:
    """Regularised lower incomplete gamma function: series below shape + 1, continued fraction above (DLMF 8.11.4, 8.9.2)."""
    if x <= 0.0:
        return 0.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1.0:
        term = total = 1.0 / shape
        n = shape
        while abs(term) > abs(total) * 1e-16:
            n += 1.0
            term *= x / n
            total += term
        return min(total * scale, 1.0)
    b, c = x + 1.0 - shape, 1e300
    d = h = 1.0 / b
    for i in range(1, 100_000):
        a = -i * (i - shape)
        b += 2.0
        d = 1.0 / (a * d + b)
        c = b + a / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return max(1.0 - scale * h, 0.0)


@dataclass(frozen=True, kw_only=True)
class SequentialPlan:
    """A test that may be looked at after every world. minimum_effect: points of score worth finding.

    level: chance, at most, of promoting a policy that is not better, however often one looks. most_worlds: give up there.
    spread: a guess of a world's standard deviation; it sets how boldly the first bets are placed, never the level.
    """

    minimum_effect: float = 8.0
    level: float = 0.05
    most_worlds: int = 160
    spread: float = 20.0
    patience: int = 4

    def __post_init__(self) -> None:
        if not (self.minimum_effect > 0 and 0 < self.level < 1 and self.most_worlds > 0 and self.spread > 0):
            raise InputError("bad_config", "sequential test", "effect, level, worlds and spread must be positive.")


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """Where a sequential test stands: better, no better (by the minimum effect), or undecided.

    evidence, against: e-values of 'not better' and of 'better by the minimum effect'; 1 / level decides. difference: mean
    over the worlds seen (it is biased upwards when a test stops early).
    """

    decision: str
    worlds: int
    evidence: float
    against: float
    difference: float
    minimum_effect: float
    level: float


def sequential(differences: ArrayLike, plan: SequentialPlan | None = None) -> Sequential:
    """Decide from world differences b - a in the order in which the worlds were driven; stops at the first decision.

    Sign-flip e-values (Ramdas et al. 2023, par. 4): if a world's difference is symmetric about 0, as it is for a policy
    against itself, then 2 / (1 + exp(-2 x)), x = bet x difference, has mean 1 whatever the bet; a bet may
    use earlier worlds only, so by Ville's inequality their product reaches 1 / level with probability at most `level`.
    The same against 'better by the minimum effect' gives up early.
    """
    plan = plan or SequentialPlan()
    column = np.atleast_2d(np.asarray(differences, np.float64))
    if not bool(np.isfinite(column).all()):
        raise InputError("not_measurable", "sequential", "every world's difference must be finite.")
    decisions, worlds, evidence, against = sequential_many(column, plan)
    seen = int(worlds[0])
    return Sequential(
        decision=("undecided", "better", "no better")[int(decisions[0])],
        worlds=seen,
        evidence=math.exp(min(float(evidence[0]), 700.0)),
        against=math.exp(min(float(against[0]), 700.0)),
        difference=float(column[0, :seen].mean()) if seen else math.nan,
        minimum_effect=plan.minimum_effect,
        level=plan.level,
    )


def sequential_many(
    differences_RW: Floats, plan: SequentialPlan
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """`sequential` over R comparisons at once: decision (0 undecided, 1 better, 2 no better), worlds, two log e-values."""
    column = differences_RW[:, : plan.most_worlds]
    repeats, most = column.shape
    if most == 0:
        return np.zeros(repeats, np.int64), np.zeros(repeats, np.int64), np.zeros(repeats), np.zeros(repeats)
    up, down = _log_evidence(column, plan), _log_evidence(plan.minimum_effect - column, plan)
    enough = math.log(1.0 / plan.level)
    won, lost = _first(up >= enough), _first(down >= enough)
    last = np.minimum(np.minimum(won, lost), most - 1)
    decision = np.where(won <= last, 1, np.where(lost <= last, 2, 0)).astype(np.int64)
    rows = np.arange(repeats)
    return decision, last + 1, up[rows, last], down[rows, last]


def _first(reached: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(reached.any(1), reached.argmax(1), np.iinfo(np.int64).max)


def _log_evidence(column: Floats, plan: SequentialPlan) -> Floats:
    """Log e-values after each world; the bet is mean over second moment of the worlds before, shrunk to the plan's guess."""
    before = np.cumsum(column, 1) - column
    squares = np.cumsum(column**2, 1) - column**2
    guess, moment = plan.patience * plan.minimum_effect, plan.patience * (plan.minimum_effect**2 + plan.spread**2)
    stake = np.maximum((guess + before) / (moment + squares), 0.0) * column
    return np.asarray(np.cumsum(stake - np.logaddexp(stake, -stake) + math.log(2.0), 1))


def worlds_for(effect: float, spread: float, *, level: float = 0.05, power: float = 0.8) -> int:
    """How many worlds a fixed-size one-sided test needs to find `effect` with this power (normal approximation)."""
    normal = NormalDist()
    reach = normal.inv_cdf(1.0 - level) + normal.inv_cdf(power)
    return math.ceil((reach * spread / effect) ** 2)
