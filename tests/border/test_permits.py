"""Permits: two distinct people, neither the one who asked, over exactly one thing; nothing a table says is believed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from border.conftest import Shore, build
from onshore import border
from onshore.border import approval, people, permitting, users
from onshore.border.approval import Approved, Permit
from onshore.core.errors import InputError, NotFoundError, OnshoreError, RefusedError

NOW = 1_800_000_000 * 10**9
PERMIT = Permit(
    artifact="us-sha256-" + "0" * 64,
    kind="weights",
    from_region="us",
    to_region="cn",
    recipient="Example Cars Inc",
    purpose="base model",
    requester="alice",
    issued_ns=NOW,
    expires_ns=NOW + 30 * permitting.DAY_NS,
)
KEYS = {name: Ed25519PrivateKey.from_private_bytes(bytes([position]) * 32) for position, name in enumerate("abcd", 1)}
PUBLIC = {name: key.public_key().public_bytes_raw() for name, key in KEYS.items()}


def signed(*names: str, permit: Permit = PERMIT) -> dict[str, object]:
    record = approval.envelope(permit)
    for name in names:
        record = approval.sign(record, KEYS[name])
    return record


def objection(approved: Approved, **changed: object) -> str | None:
    asked = {"artifact": PERMIT.artifact, "to_region": "cn", "recipient": None, "now_ns": NOW + 1, **changed}
    refusal = approval.objection(approved, **asked)  # type: ignore[arg-type]
    return refusal.rule if refusal else None


def test_two_distinct_people_are_needed() -> None:
    assert approval.verify(signed("a", "b"), PUBLIC).approvers == ("a", "b")
    assert objection(approval.verify(signed("a", "b"), PUBLIC)) is None
    assert objection(approval.verify(signed("a"), PUBLIC)) == "permit-approvers"
    assert objection(approval.verify(signed(), PUBLIC)) == "permit-approvers"


def test_the_same_key_does_not_count_twice() -> None:
    with pytest.raises(InputError, match="already"):
        signed("a", "a")
    doubled = signed("a")
    doubled["signatures"] = [doubled["signatures"][0], doubled["signatures"][0]]  # type: ignore[index]
    with pytest.raises(InputError):
        approval.verify(doubled, PUBLIC)
    two_names = {"a": PUBLIC["a"], "z": PUBLIC["a"]}
    assert len(approval.verify(signed("a"), two_names).approvers) == 1


def test_a_signature_of_nobody_enrolled_counts_for_nothing() -> None:
    assert approval.verify(signed("a", "c"), {"a": PUBLIC["a"], "b": PUBLIC["b"]}).approvers == ("a",)


def test_the_requesters_own_signature_counts_for_nothing() -> None:
    keys = {**PUBLIC, "alice": PUBLIC["d"]}
    del keys["d"]
    assert approval.verify(signed("a", "d"), keys).approvers == ("a",)


def test_threshold_of_one_does_not_exist() -> None:
    with pytest.raises(InputError):
        Permit(**{**vars(PERMIT), "threshold": 1})
    wanted = Permit(**{**vars(PERMIT), "threshold": 3})
    assert objection(approval.verify(signed("a", "b", permit=wanted), PUBLIC)) == "permit-approvers"
    assert objection(approval.verify(signed("a", "b", "c", permit=wanted), PUBLIC)) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_to_a_signed_permit_survives(data: st.DataObject) -> None:
    record = signed("a", "b")
    opened = approval.open_envelope(record)
    payload = bytearray(opened.payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    from securesystemslib.dsse import Envelope

    forged = Envelope(bytes(payload), approval.PAYLOAD_TYPE, opened.signatures).to_dict()
    try:
        found = approval.verify(forged, PUBLIC)
    except InputError as problem:
        assert problem.code == "permit_invalid"
        return
    assert found.approvers == ()


def test_asking_through_the_center(shore: Shore) -> None:
    center = shore.center
    asked = {"recipient": "Example Cars Inc", "to_region": "cn", "purpose": "base model"}
    row = border.request_permit(center, "model-1", requester="alice", **asked)
    assert row.state == "waiting" and row.tensors == 3 and row.tensors_source == "declared"
    border.enroll_approver(center, "alice")
    with pytest.raises(RefusedError, match="does not approve it"):
        border.approve(center, row.id, "alice")
    assert border.approve(center, row.id, "bertha").state == "waiting"
    with pytest.raises(RefusedError, match="already"):
        border.approve(center, row.id, "bertha")
    assert [line["rule"] for line in shore.lines("border.refused")] == ["permit-approvers"] * 2
    with pytest.raises(RefusedError):
        border.export(center, "model-1", permit=row.id, out_dir=shore.outside)
    assert border.approve(center, row.id, "chen").approvers == ("bertha", "chen")
    assert [listed["state"] for listed in border.permits(center)] == ["approved"]
    with pytest.raises(NotFoundError):
        border.approve(center, "permit-none", "bertha")
    with pytest.raises(OnshoreError):
        border.approve(center, row.id, "mallory")


@pytest.mark.parametrize(
    "field",
    [
        {"recipient": ""},
        {"recipient": "x" * 200},
        {"purpose": "line\nbreak"},
        {"purpose": "京A T0000"},
        {"purpose": "at 39.9042, 116.4074"},
        {"to_region": "China"},
        {"expires_days": 0},
        {"expires_days": 4000},
        {"threshold": 1},
    ],
)
def test_a_permit_with_an_impossible_field_is_not_requested(shore: Shore, field: dict[str, object]) -> None:
    asked = {"recipient": "Example Cars Inc", "to_region": "cn", "purpose": "base model", "requester": "alice", **field}
    with pytest.raises(InputError) as caught:
        border.request_permit(shore.center, "model-1", **asked)  # type: ignore[arg-type]
    assert caught.value.code == "permit_invalid" and border.permits(shore.center) == []


@pytest.mark.parametrize("region", ["cn", "eu"])
def test_a_region_that_asks_for_a_legal_basis_gets_one_in_every_permit(region: str, tmp_path: Path) -> None:
    shore = build(tmp_path, region)
    with pytest.raises(InputError) as caught:
        shore.permit(to_region="us", basis="")
    assert (caught.value.code, caught.value.subject) == ("permit_invalid", "basis")
    law, shore.center.pack.law["permit"]["basis"] = shore.center.pack.law["permit"]["basis"], ""
    without = shore.permit(to_region="us", basis="")  # made while the region did not ask
    shore.center.pack.law["permit"]["basis"] = law
    with pytest.raises(RefusedError) as refused:
        border.export(shore.center, "model-1", permit=without, out_dir=shore.outside)
    assert (refused.value.code, refused.value.refusal.rule) == ("permit_invalid", "permit-basis")
    permit = shore.permit(to_region="us", basis="assessment 2026-17")
    assert next(row for row in border.permits(shore.center) if row["id"] == permit)["basis"] == "assessment 2026-17"
    assert border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside).exists()
    shore.center.close()


def test_a_permit_without_a_basis_says_what_it_said_before_there_was_one(shore: Shore) -> None:
    record = permitting.envelope_of(shore.center, shore.permit(basis=""))
    assert b'"basis"' not in approval.open_envelope(record).payload


def test_a_dismissed_approver_no_longer_counts(shore: Shore) -> None:
    permit = shore.permit()
    people.dismiss_approver(shore.center, "bertha")
    with pytest.raises(RefusedError) as caught:
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert caught.value.refusal.rule == "permit-approvers"


def test_two_people_who_approve_at_once_have_both_approved(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    permit, sign = shore.permit(approvers=()), approval.sign
    other = threading.Thread(target=border.approve, args=(shore.center, permit, "chen"))

    def slowly(*args: object) -> dict[str, object]:
        monkeypatch.setattr(approval, "sign", sign)
        other.start()
        other.join(0.5)  # long enough for chen to be done, were nobody in the way
        return sign(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(approval, "sign", slowly)
    border.approve(shore.center, permit, "bertha")
    other.join()
    assert permitting.verified(shore.center, permit).approvers == ("bertha", "chen")
    assert len(shore.lines("border.permit.approve")) == 2


@pytest.mark.parametrize("step", ["line", "save"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_approval_that_was_killed_ends_in_one_signature_and_one_line(
    shore: Shore, monkeypatch: pytest.MonkeyPatch, step: str, elsewhere: bool
) -> None:
    center, permit = shore.center, shore.permit(approvers=())
    signed = approval.sign(permitting.envelope_of(center, permit), people.approver_key(center, "bertha"))

    def again() -> object:
        return permitting.attach(center, permit, signed) if elsewhere else border.approve(center, permit, "bertha")

    with monkeypatch.context() as patched:
        _killed_at(patched, shore, step)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert permitting.verified(center, permit).approvers == ()
    again()
    assert permitting.verified(center, permit).approvers == ("bertha",)
    assert len(permitting.envelope_of(center, permit)["signatures"]) == len(shore.lines("border.permit.approve")) == 1


@pytest.mark.parametrize("step", ["line", "save"])
def test_a_permit_that_nobody_wrote_down_does_not_exist(
    shore: Shore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patched:
        _killed_at(patched, shore, step)
        with pytest.raises(KeyboardInterrupt):
            shore.permit(approvers=())
    assert border.permits(shore.center) == []
    shore.permit(approvers=())
    assert len(border.permits(shore.center)) == 1


def _killed_at(patched: pytest.MonkeyPatch, shore: Shore, step: str) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    patched.setattr(*((shore.center.ledger, "append") if step == "line" else (permitting, "_save")), killed)


@pytest.mark.parametrize("text", ["no JSON", "5", "[" * 100_000])
def test_a_row_that_is_no_json_is_tampered_with(shore: Shore, text: str) -> None:
    permit = shore.permit()
    with shore.center.db.begin() as connection:
        connection.execute(sa.text("update border_permits set envelope=:e"), {"e": text})
    assert [row["state"] for row in border.permits(shore.center)] == ["tampered"]
    refusal = border.check(shore.center, "model-1", "cn", permit=permit).refusal
    assert refusal is not None and refusal.rule == "permit-statement"


@pytest.mark.parametrize("wrong", [{}, {"payload": "e30=", "payloadType": "x", "signatures": 5}, [], None])
def test_what_is_no_envelope_is_not_attached(shore: Shore, wrong: object) -> None:
    with pytest.raises(InputError) as caught:
        permitting.attach(shore.center, shore.permit(approvers=()), wrong)  # type: ignore[arg-type]
    assert caught.value.code == "permit_invalid"


def test_names_of_every_script_are_people_of_their_own() -> None:
    ascii_names = {
        "Alice": "alice",
        "bea": "bea",
        "Some One": "some-one",
        "car-0007": "car-0007",
        "-": "-",
        "a" * 90: "a" * 80,
    }
    assert {name: people.person(name) for name in ascii_names} == ascii_names
    others = ["张三", "李四", "José", "Jos", "Ωmega", "mega", "...", "???", "张" * 90, "张" * 91, "a" * 90 + "é"]
    ids = [people.person(name) for name in others]
    assert len(set(ids)) == len(others)
    assert [people.person(one) for one in ids] == ids
    assert people.person("JOSE\u0301") == people.person("josé")
    with pytest.raises(InputError, match="bad_id"):
        people.person("")


def test_a_name_of_another_script_has_only_its_own_roles_and_key(shore: Shore) -> None:
    users.enroll_person(shore.center, "张三", ["engineer"])
    assert users.roles_of(shore.center, "张三") == {"engineer"} and not users.roles_of(shore.center, "李四")
    for name in ("王五", "赵六"):
        border.enroll_approver(shore.center, name)
    assert len(permitting.verified(shore.center, shore.permit(approvers=("王五", "赵六"))).approvers) == 2


def test_a_key_slipped_into_the_folder_approves_nothing(shore: Shore) -> None:
    secret = Ed25519PrivateKey.generate()
    folder = shore.center.keys.folder / "approvers"
    (folder / "mallory.pub").write_text(secret.public_key().public_bytes_raw().hex())
    (folder / "mallory.key").write_bytes(secret.private_bytes_raw())
    (folder / "bertha.pub").write_text(secret.public_key().public_bytes_raw().hex())
    assert sorted(people.approver_keys(shore.center)) == ["chen"]


def test_an_approver_may_keep_the_key_elsewhere(shore: Shore) -> None:
    secret = Ed25519PrivateKey.generate()
    public = secret.public_key().public_bytes_raw()
    border.enroll_approver(shore.center, "dana", public_key=public)
    assert border.enroll_approver(shore.center, "dana", public_key=public)  # again: no-op
    with pytest.raises(InputError):
        border.enroll_approver(shore.center, "eve", public_key=public)
    permit = shore.permit(approvers=("bertha",))
    with pytest.raises(OnshoreError) as caught:
        border.approve(shore.center, permit, "dana")
    assert caught.value.code == "key_missing"
    elsewhere = approval.sign(permitting.envelope_of(shore.center, permit), secret)
    assert permitting.attach(shore.center, permit, elsewhere).state == "approved"
    with pytest.raises(InputError):
        permitting.attach(shore.center, permit, elsewhere)
    assert border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside).exists()


def test_private_halves_are_for_their_owner_only(shore: Shore) -> None:
    folder = shore.center.keys.folder / "approvers"
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}
    assert not [path for path in shore.center.root.rglob("*") if path.suffix in {".key", ".pub"}]


def tables_envelope(shore: Shore, permit: str, change) -> None:  # type: ignore[no-untyped-def]
    """What a person with a database shell would do."""
    with shore.center.db.begin() as connection:
        text = connection.execute(
            sa.text("select envelope from border_permits where id=:i"), {"i": permit}
        ).scalar_one()
        record = change(json.loads(text))
        connection.execute(
            sa.text("update border_permits set envelope=:e where id=:i"), {"e": json.dumps(record), "i": permit}
        )


def test_editing_the_table_gains_nothing(shore: Shore) -> None:
    permit = shore.permit(approvers=("bertha",))
    mine = Ed25519PrivateKey.generate()
    tables_envelope(shore, permit, lambda record: approval.sign(record, mine))
    with pytest.raises(RefusedError):
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    other = shore.permit(shore.metrics)
    stolen = permitting.envelope_of(shore.center, other)
    tables_envelope(shore, permit, lambda record: stolen)
    assert {row["id"]: row["state"] for row in border.permits(shore.center)}[permit] == "tampered"
    with pytest.raises(RefusedError, match="changed"):
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)


def test_a_clock_set_back_revives_nothing(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    permit = shore.permit(expires_days=1)
    real = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: real + 2 * permitting.DAY_NS)
    shore.center.ledger.append("tick", {})
    monkeypatch.setattr(time, "time_ns", lambda: real)
    with pytest.raises(RefusedError) as caught:
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert caught.value.refusal.rule == "permit-expired"
    shore.center.ledger.append("clock.accepted", {})  # somebody says that the time before was wrong
    with pytest.raises(RefusedError, match="turned back") as caught:
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert caught.value.refusal.rule == "permit-expired"
    assert [row["state"] for row in border.permits(shore.center)] == ["expired"]
    assert border.export(shore.center, "model-1", permit=shore.permit(), out_dir=shore.outside)
