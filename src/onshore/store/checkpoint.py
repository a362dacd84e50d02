"""Signed checkpoints: the state of a ledger in a few lines of text, enough to append without reading the log.

Rule: one text, one meaning: a checkpoint is accepted only if re-writing what was read gives the very same bytes.
It carries the tree's frontier, so that the next entry is appended without reading the log.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onshore.core.errors import CorruptError
from onshore.store.merkle import Frontier, fold_frontier

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from onshore.store.keys import Signer


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """size: entries; size_bytes: length of the entries file; time_ns: of the last entry; frontier: subtree roots."""

    origin: str
    size: int = 0
    size_bytes: int = 0
    time_ns: int = 0
    frontier: Frontier = ()

    def root(self) -> bytes:
        return fold_frontier(self.frontier)

    def text(self) -> bytes:
        """Origin, size and root as in C2SP tlog-checkpoint, then extension lines."""
        lines = [self.origin, str(self.size), _b64(self.root()), f"bytes {self.size_bytes}", f"time {self.time_ns}"]
        return "\n".join(lines + [f"frontier {_b64(node)}" for node in self.frontier] + [""]).encode()

    def signed(self, signer: Signer) -> bytes:
        text = self.text()
        return _note(text, self.origin, signer.public_key(), signer.sign(text))

    @classmethod
    def parse(cls, note: bytes, origin: str, public_key: Ed25519PublicKey) -> Checkpoint:
        """Read and verify. Errors: CorruptError `ledger_broken`."""
        from cryptography.exceptions import InvalidSignature

        try:
            checkpoint, signature = _read(note)
            public_key.verify(signature, checkpoint.text())
            same = _note(checkpoint.text(), origin, public_key, signature) == note
        except (ValueError, IndexError, InvalidSignature) as fault:
            raise CorruptError("ledger_broken", "checkpoint", "its text is not what the center signed.") from fault
        if not same or checkpoint.origin != origin or len(checkpoint.frontier) != checkpoint.size.bit_count():
            raise CorruptError("ledger_broken", "checkpoint", "it was signed for another log or has been edited.")
        return checkpoint


def _read(note: bytes) -> tuple[Checkpoint, bytes]:
    text, _, signature_line = note.decode().partition("\n\n")
    origin, size, _root, length, time_ns, *frontier = text.split("\n")
    checkpoint = Checkpoint(
        origin=origin,
        size=int(size),
        size_bytes=int(length.removeprefix("bytes ")),
        time_ns=int(time_ns.removeprefix("time ")),
        frontier=tuple(base64.b64decode(line.removeprefix("frontier "), validate=True) for line in frontier),
    )
    signature = base64.b64decode(signature_line.split(" ")[2].rstrip("\n"), validate=True)[4:]
    return checkpoint, signature


def _note(text: bytes, origin: str, public_key: Ed25519PublicKey, signature: bytes) -> bytes:
    """C2SP signed-note: the text, an empty line, and `— name base64(key id || signature)`."""
    named = key_id(origin, b"\x01", public_key.public_bytes_raw())
    return text + f"\n— {origin} {_b64(named + signature)}\n".encode()


def key_id(name: str, kind: bytes, public_key: bytes) -> bytes:
    """C2SP signed-note: SHA-256(name || 0x0A || signature type || key), its first four bytes."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
