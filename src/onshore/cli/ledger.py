"""`onshore ledger`: what was done, provably."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session
from onshore.core.errors import UsageError

noun = typer.Typer(no_args_is_help=True, help="The ledger: verify, show, checkpoint, witness, verifier.")
witness_noun = typer.Typer(no_args_is_help=True, help="Witnesses: enroll, sign (the auditor's side), add, list.")
noun.add_typer(witness_noun, name="witness")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="ledger")


@noun.command("verify")
def verify(
    witness: Annotated[Path | None, typer.Option(help="a checkpoint that somebody outside kept")] = None,
    witness_key: Annotated[
        list[str] | None, typer.Option(help="NAME=HEX: who must have cosigned it; may be given more than once")
    ] = None,
) -> None:
    """Re-compute the whole log and compare it with its signed checkpoint and the witness notes kept (and a witness's copy)."""
    from onshore.store.witness import contradictions

    keys = {name: _key(key) for name, _, key in (one.rpartition("=") for one in witness_key or [])}
    center = session.center()
    report = center.ledger.verify(witness=witness, witness_keys=keys or None)
    if report.ok:
        problems = contradictions(center)
        report = replace(report, ok=not problems, problems=problems)
    document = {"ok": report.ok, "size": report.size, "root": report.root, "problems": list(report.problems)}
    document |= {"trust": report.trust, "witnessed": report.witnessed}
    verdict = "verifies" if report.ok else "DOES NOT VERIFY"
    session.output().answer(
        document,
        f"ledger of {report.size} entries {verdict}; root {report.root}",
        f"trust level {report.trust}, {report.witnessed} entries witnessed",
        *report.problems,
    )
    if not report.ok:
        raise typer.Exit(1)


@noun.command("show")
def show_ledger(
    last: Annotated[int, typer.Option(min=1, help="at most this many, newest last")] = 50,
    kind: Annotated[str | None, typer.Option(help="only entries of this kind")] = None,
) -> None:
    """The newest entries, each with its trust level."""
    from collections import deque

    from onshore.store.witness import trust_of, witnessed_size

    center = session.center()
    seen = witnessed_size(center)
    entries = (entry for entry in center.ledger.entries() if kind in (None, entry.kind))
    rows = [
        {"index": e.index, "time_ns": e.time_ns, "kind": e.kind, "trust": trust_of(e.index, seen), "body": e.body}
        for e in deque(entries, maxlen=last)
    ]
    show = session.output()
    show.table("", rows)
    show.answer({"entries": rows})


@noun.command("accept-clock")
def accept_clock() -> None:
    """Say that this machine's time is right, after a long gap or where the ledger saw a wrong one; all goes on from it."""
    from onshore.border.lines import acting
    from onshore.store.ledger import CLOCK_ACCEPTED

    center = session.center()
    entry = center.ledger.append(CLOCK_ACCEPTED, {"by": acting(center)})
    session.output().answer({"entry": entry.index, "time_ns": entry.time_ns}, f"accepted as entry {entry.index}")


@noun.command("checkpoint")
def checkpoint(
    since: Annotated[int, typer.Option(min=0, help="the size that the witness signed before")] = 0,
) -> None:
    """The signed checkpoint with the proof that it continues an earlier one: what a witness asks for."""
    from onshore.store.witness import request

    asked = request(session.center().ledger, since)
    session.output().answer(asked, json.dumps(asked, ensure_ascii=False))


@noun.command("verifier")
def verifier(
    out: Annotated[Path | None, typer.Option(help="an in-region folder; without it the file goes to stdout")] = None,
) -> None:
    """The one-file verifier that runs without onshore; compare its digest with a published one."""
    from importlib.resources import files

    from onshore import border
    from onshore.core.digest import sha256_hex

    data = files("onshore.store").joinpath("standalone.py").read_bytes()
    if out is None:
        session.output().answer({"sha256": sha256_hex(data), "verifier": data.decode()}, data.decode())
        return
    (path,) = border.write_out(session.center(), {"onshore_ledger_verify.py": data}, out)
    session.output().answer({"sha256": sha256_hex(data), "file": str(path)}, f"{path} {sha256_hex(data)}")


@witness_noun.command("sign")
def witness_sign(
    request: Annotated[Path, typer.Argument(help="what `ledger checkpoint --json` printed")],
    state: Annotated[Path, typer.Option(help="the auditor's own folder: key and what was signed before")],
    name: Annotated[str, typer.Option(help="the witness's public name")],
) -> None:
    """Cosign a checkpoint as an auditor: only what continues what was signed before. Needs no center."""
    from onshore.store.witness import Witness, read_request

    auditor = Witness(state, name)
    note = auditor.sign(read_request(request))
    document = {"witness": name, "key": auditor.public_key.hex(), "note": note.decode()}
    session.output().answer(document, note.decode().rstrip("\n"))


@witness_noun.command("enroll")
def witness_enroll(
    name: Annotated[str, typer.Argument(help="the witness's public name")],
    key: Annotated[str, typer.Option(help="its public key, 64 hex digits")],
) -> None:
    """Accept this witness's cosignatures from now on."""
    from onshore.store.witness import enroll

    enroll(session.center(), name, _key(key))
    session.output().answer({"witness": name, "key": key}, f"{name} enrolled")


def _key(text: str) -> bytes:
    """A public key as people give it. Errors: UsageError; its length is checked where it is used."""
    try:
        return bytes.fromhex(text)
    except ValueError as fault:
        raise UsageError(f"key {text!r}", "give 64 hex digits.") from fault


@witness_noun.command("add")
def witness_add(note: Annotated[Path, typer.Argument(help="the cosigned note")]) -> None:
    """Take a cosigned note back: entries up to its size count as witnessed."""
    from onshore.store.witness import note_at, take, witnessed_size

    center = session.center()
    rows = [vars(one) for one in take(center, note_at(note))]
    size = witnessed_size(center)
    session.output().answer({"cosignatures": rows, "witnessed": size}, f"{size} entries are witnessed")


@witness_noun.command("list")
def witness_list() -> None:
    """Enrolled witnesses and how many entries they have seen."""
    from onshore.store.witness import enrolled, witnessed_size

    center = session.center()
    rows = [{"witness": name, "key": key.hex()} for name, key in sorted(enrolled(center).items())]
    show = session.output()
    show.table(f"{witnessed_size(center)} entries witnessed", rows)
    show.answer({"witnesses": rows, "witnessed": witnessed_size(center)})
