"""The training loop: the same weights to the last bit for the same recipe, batches and base, on one CPU class.

Rule: one thread, deterministic kernels, and no random number that does not come from the recipe's seed. A run that is
killed leaves nothing; its repetition gives the same weights.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.model.recipe import Recipe
from onshore.model.trainable import TrainingTensors
from onshore.model.weights import to_bytes

LOG_EVERY = 50
#: After this many steps the weights are digested, so that anybody can repeat the beginning and compare.
PROBE_STEPS = 20


class Batch(Protocol):
    """What `dataset.batches` yields, as arrays."""

    @property
    def frames_BTCHW(self) -> NDArray[np.uint8]: ...
    @property
    def side_B9(self) -> NDArray[np.float32]: ...
    @property
    def path_BK2(self) -> NDArray[np.float32]: ...
    @property
    def path_mask_BK(self) -> NDArray[np.float32]: ...
    @property
    def speed_BT(self) -> NDArray[np.float32]: ...
    @property
    def speed_mask_BT(self) -> NDArray[np.float32]: ...
    @property
    def side_frames(self) -> tuple[NDArray[np.uint8], ...]: ...


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A trained network and how it went. log: [step, path loss, speed loss (m/s)] averaged over `LOG_EVERY` steps.

    probe: digest of the weights after `PROBE_STEPS` steps. seconds, cpu_seconds and samples_per_s are measured, so they never enter a digest.
    """

    network: nn.Module
    log: list[list[float]]
    probe: str
    seconds: float
    cpu_seconds: float
    samples_per_s: float


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a seeded global generator inside; what was set before comes back after."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


def fit(
    recipe: Recipe, batches: Iterable[Batch], *, network: nn.Module | None = None, progress: Progress = silent
) -> Fit:
    """Train `recipe.trainable` (from `network`'s weights where given) on `recipe.steps` batches.

    Raises InputError `empty_input` when the batches end early and `bad_config` when the loss is no longer finite.
    """
    started, cpu = time.perf_counter(), time.process_time()
    with reproducible(recipe.seed):
        learner = network if network is not None else recipe.trainable.build()
        learner = learner.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        log, probe = _descend(recipe, learner, batches, progress)
    seconds = time.perf_counter() - started
    return Fit(
        network=learner.eval(),
        log=log,
        probe=probe,
        seconds=seconds,
        cpu_seconds=time.process_time() - cpu,
        samples_per_s=recipe.steps * recipe.batch / max(seconds, 1e-9),
    )


def probe(recipe: Recipe, batches: Iterable[Batch], *, network: nn.Module | None = None) -> str:
    """Only the first steps of `fit`, with the same schedule: the digest that `Fit.probe` must equal."""
    with reproducible(recipe.seed):
        learner = network if network is not None else recipe.trainable.build()
        learner = learner.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        return _descend(recipe, learner, batches, silent, only_probe=True)[1]


def _descend(
    recipe: Recipe, network: nn.Module, batches: Iterable[Batch], progress: Progress, *, only_probe: bool = False
) -> tuple[list[list[float]], str]:
    """Losses and the probe: the weights' digest after `PROBE_STEPS` steps (or after the last, if that comes first)."""
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    averaged = _Average(network, recipe.ema)
    chance = torch.Generator().manual_seed(recipe.seed + 1)
    log: list[list[float]] = []
    probed = ""
    window: list[tuple[float, float]] = []
    source = iter(batches)
    for step in range(recipe.steps):
        batch = next(source, None)
        if batch is None:
            raise InputError("empty_input", f"batch {step}", f"the recipe asks for {recipe.steps} batches.")
        window.append(_step(recipe, network, optimiser, augment(tensors(batch), recipe, chance)))
        schedule.step()
        averaged.update(network)
        if step + 1 == min(PROBE_STEPS, recipe.steps):
            probed = sha256_hex(to_bytes(network))
            if only_probe:
                break
        if len(window) == LOG_EVERY or step + 1 == recipe.steps:
            log.append([step + 1, *(round(float(value), 6) for value in np.mean(window, axis=0))])
            if not np.isfinite(log[-1]).all():
                raise InputError("bad_config", f"recipe {recipe.name}", f"the loss is not finite at step {step + 1}.")
            window.clear()
            progress("training steps", step + 1, recipe.steps)
    averaged.finish(network)
    return log, probed


def _step(
    recipe: Recipe, network: nn.Module, optimiser: torch.optim.Optimizer, batch: TrainingTensors
) -> tuple[float, float]:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision(recipe) == "bf16"):
        losses = recipe.trainable.loss(network, batch)
    optimiser.zero_grad(set_to_none=True)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
    optimiser.step()
    return float(losses["path"].detach()), float(losses["speed"].detach())


def precision(recipe: Recipe) -> str:
    """ "bf16" where the recipe wants it and the processor multiplies it faster than float32, else "fp32".

    Without AVX512-BF16 or AMX a bfloat16 matrix product is emulated: 0.9 against 64 GFLOP/s on an AVX2 core.
    """
    able = torch.cpu.get_capabilities()
    return "bf16" if recipe.bf16 and (able.get("avx512_bf16") or able.get("amx_bf16")) else "fp32"


def made_ahead(batches: Iterable[Batch], depth: int = 3) -> Iterator[Batch]:
    """The same batches in the same order, up to `depth` of them made by a thread while the last one is learned from."""
    source = iter(batches)
    with ThreadPoolExecutor(1) as maker:
        waiting = deque(maker.submit(next, source, None) for _ in range(depth))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(maker.submit(next, source, None))
            yield batch


def tensors(batch: Batch) -> TrainingTensors:
    """A batch of arrays as tensors, frames still uint8, masks float32."""
    return TrainingTensors(
        frames_BTCHW=torch.from_numpy(np.ascontiguousarray(batch.frames_BTCHW)),
        side_B9=_floats(batch.side_B9),
        path_BK2=_floats(batch.path_BK2),
        path_mask_BK=_floats(batch.path_mask_BK),
        speed_BS=_floats(batch.speed_BT),
        speed_mask_BS=_floats(batch.speed_mask_BT),
        side_frames=tuple(torch.from_numpy(np.ascontiguousarray(view)) for view in batch.side_frames),
    )


def augment(batch: TrainingTensors, recipe: Recipe, chance: torch.Generator) -> TrainingTensors:
    """Hide the speed of some samples; change brightness and contrast of all by up to `recipe.jitter`."""
    side = batch.side_B9.clone()
    hidden = torch.rand(len(side), generator=chance) < recipe.speed_drop
    side[hidden, 0:2] = 0.0
    frames, *beside = (
        _jittered(view, recipe.jitter, chance) if recipe.jitter > 0 else view
        for view in (batch.frames_BTCHW, *batch.side_frames)
    )
    return replace(batch, side_B9=side, frames_BTCHW=frames, side_frames=tuple(beside))


def _jittered(frames_BTCHW: Tensor, jitter: float, chance: torch.Generator) -> Tensor:
    shape = (len(frames_BTCHW), 1, 3, 1, 1)
    gain = 1 + jitter * (torch.rand(shape[:2] + (1, 1, 1), generator=chance) * 2 - 1)
    shift = 64 * jitter * (torch.rand(shape, generator=chance) * 2 - 1)
    return (frames_BTCHW.float() * gain + shift).clamp_(0, 255)


def _floats(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class _Average:
    """Exponential moving average of the weights with a warm-up; running statistics follow the network's own."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.kept = [p.detach().clone() for p in network.parameters()] if decay > 0 else []

    def update(self, network: nn.Module) -> None:
        if not self.kept:
            return
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            torch._foreach_lerp_(self.kept, [p.detach() for p in network.parameters()], share)

    def finish(self, network: nn.Module) -> None:
        with torch.no_grad():
            for parameter, kept in zip(network.parameters(), self.kept, strict=False):
                parameter.copy_(kept)
