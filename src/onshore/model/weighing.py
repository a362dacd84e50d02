"""How much pseudo-labels may count: learned from held-out drives whose motion was recorded, never from the labels themselves.

Rule: every weight gets the same recipe, steps, base and held-out drives; the least loss there wins, and 0 (without them) is
always tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.dataset import freeze, in_order, load_windows
from onshore.dataset.split import HELD_OUT
from onshore.model.jailed import window_spec
from onshore.model.models import load_network, train
from onshore.model.recipe import Recipe
from onshore.model.training import reproducible, tensors
from onshore.store import Center

WEIGHTS = (0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class WeightRow:
    """What `choose_weight` found. tried: per weight the losses on held-out own drives (path, and speed in m/s), the dataset
    and the model. weight, dataset, model: of the best."""

    weight: float
    dataset: str
    model: str
    held_out_windows: int
    tried: tuple[dict[str, Any], ...]


def choose_weight(
    center: Center,
    name: str,
    recipe: Recipe,
    pseudo_labels: Sequence[str],
    *,
    base: str | None = None,
    weights: Sequence[float] = WEIGHTS,
    progress: Progress = silent,
    **frozen: Any,
) -> WeightRow:
    """Train `recipe` on the center's clips with the labels at each weight and without them; keep the best on held-out drives.

    frozen: what else `dataset.freeze` is told (where, held_out, seed, view, takeovers). Errors: InputError
    `not_measurable` when no own drive is held out, and whatever `freeze` and `train` raise.
    """
    tried: list[dict[str, Any]] = []
    count = 0
    for weight in sorted({0.0, *weights}):
        labelled = {"pseudo_labels": pseudo_labels, "pseudo_weight": weight} if weight > 0 else {}
        row = freeze(
            center, f"{name}-{round(weight * 1000):04d}", **{"view": recipe.trainable.view, **frozen, **labelled}
        )
        model = train(center, row.id, recipe, base=base, progress=progress)
        losses, count = _held_out_losses(center, model.id, row.id, recipe)
        tried.append({"weight": weight, **losses, "dataset": row.id, "model": model.id})
    best = min(tried, key=lambda one: (one["loss"], one["weight"]))
    return WeightRow(
        weight=best["weight"],
        dataset=best["dataset"],
        model=best["model"],
        held_out_windows=count,
        tried=tuple(tried),
    )


def _held_out_losses(center: Center, model_id: str, dataset_id: str, recipe: Recipe) -> tuple[dict[str, float], int]:
    """Mean losses over every held-out window, and how many there are."""
    trainable, network = load_network(center, model_id)
    windows = load_windows(center, dataset_id, window_spec(recipe), HELD_OUT)
    if not len(windows):
        raise InputError("not_measurable", f"dataset {dataset_id}", "no own drive is held out to choose a weight on.")
    found: list[list[float]] = []
    sizes: list[int] = []
    with reproducible(0), torch.no_grad():
        for batch in in_order(windows):
            losses = trainable.loss(network, tensors(batch))
            found.append([float(losses[part]) for part in ("loss", "path", "speed")])
            sizes.append(len(batch.side_B9))
    loss, path, speed = (float(value) for value in np.average(found, axis=0, weights=sizes))
    return {"loss": loss, "path": path, "speed_mps": speed}, len(windows)
