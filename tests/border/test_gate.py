"""The gate end to end: what is refused and why, what leaves and how, and that the ledger knew before the file was there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from border.conftest import Shore, build, network, safetensors
from onshore import border
from onshore.border import canonical, people
from onshore.core.digest import blob_id, sha256_hex
from onshore.core.errors import CorruptError, NotFoundError, RefusedError
from onshore.core.label import Label
from onshore.residency import derive
from onshore.store import files


def refused(call, code: str) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(RefusedError) as caught:
        call()
    assert caught.value.code == code, caught.value.refusal
    return caught.value.refusal.rule


@pytest.mark.parametrize(
    ("name", "code"),
    [("drive-1", "raw_ban"), ("segment-1", "not_cleared"), ("clip-1", "not_cleared"), ("dataset-1", "not_cleared")],
)
def test_recordings_are_refused_by_any_name(shore: Shore, name: str, code: str) -> None:
    before = shore.center.ledger.head().size
    decision = border.check(shore.center, name, "cn")
    assert decision.refusal is not None and decision.refusal.code == code
    assert decision.refusal.clause and decision.refusal.remedy
    assert decision.entry.index == before and shore.center.ledger.head().size == before + 1


def test_a_raw_drive_is_refused_by_digest_and_as_a_file(shore: Shore, tmp_path: Path) -> None:
    for name in (shore.raw.id,):
        decision = border.check(shore.center, name, "cn")
        assert decision.refusal is not None and decision.refusal.code == "raw_ban"
    copied = tmp_path / "holiday.jpg"
    copied.write_bytes(shore.center.raw.unseal(shore.raw.id))
    decision = border.check(shore.center, str(copied), "cn")
    assert decision.artifact == shore.raw.id and decision.refusal is not None and decision.refusal.code == "raw_ban"


def test_weights_without_a_permit_are_refused(shore: Shore) -> None:
    decision = border.check(shore.center, shore.weights.id, "cn")
    assert decision.refusal is not None and decision.refusal.code == "permit_invalid"
    assert decision.entry.body["artifact"] == shore.weights.id and decision.entry.body["allowed"] is False


def test_an_unlabelled_file_is_refused(shore: Shore, tmp_path: Path) -> None:
    stray = tmp_path / "stray.bin"
    stray.write_bytes(b"anything")
    decision = border.check(shore.center, str(stray), "cn")
    assert decision.refusal is not None and decision.refusal.code == "unlabelled"
    assert decision.artifact == blob_id("us", b"anything")
    with pytest.raises(NotFoundError):
        border.check(shore.center, str(tmp_path / "nowhere"), "cn")


def test_inside_the_region_looking_is_free_but_raw_is_not(shore: Shore) -> None:
    assert border.check(shore.center, shore.segment.id, "us").refusal is None
    decision = border.check(shore.center, "drive-1", "us")
    assert decision.refusal is not None and decision.refusal.code == "raw_ban"


def test_weights_leave_with_two_approvals(shore: Shore) -> None:
    permit = shore.permit()
    assert border.check(shore.center, shore.weights.id, "cn").refusal is None
    path = border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    data = path.read_bytes()
    assert canonical.manifest_of(data) == canonical.manifest_of(safetensors(network()))
    (line,) = shore.lines("border.export")
    assert line["sha256"] == sha256_hex(data) and line["bytes"] == len(data)
    assert line["leakage"] == "not asked: only synthetic ancestors"
    companion = json.loads(path.with_name(path.name + ".permit.json").read_bytes())
    assert companion["export"] == line
    assert shore.center.ledger.verify().ok


def test_the_ledger_line_comes_before_the_file(shore: Shore, monkeypatch: pytest.MonkeyPatch) -> None:
    permit = shore.permit()
    seen: list[int] = []

    def killed(folder: Path, name: str, data: bytes) -> Path:
        seen.append(len(shore.lines("border.export")))
        raise KeyboardInterrupt

    monkeypatch.setattr("onshore.border.gate.place", killed)
    with pytest.raises(KeyboardInterrupt):
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert seen == [1] and not shore.outside.exists()
    monkeypatch.undo()
    shore.center.pack.law["export"] |= {"budget": {"exports": 1}}  # going on is the same export, not a second one
    assert border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside).exists()


def test_exporting_again_writes_the_same_bytes(shore: Shore) -> None:
    permit = shore.permit()
    first = border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    data = first.read_bytes()
    again = border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert again == first and again.read_bytes() == data
    assert sorted(path.name for path in shore.outside.iterdir()) == [first.name, f"{first.name}.permit.json"]


def test_metrics_leave_rounded(shore: Shore) -> None:
    path = border.export(shore.center, "metrics-1", permit=shore.permit(shore.metrics), out_dir=shore.outside)
    assert json.loads(path.read_bytes()) == {"score": 61.23, "routes": 32, "suite": "cn-core"}


def test_the_ledger_names_nobody(shore: Shore) -> None:
    border.export(shore.center, "model-1", permit=shore.permit(), out_dir=shore.outside)
    text = b"".join(path.read_bytes() for path in (shore.center.root / "ledger").iterdir()).decode()
    for word in ("alice", "bertha", "chen", "Example", "base model", "operator"):
        assert word not in text


def test_write_out_is_free_only_in_region(shore: Shore) -> None:
    paths = border.write_out(shore.center, {"report.html": b"<p>62</p>"}, shore.inside)
    assert paths[0].read_bytes() == b"<p>62</p>"
    rule = refused(
        lambda: border.write_out(shore.center, {"report.html": b"<p>62</p>"}, shore.outside), "not_in_region"
    )
    assert rule == "one-exit" and not shore.outside.exists()
    assert shore.lines("border.refused")[-1]["code"] == "not_in_region"
    refused(lambda: border.write_out(shore.center, [shore.weights.id], shore.outside), "not_in_region")
    assert border.write_out(shore.center, [shore.weights.id], shore.outside, shore.permit())[0].exists()


def test_in_region_does_not_follow_a_link_out(shore: Shore, tmp_path: Path) -> None:
    shore.inside.mkdir()
    (shore.inside / "door").symlink_to(tmp_path)
    refused(lambda: border.write_out(shore.center, {"a.json": b"{}"}, shore.inside / "door" / "x"), "not_in_region")
    refused(
        lambda: border.open_folder(shore.center, ["drive-1"], shore.inside / "door", kind="recording"), "not_in_region"
    )


def test_a_folder_in_region_takes_a_recording_and_never_an_original(shore: Shore) -> None:
    folder = border.open_folder(shore.center, ["drive-1"], shore.inside / "mcap", kind="recording")
    assert folder.is_dir() and shore.lines("border.in-region")[-1]["artifacts"] == 1
    refused(lambda: border.write_out(shore.center, [shore.raw.id], shore.inside), "raw_ban")


def test_a_yearly_budget_counts_over_all_exports(shore: Shore) -> None:
    shore.center.pack.law["export"] |= {"budget": {"exports": 1}}
    first = shore.permit()
    border.export(shore.center, "model-1", permit=first, out_dir=shore.outside)
    border.export(shore.center, "model-1", permit=first, out_dir=shore.outside)  # the same export, not a second one
    second = shore.permit(shore.metrics)
    call = lambda: border.export(shore.center, "metrics-1", permit=second, out_dir=shore.outside)  # noqa: E731
    assert refused(call, "limit_exceeded") == "yearly-budget"
    elsewhere = shore.permit(shore.metrics, recipient="Another Firm")
    assert border.export(shore.center, "metrics-1", permit=elsewhere, out_dir=shore.outside).exists()


def test_a_certificate_can_refuse_and_is_recorded(shore: Shore) -> None:
    from onshore.core.errors import Refusal

    permit = shore.permit()
    no = Refusal(
        code="not_cleared", subject="model", rule="leakage", clause="canaries are memorised", remedy="Retrain."
    )
    call = lambda: border.export(  # noqa: E731
        shore.center, "model-1", permit=permit, out_dir=shore.outside, certificates=[lambda outbound, data: no]
    )
    assert refused(call, "not_cleared") == "leakage"
    border.export(
        shore.center,
        "model-1",
        permit=permit,
        out_dir=shore.outside,
        certificates=[lambda outbound, data: "exposure 0.1"],
    )
    assert shore.lines("border.export")[-1]["leakage"] == "exposure 0.1"


def test_weights_travel_from_one_center_to_another(shore: Shore, other_center) -> None:  # type: ignore[no-untyped-def]
    path = border.export(shore.center, "model-1", permit=shore.permit(), out_dir=shore.outside)
    there = other_center("cn")
    artifact = border.import_file(there, path)
    assert artifact.label.region == "cn" and artifact.label.kind == "inbound_model"
    assert artifact.meta["origin_region"] == "us" and artifact.meta["origin_trust"] == "claimed"
    assert there.read(artifact.id) == path.read_bytes()
    assert artifact.meta["trainable"] == shore.weights.meta["trainable"]
    assert border.import_file(there, path).id == artifact.id
    keys = {
        path.stem: bytes.fromhex(path.read_text()) for path in (shore.center.keys.folder / "approvers").glob("*.pub")
    }
    assert border.inbound._origin(path, path.read_bytes(), keys, None).trust == "verified"


def test_a_changed_file_does_not_pass_as_the_permitted_one(shore: Shore, other_center) -> None:  # type: ignore[no-untyped-def]
    path = border.export(shore.center, "model-1", permit=shore.permit(), out_dir=shore.outside)
    path.write_bytes(path.read_bytes()[:-4] + b"\x01\x02\x03\x3d")
    there = other_center("cn")
    refused(lambda: border.import_file(there, path), "import_refused")
    assert [entry.kind for entry in there.ledger.entries()][-1] == "border.import.refused"


def test_us_does_not_take_software_from_a_named_country(shore: Shore, tmp_path: Path) -> None:
    made = build(tmp_path / "cn", "cn")
    path = border.export(made.center, "model-1", permit=made.permit(to_region="us"), out_dir=made.outside)
    assert refused(lambda: border.import_file(shore.center, path), "import_refused") == "connected-vehicle-software"
    made.center.db.dispose()


def test_nothing_leaves_while_the_ledger_does_not_verify(shore: Shore) -> None:
    permit = shore.permit(approvers=("bertha",))
    entries = shore.center.root / "ledger" / "entries.jsonl"
    entries.write_bytes(entries.read_bytes().replace(b'"border.permit.request"', b'"border.permit.requesT"'))
    with pytest.raises(CorruptError) as caught:
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert caught.value.code == "ledger_broken" and not shore.outside.exists()


def _race(root: str, permit: str, out: str) -> str:
    from onshore.core.errors import RefusedError as Refused
    from onshore.store import Center

    center = Center.open(root)
    center.pack.law["export"] |= {"budget": {"exports": 1}}
    try:
        border.export(center, border.permitting.verified(center, permit).permit.artifact, permit=permit, out_dir=out)
        return "left"
    except Refused as refused:
        return refused.code
    finally:
        center.close()


def test_two_exports_at_once_do_not_share_one_budget(shore: Shore) -> None:
    import multiprocessing

    first, second = shore.permit(), shore.permit(shore.metrics)
    shore.center.close()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        root = str(shore.center.root)
        answers = pool.starmap(_race, [(root, first, str(shore.outside)), (root, second, str(shore.outside))])
    assert sorted(answers) == ["left", "limit_exceeded"]


@pytest.mark.parametrize("happens", ["dismissed", "expired"])
def test_what_ends_while_an_export_waits_for_its_turn_ends_it(
    shore: Shore, monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    permit, locked = shore.permit(expires_days=1), files.locked

    @contextmanager
    def waited(path: Path) -> Iterator[None]:
        monkeypatch.setattr(files, "locked", locked)
        if happens == "dismissed":
            people.dismiss_approver(shore.center, "bertha")
        else:
            later = time.time_ns() + 2 * border.permitting.DAY_NS
            monkeypatch.setattr(time, "time_ns", lambda: later)
        with locked(path):
            yield

    monkeypatch.setattr(files, "locked", waited)
    with pytest.raises(RefusedError) as caught:
        border.export(shore.center, "model-1", permit=permit, out_dir=shore.outside)
    assert caught.value.refusal.rule == {"dismissed": "permit-approvers", "expired": "permit-expired"}[happens]
    assert not shore.lines("border.export")


def test_nobody_is_dismissed_in_the_middle_of_an_export(shore: Shore) -> None:
    with files.locked(shore.center.root / "locks" / people.BORDER_LOCK):
        dismissing = threading.Thread(target=people.dismiss_approver, args=(shore.center, "bertha"))
        dismissing.start()
        dismissing.join(0.3)
        assert not shore.lines("border.approver.dismissed")
    dismissing.join()
    assert len(shore.lines("border.approver.dismissed")) == 1


def test_a_dataset_of_many_parts_is_judged_whole(shore: Shore) -> None:
    center = shore.center
    parts = [
        center.put(f"{i}".encode(), Label(region="us", kind="segment", synthetic=True), name="part").id
        for i in range(150)
    ]
    dataset = center.put(b"[1]", derive([shore.dataset.label], kind="dataset"), parents=[*parts, shore.dataset.id])
    label = derive([dataset.label], kind="weights", retention="model")
    weights = center.put(safetensors(network(9)), label, name="wide", parents=[dataset.id], meta=shore.weights.meta)
    assert border.check(center, "wide", "cn", permit=shore.permit(weights)).refusal is None
    with center.db.begin() as connection:
        row = {"l": json.dumps(Label(region="us", kind="segment").as_record()), "i": shore.segment.id}
        connection.execute(sa.text("update artifacts set label=:l where id=:i"), row)
    refusal = border.check(center, "wide", "cn").refusal
    assert refusal is not None and refusal.rule == "lineage"
