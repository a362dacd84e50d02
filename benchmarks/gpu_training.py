"""Does base train at 40 % of what this GPU's bfloat16 matrix product reaches, fed from proxies?

    python benchmarks/gpu_training.py [--steps 300] [--batch 128] [--minutes 2] [--compile]

One command, under ten minutes on one data-centre GPU. Prints one JSON object: samples a second of `training.fit` itself,
median over stretches of 50 steps after the first, the share of time it waited for batches, its FLOP/s, and the product's
measured in the same run. Pictures are synthetic, encoded as proxies and decoded by the loader as in training. Without a
GPU it says `not measurable`. `--cpu` runs the same way with a small network to show that it runs; its share means nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch
from recipes.temporal import base_three_cameras
from torch.utils.flop_counter import FlopCounterMode

from loader_speed import proxy
from onshore.dataset import Perturb, Windows, WindowSpec, batches
from onshore.dataset.windows import build_windows
from onshore.model import Recipe
from onshore.model.jailed import window_spec
from onshore.model.ranks import ALONE
from onshore.model.training import LOG_EVERY, fit, precision, tensors
from row import print_row

LIMIT_S = 480.0


def windows(spec: WindowSpec, minutes: int, workers: int) -> Windows:
    """Synthetic drives of `minutes` minutes in every view."""
    asked = [(number, view) for view in spec.views for number in range(minutes)]
    with ProcessPoolExecutor(workers, get_context("fork")) as pool:  # before the GPU is touched
        made = list(pool.map(proxy, *zip(*asked, strict=True)))
    spans = {one.segment: [(0, 10**12)] for one in made}
    return build_windows(made, spans, spec, workers=workers)


def matmul_flops(device: torch.device, size: int) -> float:
    """FLOP/s of a bfloat16 product, the best of several."""
    a, b = (torch.rand(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(5):
        wait(device)
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        wait(device)
        best = max(best, 20 * size**3 / (time.perf_counter() - started))
    return best


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def flop_per_sample(recipe: Recipe, batch: Any, device: torch.device) -> float:
    network = recipe.trainable.build().to(device)
    with FlopCounterMode(display=False) as counter:
        recipe.trainable.loss(network, tensors(batch).to(device))["loss"].backward()
    return float(counter.get_total_flops()) / recipe.batch


def measured(recipe: Recipe, minutes: int, size: int) -> dict[str, Any]:
    began, device, cores = time.perf_counter(), ALONE.device, len(os.sched_getaffinity(0))
    seen = windows(window_spec(recipe), minutes, cores)
    given = {"batch": recipe.batch, "seed": 0, "perturb": Perturb(), "makers": max(1, cores - 2), "prefetch": 2 * cores}
    flop = flop_per_sample(recipe, next(batches(seen, steps=1, **given)), device)
    peak = matmul_flops(device, size)
    rows: list[dict[str, float]] = []

    def tell(figures: dict[str, float]) -> None:
        rows.append(figures)
        if time.perf_counter() - began > LIMIT_S:
            raise TimeoutError

    with contextlib.suppress(TimeoutError):  # what was measured until then counts
        fit(recipe, batches(seen, steps=recipe.steps, **given), tell=tell)
    later = sorted(rows[1:] or rows, key=lambda row: row["samples_per_s"])
    middle = later[len(later) // 2]
    return {
        "network": recipe.trainable.name,
        "precision": precision(recipe),
        "samples_per_s": middle["samples_per_s"],
        "loader_share": middle["loader_share"],
        "gflop_per_sample": round(flop / 1e9, 2),
        "tflops": round(middle["samples_per_s"] * flop / 1e12, 3),
        "tflops_matmul": round(peak / 1e12, 3),
        "of_matmul_limit": round(middle["samples_per_s"] * flop / peak, 3),
        "stretches": len(rows),
        "seconds": round(time.perf_counter() - began, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "processor",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    asked = parser.parse_args()
    if not torch.cuda.is_available() and not asked.cpu:
        print_row("gpu_training", measurable=False, why="not measurable: this machine has no GPU that PyTorch sees")
        return
    recipe = replace(base_three_cameras(steps=asked.steps), batch=asked.batch, compile=asked.compile)
    size = 8192
    if asked.cpu:
        tiny = replace(recipe.trainable, channels=(8, 8, 8), feature=8, hidden=8)
        recipe, size = replace(recipe, trainable=tiny, batch=2, steps=2 * LOG_EVERY), 512
    print_row("gpu_training", measurable=True, **measured(recipe, asked.minutes, size))


if __name__ == "__main__":
    main()
