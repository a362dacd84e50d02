"""The ledger: an RFC 6962 Merkle log of canonical JSON lines under a signed checkpoint.

Rule: what is acknowledged is never lost and never changed unseen. An append writes, in this order and each flushed:
`checkpoint.next` (signed, for the log with the new entry), the entry's line, and the rename onto `checkpoint`. Bytes
behind the checkpoint are an unacknowledged append only while a signed `checkpoint.next` announces them; anything else is
an edit. Truncation to an older checkpoint is visible only to a witness who saw a newer one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import canonical_json
from onshore.core.errors import CorruptError, InputError
from onshore.store.checkpoint import Checkpoint, fold_leaf
from onshore.store.files import locked, sync_folder, write_durably

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ENTRIES, CHECKPOINT, NEXT = "entries.jsonl", "checkpoint", "checkpoint.next"
LINE_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One line. leaf: RFC 6962 leaf hash (hex). time_ns: POSIX, never earlier than the entry before."""

    index: int
    kind: str
    body: dict[str, Any]
    time_ns: int
    leaf: str


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """What verification found. size: acknowledged entries; root: their RFC 6962 root (hex); problems: what is wrong."""

    ok: bool
    size: int
    root: str
    problems: list[str] = field(default_factory=list)


class Ledger:
    """The log in one folder, shared by processes."""

    def __init__(self, folder: Path, *, origin: str, signer: Ed25519PrivateKey, scratch: Path, lock: Path) -> None:
        self._folder, self._origin, self._signer = folder, origin, signer
        self._scratch, self._lock = scratch, lock

    def create(self) -> None:
        """Write the empty log; a log that exists stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            if not (self._folder / CHECKPOINT).exists():
                (self._folder / ENTRIES).touch()
                self._write(CHECKPOINT, Checkpoint(origin=self._origin))

    def append(self, kind: str, body: dict[str, Any]) -> LedgerEntry:
        """Add one entry; it is durable when this returns. Body: JSON with digests and salted ids, nothing personal."""
        with locked(self._lock):
            head = self._recovered_head()
            time_ns = max(time.time_ns(), head.time_ns)
            line = canonical_json({"body": body, "index": head.size, "kind": kind, "time_ns": time_ns})
            if len(line) > LINE_LIMIT_BYTES:
                raise InputError("limit_exceeded", f"ledger {kind}", f"an entry has at most {LINE_LIMIT_BYTES} bytes.")
            leaf = leaf_hash(line)
            frontier = fold_leaf(head.frontier, head.size, leaf)
            grown = Checkpoint(
                origin=self._origin,
                size=head.size + 1,
                size_bytes=head.size_bytes + len(line) + 1,
                time_ns=time_ns,
                frontier=frontier,
            )
            self._write(NEXT, grown)
            with (self._folder / ENTRIES).open("ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._folder / NEXT, self._folder / CHECKPOINT)
            sync_folder(self._folder)
        return LedgerEntry(index=head.size, kind=kind, body=body, time_ns=time_ns, leaf=leaf.hex())

    def entries(self) -> Iterator[LedgerEntry]:
        """The acknowledged entries, oldest first."""
        for line in self._lines(self.head()):
            record = json.loads(line)
            yield LedgerEntry(
                index=record["index"],
                kind=record["kind"],
                body=record["body"],
                time_ns=record["time_ns"],
                leaf=leaf_hash(line).hex(),
            )

    def head(self) -> Checkpoint:
        """The acknowledged state. Errors: CorruptError `ledger_broken` when its signature does not verify."""
        return Checkpoint.parse(self._read(CHECKPOINT), self._origin, self._signer.public_key())

    def verify(self) -> LedgerReport:
        """Recompute everything from the bytes in the folder; every problem is named."""
        with locked(self._lock):
            try:
                head = self.head()
            except CorruptError as fault:
                return LedgerReport(ok=False, size=0, root="", problems=[str(fault)])
            problems = self._strangers() + self._tail_problems(head) + self._entry_problems(head)
        return LedgerReport(ok=not problems, size=head.size, root=head.root().hex(), problems=problems)

    def _entry_problems(self, head: Checkpoint) -> list[str]:
        frontier: tuple[bytes, ...] = ()
        index = -1
        last_ns = 0
        for index, line in enumerate(self._lines(head)):
            try:
                record = json.loads(line)
                if record["index"] != index or record["time_ns"] < last_ns:
                    return [f"entry {index}: its index or time is out of order"]
                last_ns = record["time_ns"]
            except (ValueError, KeyError, TypeError):
                return [f"entry {index}: not a ledger line"]
            frontier = fold_leaf(frontier, index, leaf_hash(line))
        if index + 1 != head.size or frontier != head.frontier:
            return [f"entries do not have the root that the checkpoint of size {head.size} signed"]
        return []

    def _tail_problems(self, head: Checkpoint) -> list[str]:
        tail = (self._folder / ENTRIES).stat().st_size - head.size_bytes
        pending = (self._folder / NEXT).exists()
        if pending:
            try:
                grown = Checkpoint.parse(self._read(NEXT), self._origin, self._signer.public_key())
            except CorruptError as fault:
                return [str(fault)]
            if grown.size != head.size + 1 or not 0 <= tail <= grown.size_bytes - head.size_bytes:
                return ["an announced append does not fit the log"]
            return []
        return [] if tail == 0 else [f"{tail} bytes more than the checkpoint signed"]

    def _strangers(self) -> list[str]:
        known = {ENTRIES, CHECKPOINT, NEXT}
        return [f"{path.name}: not a ledger file" for path in sorted(self._folder.iterdir()) if path.name not in known]

    def _recovered_head(self) -> Checkpoint:
        """The head, after taking back an append that a kill interrupted before it was acknowledged."""
        head = self.head()
        problems = self._tail_problems(head)
        if problems:
            raise CorruptError("ledger_broken", ENTRIES, f"{problems[0]}; run ledger verify and restore a copy.")
        if (self._folder / NEXT).exists():
            with (self._folder / ENTRIES).open("r+b") as file:
                file.truncate(head.size_bytes)
                os.fsync(file.fileno())
            (self._folder / NEXT).unlink()
            sync_folder(self._folder)
        return head

    def _lines(self, head: Checkpoint) -> Iterator[bytes]:
        left = head.size_bytes
        with (self._folder / ENTRIES).open("rb") as file:
            while left > 0:
                line = file.readline(left)
                if not line:
                    return
                left -= len(line)
                yield line[:-1] if line.endswith(b"\n") else line

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        write_durably(self._folder / name, checkpoint.signed(self._signer), scratch=self._scratch)

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as fault:
            raise CorruptError("ledger_broken", name, "the file cannot be read; restore it from a copy.") from fault


def leaf_hash(line: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\0" + line).digest()
