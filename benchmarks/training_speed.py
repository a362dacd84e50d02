"""How fast does one core train nano and small, against fp32 eager and against the limit of its matrix product?

    python benchmarks/training_speed.py [--steps 12] [--turns 9] [--compile]

`precision` is what recipes use on this processor; the limit is a 2048^3 product in it. Batches and their parts are the
recipes'; a turn of small is one step, which takes most of a minute where bfloat16 is not multiplied.

Prints one JSON object. Inputs are random pictures that lie ready in memory: the step alone is measured, in CPU seconds.
What shares a core or its memory changes those, too, by a factor of two and more, so steps, eager steps and products take
turns, and ratios are medians of what stood side by side.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from recipes.temporal import small_from_scratch
from torch.utils.flop_counter import FlopCounterMode

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model import Nano, Recipe
from onshore.model.export import example_inputs
from onshore.model.trainable import Trainable, TrainingTensors
from onshore.model.training import precision, reproducible
from row import print_row

SIZE, PRODUCTS, FEW = 2048, 3, 4


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def random_batch(trainable: Trainable, size: int) -> TrainingTensors:
    (frames,), side = example_inputs(trainable, size, seed=0)
    return TrainingTensors(
        frames_BTCHW=torch.from_numpy(frames),
        side_B9=torch.from_numpy(side),
        path_BK2=torch.rand(size, len(PATH_ARCS_M), 2),
        path_mask_BK=torch.ones(size, len(PATH_ARCS_M)),
        speed_BS=torch.rand(size, len(SPEED_TIMES_S)),
        speed_mask_BS=torch.ones(size, len(SPEED_TIMES_S)),
    )


def some_steps(recipe: Recipe, steps: int, *, channels_last: bool) -> Callable[[], None]:
    """What trains for so many steps on one batch; called once, so that kernels are chosen and compiled."""
    network = recipe.trainable.build().train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if recipe.compile else network
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    part = random_batch(recipe.trainable, recipe.batch // recipe.accumulate)

    def work() -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            for _ in range(recipe.accumulate):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision(recipe) == "bf16"):
                    loss = recipe.trainable.loss(forward, part)["loss"]
                (loss / recipe.accumulate).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()

    work()
    return work


def flop_per_sample(recipe: Recipe) -> float:
    network, batch = recipe.trainable.build(), random_batch(recipe.trainable, FEW)
    with FlopCounterMode(display=False) as counter:
        recipe.trainable.loss(network, batch)["loss"].backward()
    return counter.get_total_flops() / FEW


def products(dtype: torch.dtype) -> Callable[[], None]:
    """`PRODUCTS` matrix products, after one."""
    a, b = torch.rand(SIZE, SIZE, dtype=dtype), torch.rand(SIZE, SIZE, dtype=dtype)

    def work() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b)

    work()
    return work


def row(recipe: Recipe, steps: int, turns: int) -> dict[str, float]:
    """Rates of the recipe, of eager float32 and of the product, by turns; medians, of the ratios too."""
    eager = replace(recipe, bf16=False, compile=False)
    kind = torch.bfloat16 if precision(recipe) == "bf16" else torch.float32
    works = (
        some_steps(recipe, steps, channels_last=True),
        some_steps(eager, steps, channels_last=False),
        products(kind),
    )
    taken = [[cpu_seconds(work) for work in works] for _ in range(turns)]
    samples, flop = recipe.batch * steps, flop_per_sample(recipe)
    limits = [PRODUCTS * 2 * SIZE**3 / product for _, _, product in taken]
    shares = [samples * flop / turn[0] / limit for turn, limit in zip(taken, limits, strict=True)]
    return {
        "samples_per_s": round(samples / median(turn[0] for turn in taken), 1),
        "samples_per_s_fp32_eager": round(samples / median(turn[1] for turn in taken), 1),
        "times_fp32_eager": round(median(turn[1] / turn[0] for turn in taken), 2),
        "mflop_per_sample": round(flop / 1e6, 1),
        "gflops": round(samples * flop / median(turn[0] for turn in taken) / 1e9, 1),
        "gflops_matmul": round(median(limits) / 1e9, 1),
        "gflops_matmul_least": round(min(limits) / 1e9, 1),
        "gflops_matmul_most": round(max(limits) / 1e9, 1),
        "of_matmul_limit": round(median(shares), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="a turn")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="as a recipe with compile=True does")
    asked = parser.parse_args()
    kinds = [(Recipe(name="nano", trainable=Nano()), asked.steps), (small_from_scratch(), 1)]
    with reproducible(0):
        rows = {
            recipe.trainable.name: row(replace(recipe, compile=asked.compile), steps, asked.turns)
            for recipe, steps in kinds
        }
    print_row("training_speed", precision=precision(Recipe(name="speed")), compiled=asked.compile, **rows)


if __name__ == "__main__":
    main()
