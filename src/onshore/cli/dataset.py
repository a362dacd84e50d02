"""`onshore dataset`: freeze what is learned from."""

from __future__ import annotations

from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Frozen manifests of clips: freeze, list, show, compare, verify.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="dataset")


@noun.command("freeze")
def freeze(
    name: Annotated[str, typer.Argument()],
    query: Annotated[str | None, typer.Option(help="a condition over the clip table; all clips by default")] = None,
    held_out: Annotated[float, typer.Option(min=0.0, max=0.9, help="share of drives kept for open-loop tests")] = 0.2,
    seed: Annotated[int, typer.Option()] = 0,
    recipe: Annotated[
        str | None, typer.Option(help="freeze for this recipe's views; by default the one that fits the cameras")
    ] = None,
    pseudo_labels: Annotated[
        list[str] | None,
        typer.Option(help="ids from `model pseudo-label`, for public video among the clips; repeat it"),
    ] = None,
    pseudo_weight: Annotated[float, typer.Option(help="how often its samples are drawn, beside own ones")] = 1.0,
) -> None:
    """Freeze clips into a dataset split by drive; the same clips give the same digest."""
    from onshore import dataset
    from onshore.dataset import manifest
    from onshore.flywheel import training

    show = session.output()
    wanted = training.recipe(recipe).trainable if recipe else None
    with show.progress() as progress:
        row = dataset.freeze(
            session.center(),
            name,
            where=query,
            held_out=held_out,
            seed=seed,
            view=wanted.view if wanted else manifest.fit_view(session.center(), query),
            side_views=wanted.side_views if wanted else (),
            pseudo_labels=pseudo_labels or (),
            pseudo_weight=pseudo_weight,
            progress=progress,
        )
    document = vars(row)
    show.answer({"dataset": document}, *(f"{key}: {value}" for key, value in document.items()))


@noun.command("add")
def add(
    name: Annotated[str, typer.Argument(help="name or id")],
    query: Annotated[str, typer.Option(help="a condition over the clip table: what to add")],
) -> None:
    """The next version of a dataset, with more clips."""
    from onshore.dataset import manifest

    document = vars(manifest.add(session.center(), name, where=query))
    session.output().answer({"dataset": document}, *(f"{key}: {value}" for key, value in document.items()))


@noun.command("drop")
def drop(
    name: Annotated[str, typer.Argument(help="name or id")],
    query: Annotated[str, typer.Option(help="a condition over the clip table: what to leave out")],
) -> None:
    """The next version of a dataset, without some clips."""
    from onshore.dataset import manifest

    document = vars(manifest.drop(session.center(), name, where=query))
    session.output().answer({"dataset": document}, *(f"{key}: {value}" for key, value in document.items()))


@noun.command("choose")
def choose(
    name: Annotated[str, typer.Argument(help="name or id of the dataset that is chosen from")],
    into: Annotated[str, typer.Option(help="name of the dataset that the chosen clips become")],
    minutes: Annotated[float, typer.Option(min=0.1, help="how much of it")],
    how: Annotated[str, typer.Option(help="random, triggers, disagreement or novelty")] = "disagreement",
    model: Annotated[
        str, typer.Option(help="weights whose plans are looked at; disagreement and novelty need them")
    ] = "",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Freeze so many minutes of a dataset: the clips most worth learning from; nothing of it is held out."""
    from onshore import dataset
    from onshore.bundle.inputs import View
    from onshore.dataset import manifest
    from onshore.evaluation.selection import choose

    show, center = session.output(), session.center()
    settings = manifest.show(center, name)["settings"]
    with show.progress() as progress:
        ids = choose(center, name, how, minutes, model=model, seed=seed, progress=progress)
        row = dataset.freeze(
            center,
            into,
            where=f"id IN ({', '.join(repr(one) for one in sorted(ids))})",
            held_out=0.0,
            view=View.from_record(settings["view"]),
            side_views=[View.from_record(view) for view in settings.get("side_views", ())],
            pseudo_labels=settings.get("pseudo_labels", ()),
            pseudo_weight=settings.get("pseudo_weight", 1.0),
            progress=progress,
        )
    document = vars(row)
    show.answer({"dataset": document}, *(f"{key}: {value}" for key, value in document.items()))


@noun.command("list")
def list_datasets() -> None:
    """Every frozen dataset."""
    from onshore.dataset import manifest

    rows = session.sift(manifest.datasets(session.center()))
    show = session.output()
    show.table("", rows, "name id clips drives seconds".split())
    show.answer({"datasets": rows}, f"{len(rows)} datasets")


@noun.command("show")
def show_dataset(name: Annotated[str, typer.Argument(help="name or id")]) -> None:
    """One dataset: counts, split, parents."""
    from onshore.dataset import manifest

    session.look(name)
    document = manifest.show(session.center(), name)
    session.output().answer({"dataset": document}, *(f"{k}: {v}" for k, v in document.items() if k != "clips"))


@noun.command("diff")
def diff(a: Annotated[str, typer.Argument(metavar="A")], b: Annotated[str, typer.Argument(metavar="B")]) -> None:
    """Clips that only one of two datasets holds."""
    from onshore.dataset import manifest

    document = manifest.diff(session.center(), a, b)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("verify")
def verify(name: Annotated[str, typer.Argument(help="name or id")]) -> None:
    """Re-read every blob of a dataset and compare digests."""
    from onshore.dataset import manifest

    document = manifest.verify(session.center(), name)
    session.output().answer(document, *(f"{key}: {value}" for key, value in document.items()))
    if document.get("problems"):
        raise typer.Exit(1)
