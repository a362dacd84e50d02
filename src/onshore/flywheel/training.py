"""Training by name, for the command: recipes are functions in `recipes/`, or in a file of your own.

Rule: a name is a function's name with '-' for '_'; nothing is registered anywhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from onshore.border import open_folder
from onshore.border.erasure import marks_of
from onshore.core.errors import InputError, NotFoundError
from onshore.core.progress import Progress, silent
from onshore.dataset import manifest
from onshore.model import Recipe, inverse, models
from onshore.store import Center

#: Modules whose public functions are recipes.
SHELVES = ("recipes.nano", "recipes.temporal")


def recipe(name: str) -> Recipe:
    """A recipe by name, by `FILE.py:function` or by `module:function` of an installed package.

    Errors: NotFoundError, InputError for a function that makes no Recipe.
    """
    if ":" in name:
        place, _, function = name.rpartition(":")
        made: Any = getattr(_module(place), function, lambda: None)()
        if not isinstance(made, Recipe):
            raise InputError("bad_config", name, "the function must exist and return an onshore.model.Recipe.")
        return made
    found = dict(_functions()).get(name)
    if found is not None:
        return found()
    raise NotFoundError(f"recipe {name!r}", f"there are {', '.join(known for known, _ in _functions())}.")


def recipe_rows() -> list[dict[str, Any]]:
    """Every shipped recipe: name, steps, view, what it was proven on."""
    rows = []
    for name, function in _functions():
        made = function()
        view = made.trainable.view
        shown = f"{view.width_px}x{view.height_px} f={view.focal_px:g}"
        about = (inspect.getdoc(function) or "").splitlines()[0]
        rows.append({"name": name, "steps": made.steps, "view": shown, "about": about})
    return rows


def train(
    center: Center,
    recipe_name: str,
    dataset: str,
    *,
    base: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    checkpoint_steps: int = models.CHECKPOINT_STEPS,
    metrics: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train on a dataset named by name or id; the same inputs give the same weights and the second run makes nothing.
    A run that was killed goes on from its last checkpoint (`checkpoint_steps`). metrics: a file, in-region, that gets one
    line of JSON every 50 steps while it trains.

    The network sees through the views that the dataset was frozen for: cameras decide them, not the recipe.
    """
    chosen, frozen = recipe(recipe_name), manifest.row_of(center, dataset)
    seen = manifest.views_of(manifest.show(center, frozen.id)["settings"])
    views = {"view": seen.view, "side_views": seen.side_views}
    chosen = replace(chosen, trainable=replace(chosen.trainable, **views))  # type: ignore[type-var]
    chosen = replace(chosen, steps=steps) if steps is not None else chosen
    chosen = replace(chosen, seed=seed) if seed is not None else chosen
    tell = (
        None if metrics is None else _lines_in(open_folder(center, [], metrics.parent, kind="metrics") / metrics.name)
    )
    row = models.train(
        center, frozen.id, chosen, base=base, checkpoint_steps=checkpoint_steps, tell=tell, progress=progress
    )
    last = row.log[-1] if row.log else [0, None, None]
    return {
        "id": row.id,
        "recipe": row.name,
        "dataset": row.dataset,
        "base": row.base,
        "windows": row.windows,
        "takeovers": row.takeovers,
        "steps": last[0],
        "path_loss": last[1],
        "speed_loss_mps": last[2],
        "seconds": row.seconds,
        "samples_per_s": row.samples_per_s,
        "synthetic": row.synthetic,
        "fresh": row.fresh,
    }


def train_inverse(
    center: Center, dataset: str, *, steps: int | None = None, seed: int | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Train and calibrate inverse dynamics on a dataset named by name or id, for the view that it was frozen for."""
    given: dict[str, Any] = {n: value for n, value in (("steps", steps), ("seed", seed)) if value is not None}
    view = manifest.views_of(manifest.show(center, dataset)["settings"]).view
    chosen = inverse.inverse_recipe(trainable=inverse.InverseDynamics(view=view), **given)
    return vars(inverse.train_inverse(center, dataset, chosen, progress=progress))


def _lines_in(path: Path) -> Callable[[dict[str, float]], None]:
    """Adds a line of JSON to a file for each thing told; a line that is there is whole."""

    def tell(figures: dict[str, float]) -> None:
        with path.open("a", encoding="utf8") as file:
            file.write(json.dumps(figures) + "\n")

    return tell


def models_of(center: Center) -> list[dict[str, Any]]:
    """Every model of the center, oldest first, imported ones too."""
    found = [*center.artifacts(kind="inbound_model"), *center.artifacts(kind="weights")]
    return [
        {
            "id": one.id,
            "name": one.name,
            "kind": one.label.kind,
            "dataset": one.meta.get("dataset"),
            "base": one.meta.get("base"),
            "synthetic": one.label.synthetic,
        }
        for one in found
    ]


def show(center: Center, model_id: str) -> dict[str, Any]:
    """One model's record: label, parents, recipe, losses, and which erased subjects it was asked about."""
    one = center.artifact(model_id)
    meta = {key: value for key, value in one.meta.items() if key != "manifest"}
    marks = [
        {name: mark[name] for name in ("subject", "ticket", "answer")} for mark in marks_of(center, model=model_id)
    ]
    contains = sorted(mark["subject"] for mark in marks if mark["answer"] != "no")
    record = {"id": one.id, "name": one.name, "parents": list(one.parents), "label": one.label.as_record()}
    return {**record, **meta, "contains_deleted": contains, "erasures": marks}


def _functions() -> Iterator[tuple[str, Callable[[], Recipe]]]:
    for shelf in SHELVES:
        module = importlib.import_module(shelf)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == shelf:
                yield name.replace("_", "-"), function


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        try:
            return importlib.import_module(place)
        except ImportError as problem:
            raise NotFoundError(f"module {place}", f"install the package that holds it ({problem}).") from problem
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise NotFoundError(path, "give a Python file with a function that returns a Recipe.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
