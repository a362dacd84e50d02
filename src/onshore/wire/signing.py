"""The segment manifest: which files a car or recorder wrote, for which region, and what it did to them, under its key.

Rule: Ed25519 over the manifest's canonical JSON; the manifest names every file by SHA-256 and stands beside the first as
`<stem>.manifest.json`. Whose keys count is the center's to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SUFFIX = ".manifest.json"
CONTEXT = b"onshore-segment-manifest-1\n"
LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SegmentManifest:
    """files: SHA-256 (hex) by file name. vehicle: as the source names it. processing: what was done in the car (CN-07)."""

    region: str
    vehicle: str
    files: dict[str, str]
    processing: dict[str, Any] = field(default_factory=dict)
    schema_version: int = 1

    def as_record(self) -> dict[str, Any]:
        return vars(self).copy()


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A manifest with the digest (hex) of the public key that is said to have signed it, and the signature."""

    manifest: SegmentManifest
    key: str
    signature: bytes

    def holds(self, public_key: bytes) -> bool:
        """Whether this Ed25519 public key (32 bytes) made the signature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, _message(self.manifest))
        except (InvalidSignature, ValueError):
            return False
        return sha256_hex(public_key) == self.key


def manifest_path(first_file: Path) -> Path:
    """Where the manifest of a segment lies whose first file this is."""
    return first_file.with_name(f"{first_file.stem}{SUFFIX}")


def sign_segment(
    files: Iterable[Path],
    key: Ed25519PrivateKey,
    *,
    region: str,
    vehicle: str,
    processing: Mapping[str, Any] | None = None,
) -> bytes:
    """The bytes of the manifest for these files, signed; the caller writes them to `manifest_path`."""
    digests = {path.name: _file_sha256(path) for path in files}
    manifest = SegmentManifest(region=region, vehicle=vehicle, files=digests, processing=dict(processing or {}))
    record = {
        "manifest": manifest.as_record(),
        "key": sha256_hex(key.public_key().public_bytes_raw()),
        "signature": key.sign(_message(manifest)).hex(),
    }
    return canonical_json(record)


def read_manifest(path: Path) -> Signed | None:
    """The manifest at `path`, not yet verified; None when there is none. Raises InputError `bad_signer` for a broken one."""
    if not path.is_file() or path.is_symlink():
        return None
    if path.stat().st_size > LIMIT_BYTES:
        raise InputError("limit_exceeded", path.name, f"a manifest has at most {LIMIT_BYTES} bytes.")
    try:
        record = json.loads(path.read_bytes())
        given = record["manifest"]
        manifest = SegmentManifest(
            region=str(given["region"]),
            vehicle=str(given["vehicle"]),
            files={str(name): str(digest) for name, digest in given["files"].items()},
            processing=dict(given["processing"]),
            schema_version=int(given["schema_version"]),
        )
        return Signed(manifest=manifest, key=str(record["key"]), signature=bytes.fromhex(record["signature"]))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            "bad_signer", path.name, f"the manifest cannot be read ({problem!r}); sign again."
        ) from problem


def _message(manifest: SegmentManifest) -> bytes:
    return CONTEXT + canonical_json(manifest.as_record())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
