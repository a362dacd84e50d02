"""`onshore model`: train, adapt, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Models: train, adapt, export, list.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="model")


@noun.command("train")
def train(
    recipe: Annotated[str, typer.Option(help="a recipe's name; `onshore model recipes` lists them")],
    dataset: Annotated[str, typer.Option(help="a dataset's name or id")],
    base: Annotated[str | None, typer.Option(help="weights to start from")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="override the recipe's steps")] = None,
    seed: Annotated[int | None, typer.Option(help="override the recipe's seed")] = None,
    checkpoint_steps: Annotated[int, typer.Option(min=0, help="a checkpoint after so many steps; 0: none")] = 200,
    metrics: Annotated[
        Path | None, typer.Option(help="a line of JSON every 50 steps into this file, in-region")
    ] = None,
) -> None:
    """Train a model on a frozen dataset; the same inputs give the same weights, and a killed run goes on."""
    from onshore.flywheel import training

    show = session.output()
    asked = {"base": base, "steps": steps, "seed": seed, "checkpoint_steps": checkpoint_steps, "metrics": metrics}
    with show.progress() as progress:
        row = training.train(session.center(), recipe, dataset, **asked, progress=progress)  # type: ignore[arg-type]
    show.answer({"model": row}, *(f"{name}: {value}" for name, value in row.items()))


@noun.command("adapt")
def adapt(
    base: Annotated[str, typer.Option(help="the imported base's weights")],
    dataset: Annotated[str, typer.Option(help="a dataset's name or id")],
    recipe: Annotated[str, typer.Option(help="a recipe's name")] = "nano-cn-adapt",
) -> None:
    """Train an imported base further on local clips."""
    train(recipe=recipe, dataset=dataset, base=base, steps=None, seed=None, checkpoint_steps=200, metrics=None)


@noun.command("recipes")
def list_recipes() -> None:
    """The recipes that `train` knows."""
    from onshore.flywheel import training

    rows = training.recipe_rows()
    show = session.output()
    show.table("", rows)
    show.answer({"recipes": rows})


@noun.command("inverse")
def inverse(
    dataset: Annotated[str, typer.Option(help="own drives with signals, by name or id; its held-out drives calibrate")],
    steps: Annotated[int | None, typer.Option(min=20, help="override the recipe's steps")] = None,
    seed: Annotated[int | None, typer.Option(help="override the recipe's seed")] = None,
) -> None:
    """Train the network that reads speed and yaw rate from pictures, and calibrate its intervals (experimental)."""
    from onshore.flywheel import training

    show = session.output()
    with show.progress() as progress:
        row = training.train_inverse(session.center(), dataset, steps=steps, seed=seed, progress=progress)
    show.answer({"model": row}, *(f"{name}: {value}" for name, value in row.items() if name != "log"))


@noun.command("pseudo-label")
def pseudo_label(
    model_id: Annotated[str, typer.Argument(metavar="MODEL", help="from `onshore model inverse`")],
    speed: Annotated[
        float, typer.Option(help="reject a moment whose speed is less sure than this, m/s, and than 35 % of it")
    ] = 2.5,
    yaw_rate: Annotated[float, typer.Option(help="the same for the yaw rate, rad/s")] = 0.12,
) -> None:
    """Label public video that has no signals; `dataset freeze --pseudo-labels` trains on it (experimental)."""
    from onshore.model.inverse import pseudo_label as label

    show = session.output()
    with show.progress() as progress:
        row = vars(label(session.center(), model_id, speed_half_mps=speed, yaw_half_radps=yaw_rate, progress=progress))
    show.answer({"labels": row}, *(f"{name}: {value}" for name, value in row.items()))


@noun.command("export")
def export(
    model_id: Annotated[str, typer.Argument(metavar="MODEL")],
    out: Annotated[Path | None, typer.Option(help="also write the file here: in-region, or with a permit")] = None,
    int8: Annotated[str | None, typer.Option(help="8-bit convolutions, calibrated on this dataset")] = None,
    permit: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Export a model as ONNX and check that it equals the trained network, or say how far 8 bits are from it."""
    from onshore.flywheel import outward

    document = outward.export_model(session.center(), model_id, out, int8=int8, permit=permit)
    session.output().answer({"onnx": document}, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("convert")
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    out: Annotated[Path, typer.Option(help="the safetensors file to write, in-region")],
) -> None:
    """Turn a pickle or PyTorch checkpoint into safetensors, opened in the jail; border import then takes it in."""
    from onshore.flywheel import outward

    document = outward.convert_weights(session.center(), file, out)
    session.output().answer({"converted": document}, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("list")
def list_models() -> None:
    """Every model of the center, imported ones too."""
    from onshore.flywheel import training

    rows = session.sift(training.models_of(session.center()))
    show = session.output()
    show.table("", rows)
    show.answer({"models": rows}, f"{len(rows)} models")


@noun.command("show")
def show_model(model_id: Annotated[str, typer.Argument(metavar="MODEL")]) -> None:
    """One model: recipe, dataset, base, losses, digest."""
    from onshore.flywheel import training

    session.look(model_id)
    row = training.show(session.center(), model_id)
    session.output().answer({"model": row}, *(f"{name}: {value}" for name, value in row.items()))
