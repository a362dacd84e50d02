"""Backups of a center: consistent while it is in use, checked by digest, and worth nothing without its keys.

Rule: a backup holds what the center folder holds (sealed blobs, tables, state, ledger) and no key in any form: key slots lie
with the keys, so what was shredded stays shredded whatever is restored. A restore verifies every file before the center
appears, and its ledger says that it happened and which keys are gone since. Keys are copied apart, to another place, and anew
after each shredding, which renews the region key: an older copy opens nothing that the keys of today sealed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, UsageError
from onshore.core.progress import Progress, silent
from onshore.store import custody
from onshore.store.cipher import file_sha256
from onshore.store.config import CONFIG_FILE, read_config
from onshore.store.files import locked, sync_folder, write_durably
from onshore.store.keys import SLOTS_FILE
from onshore.store.state import snapshot

if TYPE_CHECKING:
    from onshore.store.center import Center

MANIFEST, STATE = "backup.json", "state.sqlite"
LEFT_OUT = frozenset(["scratch", "locks"])


def make_backup(center: Center, folder: str | Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Copy the center into a new folder; returns {"backup": digest of the manifest, "files", "bytes", "ledger": size}.

    Blobs never change and are linked or copied; state and ledger are taken at one moment each, state first, so that every
    line of the ledger's copy is signed and every row's bytes are there. Tables are copied under their locks. Errors:
    UsageError when the folder is in the center or not empty, RefusedError is the caller's to raise when it is abroad.
    """
    target = Path(folder).resolve()
    if target.is_relative_to(center.root):
        raise UsageError(target, "a backup lies outside the center.")
    if target.exists() and any(target.iterdir()):
        raise UsageError(target, "a backup goes into a new or empty folder.")
    target.mkdir(parents=True, exist_ok=True)
    with locked(center.root / "locks" / "backup.lock"):
        files = dict(_copied(center, target, progress))
    manifest = {"center": center.id, "region": center.region, "files": files}
    digest = sha256_hex(canonical_json(manifest))
    write_durably(target / MANIFEST, canonical_json(manifest), scratch=target)
    size = center.ledger.head().size
    center.ledger.append("backup", {"backup": digest, "files": len(files), "ledger": size})
    return {"backup": digest, "files": len(files), "bytes": sum(one["bytes"] for one in files.values()), "ledger": size}


def verify_backup(folder: str | Path, *, progress: Progress = silent) -> dict[str, Any]:
    """Hash every file of a backup; returns its manifest. Errors: CorruptError naming the first file that is not as told."""
    source = Path(folder)
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
        files = manifest["files"]
    except (OSError, ValueError, KeyError) as fault:
        raise NotFoundError(source / MANIFEST, "this is no backup, or it was cut short; make it again.") from fault
    for done, (name, told) in enumerate(sorted(files.items())):
        progress("verifying backup", done, len(files))
        path = _below(source, name)
        if not path.is_file():
            raise CorruptError("corrupt", name, "the backup lacks this file; take another backup.")
        with path.open("rb") as file:
            if file_sha256(file) != (told["sha256"], told["bytes"]):
                raise CorruptError("corrupt", name, "it is not the file that was backed up; take another backup.")
    progress("verifying backup", len(files), len(files))
    return manifest


def restore(
    folder: str | Path, root: str | Path, *, keys_dir: str | Path | None = None, progress: Progress = silent
) -> Center:
    """Make a center again from a backup and its keys, at a new place; returns it open.

    keys_dir: where the keys are now, if they moved. Errors: CorruptError for a damaged backup, OnshoreError `key_missing`
    naming the key folder when these are not the center's keys; then nothing appears at `root`.
    """
    from onshore.store.center import Center

    source, target = Path(folder).resolve(), Path(root).resolve()
    if target.exists() and any(target.iterdir()):
        raise UsageError(target, "restore into a new or empty folder; a center that is there is not overwritten.")
    manifest = verify_backup(source, progress=progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=target.parent, prefix=".restore-"))
    try:
        for name in manifest["files"]:
            path = _below(building, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_below(source, name), path)
        for name in ("blobs", "tables", *LEFT_OUT):
            (building / name).mkdir(exist_ok=True)
        config = read_config(building)
        if keys_dir is not None:
            config = replace(config, keys_dir=Path(keys_dir).resolve())
        write_durably(building / CONFIG_FILE, config.to_toml().encode(), scratch=building / "scratch")
        Center.open(building).close()  # the keys fit, or nothing appears
        os.sync()
        if target.exists():
            target.rmdir()
        os.replace(building, target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    center = Center.open(target)
    _say(center, manifest)
    return center


def _say(center: Center, manifest: dict[str, Any]) -> None:
    """The restored ledger learns of the restore, and again of every key that was shredded since the backup."""
    told = {entry.body["key"] for entry in center.ledger.entries() if entry.kind == "key_destroyed"}
    gone = [key for key in center.keys.shredded() if key not in told]
    digest = sha256_hex(canonical_json(manifest))
    lines: list[tuple[str, dict[str, Any]]] = [("restored", {"backup": digest, "shredded_since": len(gone)})]
    center.ledger.append_many(lines + [("key_destroyed", {"key": key}) for key in gone])


def drill(center: Center, backup: str | Path, *, progress: Progress = silent) -> dict[str, Any]:
    """The key-loss drill: restore a backup beside, open everything that should open, and once more without keys.

    Returns {"ledger": verified?, "opened", "shredded", "damaged", "without_keys": the error's code}; leaves nothing behind.
    damaged: not as it was put, or not in the backup at all, though its key and the center still have it.
    """
    with tempfile.TemporaryDirectory(dir=Path(backup).resolve().parent, prefix=".drill-") as place:
        restored = restore(backup, Path(place) / "center", keys_dir=center.keys.folder, progress=progress)
        problems = restored.scrub(progress)
        dead = custody.destroyed_since(center, [one["artifact"] for one in problems if one["code"] == "not_found"])
        unopened = sum(restored.has_bytes(one["artifact"]) for one in problems)
        report = {"ledger": restored.ledger.verify().ok, "opened": len(restored.artifacts()) - unopened}
        restored.close()
        report |= {"shredded": len(dead), "damaged": len(problems) - len(dead)}
        empty = Path(place) / "no-keys"
        empty.mkdir()
        try:
            restore(backup, Path(place) / "thief", keys_dir=empty)
            code = "opened"
        except OnshoreError as fault:
            code = fault.code
    center.ledger.append("backup_drill", {**report, "without_keys": code})
    return {**report, "without_keys": code}


def copy_keys(center: Center, folder: str | Path) -> Path:
    """Copy the key folder (slots, key files, approvers, people, release keys) into a new folder, mode 0700.

    What a PKCS#11 token or a key service holds is not in it: back that up as its maker says. Take it anew after each
    shredding and destroy the older copy. Errors: UsageError for a folder in the center or one that is not empty.
    """
    target = Path(folder).resolve()
    if target.is_relative_to(center.root) or target.is_relative_to(center.keys.folder):
        raise UsageError(target, "a copy of the keys lies outside the center and the key folder.")
    if target.exists() and any(target.iterdir()):
        raise UsageError(target, "keys are copied into a new or empty folder.")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.chmod(0o700)
    for path in sorted(one for one in center.keys.folder.rglob("*") if one.is_file()):
        name = path.relative_to(center.keys.folder)
        if not path.name.startswith(SLOTS_FILE):
            (target / name.parent).mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(path, target / name)
            (target / name).chmod(path.stat().st_mode & 0o777)
    center.keys.copy_slots(target / SLOTS_FILE)
    os.sync()
    center.ledger.append("keys_copied", {"shredded": len(center.keys.shredded())})
    return target


def _copied(center: Center, target: Path, progress: Progress) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every file, copied: state at one moment, then the blobs it knows, tables under their locks, the ledger last."""
    snapshot(center.reader, target / STATE)
    blobs = sorted(path for path in (center.root / "blobs").rglob("*") if path.is_file())
    for done, path in enumerate(blobs):
        progress("copying blobs", done, len(blobs))
        yield from _copy(center.root, path, target)
    progress("copying blobs", len(blobs), len(blobs))
    for table in sorted((center.root / "tables").glob("*.lance")):
        with locked(center.root / "locks" / f"table-{table.stem}.lock"):
            for path in sorted(one for one in table.rglob("*") if one.is_file()):
                yield from _copy(center.root, path, target)
    others = [one for one in center.root.iterdir() if one.name not in {*LEFT_OUT, "blobs", "tables", "ledger"}]
    for top in others:
        if top.name.startswith(STATE):
            continue
        for path in [top] if top.is_file() else sorted(one for one in top.rglob("*") if one.is_file()):
            yield from _copy(center.root, path, target)
    with center.ledger.held():
        for path in sorted((center.root / "ledger").iterdir()):
            yield from _copy(center.root, path, target)
    with (target / STATE).open("rb") as file:
        sha256, size = file_sha256(file)
    yield STATE, {"sha256": sha256, "bytes": size}


def _copy(root: Path, path: Path, target: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """One file; one that erasure removed in between is left out."""
    name = str(path.relative_to(root))
    to = target / name
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, to)
    except FileNotFoundError:
        return
    with to.open("rb") as file:
        os.fsync(file.fileno())
        sha256, size = file_sha256(file)
    yield name, {"sha256": sha256, "bytes": size}


def _below(folder: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError("unsafe_path", name[:80], "a backup's file names stay below its folder.")
    return folder / name
