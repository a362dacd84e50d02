"""The training loop: the same weights to the last bit for the same recipe, batches and base, on one CPU class.

Rule: one thread, deterministic kernels, and no random number that does not come from the recipe's seed. Whatever a step
depends on is in a checkpoint, so a run that is killed goes on from its last one to the same bits. On a GPU the fastest
kernels are taken and equal bits are not promised; nothing there waits for a step's result but the log.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from onshore.model.ranks import ALONE, Ranks, like, unsynced, whole
from onshore.model.recipe import Recipe
from onshore.model.trainable import TrainingTensors
from onshore.model.weights import serialise

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

    probe: digest of the weights after `PROBE_STEPS` steps. seconds, cpu_seconds, samples_per_s and loader_share (of the
    seconds, waited for batches) are measured, so they never enter a digest.
    """

    network: nn.Module
    log: list[list[float]]
    probe: str
    seconds: float
    cpu_seconds: float
    samples_per_s: float
    loader_share: float


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a seeded global generator inside; what was set before comes back after.

    New memory is not filled first, as deterministic kernels do by default to show who reads what was never written: a
    twentieth of a step's time.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


@contextmanager
def _fastest(seed: int) -> Iterator[None]:
    """A seeded global generator inside, convolutions by whichever kernel proves fastest for their shapes, and one thread
    beside the GPU: more of them wait for each other while batches are made."""
    chosen, threads = torch.backends.cudnn.benchmark, torch.get_num_threads()
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = chosen
            torch.set_num_threads(threads)


def _conditions(recipe: Recipe, ranks: Ranks) -> AbstractContextManager[None]:
    return reproducible(recipe.seed) if ranks.device.type == "cpu" else _fastest(recipe.seed)


def fit(
    recipe: Recipe,
    batches: Iterable[Batch],
    *,
    network: nn.Module | None = None,
    since: Checkpoint | None = None,
    keep: Callable[[Checkpoint], object] | None = None,
    every: int = 0,
    progress: Progress = silent,
    tell: Callable[[dict[str, float]], object] | None = None,
    ranks: Ranks = ALONE,
) -> Fit:
    """Train `recipe.trainable` (from `network`'s weights where given) on `recipe.steps` batches.

    since: go on after this checkpoint's step; `batches` then begin there, and `network` is the same as at the beginning.
    keep: is given a checkpoint after every `every` steps but the last. tell: is told every `LOG_EVERY` steps how it goes:
    step, path_loss, speed_loss_mps, learning_rate, samples_per_s, loader_share. ranks: this process among those that learn
    together, all of which call this with their part of each batch; the first one's answer counts. Raises InputError `empty_input` when the batches
    end early and `bad_config` when the loss is no longer finite.
    """
    clock = _Clock()
    with _conditions(recipe, ranks):
        run = _Run(recipe, network, ranks)
        run.tell = tell
        if since is not None:
            run.restore(since)
            clock = _Clock(*since.facts["seconds"])
        for _ in run.through(batches, recipe.steps, progress):
            if every > 0 and run.step % every == 0 and run.step < recipe.steps and (ranks.first or recipe.shard):
                checkpoint = run.checkpoint().beside("seconds", clock.read(), {})
                if keep is not None:
                    keep(checkpoint)
        trained = run.finished()
    seconds, cpu_seconds = clock.read()
    return Fit(
        network=trained.eval(),
        log=run.log,
        probe=run.probe,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        samples_per_s=recipe.steps * recipe.batch / max(seconds, 1e-9),
        loader_share=round(run.waited_s / max(time.perf_counter() - run.began, 1e-9), 4),
    )


def probe(recipe: Recipe, batches: Iterable[Batch], *, network: nn.Module | None = None, ranks: Ranks = ALONE) -> str:
    """Only the first steps of `fit`, with the same schedule: the digest that `Fit.probe` must equal."""
    with _conditions(recipe, ranks):
        run = _Run(recipe, network, ranks)
        for _ in run.through(batches, min(PROBE_STEPS, recipe.steps), silent):
            continue
        return run.probe


class _Run:
    """A training under way: everything that the next step depends on. `log` as in `Fit`."""

    def __init__(self, recipe: Recipe, network: nn.Module | None, ranks: Ranks) -> None:
        if recipe.accumulate % ranks.count:
            advice = f"{ranks.count} processes need a batch in as many parts, or a multiple of them."
            raise InputError("bad_config", f"recipe {recipe.name}.accumulate", advice)
        network = network if network is not None else recipe.trainable.build()
        network = network.to(ranks.device)
        if not recipe.shard:  # FSDP takes plain tensors only
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = network.train()
        self.recipe, self.ranks, self.step = recipe, ranks, 0
        self.network = recipe.adapt.prepared(network) if recipe.adapt else network
        self.joined = ranks.joined(self.network, shard=recipe.shard)
        self.forward = _compiled(self.joined, recipe) if recipe.compile else self.joined
        taught = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            taught, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=ranks.device.type == "cuda" or None
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
        )
        self.average = _Average(taught, recipe.ema)
        self.chance = torch.Generator().manual_seed(recipe.seed + 1)
        self.log: list[list[float]] = []
        self.window: list[Tensor] = []
        self.probe = ""
        self.tell: Callable[[dict[str, float]], object] | None = None
        self.began, self.waited_s = time.perf_counter(), 0.0
        self._last = (self.began, 0.0, 0)

    def through(self, batches: Iterable[Batch], until: int, progress: Progress) -> Iterator[int]:
        """Learn from one batch after another up to step `until`; yields after every one."""
        source = iter(batches)
        while self.step < until:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited_s += time.perf_counter() - asked
            if batch is None:
                raise InputError(
                    "empty_input", f"batch {self.step}", f"the recipe asks for {self.recipe.steps} batches."
                )
            self.window.append(self._learn(batch))
            self.step += 1
            if self.step == min(PROBE_STEPS, self.recipe.steps):
                self.probe = sha256_hex(serialise(self._state()))
            if len(self.window) == LOG_EVERY or self.step == self.recipe.steps:
                self._report(progress)
            yield self.step

    def finished(self) -> nn.Module:
        """What is kept of the run."""
        self.average.finish()
        network = self.network
        if self.recipe.shard:
            network = self.recipe.trainable.build()
            network.load_state_dict(self._state())
        return self.recipe.adapt.finished(network) if self.recipe.adapt else network

    def _state(self) -> dict[str, Tensor]:
        return {name: whole(tensor) for name, tensor in self.network.state_dict().items()}

    def checkpoint(self) -> Checkpoint:
        """Everything that the next step depends on; where tensors are sharded, every process must ask."""
        tensors = {f"network.{name}": tensor for name, tensor in self._state().items()}
        tensors |= {f"average.{number:05d}": whole(tensor) for number, tensor in enumerate(self.average.kept)}
        tensors |= {"chance": self.chance.get_state(), "random": torch.random.get_rng_state()}
        told = self.optimiser.state_dict()
        tensors |= {
            f"optimiser.{number:05d}.{name}": whole(tensor)
            for number, of_one in told["state"].items()
            for name, tensor in of_one.items()
        }
        facts = {
            "groups": told["param_groups"],
            "schedule": {name: getattr(self.schedule, name) for name in ("last_epoch", "_step_count", "_last_lr")},
            "log": self.log,
            "window": [losses.tolist() for losses in self.window],
            "probe": self.probe,
        }
        return Checkpoint(step=self.step, facts={"run": facts}, tensors=tensors)

    def restore(self, since: Checkpoint) -> None:
        """Become the run that made the checkpoint. Errors: InputError `corrupt` when it is another network's."""
        facts = since.facts["run"]
        try:
            given, mine = _below(since, "network."), self.network.state_dict()
            self.network.load_state_dict({name: like(given[name], tensor) for name, tensor in mine.items()})
            self.optimiser.load_state_dict({"state": self._moments(since), "param_groups": facts["groups"]})
            self.schedule.load_state_dict(facts["schedule"])
            self.average.restore(since.step, list(_below(since, "average.").values()))
        except (RuntimeError, KeyError, ValueError, IndexError) as fault:
            raise InputError("corrupt", "checkpoint", f"it is not one of this recipe: {fault}.") from fault
        self.chance.set_state(since.tensors["chance"])
        torch.random.set_rng_state(since.tensors["random"])
        self.step, self.log = since.step, facts["log"]
        self.window = [
            torch.tensor(losses, dtype=torch.float64, device=self.ranks.device) for losses in facts["window"]
        ]
        self._last = (time.perf_counter(), 0.0, since.step)
        self.probe = facts["probe"]

    def _moments(self, since: Checkpoint) -> dict[int, dict[str, Tensor]]:
        """What the optimiser remembers, laid out in memory as the parameters are, as when it is made: kernels may round by it."""
        taught = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(since, "optimiser.").items():
            number, _, moment = name.partition(".")
            parameter = taught[int(number)]
            kept = like(tensor, parameter.detach()) if tensor.shape == parameter.shape else tensor
            moments.setdefault(int(number), {})[moment] = kept
        return moments

    def _learn(self, batch: Batch) -> Tensor:
        """One step. Returns the path loss and the speed loss (m/s), (2,) float64."""
        recipe, ranks = self.recipe, self.ranks
        own = tensors(batch).to(ranks.device)
        own = augment(own, recipe, self.chance, ranks.part(recipe.batch), len(own.side_B9) * ranks.count)
        parts = list(pieces(own, recipe.accumulate // ranks.count)) if recipe.accumulate > 1 else [own]
        self.optimiser.zero_grad(set_to_none=True)
        agreed = _Agreed(self.network, ranks, recipe.accumulate)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            agreed.begin(recipe.seed + self.step * recipe.accumulate + ranks.rank * len(parts) + number)
            with nullcontext() if last else unsynced(self.joined):
                agreed.end(self._gradients(part, 1 / len(parts)))
        losses = agreed.finish()
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.average.update()
        return losses

    def _gradients(self, part: TrainingTensors, share: float) -> Tensor:
        """Add this part's share of the gradient. Returns its path loss and speed loss (m/s), (2,) float64."""
        recipe = self.recipe
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=precision(recipe) == "bf16"):
            losses = recipe.trainable.loss(self.forward, part)
            losses = recipe.adapt.loss(self.forward, part, losses) if recipe.adapt else losses
        (losses["loss"] * share).backward()  # type: ignore[no-untyped-call]
        return torch.stack([losses["path"].detach(), losses["speed"].detach()]).double()

    def _report(self, progress: Progress) -> None:
        means = np.mean(torch.stack(self.window).cpu().numpy(), axis=0)
        self.log.append([self.step, *(round(float(value), 6) for value in means)])
        if not np.isfinite(self.log[-1]).all():
            subject = f"recipe {self.recipe.name}"
            raise InputError("bad_config", subject, f"the loss is not finite at step {self.step}.")
        self.window.clear()
        progress("training steps", self.step, self.recipe.steps)
        if self.tell is not None:
            self.tell(self._figures())

    def _figures(self) -> dict[str, float]:
        """How it goes, since the last time this was asked."""
        (began, waited, step), now = self._last, time.perf_counter()
        self._last = (now, self.waited_s, self.step)
        taken = max(now - began, 1e-9)
        return {
            **dict(zip(("step", "path_loss", "speed_loss_mps"), self.log[-1], strict=True)),
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            "samples_per_s": round((self.step - step) * self.recipe.batch / taken, 2),
            "loader_share": round((self.waited_s - waited) / taken, 4),
        }


class _Agreed:
    """What the parts of a step agree on beside gradients: running statistics and losses, the mean over all parts.

    Every part begins with the statistics of the step's beginning. A part's random numbers (dropout) come from the step and
    the part, so it does not matter which process takes it. A step of one part is left as it is.
    """

    def __init__(self, network: nn.Module, ranks: Ranks, parts: int) -> None:
        self._ranks, self._parts = ranks, parts
        self._losses: list[Tensor] = []
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()] if parts > 1 else []
        self._counts = [buffer for buffer in network.buffers() if not buffer.is_floating_point()] if parts > 1 else []
        self._start, self._counted = _copies(self._buffers), _copies(self._counts)
        self._sums = [torch.zeros_like(buffer, dtype=torch.float64) for buffer in self._buffers]

    def begin(self, seed: int) -> None:
        if self._parts > 1:
            torch.manual_seed(seed)
            _put(self._start, self._buffers)
            _put(self._counted, self._counts)

    def end(self, losses: Tensor) -> None:
        self._losses.append(losses)
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            total += buffer

    def finish(self) -> Tensor:
        """Set the mean statistics; returns the mean losses."""
        if self._parts == 1:
            return self._losses[0]
        losses = torch.stack(self._losses).sum(0)
        flat = self._ranks.summed(torch.cat([losses, *(total.reshape(-1) for total in self._sums)])) / self._parts
        at = len(losses)
        for buffer in self._buffers:
            _put([flat[at : at + buffer.numel()].reshape(buffer.shape)], [buffer])
            at += buffer.numel()
        return flat[: len(losses)]


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def _put(values: list[Tensor], buffers: list[Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


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
    """A batch in `count` equal parts, in order, each in memory of its own: matrix products round by where numbers lie."""
    size = len(batch.side_B9) // count
    for first in range(0, size * count, size):
        own = slice(first, first + size)
        cut = {one.name: getattr(batch, one.name)[own].clone() for one in fields(batch) if one.name != "side_frames"}
        yield TrainingTensors(**cut, side_frames=tuple(view[own].clone() for view in batch.side_frames))


def precision(recipe: Recipe) -> str:
    """ "bf16" where the recipe wants it and the processor multiplies it faster than float32, else "fp32".

    Without AVX512-BF16 or AMX a bfloat16 matrix product is emulated: 0.9 against 64 GFLOP/s on an AVX2 core.
    """
    if torch.cuda.is_available():
        return "bf16" if recipe.bf16 and torch.cuda.is_bf16_supported() else "fp32"
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


def augment(
    batch: TrainingTensors, recipe: Recipe, chance: torch.Generator, own: slice = slice(None), whole: int = 0
) -> TrainingTensors:
    """Hide the speed of some samples; change brightness and contrast of all by up to `recipe.jitter`.

    own, whole: the batch is this part of one of `whole` samples, for all of which numbers are drawn.
    """
    size = whole or len(batch.side_B9)
    side = batch.side_B9.clone()
    hidden = (torch.rand(size, generator=chance) < recipe.speed_drop)[own]
    side[hidden.to(side.device), 0:2] = 0.0
    frames, *beside = (
        _jittered(view, recipe.jitter, chance, own, size) if recipe.jitter > 0 else view
        for view in (batch.frames_BTCHW, *batch.side_frames)
    )
    return replace(batch, side_B9=side, frames_BTCHW=frames, side_frames=tuple(beside))


def _jittered(frames_BTCHW: Tensor, jitter: float, chance: torch.Generator, own: slice, whole: int) -> Tensor:
    gain = 1 + jitter * (torch.rand((whole, 1, 1, 1, 1), generator=chance) * 2 - 1)[own]
    shift = 64 * jitter * (torch.rand((whole, 1, 3, 1, 1), generator=chance) * 2 - 1)[own]
    device = frames_BTCHW.device
    return frames_BTCHW.to(torch.float32, copy=True).mul_(gain.to(device)).add_(shift.to(device)).clamp_(0, 255)


def _floats(array: NDArray[Any]) -> Tensor:
    """In torch's own aligned memory: matrix products round by where their numbers lie, and numpy lays them anywhere."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32)).clone()


class _Average:
    """Exponential moving average of the weights with a warm-up; running statistics follow the network's own."""

    def __init__(self, taught: list[nn.Parameter], decay: float) -> None:
        self.decay, self.steps, self._taught = decay, 0, taught
        self.kept = [p.detach().clone() for p in taught] if decay > 0 else []

    def restore(self, steps: int, kept: list[Tensor]) -> None:
        if len(kept) != len(self.kept):
            raise ValueError(f"{len(kept)} averaged tensors, {len(self.kept)} expected")
        self.steps = steps
        self.kept = [like(tensor, mine) for tensor, mine in zip(kept, self.kept, strict=True)]

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
