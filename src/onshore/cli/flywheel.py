"""`onshore flywheel`: the loop as a whole."""

from __future__ import annotations

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="The loop as a whole: status.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="flywheel")


@noun.command("status")
def status() -> None:
    """What the center holds at each stop of the path."""
    from onshore import flywheel

    rows = flywheel.status(session.center())
    show = session.output()
    show.table("", rows)
    show.answer({"stops": rows})
