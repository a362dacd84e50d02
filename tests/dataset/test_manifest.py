"""Frozen datasets in a real center: the same digest every time, nothing held out is trained on, every flipped byte seen."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.centers import center_with, fleet, write_fleet
from dataset.test_windows import takeover_bytes
from onshore import clip, drive
from onshore.bundle.inputs import View
from onshore.core.errors import CorruptError, InputError, NotFoundError, UsageError
from onshore.core.label import Label
from onshore.dataset import WindowSpec, freeze, load_windows, manifest
from onshore.store import Center, custody


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Center:
    made = center_with(tmp_path_factory.mktemp("dataset"), fleet(3, segments=1))
    clip.cut(made)
    return made


def put_takeovers(center: Center, count: int, **changes: Any) -> str:
    parents = center.artifacts(kind="segment")[:1]
    label = Label(**{**vars(parents[0].label), "kind": "takeovers"})
    return center.put(takeover_bytes(count, **changes), label, parents=[parents[0].id]).id


def test_the_same_inputs_give_the_same_digest_and_nothing_new(center: Center, tmp_path: Path) -> None:
    first = freeze(center, "daily")
    blobs = {artifact.id for artifact in center.artifacts()}
    again = freeze(center, "daily")
    assert again == first and {artifact.id for artifact in center.artifacts()} == blobs
    other = center_with(tmp_path, fleet(3))  # another center of the same seed
    clip.cut(other)
    assert freeze(other, "daily") == first
    assert freeze(center, "daily", seed=1).digest != first.digest


def test_a_dataset_counts_what_is_in_it(center: Center) -> None:
    row = freeze(center, "counted")
    shown = manifest.show(center, row.id)
    assert row.drives == 3 and row.segments == 3 and row.train_drives + row.held_out_drives == 3
    assert row.clips == len(clip.find(center, limit=None)) == row.train_clips + row.held_out_clips
    assert row.seconds == pytest.approx(3 * 12.9, abs=0.3)  # overlapping clips count once
    assert row.synthetic and shown["label"]["synthetic"] and shown["label"]["kind"] == "dataset"
    assert shown["proxies"][0]["sources"]["pose"] == "measured"
    assert {proxy["shown_share"] for proxy in shown["proxies"]} == {1.0} and manifest.fit_view(center) == View()
    subjects = {row["vehicle"] for row in clip.find(center, limit=None)}
    assert set(shown["label"]["subjects"]) == subjects
    assert shown["label"] == center.artifact(row.artifact).label.as_record()


def test_no_held_out_drive_is_ever_in_training(center: Center) -> None:
    for seed in range(4):
        row = freeze(center, "split", seed=seed)
        shown = manifest.show(center, row.id)
        held = {d["id"] for d in shown["drives"] if d["split"] == "held_out"}
        train, test = (load_windows(center, row.id, split=split) for split in ("train", "held_out"))
        assert held and set(test.drives) == held and not set(train.drives) & held
        assert len(train) and len(test)


def test_a_place_is_never_cut(tmp_path: Path) -> None:
    center = center_with(tmp_path, fleet(4, seconds=5, place=True))
    clip.cut(center)
    shown = manifest.show(center, freeze(center, "towns").id)
    assert {drive["place"] for drive in shown["drives"]} == {"town-1", "town-2"}
    for place in ("town-1", "town-2"):
        assert len({d["split"] for d in shown["drives"] if d["place"] == place}) == 1


def test_windows_come_from_the_chosen_clips_alone(center: Center) -> None:
    row = freeze(center, "braking", where="trigger = 'hard_brake'")
    shown = manifest.show(center, "braking")
    windows = load_windows(center, row.name)
    spans = {clip["segment"]: (clip["start_ns"], clip["end_ns"]) for clip in shown["clips"]}
    for t_ns, segment in zip(windows.t_ns, windows.segment_M, strict=True):
        start, end = spans[windows.segments[segment]]
        assert start <= t_ns <= end
    assert (windows.labels.speed_MS[:, 1] < windows.labels.side_M9[:, 0] * 10 - 2).any()  # it does brake


def test_drives_of_several_segments_stay_one_drive(tmp_path: Path) -> None:
    center = center_with(tmp_path, fleet(2, seconds=6.5, segments=2))
    clip.cut(center)
    row = freeze(center, "long")
    assert (row.drives, row.segments) == (2, 4)
    windows = load_windows(center, row.id)
    # the last moments of the first segment have labels from the second
    first = windows.segment_M == 0
    assert windows.labels.speed_mask_MS[first].all()


def test_takeovers_are_frozen_checked_and_drawn_for_training_only(center: Center) -> None:
    extra = put_takeovers(center, 4)
    row = freeze(center, "on-policy", takeovers=[extra, extra])
    assert row.takeovers == 1
    assert len(load_windows(center, row.id).takeovers) == 4
    assert len(load_windows(center, row.id, split="held_out").takeovers) == 0
    with pytest.raises(InputError, match="takeovers"):
        freeze(center, "wrong", takeovers=[put_takeovers(center, 2, side_N9=np.zeros((2, 8), np.float32))])
    with pytest.raises(InputError, match="kind takeovers"):
        freeze(center, "wrong", takeovers=[row.artifact])
    with pytest.raises(NotFoundError):
        freeze(center, "wrong", takeovers=["us-sha256-" + "0" * 64])


def test_adding_and_dropping_make_versions_and_diff_tells_them_apart(center: Center) -> None:
    first = freeze(center, "grown", where="trigger = 'hard_brake'")
    second = manifest.add(center, "grown", where="trigger = 'ordinary'")
    third = manifest.drop(center, "grown", where="trigger = 'hard_brake'")
    assert (first.version, second.version, third.version) == (1, 2, 3)
    assert second.clips > first.clips and third.clips == second.clips - first.clips
    told = manifest.diff(center, first.id, second.id)
    assert len(told["clips"]["added"]) == second.clips - first.clips and not told["clips"]["removed"]
    assert not told["same"] and manifest.diff(center, first.id, first.digest)["same"]
    assert manifest.row_of(center, "grown") == third and manifest.row_of(center, first.artifact) == first
    assert manifest.add(center, first.id, where="trigger = 'ordinary'") == second
    with pytest.raises(UsageError, match="no clip"):
        manifest.drop(center, third.id, where="trigger = 'hard_brake'")
    with pytest.raises(InputError, match="nothing would be left"):
        manifest.drop(center, third.id, where="trigger = 'ordinary'")


def test_the_next_version_goes_on_without_what_was_destroyed(center: Center) -> None:
    extra = [put_takeovers(center, count) for count in (5, 6)]
    freeze(center, "shrinking", takeovers=extra)
    custody.destroy(center, extra[:1], reason="expired", ticket="")
    assert manifest.drop(center, "shrinking", where="trigger = 'hard_brake'").takeovers == 1
    assert manifest.add(center, "shrinking", where="trigger = 'hard_brake'").takeovers == 1


def test_two_that_freeze_at_once_settle_every_drive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would hold out another drive; whoever comes second keeps to what the first one settled."""
    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    settings = {"held_out": 0.5, "seed": 0, "split_by": "drive"}
    asked = [{f"drive-{n}": "" for n in range(12)}, {f"drive-{n}": "" for n in range(6, 24)}]
    decide = manifest.split_drives

    def slowly(*given: Any, **more: Any) -> dict[str, str]:
        time.sleep(0.2)
        return decide(*given, **more)

    monkeypatch.setattr(manifest, "split_drives", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda places: manifest._splits(center, places, settings), asked)
    assert {drive: one[drive] for drive in one.keys() & two.keys()} == {
        drive: two[drive] for drive in one.keys() & two.keys()
    }


def test_a_larger_fleet_trains_on_no_drive_that_was_held_out_and_the_other_way_round(tmp_path: Path) -> None:
    cars = fleet(5, seconds=7)
    center = center_with(tmp_path, cars[:3])
    clip.cut(center)
    before = {d["id"]: d["split"] for d in manifest.show(center, freeze(center, "round").id)["drives"]}
    drive.add(center, write_fleet(tmp_path / "more", cars[3:]))
    clip.cut(center)
    after = {d["id"]: d["split"] for d in manifest.show(center, freeze(center, "round").id)["drives"]}
    trained = {name for name, split in before.items() if split == "train"}
    assert len(after) == 5 and all(after[name] == "train" for name in trained)


def test_verify_reads_everything_and_sees_a_flipped_byte(tmp_path: Path) -> None:
    center = center_with(tmp_path, fleet(2, seconds=6))
    clip.cut(center)
    row = freeze(center, "proof")
    whole = manifest.verify(center, "proof")
    assert whole["ok"] and whole["checked"] == 3 and whole["bytes"] > 1000
    shown = manifest.show(center, row.id)
    proxy, owner = shown["proxies"][0]["id"], shown["proxies"][0]["drive"]
    path = next(p for p in (center.root / "blobs").rglob("*") if p.is_file() and p.name in proxy)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    broken = manifest.verify(center, "proof")
    assert not broken["ok"] and any(proxy in problem for problem in broken["problems"])
    with pytest.raises(CorruptError):
        load_windows(center, row.id, split=next(d["split"] for d in shown["drives"] if d["id"] == owner))


def test_verify_names_contradictions(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    row = freeze(center, "odd")
    told = manifest.show(center, row.id)
    told["clips"][0]["split"] = "held_out" if told["clips"][0]["split"] == "train" else "train"
    told["clips"][1]["end_ns"] += 1
    told["proxies"].pop()
    monkeypatch.setattr(manifest, "_manifest", lambda data, row: told)
    problems = " ".join(manifest.verify(center, row.id)["problems"])
    assert all(word in problems for word in ("its split", "segment and times", "no proxy", "counts"))


def test_bad_requests_are_told(center: Center) -> None:
    with pytest.raises(InputError, match="no clip"):
        freeze(center, "none", where="speed_max_mps > 1000")
    with pytest.raises(UsageError):
        freeze(center, "none", where="no_such_column = 1")
    with pytest.raises(InputError, match="bad_id"):
        freeze(center, "Not A Name")
    with pytest.raises(NotFoundError, match="dataset list"):
        load_windows(center, "never-frozen")
    row = freeze(center, "asked")
    with pytest.raises(UsageError, match="held_out"):
        load_windows(center, row.id, split="test")
    with pytest.raises(InputError, match="another view"):
        load_windows(center, row.id, WindowSpec(view=View(width_px=64, height_px=32)))


def test_an_empty_center_has_no_dataset(tmp_path: Path) -> None:
    empty = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    assert manifest.datasets(empty) == []
    with pytest.raises(InputError, match="empty_input"):
        freeze(empty, "nothing")
