"""`onshore clip`: find the seconds worth learning from."""

from __future__ import annotations

from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Seconds worth learning from: find, show, back-test a trigger.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="clip")


@noun.command("find")
def find(
    sql: Annotated[str | None, typer.Option(help='a condition over the clip table, e.g. "duration_s > 5"')] = None,
    trigger: Annotated[str | None, typer.Option(help="only clips of this trigger")] = None,
    count: Annotated[int, typer.Option("-k", min=1, help="at most this many")] = 50,
) -> None:
    """Clips of the catalog."""
    from onshore import clip

    rows = session.sift(clip.find(session.center(), where=sql, trigger=trigger, limit=count))
    show = session.output()
    show.table("", rows, "id trigger drive duration_s speed_mean_mps".split())
    show.answer({"clips": rows}, f"{len(rows)} clips")


@noun.command("show")
def show_clip(clip_id: Annotated[str, typer.Argument(metavar="CLIP")]) -> None:
    """One clip and where it comes from."""
    from onshore import clip

    session.look(clip_id)
    row = clip.show(session.center(), clip_id)
    session.output().answer({"clip": row}, *(f"{name}: {value}" for name, value in row.items()))


@noun.command("backtest")
def backtest(trigger: Annotated[str, typer.Argument(help="a trigger's name, or a TOML file of triggers")]) -> None:
    """How often a trigger would have asked for a clip in the drives that are here."""
    from onshore import clip

    result = clip.backtest(session.center(), trigger)
    session.output().answer(result, *(f"{name}: {value}" for name, value in result.items()))
