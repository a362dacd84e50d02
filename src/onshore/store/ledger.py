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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.digest import canonical_json
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError
from onshore.store.checkpoint import Checkpoint
from onshore.store.files import locked, sync_folder, write_durably
from onshore.store.merkle import consistency_proof, fold_leaf, frontiers_of, inclusion_proof, leaf_hash
from onshore.store.witness import cosignatures, note_at, split_note

if TYPE_CHECKING:
    from onshore.store.keys import Signer

ENTRIES, CHECKPOINT, NEXT = "entries.jsonl", "checkpoint", "checkpoint.next"
LINE_LIMIT_BYTES, READ_BYTES = 1 << 16, 1 << 20
#: Time runs forward by at most this between two lines, or a clock set wrong would end every retention at once.
LONGEST_GAP_NS = 400 * 86_400 * 10**9
#: The line by which a person accepts the wall clock: a time further ahead than that, or one before a line that was wrong.
CLOCK_ACCEPTED = "clock.accepted"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One line. leaf: RFC 6962 leaf hash (hex). time_ns: POSIX, never earlier than the entry before but in a line by which
    a person accepts the clock."""

    index: int
    kind: str
    body: dict[str, Any]
    time_ns: int
    leaf: str


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """What verification found. size: acknowledged entries; root: their RFC 6962 root (hex); problems: what is wrong.

    witnessed: how many entries from the first on the witness named in the call has signed; 0 without one.
    """

    ok: bool
    size: int
    root: str
    problems: list[str] = field(default_factory=list)
    witnessed: int = 0

    @property
    def trust(self) -> str:
        """The trust level of the whole: 'witnessed' counts for the first `witnessed` entries, the rest stays the center's word."""
        return "witnessed" if self.witnessed and self.ok else "self-attested"


class Ledger:
    """The log in one folder, shared by processes."""

    def __init__(self, folder: Path, *, origin: str, signer: Signer, scratch: Path, lock: Path) -> None:
        self._folder, self._origin, self._signer = folder, origin, signer
        self._scratch, self._lock = scratch, lock

    @property
    def origin(self) -> str:
        """The log's name in its checkpoints."""
        return self._origin

    @property
    def public_key(self) -> bytes:
        """The raw Ed25519 key with which anybody verifies its checkpoints."""
        return self._signer.public_key().public_bytes_raw()

    def sign(self, head: Checkpoint) -> bytes:
        """A checkpoint of this log as its signed note."""
        return head.signed(self._signer)

    def create(self) -> None:
        """Write the empty log; a log that exists stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            if not (self._folder / CHECKPOINT).exists():
                (self._folder / ENTRIES).touch()
                self._write(CHECKPOINT, Checkpoint(origin=self._origin))

    def append(self, kind: str, body: dict[str, Any]) -> LedgerEntry:
        """Add one entry; it is durable when this returns. Body: JSON with digests and salted ids, nothing personal."""
        return self.append_many([(kind, body)])[0]

    def append_many(self, drafts: Iterable[tuple[str, dict[str, Any]]]) -> list[LedgerEntry]:
        """Add several entries, all or none, with one flush."""
        with locked(self._lock):
            head = self._recovered_head()
            entries, lines = self._compose(drafts, head)
            if not entries:
                return []
            frontier = head.frontier
            for entry in entries:
                frontier = fold_leaf(frontier, entry.index, bytes.fromhex(entry.leaf))
            text = b"".join(line + b"\n" for line in lines)
            grown = Checkpoint(
                origin=self._origin,
                size=head.size + len(entries),
                size_bytes=head.size_bytes + len(text),
                time_ns=entries[-1].time_ns,
                frontier=frontier,
            )
            self._write(NEXT, grown)
            with (self._folder / ENTRIES).open("ab") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._folder / NEXT, self._folder / CHECKPOINT)
            sync_folder(self._folder)
        return entries

    def _compose(
        self, drafts: Iterable[tuple[str, dict[str, Any]]], head: Checkpoint
    ) -> tuple[list[LedgerEntry], list[bytes]]:
        drafts = list(drafts)
        accepted = any(kind == CLOCK_ACCEPTED for kind, _ in drafts)
        # A clock set back must not reorder the proof: time runs backwards only where a person says that it was wrong.
        time_ns = time.time_ns() if accepted else max(time.time_ns(), head.time_ns)
        if head.size and time_ns - head.time_ns > LONGEST_GAP_NS and not accepted:
            advice = "set the clock right; if it is right, `onshore ledger accept-clock` writes that down and goes on."
            raise OnshoreError("clock_jump", "clock", f"over 400 days ahead of the ledger's last line; {advice}")
        entries, lines = [], []
        for index, (kind, body) in enumerate(drafts, start=head.size):
            try:
                line = canonical_json({"body": body, "index": index, "kind": kind, "time_ns": time_ns})
            except (TypeError, ValueError) as fault:
                raise InputError(
                    "bad_config", f"ledger {kind}", f"an entry is JSON with finite numbers: {fault}."
                ) from fault
            if len(line) > LINE_LIMIT_BYTES:
                raise InputError("limit_exceeded", f"ledger {kind}", f"an entry has at most {LINE_LIMIT_BYTES} bytes.")
            leaf = leaf_hash(line).hex()
            entries.append(LedgerEntry(index=index, kind=kind, body=body, time_ns=time_ns, leaf=leaf))
            lines.append(line)
        return entries, lines

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody appends meanwhile."""
        with locked(self._lock):
            yield

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

    def verify(self, witness: Path | None = None, witness_keys: Mapping[str, bytes] | None = None) -> LedgerReport:
        """Recompute everything from the bytes in the folder; every problem is named.

        witness: a copy of `checkpoint` that somebody outside kept, cosigned or not; the log must still begin with what it
        signed. witness_keys: name -> raw public key; given, one of them must have cosigned it, else it is a problem.
        """
        with locked(self._lock):
            try:
                head = self.head()
            except CorruptError as fault:
                return LedgerReport(ok=False, size=0, root="", problems=[str(fault)])
            problems = self._strangers() + self._tail_problems(head)
        # What was signed does not change any more: it is read without holding up those who append.
        note = note_at(witness) if witness is not None else None
        found, size = self._walk_problems(head, note, witness_keys) if not problems or note else ([], 0)
        found = [one for one in found if one not in problems]
        problems += [f"{witness.name}: {one}" if witness and one.startswith("not a") else one for one in found]
        root = head.root().hex()
        return LedgerReport(ok=not problems, size=head.size, root=root, problems=problems, witnessed=size)

    def _walk_problems(
        self, head: Checkpoint, note: bytes | None, keys: Mapping[str, bytes] | None = None
    ) -> tuple[list[str], int]:
        """What one pass over every entry contradicts, the checkpoint or a witness's note; and how many are witnessed.

        The root covers every byte of every line, so that equal frontiers mean equal entries.
        """
        problems: list[str] = []
        kept, signed = Checkpoint(origin=self._origin), True
        try:
            kept = self._parsed(note) if note is not None else kept
            signed = note is None or keys is None or bool(cosignatures(note, keys))
        except CorruptError:
            problems.append("not a checkpoint that this center signed")
        try:
            frontier, size, before = frontiers_of(self._leaves(head), kept.size)
        except CorruptError as fault:
            return [*problems, str(fault)], 0
        if size != head.size or frontier != head.frontier:
            problems.append(f"the entries do not have the root that the checkpoint of size {head.size} signed")
        if kept.size > head.size:
            problems.append(f"the witness saw {kept.size} entries, the log has {head.size}: it was cut back")
        elif before != kept.frontier:
            problems.append(f"the first {kept.size} entries are not those that the witness saw: history was rewritten")
        if not signed and not problems:
            problems.append("not a note that a witness whose key was given has signed")
        return problems, kept.size if keys is not None and not problems else 0

    def note_problems(self, note: bytes) -> list[str]:
        """What contradicts a checkpoint that somebody kept: a log that was cut back, or rewritten before its size."""
        return self._walk_problems(self.head(), note)[0]

    def _parsed(self, note: bytes) -> Checkpoint:
        return Checkpoint.parse(split_note(note)[0], self._origin, self._signer.public_key())

    def inclusion(self, index: int) -> tuple[list[str], Checkpoint]:
        """The proof (hex, nearest first) that entry `index` is in the log of the checkpoint returned with it."""
        head = self.head()
        if not 0 <= index < head.size:
            raise NotFoundError(f"ledger entry {index}", f"the ledger has entries 0 to {head.size - 1}.")
        return [node.hex() for node in inclusion_proof(list(self._leaves(head)), index)], head

    def consistency(self, old_size: int) -> tuple[list[str], Checkpoint]:
        """The proof (hex) that the log of `old_size` entries is the beginning of the one in the checkpoint returned."""
        head = self.head()
        if not 0 <= old_size <= head.size:
            raise NotFoundError(f"ledger of size {old_size}", f"the ledger has {head.size} entries.")
        return [node.hex() for node in consistency_proof(list(self._leaves(head)), old_size)], head

    def _leaves(self, head: Checkpoint) -> Iterator[bytes]:
        sha256 = hashlib.sha256
        return (sha256(b"\0" + line).digest() for line in self._lines(head))

    def _tail_problems(self, head: Checkpoint) -> list[str]:
        """Bytes behind the signed ones are fine only while a signed `checkpoint.next` announces them."""
        try:
            tail = (self._folder / ENTRIES).stat().st_size - head.size_bytes
            announced = self._announced()
        except CorruptError as fault:
            return [str(fault)]
        except OSError:
            return [str(_unreadable(ENTRIES))]
        if tail < 0:
            return [f"{-tail} bytes of the entries are gone"]
        if announced is None:
            return [f"{tail} bytes more than the checkpoint signed"] if tail else []
        if announced.size <= head.size or tail > announced.size_bytes - head.size_bytes:
            return ["an announced append does not fit the log"]
        return []

    def _announced(self) -> Checkpoint | None:
        if not (self._folder / NEXT).exists():
            return None
        return Checkpoint.parse(self._read(NEXT), self._origin, self._signer.public_key())

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
        """The lines of the signed part, read in blocks."""
        left, rest = head.size_bytes, b""
        try:
            file = (self._folder / ENTRIES).open("rb")
        except OSError as fault:
            raise _unreadable(ENTRIES) from fault
        with file:
            while left > 0 and (block := file.read(min(left, READ_BYTES))):
                left -= len(block)
                *lines, rest = (rest + block).split(b"\n")
                yield from lines
        if rest:
            # A line without its end hashes to something else than what was signed.
            yield rest + b"?"

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        write_durably(self._folder / name, checkpoint.signed(self._signer), scratch=self._scratch)

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as fault:
            raise _unreadable(name) from fault


def _unreadable(name: str) -> CorruptError:
    return CorruptError("ledger_broken", name, "the file cannot be read; restore it from a copy.")
