"""Success by scenario family, from stored rollouts alone, and a policy beside itself with its eyes shut.

Rule: a world counts once; a world whose success cannot be told is neither a success nor a failure and is counted apart.
Intervals are Wilson's (1927) at 95 %: they stay honest at 0 and 20 of 20, where a bootstrap has nothing to draw from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from onshore.core.errors import InputError
from onshore.core.rollout import Rollout
from onshore.evaluation.statistics import PairedResult, compare

if TYPE_CHECKING:
    from onshore.evaluation.closedloop import SuiteResult
    from onshore.store import Center

Z_95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class FamilySuccess:
    """How often one policy succeeded in one family. rate, low, high: shares of the measurable worlds; NaN without any."""

    family: str
    needs_eyes: bool
    worlds: int
    passed: int
    not_measurable: int
    rate: float
    low: float
    high: float
    commonest: str


def by_family(rollouts: Sequence[Rollout]) -> list[FamilySuccess]:
    """One row per family among the rollouts' scenarios, in their order; other scenarios are left out."""
    from onshore.world.scenarios import families

    rows = []
    for name, family in families().items():
        verdicts = [family.verdict(rollout) for rollout in rollouts if rollout.scenario == name]
        if not verdicts:
            continue
        passed = sum(verdict.passed is True for verdict in verdicts)
        known = sum(verdict.passed is not None for verdict in verdicts)
        low, high = wilson(passed, known)
        whys = Counter(verdict.why for verdict in verdicts if not verdict.passed)
        rows.append(
            FamilySuccess(
                family=name,
                needs_eyes=family.needs_eyes,
                worlds=len(verdicts),
                passed=passed,
                not_measurable=len(verdicts) - known,
                rate=passed / known if known else math.nan,
                low=low,
                high=high,
                commonest=whys.most_common(1)[0][0] if whys else "",
            )
        )
    return rows


def wilson(passed: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); NaN of nothing."""
    if not of:
        return math.nan, math.nan
    share, z2 = passed / of, Z_95 * Z_95
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def eyes_matter(seeing: FamilySuccess, blind: FamilySuccess) -> bool:
    """Whether the policy is better with its eyes open, intervals apart."""
    return seeing.low > blind.high


@dataclass(frozen=True, kw_only=True)
class EyesRow:
    """One family driven twice over the same worlds: with the camera and with a black one.

    paired: blind to seeing, in shares, over the worlds that both runs could be told of; None without any. verdict: "apart" where
    both success intervals and the paired one say that the camera matters, "not needed" where it need not.
    """

    family: str
    eyes: str
    seeing: FamilySuccess
    blind: FamilySuccess
    paired: PairedResult | None
    verdict: Literal["apart", "not apart", "not needed"]


def eyes_rows(seeing: Sequence[Rollout], blind: Sequence[Rollout]) -> list[EyesRow]:
    """Per family, the same worlds with open and with shut eyes. Errors: InputError when the two drove different worlds."""
    from onshore.world.scenarios import families

    shut = {row.family: row for row in by_family(blind)}
    rows = []
    for row in by_family(seeing):
        if row.family not in shut:
            raise InputError("not_measurable", row.family, "drive the same suite with open and with shut eyes.")
        closed = shut[row.family]
        before, after = (_passed(row.family, rollouts) for rollouts in (blind, seeing))
        both = {key for key in before if key in after}
        paired = compare({k: before[k] for k in both}, {k: after[k] for k in both}) if both else None
        apart = eyes_matter(row, closed) and paired is not None and paired.low > 0
        told: Literal["apart", "not apart", "not needed"] = "apart" if apart else "not apart"
        rows.append(
            EyesRow(
                family=row.family,
                eyes=families()[row.family].eyes,
                seeing=row,
                blind=closed,
                paired=paired,
                verdict=told if row.needs_eyes else "not needed",
            )
        )
    return rows


def _passed(name: str, rollouts: Sequence[Rollout]) -> dict[tuple[str, int], float]:
    """(world, ego) -> 1 or 0, for the worlds of a family whose success can be told."""
    from onshore.world.scenarios import families

    verdicts = {(run.world, run.ego): families()[name].verdict(run) for run in rollouts if run.scenario == name}
    return {key: float(found.passed) for key, found in verdicts.items() if found.passed is not None}


def suite_rollouts(center: Center, found: SuiteResult) -> list[Rollout]:
    """The stored rollouts of one driven suite."""
    from onshore.evaluation.closedloop import unpack_rollouts

    stored = center.open_many(list(found.rollouts), "train")
    return [rollout for artifact in found.rollouts for rollout in unpack_rollouts(stored(artifact))]


def suite_families(center: Center, found: SuiteResult) -> list[FamilySuccess]:
    """The families of one driven suite; empty where it has none."""
    return by_family(suite_rollouts(center, found))
