"""How much faster do two processes train small than one? Gradients over gloo, a batch in two parts, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/two_processes.py [--steps 12] [--batch 16]

Prints one JSON object: samples a second by the wall clock, so the machine must be quiet and have two cores. `apart` is the
largest difference between the two networks' weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model import Recipe
from onshore.model.export import example_inputs
from onshore.model.ranks import Ranks, together
from onshore.model.temporal import Temporal
from onshore.model.training import fit
from onshore.model.weights import parse, to_bytes
from row import print_row


class Ready:
    """One random batch, or a part of it, that lies ready in memory."""

    def __init__(self, trainable: Temporal, size: int, own: slice) -> None:
        (frames,), side = example_inputs(trainable, size, seed=0)
        random = np.random.default_rng(0)
        self.frames_BTCHW, self.side_B9 = frames[own], side[own]
        self.path_BK2 = random.random((size, len(PATH_ARCS_M), 2), np.float32)[own]
        self.path_mask_BK = np.ones((size, len(PATH_ARCS_M)), np.float32)[own]
        self.speed_BT = random.random((size, len(SPEED_TIMES_S)), np.float32)[own]
        self.speed_mask_BT = np.ones((size, len(SPEED_TIMES_S)), np.float32)[own]
        self.side_frames: tuple[Any, ...] = ()


def measured(recipe: Recipe) -> dict[str, Any]:
    def work(ranks: Ranks) -> dict[str, Any]:
        batch = Ready(recipe.trainable, recipe.batch, ranks.part(recipe.batch))  # type: ignore[arg-type]
        every: Iterator[Any] = iter([batch] * recipe.steps)
        fit(replace(recipe, steps=4), iter([batch] * 4), ranks=ranks)  # kernels are chosen, pages are there
        result = fit(recipe, every, ranks=ranks)
        return {"samples_per_s": result.samples_per_s, "weights": to_bytes(result.network)}

    return together(recipe.processes, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    recipe = Recipe(name="speed", trainable=Temporal(), steps=asked.steps, batch=asked.batch, accumulate=2)
    two, one = measured(replace(recipe, processes=2)), measured(recipe)  # forked before any thread pool is there
    rates = [round(run["samples_per_s"], 2) for run in (one, two)]
    a, b = parse(one["weights"]), parse(two["weights"])
    apart = max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
    print_row("two_processes", one=rates[0], two=rates[1], times=round(rates[1] / rates[0], 2), apart=apart)


if __name__ == "__main__":
    main()
