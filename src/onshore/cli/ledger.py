"""`onshore ledger`: what was done, provably."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="The ledger: verify, show.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="ledger")


@noun.command("verify")
def verify(
    witness: Annotated[Path | None, typer.Option(help="a checkpoint that somebody outside kept")] = None,
) -> None:
    """Re-compute the whole log and compare it with its signed checkpoint (and a witness's copy)."""
    report = session.center().ledger.verify(witness=witness) if witness else session.center().ledger.verify()
    document = {"ok": report.ok, "size": report.size, "root": report.root, "problems": list(report.problems)}
    verdict = "verifies" if report.ok else "DOES NOT VERIFY"
    session.output().answer(
        document, f"ledger of {report.size} entries {verdict}; root {report.root}", *report.problems
    )
    if not report.ok:
        raise typer.Exit(1)


@noun.command("show")
def show_ledger(
    last: Annotated[int, typer.Option(min=1, help="at most this many, newest last")] = 50,
    kind: Annotated[str | None, typer.Option(help="only entries of this kind")] = None,
) -> None:
    """The newest entries."""
    from collections import deque

    entries = (entry for entry in session.center().ledger.entries() if kind in (None, entry.kind))
    rows = [
        {"index": e.index, "time_ns": e.time_ns, "kind": e.kind, "body": e.body} for e in deque(entries, maxlen=last)
    ]
    show = session.output()
    show.table("", rows)
    show.answer({"entries": rows})


@noun.command("accept-clock")
def accept_clock() -> None:
    """Say that this machine's time is right after a long gap; the ledger and every retention go on from it."""
    from onshore.border.lines import acting
    from onshore.store.ledger import CLOCK_ACCEPTED

    center = session.center()
    entry = center.ledger.append(CLOCK_ACCEPTED, {"by": acting(center)})
    session.output().answer({"entry": entry.index, "time_ns": entry.time_ns}, f"accepted as entry {entry.index}")
