"""Attempts a tester will make (reference numbers in the names), and what the gate answers: always a stable code.

The last part removes one control at a time and tries to get an original out: every one of the others still says no.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from border.conftest import ANONYMISED, Shore, network, safetensors
from onshore import border
from onshore.border import approval, gate, permitting
from onshore.core.errors import InputError, RefusedError
from onshore.core.label import Label
from onshore.region import load_pack
from onshore.residency import Rules, derive
from onshore.store import Center

ALLOW_ALL = "permit (principal, action, resource);"


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value.code, caught.value.refusal.rule


def export(shore: Shore, permit: str, artifact: str = "model-1", **more: object) -> Path:
    return border.export(shore.center, artifact, permit=permit, out_dir=shore.outside, **more)  # type: ignore[arg-type]


# -- 24, 26: policy and lineage ---------------------------------------------------------------------------------------


def test_24_policy_emptied_is_a_no(shore: Shore) -> None:
    permit = shore.permit()
    pack = shore.center.pack
    shore.center.rules = Rules(policy_text="// nothing", schema_text=pack.schema_text)
    assert refusal(lambda: export(shore, permit))[0] == "no_decision"
    assert refusal(lambda: border.import_file(shore.center, _file(shore, safetensors(network()))))[0] == "no_decision"


def test_24_policy_with_a_syntax_error_does_not_load() -> None:
    pack = load_pack("us")
    with pytest.raises(InputError) as caught:
        Rules(policy_text=pack.policy_text + "\npermit (", schema_text=pack.schema_text)
    assert caught.value.code == "bad_config"


def test_24_policy_of_another_version_is_visible_in_the_ledger(shore: Shore) -> None:
    export(shore, shore.permit())
    assert shore.lines("border.export")[0]["policy"] == load_pack("us").digest


def test_26_dataset_with_one_raw_clip_among_many_is_refused(shore: Shore) -> None:
    clean = [Label(region="us", kind="proxy", subjects=frozenset([f"vehicle-{i:012x}"])) for i in range(5000)]
    raw = replace(shore.raw.label, kind="clip", retention="clip")
    mixed = derive([*clean, raw], kind="dataset")
    assert mixed.sensitivity >= {"face", "plate"}
    dataset = shore.center.put(b"[]", mixed, name="mixed")
    weights = shore.center.put(
        safetensors(network(1)),
        derive([mixed], kind="weights", retention="model"),
        name="tainted",
        parents=[dataset.id],
    )
    assert border.check(shore.center, weights.id, "cn").refusal.code == "raw_ban"  # type: ignore[union-attr]
    assert refusal(lambda: export(shore, shore.permit(weights), "tainted"))[0] == "raw_ban"


def test_26_label_made_by_hand_is_judged_by_its_lineage(shore: Shore) -> None:
    """The label claims nothing, the catalog was edited so that it stands: the gate reckons the lineage again."""
    weights = shore.center.put(safetensors(network(2)), _plain("weights"), name="washed")
    with shore.center.db.begin() as connection:
        parents = json.dumps([shore.raw.id])
        connection.execute(sa.text("update artifacts set parents=:p where id=:i"), {"p": parents, "i": weights.id})
    assert refusal(lambda: export(shore, shore.permit(weights), "washed")) == ("raw_ban", "lineage")


def test_26_an_attestation_written_into_the_catalog_afterwards_removes_nothing(shore: Shore) -> None:
    weights = shore.center.put(
        safetensors(network(3)), replace(_plain("weights"), derived_from_raw=True), name="forged"
    )
    with shore.center.db.begin() as connection:
        row = {
            "p": json.dumps([shore.raw.id]),
            "m": json.dumps({"declassified": ANONYMISED.as_record()}),
            "i": weights.id,
        }
        connection.execute(sa.text("update artifacts set parents=:p, meta=:m where id=:i"), row)
    assert refusal(lambda: export(shore, shore.permit(weights), "forged")) == ("raw_ban", "lineage")


# -- 32: approvals ----------------------------------------------------------------------------------------------------


def test_32_approval_replayed_for_another_digest(shore: Shore) -> None:
    permit = shore.permit()
    other = shore.center.put(safetensors(network(4)), shore.weights.label, name="model-2", parents=[shore.dataset.id])
    assert refusal(lambda: export(shore, permit, other.id)) == ("permit_invalid", "permit-artifact")


def test_32_approval_replayed_for_another_recipient(shore: Shore) -> None:
    permit = shore.permit()
    call = lambda: export(shore, permit, recipient="Another Firm")  # noqa: E731
    assert refusal(call) == ("permit_invalid", "permit-recipient")
    answer = border.check(shore.center, "model-1", "eu", permit=permit)
    assert answer.refusal is not None and answer.refusal.rule == "permit-recipient"
    record = permitting.envelope_of(shore.center, permit)
    forged = approval.open_envelope(record)
    forged.payload = forged.payload.replace(b"Example Cars Inc", b"Another Car Firm")
    _store_envelope(shore, permit, forged.to_dict())
    assert refusal(lambda: export(shore, permit)) == ("permit_invalid", "permit-statement")
    tampered = border.check(shore.center, "model-1", "cn").refusal
    assert tampered is not None and tampered.rule == "permit-statement"


def test_32_approval_replayed_after_expiry(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    permit = shore.permit(expires_days=1)
    later = time.time_ns() + 2 * permitting.DAY_NS
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert refusal(lambda: export(shore, permit)) == ("permit_invalid", "permit-expired")


def test_32_approval_of_another_center_counts_for_nothing(shore: Shore, other_center) -> None:  # type: ignore[no-untyped-def]
    permit = shore.permit()
    there: Center = other_center("us")
    copied = there.put(shore.center.read(shore.weights.id), _plain("weights"), name="model-1")
    permitting._table(there)
    with there.db.begin() as connection:
        text = json.dumps(permitting.envelope_of(shore.center, permit))
        row = {"i": permit, "a": copied.id, "e": text}
        connection.execute(sa.text("insert into border_permits (id, artifact, envelope) values (:i, :a, :e)"), row)
    code = refusal(lambda: border.export(there, copied.id, permit=permit, out_dir=shore.outside))
    assert code == ("permit_invalid", "permit-approvers")


# -- 34: what comes in ------------------------------------------------------------------------------------------------


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("__import__('pathlib').Path('/nonexistent/touched').touch()",)


def _torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Bomb(), protocol=2))
    return buffer.getvalue()


def _polyglot() -> bytes:
    """Valid safetensors whose last tensor is a zip: an archive reader looks from the end."""
    inner = _torch_zip()
    inner += b"\0" * (-len(inner) % 4)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", inner)
    held = buffer.getvalue()
    held = held[:-2] + (0).to_bytes(2, "little")
    pad = b"\0" * (-len(held) % 4)
    return safetensors({"w": np.frombuffer(pad + held, np.float32)})


@pytest.mark.parametrize("protocol", range(6))
def test_34_pickle_renamed_safetensors(shore: Shore, protocol: int) -> None:
    file = _file(shore, pickle.dumps({"a": [1, 2], "b": _Bomb()}, protocol=protocol))
    assert refusal(lambda: border.import_file(shore.center, file)) == ("import_refused", "import-gate")
    assert shore.lines("border.import.refused")


@pytest.mark.parametrize(
    "make", [_torch_zip, _polyglot, lambda: b"", lambda: b"\x1f\x8b\x08rest", lambda: b"\x89HDF\r\n\x1a\n"]
)
def test_34_archives_and_polyglots(shore: Shore, make: Callable[[], bytes]) -> None:
    file = _file(shore, make())
    assert refusal(lambda: border.import_file(shore.center, file)) == ("import_refused", "import-gate")


@pytest.mark.parametrize(
    "make",
    [
        lambda: safetensors({**network(), "extra": np.zeros((90, 160, 3), np.uint8)}),
        lambda: safetensors(network(), metadata={"format": "x" * 5000}),
        lambda: safetensors(network(), pad=4096),
        lambda: safetensors(network()) + b"tail",
        lambda: safetensors({"w": np.full(64, np.nan, np.float32)}),
    ],
)
def test_34_safetensors_with_a_payload(shore: Shore, make: Callable[[], bytes]) -> None:
    file = _file(shore, make())
    assert refusal(lambda: border.import_file(shore.center, file)) == ("import_refused", "import-gate")


@pytest.mark.parametrize(
    "header",
    [
        '{"w":{"dtype":[],"shape":[1],"data_offsets":[0,4]}}',
        '{"w":{"dtype":{},"shape":[1],"data_offsets":[0,4]}}',
        '{"w":{"dtype":"F32","shape":[' + "1" * 5000 + '],"data_offsets":[0,4]}}',
        '{"w":' + "[" * 100_000,
    ],
)
def test_34_a_header_made_to_trip_the_reader_is_refused_with_a_line(shore: Shore, header: str) -> None:
    text = header.encode() + b" " * (-len(header) % 8)
    file = _file(shore, struct.pack("<Q", len(text)) + text + b"\0" * 4)
    assert refusal(lambda: border.import_file(shore.center, file)) == ("import_refused", "import-gate")
    assert [line["code"] for line in shore.lines("border.import.refused")] == ["import_refused"]


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"envelope":{"payload":[],"signatures":{}}}', "5"])
def test_34_a_permit_made_to_trip_the_reader_is_refused_with_a_line(shore: Shore, text: str) -> None:
    file = _file(shore, safetensors(network()))
    file.with_name(f"{file.name}.permit.json").write_text(text)
    assert refusal(lambda: border.import_file(shore.center, file)) == ("import_refused", "import-gate")
    assert [line["code"] for line in shore.lines("border.import.refused")] == ["import_refused"]


def test_34_a_named_manifest_lets_nothing_extra_in(shore: Shore) -> None:
    file = _file(shore, safetensors({**network(), "z": np.ones(3, np.float32)}))
    wanted = {name: ["F32", list(array.shape)] for name, array in network().items()}
    assert refusal(lambda: border.import_file(shore.center, file, tensors=wanted))[0] == "import_refused"
    assert border.import_file(shore.center, _file(shore, safetensors(network())), tensors=wanted).id


def test_34_links_and_folders_do_not_come_in(shore: Shore, tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(_file(shore, safetensors(network())))
    assert refusal(lambda: border.import_file(shore.center, link))[0] == "import_refused"
    assert refusal(lambda: border.import_file(shore.center, tmp_path))[0] == "import_refused"


# -- 38, 40, 42: side channels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "figures",
    [
        {"clips": {f"clip-{i:032x}": 0.5 for i in range(3)}},
        {"per_clip": [0.1] * 100},
        {f"metric {i}": 1 for i in range(1000)},
        {"the quick brown fox says hello to everyone and then some more text until it is too long": 1},
        {"cells": [{"lat": 39.9042, "lon": 116.4074, "n": 20}]},
        {"group": {"drivers": 2, "score": 0.5}},
        {"vin": "x"},
    ],
)
def test_38_metrics_as_a_side_channel(shore: Shore, figures: dict[str, object]) -> None:
    if "vin" in figures:
        from border.test_bytes import vin

        figures = {"note": vin("ZZZTEST0", "XT000001")}
    kept = shore.center.put(json.dumps(figures).encode(), shore.metrics.label, name="leak", parents=[shore.weights.id])
    permit = shore.permit(kept)
    if "cells" in figures:  # four digits are left of a position: 39.9, 116.4, which is a city and no street
        assert json.loads(export(shore, permit, "leak").read_bytes())["cells"][0]["lat"] == 39.9
        return
    assert refusal(lambda: export(shore, permit, "leak"))[0] == "not_cleared"


def test_38_seventeen_digits_become_four(shore: Shore) -> None:
    figures = {"score": 0.12345678901234567}
    kept = shore.center.put(json.dumps(figures).encode(), shore.metrics.label, name="long", parents=[shore.weights.id])
    assert json.loads(export(shore, shore.permit(kept), "long").read_bytes()) == {"score": 0.1235}


def test_40_embeddings_as_metrics(shore: Shore) -> None:
    record = {"vector": np.random.default_rng(0).normal(size=256).tolist()}
    kept = shore.center.put(json.dumps(record).encode(), shore.metrics.label, name="vec", parents=[shore.weights.id])
    assert refusal(lambda: export(shore, shore.permit(kept), "vec")) == ("not_cleared", "made-anew")


def test_40_embeddings_never_leave_as_themselves(shore: Shore) -> None:
    label = derive([shore.segment.label], kind="embedding")
    kept = shore.center.put(b'{"v":[0.5]}', label, name="embedding", parents=[shore.segment.id])
    assert refusal(lambda: export(shore, shore.permit(kept), "embedding"))[0] == "not_cleared"


def test_42_names_and_times_carry_nothing(shore: Shore) -> None:
    path = export(shore, shore.permit())
    again = path.stat()
    assert path.name.startswith("weights-") and path.name.endswith(".safetensors")
    for file in shore.outside.iterdir():
        assert (file.stat().st_mtime, file.stat().st_mode & 0o777) == (315_532_800, 0o644)
    path.unlink()
    export(shore, permitting.permits_for(shore.center, shore.weights.id)[0].permit.id)
    assert path.stat().st_mtime == again.st_mtime
    for name in ("../x", "a/b", "", ".hidden", "x" * 200, "a\nb", "a..b"):
        with pytest.raises(InputError) as caught:
            border.write_out(shore.center, {name: b""}, shore.inside)
        assert caught.value.code == "unsafe_path"


def test_42_a_link_waiting_under_the_files_name_is_not_followed(shore: Shore, tmp_path: Path) -> None:
    shore.inside.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (shore.inside / "report.json").symlink_to(victim)
    with pytest.raises(InputError) as caught:
        border.write_out(shore.center, {"report.json": b"{}"}, shore.inside)
    assert caught.value.code == "unsafe_path" and victim.read_bytes() == b"mine"


# -- a raw export with one control taken away -------------------------------------------------------------------------


def _without_policy(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    shore.center.rules = Rules(policy_text="// emptied", schema_text=shore.center.pack.schema_text)


def _with_permit_all_policy(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    shore.center.rules = Rules(policy_text=ALLOW_ALL, schema_text=shore.center.pack.schema_text)


class _Broken:
    def decide(self, request: object) -> None:
        raise RuntimeError("policy engine is down")


class _Yes:
    def decide(self, request: object) -> None:
        return None


class _Odd:
    def decide(self, request: object) -> bool:
        return True


def _with_rules(rules: object) -> Callable[[Shore, pytest.MonkeyPatch], None]:
    def change(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
        shore.center.rules = rules  # type: ignore[assignment]

    return change


def _without(control: str) -> Callable[[Shore, pytest.MonkeyPatch], None]:
    def change(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, control, lambda outbound: None)

    return change


def _without_residency_ban(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onshore.residency.decisions.raw_ban", lambda request: None)


def _without_role(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    shore.center.role = ""


def _without_scanners(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "scan", lambda data: [])
    monkeypatch.setattr(gate, "weight_findings", lambda data: [])


def _without_rewriting(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_made_anew", lambda outbound: b"the original")


REMOVED = {
    "nothing": lambda shore, monkeypatch: None,
    "policy emptied": _without_policy,
    "policy allows everything": _with_permit_all_policy,
    "policy engine broken": _with_rules(_Broken()),
    "policy engine says yes": _with_rules(_Yes()),
    "policy engine answers nonsense": _with_rules(_Odd()),
    "residency's ban": _without_residency_ban,
    "the gate's ban": _without("_raw_again"),
    "lineage": _without("_lineage"),
    "policy not asked": _without("_policy"),
    "kinds": _without("_kind"),
    "permit not asked": _without("_permit"),
    "scanners": _without_scanners,
    "rewriting": _without_rewriting,
    "role": _without_role,
}


@pytest.mark.parametrize("removed", REMOVED)
def test_removing_any_single_control_still_refuses_a_raw_export(
    shore: Shore, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    permit = shore.permit(shore.raw)  # even with two approvers
    REMOVED[removed](shore, monkeypatch)
    with pytest.raises(RefusedError):
        export(shore, permit, shore.raw.id)
    assert not shore.outside.exists()
    assert border.check(shore.center, shore.raw.id, "cn", permit=permit).refusal is not None


def test_one_approver_does_not_let_anything_out(shore: Shore) -> None:
    for artifact in (shore.raw, shore.weights):
        permit = shore.permit(artifact, approvers=("bertha",))
        with pytest.raises(RefusedError):
            export(shore, permit, artifact.id)
    shore.center.rules = Rules(policy_text=ALLOW_ALL, schema_text=shore.center.pack.schema_text)
    assert refusal(lambda: export(shore, permit)) == ("permit_invalid", "permit-approvers")


def test_an_artifact_whose_label_was_torn_off_does_not_leave(shore: Shore) -> None:
    permit = shore.permit()
    with shore.center.db.begin() as connection:
        connection.execute(sa.text("update artifacts set label='{}' where id=:i"), {"i": shore.weights.id})
    assert refusal(lambda: export(shore, permit, shore.weights.id)) == ("unlabelled", "labelled")
    torn = border.check(shore.center, shore.weights.id, "cn")
    assert torn.refusal is not None and torn.refusal.code == "unlabelled" and torn.entry.body["code"] == "unlabelled"


def test_marker_bytes_of_an_original_never_appear_outside(shore: Shore) -> None:
    original = shore.center.raw.unseal(shore.raw.id)
    export(shore, shore.permit())
    border.write_out(shore.center, [shore.metrics.id, shore.weights.id], shore.inside)
    for folder in (shore.outside, shore.inside, shore.center.root):
        for file in (path for path in folder.rglob("*") if path.is_file()):
            assert original[100:132] not in file.read_bytes(), file


def _plain(kind: str) -> Label:
    return Label(region="us", kind=kind, retention="model")


def _file(shore: Shore, data: bytes) -> Path:
    file = shore.center.root.parent / "base.safetensors"
    file.write_bytes(data)
    return file


def _store_envelope(shore: Shore, permit: str, record: dict[str, object]) -> None:
    with shore.center.db.begin() as connection:
        row = {"e": json.dumps(record), "i": permit}
        connection.execute(sa.text("update border_permits set envelope=:e where id=:i"), row)
