"""A car's folder: what it trusts, what it runs, and how a new release gets in.

    CAR/car.json     name and region, written once at enrolment          CAR/root.json   the root it was enrolled with
    CAR/state.json   what runs: the one file whose rename is the update  CAR/trust-N/    TUF metadata seen so far
    CAR/slots/<release id>/                                              the running release and the one before

Rule: everything new is written beside the old and made durable, then one rename of state.json switches; killed at any
moment the car runs the old release or the new one, whole. What a kill leaves behind is swept by the next update.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onshore.bundle.format import METADATA, MODEL, NOTES, Payload, unpack
from onshore.bundle.tuf import (
    RevokedRefusal,
    Trust,
    VerifiedBundle,
    revoked_ids,
    sync_folder,
    verify,
    write_durably,
)
from onshore.core.digest import canonical_json, check_id, sha256_hex
from onshore.core.errors import CorruptError, InputError, NotFoundError, Refusal, UsageError

CAR, ROOT, STATE, SLOTS = "car.json", "root.json", "state.json", "slots"


@dataclass(frozen=True, kw_only=True)
class CarStatus:
    """What a car runs. running, previous: release ids or None; files: release id -> file name -> SHA-256.

    counter and payload_digest are of the newest release it ever ran; revoked: releases it must not run.
    """

    running: str | None = None
    previous: str | None = None
    counter: int = 0
    payload_digest: str = ""
    trust: str = "trust-0"
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()
    schema_version: int = 1


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """What an update did: `installed`, `current` (nothing new) or `refused`; and what the car runs now."""

    outcome: str
    running: str | None
    offered: str | None = None
    road_use: str = ""
    refusal: Refusal | None = None

    @property
    def installed(self) -> bool:
        return self.outcome == "installed"

    def as_record(self) -> dict[str, Any]:
        record = {"outcome": self.outcome, "running": self.running, "offered": self.offered, "road_use": self.road_use}
        return {**record, "refusal": self.refusal.as_record() if self.refusal else None}


def provision(car_dir: Path | str, *, name: str, region: str, root: bytes) -> None:
    """Enrol a car: its name, its region, and the root (`bundle.tuf.trusted_root`) it will trust from now on.

    Doing it again with the same facts changes nothing; with others it is InputError `conflict`.
    """
    folder = Path(car_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = canonical_json({"name": check_id(name, "car"), "region": region, "schema_version": 1})
    for file, data in ((ROOT, root), (CAR, facts)):
        path = folder / file
        if path.exists() and path.read_bytes() != data:
            raise InputError("conflict", path, "this car is already enrolled otherwise; use another folder.")
        if not path.exists():
            write_durably(path, data)


def status(car_dir: Path | str) -> CarStatus:
    """What the car runs. Raises NotFoundError for a folder that is no car, CorruptError for a damaged state."""
    folder = Path(car_dir)
    if not (folder / CAR).exists():
        raise NotFoundError(folder, "no car is enrolled here; provision it first.")
    try:
        record = json.loads((folder / STATE).read_bytes())
        return CarStatus(**{**record, "revoked": tuple(record["revoked"])})
    except FileNotFoundError:
        return CarStatus()
    except (ValueError, KeyError, TypeError) as problem:
        raise CorruptError(
            "corrupt", folder / STATE, "restore the file; the car cannot tell what it runs."
        ) from problem


def update(repo_dir: Path | str, car_dir: Path | str, region: str | None = None) -> UpdateResult:
    """Take the release a repository offers, if everything about it verifies; else say why and drive on.

    region: where the car is (default: as enrolled). Raises NotFoundError for a folder that is no car; every doubt about
    the repository is a refusal in the result, never an exception.
    """
    folder, repo = Path(car_dir), Path(repo_dir)
    now = status(folder)
    with _locked(folder):
        now = status(folder)
        _sweep(folder, now)
        trust = _staged_trust(folder, now)
        facts = json.loads((folder / CAR).read_bytes())
        seen = Trust(
            root=(folder / ROOT).read_bytes(),
            metadata_dir=folder / trust,
            region=region or facts["region"],
            counter=now.counter,
            payload_digest=now.payload_digest,
            revoked=now.revoked,
        )
        outcome = verify(repo, seen)
        if isinstance(outcome, Refusal):
            result = _refused(folder, now, trust, outcome)
        else:
            result = _accepted(folder, now, trust, outcome)
        _sweep(folder, status(folder))
    return result


def load_running(car_dir: Path | str) -> Payload:
    """The running release, checked against the digests it was installed with.

    Raises NotFoundError when the car runs none, CorruptError `tampered` when its files changed since.
    """
    folder, now = Path(car_dir), status(car_dir)
    if now.running is None:
        raise NotFoundError(f"car {folder.name}", "it runs no release; update it first.")
    files = {}
    for name in (MODEL, METADATA, NOTES):
        path = folder / SLOTS / now.running / name
        data = path.read_bytes() if path.is_file() else b""
        if sha256_hex(data) != now.files[now.running][name]:
            raise CorruptError("tampered", path, "it changed after it was installed; update the car again.")
        files[name] = data
    return unpack(files)


def _refused(folder: Path, now: CarStatus, trust: str, refusal: Refusal) -> UpdateResult:
    """Drive on; only recalls, which are signed and verified, change what runs, whatever else is wrong with their offer."""
    after = now
    if isinstance(refusal, RevokedRefusal):
        # Metadata spelt otherwise than it was signed is not kept: the right spelling would look damaged beside it.
        seen = now.trust if refusal.code == "tampered" else trust
        after = _without(replace(now, trust=seen), refusal.revoked_ids)
        _commit_if_new(folder, now, after)
    return UpdateResult(outcome="refused", running=after.running, offered=refusal.subject, refusal=refusal)


def _accepted(folder: Path, now: CarStatus, trust: str, bundle: VerifiedBundle) -> UpdateResult:
    identity = bundle.release_id
    fresh = identity != now.running or not _intact(folder, now, identity)
    after = replace(now, trust=trust)
    if fresh:
        slot = folder / SLOTS / identity
        shutil.rmtree(slot, ignore_errors=True)
        slot.mkdir(parents=True)
        for name, data in bundle.files.items():
            write_durably(slot / name, data)
        sync_folder(folder / SLOTS)
        previous = now.running if now.running not in (None, identity) else now.previous
        digests = {name: sha256_hex(data) for name, data in bundle.files.items()}
        kept = {known: files for known, files in now.files.items() if known == previous}
        after = replace(
            after,
            running=identity,
            previous=previous,
            counter=bundle.payload.metadata.counter,
            payload_digest=bundle.payload.digest,
            files={**kept, identity: digests},
        )
    after = _without(after, revoked_ids(bundle.index))
    _commit_if_new(folder, now, after)
    road_use = bundle.payload.metadata.road_use
    outcome = "installed" if fresh else "current"
    return UpdateResult(outcome=outcome, running=after.running, offered=identity, road_use=road_use)


def _commit_if_new(folder: Path, now: CarStatus, after: CarStatus) -> None:
    """A car that asks often should not write often."""
    if replace(after, trust=now.trust) != now or not _same_files(folder / after.trust, folder / now.trust):
        _commit(folder, after)


def _same_files(one: Path, other: Path) -> bool:
    """Whether two folders of metadata hold the same."""
    trees = [{path.relative_to(tree): path.read_bytes() for path in tree.rglob("*.json")} for tree in (one, other)]
    return trees[0] == trees[1]


def _intact(folder: Path, now: CarStatus, identity: str) -> bool:
    paths = {folder / SLOTS / identity / name: digest for name, digest in now.files[identity].items()}
    return all(path.is_file() and sha256_hex(path.read_bytes()) == digest for path, digest in paths.items())


def _without(now: CarStatus, recalled: tuple[str, ...]) -> CarStatus:
    """A recalled release stops running; the one before takes over unless it is recalled too. The counter stays."""
    revoked = tuple(sorted({*now.revoked, *recalled}))
    allowed = [identity for identity in (now.running, now.previous) if identity is not None and identity not in revoked]
    running, previous = (*allowed, None, None)[:2]
    return replace(now, revoked=revoked, running=running, previous=previous)


def _staged_trust(folder: Path, now: CarStatus) -> str:
    """A copy of the TUF metadata to verify against: what a failed update wrote there never counts."""
    name = f"trust-{int(now.trust.rpartition('-')[2]) + 1}"
    if (folder / now.trust).exists():
        shutil.copytree(folder / now.trust, folder / name, symlinks=True)
    else:
        (folder / name).mkdir()
    return name


def _commit(folder: Path, after: CarStatus) -> None:
    trust = folder / after.trust
    for path in [*trust.rglob("*"), trust]:
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir() and not path.is_symlink():
            sync_folder(path)
    write_durably(folder / STATE, canonical_json({**asdict(after), "revoked": list(after.revoked)}))


def _sweep(folder: Path, now: CarStatus) -> None:
    """Remove what killed or refused updates left."""
    for path in folder.glob("trust-*"):
        if path.name != now.trust:
            shutil.rmtree(path, ignore_errors=True)
    for path in (folder / SLOTS).glob("*"):
        if path.name not in (now.running, now.previous):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".new-*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One update at a time; a killed holder frees the lock."""
    handle = os.open(folder / "update.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise UsageError(folder, "another update of this car is running; wait for it.") from problem
    finally:
        os.close(handle)
