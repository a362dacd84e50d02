"""Witnesses: somebody outside signs what state of the ledger they saw, so that a shortened or a second ledger shows.

Rule: a witness signs only what continues what it signed before (RFC 9162 consistency), for a center whose key it knows.
Cosignatures are C2SP `cosignature/v1` lines under the center's signed checkpoint; the witness's folder is the auditor's,
never the center's. Trust levels of a claim: self-attested (the center says so), witnessed (a witness saw a state that
holds it), hardware-attested (not offered).
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import CorruptError, InputError, NotFoundError, Refusal, RefusedError
from onshore.store.checkpoint import Checkpoint, key_id
from onshore.store.files import locked, write_durably
from onshore.store.merkle import verify_consistency

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from onshore.store.center import Center
    from onshore.store.ledger import Ledger

SELF_ATTESTED, WITNESSED = "self-attested", "witnessed"
ENROLLED, SEEN = "ledger.witness", "ledger.witnessed"
#: C2SP tlog-cosignature: the type byte of a cosignature/v1 key.
COSIGNATURE_TYPE = b"\x04"
KEY_BYTES, COSIGNATURE_BYTES = 32, 4 + 8 + 64
#: What a request to a witness holds.
REQUEST: dict[str, type] = dict(origin=str, key=str, since=int, size=int, checkpoint=str, proof=list)


@dataclass(frozen=True, kw_only=True)
class Cosignature:
    """Who signed a checkpoint and when they saw it (POSIX s)."""

    witness: str
    time_s: int


# -- the note: a checkpoint, the center's signature, and one line per witness ------------------------------------------


def split_note(note: bytes) -> tuple[bytes, list[str]]:
    """The note as the center signed it, and the cosignature lines below."""
    text, separator, below = note.partition(b"\n\n")
    try:
        lines = below.decode().splitlines()
    except UnicodeDecodeError as fault:
        raise CorruptError("ledger_broken", "witness", "its text is not what the center signed.") from fault
    return text + separator + "".join(f"{line}\n" for line in lines[:1]).encode(), lines[1:]


def cosigned(note: bytes, name: str, signer: Ed25519PrivateKey, time_s: int) -> bytes:
    """The note with one more cosignature line (replacing this witness's earlier one)."""
    base, lines = split_note(note)
    public = signer.public_key().public_bytes_raw()
    signature = signer.sign(_cosigned_text(base, time_s))
    packed = key_id(name, COSIGNATURE_TYPE, public) + time_s.to_bytes(8, "big") + signature
    kept = [line for line in lines if line.split(" ")[1:2] != [name]]
    return base + "".join(f"{line}\n" for line in [*kept, f"— {name} {base64.b64encode(packed).decode()}"]).encode()


def cosignatures(note: bytes, keys: Mapping[str, bytes]) -> list[Cosignature]:
    """The cosignatures that verify with one of `keys` (witness name -> raw Ed25519 public key); others are passed over,
    whatever their kind. Errors: CorruptError for a line that is no signature line at all."""
    from cryptography.exceptions import InvalidSignature

    base, lines = split_note(note)
    found = []
    for line in lines:
        name, packed = _parts(line)
        if name not in keys or len(packed) != COSIGNATURE_BYTES:
            continue
        if packed[:4] != key_id(name, COSIGNATURE_TYPE, keys[name]):
            continue
        time_s = int.from_bytes(packed[4:12], "big")
        try:
            _public(keys[name]).verify(packed[12:], _cosigned_text(base, time_s))
        except InvalidSignature:
            continue
        found.append(Cosignature(witness=name, time_s=time_s))
    return found


def _parts(line: str) -> tuple[str, bytes]:
    try:
        dash, name, packed = line.split(" ")
        data = base64.b64decode(packed, validate=True)
    except ValueError as fault:
        raise CorruptError("ledger_broken", "witness", "a cosignature line is damaged.") from fault
    if dash != "—":
        raise CorruptError("ledger_broken", "witness", "a cosignature line is damaged.")
    return name, data


def _cosigned_text(base: bytes, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n".encode() + base.partition(b"\n\n")[0] + b"\n"


# -- the auditor's side ------------------------------------------------------------------------------------------------


def request(ledger: Ledger, since: int = 0) -> dict[str, Any]:
    """What a witness needs: the signed checkpoint, and the proof that it continues the log of `since` entries."""
    proof, head = ledger.consistency(since)
    return {
        "origin": ledger.origin,
        "key": ledger.public_key.hex(),
        "since": since,
        "size": head.size,
        "checkpoint": ledger.sign(head).decode(),
        "proof": proof,
    }


def read_request(path: Path) -> dict[str, Any]:
    """A `request` from a file. Errors: NotFoundError; InputError `bad_config` for what is none."""
    try:
        asked: dict[str, Any] = json.loads(note_at(path))
        wrong = [name for name, kind in REQUEST.items() if not isinstance(asked[name], kind)]
        if wrong:
            raise ValueError(f"{wrong[0]} is not what it should be")
        for digits in (asked["key"], *asked["proof"]):
            bytes.fromhex(digits)
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise InputError(
            "bad_config", path, f"give what `onshore ledger checkpoint --json` printed ({fault})."
        ) from fault
    return asked


class Witness:
    """An auditor's folder: a name, a key of its own (mode 0600), and per center its key and the last state signed."""

    def __init__(self, folder: Path, name: str) -> None:
        if not name or any(character.isspace() or character == "+" for character in name):
            raise InputError("bad_config", f"witness {name!r}", "a witness's name has no spaces and no '+'.")
        self.folder, self.name = folder, name
        self.signer = _made_key(folder)

    @property
    def public_key(self) -> bytes:
        return self.signer.public_key().public_bytes_raw()

    def seen(self, origin: str) -> dict[str, Any]:
        """What this witness last signed for a center: {"key", "size", "note"}; size 0 before the first time."""
        path = self._state(origin)
        blank: dict[str, Any] = {"key": "", "size": 0, "note": ""}
        return json.loads(path.read_bytes()) if path.exists() else blank

    def sign(self, asked: Mapping[str, Any]) -> bytes:
        """Check a `request` against what was signed before, remember it, and return the cosigned note.

        Errors: RefusedError `rollback` for a shorter log, `ledger_broken` for one that does not continue the one signed
        before or is signed by another key; CorruptError when the request does not verify.
        """
        with locked(
            self.folder / "lock"
        ):  # or two forks, asked about at once, would both continue what was signed before
            return self._signed(str(asked["origin"]), asked)

    def _signed(self, origin: str, asked: Mapping[str, Any]) -> bytes:
        before = self.seen(origin)
        if before["key"] not in ("", asked["key"]):
            raise RefusedError(_no("ledger_broken", origin, "it is signed by another key than the one seen before"))
        public = _public(bytes.fromhex(asked["key"]))
        head = Checkpoint.parse(str(asked["checkpoint"]).encode(), origin, public)
        if before["note"]:
            known = Checkpoint.parse(split_note(before["note"].encode())[0], origin, public)
            _must_continue(origin, known, head, asked)
        note = cosigned(str(asked["checkpoint"]).encode(), self.name, self.signer, int(time.time()))
        state = {"key": asked["key"], "size": head.size, "note": note.decode()}
        write_durably(self._state(origin), canonical_json(state), scratch=self.folder, mode=0o600)
        return note

    def _state(self, origin: str) -> Path:
        return self.folder / f"{sha256_hex(origin.encode())[:32]}.json"


def _must_continue(origin: str, known: Checkpoint, head: Checkpoint, asked: Mapping[str, Any]) -> None:
    if head.size < known.size:
        why = f"it has {head.size} entries, {known.size} were signed before"
        raise RefusedError(_no("rollback", origin, why))
    if int(asked["since"]) != known.size and head.size != known.size:
        raise InputError("not_found", f"proof since {asked['since']}", f"ask for one since {known.size}.")
    proof = [] if head.size == known.size else [bytes.fromhex(node) for node in asked["proof"]]
    if known.size and not verify_consistency(known.size, head.size, known.root(), head.root(), proof):
        raise RefusedError(_no("ledger_broken", origin, "it does not continue the log that was signed before: a fork"))


def _no(code: str, origin: str, why: str) -> Refusal:
    return Refusal(
        code=code,
        subject=origin,
        rule="witness-consistency",
        clause=f"a witness signs only what continues what it signed before (RFC 9162 2.1.4); {why}",
        remedy="Keep both checkpoints: together they prove that the center showed two histories.",
    )


def _made_key(folder: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "witness.key"
    with locked(folder / "lock"):
        if not path.exists():
            write_durably(path, secrets.token_bytes(KEY_BYTES), scratch=folder, mode=0o600)
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())


def _public(key: bytes) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(key) != KEY_BYTES:
        raise InputError("bad_signature", "public key", "an Ed25519 public key has 32 bytes.")
    return Ed25519PublicKey.from_public_bytes(key)


# -- the center's side -------------------------------------------------------------------------------------------------


def enroll(center: Center, name: str, public_key: bytes) -> None:
    """Accept a witness's cosignatures from now on. The same again is a no-op; another key is InputError `conflict`."""
    _public(public_key)
    known = enrolled(center)
    if known.get(name) == public_key:
        return
    if name in known or public_key in known.values():
        raise InputError("conflict", f"witness {name}", "one witness has one key and one key one witness.")
    folder = _folder(center)
    folder.mkdir(exist_ok=True, mode=0o700)
    record = {"name": name, "key": public_key.hex()}
    write_durably(
        folder / f"{sha256_hex(public_key)[:32]}.json", canonical_json(record), scratch=center.root / "scratch"
    )
    body = {"witness": center.keys.salted_id("witness", name), "key": sha256_hex(public_key)}
    center.ledger.append(ENROLLED, body)


def enrolled(center: Center) -> dict[str, bytes]:
    """Name -> public key of the witnesses whose key's digest the ledger enrolled."""
    listed = {entry.body["key"] for entry in center.ledger.entries() if entry.kind == ENROLLED}
    found: dict[str, bytes] = {}
    for path in sorted(_folder(center).glob("*.json")):
        record = json.loads(path.read_bytes())
        key = bytes.fromhex(record["key"])
        if sha256_hex(key) in listed:
            found[record["name"]] = key
    return found


def take(center: Center, note: bytes) -> list[Cosignature]:
    """Keep a cosigned note, unless a larger one of the same witness is here, and write the ledger line that it was seen.

    Errors: InputError `bad_signature`, CorruptError `ledger_broken` when the log contradicts it.
    """
    base, _ = split_note(note)
    head = _checkpoint(center, note)
    found = cosignatures(note, enrolled(center))
    if not found:
        raise InputError("bad_signature", "witness note", "no enrolled witness signed it; enroll the witness first.")
    problems = center.ledger.note_problems(base)
    if problems:
        raise CorruptError("ledger_broken", "witness note", problems[0])
    for one in found:
        path = _folder(center) / f"{sha256_hex(one.witness.encode())[:32]}.note"
        if not path.exists() or _checkpoint(center, path.read_bytes()).size <= head.size:
            write_durably(path, note, scratch=center.root / "scratch")
        body = {"witness": center.keys.salted_id("witness", one.witness), "size": head.size, "time_s": one.time_s}
        center.ledger.append(SEEN, {**body, "note": sha256_hex(note)})
    return found


def witnessed_size(center: Center, notes: Sequence[bytes] | None = None) -> int:
    """How many entries, from the first on, an enrolled witness has seen; 0 without a witness.

    A note that the log contradicts counts for nothing: a center that was rolled back still has its old notes.
    """
    keys = enrolled(center)
    known = _kept(center).values() if notes is None else notes
    signed = [(_checkpoint(center, note).size, note) for note in known if cosignatures(note, keys)]
    held = (size for size, note in sorted(signed, reverse=True) if not center.ledger.note_problems(note))
    return next(held, 0)


def contradictions(center: Center) -> list[str]:
    """What the notes that the center kept contradict in its log: it was cut back or rewritten since they were taken."""
    return [f"{name}: {one}" for name, note in _kept(center).items() for one in center.ledger.note_problems(note)]


def trust_of(index: int, witnessed: int) -> str:
    """The trust level of a ledger entry."""
    return WITNESSED if index < witnessed else SELF_ATTESTED


def note_at(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise NotFoundError(path, "name a file with the checkpoint that the witness kept.") from fault


def _kept(center: Center) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_folder(center).glob("*.note"))}


def _checkpoint(center: Center, note: bytes) -> Checkpoint:
    return Checkpoint.parse(split_note(note)[0], center.ledger.origin, _public(center.ledger.public_key))


def _folder(center: Center) -> Path:
    return center.root / "witnesses"
