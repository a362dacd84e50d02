"""The gate over what the other rooms really store: a drive taken in from video and CSV, and weights made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from border.conftest import SHAPES, network, safetensors
from drive.conftest import Fleet
from onshore import border, clip, drive
from onshore.core.errors import RefusedError
from onshore.residency import derive
from onshore.store import Center


def test_a_drive_from_video_and_csv_stays_and_weights_of_it_may_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fleet(root=tmp_path / "cars").table("car-0007/route/0.csv", frames=30, seconds=6.0)
    center = Center.init(
        tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=1, in_region_dirs=[tmp_path / "in"]
    )
    drive.add(center, [tmp_path / "cars"])
    clip.cut(center)
    (one,) = drive.drives(center)
    (segment,) = drive.segments(center, one["id"])
    clips = clip.find(center)
    codes = {
        name: border.check(center, name, "cn").refusal.code  # type: ignore[union-attr]
        for name in (one["id"], segment["id"], segment["artifact"], clips[0]["id"])
    }
    assert codes == {
        one["id"]: "raw_ban",
        segment["id"]: codes[segment["artifact"]],
        segment["artifact"]: "not_cleared",
        clips[0]["id"]: "not_cleared",
    }
    raws, _ = border.gate.resolve(center, one["id"])
    assert [artifact.label.kind for artifact in raws] == ["raw_drive", "raw_drive", "segment"]

    made_of = center.artifact(segment["artifact"])
    meta = {"manifest": {name: {"dtype": "float32", "shape": shape} for name, shape in SHAPES.items()}}
    label = derive([made_of.label], kind="weights", retention="model")
    weights = center.put(safetensors(network()), label, name="nano", parents=[made_of.id], meta=meta)
    for name in ("bertha", "chen"):
        border.enroll_approver(center, name)
    row = border.request_permit(
        center, weights.id, recipient="Example", to_region="cn", purpose="base", requester="alice"
    )
    assert "unmeasured_plates" in row.accepts
    for name in ("bertha", "chen"):
        border.approve(center, row.id, name)
    with pytest.raises(RefusedError) as caught:
        border.export(center, weights.id, permit=row.id, out_dir=tmp_path / "out")
    assert (caught.value.code, caught.value.refusal.rule) == ("not_measurable", "anonymisation-audit")
    monkeypatch.setitem(center.pack.law["audit"], "required", False)
    with pytest.raises(RefusedError) as caught:
        border.export(center, weights.id, permit=row.id, out_dir=tmp_path / "out")
    assert (caught.value.code, caught.value.refusal.rule) == ("not_measurable", "leakage-certificate")
    monkeypatch.setitem(center.pack.law["export"]["leakage"], "required", False)
    path = border.export(center, weights.id, permit=row.id, out_dir=tmp_path / "out")
    assert json.loads(path.with_name(f"{path.name}.permit.json").read_text())["export"]["accepts"] == list(row.accepts)

    folder = border.open_folder(center, [segment["artifact"]], tmp_path / "in" / "mcap", kind="segment")
    assert [file.suffix for file in drive.export_mcap(center, one["id"], folder)] == [".mcap"]
    assert border.check(center, str(next(folder.iterdir())), "cn").refusal is not None
    original = tmp_path / "cars/car-0007/route/0.mp4"
    copied = border.check(center, str(original), "cn")
    assert copied.refusal is not None and copied.refusal.code == "raw_ban"
    center.close()


def test_pixels_of_an_original_are_nowhere_outside(tmp_path: Path) -> None:
    Fleet(root=tmp_path / "cars").table("car-0007/route/0.csv", frames=30, seconds=6.0)
    center = Center.init(
        tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=1, in_region_dirs=[tmp_path / "in"]
    )
    drive.add(center, [tmp_path / "cars"])
    (segment,) = drive.segments(center)
    border.write_out(center, [segment["artifact"]], tmp_path / "in")
    original = (tmp_path / "cars/car-0007/route/0.mp4").read_bytes()
    marks = [original[at : at + 48] for at in range(len(original) // 4, len(original) - 48, len(original) // 8)]
    for folder in (tmp_path / "in", tmp_path / "center"):
        for file in (path for path in folder.rglob("*") if path.is_file()):
            data = file.read_bytes()
            assert not [mark for mark in marks if mark in data], file
    center.close()


@pytest.mark.parametrize("name", ["drive-0", "segment-0", "clip-0", "dataset-0", "us-sha256-" + "0" * 64, "model-0"])
def test_ids_of_nothing_are_not_found(tmp_path: Path, name: str) -> None:
    from onshore.core.errors import NotFoundError

    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys")
    with pytest.raises(NotFoundError):
        border.check(center, name, "cn")
    center.close()
