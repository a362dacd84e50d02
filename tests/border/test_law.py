"""What people read: every refusal can be explained, every duty says what stands behind it, and names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from border.conftest import Shore
from onshore import border
from onshore.border import law
from onshore.core.errors import ERROR_CODES, Refusal, UsageError
from onshore.region import load_pack, regions

TESTS = Path(__file__).parent.parent
DOC = TESTS.parent / "docs" / "border.md"


@pytest.mark.parametrize("region", sorted(set(regions()) & {"cn", "us", "eu"}))
def test_every_rule_of_gate_and_policy_is_explained(region: str) -> None:
    pack = load_pack(region)
    named = set(re.findall(r'@id\("([^"]+)"\)\s*@code', pack.policy_text)) | set(law.RULES)
    for rule in named:
        answer = border.explain(rule, pack)
        assert answer["clause"] and answer["remedy"] and answer["rule"] == rule


def test_every_rule_that_the_gate_names_has_a_text() -> None:
    source = "".join(p.read_text() for p in sorted((Path(border.__file__).parent).glob("*.py")) if p.stem != "law")
    tree = ast.parse((Path(border.__file__).parent / "gate.py").read_text())
    rules = (
        {
            keyword.value.value
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Refusal"
            for keyword in call.keywords
            if keyword.arg == "rule" and isinstance(keyword.value, ast.Constant)
        }
        | set(re.findall(r'"(permit-[a-z]+)"', source))
        | {"yearly-budget", "import-gate"}
    )
    assert rules <= set(law.RULES)


def test_a_real_refusal_is_explained_by_record_line_code_and_value(shore: Shore) -> None:
    decision = border.check(shore.center, "drive-1", "cn")
    assert isinstance(decision.refusal, Refusal)
    for asked in (decision.refusal, decision.refusal.as_record(), decision.entry.body, decision.refusal.code):
        answer = border.explain(asked, shore.center.pack)
        assert answer["code"] == "raw_ban" and answer["rule"] == "raw-ban" and "no legal advice" in answer["note"]
    with pytest.raises(UsageError):
        border.explain("nonsense", shore.center.pack)


def test_every_code_of_the_project_can_be_asked_for() -> None:
    for code in ERROR_CODES:
        answer = border.explain(code)
        assert answer["code"] == code and answer["clause"] and answer["meaning"] == ERROR_CODES[code]


@pytest.mark.parametrize("code", ["raw_ban", "unlabelled", "permit_invalid", "no_decision", "not_in_region", "import_refused", "limit_exceeded", "not_cleared"])  # fmt: skip
def test_codes_that_people_type_are_explained(code: str) -> None:
    assert code in ERROR_CODES and border.explain(code)["clause"]


@pytest.mark.parametrize("region", sorted(set(regions()) & {"cn", "us", "eu"}))
def test_an_enforced_duty_names_a_test_that_exists(region: str, tmp_path: Path) -> None:
    from onshore.store import Center

    center = Center.init(tmp_path / "center", region, keys_dir=tmp_path / "keys")
    listed = border.duties(center)
    center.close()
    assert len(listed) == len(load_pack(region).duties) > 0
    for duty in listed:
        assert duty["status"] in {"enforced", "attested", "operator"} and duty["certainty"]
        assert bool(duty["shown_by"]) == (duty["status"] == "enforced")
        if duty["shown_by"]:
            file, _, name = duty["shown_by"].partition("::")
            assert f"def {name}(" in (TESTS.parent / file).read_text(encoding="utf8"), duty["id"]
    assert {duty["status"] for duty in listed} >= {"enforced"}


def test_a_duty_that_claims_too_much_is_listed_as_the_operators(shore: Shore) -> None:
    shore.center.pack.duties.append({"id": "XX-99", "clause": "-", "demand": "-", "control": "-", "status": "enforced"})
    assert border.duties(shore.center)[-1]["status"] == "operator"


def test_the_page_for_compliance_officers_holds_the_duties_and_the_disclaimer() -> None:
    page = DOC.read_text(encoding="utf8")
    assert "no legal advice" in page
    for region in ("cn", "us", "eu"):
        for duty in load_pack(region).duties:
            (row,) = [line for line in page.splitlines() if line.startswith(f"| {duty['id']} |")]
            shown = law.SHOWN_BY.get(duty["id"], "")
            status = duty["status"] if duty["status"] != "enforced" or shown else "operator"
            assert f"| {status} |" in row and f"| {duty['certainty']} |" in row, duty["id"]
            assert shown.partition("::")[2] in row
