"""Training in the jail: what the parent hands in, what the child learns, what comes back.

Rule: the child has no key and no file of the center. It asks for the members of one dataset's split, and for its base, by
id, and gets nothing else; weights, figures and checkpoints come back over the pipe, and the parent seals them. The same
weights to the last bit as without a jail, however often the run was killed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.dataset import Batch, Perturb, Windows, WindowSpec, batches
from onshore.dataset.manifest import open_split, windows_of
from onshore.dataset.perturb import compiled_kernel, take_compiled_kernel
from onshore.dataset.split import TRAIN
from onshore.jail import Limits, Outside, gpu_files
from onshore.model.checkpoint import Checkpoint
from onshore.model.ranks import ALONE, Ranks, together
from onshore.model.recipe import Recipe
from onshore.model.samples import SampleLog, subjects_of
from onshore.model.trainable import manifest as tensors
from onshore.model.training import Fit, fit, made_ahead, probe
from onshore.model.weights import load, to_bytes
from onshore.store import Center

LOG = logging.getLogger(__name__)
GIB = 1 << 30
CHECKPOINT, METRICS = "checkpoint", "metrics"
#: Threads that decode and make batches for a GPU; a processor learns slowly enough for one.
MOST_MAKERS = 16
#: Numerical libraries reserve far more address space than they use; a run may take weeks.
LIMITS = Limits(memory_bytes=1024 * GIB, cpu_s=(1 << 31) - 1, file_bytes=64 * GIB, files=4096, answer_bytes=64 * GIB)
MOST_S = 30 * 86400.0


def fitted(
    center: Center,
    dataset_id: str,
    recipe: Recipe,
    base: str | None,
    *,
    only_probe: bool = False,
    since: bytes | None = None,
    keep: Callable[[bytes, int], object] | None = None,
    every: int = 0,
    tell: Callable[[dict[str, float]], object] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train in a jailed child. Returns `probe`, and unless `only_probe` also `weights` (bytes), `tensors`, `log`,
    `windows`, `takeovers`, `samples`, `sample_log`, `seconds`, `cpu_seconds`, `samples_per_s`, `device` (cpu or cuda).

    since: a checkpoint to go on from. keep: is given one, and its step, after every `every` steps. tell: as `fit`.
    Errors: RefusedError
    when a rule forbids reading or the jail does not hold, InputError as `fit`.
    """
    manifest, read = open_split(center, dataset_id, TRAIN)

    def serve(name: str) -> bytes:
        if name == CHECKPOINT and since is not None:
            return since
        return center.read(name, purpose="train") if name == base else read(name)

    def take(name: str, value: Any) -> None:
        if name == CHECKPOINT and keep is not None:
            keep(value["bytes"], int(value["step"]))
        if name == METRICS and tell is not None:
            tell({str(key): float(figure) for key, figure in value.items()})

    asked: dict[str, Any] = {
        "recipe": recipe.as_record(),
        "manifest": manifest,
        "subjects": subjects_of(center, manifest),
        "base": base,
        "only_probe": only_probe,
        "since": since is not None,
        "every": every if keep is not None else 0,
        "tell": tell is not None,
        "kernel": compiled_kernel(),
    }
    jail = center.jail("training", LIMITS)
    packages = [type(recipe.trainable).__module__]
    target = f"{__name__}:learn"
    with jail.open(target, [asked["kernel"]], packages=packages, devices=gpu_files(), serve=serve) as cell:
        answer: dict[str, Any] = cell.call(asked, MOST_S, progress=progress, take=take)
    if gpu_files() and answer.get("device") == "cpu":
        LOG.warning("this machine has a GPU that the jail or PyTorch could not use; it learned on the processor")
    if set(answer.get("samples", {}).get("ids", ())) - _named_in(asked):
        raise InputError("tampered", dataset_id, "training says that it saw what this dataset does not hold.")
    return answer


def learn(asked: dict[str, Any], outside: Outside) -> dict[str, Any]:
    """What runs in the child."""
    take_compiled_kernel(asked["kernel"])
    recipe, manifest = Recipe.from_record(asked["recipe"]), asked["manifest"]
    base = asked["base"]
    network = load(recipe.trainable.build(), outside.ask(base), base) if base else None
    since = Checkpoint.from_bytes(outside.ask(CHECKPOINT)) if asked["since"] else None
    windows = windows_of(manifest, outside.ask, window_spec(recipe), TRAIN, workers=_makers(ALONE))
    task = _Task(recipe, windows, network, since, asked, outside)
    return together(recipe.processes, task.share)


@dataclass(frozen=True)
class _Task:
    """What every process of a training has in memory when they part."""

    recipe: Recipe
    windows: Windows
    network: nn.Module | None
    since: Checkpoint | None
    asked: dict[str, Any]
    outside: Outside

    def share(self, ranks: Ranks) -> dict[str, Any]:
        """One process's share of the training; the first one's answer counts."""
        recipe, asked, outside = self.recipe, self.asked, self.outside
        drawn = self._drawn(ranks)
        if asked["only_probe"]:
            return {"probe": probe(recipe, drawn, network=self.network, ranks=ranks)}
        given = {"network": self.network, "since": self.since, "every": asked["every"], "ranks": ranks}
        if not ranks.first:
            fit(recipe, made_ahead(drawn), **given)
            return {}
        seen = SampleLog(
            made_ahead(drawn), self.windows, recipe.batch, asked["manifest"], asked["subjects"], self.since
        )

        def keep(checkpoint: Checkpoint) -> None:
            outside.hand(CHECKPOINT, {"step": checkpoint.step, "bytes": seen.noted(checkpoint).to_bytes()})

        def tell(figures: dict[str, float]) -> None:
            outside.hand(METRICS, figures)

        told = tell if asked["tell"] else None
        result = fit(recipe, seen, **given, keep=keep, progress=outside.progress, tell=told)
        return {**_told(result), **self._seen(seen), "device": ranks.device.type}

    def _drawn(self, ranks: Ranks) -> Iterator[Batch]:
        recipe, first = self.recipe, self.since.step if self.since else 0
        return batches(
            self.windows,
            batch=recipe.batch,
            steps=recipe.steps - first,
            first_step=first,
            seed=recipe.seed,
            perturb=Perturb() if recipe.perturb else None,
            part=ranks.part(recipe.batch),
            makers=_makers(ranks),
            prefetch=2 * _makers(ranks),
        )

    def _seen(self, seen: SampleLog) -> dict[str, Any]:
        return {
            "windows": len(self.windows),
            "takeovers": len(self.windows.takeovers),
            "samples": seen.record(),
            "sample_log": seen.digest,
        }


def _makers(ranks: Ranks) -> int:
    """A GPU outruns one thread that decodes or makes batches."""
    if ranks.device.type == "cpu":
        return 1
    return max(1, min(MOST_MAKERS, len(os.sched_getaffinity(0)) // ranks.count - 1))


def _told(result: Fit) -> dict[str, Any]:
    return {
        "weights": to_bytes(result.network),
        "tensors": tensors(result.network),
        **{
            name: getattr(result, name)
            for name in ("probe", "log", "seconds", "cpu_seconds", "samples_per_s", "loader_share")
        },
    }


def window_spec(recipe: Recipe) -> WindowSpec:
    """How the dataset's windows must be cut for this recipe."""
    seen = recipe.trainable
    return WindowSpec(
        view=seen.view, side_views=seen.side_views, frame_offsets_s=seen.frame_offsets_s, stride_s=recipe.stride_s
    )


def _named_in(asked: Mapping[str, Any]) -> set[str]:
    """Every id that a sample log of this dataset can hold."""
    manifest = asked["manifest"]
    named = {entry["id"] for part in ("clips", "drives", "takeovers") for entry in manifest[part]}
    named |= {entry["segment"] for entry in manifest["proxies"]}
    return named | {subject for subjects in asked["subjects"].values() for subject in subjects}
