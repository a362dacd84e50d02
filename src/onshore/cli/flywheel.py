"""`onshore flywheel`: the loop as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session
from onshore.core.errors import UsageError

noun = typer.Typer(no_args_is_help=True, help="The loop as a whole: status, and the ladder of what data is worth.")
COLUMNS = "name suite score low high worlds seeds".split()


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


@noun.command("ladder")
def ladder(
    out: Annotated[Path, typer.Option(help="folder for the centers, fleets and records")] = Path("onshore-ladder"),
    results: Annotated[Path, typer.Option(help="folder for ladder.json, ladder.md and plots")] = Path("docs/results"),
    rows: Annotated[str, typer.Option(help="names with commas; all of them, unless said")] = "",
    seeds: Annotated[str, typer.Option(help="training seeds with commas")] = "0",
    budget_minutes: Annotated[float | None, typer.Option(min=0, help="begin no further row after this")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="every kind of row in minutes, for tests; no score claim")
    ] = False,
    views: Annotated[
        int, typer.Option(help="1, 2 or 4: with more, fleet and network see more, in few rows with a page of their own")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="processes for worlds, recording and intake")] = 1,
) -> None:
    """Base, public video, simulation, fleets by minutes and cars, with and without on-policy rounds, at equal steps."""
    from onshore.flywheel import ladder as experiment

    if views not in experiment.PLANS or (tiny and views != 1):
        raise UsageError(f"--views {views}", "give 1, 2 or 4; with --tiny there is one.")
    plan = experiment.TINY if tiny else experiment.PLANS[views]
    show = session.output()
    with show.progress() as progress:
        document = experiment.run(
            out,
            results,
            rows=[name for name in rows.split(",") if name],
            seeds=_numbers(seeds),
            budget_minutes=budget_minutes,
            workers=workers,
            plan=plan,
            progress=progress,
            say=show.say,
        )
    made = [row for row in document["rows"] if row["score"] is not None]
    show.table("Driving score (synthetic town world, percent)", made, COLUMNS)
    show.answer(
        document,
        *experiment.summary(document),
        f"page: {results / plan.page}.md",
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError as problem:
        raise UsageError(f"--seeds {text}", "give numbers with commas between them, like 0,1,2.") from problem
