"""Public video without signals: it may come in where it says that it is public, and nowhere else."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.centers import fleet, write_fleet
from onshore import drive
from onshore.clip import cut
from onshore.core.errors import UsageError
from onshore.core.recording import Recording, Signals
from onshore.store import Center


def silent_recording() -> Recording:
    one = fleet(1)[0]
    return replace(one, signals=Signals.build(one.videos[0].t_ns))


def mp4(path: Path) -> Path:
    import av

    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=15)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        base = random.integers(0, 255, (64, 160, 3), np.uint8)
        for index in range(40):
            picture = np.ascontiguousarray(base[:, index : index + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """The same file with the display matrix of a camera that was mounted upside down."""
    data = path.read_bytes()
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(matrix, data.index(b"tkhd"))
    path.write_bytes(
        data[:at] + struct.pack(">9i", -1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30) + data[at + len(matrix) :]
    )
    return path


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)


def test_a_fleet_recording_without_a_speed_stays_out_and_a_public_one_comes_in(center: Center, tmp_path: Path) -> None:
    files = write_fleet(tmp_path / "in", [silent_recording()])
    assert drive.add(center, files).quarantined[0]["code"] == "missing_column"
    report = drive.add(center, files, public=True)
    assert report.quarantined == [] and report.segments == 1 and center.quarantine_list() == []
    row = drive.segments(center)[0]
    assert row["public"] and row["signals"] == [] and np.isnan(drive.drives(center)[0]["speed_max_mps"])
    assert drive.add(center, files, public=True).known == 1
    assert {clip["speed_mean_mps"] for clip in cut(center)} == {None}
    recording = drive.open_segment(center, row["id"])
    assert recording.anonymised and not np.isfinite(recording.signals.speed_mps).any()


def test_a_bare_video_is_a_public_drive_of_its_own(center: Center, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    video = mp4(folder / "ride.mp4")
    with pytest.raises(UsageError, match="public only"):
        drive.add(center, video, reader="video")
    assert "--reader video" in drive.add(center, folder).quarantined[0]["reason"]
    report = drive.add(center, folder, reader="video", public=True)
    assert (report.segments, report.frames, report.quarantined) == (1, 40, [])
    recording = drive.open_segment(center, drive.segments(center)[0]["id"])
    assert recording.rig.cameras[0].source == "assumed" and recording.signals.known() == []
    assert abs(int(np.median(np.diff(recording.videos[0].t_ns))) - 66_666_667) < 100
    assert drive.add(center, folder, reader="video", public=True).known == 1


def test_a_video_that_is_shown_turned_stays_out(center: Center, tmp_path: Path) -> None:
    """Faces in it would be looked for upside down, and not found."""
    video = turned(mp4(tmp_path / "ride.mp4"))
    report = drive.add(center, video, reader="video", public=True)
    assert report.segments == 0 and "turned by 180 degrees" in report.quarantined[0]["reason"]
