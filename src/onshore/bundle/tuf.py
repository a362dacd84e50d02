"""Signing and verifying releases with The Update Framework (TUF specification 1.0, python-tuf).

Rule: nothing is believed that the trusted root does not sign, and every byte a repository offers is checked each time it
is looked at, even when it is what already runs. One repository holds one offer: the latest release, or its revocation.

    REPO/metadata/  1.root.json, N.targets.json, N.snapshot.json, timestamp.json (renamed last: that is the publication)
    REPO/targets/   <sha256>.<name> of every file of the offer

A refusal is a value. Network access exists only as an implementation of python-tuf's FetcherInterface; version 1 has
none but `FolderFetcher`.
"""

# mypy: disable-error-code="attr-defined"
# (python-tuf re-exports its public classes without naming them in __all__)

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.bundle.format import LIMITS_BYTES, METADATA, MODEL, NOTES, RELEASE, VERDICT, Payload, unpack
from onshore.core.control import CONTROLLER_VERSION
from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, Refusal

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, Root
    from tuf.ngclient import Updater

ROLES: tuple[str, ...] = ("root", "targets", "snapshot", "timestamp")
FILES: tuple[str, ...] = (MODEL, METADATA, NOTES, VERDICT, RELEASE)
REGION_FIELD = "x-onshore-region"
#: The section of the TUF specification 1.0 whose check a file of each role failed.
CLAUSES = {"root": "5.3", "timestamp": "5.4", "snapshot": "5.5", "targets": "5.6", "target": "5.7"}
#: A root this close to its end is renewed with the next publication.
RENEW_ROOT_BEFORE = timedelta(days=30)
OWN_CLAUSE = "onshore release rules"
RULES = {
    "expired": "a signature counts for its time",
    "rollback": "offers only get newer",
    "tampered": "bytes are those that were signed",
    "bad_signature": "only trusted keys sign",
    "not_found": "an offer is whole",
    "wrong_region": "a release drives only in its region",
}
_BASE = "repository:/"


@dataclass(frozen=True, kw_only=True)
class Lifetimes:
    """How long each role's signature counts. Negative spans make documents that have already expired."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=90)
    snapshot: timedelta = timedelta(days=30)
    timestamp: timedelta = timedelta(days=30)


class ReleaseKeys:
    """One Ed25519 key per role in a folder outside every center (mode 0700, files 0600). Never printed, never pickled."""

    def __init__(self, folder: Path, signers: dict[str, CryptoSigner]) -> None:
        self.folder, self._signers = folder, signers

    def __repr__(self) -> str:
        return f"ReleaseKeys({self.folder}, [private])"

    def __reduce__(self) -> str:
        raise TypeError("keys stay in their process")

    def signer(self, role: str) -> CryptoSigner:
        return self._signers[role]

    def root(self) -> bytes:
        """The root these keys stand in: what a car is given when it is enrolled. Raises NotFoundError before the first."""
        try:
            return (self.folder / "root.json").read_bytes()
        except FileNotFoundError as problem:
            raise NotFoundError("root of the release repository", "sign a release first.") from problem

    @classmethod
    def open(cls, folder: Path) -> ReleaseKeys:
        """Load the four keys, making those that are missing. Raises CorruptError `key_missing` for an unreadable one."""
        from securesystemslib.signer import CryptoSigner

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
        signers = {}
        for role in ROLES:
            path = folder / f"{role}.pem"
            if not path.exists():
                write_durably(path, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
            signers[role] = _load_signer(path)
        return cls(folder, signers)


def _load_signer(path: Path) -> CryptoSigner:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as problem:
        raise CorruptError("key_missing", path, "it is not a readable Ed25519 PEM key; restore it.") from problem
    if not isinstance(key, Ed25519PrivateKey):
        raise CorruptError("key_missing", path, "it is not an Ed25519 key; restore it.")
    return CryptoSigner(key)


# -- the center's side ---------------------------------------------------------------------------------------------


def publish(
    repo: Path,
    keys: ReleaseKeys,
    files: dict[str, bytes],
    index: dict[str, Any],
    *,
    lifetimes: Lifetimes | None = None,
) -> int:
    """Sign `files` as the repository's one offer and return its version, which rises by one with every publication.

    `index` is the record that cars decide by (region, counter, digests); it becomes `release.json` and the signed
    custom field of every file. Killed at any moment, the repository offers the old or the new release, nothing between.
    """
    from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp

    spans, now = lifetimes or Lifetimes(), datetime.now(UTC).replace(microsecond=0)
    offered = {**files, RELEASE: canonical_json(index)}
    with _locked(keys.folder):
        _ensure_root(repo, keys, str(index["region"]), now, spans)
        version = offered_version(repo) + 1
        targets = {name: TargetFile.from_data(name, data, ["sha256"]) for name, data in offered.items()}
        for name, target in targets.items():
            target.unrecognized_fields["custom"] = index
            write_durably(repo / "targets" / target.get_prefixed_paths()[0], offered[name])
        signed = Targets(version=version, expires=now + spans.targets, targets=targets)
        described = _write_signed(repo, f"{version}.targets.json", signed, keys, "targets")
        meta = {"targets.json": MetaFile.from_data(version, described, ["sha256"])}
        snapshot = Snapshot(version=version, expires=now + spans.snapshot, meta=meta)
        described = _write_signed(repo, f"{version}.snapshot.json", snapshot, keys, "snapshot")
        pointer = MetaFile.from_data(version, described, ["sha256"])
        timestamp = Timestamp(version=version, expires=now + spans.timestamp, snapshot_meta=pointer)
        _write_signed(repo, "timestamp.json", timestamp, keys, "timestamp")
        _remove_unoffered(repo, version, [target.get_prefixed_paths()[0] for target in targets.values()])
    return version


def offered_version(repo: Path) -> int:
    """The version a repository offers; 0 when nothing was published yet."""
    from tuf.api.metadata import Timestamp

    path = repo / "metadata" / "timestamp.json"
    return _metadata(path.read_bytes(), Timestamp.type, path).signed.version if path.exists() else 0


def offered_index(repo: Path) -> dict[str, Any] | None:
    """What a repository says it offers, unverified: for its owner, and for naming the reason of a refusal."""
    try:
        version = offered_version(repo)
        signed = json.loads((repo / "metadata" / f"{version}.targets.json").read_bytes())["signed"]
        custom = signed["targets"][RELEASE]["custom"]
    except (OSError, ValueError, KeyError, TypeError, OnshoreError):
        return None
    return custom if isinstance(custom, dict) else None


def trusted_root(repo: Path) -> bytes:
    """The newest root of the center's own repository: what a car is given when it is enrolled."""
    roots = sorted((repo / "metadata").glob("*.root.json"), key=_version_of)
    if not roots:
        raise InputError("not_found", repo, "it holds no root; sign a release first.")
    return roots[-1].read_bytes()


def rotate(repo: Path, old: ReleaseKeys, new: ReleaseKeys, *, lifetimes: Lifetimes | None = None) -> int:
    """A new root version under `new` keys, signed by the old and the new root key; publish with `new` afterwards."""
    from tuf.api.metadata import Root

    expires = datetime.now(UTC).replace(microsecond=0) + (lifetimes or Lifetimes()).root
    current = _metadata(trusted_root(repo), Root.type, repo).signed
    fresh = _root(new, current.unrecognized_fields[REGION_FIELD], expires, version=current.version + 1)
    fresh.sign(old.signer("root"))
    fresh.sign(new.signer("root"), append=True)
    write_durably(new.folder / "root.json", _serialised(fresh))
    write_durably(repo / "metadata" / f"{fresh.signed.version}.root.json", _serialised(fresh))
    return int(fresh.signed.version)


def _ensure_root(repo: Path, keys: ReleaseKeys, region: str, now: datetime, spans: Lifetimes) -> None:
    """The repository's root: made once per set of keys, renewed with the same keys when it nears its end."""
    from tuf.api.metadata import Root

    for folder in (repo / "metadata", repo / "targets"):
        folder.mkdir(parents=True, exist_ok=True)
    if not any((repo / "metadata").glob("*.root.json")):
        data = _first_root(keys, region, now + spans.root)
        version = _metadata(data, Root.type, keys.folder).signed.version
        write_durably(repo / "metadata" / f"{version}.root.json", data)
    root: Root = _metadata(trusted_root(repo), Root.type, repo).signed
    if root.unrecognized_fields.get(REGION_FIELD) != region:
        raise InputError(
            "wrong_region", repo, f"this repository is for another region than {region}; use another folder."
        )
    for role in ROLES:
        if keys.signer(role).public_key.keyid not in root.roles[role].keyids:
            raise CorruptError("key_missing", f"{role} key", "the repository was made with other keys; use those.")
    if root.is_expired(now + RENEW_ROOT_BEFORE) and spans.root > RENEW_ROOT_BEFORE:
        rotate(repo, keys, keys, lifetimes=spans)


def _first_root(keys: ReleaseKeys, region: str, expires: datetime) -> bytes:
    """The root these keys already have, so that a second repository of theirs is the same to a car; else version 1."""
    with contextlib.suppress(NotFoundError):
        return keys.root()
    fresh = _root(keys, region, expires, version=1)
    fresh.sign(keys.signer("root"))
    write_durably(keys.folder / "root.json", _serialised(fresh))
    return _serialised(fresh)


def _root(keys: ReleaseKeys, region: str, expires: datetime, *, version: int) -> Metadata[Root]:
    from tuf.api.metadata import Metadata, Root

    root = Root(version=version, expires=expires, consistent_snapshot=True, unrecognized_fields={REGION_FIELD: region})
    for role in ROLES:
        root.add_key(keys.signer(role).public_key, role)
    return Metadata(root)


def _write_signed(repo: Path, name: str, signed: Any, keys: ReleaseKeys, role: str) -> bytes:
    from tuf.api.metadata import Metadata

    metadata = Metadata(signed)
    metadata.sign(keys.signer(role))
    data = _serialised(metadata)
    write_durably(repo / "metadata" / name, data)
    return data


def _remove_unoffered(repo: Path, version: int, targets: list[str]) -> None:
    """Only what is offered stays, so that every byte in the repository is one that cars check."""
    kept = {f"{version}.targets.json", f"{version}.snapshot.json", "timestamp.json"}
    for path in (repo / "metadata").iterdir():
        if path.name not in kept and not path.name.endswith(".root.json"):
            path.unlink()
    for path in (repo / "targets").iterdir():
        if path.name not in targets:
            path.unlink()


def _metadata(data: bytes, kind: str, subject: object) -> Metadata[Any]:
    from tuf.api.metadata import Metadata
    from tuf.api.serialization import DeserializationError

    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except DeserializationError as problem:
        raise CorruptError("tampered", subject, "it is not TUF metadata; restore the repository.") from problem
    if metadata.signed.type != kind:
        raise CorruptError("tampered", subject, f"it is not {kind} metadata; restore the repository.")
    return metadata


def _serialised(metadata: Metadata[Any]) -> bytes:
    from tuf.api.serialization.json import JSONSerializer

    return metadata.to_bytes(JSONSerializer(compact=True))


def _version_of(path: Path) -> int:
    head = path.name.partition(".")[0]
    return int(head) if head.isdigit() else 0


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One publication at a time; a killed holder frees the lock."""
    handle = os.open(folder / "publish.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that a reader, or a machine that lost power, sees the old bytes or the new ones."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- the car's side ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VerifiedBundle:
    """A release whose every byte the trusted root vouches for. version: of the repository's signed offer."""

    payload: Payload
    verdict: dict[str, Any]
    index: dict[str, Any]
    files: dict[str, bytes] = field(repr=False)
    version: int = 0

    @property
    def release_id(self) -> str:
        return self.payload.release_id


@dataclass(frozen=True, kw_only=True)
class RevokedRefusal(Refusal):
    """A refusal of an offer that carries signed recalls: a car that runs one of `revoked_ids` must stop using it."""

    revoked_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What a car already believes: its first root, the folder of TUF metadata it has seen, its region, its release.

    revoked: releases that were recalled, whatever a repository says of them now.
    """

    root: bytes = field(repr=False)
    metadata_dir: Path
    region: str
    counter: int = 0
    payload_digest: str = ""
    revoked: tuple[str, ...] = ()


def verify(repo: Path, trust: Trust) -> VerifiedBundle | Refusal:
    """Check everything a repository offers against `trust`. `trust.metadata_dir` is updated as TUF prescribes.

    Refusal codes: tampered, bad_signature, expired, rollback, wrong_region, gate_failed, not_allowed (revoked, or made
    for another controller), not_found, limit_exceeded, bad_config (made for a newer program). Where the signed index of
    the car's region recalls releases, the refusal is a RevokedRefusal, whatever else is wrong with the offer.
    """
    from tuf.api.exceptions import DownloadError, RepositoryError

    fetcher, index = _folder_fetcher(repo), dict[str, Any]()
    outcome: VerifiedBundle | Refusal
    try:
        updater = _updater(fetcher, trust)
        updater.refresh()
        index = _signed_index(updater)
        outcome = _verify_offer(updater, index, repo, trust)
    except (RepositoryError, DownloadError) as problem:
        outcome = _refusal_for(problem, fetcher.asked, repo, trust)
    except CorruptError as problem:
        outcome = _refuse(problem.code, problem.subject, "a release is what was signed", "target", problem.advice)
    except InputError as problem:  # signed and whole, but not something this program knows how to drive
        rule = "a release is one this car can read"
        outcome = _refuse(problem.code, problem.subject, rule, "own rule", problem.advice)
    recalled = revoked_ids(index) if index.get("region") == trust.region else ()
    if isinstance(outcome, Refusal) and recalled:
        return RevokedRefusal(**asdict(outcome), revoked_ids=recalled)
    return outcome


def _signed_index(updater: Updater) -> dict[str, Any]:
    """What the verified metadata says about the offer; {} where it says nothing."""
    described = updater.get_targetinfo(RELEASE)
    index = described.custom if described else None
    return index if isinstance(index, dict) else {}


def _verify_offer(updater: Updater, index: dict[str, Any], repo: Path, trust: Trust) -> VerifiedBundle | Refusal:
    if not index:
        return _refuse("not_found", repo, "a repository offers a release", "targets", "publish one first.")
    refusal = _refuse_region(index, trust)
    if refusal is not None:
        return refusal
    _check_verbatim(repo, trust)
    refusal = _refuse_offer(index, trust)
    if refusal is not None:
        return refusal
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in FILES:
            target = updater.get_targetinfo(name)
            if target is None:
                return _refuse("tampered", name, "a release is whole", "targets", "the signed offer lacks this file.")
            if target.length > LIMITS_BYTES[name]:
                return _refuse("limit_exceeded", name, "release files are bounded", "targets", "the file is too large.")
            files[name] = Path(updater.download_target(target, str(Path(scratch) / name))).read_bytes()
    return _consistent(files, index, int(offered_version(repo)))


def _refuse_region(index: dict[str, Any], trust: Trust) -> Refusal | None:
    if index.get("region") == trust.region:
        return None
    advice = f"it was made for {index.get('region')!r}, this car is in {trust.region!r}; get that region's release."
    return _refuse("wrong_region", index.get("release_id", RELEASE), RULES["wrong_region"], "own rule", advice)


def _refuse_offer(index: dict[str, Any], trust: Trust) -> Refusal | None:
    """The rules of ours that TUF does not know: revocation, counter."""
    subject = str(index.get("release_id", RELEASE))
    if index.get("revoked") or subject in {*trust.revoked, *revoked_ids(index)}:
        advice = f"{index.get('reason', 'it was recalled')}; wait for the next release."
        return _refuse("not_allowed", subject, "a revoked release is not installed", "own rule", advice)
    counter, digest = index.get("counter"), index.get("payload_digest")
    if not isinstance(counter, int) or counter < trust.counter:
        advice = f"its counter {counter} is below {trust.counter}; wait for a newer release."
        return _refuse("rollback", subject, "the release counter never falls", "own rule", advice)
    if counter == trust.counter and trust.payload_digest and digest != trust.payload_digest:
        advice = f"another release already has counter {counter}; the center must raise it."
        return _refuse("rollback", subject, "a counter names one release", "own rule", advice)
    return None


def revoked_ids(index: dict[str, Any]) -> tuple[str, ...]:
    """Every release that this repository has recalled so far."""
    return tuple(str(identity) for identity in index.get("revoked_ids", ()))


def _consistent(files: dict[str, bytes], index: dict[str, Any], version: int) -> VerifiedBundle | Refusal:
    """The files, the index and the verdict must all be about the same payload, and the verdict must be a pass."""
    payload = unpack({name: files[name] for name in (MODEL, METADATA, NOTES)})
    facts = {"payload_digest": payload.digest, "region": payload.metadata.region, "counter": payload.metadata.counter}
    facts |= {"release_id": payload.release_id, "verdict_digest": sha256_hex(files[VERDICT])}
    for name, value in facts.items():
        if index.get(name) != value:
            return _refuse("tampered", name, "index and files agree", "own rule", "the index is about another release.")
    try:
        verdict = json.loads(files[VERDICT])
        passed = verdict["passed"] is True and verdict["payload_digest"] == payload.digest
    except (ValueError, KeyError, TypeError):
        passed, verdict = False, {}
    if payload.metadata.controller != CONTROLLER_VERSION:
        advice = f"it was made for controller {payload.metadata.controller!r}, this car has {CONTROLLER_VERSION!r}."
        return _refuse(
            "not_allowed", payload.release_id, "plans meet the controller they were made for", "own rule", advice
        )
    if not passed:
        return _refuse(
            "gate_failed", VERDICT, "no verdict, no release", "own rule", "no passing verdict names this payload."
        )
    return VerifiedBundle(payload=payload, verdict=verdict, index=index, files=files, version=version)


def _updater(fetcher: Any, trust: Trust) -> Updater:
    from tuf.ngclient import Updater

    trust.metadata_dir.mkdir(parents=True, exist_ok=True)
    return Updater(
        metadata_dir=str(trust.metadata_dir),
        metadata_base_url=f"{_BASE}/metadata",
        target_base_url=f"{_BASE}/targets",
        fetcher=fetcher,
        bootstrap=trust.root,
    )


def _check_verbatim(repo: Path, trust: Trust) -> None:
    """What the repository shows must be, byte for byte and in canonical form, what was verified.

    TUF itself would pass over a damaged file that it has no need to read again, and over a signature spelt differently.
    """
    from tuf.api.metadata import Metadata

    seen = {f"metadata/{path.name}": path for path in (trust.metadata_dir / "root_history").glob("*.root.json")}
    newest = max(_version_of(path) for path in seen.values())
    for path in (repo / "metadata").glob("*.root.json"):
        if not 1 <= _version_of(path) <= newest:
            raise CorruptError("tampered", f"metadata/{path.name}", "a root that nobody trusted signs.")
    version = offered_version(repo)
    seen["metadata/timestamp.json"] = trust.metadata_dir / "timestamp.json"
    for role in ("snapshot", "targets"):
        seen[f"metadata/{version}.{role}.json"] = trust.metadata_dir / f"{role}.json"
    for name, path in seen.items():
        data = path.read_bytes()
        shown = repo / name
        if shown.exists() and shown.read_bytes() != data:
            raise CorruptError("tampered", name, "it is not the document that was verified; fetch it again.")
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        spelt = all(s.signature == s.signature.lower() for s in metadata.signatures.values())
        if not spelt or _serialised(metadata) != data:
            raise CorruptError("tampered", name, "it is not in canonical form; fetch it again.")


def _folder_fetcher(repo: Path) -> Any:
    """python-tuf's way to a repository that is a folder. `asked` is the last path it was asked for."""
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class FolderFetcher(FetcherInterface):
        def __init__(self) -> None:
            self.asked = ""

        def _fetch(self, url: str) -> Iterator[bytes]:
            self.asked = url.removeprefix(f"{_BASE}/")
            path = repo / self.asked
            if ".." in path.parts or path.is_symlink() or not path.is_file():
                raise DownloadHTTPError(f"{self.asked} is not in the repository", 404)
            return _chunks(path)

    return FolderFetcher()


def _chunks(path: Path) -> Iterator[bytes]:
    """A file in pieces, so that python-tuf stops reading at the length it expects."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            yield chunk


def _refusal_for(problem: Exception, asked: str, repo: Path, trust: Trust) -> Refusal:
    """Name what python-tuf found; its own words stand in the remedy."""
    from tuf.api import exceptions

    role = next((role for role in ROLES if asked.endswith(f"{role}.json")), "target")
    match problem:
        case exceptions.ExpiredMetadataError():
            code, advice = "expired", "its time has passed; fetch a fresh release."
        case exceptions.BadVersionNumberError():
            code, advice = "rollback", "something newer was seen already; fetch the latest release."
        case exceptions.UnsignedMetadataError():
            code, advice = _bad_signature(asked, role, repo, trust)
        case exceptions.DownloadHTTPError():
            code, advice = "not_found", "the repository is not whole; fetch it again."
        case _:
            code, advice = "tampered", "it does not match its signed description; fetch it again."
    return _refuse(code, asked, RULES[code], role, f"{problem}: {advice}")


def _bad_signature(asked: str, role: str, repo: Path, trust: Trust) -> tuple[str, str]:
    """A signature by a known key that fails means damaged bytes; none by a known key means another signer."""
    from tuf.api.metadata import Root

    with contextlib.suppress(OSError, OnshoreError, KeyError, ValueError):
        history = sorted((trust.metadata_dir / "root_history").glob("*.root.json"), key=_version_of)
        root: Root = _metadata(history[-1].read_bytes(), Root.type, asked).signed
        signatures = json.loads((repo / asked).read_bytes())["signatures"]
        if {entry["keyid"] for entry in signatures} & set(root.roles[role].keyids):
            return "tampered", "its bytes are not those that were signed; fetch it again."
    claimed = (offered_index(repo) or {}).get("region")
    if claimed not in (None, trust.region):
        return (
            "wrong_region",
            f"it says it is for {claimed!r}, this car is in {trust.region!r}; get that region's release.",
        )
    return "bad_signature", "no key that this car trusts signed it; get the release from the car's own center."


def _refuse(code: str, subject: object, rule: str, role: str, remedy: str) -> Refusal:
    clause = f"TUF specification 1.0, {CLAUSES[role]}" if role in CLAUSES else OWN_CLAUSE
    return Refusal(code=code, subject=str(subject), rule=rule, clause=clause, remedy=remedy)
