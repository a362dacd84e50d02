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
    replay: Annotated[
        str | None, typer.Option(help="closed loop on the video of this recorded drive or segment")
    ] = None,
    context: Annotated[
        Path | None, typer.Option(help="map context of that drive; its road users follow the log")
    ] = None,
    rows: Annotated[bool, typer.Option(help="drive stop, constant speed, expert, … beside it")] = True,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Score a model: closed loop on a suite of held-out worlds or on recorded video, open loop on held-out drives."""
    from onshore.evaluation.replayed import SHOWN
    from onshore.flywheel import judging

    show = session.output()
    with show.progress() as progress:
        document = judging.evaluate(
            session.center(),
            model=model,
            suite=suite,
            dataset=dataset,
            replay=replay,
            context=context,
            rows=rows,
            workers=workers,
            progress=progress,
        )
    show.table("open loop on held-out drives (not a driving score)", document["open_loop"])
    show.table("closed loop (synthetic town world)", document["closed_loop"])
    show.table(
        "success by scenario family, percent (synthetic)" if document["scenarios"] else "", document["scenarios"]
    )
    title = "replay of recorded video (valid range only, no driving score)" if document["replay"] else ""
    show.table(title, document["replay"], SHOWN if title else ())
    show.answer(document)


@noun.command("blind")
def blind(
    model: Annotated[str, typer.Option(help="a model of the center, or a rival")],
    suite: Annotated[str, typer.Option(help="a suite of scenario families such as cn-eyes")],
    family: Annotated[list[str] | None, typer.Option(help="only this family; may be given again")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Does the camera matter? Each scenario family driven by a model and by itself before a black camera, paired."""
    from onshore.flywheel import judging

    show = session.output()
    with show.progress() as progress:
        document = judging.blind(
            session.center(), model, suite, families=family or (), workers=workers, progress=progress
        )
    rows = [{name: cell for name, cell in row.items() if name != "eyes"} for row in document["families"]]
    show.table("worlds passed with the camera and with a black one (synthetic)", rows)
    show.answer(document, f"apart in {document['apart']} of {document['need_eyes']} families that need eyes")


@noun.command("compare")
def compare(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    suite: Annotated[str, typer.Option(help="the suite that both have driven, or whose kind of worlds to drive")],
    sequential: Annotated[bool, typer.Option(help="drive worlds batch by batch until it is decided")] = False,
    minimum_effect: Annotated[float, typer.Option(help="points of score worth finding (sequential)")] = 8.0,
    most_worlds: Annotated[int, typer.Option(min=1, help="give up after this many (sequential)")] = 160,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Who drives better, paired by world and ego; --sequential asks whether B is better and stops early."""
    from onshore.flywheel import judging

    show = session.output()
    with show.progress() as progress:
        if sequential:
            document = judging.compare_sequentially(
                session.center(),
                a,
                b,
                suite,
                minimum_effect=minimum_effect,
                most_worlds=most_worlds,
                workers=workers,
                progress=progress,
            )
        else:
            document = judging.compare(session.center(), a, b, suite)
    show.answer(document, *(f"{name}: {value}" for name, value in document.items()))


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


@noun.command("rescore")
def rescore(
    targets: Annotated[list[str], typer.Argument(metavar="TARGETS", help="suite results or rollouts of the center")],
    scorers: Annotated[
        str, typer.Option(help="comma-separated: carla20, carla21, b2d, epdms, comfort, infractions, rules-<region>")
    ] = "carla20,carla21,b2d,epdms,comfort,infractions",
) -> None:
    """Compute scores anew from stored rollouts: nothing is driven again."""
    from onshore.evaluation import recorded

    document = recorded.rescore(
        session.center(), targets, [name.strip() for name in scorers.split(",") if name.strip()]
    )
    show = session.output()
    for result in document["results"]:
        show.table(f"{result['policy']} on {result['suite']}", result["rows"])
    show.answer(document)


@noun.command("show")
def show_results() -> None:
    """Every closed-loop result of the center, with worlds, egos, seeds and interval; and its replays of recorded video."""
    from onshore.evaluation import recorded

    rows, replays = recorded.suite_results(session.center()), recorded.replay_results(session.center())
    show = session.output()
    show.table("closed loop", rows)
    show.table("replays of recorded video" if replays else "", replays)
    show.answer({"results": rows, "replays": replays})


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
