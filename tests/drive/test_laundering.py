"""Fleet data does not come back as public or synthetic: by its bytes, by its pictures, and however it was changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drive.conftest import Fleet, new_center
from onshore import drive
from onshore.border import import_file
from onshore.core.errors import RefusedError
from onshore.core.recording import Recording
from onshore.drive.looks import BITS, Known, look, looks_of
from onshore.store import Center
from onshore.wire import decode, encode, write_mcap

DATA = os.environ.get("ONSHORE_TEST_DATA", "")
Frame = np.ndarray


def resized(frame: Frame, height: int, width: int) -> Frame:
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").to_ndarray(
        format="rgb24", width=width, height=height, interpolation="AREA"
    )


def brighter(frame: Frame) -> Frame:
    return np.clip(frame * 1.2 + 15, 0, 255).astype(np.uint8)


def darker(frame: Frame) -> Frame:
    return np.clip(frame * 0.7 - 5, 0, 255).astype(np.uint8)


def scaled(frame: Frame) -> Frame:
    return resized(frame, round(frame.shape[0] * 0.3) * 2, round(frame.shape[1] * 0.3) * 2)


def cropped(frame: Frame) -> Frame:
    height, width = frame.shape[0] // 50 * 2, frame.shape[1] // 50 * 2
    return frame[height // 2 : -(height // 2), width // 2 : -(width // 2)]


def everything(frame: Frame) -> Frame:
    return brighter(scaled(cropped(frame)))


def same(frame: Frame) -> Frame:
    return frame


CHANGES: list[Callable[[Frame], Frame]] = [same, brighter, darker, scaled, cropped, everything]


def scene(index: int, shift: int = 0) -> Frame:
    """A picture with shapes at every scale, that moves."""
    rng = np.random.default_rng(7)
    wide = np.kron(rng.integers(0, 255, (12, 40)), np.ones((8, 8)))
    part = wide[:, (2 * index + shift) % 120 :][:, :160]
    return np.repeat(part[..., None], 3, 2).astype(np.uint8)


def fleet_recording(fleet: Fleet, **fields: object) -> Recording:
    base = fleet.recording(frames=40, **{"synthetic": False, **fields})  # type: ignore[arg-type]
    video = encode("front", ((int(t), scene(i)) for i, t in enumerate(base.signals.t_ns)))
    return replace(base, videos=(video,))


def changed(recording: Recording, change: Callable[[Frame], Frame], **fields: object) -> Recording:
    """The same pictures, changed and encoded afresh, with other times and another car."""
    frames = [(t + 7_000_000_000, change(frame)) for t, frame in decode(recording.videos[0])]
    height, width = (side // 2 * 2 for side in frames[0][1].shape[:2])
    video = encode("front", ((t, frame[:height, :width]) for t, frame in frames), crf=30)
    camera = replace(
        recording.rig.cameras[0], width_px=width, height_px=height, centre_x_px=width / 2, centre_y_px=height / 2
    )
    signals = replace(recording.signals, t_ns=recording.signals.t_ns + 7_000_000_000)
    rig = replace(recording.rig, cameras=(camera,))
    moved = replace(recording, videos=(video,), rig=rig, signals=signals, vehicle="car-0099", drive_key="other")
    return replace(moved, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("claim", ["public", "synthetic"])
def test_a_changed_copy_does_not_come_back(
    center: Center, fleet: Fleet, change: Callable[[Frame], Frame], claim: str
) -> None:
    original = fleet_recording(fleet)
    fleet.root.mkdir(parents=True, exist_ok=True)
    write_mcap(original, fleet.root / "ours.mcap")
    assert drive.add(center, fleet.root / "ours.mcap").segments == 1
    write_mcap(changed(original, change, synthetic=claim == "synthetic"), fleet.root / "copy.mcap")
    report = drive.add(center, fleet.root / "copy.mcap", public=claim == "public")
    assert [row["code"] for row in report.quarantined] == ["laundered"] and report.segments == 0
    assert [entry.kind for entry in center.ledger.entries()].count("drive.laundering") == 1


def test_the_very_bytes_do_not_come_back(center: Center, fleet: Fleet) -> None:
    fleet.root.mkdir(parents=True, exist_ok=True)
    write_mcap(fleet_recording(fleet), fleet.root / "ours.mcap")
    assert drive.add(center, fleet.root / "ours.mcap").segments == 1
    assert [row["code"] for row in drive.add(center, fleet.root / "ours.mcap", public=True).quarantined] == [
        "laundered"
    ]
    assert drive.add(center, fleet.root / "ours.mcap").known == 1, "as what it is it is merely known"


def test_other_pictures_come_in_as_public(center: Center, fleet: Fleet) -> None:
    fleet.root.mkdir(parents=True, exist_ok=True)
    write_mcap(fleet_recording(fleet), fleet.root / "ours.mcap")
    drive.add(center, fleet.root / "ours.mcap")
    assert drive.add(center, fleet.mcap("theirs.mcap", synthetic=False, vehicle="car-2"), public=True).segments == 1


def test_looks_hold_nothing_personal_and_go_with_their_subject(center: Center, fleet: Fleet) -> None:
    fleet.root.mkdir(parents=True, exist_ok=True)
    write_mcap(fleet_recording(fleet), fleet.root / "ours.mcap")
    drive.add(center, fleet.root / "ours.mcap")
    (row,) = center.table("looks").rows()
    assert set(row) == {"id", "drive", "looks"} and set(row["looks"]) <= set("0123456789abcdef,")
    from onshore.border.erasure import erase

    erase(center, "car-0007")
    assert center.table("looks").rows() == []


def test_bytes_of_the_fleet_do_not_come_in_over_the_border(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    fleet.root.mkdir(parents=True, exist_ok=True)
    path = fleet.root / "ours.mcap"
    write_mcap(fleet_recording(fleet), path)
    drive.add(center, path)
    with pytest.raises(RefusedError) as caught:
        import_file(center, path, origin_region="cn")
    assert caught.value.code == "laundered"


def test_recordings_of_another_region_do_not_come_in(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    other = new_center(tmp_path, "other", "cn")
    fleet.root.mkdir(parents=True, exist_ok=True)
    write_mcap(fleet_recording(fleet), fleet.root / "ours.mcap")
    drive.add(other, fleet.root / "ours.mcap")
    (path,) = drive.export_mcap(other, drive.drives(other)[0]["id"], tmp_path / "out")
    for public in (False, True):
        assert [row["code"] for row in drive.add(center, path, public=public).quarantined] == ["import_refused"]


@pytest.mark.skipif(not DATA, reason="needs ONSHORE_TEST_DATA")
def test_real_clips_copies_are_told_and_others_are_not() -> None:
    """18 published road clips, each against the others: every changed copy told, no pair confused."""
    import av

    clips = []
    for path in sorted(Path(DATA, "openlka").rglob("*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            clips.append([f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i % 20 == 0])
    assert len(clips) >= 10
    known = Known({"id": str(n), "looks": ",".join(map(looks_of, clip))} for n, clip in enumerate(clips))
    for change in CHANGES:
        missed = [n for n, clip in enumerate(clips) if _told(known, [change(f) for f in clip]) != str(n)]
        assert missed == [], change.__name__
    looks = [",".join(map(looks_of, clip)) for clip in clips]
    others = [Known({"id": str(m), "looks": looks[m]} for m in range(len(clips)) if m != n) for n in range(len(clips))]
    alarms = [n for n, clip in enumerate(clips) if _told(others[n], clip) is not None]
    assert alarms == [], f"{len(alarms)} false alarms among {len(clips)} clips"


def _told(known: Known, frames: list[Frame]) -> str | None:
    copied = known.copied([looks_of(frame) for frame in frames])
    return copied[0] if copied else None


def test_a_look_is_255_bits_and_needs_no_colour() -> None:
    frame = scene(3)
    one, grey = look(frame), look(np.repeat(frame.mean(2, keepdims=True), 3, 2).astype(np.uint8))
    assert one.shape == (32,) and np.unpackbits(one ^ grey).sum() < BITS * 0.1
    assert Known([]).copied([looks_of(frame)] * 4) is None
