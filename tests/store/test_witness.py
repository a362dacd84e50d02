"""Witnesses and the stand-alone verifier: what the center's own key cannot show, and a second opinion on the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onshore import cli
from onshore.core.errors import CorruptError, InputError, RefusedError
from onshore.store import Center, Ledger, standalone
from onshore.store.witness import (
    Witness,
    contradictions,
    cosignatures,
    enroll,
    read_request,
    request,
    take,
    trust_of,
    witnessed_size,
)

SEED = bytes(range(32))
NAME = "auditor.example/w1"


def ledger_at(root: Path, entries: int = 0) -> Ledger:
    (root / "scratch").mkdir(parents=True, exist_ok=True)
    signer = Ed25519PrivateKey.from_private_bytes(SEED)
    made = Ledger(
        root / "ledger", origin="onshore/cn/center-1", signer=signer, scratch=root / "scratch", lock=root / "lock"
    )
    made.create()
    if entries:
        made.append_many(("fact", {"n": index}) for index in range(entries))
    return made


def both(ledger: Ledger, root: Path, note: Path | None = None, keys: dict[str, bytes] | None = None) -> list[bool]:
    """The verdicts of the center's own verification and of the stand-alone file, run by a bare interpreter."""
    ours = ledger.verify(note, keys)
    command = [sys.executable, "-I", "-S", standalone.__file__, str(root / "ledger"), "--key", ledger.public_key.hex()]
    command += ["--witness", str(note)] if note else []
    command += [f"--witness-key={name}={key.hex()}" for name, key in (keys or {}).items()]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    theirs = json.loads(ran.stdout)
    assert ran.returncode == (0 if theirs["ok"] else 1)
    if ours.ok and theirs["ok"]:
        assert (ours.size, ours.root, ours.witnessed, ours.trust) == tuple(
            theirs[name] for name in ("size", "root", "witnessed", "trust")
        )
    return [ours.ok, theirs["ok"]]


def _lines(root: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = root / "ledger" / "entries.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


TAMPERING: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edit": lambda lines: [lines[0].replace(b'"n":0', b'"n":9'), *lines[1:]],
    "drop": lambda lines: [*lines[:3], *lines[4:]],
    "reorder": lambda lines: [lines[1], lines[0], *lines[2:]],
    "cut": lambda lines: lines[:-1],
    "add": lambda lines: [*lines, lines[-1]],
}


@pytest.mark.parametrize("how", TAMPERING)
def test_58_ledger_edited_dropped_or_reordered(tmp_path: Path, how: str) -> None:
    ledger = ledger_at(tmp_path, 21)
    assert both(ledger, tmp_path) == [True, True]
    _lines(tmp_path, TAMPERING[how])
    assert both(ledger, tmp_path) == [False, False]


def test_58_a_shortened_ledger_shows_only_to_a_witness(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path, 10)
    shutil.copytree(tmp_path / "ledger", tmp_path / "earlier")
    ledger.append("fact", {"n": "what somebody wants to hide"})
    auditor = Witness(tmp_path / "auditor", NAME)
    note, keys = tmp_path / "kept.note", {NAME: auditor.public_key}
    note.write_bytes(auditor.sign(request(ledger)))
    assert both(ledger, tmp_path, note, keys) == [True, True]
    shutil.rmtree(tmp_path / "ledger")
    (tmp_path / "earlier").rename(tmp_path / "ledger")
    assert both(ledger, tmp_path) == [True, True]  # the center alone cannot tell: that is why there are witnesses
    assert both(ledger, tmp_path, note, keys) == [False, False]
    assert "cut back" in ledger.verify(note).problems[0]
    with pytest.raises(RefusedError) as caught:
        auditor.sign(request(ledger))
    assert caught.value.code == "rollback"


def test_58_a_fork_shown_to_two_auditors(tmp_path: Path) -> None:
    """One key, two histories: each verifies alone, and neither witness signs the other's."""
    ledger = ledger_at(tmp_path / "a", 10)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = ledger_at(tmp_path / "b")
    ledger.append("fact", {"n": "shown to the first"})
    other.append("fact", {"n": "shown to the second"})
    first, second = Witness(tmp_path / "w1", NAME), Witness(tmp_path / "w2", "auditor.example/w2")
    kept = {}
    for witness, log in ((first, ledger), (second, other)):
        kept[witness.name] = tmp_path / f"{witness.public_key.hex()}.note"
        kept[witness.name].write_bytes(witness.sign(request(log)))
    other.append("fact", {"n": "and more"})
    assert both(other, tmp_path / "b", kept[second.name], {second.name: second.public_key}) == [True, True]
    assert both(other, tmp_path / "b", kept[NAME], {NAME: first.public_key}) == [False, False]
    with pytest.raises(RefusedError) as caught:
        first.sign(request(other, since=11))
    assert caught.value.code == "ledger_broken" and "fork" in str(caught.value)


def test_a_witness_goes_on_signing_what_continues(tmp_path: Path) -> None:
    ledger, auditor = ledger_at(tmp_path), Witness(tmp_path / "auditor", NAME)
    for _ in range(7):
        before = auditor.seen(ledger.origin)["size"]
        note = auditor.sign(request(ledger, since=before))
        (one,) = cosignatures(note, {NAME: auditor.public_key})
        assert one.witness == NAME
        ledger.append_many(("fact", {"n": index}) for index in range(before % 3 + 1))
    assert Witness(tmp_path / "auditor", NAME).public_key == auditor.public_key


def test_a_witness_checks_who_signs(tmp_path: Path) -> None:
    ledger, auditor = ledger_at(tmp_path, 3), Witness(tmp_path / "auditor", NAME)
    auditor.sign(request(ledger))
    asked = request(ledger, since=3)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    with pytest.raises(RefusedError):
        auditor.sign({**asked, "key": other})
    with pytest.raises(CorruptError):
        auditor.sign({**asked, "checkpoint": str(asked["checkpoint"]).replace("3\n", "4\n", 1)})


@pytest.mark.parametrize(
    "text", ["", "no JSON", "5", "[]", "{}", "[" * 100_000, '{"key": "zz"}', '{"proof": [5]}', '{"since": "now"}']
)
def test_a_request_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "request.json"
    good = request(ledger_at(tmp_path, 3))
    path.write_text(json.dumps(good))
    assert read_request(path) == good
    path.write_text(json.dumps({**good, **json.loads(text)}) if text.startswith('{"') else text)
    with pytest.raises(InputError) as caught:
        read_request(path)
    assert caught.value.code == "bad_config"


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--witness-key", "name=zz"],
        ["verify", "--witness-key", "name"],
        ["witness", "enroll", "w", "--key", "zz"],
    ],
)
def test_a_key_that_is_no_hex_is_a_usage_error(
    center: Center, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ONSHORE_USER", raising=False)
    assert cli.run(["ledger", *words, "--json", "--center", str(center.root)]) == 2
    assert "64 hex digits" in "".join(capsys.readouterr())


def test_a_cosignature_of_somebody_else_is_none(tmp_path: Path) -> None:
    ledger, auditor = ledger_at(tmp_path, 3), Witness(tmp_path / "auditor", NAME)
    note = tmp_path / "kept.note"
    note.write_bytes(auditor.sign(request(ledger)))
    stranger = Witness(tmp_path / "stranger", NAME)
    assert both(ledger, tmp_path, note, {NAME: stranger.public_key}) == [False, False]
    note.write_bytes(note.read_bytes().replace("— auditor".encode(), "— audit0r".encode()))
    assert both(ledger, tmp_path, note, {NAME: auditor.public_key}) == [False, False]


def test_a_center_knows_which_entries_are_witnessed(center: Center, tmp_path: Path) -> None:
    auditor = Witness(tmp_path / "auditor", NAME)
    note = auditor.sign(request(center.ledger))
    with pytest.raises(InputError):
        take(center, note)
    enroll(center, NAME, auditor.public_key)
    enroll(center, NAME, auditor.public_key)
    assert witnessed_size(center) == 0
    size = center.ledger.head().size
    assert [one.witness for one in take(center, auditor.sign(request(center.ledger, since=size - 1)))] == [NAME]
    assert witnessed_size(center) == size
    assert [trust_of(index, size) for index in (0, size - 1, size)] == ["witnessed", "witnessed", "self-attested"]
    with pytest.raises(InputError):
        enroll(center, NAME, bytes(32))


def test_two_forks_shown_at_once_get_one_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_at(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = ledger_at(tmp_path / "b")
    ledger.append("fact", {"n": "one history"})
    other.append("fact", {"n": "another"})
    forks = [request(log) for log in (ledger, other)]
    looked = Barrier(2)
    real = Witness.seen

    def seen(self: Witness, origin: str) -> dict[str, Any]:
        found = real(self, origin)
        with suppress(BrokenBarrierError):  # both looked before either has signed, unless one has to wait
            looked.wait(timeout=0.5)
        return found

    monkeypatch.setattr(Witness, "seen", seen)

    def sign(asked: dict[str, Any]) -> str:
        try:
            return Witness(tmp_path / "auditor", NAME).sign(asked).decode()
        except RefusedError as refused:
            return refused.code

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(sign, forks))
    assert answers.count("ledger_broken") == 1


def test_a_note_counts_only_while_the_log_holds_what_it_signed(
    center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = ["--json", "--center", str(center.root), "ledger", "verify"]
    auditor = Witness(tmp_path / "auditor", NAME)
    enroll(center, NAME, auditor.public_key)
    shutil.copytree(center.root / "ledger", tmp_path / "earlier")
    center.ledger.append("fact", {"n": "what somebody wants to hide"})
    take(center, auditor.sign(request(center.ledger)))
    assert witnessed_size(center) == 3 and contradictions(center) == [] and cli.run(verify) == 0
    capsys.readouterr()
    shutil.rmtree(center.root / "ledger")
    (tmp_path / "earlier").rename(center.root / "ledger")
    assert witnessed_size(center) == 0 and "cut back" in contradictions(center)[0]
    center.ledger.append_many([("fact", {"n": "another history"})] * 3)
    assert center.ledger.verify().ok  # in itself; it is the note that tells
    assert witnessed_size(center) == 0 and "rewritten" in contradictions(center)[0]
    assert cli.run(verify) == 1 and "rewritten" in json.loads(capsys.readouterr().out)["problems"][0]


def test_an_older_note_does_not_take_the_place_of_a_newer_one(center: Center, tmp_path: Path) -> None:
    auditor = Witness(tmp_path / "auditor", NAME)
    enroll(center, NAME, auditor.public_key)
    old = auditor.sign(request(center.ledger))
    center.ledger.append("fact", {"n": 1})
    new = auditor.sign(request(center.ledger, since=2))
    take(center, new)
    assert [one.witness for one in take(center, old)] == [NAME] and witnessed_size(center) == 3


def test_signatures_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    ledger, auditor = ledger_at(tmp_path, 3), Witness(tmp_path / "auditor", NAME)
    keys = {NAME: auditor.public_key}
    note = auditor.sign(request(ledger))
    for line in ("— somebody.example/ecdsa " + "QUJD" * 24, f"— {NAME} QUJD"):
        note += f"{line}\n".encode()
    assert [one.witness for one in cosignatures(note, keys)] == [NAME]
    (tmp_path / "kept.note").write_bytes(note)
    assert both(ledger, tmp_path, tmp_path / "kept.note", keys) == [True, True]
    (tmp_path / "kept.note").write_bytes(note + "— no signature line at all\n".encode())
    assert both(ledger, tmp_path, tmp_path / "kept.note", keys) == [False, False]


def test_a_log_without_its_entries_is_told_and_not_a_crash(tmp_path: Path) -> None:
    ledger, auditor = ledger_at(tmp_path, 3), Witness(tmp_path / "auditor", NAME)
    (tmp_path / "kept.note").write_bytes(auditor.sign(request(ledger)))
    (tmp_path / "ledger/entries.jsonl").unlink()
    assert both(ledger, tmp_path) == [False, False]
    assert both(ledger, tmp_path, tmp_path / "kept.note", {NAME: auditor.public_key}) == [False, False]
    assert ledger.verify(tmp_path / "kept.note").problems == [
        "[ledger_broken] entries.jsonl: the file cannot be read; restore it from a copy."
    ]
    with pytest.raises(CorruptError, match=r"entries\.jsonl"):
        list(ledger.entries())


def test_the_verifiers_signature_check_agrees_with_the_librarys() -> None:
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    public = key.public_key().public_bytes_raw()
    for number in range(8):
        message = bytes([number]) * number
        signature = key.sign(message)
        assert standalone.signature_holds(public, message, signature)
        for at in range(0, 64, 9):
            bad = bytes([*signature[:at], signature[at] ^ 1, *signature[at + 1 :]])
            assert not standalone.signature_holds(public, message, bad)
        high = signature[:32] + (int.from_bytes(signature[32:], "little") + standalone.L).to_bytes(32, "little")
        assert not standalone.signature_holds(public, message, high)


def test_the_verifier_needs_nothing_but_the_standard_library() -> None:
    import ast

    tree = ast.parse(Path(standalone.__file__).read_text(encoding="utf8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"__future__"}
