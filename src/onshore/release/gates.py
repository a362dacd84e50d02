"""Gates: which checks a release must pass, and the verdict over the evidence. Pure functions over records.

Rule: a gate names its checks and limits in a file; a required check passes only with a finite figure inside the limit,
evidence behind it, and nobody saying it failed. 'Not measurable' never passes; what is not required is 'not asked'.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

from onshore.bundle.format import ROAD_USES
from onshore.core.digest import canonical_json, record_digest
from onshore.core.errors import InputError, NotFoundError

PASS, FAIL, NOT_MEASURABLE, NOT_ASKED = "pass", "fail", "not measurable", "not asked"
LIMITS: tuple[str, ...] = ("min", "max", "above", "max_p")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What somebody measured. status: pass, fail or 'not measurable', in the measurer's own eyes.

    figure in `unit`, p_value where the check is a test, evidence: digest or id of the artifact that shows it,
    synthetic: measured on simulated data. limit: the measurer's own, for display; the gate's limit decides.
    """

    name: str
    status: str
    figure: float | None = None
    evidence: str = ""
    unit: str = ""
    limit: float | None = None
    p_value: float | None = None
    synthetic: bool = False
    remark: str = ""

    def __post_init__(self) -> None:
        if self.status not in (PASS, FAIL, NOT_MEASURABLE):
            raise InputError(
                "bad_config", f"check {self.name}", f"status is pass, fail or not measurable, not {self.status!r}."
            )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of a verdict: what was found, the gate's limits, and why it has this status."""

    name: str
    status: str
    figure: float | None = None
    p_value: float | None = None
    unit: str = ""
    limits: dict[str, float] = field(default_factory=dict)
    evidence: str = ""
    synthetic: bool = False
    reason: str = ""
    question: str = ""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A gate file: required checks with their limits (`min`, `max`: inclusive, `above`: exclusive, `max_p`)."""

    name: str
    road_use: str
    require: dict[str, dict[str, float]]
    known: dict[str, dict[str, str]]

    def __post_init__(self) -> None:
        if not self.require:
            raise InputError("bad_config", f"gate {self.name}", "a gate requires at least one check.")
        unknown = sorted(set(self.require) - set(self.known))
        if unknown:
            raise InputError(
                "bad_config", f"gate {self.name}", f"unknown checks {unknown}; known are {sorted(self.known)}."
            )
        if self.road_use not in ROAD_USES:
            raise InputError("bad_config", f"gate {self.name}", f"road_use is one of {ROAD_USES}.")
        for name, limits in self.require.items():
            wrong = sorted(set(limits) - set(LIMITS))
            if wrong or any(not math.isfinite(value) for value in limits.values()):
                raise InputError("bad_config", f"gate {self.name}, {name}", f"limits are {LIMITS} with finite values.")

    @property
    def digest(self) -> str:
        return record_digest({"name": self.name, "road_use": self.road_use, "require": self.require})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate says about one payload. It passes when every check the gate requires does."""

    gate: str
    gate_digest: str
    region: str
    model_id: str
    payload_digest: str
    road_use: str
    required: tuple[str, ...]
    checks: tuple[Check, ...]
    schema_version: int = 1

    @property
    def passed(self) -> bool:
        status = {check.name: check.status for check in self.checks}
        return bool(self.required) and all(status.get(name) == PASS for name in self.required)

    @property
    def synthetic(self) -> bool:
        """Whether any figure it rests on was measured on simulated data."""
        return any(check.synthetic for check in self.checks)

    @property
    def digest(self) -> str:
        return record_digest(self.as_record())

    def as_record(self) -> dict[str, Any]:
        record = {**asdict(self), "required": list(self.required), "checks": [asdict(check) for check in self.checks]}
        return {**record, "passed": self.passed, "synthetic": self.synthetic}

    def to_bytes(self) -> bytes:
        return canonical_json(self.as_record())

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Verdict:
        """Read a record back. Raises InputError `bad_config` when `passed` is not what its checks say."""
        try:
            fields = {name: value for name, value in record.items() if name not in ("passed", "synthetic")}
            checks = tuple(Check(**check) for check in fields.pop("checks"))
            verdict = cls(**{**fields, "required": tuple(fields["required"]), "checks": checks})
        except (KeyError, TypeError) as problem:
            raise InputError("bad_config", "verdict", f"unexpected or missing field: {problem}.") from problem
        if verdict.as_record() != dict(record):
            raise InputError(
                "bad_config", "verdict", "it says something else than its own checks; gate the model again."
            )
        return verdict


def gate_names() -> list[str]:
    files = resources.files("onshore.release").joinpath("gates").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name not in ("checks.toml",))


def load_gate(name: str) -> Gate:
    """A packaged gate. Raises NotFoundError for an unknown name, InputError `bad_config` for an impossible file."""
    if name not in gate_names():
        raise NotFoundError(f"gate {name!r}", f"there are {', '.join(gate_names())}.")
    folder = resources.files("onshore.release").joinpath("gates")
    known = tomllib.loads(folder.joinpath("checks.toml").read_text(encoding="utf8"))
    return read_gate(name, tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf8")), known)


def read_gate(name: str, record: Mapping[str, Any], known: dict[str, dict[str, str]]) -> Gate:
    try:
        require = {
            check: {key: float(value) for key, value in limits.items()} for check, limits in record["require"].items()
        }
        return Gate(name=name, road_use=record["road_use"], require=require, known=known)
    except (KeyError, AttributeError, TypeError, ValueError) as problem:
        raise InputError(
            "bad_config", f"gate {name}", f"it needs road_use and [require.CHECK] tables: {problem}."
        ) from problem


def judge(
    gate: Gate, *, region: str, model_id: str, payload_digest: str, evidence: Mapping[str, CheckResult]
) -> Verdict:
    """The verdict over a payload: every known check, those required judged by the gate's limits.

    Raises InputError `bad_config` for evidence under a wrong or unknown name.
    """
    for name, result in evidence.items():
        if name != result.name or name not in gate.known:
            raise InputError("bad_config", f"evidence {name!r}", f"known checks are {', '.join(sorted(gate.known))}.")
    return Verdict(
        gate=gate.name,
        gate_digest=gate.digest,
        region=region,
        model_id=model_id,
        payload_digest=payload_digest,
        road_use=gate.road_use,
        required=tuple(sorted(gate.require)),
        checks=tuple(_judged(gate, name, evidence.get(name)) for name in gate.known),
    )


def _judged(gate: Gate, name: str, result: CheckResult | None) -> Check:
    question, unit = gate.known[name]["question"], gate.known[name]["unit"]
    if name not in gate.require:
        return Check(name=name, status=NOT_ASKED, question=question, unit=unit, reason=f"gate {gate.name} does not ask")
    limits = gate.require[name]
    status, reason = _status(limits, result)
    figure, p_value = (_finite(result.figure), _finite(result.p_value)) if result else (None, None)
    return Check(
        name=name,
        status=status,
        figure=figure,
        p_value=p_value,
        unit=(result.unit if result else "") or unit,
        limits=dict(limits),
        evidence=result.evidence if result else "",
        synthetic=result.synthetic if result else False,
        reason=reason,
        question=question,
    )


def _status(limits: Mapping[str, float], result: CheckResult | None) -> tuple[str, str]:
    """Status and reason of a required check."""
    if result is None:
        return NOT_MEASURABLE, "nobody measured it"
    figure, p_value = _finite(result.figure), _finite(result.p_value)
    if result.status == NOT_MEASURABLE or figure is None:
        return NOT_MEASURABLE, result.remark or "no finite figure"
    if not result.evidence:
        return NOT_MEASURABLE, "no evidence behind the figure"
    if "max_p" in limits and p_value is None:
        return NOT_MEASURABLE, "no p value"
    if result.status == FAIL:
        return FAIL, result.remark or "measured as failed"
    broken = [
        f"{figure:g} is below {limits['min']:g}" if figure < limits.get("min", -math.inf) else "",
        f"{figure:g} is over {limits['max']:g}" if figure > limits.get("max", math.inf) else "",
        f"{figure:g} is not above {limits['above']:g}" if figure <= limits.get("above", -math.inf) else "",
        f"p {p_value:g} is over {limits['max_p']:g}"
        if p_value is not None and p_value > limits.get("max_p", math.inf)
        else "",
    ]
    reasons = [reason for reason in broken if reason]
    return (FAIL, "; ".join(reasons)) if reasons else (PASS, result.remark)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
