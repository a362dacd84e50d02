"""The people who may approve: enrolled by name, each with a key of their own.

Rule: keys lie in the center's key folder, never in the center; enrolling and dismissing are ledger lines, and a key
counts only while the ledger says it is enrolled: a key file slipped into the folder approves nothing.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from onshore.border.book import DISMISSED, ENROLLED, read_book
from onshore.core.digest import check_id, sha256_hex
from onshore.core.errors import InputError, NotFoundError, OnshoreError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from onshore.store import Center


#: Held while something leaves, and while somebody loses the say about it: of the two, one comes first.
BORDER_LOCK = "border.lock"


def person(name: str) -> str:
    """A person's name as an id: lower case, other characters become '-'. Errors: InputError `bad_id` for an empty one.

    Where that would leave nothing of a name, or one of another script, a digest of the name is appended: it alone tells
    such people apart.
    """
    plain = unicodedata.normalize("NFC", name).lower()
    readable = re.sub(r"[^a-z0-9-]+", "-", plain)[:80]
    if plain == readable or (plain.isascii() and readable.strip("-")):
        return check_id(readable, "person")
    digest = sha256_hex(plain.encode(errors="surrogatepass"))[:16]
    return check_id(f"{readable[:63].strip('-') or 'person'}-{digest}", "person")


def pseudonym(center: Center, kind: str, name: str) -> str:
    """The salted id under which the ledger names a person, a recipient or a purpose."""
    return center.keys.salted_id(kind, name)


def enroll_approver(center: Center, name: str, *, public_key: bytes | None = None) -> str:
    """Enroll `name`; returns the digest of the public key (hex). The same name again is a no-op.

    Without `public_key` (32 bytes, Ed25519) a key pair is made in the key folder, the private half with mode 0600: good
    for a demo. In service the approver makes the pair elsewhere and hands over the public half.
    Errors: InputError `conflict` when the key belongs to somebody else or the name has another key.
    """
    name = person(name)
    folder = _folder(center)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = approver_keys(center)
    if name in known and public_key in (None, known[name]):
        return sha256_hex(known[name])
    if name in known or (public_key is not None and public_key in known.values()):
        raise InputError("conflict", f"approver {name}", "one person has one key and one key one person.")
    public = public_key if public_key is not None else _made(folder, name)
    if len(public) != 32:
        raise InputError("bad_signature", f"approver {name}", "an Ed25519 public key has 32 bytes.")
    _write(folder / f"{name}.pub", public.hex().encode() + b"\n", 0o644)
    body = {"approver": pseudonym(center, "person", name), "key": sha256_hex(public), "by": _actor(center)}
    center.ledger.append(ENROLLED, body)
    return sha256_hex(public)


def dismiss_approver(center: Center, name: str) -> None:
    """From now on this person's approvals count for nothing, also on permits signed before."""
    from onshore.store.files import locked

    name = person(name)
    with locked(center.root / "locks" / BORDER_LOCK):
        known = approver_keys(center)
        if name not in known:
            raise NotFoundError(f"approver {name}", f"enrolled are {', '.join(sorted(known)) or 'none'}.")
        body = {"approver": pseudonym(center, "person", name), "key": sha256_hex(known[name]), "by": _actor(center)}
        center.ledger.append(DISMISSED, body)


def approver_keys(center: Center) -> dict[str, bytes]:
    """Enrolled names and their public keys: those whose file's digest the ledger enrolled and has not dismissed."""
    valid = read_book(center).enrolled
    found = {}
    for path in sorted(_folder(center).glob("*.pub")):
        public = _public(path)
        if public is not None and valid.get(sha256_hex(public)) == pseudonym(center, "person", path.stem):
            found[path.stem] = public
    return found


def approver_key(center: Center, name: str) -> Ed25519PrivateKey:
    """The private key of an enrolled approver, where it lies in the key folder."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    name = person(name)
    if name not in approver_keys(center):
        raise UsageError(f"approver {name}", "enroll this person first with `onshore border approver enroll`.")
    try:
        secret = (_folder(center) / f"{name}.key").read_bytes()
    except OSError as fault:
        advice = "this approver's private key is elsewhere: sign the statement there and attach the signature."
        raise OnshoreError("key_missing", f"approver {name}", advice) from fault
    return Ed25519PrivateKey.from_private_bytes(secret)


def _folder(center: Center) -> Path:
    return Path(center.keys.folder) / "approvers"


def _public(path: Path) -> bytes | None:
    try:
        public = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        return None
    return public if len(public) == 32 else None


def _made(folder: Path, name: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / f"{name}.key"
    if path.exists():  # an enrolment that was killed between the key and its ledger line goes on with the same key
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes()).public_key().public_bytes_raw()
    made = Ed25519PrivateKey.generate()
    _write(path, made.private_bytes_raw(), 0o600)
    return made.public_key().public_bytes_raw()


def _write(path: Path, data: bytes, mode: int) -> None:
    from onshore.store.files import write_durably

    write_durably(path, data, scratch=path.parent, mode=mode)
    os.chmod(path, mode)


def _actor(center: Center) -> str:
    return pseudonym(center, "person", person(center.actor))
