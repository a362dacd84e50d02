"""`onshore car`: the vehicle's side, run here as a car would run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="The vehicle side: update, run, shadow.")
CarDir = Annotated[Path, typer.Option("--car", help="the car's own folder")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="car")


@noun.command("update")
def update(
    car_dir: CarDir,
    repository: Annotated[
        Path | None, typer.Option("--from", help="a release repository; the center's by default")
    ] = None,
) -> None:
    """Install the newest release that verifies; otherwise keep driving the one there is."""
    from onshore import flywheel

    document = flywheel.update_car(session.center() if session.has_center() else None, car_dir, repository)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))
    if document["refused"]:
        raise typer.Exit(3)


@noun.command("run")
def run(car_dir: CarDir, drive: Annotated[str, typer.Option(help="a drive or segment id, or an MCAP file")]) -> None:
    """Run the installed model over a recording and print what it proposes."""
    from onshore import flywheel

    document = flywheel.run_car(session.center() if session.has_center() else None, car_dir, drive)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items() if name != "plans"))


@noun.command("shadow")
def shadow(car_dir: CarDir, drive: Annotated[str, typer.Option(help="a drive or segment id, or an MCAP file")]) -> None:
    """Compare the installed model with what was driven; where they differ, ask for a clip. Never actuates."""
    from onshore import flywheel

    document = flywheel.shadow_drive(session.center() if session.has_center() else None, car_dir, drive)
    show = session.output()
    show.table("clips asked for", document["requests"])
    show.answer(document, *(f"{name}: {value}" for name, value in document.items() if name != "requests"))
