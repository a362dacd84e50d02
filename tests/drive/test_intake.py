"""What comes in, comes in whole and once; what cannot is told with one reason; nothing personal goes further."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import Writer

import onshore
from drive.conftest import Fleet, new_center, picture
from onshore import drive
from onshore.core.errors import InputError, NotFoundError, RefusedError, UsageError
from onshore.core.recording import ClipRef, Video
from onshore.privacy import default_anonymiser
from onshore.store import Center
from onshore.wire import decode, encode, read_mcap, write_mcap


def identities(center: Center) -> list[tuple[Any, ...]]:
    return [(row["drive"], row["id"], row["artifact"], row["frames"]) for row in drive.segments(center)]


def codes(report: drive.AddReport) -> dict[str, str]:
    return {Path(row["path"]).name: row["code"] for row in report.quarantined}


def test_recordings_arrive_once(center: Center, fleet: Fleet) -> None:
    fleet.mcap("a/0.mcap")
    fleet.mcap("a/1.mcap", start_s=60.0, segment_index=1)
    fleet.mcap("b/0.mcap", start_s=70.0, vehicle="car-0008")
    (fleet.root / "a/notes.txt").write_text("sunny")
    (fleet.root / "a/picture.jpg").write_bytes(b"x")
    report = drive.add(center, fleet.root)
    assert (len(report.added), report.segments, report.frames, report.known) == (2, 3, 45, 0)
    assert report.quarantined == [] and report.ignored == 2
    rows = drive.drives(center)
    assert [row["segments"] for row in sorted(rows, key=lambda row: row["start_ns"])] == [2, 1]
    assert all(row["synthetic"] and row["place"] == "us-town-001" and row["region"] == "us" for row in rows)
    assert all(row["vehicle"].startswith("vehicle-") for row in rows)
    assert sum(row["frames"] for row in rows) == 45
    before, entries = identities(center), center.ledger.head().size
    again = drive.add(center, [fleet.root])
    assert (again.added, again.segments, again.known, again.quarantined) == ([], 0, 3, [])
    assert identities(center) == before and center.ledger.head().size == entries


def test_a_further_segment_of_a_drive_whose_key_is_gone_is_kept_out_and_the_rest_arrives(
    center: Center, fleet: Fleet
) -> None:
    fleet.mcap("a/0.mcap")
    drive.add(center, fleet.root)
    [row] = drive.segments(center)
    center.shred(key for key in (row["drive"], f"{row['drive']}-raw") if center.has_key(key))
    fleet.mcap("a/1.mcap", start_s=60.0, segment_index=1)
    fleet.mcap("b/0.mcap", start_s=70.0, vehicle="car-0008")
    report = drive.add(center, fleet.root)
    assert codes(report) == {"1.mcap": "erased"} and report.segments == 1


def test_an_opened_segment_is_anonymised_and_keeps_its_times(center: Center, fleet: Fleet) -> None:
    source = fleet.mcap("a/0.mcap", face=True)
    drive.add(center, source)
    [row] = drive.segments(center)
    opened, original = drive.open_segment(center, row["id"]), read_mcap(source)
    assert opened.anonymised and (opened.segment_id, opened.drive_id) == (row["id"], row["drive"])
    np.testing.assert_array_equal(opened.videos[0].t_ns, original.videos[0].t_ns)
    np.testing.assert_array_equal(opened.signals.speed_mps, original.signals.speed_mps)
    frames = np.stack([frame for _, frame in decode(opened.videos[0])])
    assert default_anonymiser().redact(frames)[1].boxes == {"face": 0}
    assert frames[:, 40:60, 70:90].max() < 40
    label = center.artifact(row["artifact"]).label
    assert label.sensitivity == {"unmeasured_plates"} and label.derived_from_raw and label.synthetic
    assert label.subjects == {row["vehicle"]}


def test_originals_are_sealed(center: Center, fleet: Fleet) -> None:
    source = fleet.mcap("a/0.mcap")
    drive.add(center, source)
    [row] = drive.segments(center)
    original = center.artifact(row["originals"])
    assert original.label.kind == "raw_drive" and "face" in original.label.sensitivity
    assert center.artifact(row["artifact"]).parents == (original.id,)
    with pytest.raises(RefusedError, match="raw_ban"):
        center.read(original.id)
    assert center.raw.unseal(original.id) == source.read_bytes()


def test_a_file_that_only_says_it_is_anonymised_is_not_believed(center: Center, fleet: Fleet) -> None:
    facts = {"anonymiser": default_anonymiser().digest}
    fleet.mcap("a/0.mcap", face=True, anonymised=True, facts=facts, segment_id="segment-1", drive_id="drive-1")
    drive.add(center, fleet.root)
    frames = np.stack([frame for _, frame in decode(drive.open_segment(center, "segment-1").videos[0])])
    assert default_anonymiser().redact(frames)[1].boxes == {"face": 0}
    assert frames[:, 40:60, 70:90].max() < 40


def test_tables_of_one_route_are_one_drive(center: Center, fleet: Fleet) -> None:
    fleet.openlka("CAR/0a1b2c3d4e5f6071/00000002--e0ac3d0ea6/1--1", start_s=100.0, frames=6)
    fleet.openlka("CAR/0a1b2c3d4e5f6071/00000002--e0ac3d0ea6/1--3", start_s=460.0, frames=5, shift=9)
    fleet.openlka("CAR/0a1b2c3d4e5f6071/2024-02-03--00-17-20/1--5", start_s=30.0, frames=4, shift=20, speed=9.0)
    report = drive.add(center, fleet.root)
    assert (len(report.added), report.segments, report.frames, report.quarantined) == (2, 3, 15, [])
    assert len({row["vehicle"] for row in drive.drives(center)}) == 1
    first = next(row for row in drive.segments(center) if row["frames"] == 6)
    assert first["index"] == 1 and first["reader"] == "openlka"
    recording = drive.open_segment(center, first["id"])
    assert recording.signals.steering_rad[0] == pytest.approx(np.radians(1.0))
    assert recording.signals.yaw_rate_radps[0] == pytest.approx(0.08)
    assert recording.signals.t_ns[0] == 100_000_000_000
    steps = np.diff(recording.videos[0].t_ns)
    assert (steps == 50_000_000).all() and 0 <= recording.videos[0].t_ns[0] - 100_000_000_000 <= 100_000_000
    [camera] = recording.rig.cameras
    assert (camera.focal_px, camera.source) == (722.4, "assumed")
    assert "steering ratio 16.3" in recording.facts["assumed"]
    assert recording.clock.kind == "boot" and recording.clock.utc_offset_ns is not None


def test_without_a_route_folder_only_clocks_that_continue_make_a_drive(center: Center, fleet: Fleet) -> None:
    fleet.table("x/one", start_s=100.0, frames=4)
    fleet.table("x/two", start_s=106.0, frames=4, shift=5)
    fleet.table("x/three", start_s=500.0, frames=4, shift=9)
    report = drive.add(center, fleet.root)
    assert sorted(row.segments for row in report.added) == [1, 2]
    assert drive.add(center, fleet.root).known == 3


def test_a_drive_follows_from_its_segments_whatever_comes_next(center: Center, fleet: Fleet) -> None:
    """As after a kill between the last segment and its drive's row; and after a run that took a drive's last segment."""
    fleet.mcap("a/0.mcap", frames=3)
    drive.add(center, fleet.root)
    whole = drive.drives(center)
    [row] = whole
    center.table("drives").delete(f"id = '{row['id']}'")
    stored = {name: ",".join(value) if isinstance(value, list) else value for name, value in row.items()}
    center.table("drives").append([{**stored, "id": "drive-empty"}])
    (fleet.root / "b").mkdir()
    (fleet.root / "b/lone.mov").write_bytes(b"moov")
    drive.add(center, fleet.root / "b")
    assert drive.drives(center) == whole


def test_a_drive_that_arrives_in_two_runs_is_one_drive(center: Center, fleet: Fleet) -> None:
    fleet.table("a/0", start_s=100.0, frames=2)
    drive.add(center, fleet.root)
    first = identities(center)
    fleet.table("a/1", start_s=106.0, frames=2, shift=9)
    report = drive.add(center, fleet.root)
    assert (report.segments, report.known, report.quarantined) == (1, 1, [])
    assert identities(center)[:1] == first and [row["segments"] for row in drive.drives(center)] == [2]
    assert [row["index"] for row in drive.segments(center)] == [0, 1]


def damaged(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_each_bad_file_has_one_reason_and_the_rest_arrives(center: Center, fleet: Fleet) -> None:
    fleet.table("good/a", start_s=10.0)
    damaged(fleet.table("bad/cut", start_s=20.0, shift=3).with_suffix(".mp4"), 0.6)
    noise = fleet.table("bad/noise", start_s=25.0, shift=4).with_suffix(".mp4")
    noise.write_bytes(bytes(2000))
    fleet.table("bad/nospeed", start_s=30.0, shift=6, header="time_s,gear,yaw_rate_radps,note")
    fleet.table("bad/kmh", start_s=35.0, shift=7, speed=500.0)
    (fleet.root / "bad/zero.mp4").write_bytes(b"")
    fleet.table("bad/zerotable", start_s=40.0, shift=8).write_bytes(b"")
    fleet.table("bad/backwards", start_s=45.0, shift=9).write_text("time_s,speed_mps\n2,1\n1,1\n")
    damaged(fleet.mcap("bad/cut.mcap"), 0.5)
    (fleet.root / "bad/lone.mov").write_bytes(b"moov")
    (fleet.root / "bad/log.bag").write_bytes(b"#ROSBAG")
    (fleet.root / "bad/empty").mkdir()
    report = drive.add(center, fleet.root)
    assert codes(report) == {
        "cut.csv": "damaged_video",
        "noise.csv": "damaged_video",
        "nospeed.csv": "missing_column",
        "kmh.csv": "implausible",
        "zero.mp4": "empty_file",
        "zerotable.csv": "empty_file",
        "backwards.csv": "clock_disorder",
        "cut.mcap": "corrupt",
        "lone.mov": "unknown_format",
        "log.bag": "unknown_format",
        "empty": "empty_input",
    }
    assert all(row["reason"].count("[") == 1 for row in report.quarantined)
    assert (report.segments, report.frames) == (1, 12)
    assert len(center.quarantine_list()) == len(report.quarantined) == 11
    assert len(drive.add(center, fleet.root).quarantined) == len(center.quarantine_list()) == 11


def test_a_mended_file_leaves_quarantine(center: Center, fleet: Fleet) -> None:
    path = fleet.mcap("a/0.mcap")
    whole = path.read_bytes()
    damaged(path, 0.5)
    assert codes(drive.add(center, fleet.root)) == {"0.mcap": "corrupt"}
    path.write_bytes(whole)
    assert drive.add(center, fleet.root).segments == 1
    assert center.quarantine_list() == []


def test_a_rig_that_does_not_fit_its_pictures(center: Center, fleet: Fleet) -> None:
    source = fleet.recording()
    wrong = replace(source.rig.cameras[0], width_px=640)
    fleet.mcap("a.mcap", rig=replace(source.rig, cameras=(wrong,)))
    fleet.mcap("b.mcap", rig=replace(source.rig, cameras=()), drive_key="tuesday")
    assert codes(drive.add(center, fleet.root)) == {"a.mcap": "bad_config", "b.mcap": "bad_config"}


def test_a_file_that_breaks_its_reader_stops_no_other(center: Center, fleet: Fleet) -> None:
    base = fleet.recording()
    times = base.signals.t_ns.tolist()
    small = [(t, np.ascontiguousarray(picture(0)[:64])) for t in times[8:]]
    packets = encode("front", [(t, picture(0)) for t in times[:8]], codec="jpeg").packets
    packets += encode("front", small, codec="jpeg").packets
    fleet.mcap("a.mcap", videos=(Video(camera="front", codec="jpeg", packets=packets),))
    fleet.mcap("b.mcap", facts=["no", "facts"])
    with open(fleet.root / "c.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        state = writer.register_channel("/ego/state", "json", writer.register_schema("S", "jsonschema", b"{}"))
        writer.add_message(state, 1 << 63, b'{"speed_mps": 1}', 0)
        writer.finish()
    fleet.mcap("good.mcap", start_s=90.0)
    report = drive.add(center, fleet.root)
    assert codes(report) == {"a.mcap": "bad_config", "b.mcap": "unknown_format", "c.mcap": "unknown_format"}
    assert report.segments == 1 and "OverflowError" in report.quarantined[1]["reason"]


def test_files_that_vanish_on_the_way_stop_no_other(center: Center, fleet: Fleet) -> None:
    """The first while it waits for its turn, the second once it was read."""
    files = [fleet.mcap(f"{index}.mcap", segment_index=index, start_s=50.0 + 10 * index) for index in range(2)]
    fleet.mcap("2.mcap", segment_index=2, start_s=80.0)

    def take_away(what: str, done: int, total: int) -> None:
        if done < len(files):
            files[done].unlink()

    report = drive.add(center, fleet.root, progress=take_away)
    assert codes(report) == {"0.mcap": "unknown_format", "1.mcap": "unknown_format"} and report.segments == 1


def test_two_cameras_stay_two(center: Center, fleet: Fleet) -> None:
    source = fleet.recording(frames=3)
    names = ("camera-1", "Left_Mirror", "Right_Mirror")
    fleet.mcap(
        "a.mcap",
        frames=3,
        rig=replace(source.rig, cameras=tuple(replace(source.rig.cameras[0], name=name) for name in names)),
        videos=tuple(replace(source.videos[0], camera=name) for name in names),
    )
    assert drive.add(center, fleet.root).quarantined == []
    [row] = drive.segments(center)
    assert row["cameras"] == ["camera-1", "camera-2", "camera-3"]
    videos = drive.open_segment(center, row["id"]).videos
    assert [len(video.packets) for video in videos] == [len(source.videos[0].packets)] * len(names)


def test_a_flipped_byte_in_a_video_is_no_frame_lost_in_silence(center: Center, fleet: Fleet) -> None:
    """Either every frame arrives or the file is told damaged; never fewer frames."""
    video = fleet.table("a/x", frames=20).with_suffix(".mp4")
    whole = bytearray(video.read_bytes())
    start = whole.find(b"mdat")
    for position in range(start + 700, len(whole) - 10, len(whole) // 5):
        broken = bytearray(whole)
        broken[position : position + 8] = bytes(8)
        video.write_bytes(broken)
        report = drive.add(new_center(center.root.parent, f"flip-{position}"), fleet.root)
        assert (report.frames, codes(report)) in ((20, {}), (0, {"x.csv": "damaged_video"}))


def test_other_bytes_under_known_ids_are_a_conflict(center: Center, fleet: Fleet) -> None:
    fleet.mcap("a/0.mcap")
    fleet.table("t/one", start_s=5.0)
    drive.add(center, fleet.root)
    before = identities(center)
    fleet.mcap("copy/0.mcap", frames=14)
    fleet.table("copy/one", start_s=5.0, shift=40)
    fleet.table("copy/two", start_s=300.0)
    report = drive.add(center, fleet.root / "copy")
    assert codes(report) == {"0.mcap": "conflict", "one.csv": "conflict", "two.csv": "conflict"}, report
    assert identities(center) == before and report.segments == 0


def test_a_copy_elsewhere_is_the_same_segment(center: Center, fleet: Fleet) -> None:
    fleet.table("a/one")
    drive.add(center, fleet.root)
    shutil.copytree(fleet.root / "a", fleet.root / "b")
    report = drive.add(center, fleet.root / "b")
    assert (report.known, report.segments, report.quarantined) == (1, 0, [])


def test_a_copy_beside_its_original_parts_no_drive(center: Center, fleet: Fleet) -> None:
    """Copies of bytes are known; the same pictures and signals in another container are a conflict."""
    for index in range(3, 6):
        table = fleet.table(f"a/{index}", start_s=100.0 + 6 * index, frames=2, shift=9 * index)
    for suffix in (".csv", ".mp4"):
        middle = (fleet.root / "a/4").with_suffix(suffix).read_bytes()
        (fleet.root / "a/4 (copy)").with_suffix(suffix).write_bytes(middle)
    (fleet.root / "a/5 copy.csv").write_bytes(table.read_bytes() + b"\n")
    (fleet.root / "a/5 copy.mp4").write_bytes(table.with_suffix(".mp4").read_bytes())
    report = drive.add(center, fleet.root)
    assert (report.segments, report.known, codes(report)) == (3, 1, {"5 copy.csv": "conflict"})
    assert [row["segments"] for row in drive.drives(center)] == [3]
    assert [row["index"] for row in drive.segments(center)] == [3, 4, 5]


def test_nothing_at_all_is_an_error(center: Center, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        drive.add(center, tmp_path / "empty")
    assert caught.value.code == "empty_input"
    with pytest.raises(NotFoundError):
        drive.add(center, tmp_path / "gone")
    with pytest.raises(UsageError):
        drive.add(center, tmp_path / "empty", reader="rosbag")
    with pytest.raises(NotFoundError):
        drive.open_segment(center, "segment-none")
    with pytest.raises(NotFoundError):
        drive.export_mcap(center, "drive-none", tmp_path)


def test_an_export_comes_back_under_the_same_ids(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    fleet.table("a/one")
    fleet.mcap("b/0.mcap", face=True)
    drive.add(center, fleet.root)
    for row in drive.drives(center):
        drive.export_mcap(center, row["id"], tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 2 and all(read_mcap(file).facts["label"]["region"] == "us" for file in files)
    same = drive.add(center, tmp_path / "out")
    assert (same.known, same.segments, same.quarantined) == (2, 0, [])
    second = new_center(tmp_path, "second")
    report = drive.add(second, tmp_path / "out")
    assert (report.segments, report.quarantined) == (2, [])
    assert identities(second) == identities(center)
    clip = [
        ClipRef(segment_id=row["id"], start_ns=row["start_ns"], end_ns=row["end_ns"]).id
        for row in drive.segments(second)
    ]
    assert clip == [
        ClipRef(segment_id=row["id"], start_ns=row["start_ns"], end_ns=row["end_ns"]).id
        for row in drive.segments(center)
    ]
    assert drive.add(second, tmp_path / "out").known == 2
    abroad = drive.add(new_center(tmp_path, "abroad", region="cn"), tmp_path / "out")
    assert {row["code"] for row in abroad.quarantined} == {"import_refused"} and abroad.segments == 0


MARKER = "MARKER1HGCM82633A"


def everything_outside_the_sealed_zone(center: Center) -> bytes:
    opened = [center.read(artifact.id) for artifact in center.artifacts() if artifact.label.kind != "raw_drive"]
    stored = [path.read_bytes() for path in center.root.rglob("*") if path.is_file() and "blobs" not in path.parts]
    return b"\n".join(opened + stored)


def test_no_text_of_a_source_survives(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    fleet.table("a/one", vin=MARKER, note=MARKER)
    source = fleet.recording(
        vehicle=MARKER, drive_key=MARKER, facts={"vin": MARKER, "place": MARKER, "assumed": [MARKER]}, synthetic=False
    )
    [video] = source.videos
    sei = b"\x00\x00\x00\x01\x06\x05" + bytes([len(MARKER)]) + MARKER.encode() + b"\x80"
    first = replace(video.packets[0], data=sei + video.packets[0].data)
    camera = replace(source.rig.cameras[0], name=MARKER)
    source = replace(
        source,
        videos=(replace(video, camera=MARKER, packets=(first, *video.packets[1:])),),
        rig=replace(source.rig, cameras=(camera,), topics={MARKER: "keep"}),
        private={"gnss": [(50_000_000_000, 31.25, 121.5, 4.0)]},
    )
    write_mcap(source, fleet.root / "b.mcap", positions=True)
    assert (fleet.root / "b.mcap").read_bytes().count(MARKER.encode()) > 5
    report = drive.add(center, fleet.root)
    assert report.segments == 2 and report.quarantined == []
    assert MARKER.encode() not in everything_outside_the_sealed_zone(center)
    for row in drive.drives(center):
        assert all(
            MARKER.encode() not in path.read_bytes() for path in drive.export_mcap(center, row["id"], tmp_path / "o")
        )


@pytest.mark.parametrize(("answer", "written"), [("keep", True), ("drop", False)])
def test_positions_follow_the_region(center: Center, fleet: Fleet, answer: str, written: bool) -> None:
    center.pack = replace(center.pack, law={**center.pack.law, "topics": {**center.pack.law["topics"], "gnss": answer}})
    fleet.mcap("a.mcap", positions=True, private={"gnss": [(50_000_000_000, 31.25, 121.5, 4.0)]})
    drive.add(center, fleet.root)
    [row] = drive.segments(center)
    assert ("gnss" in drive.open_segment(center, row["id"]).private) is written
    assert ("gnss" in row["dropped_topics"]) is not written
    assert ("position" in center.artifact(row["artifact"]).label.sensitivity) is written
    assert not any("lat" in name or "lon" in name for name in row)


def test_topics_a_region_drops_or_refuses(center: Center, fleet: Fleet) -> None:
    def two_cameras(second: str, start_s: float = 50.0) -> Any:
        source = fleet.recording(start_s=start_s)
        return (*source.videos, replace(source.videos[0], camera=second))

    fleet.mcap("a.mcap", videos=two_cameras("cabin"))
    fleet.mcap("b.mcap", videos=two_cameras("biometric", 90.0), drive_key="tuesday", start_s=90.0)
    report = drive.add(center, fleet.root)
    assert codes(report) == {"b.mcap": "not_allowed"}
    [row] = drive.segments(center)
    assert (row["cameras"], row["dropped_topics"]) == (["front"], ["cabin"])


def test_two_processes_give_the_same_digests(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    for index in range(3):
        fleet.mcap(f"{index}.mcap", segment_index=index, start_s=50.0 + 10 * index)
    damaged(fleet.mcap("9.mcap", segment_index=9), 0.7)
    one = drive.add(center, fleet.root)
    two = drive.add(other := new_center(tmp_path, "other", seed=1), fleet.root, workers=2)
    assert identities(other) == identities(center) and len(identities(center)) == 3
    assert codes(one) == codes(two) == {"9.mcap": "corrupt"}


def test_a_worker_that_dies_takes_nothing_with_it(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    for index in range(4):
        fleet.mcap(f"{index}.mcap", segment_index=index, start_s=50.0 + 10 * index)
    drive.add(center, fleet.root)
    killed: list[int] = []

    def kill_one() -> None:
        while not (children := _children(os.getpid())):
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(children[0], signal.SIGKILL)
        killed.append(children[0])

    reaper = threading.Thread(target=kill_one)
    reaper.start()
    other = new_center(tmp_path, "other", seed=1)
    report = drive.add(other, fleet.root, workers=2)
    reaper.join()
    assert killed and report.quarantined == []
    assert identities(other) == identities(center)


def test_workers_do_not_outlive_a_killed_parent(fleet: Fleet, tmp_path: Path) -> None:
    for index in range(6):
        fleet.mcap(f"{index}.mcap", segment_index=index, start_s=50.0 + 10 * index, frames=60)
    script = tmp_path / "killed.py"
    script.write_text(KILLED.replace("Path(sys.argv[3])", "Path(sys.argv[3]), workers=2"))
    arguments = [sys.executable, str(script), str(tmp_path / "k"), str(tmp_path / "k-keys"), str(fleet.root)]
    child = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(Path(onshore.__file__).parents[1])})
    while child.poll() is None and _blobs(tmp_path / "k") < 1:
        time.sleep(0.01)
    workers = _children(child.pid)
    child.kill()
    child.wait()
    assert workers
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in workers)


def _children(pid: int) -> list[int]:
    """Children of any thread of a process, without the one in which Python keeps track of shared memory, and idle worlds."""
    lists = [found.read_text().split() for found in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for found in lists for child in found]
    others = (b"resource_tracker", b"onshore.world.child")
    return [child for child in children if not any(other in _command(child) for other in others)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


KILLED = """
import sys
from pathlib import Path
from onshore import drive
from onshore.store import Center
if __name__ == "__main__":
    center = Center.init(sys.argv[1], "us", keys_dir=sys.argv[2], seed=1)
    drive.add(center, Path(sys.argv[3]))
"""


def test_killed_at_any_moment_it_ends_the_same(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    for index in range(4):
        fleet.mcap(f"{index}.mcap", segment_index=index, start_s=50.0 + 10 * index, frames=30)
    drive.add(center, fleet.root)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [sys.executable, str(script), str(tmp_path / "k"), str(tmp_path / "k-keys"), str(fleet.root)]
    environment = {**os.environ, "PYTHONPATH": str(Path(onshore.__file__).parents[1])}
    for wanted in (1, 2, 3):
        child = subprocess.Popen(arguments, env=environment)
        while child.poll() is None and _blobs(tmp_path / "k") < 2 * wanted - wanted % 2:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
    again = Center.init(tmp_path / "k", "us", keys_dir=tmp_path / "k-keys", seed=1)
    drive.add(again, fleet.root)
    assert identities(again) == identities(center)
    assert drive.drives(again) == drive.drives(center)
    assert again.ledger.verify().ok


def _blobs(root: Path) -> int:
    return sum(path.is_file() for path in (root / "blobs").rglob("*")) if (root / "blobs").exists() else 0


def real(*parts: str) -> Path:
    root = os.environ.get("ONSHORE_TEST_DATA")
    folder = Path(root or ".", "openlka", *parts)
    if not root or not folder.exists():
        pytest.skip("needs ONSHORE_TEST_DATA with openlka")
    return folder


@pytest.mark.data
def test_real_routes(center: Center) -> None:
    base = real("OpenLKA-Failure-Sample", "CHEVROLET_SILVERADO_1500_2020", "dc7716b32bf25574")
    report = drive.add(center, [base / "2024-02-20--18-20-07", base.parents[1] / "CHEVROLET_SILVERADO"][:1])
    assert (len(report.added), report.segments, report.frames, report.quarantined) == (1, 2, 182, [])
    [row] = drive.drives(center)
    assert row["segments"] == 2 and row["duration_s"] == pytest.approx(119.8, abs=0.1)
    assert row["speed_max_mps"] == pytest.approx(27.56, abs=0.01)


@pytest.mark.slow
@pytest.mark.data
def test_all_real_segments(center: Center) -> None:
    report = drive.add(center, real(), workers=2)
    assert (len(report.added), report.segments, report.frames, report.quarantined) == (16, 18, 1758, [])
