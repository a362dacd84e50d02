"""How much faster do two processes train small than one? Gradients over gloo, a batch in two parts, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/two_processes.py [--steps 12] [--batch 16]

Prints one JSON object: samples a second by the wall clock, so the machine must be quiet and have two cores. unshared: of two
processes that learn half a batch each and share nothing, which is what this machine has to give; `of_unshared` is how much of
it two that share are left with. apart: the largest difference between the weights that one and two learned.
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
from onshore.model.ranks import ALONE, Ranks, together
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


def measured(recipe: Recipe, *, share: bool = True) -> dict[str, Any]:
    """share: they learn one network together; else each its own, from its part of a batch."""

    def work(ranks: Ranks) -> dict[str, Any]:
        batch = Ready(recipe.trainable, recipe.batch, ranks.part(recipe.batch))  # type: ignore[arg-type]
        every: Iterator[Any] = iter([batch] * recipe.steps)
        those = ranks if share else ALONE
        asked = recipe if share else replace(recipe, batch=recipe.batch // 2, accumulate=1, processes=1)
        fit(replace(asked, steps=4), iter([batch] * 4), ranks=those)  # kernels are chosen, pages are there
        result = fit(asked, every, ranks=those)
        return {"samples_per_s": result.samples_per_s, "weights": to_bytes(result.network)}

    return together(recipe.processes, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    asked = parser.parse_args()
    recipe = Recipe(name="speed", trainable=Temporal(), steps=asked.steps, batch=asked.batch, accumulate=2)
    pair = replace(recipe, processes=2)
    two, alike, one = measured(pair), measured(pair, share=False), measured(recipe)  # forked before any thread pool
    first, second, unshared = one["samples_per_s"], two["samples_per_s"], 2 * alike["samples_per_s"]
    a, b = parse(one["weights"]), parse(two["weights"])
    apart = max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
    print_row(
        "two_processes",
        one=round(first, 2),
        two=round(second, 2),
        times=round(second / first, 2),
        unshared=round(unshared, 2),
        unshared_times=round(unshared / first, 2),
        of_unshared=round(second / unshared, 2),
        apart=apart,
    )


if __name__ == "__main__":
    main()
