"""Trying again what stayed out: as it was to be read, with nothing lost when that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.centers import fleet, write_fleet
from onshore import drive
from onshore.core.errors import OnshoreError
from onshore.flywheel import intake
from onshore.store import Center


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)


def test_what_was_mended_arrives_and_what_is_not_there_now_stays(center: Center, tmp_path: Path) -> None:
    good = write_fleet(tmp_path / "in", fleet(1))[0]
    mended, broken, away = (tmp_path / name / "one.mcap" for name in ("mended", "broken", "disk"))
    for path in (mended, broken, away):
        path.parent.mkdir()
        path.write_bytes(f"no drive in {path.parent.name}".encode())
    assert len(intake.take_in(center, [mended, broken, away, good])["quarantined"]) == 3
    mended.write_bytes(write_fleet(tmp_path / "other", fleet(2))[1].read_bytes())
    away.parent.rename(tmp_path / "unmounted")
    report = intake.retry(center)
    assert (report["segments"], report["drives"], len(report["quarantined"])) == (1, 1, 1)
    assert {row["path"] for row in center.quarantine_list()} == {str(broken), str(away)}
    broken.unlink()
    assert intake.retry(center)["segments"] == 0
    assert {row["path"] for row in center.quarantine_list()} == {str(away)}


def test_public_video_is_tried_again_as_public_video(center: Center, tmp_path: Path) -> None:
    from drive.test_public_video import mp4

    path = tmp_path / "ride.mp4"
    path.write_bytes(b"half a download")
    assert len(drive.add(center, path, reader="video", public=True).quarantined) == 1
    mp4(path)
    assert intake.retry(center)["segments"] == 1 and center.quarantine_list() == []
    assert [row["public"] for row in drive.segments(center)] == [True]


def test_a_retry_that_breaks_forgets_nothing(center: Center, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.mcap"
    path.write_bytes(b"no drive")
    intake.take_in(center, [path])
    before = center.quarantine_list()
    assert len(before) == 1

    def broken(*_: object, **__: object) -> None:
        raise OnshoreError("missing_dependency", "the face model", "install it.")

    monkeypatch.setattr(drive, "add", broken)
    with pytest.raises(OnshoreError):
        intake.retry(center)
    assert center.quarantine_list() == before
