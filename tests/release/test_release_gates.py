"""Invariant 4, first half: a verdict passes exactly when every required check has a good figure with evidence behind it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.errors import InputError, NotFoundError
from onshore.release import CheckResult, Verdict
from onshore.release.gates import gate_names, judge, load_gate, read_gate

BENCH, TOWN = load_gate("bench"), load_gate("town")


def good() -> dict[str, CheckResult]:
    def passed(name: str, figure: float, p_value: float | None = None) -> CheckResult:
        return CheckResult(name=name, status="pass", figure=figure, p_value=p_value, evidence="ab" * 32)

    found = [
        passed("complete", 0.0),
        passed("reproducible", 0.0),
        passed("onnx_equals_torch", 2e-6),
        passed("open_loop_measured", 0.8),
        passed("closed_loop_above_base", 12.5, 0.004),
        passed("anonymisation_audited", 0.0),
    ]
    return {result.name: result for result in found}


def verdict(gate: object = TOWN, **changes: CheckResult | None) -> Verdict:
    evidence = {name: result for name, result in {**good(), **changes}.items() if result is not None}
    return judge(gate, region="cn", model_id="weights-a", payload_digest="0" * 64, evidence=evidence)  # type: ignore[arg-type]


def status(of: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in of.checks}


def test_bench_does_not_ask_what_town_asks() -> None:
    assert gate_names() == ["bench", "bench-int8", "town"]
    assert set(TOWN.require) - set(BENCH.require) == {"closed_loop_above_base", "anonymisation_audited"}
    bench = verdict(BENCH, closed_loop_above_base=None, anonymisation_audited=None)
    assert bench.passed and bench.road_use == "not for the road"
    assert status(bench)["closed_loop_above_base"] == "not asked"
    assert {name for name, found in status(bench).items() if found == "pass"} == set(BENCH.require)
    assert "not asked" in {status(verdict())[name] for name in ("traffic_rules", "memorisation", "latency")}


@pytest.mark.parametrize(
    ("name", "change", "expected", "why"),
    [
        ("complete", {"figure": 1.0}, "fail", "over 0"),
        ("onnx_equals_torch", {"figure": 2e-4}, "fail", "over 0.0001"),
        ("open_loop_measured", {"figure": None}, "not measurable", "no finite figure"),
        ("open_loop_measured", {"figure": math.nan}, "not measurable", "no finite figure"),
        ("open_loop_measured", {"figure": math.inf}, "not measurable", "no finite figure"),
        ("open_loop_measured", {"evidence": ""}, "not measurable", "no evidence"),
        (
            "open_loop_measured",
            {"status": "not measurable", "remark": "no held-out drive"},
            "not measurable",
            "held-out",
        ),
        ("reproducible", {"status": "fail", "remark": "weights differ"}, "fail", "weights differ"),
        ("closed_loop_above_base", {"figure": 0.0}, "fail", "not above 0"),
        ("anonymisation_audited", {"figure": 1.0}, "fail", "over 0"),
        ("closed_loop_above_base", {"figure": -3.0}, "fail", "not above 0"),
        ("closed_loop_above_base", {"p_value": 0.2}, "fail", "over 0.05"),
        ("closed_loop_above_base", {"p_value": None}, "not measurable", "no p value"),
    ],
)
def test_one_bad_check_stops_the_release(name: str, change: dict[str, object], expected: str, why: str) -> None:
    found = verdict(**{name: replace(good()[name], **change)})
    check = next(check for check in found.checks if check.name == name)
    assert (check.status, found.passed) == (expected, False)
    assert why in check.reason


def test_a_check_that_nobody_measured_never_passes() -> None:
    for name in TOWN.require:
        found = verdict(**{name: None})
        assert status(found)[name] == "not measurable" and not found.passed


results = st.builds(
    CheckResult,
    name=st.just("x"),
    status=st.sampled_from(["pass", "fail", "not measurable"]),
    figure=st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1e-4, 1.0])),
    p_value=st.one_of(st.none(), st.floats(0, 1), st.just(math.nan)),
    evidence=st.sampled_from(["", "cd" * 32]),
    synthetic=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["bench", "town"]), st.dictionaries(st.sampled_from(sorted(TOWN.require)), results))
def test_a_verdict_passes_only_on_what_a_plain_reading_allows(name: str, drawn: dict[str, CheckResult]) -> None:
    gate = load_gate(name)
    evidence = {check: replace(result, name=check) for check, result in drawn.items()}
    found = judge(gate, region="cn", model_id="m", payload_digest="0" * 64, evidence=evidence)

    def fine(check: str) -> bool:
        result, limits = evidence.get(check), gate.require[check]
        if result is None or result.status != "pass" or not result.evidence:
            return False
        if result.figure is None or not math.isfinite(result.figure):
            return False
        inside = limits.get("min", -math.inf) <= result.figure <= limits.get("max", math.inf)
        above = "above" not in limits or result.figure > limits["above"]
        likely = "max_p" not in limits or (result.p_value is not None and result.p_value <= limits["max_p"])
        return inside and above and likely

    assert found.passed == all(fine(check) for check in gate.require)
    assert all(check.status == "not asked" for check in found.checks if check.name not in gate.require)
    assert Verdict.from_record(json.loads(found.to_bytes())) == found


def test_a_verdict_that_contradicts_its_checks_cannot_be_read() -> None:
    record = json.loads(verdict(complete=None).to_bytes())
    with pytest.raises(InputError, match="its own checks"):
        Verdict.from_record({**record, "passed": True})
    with pytest.raises(InputError, match="missing field"):
        Verdict.from_record({"passed": True})


def test_synthetic_evidence_is_said_to_be_synthetic() -> None:
    assert not verdict().synthetic
    assert verdict(complete=replace(good()["complete"], synthetic=True)).synthetic


def test_bad_gates_and_bad_evidence_are_named() -> None:
    with pytest.raises(NotFoundError, match="bench, bench-int8, town"):
        load_gate("checks")
    with pytest.raises(InputError, match="status is"):
        CheckResult(name="complete", status="passed")
    with pytest.raises(InputError, match="known checks"):
        verdict(beauty=replace(good()["complete"], name="beauty"))
    with pytest.raises(InputError, match="known checks"):
        verdict(complete=good()["reproducible"])
    known = BENCH.known
    for record, why in [
        ({"road_use": "public road", "require": {}}, "at least one"),
        ({"road_use": "public road", "require": {"beauty": {}}}, "unknown checks"),
        ({"road_use": "anywhere", "require": {"complete": {}}}, "road_use"),
        ({"road_use": "public road", "require": {"complete": {"most": 1}}}, "limits are"),
        ({"road_use": "public road", "require": {"complete": {"max": math.nan}}}, "finite"),
        ({"require": {"complete": {}}}, "needs road_use"),
        ({"road_use": "public road", "require": {"complete": 3}}, "needs road_use"),
    ]:
        with pytest.raises(InputError, match=why):
            read_gate("trial", record, known)
