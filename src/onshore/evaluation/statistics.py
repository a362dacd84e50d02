"""Intervals and comparisons in which the world is the resampling unit: egos of one world share its traffic.

Rule: nothing here treats two routes of one world as independent. Every figure is reproducible from its seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def _by_world(values: Floats, worlds: Sequence[str]) -> tuple[Floats, Floats]:
    _, index = np.unique(np.asarray(worlds), return_inverse=True)
    sums = np.asarray(np.bincount(index, weights=values), np.float64)
    return sums, np.asarray(np.bincount(index), np.float64)


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
