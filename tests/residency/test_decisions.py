"""Decisions: default deny, a schema that bites, and a raw ban that no policy lifts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.errors import ERROR_CODES, InputError, Refusal
from onshore.core.label import KINDS, SENSITIVITIES, Label
from onshore.region import load_pack, regions
from onshore.residency import RAW_SENSITIVITIES, PermitFacts, Request, Rules

EXPORTABLE = frozenset("weights metrics report evidence release onnx".split())
NOW_S = 1_800_000_000
RULES = {region: Rules.from_pack(load_pack(region)) for region in regions()}
SCHEMA = load_pack("cn").schema_text
PERMIT_ALL = Rules(policy_text="permit (principal, action, resource);", schema_text=SCHEMA)


def permit(**changes: Any) -> PermitFacts:
    facts = PermitFacts(
        id="permit-1",
        artifacts=frozenset(["artifact-1"]),
        kinds=EXPORTABLE,
        recipient_region="eu",
        purpose="adaptation",
        expires_s=NOW_S + 60,
        approvals=2,
        threshold=2,
    )
    return replace(facts, **changes)


def ask(action: str, label: Label | None, rules: Rules = RULES["cn"], **changes: Any) -> Refusal | None:
    asked = Request(
        action=action, label=label, region="cn", actor="alice", role="engineer", artifact="artifact-1", now_s=NOW_S
    )
    return rules.decide(replace(asked, **changes))


def export(label: Label, facts: PermitFacts | None, **changes: Any) -> Refusal | None:
    return ask("export", label, **{"permit": facts, "recipient_region": "eu", "purpose": "adaptation", **changes})


def code(refusal: Refusal | None) -> str:
    return refusal.code if refusal else "allowed"


@pytest.mark.parametrize("region", regions())
@pytest.mark.parametrize("action", ["store", "read", "train", "show"])
def test_at_home_a_segment_is_kept_and_used(region: str, action: str) -> None:
    label = Label(region=region, kind="segment", sensitivity=frozenset(["unmeasured_plates"]))
    assert ask(action, label, RULES[region], region=region) is None


def test_unlabelled_does_not_exist() -> None:
    for action in ("store", "read", "train", "show", "export", "import", "fly"):
        assert code(ask(action, None)) == "unlabelled"
        assert code(ask(action, None, PERMIT_ALL)) == "unlabelled"


def test_an_emptied_policy_denies_everything() -> None:
    empty = Rules(policy_text="", schema_text=SCHEMA)
    for action in ("store", "read", "train", "show", "export", "import"):
        assert code(ask(action, Label(region="cn", kind="metrics"), empty, permit=permit())) == "no_decision"


def test_a_policy_that_errs_is_no_permission() -> None:
    rules = Rules(
        policy_text="""permit (principal, action, resource);
        forbid (principal, action, resource) when { context has permit && context.permit.now_s + 9223372036854775807 > 0 };""",
        schema_text=SCHEMA,
    )
    for _ in range(2):  # an error is never remembered as an answer
        assert code(ask("read", Label(region="cn", kind="metrics"), rules, permit=permit())) == "no_decision"


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("actor", 'forbid (principal == Person::"mallory", action, resource);'),
        ("actor", 'forbid (principal is Person in Person::"mallory", action, resource);'),
        ("actor", 'forbid (principal, action, resource) when { [Person::"mallory"].contains(principal) };'),
        ("artifact", 'forbid (principal, action, resource == Artifact::"mallory");'),
        ("artifact", 'forbid (principal, action, resource) when { resource == Artifact::"mallory" };'),
    ],
)
def test_a_rule_about_one_person_or_artifact_is_not_answered_from_memory(field: str, rule: str) -> None:
    rules = Rules(policy_text=f"permit (principal, action, resource); {rule}", schema_text=SCHEMA)
    for name in ("alice", "mallory", "alice", "mallory"):
        answer = code(ask("read", Label(region="cn", kind="metrics"), rules, **{field: name}))
        assert answer == ("no_decision" if name == "mallory" else "allowed")


def test_what_is_remembered_is_everything_that_a_policy_may_read() -> None:
    """Each change of one attribute is a question of its own: the answer of another one is never given."""
    rules, label = Rules.from_pack(load_pack("cn")), Label(region="cn", kind="weights")
    clips = permit(kinds=frozenset(["clip"]))
    for _ in range(2):
        assert code(export(label, permit(), rules=rules)) == "allowed"
        assert code(export(label, permit(), rules=rules, now_s=NOW_S + 61)) == "permit_invalid"
        assert code(export(label, permit(), rules=rules, artifact="artifact-2")) == "permit_invalid"
        assert code(export(label, permit(), rules=rules, purpose="other")) == "permit_invalid"
        assert code(export(label, permit(approvals=1), rules=rules)) == "permit_invalid"
        assert code(export(replace(label, kind="clip"), clips, rules=rules)) == "not_cleared"


@pytest.mark.parametrize("text", ["permit (", "permit (principal, action, resource) when { resource.colour == 1 };"])
def test_a_policy_that_is_broken_or_off_schema_does_not_load(text: str) -> None:
    with pytest.raises(InputError, match=r"policy\.cedar"):
        Rules(policy_text=text, schema_text=SCHEMA)


def test_an_unknown_action_is_refused() -> None:
    assert code(ask("fly", Label(region="cn", kind="metrics"), PERMIT_ALL)) == "no_decision"


def test_another_region_stays_out() -> None:
    assert code(ask("store", Label(region="us", kind="clip"))) == "out_of_region"


def test_asking_from_abroad_is_export() -> None:
    refusal = ask("show", Label(region="cn", kind="clip"), actor_region="us")
    assert refusal is not None
    assert refusal.code == "not_allowed" and "CN-22" in refusal.clause


def test_cabin_is_neither_trained_on_nor_shown() -> None:
    label = Label(region="cn", kind="segment", sensitivity=frozenset(["cabin"]))
    assert code(ask("train", label)) == "not_allowed"
    assert "CN-14" in str(ask("show", label))


def test_raw_is_read_only_to_anonymise() -> None:
    raw = Label(region="cn", kind="raw_drive", sensitivity=frozenset(["face", "plate"]))
    assert ask("store", raw) is None
    assert ask("read", raw, purpose="anonymise") is None
    for action, purpose in [("read", "train"), ("read", ""), ("train", "anonymise"), ("show", "anonymise")]:
        assert code(ask(action, raw, purpose=purpose)) == "raw_ban"
        assert code(ask(action, raw, PERMIT_ALL, purpose=purpose)) == "raw_ban", "the ban does not hang on the policy"


@pytest.mark.parametrize("region", regions())
def test_the_policy_alone_also_keeps_raw_in(region: str) -> None:
    """The two checks are independent: with the ban in code switched off, Cedar still refuses."""
    raw = Label(region=region, kind="raw_drive", sensitivity=frozenset(["face"]))
    asked = Request(action="read", label=raw, region=region, actor="alice", role="engineer", purpose="train")
    assert code(RULES[region]._ask(asked, raw)) == "raw_ban"
    leaving = replace(asked, action="export", recipient_region="eu", permit=permit(kinds=KINDS), artifact="artifact-1")
    assert code(RULES[region]._ask(leaving, raw)) == "raw_ban"


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    carried=st.frozensets(st.sampled_from(sorted(SENSITIVITIES)), max_size=3),
    approvals=st.integers(0, 9),
    threshold=st.integers(0, 3),
)
def test_raw_never_leaves_whatever_policy_and_permit_say(
    kind: str, carried: frozenset[str], approvals: int, threshold: int
) -> None:
    label = Label(region="cn", kind=kind, sensitivity=carried)
    facts = permit(kinds=KINDS, approvals=approvals, threshold=threshold, accepts=SENSITIVITIES)
    lax, strict = export(label, facts, rules=PERMIT_ALL), export(label, facts)
    if kind == "raw_drive" or carried & RAW_SENSITIVITIES:
        assert code(lax) == "raw_ban"
    if strict is None:
        assert kind in EXPORTABLE and not carried & RAW_SENSITIVITIES
        assert approvals >= threshold >= 2


@pytest.mark.parametrize("kind", sorted(EXPORTABLE))
def test_cleared_kinds_leave_with_a_permit_and_only_with_one(kind: str) -> None:
    label = Label(region="cn", kind=kind, derived_from_raw=True)
    assert export(label, permit()) is None
    assert code(export(label, None)) == "permit_invalid"


@pytest.mark.parametrize("kind", sorted(KINDS - EXPORTABLE - {"raw_drive"}))
def test_other_kinds_are_not_cleared(kind: str) -> None:
    assert code(export(Label(region="cn", kind=kind), permit(kinds=KINDS))) == "not_cleared"


@pytest.mark.parametrize(
    "changes",
    [
        {"artifacts": frozenset(["artifact-2"])},
        {"kinds": frozenset(["metrics"])},
        {"recipient_region": "us"},
        {"purpose": "sale"},
        {"expires_s": NOW_S},
        {"approvals": 1},
        {"threshold": 1, "approvals": 1},
        {"threshold": 3},
    ],
)
def test_a_permit_covers_exactly_what_it_names(changes: dict[str, Any]) -> None:
    refusal = export(Label(region="cn", kind="weights"), permit(**changes))
    assert refusal is not None
    assert refusal.code == "permit_invalid" and refusal.rule == "permit-needed"


def test_without_a_time_no_permit_is_in_time() -> None:
    label = Label(region="cn", kind="weights")
    assert export(label, permit(expires_s=(1 << 62))) is None
    assert code(export(label, permit(expires_s=(1 << 62)), now_s=None)) == "permit_invalid"


def test_what_is_left_unmeasured_must_be_accepted_by_name() -> None:
    label = Label(region="cn", kind="weights", sensitivity=frozenset(["unmeasured_plates"]))
    refusal = export(label, permit())
    assert refusal is not None and refusal.rule == "remainder-accepted"
    assert export(label, permit(accepts=frozenset(["unmeasured_plates"]))) is None


def test_imports_take_models_not_recordings() -> None:
    assert ask("import", Label(region="us", kind="weights")) is None
    assert code(ask("import", Label(region="us", kind="segment"))) == "import_refused"
    assert ask("import", Label(region="cn", kind="segment")) is None
    cn_weights = Label(region="cn", kind="weights")
    assert "US-01" in str(ask("import", cn_weights, RULES["us"], region="us"))


def test_refusals_are_complete() -> None:
    for action in ("store", "read", "show", "export", "import"):
        refusal = ask(action, Label(region="us", kind="clip"), recipient_region="eu")
        assert refusal is not None
        assert refusal.code in ERROR_CODES and all(refusal.as_record().values()), refusal


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_names_of_any_shape_are_answered(actor: str, artifact: str) -> None:
    assert ask("read", Label(region="cn", kind="clip"), actor=actor, artifact=artifact, purpose=artifact) is None
