"""How fast does one core train nano and small, against fp32 eager and against the limit of its matrix product?

    python benchmarks/training_speed.py [--steps 60] [--compile]

`precision` is what recipes use on this processor; the limit is a 2048^3 product in it. Small takes a tenth of the steps.

Prints one JSON object. Inputs are random pictures that lie ready in memory: the step alone is measured, in CPU seconds,
which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model import Nano, Recipe
from onshore.model.export import example_inputs
from onshore.model.temporal import Temporal
from onshore.model.trainable import Trainable, TrainingTensors
from onshore.model.training import precision, reproducible
from row import print_row


def cpu_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median CPU seconds of one call, after one to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return sorted(taken)[len(taken) // 2]


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


def samples_per_s(recipe: Recipe, steps: int, *, channels_last: bool) -> float:
    network = recipe.trainable.build().train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if recipe.compile else network
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate)
    batch = random_batch(recipe.trainable, recipe.batch)

    def some_steps() -> None:
        for _ in range(steps // 5):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision(recipe) == "bf16"):
                loss = recipe.trainable.loss(forward, batch)["loss"]
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()

    return recipe.batch * (steps // 5) / cpu_seconds(some_steps)


def flop_per_sample(recipe: Recipe) -> float:
    network, batch = recipe.trainable.build(), random_batch(recipe.trainable, recipe.batch)
    with FlopCounterMode(display=False) as counter:
        recipe.trainable.loss(network, batch)["loss"].backward()
    return counter.get_total_flops() / recipe.batch


def matmul_flops(dtype: torch.dtype) -> float:
    size = 2048
    a, b = torch.rand(size, size, dtype=dtype), torch.rand(size, size, dtype=dtype)
    return 2 * size**3 / cpu_seconds(lambda: torch.mm(a, b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--compile", action="store_true", help="as a recipe with compile=True does")
    asked = parser.parse_args()
    steps = asked.steps
    kind = precision(Recipe(name="speed"))
    rows = {}
    with reproducible(0):
        peak = matmul_flops(torch.bfloat16 if kind == "bf16" else torch.float32)
        for trainable, batch, count in ((Nano(), 64, steps), (Temporal(), 8, max(5, steps // 10))):
            recipe = Recipe(name="speed", trainable=trainable, batch=batch)
            shipped = samples_per_s(replace(recipe, compile=asked.compile), count, channels_last=True)
            eager = samples_per_s(replace(recipe, bf16=False), count, channels_last=False)
            flop = flop_per_sample(recipe)
            rows[trainable.name] = {
                "samples_per_s": round(shipped, 1),
                "samples_per_s_fp32_eager": round(eager, 1),
                "times_fp32_eager": round(shipped / eager, 2),
                "mflop_per_sample": round(flop / 1e6, 1),
                "gflops": round(shipped * flop / 1e9, 1),
                "of_matmul_limit": round(shipped * flop / peak, 3),
            }
    print_row("training_speed", precision=kind, compiled=asked.compile, gflops_matmul=round(peak / 1e9, 1), **rows)


if __name__ == "__main__":
    main()
