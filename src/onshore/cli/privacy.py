"""`onshore privacy`: how well the anonymiser finds what it must."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Anonymisation: detectors and their measured recall.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="privacy")


@noun.command("measure")
def measure(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="pictures")],
    boxes: Annotated[Path, typer.Option(help="CSV: file, class, x0, y0, x1, y1 in pixels")],
) -> None:
    """Recall per width bucket on a labelled folder, with the Wilson lower bound."""
    from onshore import privacy

    rows = [row.as_record() for row in privacy.measure(folder, boxes)]
    show = session.output()
    show.table("recall by object width", rows)
    show.answer({"buckets": rows})


@noun.command("detectors")
def detectors() -> None:
    """The detectors in use, their digests, and what is not measurable yet."""
    from onshore import privacy

    rows = privacy.default_anonymiser().describe()
    show = session.output()
    show.table("", rows)
    show.answer({"detectors": rows})
