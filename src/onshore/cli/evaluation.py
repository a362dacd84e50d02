"""`onshore evaluation`: drive it, score it, compare it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Evaluation: open loop, closed loop, comparison, golden vectors.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="evaluation")


@noun.command("run")
def run(
    model: Annotated[str, typer.Option(help="a model of the center, or stop, constant-speed, expert")],
    suite: Annotated[str | None, typer.Option(help="a closed-loop suite such as cn-core")] = None,
    dataset: Annotated[str | None, typer.Option(help="open loop on this dataset's held-out drives")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Score a model: closed loop on a suite of held-out worlds, open loop on held-out drives, or both."""
    from onshore.flywheel import judging

    show = session.output()
    with show.progress() as progress:
        document = judging.evaluate(
            session.center(), model=model, suite=suite, dataset=dataset, workers=workers, progress=progress
        )
    show.table("open loop on held-out drives (not a driving score)", document["open_loop"])
    show.table("closed loop (synthetic town world)", document["closed_loop"])
    show.answer(document)


@noun.command("compare")
def compare(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    suite: Annotated[str, typer.Option(help="the suite that both have driven")],
) -> None:
    """Who drives better, paired by world and ego."""
    from onshore.flywheel import judging

    document = judging.compare(session.center(), a, b, suite)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("rules")
def rules(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGETS", help="drives, suite results, rollouts, .mcap or .rollout files")
    ],
    context: Annotated[Path | None, typer.Option(help="the map context beside a recorded drive")] = None,
    region: Annotated[str | None, typer.Option(help="whose rules; by default those of where it was driven")] = None,
) -> None:
    """Traffic rules over what was driven: offences, points and fines per 100 km, and what could not be judged."""
    from onshore.evaluation import recorded

    center = session.center() if session.has_center() else None
    document = recorded.rule_report(targets, center=center, context=context, region=region)
    show = session.output()
    show.table(f"traffic rules of {document['region']}, {document['km']:.2f} km", recorded.rule_rows(document))
    show.answer(document, *recorded.rule_lines(document))


@noun.command("golden")
def golden(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="cases with the original scorers' results")],
) -> None:
    """Recompute every case of a golden file; any disagreement is printed and fails."""
    from onshore.evaluation.golden import golden as recompute
    from onshore.evaluation.golden import golden_cases

    rows = [vars(row) for row in recompute(file)]
    cases = golden_cases(file)
    show = session.output()
    show.table("disagreements" if rows else "", rows)
    show.answer({"cases": cases, "disagreements": rows}, f"{cases} cases, {len(rows)} disagreements")
    if rows:
        raise typer.Exit(1)
