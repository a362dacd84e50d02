"""Canonical bytes, digests and ids: the same record has the same digest everywhere.

Digests are SHA-256 over plaintext. A blob id is `<region>-sha256-<hex>`; every other id matches `[a-z0-9-]{1,80}`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from onshore.core.errors import InputError

ID_PATTERN = re.compile(r"[a-z0-9-]{1,80}")
BLOB_PATTERN = re.compile(r"([a-z]{2})-sha256-([0-9a-f]{64})")


def canonical_json(record: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces (RFC 8785 for our records: str, int, finite float, bool, None, list, dict)."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record_digest(record: Any) -> str:
    """SHA-256 (hex) of a record's canonical JSON."""
    return sha256_hex(canonical_json(record))


def blob_id(region: str, data: bytes) -> str:
    """The content address `<region>-sha256-<hex>` of plaintext bytes."""
    return blob_id_of(region, sha256_hex(data))


def blob_id_of(region: str, sha256: str) -> str:
    identity = f"{region}-sha256-{sha256}"
    if not BLOB_PATTERN.fullmatch(identity):
        raise InputError("bad_id", identity, "a blob id is a two-letter region, '-sha256-' and 64 hex digits.")
    return identity


def check_id(identity: str, subject: str = "id") -> str:
    """Return `identity`, or raise InputError `bad_id` when it is not `[a-z0-9-]{1,80}`."""
    if not ID_PATTERN.fullmatch(identity):
        raise InputError("bad_id", f"{subject} {identity!r}", "use 1 to 80 of the characters a-z, 0-9 and '-'.")
    return identity


def short_id(prefix: str, record: Any) -> str:
    """An id of the form `<prefix>-<32 hex>` derived from a record's digest, the same everywhere."""
    return check_id(f"{prefix}-{record_digest(record)[:32]}")


def salted_id(salt: bytes, kind: str, name: str) -> str:
    """The only form in which a subject (vehicle, driver) is ever named: keyed BLAKE2 under the center's salt."""
    hashed = hashlib.blake2b(name.encode(), key=salt[:64], person=kind.encode()[:16], digest_size=12).hexdigest()
    return check_id(f"{kind}-{hashed}")
