"""Traffic rules of a region over what was driven: a verdict per rule, points and fines, and rates per 100 km.

Rule: a rule is data of the region pack (`rules.toml`) that names a predicate and its thresholds; a verdict is ok, violated
(when, where, figures) or not measurable (what is missing), and 'not measurable' never counts as ok. Not legal advice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from onshore.core.errors import InputError
from onshore.evaluation.driven import Driven
from onshore.evaluation.predicates import PREDICATES
from onshore.evaluation.statistics import Rate, weighted_rate
from onshore.region import RegionPack

RULES_VERSION = 4  # raise when a predicate judges otherwise
SEVERITIES = ("minor", "major", "grave")
CERTAINTIES = ("R", "M")
Status = Literal["ok", "violated", "not measurable"]
NO_MAP = "map context"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a region. certainty: R read in the source, M from memory. points, fine: None where none is set."""

    id: str
    predicate: str
    clause: str
    certainty: str
    severity: str
    threshold: dict[str, Any]
    points: int | None = None
    fine: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.predicate not in PREDICATES:
            raise InputError("bad_config", f"rule {self.id} predicate {self.predicate!r}", f"use {sorted(PREDICATES)}.")
        if self.certainty not in CERTAINTIES or self.severity not in SEVERITIES or not self.clause:
            where = f"rule {self.id}"
            raise InputError(
                "bad_config", where, f"give a clause, certainty of {CERTAINTIES}, severity of {SEVERITIES}."
            )


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """The rules of one region and the currency of its fines."""

    region: str
    currency: str
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, pack: RegionPack) -> RuleBook:
        return cls.from_record(pack.region, pack.rules)

    @classmethod
    def from_record(cls, region: str, record: Mapping[str, Any]) -> RuleBook:
        """Rules of a parsed `rules.toml`. Raises InputError `bad_config` naming the rule that is wrong."""
        rules, seen = [], set[str]()
        for entry in record.get("rules", []):
            identity = entry.get("id", "?")
            try:
                rules.append(Rule(**entry))
            except TypeError as problem:
                raise InputError("bad_config", f"{region}/rules.toml {identity}", f"{problem}.") from problem
            if identity in seen:
                raise InputError("bad_config", f"{region}/rules.toml {identity}", "this id repeats; name each rule.")
            seen.add(identity)
        return cls(region=region, currency=str(record.get("currency", "")), rules=tuple(rules))


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One offence: when (s on the drive's own time), where (rear axle in local, m), and the figures that show it."""

    rule: str
    t_s: float
    until_s: float
    x_m: float
    y_m: float
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RuleVerdict:
    """One rule over one drive. missing: columns (or 'actors') without which it could not be judged somewhere."""

    rule: str
    status: Status
    violations: tuple[Violation, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DriveVerdict:
    """All rules over one drive."""

    name: str
    origin: str
    synthetic: bool
    km: float
    verdicts: tuple[RuleVerdict, ...]

    def as_record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "origin": self.origin,
            "synthetic": self.synthetic,
            "km": round(self.km, 4),
            "verdicts": [
                {
                    "rule": verdict.rule,
                    "status": verdict.status,
                    "missing": list(verdict.missing),
                    "violations": [vars(violation) for violation in verdict.violations],
                }
                for verdict in self.verdicts
            ],
        }


def judge(driven: Driven, book: RuleBook) -> DriveVerdict:
    """Every rule of the book over one drive."""
    return DriveVerdict(
        name=driven.name,
        origin=driven.origin,
        synthetic=driven.synthetic,
        km=driven.km,
        verdicts=tuple(judge_rule(driven, rule) for rule in book.rules),
    )


def judge_rule(driven: Driven, rule: Rule) -> RuleVerdict:
    """One rule over one drive."""
    with np.errstate(invalid="ignore"):
        finding = PREDICATES[rule.predicate](driven, rule.threshold)
    violations = tuple(
        Violation(
            rule=rule.id,
            t_s=round(float(driven["t_s"][broken.first]), 3),
            until_s=round(float(driven["t_s"][broken.last]), 3),
            x_m=round(float(driven["x_m"][broken.first]), 2),
            y_m=round(float(driven["y_m"][broken.first]), 2),
            figures=broken.figures,
        )
        for broken in sorted(finding.broken, key=lambda broken: broken.first)
    )
    missing = tuple(sorted(set(finding.missing)))
    status: Status = "violated" if violations else "not measurable" if missing else "ok"
    return RuleVerdict(rule=rule.id, status=status, violations=violations, missing=missing)


@dataclass(frozen=True, kw_only=True)
class RuleTotal:
    """One rule over many drives: how often each verdict, and offences per 100 km where it could be judged."""

    rule: str
    clause: str
    certainty: str
    severity: str
    ok: int
    violated: int
    not_measurable: int
    violations: int
    judged_km: float
    per_100_km: Rate | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RuleTotals:
    """A set of drives under one rule book. A rate is over the kilometres where its rule could be judged; None: nowhere.

    violations, points, fine: sums over the rules that could be judged anywhere, each over its own kilometres, with 95 %
    intervals (exact for equal weights, else Fay and Feuer's). complete: every rule could be judged on every drive.
    """

    region: str
    currency: str
    drives: int
    km: float
    synthetic: bool
    complete: bool
    violations: Rate | None
    points: Rate | None
    fine: Rate | None
    rules: tuple[RuleTotal, ...]
    version: int = RULES_VERSION

    def as_record(self) -> dict[str, Any]:
        rate = {name: getattr(self, name) and vars(getattr(self, name)) for name in ("violations", "points", "fine")}
        rules = [{**vars(rule), "per_100_km": rule.per_100_km and vars(rule.per_100_km)} for rule in self.rules]
        return {**vars(self), **rate, "rules": rules}


def totals(verdicts: Sequence[DriveVerdict], book: RuleBook) -> RuleTotals:
    """Add drives up. Raises InputError `not_measurable` without a drive."""
    if not verdicts:
        raise InputError("not_measurable", "rules", "give at least one drive or rollout.")
    rows = [_total(rule, verdicts) for rule in book.rules]
    judged = [(rule, row) for rule, row in zip(book.rules, rows, strict=True) if row.judged_km > 0]
    weights = {
        "violations": [1.0 for _ in judged],
        "points": [float(rule.points or 0) for rule, _ in judged],
        "fine": [float(rule.fine or 0) for rule, _ in judged],
    }
    counts = [row.violations for _, row in judged]
    rates = {
        name: weighted_rate(
            counts, [w / (row.judged_km / 100.0) for w, (_, row) in zip(values, judged, strict=True)], 1.0
        )
        if judged
        else None
        for name, values in weights.items()
    }
    return RuleTotals(
        region=book.region,
        currency=book.currency,
        drives=len(verdicts),
        km=math.fsum(verdict.km for verdict in verdicts),
        synthetic=any(verdict.synthetic for verdict in verdicts),
        complete=all(row.not_measurable == 0 for row in rows),
        rules=tuple(rows),
        violations=rates["violations"],
        points=rates["points"],
        fine=rates["fine"],
    )


def _total(rule: Rule, verdicts: Sequence[DriveVerdict]) -> RuleTotal:
    own = [(drive, verdict) for drive in verdicts for verdict in drive.verdicts if verdict.rule == rule.id]
    judged_km = math.fsum(drive.km for drive, verdict in own if verdict.status != "not measurable")
    count = sum(len(verdict.violations) for _, verdict in own)
    tally = {status: sum(verdict.status == status for _, verdict in own) for status in ("ok", "violated")}
    return RuleTotal(
        rule=rule.id,
        clause=rule.clause,
        certainty=rule.certainty,
        severity=rule.severity,
        ok=tally["ok"],
        violated=tally["violated"],
        not_measurable=len(own) - tally["ok"] - tally["violated"],
        violations=count,
        judged_km=judged_km,
        per_100_km=weighted_rate([count], [1.0], judged_km / 100.0) if judged_km > 0 else None,
        missing=tuple(sorted({name for _, verdict in own for name in verdict.missing})),
    )
