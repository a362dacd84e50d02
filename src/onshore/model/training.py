"""The training loop: the same weights to the last bit for the same recipe, batches and base, on one CPU class.

Rule: one thread, deterministic kernels, and no random number that does not come from the recipe's seed. Whatever a step
depends on is in a checkpoint, so a run that is killed goes on from its last one to the same bits.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.model.checkpoint import Checkpoint
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


AnyBatch = TypeVar("AnyBatch", bound=Batch)


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
    recipe: Recipe,
    batches: Iterable[Batch],
    *,
    network: nn.Module | None = None,
    since: Checkpoint | None = None,
    keep: Callable[[Checkpoint], object] | None = None,
    every: int = 0,
    progress: Progress = silent,
) -> Fit:
    """Train `recipe.trainable` (from `network`'s weights where given) on `recipe.steps` batches.

    since: go on after this checkpoint's step; `batches` then begin there, and `network` is the same as at the beginning.
    keep: is given a checkpoint after every `every` steps but the last. Raises InputError `empty_input` when the batches
    end early and `bad_config` when the loss is no longer finite.
    """
    clock = _Clock()
    with reproducible(recipe.seed):
        run = _Run(recipe, network)
        if since is not None:
            run.restore(since)
            clock = _Clock(*since.facts["seconds"])
        for _ in run.through(batches, recipe.steps, progress):
            if keep is not None and every > 0 and run.step % every == 0 and run.step < recipe.steps:
                keep(run.checkpoint().beside("seconds", clock.read(), {}))
        trained = run.finished()
    seconds, cpu_seconds = clock.read()
    return Fit(
        network=trained.eval(),
        log=run.log,
        probe=run.probe,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        samples_per_s=recipe.steps * recipe.batch / max(seconds, 1e-9),
    )


def probe(recipe: Recipe, batches: Iterable[Batch], *, network: nn.Module | None = None) -> str:
    """Only the first steps of `fit`, with the same schedule: the digest that `Fit.probe` must equal."""
    with reproducible(recipe.seed):
        run = _Run(recipe, network)
        for _ in run.through(batches, min(PROBE_STEPS, recipe.steps), silent):
            continue
        return run.probe


class _Run:
    """A training under way: everything that the next step depends on. `log` as in `Fit`."""

    def __init__(self, recipe: Recipe, network: nn.Module | None) -> None:
        network = network if network is not None else recipe.trainable.build()
        network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.recipe, self.step = recipe, 0
        self.network = recipe.adapt.prepared(network) if recipe.adapt else network
        taught = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(taught, recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
        )
        self.average = _Average(taught, recipe.ema)
        self.chance = torch.Generator().manual_seed(recipe.seed + 1)
        self.forward = _compiled(self.network, recipe) if recipe.compile else self.network
        self.log: list[list[float]] = []
        self.window: list[list[float]] = []
        self.probe = ""

    def through(self, batches: Iterable[Batch], until: int, progress: Progress) -> Iterator[int]:
        """Learn from one batch after another up to step `until`; yields after every one."""
        source = iter(batches)
        while self.step < until:
            batch = next(source, None)
            if batch is None:
                raise InputError(
                    "empty_input", f"batch {self.step}", f"the recipe asks for {self.recipe.steps} batches."
                )
            self.window.append(self._learn(batch))
            self.step += 1
            if self.step == min(PROBE_STEPS, self.recipe.steps):
                self.probe = sha256_hex(to_bytes(self.network))
            if len(self.window) == LOG_EVERY or self.step == self.recipe.steps:
                self._report(progress)
            yield self.step

    def finished(self) -> nn.Module:
        """What is kept of the run."""
        self.average.finish()
        return self.recipe.adapt.finished(self.network) if self.recipe.adapt else self.network

    def checkpoint(self) -> Checkpoint:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{number:05d}": tensor for number, tensor in enumerate(self.average.kept)}
        tensors |= {"chance": self.chance.get_state(), "random": torch.random.get_rng_state()}
        told = self.optimiser.state_dict()
        tensors |= {
            f"optimiser.{number:05d}.{name}": tensor
            for number, of_one in told["state"].items()
            for name, tensor in of_one.items()
        }
        facts = {
            "groups": told["param_groups"],
            "schedule": {name: getattr(self.schedule, name) for name in ("last_epoch", "_step_count", "_last_lr")},
            "log": self.log,
            "window": self.window,
            "probe": self.probe,
        }
        return Checkpoint(step=self.step, facts={"run": facts}, tensors=tensors)

    def restore(self, since: Checkpoint) -> None:
        """Become the run that made the checkpoint. Errors: InputError `corrupt` when it is another network's."""
        facts = since.facts["run"]
        try:
            self.network.load_state_dict(_below(since, "network."))
            moments: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _below(since, "optimiser.").items():
                number, _, moment = name.partition(".")
                moments.setdefault(int(number), {})[moment] = tensor
            self.optimiser.load_state_dict({"state": moments, "param_groups": facts["groups"]})
            self.schedule.load_state_dict(facts["schedule"])
            self.average.restore(since.step, list(_below(since, "average.").values()))
        except (RuntimeError, KeyError, ValueError) as fault:
            raise InputError("corrupt", "checkpoint", f"it is not one of this recipe: {fault}.") from fault
        self._laid_out_alike()
        self.chance.set_state(since.tensors["chance"])
        torch.random.set_rng_state(since.tensors["random"])
        self.step, self.log, self.window = since.step, facts["log"], facts["window"]
        self.probe = facts["probe"]

    def _laid_out_alike(self) -> None:
        """Moments lie in memory as their parameters do, as when they are made: kernels may round by it."""
        for parameter, of_one in self.optimiser.state.items():
            for name, tensor in of_one.items():
                if tensor.shape == parameter.shape and tensor.stride() != parameter.stride():
                    of_one[name] = torch.empty_like(parameter).copy_(tensor)

    def _learn(self, batch: Batch) -> list[float]:
        """One step. Returns the path loss and the speed loss (m/s)."""
        recipe = self.recipe
        parts = list(pieces(augment(tensors(batch), recipe, self.chance), recipe.accumulate))
        self.optimiser.zero_grad(set_to_none=True)
        statistics = _Statistics(self.network) if len(parts) > 1 else None
        told = []
        for number, part in enumerate(parts):
            if statistics is not None:
                statistics.begin(recipe.seed + self.step * len(parts) + number)
            told.append(self._gradients(part, 1 / len(parts)))
            if statistics is not None:
                statistics.end()
        if statistics is not None:
            statistics.finish()
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.average.update()
        return [float(value) for value in np.mean(told, axis=0)]

    def _gradients(self, part: TrainingTensors, share: float) -> tuple[float, float]:
        """Add this part's share of the gradient."""
        recipe = self.recipe
        with torch.autocast("cpu", torch.bfloat16, enabled=precision(recipe) == "bf16"):
            losses = recipe.trainable.loss(self.forward, part)
            losses = recipe.adapt.loss(self.forward, part, losses) if recipe.adapt else losses
        (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
        return float(losses["path"].detach()), float(losses["speed"].detach())

    def _report(self, progress: Progress) -> None:
        self.log.append([self.step, *(round(float(value), 6) for value in np.mean(self.window, axis=0))])
        if not np.isfinite(self.log[-1]).all():
            subject = f"recipe {self.recipe.name}"
            raise InputError("bad_config", subject, f"the loss is not finite at step {self.step}.")
        self.window.clear()
        progress("training steps", self.step, self.recipe.steps)


class _Statistics:
    """Running statistics of a step in parts: every part begins where the step began, and their mean is kept.

    A part's random numbers (dropout) come from the step and the part, so it does not matter which process takes it.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers = list(network.buffers())
        self._start = [buffer.clone() for buffer in self._buffers]
        self._ends: list[list[Tensor]] = []

    def begin(self, seed: int) -> None:
        torch.manual_seed(seed)
        self._set(self._start)

    def end(self) -> None:
        self._ends.append([buffer.clone() for buffer in self._buffers])

    def finish(self) -> None:
        self._set([_mean(list(ends)) for ends in zip(*self._ends, strict=True)])

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self._buffers, values, strict=True):
                buffer.copy_(value)


def _mean(values: list[Tensor]) -> Tensor:
    """The mean of what is measured; counts are alike in all parts."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack(values).mean(0)


class _Clock:
    """Seconds and CPU seconds since it was made, and those that an earlier process had worked."""

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self._began, self._cpu = time.perf_counter() - seconds, time.process_time() - cpu_seconds

    def read(self) -> list[float]:
        return [time.perf_counter() - self._began, time.process_time() - self._cpu]


def _below(since: Checkpoint, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): one for name, one in sorted(since.tensors.items()) if name.startswith(prefix)}


def _compiled(network: nn.Module, recipe: Recipe) -> nn.Module:
    """The same network through inductor, compiled at its first step. Raises InputError `bad_config` without a compiler."""
    if shutil.which("c++") is None and shutil.which("g++") is None and shutil.which("clang++") is None:
        advice = "torch.compile needs a C++ compiler (g++), and this machine has none; set compile=False."
        raise InputError("bad_config", f"recipe {recipe.name}.compile", advice)
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled


def pieces(batch: TrainingTensors, count: int) -> Iterator[TrainingTensors]:
    """A batch in `count` equal parts, in order."""
    size = len(batch.side_B9) // count
    for first in range(0, size * count, size):
        own = slice(first, first + size)
        cut = {field.name: getattr(batch, field.name)[own] for field in fields(batch) if field.name != "side_frames"}
        yield TrainingTensors(**cut, side_frames=tuple(view[own] for view in batch.side_frames))


def precision(recipe: Recipe) -> str:
    """ "bf16" where the recipe wants it and the processor multiplies it faster than float32, else "fp32".

    Without AVX512-BF16 or AMX a bfloat16 matrix product is emulated: 0.9 against 64 GFLOP/s on an AVX2 core.
    """
    able = torch.cpu.get_capabilities()
    return "bf16" if recipe.bf16 and (able.get("avx512_bf16") or able.get("amx_bf16")) else "fp32"


def made_ahead(batches: Iterable[AnyBatch], depth: int = 3) -> Iterator[AnyBatch]:
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

    def __init__(self, taught: list[nn.Parameter], decay: float) -> None:
        self.decay, self.steps, self._taught = decay, 0, taught
        self.kept = [p.detach().clone() for p in taught] if decay > 0 else []

    def restore(self, steps: int, kept: list[Tensor]) -> None:
        if len(kept) != len(self.kept):
            raise ValueError(f"{len(kept)} averaged tensors, {len(self.kept)} expected")
        self.steps = steps
        for mine, tensor in zip(self.kept, kept, strict=True):
            mine.copy_(tensor)

    def update(self) -> None:
        if not self.kept:
            return
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            torch._foreach_lerp_(self.kept, [p.detach() for p in self._taught], share)

    def finish(self) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self._taught, self.kept, strict=False):
                parameter.copy_(kept)
