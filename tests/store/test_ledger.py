"""The ledger: any edit is seen, a kill loses nothing that was acknowledged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onshore.core.errors import CorruptError, InputError, NotFoundError
from onshore.store import Ledger
from onshore.store.merkle import verify_consistency, verify_inclusion

SEED = bytes(range(32))


@dataclass
class Made:
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "ledger"

    def open(self, seed: bytes = SEED) -> Ledger:
        signer = Ed25519PrivateKey.from_private_bytes(seed)
        scratch = self.root / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        return Ledger(
            self.folder, origin="onshore/cn/center-1", signer=signer, scratch=scratch, lock=self.root / "ledger.lock"
        )


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path)
    made.open().create()
    return made


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("filled"))
    made.open().create()
    made.open().append_many((f"kind-{index % 3}", {"digest": "ab" * 8, "n": index}) for index in range(11))
    return made


def problems(made: Made) -> list[str]:
    report = made.open().verify()
    assert report.ok is not bool(report.problems)
    return report.problems


def test_entries_come_back_in_order(made: Made) -> None:
    first, second = made.open(), made.open()
    written = [first.append("a", {"x": 1}), second.append("b", {"y": "é"}), first.append("c", {})]
    assert list(made.open().entries()) == written
    assert [entry.index for entry in written] == [0, 1, 2]
    assert [entry.time_ns for entry in written] == sorted(entry.time_ns for entry in written)
    assert made.open().verify().ok and made.open().verify().size == 3


def test_many_at_once_are_the_same_log_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    one, many = Made(tmp_path / "one"), Made(tmp_path / "many")
    drafts = [("kind", {"n": index}) for index in range(9)]
    for made in (one, many):
        made.root.mkdir()
        made.open().create()
    for draft in drafts:
        one.open().append(*draft)
    many.open().append_many(drafts)
    assert one.open().verify().root == many.open().verify().root
    assert (one.folder / "checkpoint").read_bytes() == (many.folder / "checkpoint").read_bytes()


def test_time_never_runs_backwards(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    late = made.open().append("a", {}).time_ns
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    assert made.open().append("b", {}).time_ns == late


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_fails(filled: Made, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(filled.folder.iterdir())))
    original = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(original)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    try:
        assert problems(filled)
    finally:
        path.write_bytes(original)
    assert not problems(filled)


def test_every_byte_of_the_checkpoint_counts(filled: Made) -> None:
    path = filled.folder / "checkpoint"
    original = path.read_bytes()
    try:
        for at in range(len(original)):
            path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
            assert problems(filled), at
    finally:
        path.write_bytes(original)


def edits() -> dict[str, Callable[[bytes], bytes]]:
    def swap(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join([lines[1], lines[0], *lines[2:]])

    return {
        "a byte more": lambda text: text + b"\n",
        "a line more": lambda text: text + text.splitlines(keepends=True)[0],
        "last newline gone": lambda text: text[:-1],
        "last line gone": lambda text: b"".join(text.splitlines(keepends=True)[:-1]),
        "lines swapped": swap,
        "emptied": lambda text: b"",
        "crlf": lambda text: text.replace(b"\n", b"\r\n"),
    }


@pytest.mark.parametrize("name", sorted(edits()))
def test_edits_fail(filled: Made, name: str) -> None:
    path = filled.folder / "entries.jsonl"
    original = path.read_bytes()
    path.write_bytes(edits()[name](original))
    try:
        assert problems(filled)
        if len(path.read_bytes()) != len(original):
            with pytest.raises(CorruptError, match="ledger_broken"):
                filled.open().append("kind", {})
    finally:
        path.write_bytes(original)


def test_files_gone_or_strange_fail(made: Made) -> None:
    made.open().append("a", {})
    stranger = made.folder / "notes.txt"
    stranger.write_text("")
    assert "notes.txt" in problems(made)[0]
    stranger.unlink()
    (made.folder / "entries.jsonl").rename(made.root / "kept")
    assert problems(made)
    (made.root / "kept").rename(made.folder / "entries.jsonl")
    (made.folder / "checkpoint").unlink()
    assert problems(made)


def test_another_key_or_another_log_is_not_this_one(made: Made, tmp_path: Path) -> None:
    made.open().append("a", {})
    assert not made.open(seed=bytes(32)).verify().ok
    other = Ledger(
        made.folder,
        origin="onshore/cn/center-2",
        signer=Ed25519PrivateKey.from_private_bytes(SEED),
        scratch=tmp_path,
        lock=tmp_path / "l",
    )
    assert not other.verify().ok


def test_proofs(filled: Made) -> None:
    ledger = filled.open()
    root = bytes.fromhex(ledger.verify().root)
    for entry in ledger.entries():
        proof, head = ledger.inclusion(entry.index)
        nodes = [bytes.fromhex(node) for node in proof]
        assert verify_inclusion(bytes.fromhex(entry.leaf), entry.index, head.size, nodes, root)
    with pytest.raises(NotFoundError):
        ledger.inclusion(11)


def test_an_older_checkpoint_is_the_beginning_of_a_newer_one(made: Made) -> None:
    ledger = made.open()
    ledger.append_many(("a", {"n": index}) for index in range(5))
    witnessed = ledger.head()
    ledger.append_many(("b", {"n": index}) for index in range(6))
    proof, head = ledger.consistency(witnessed.size)
    nodes = [bytes.fromhex(node) for node in proof]
    assert verify_consistency(witnessed.size, head.size, witnessed.root(), head.root(), nodes)
    with pytest.raises(NotFoundError):
        ledger.consistency(12)


def test_a_witness_sees_a_log_that_was_cut_back_or_rewritten(made: Made, tmp_path: Path) -> None:
    made.open().append("a", {"n": 1})
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    made.open().append("b", {"n": 2})
    witness = tmp_path / "witness"
    witness.write_bytes((made.folder / "checkpoint").read_bytes())
    made.open().append("c", {"n": 3})
    assert made.open().verify(witness).ok
    for name, data in before.items():
        (made.folder / name).write_bytes(data)
    assert made.open().verify().ok, "alone, a log that went back with its own checkpoint looks whole"
    assert "cut back" in made.open().verify(witness).problems[0]
    made.open().append_many([("b", {"n": 4}), ("c", {"n": 5})])
    assert "rewritten" in made.open().verify(witness).problems[0]
    witness.write_bytes(b"anything")
    assert "not a checkpoint" in made.open().verify(witness).problems[0]
    with pytest.raises(NotFoundError):
        made.open().verify(tmp_path / "missing")


def test_what_is_not_json_or_too_long_is_not_written(made: Made) -> None:
    for body in ({"x": float("nan")}, {"x": b"bytes"}, {"x": "a" * 70_000}):
        with pytest.raises(InputError):
            made.open().append("a", body)  # type: ignore[arg-type]
    assert made.open().verify().size == 0 and not problems(made)


@pytest.mark.parametrize("kept", [0, 1, 30, None])
def test_an_append_killed_before_its_acknowledgement_is_taken_back(made: Made, kept: int | None) -> None:
    """kept: how many bytes of the new line had reached the disk; None for all of them."""
    made.open().append("a", {"n": 1})
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    made.open().append("b", {"n": 2})
    line = (made.folder / "entries.jsonl").read_bytes()[len(before["entries.jsonl"]) :]
    (made.folder / "checkpoint").rename(made.folder / "checkpoint.next")
    (made.folder / "checkpoint").write_bytes(before["checkpoint"])
    (made.folder / "entries.jsonl").write_bytes(before["entries.jsonl"] + line[:kept])
    assert not problems(made), "an announced append that was interrupted is no edit"
    assert [entry.body["n"] for entry in made.open().entries()] == [1]
    made.open().append("c", {"n": 3})
    assert [entry.body["n"] for entry in made.open().entries()] == [1, 3]
    assert not problems(made) and not (made.folder / "checkpoint.next").exists()


def test_a_tail_that_nobody_announced_is_an_edit(made: Made) -> None:
    made.open().append("a", {})
    with (made.folder / "entries.jsonl").open("ab") as file:
        file.write(b'{"to')
    assert "bytes more" in problems(made)[0]
    (made.folder / "checkpoint.next").write_bytes((made.folder / "checkpoint").read_bytes())
    assert problems(made), "a copied checkpoint announces nothing"


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from store.test_ledger import Made
ledger = Made(Path({root!r})).open()
for index in range(10**6):
    print(ledger.append("kind", {{"n": index, "by": {name!r}}}).index, flush=True)
"""


def start(made: Made, name: str) -> subprocess.Popen[str]:
    code = WRITER.format(path=sys.path, root=str(made.root), name=name)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_nothing_acknowledged_by_two_writers(made: Made) -> None:
    writers = [start(made, name) for name in ("one", "two")]
    told: list[int] = []
    for writer in writers:
        assert writer.stdout is not None
        told += [int(writer.stdout.readline()) for _ in range(20)]
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        assert writer.stdout is not None
        told += [int(line) for line in writer.stdout.read().splitlines() if line]
        writer.wait()
        writer.stdout.close()
    assert not problems(made)
    entries = list(made.open().entries())
    assert len(told) == len(set(told)) and set(told) <= {entry.index for entry in entries}
    made.open().append("after", {})
    assert not problems(made) and len(list(made.open().entries())) == len(entries) + 1


def test_the_lines_are_plain_json(filled: Made) -> None:
    lines = (filled.folder / "entries.jsonl").read_text(encoding="utf8").splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(11))
