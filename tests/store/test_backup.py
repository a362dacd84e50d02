"""Backup, restore and the key-loss drill: what was kept comes back, what was shredded does not, and nothing without keys."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, UsageError
from onshore.core.label import Label
from onshore.store import Center, custody
from onshore.store.backup import copy_keys, drill, make_backup, restore, verify_backup

SEGMENT = Label(region="cn", kind="segment")
RAW = Label(region="cn", kind="raw_drive", sensitivity=frozenset(["face", "plate"]), retention="raw")


@pytest.fixture
def filled(center: Center) -> tuple[Center, dict[str, str]]:
    ids = {name: center.put(name.encode() * 99, SEGMENT, key=name).id for name in ("drive-1", "drive-2")}
    ids["raw"] = center.raw.seal(b"raw" * 99, key="drive-1", label=RAW).id
    center.table("drives").append([{"id": "drive-1", "frames": 5}])
    return center, ids


def test_restore_from_backup_plus_key_works(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, ids = filled
    told = make_backup(center, tmp_path / "backup")
    verify_backup(tmp_path / "backup")
    copy_keys(center, tmp_path / "safe")
    shutil.rmtree(center.root)
    shutil.rmtree(center.keys.folder)
    again = restore(tmp_path / "backup", tmp_path / "again", keys_dir=tmp_path / "safe")
    assert again.id == center.id and again.read(ids["drive-2"]) == b"drive-2" * 99
    assert again.raw.unseal(ids["raw"]) == b"raw" * 99 and again.scrub() == []
    assert again.table("drives").rows() == [{"id": "drive-1", "frames": 5}]
    assert again.ledger.verify().ok and told["files"] >= 6
    kinds = [entry.kind for entry in again.ledger.entries()]
    assert "restored" in kinds
    again.put(b"life goes on", SEGMENT)


def test_a_backup_holds_no_key_in_any_form(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    import sqlite3

    center, _ = filled
    make_backup(center, tmp_path / "backup")
    center.keys.close()
    with sqlite3.connect(center.keys.folder / "slots.sqlite") as slots:
        secrets = [bytes(value) for (value,) in slots.execute("select wrapped from slots")]
    slots.close()
    secrets += [path.read_bytes() for path in center.keys.folder.glob("*.key")]
    assert len(secrets) >= 5
    for path in (path for path in (tmp_path / "backup").rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets), path


def test_a_wrong_key_is_refused_by_name(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, _ = filled
    make_backup(center, tmp_path / "backup")
    other = Center.init(tmp_path / "other", "cn", keys_dir=tmp_path / "other-keys", seed=1)
    (tmp_path / "empty").mkdir()
    for folder in (other.keys.folder, tmp_path / "empty"):
        with pytest.raises(OnshoreError, match=folder.name) as caught:
            restore(tmp_path / "backup", tmp_path / "again", keys_dir=folder)
        assert caught.value.code == "key_missing"
        assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".restore-*"))


def test_after_shredding_neither_backup_nor_restored_center_opens_the_drive(
    filled: tuple[Center, dict[str, str]], tmp_path: Path
) -> None:
    center, ids = filled
    make_backup(center, tmp_path / "backup")
    center.shred(["drive-1"])
    again = restore(tmp_path / "backup", tmp_path / "again")
    for gone in (ids["drive-1"],):
        with pytest.raises(NotFoundError, match="destroyed"):
            again.read(gone)
    with pytest.raises(NotFoundError, match="destroyed"):
        again.raw.unseal(ids["raw"])
    assert again.read(ids["drive-2"]) == b"drive-2" * 99
    with pytest.raises(InputError, match="Leave this file out"):
        again.put(b"new bytes", SEGMENT, key="drive-1")
    lines = {entry.kind: entry.body for entry in again.ledger.entries()}
    assert lines["key_destroyed"] == {"key": "drive-1"} and lines["restored"]["shredded_since"] == 1
    assert again.ledger.verify().ok


def test_a_key_copy_from_before_does_not_fit_what_was_sealed_since(
    filled: tuple[Center, dict[str, str]], tmp_path: Path
) -> None:
    """Said in docs/store.md: an old copy of all keys still opens what it held; it never becomes the key of today."""
    center, ids = filled
    copy_keys(center, tmp_path / "old")
    center.shred(["drive-1"])
    later = center.put(b"later", SEGMENT, key="drive-3")
    make_backup(center, tmp_path / "backup")
    old = restore(tmp_path / "backup", tmp_path / "again", keys_dir=tmp_path / "old")
    with pytest.raises(OnshoreError, match="key_missing"):
        old.read(later.id)
    assert old.read(ids["drive-2"])


def test_a_backup_made_while_others_write_restores_whole(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, _ = filled
    stop, done = threading.Event(), []

    def write() -> None:
        other = Center.open(center.root)
        while not stop.is_set() and len(done) < 500:
            number = len(done)
            done.append(other.put(f"bytes {number}".encode(), SEGMENT, key=f"drive-{number % 7}").id)
            other.table("clips").append([{"id": f"clip-{number}", "n": number}])
        other.close()

    writer = threading.Thread(target=write)
    writer.start()
    while len(done) < 5:
        stop.wait(0.01)
    before = list(done[:5])
    make_backup(center, tmp_path / "backup")
    stop.set()
    writer.join()
    again = restore(tmp_path / "backup", tmp_path / "again")
    assert again.ledger.verify().ok and again.scrub() == []
    assert {one.id for one in again.artifacts()} >= set(before)
    assert again.table("clips").count() >= 4


@pytest.mark.parametrize("harm", ["flip", "drop", "escape", "manifest"])
def test_a_damaged_backup_is_not_restored(filled: tuple[Center, dict[str, str]], tmp_path: Path, harm: str) -> None:
    center, _ = filled
    make_backup(center, tmp_path / "backup")
    blob = next(path for path in (tmp_path / "backup" / "blobs").rglob("*") if path.is_file())
    manifest = tmp_path / "backup" / "backup.json"
    if harm == "flip":
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    elif harm == "drop":
        blob.unlink()
    elif harm == "escape":
        manifest.write_text(manifest.read_text().replace('"center.toml"', '"../center.toml"'))
    else:
        manifest.write_bytes(manifest.read_bytes()[:-9])
    with pytest.raises(OnshoreError) as caught:
        restore(tmp_path / "backup", tmp_path / "again")
    assert caught.value.code in {"corrupt", "unsafe_path", "not_found"}
    assert isinstance(caught.value, CorruptError) or harm in {"escape", "manifest"}
    assert not (tmp_path / "again").exists()


def test_nothing_that_is_there_is_overwritten(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, _ = filled
    make_backup(center, tmp_path / "backup")
    for call in (
        lambda: make_backup(center, tmp_path / "backup"),
        lambda: make_backup(center, center.root / "inside"),
        lambda: restore(tmp_path / "backup", center.root),
        lambda: copy_keys(center, center.root / "keys"),
    ):
        with pytest.raises(UsageError):
            call()


def test_the_drill_tells_what_is_missing_from_what_was_destroyed(
    filled: tuple[Center, dict[str, str]], tmp_path: Path
) -> None:
    center, _ = filled
    erased, lost = (center.put(data, Label(region="cn", kind="metrics")) for data in (b"erased", b"lost"))
    center._path(lost.id).unlink()
    (tmp_path / "place").mkdir()
    make_backup(center, tmp_path / "place" / "backup")
    custody.destroy(center, [erased.id], reason="erasure", ticket="ticket-1")
    report = drill(center, tmp_path / "place" / "backup")
    assert (report["opened"], report["shredded"], report["damaged"]) == (4, 0, 1)


def test_the_key_loss_drill(filled: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, _ = filled
    (tmp_path / "place").mkdir()
    make_backup(center, tmp_path / "place" / "backup")
    center.shred(["drive-1"])
    report = drill(center, tmp_path / "place" / "backup")
    assert report == {"ledger": True, "opened": 1, "shredded": 2, "damaged": 0, "without_keys": "key_missing"}
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["backup"]
