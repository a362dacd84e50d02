"""Models of a center: train, read back, export. Every model is an artifact whose parents say what it was made of.

Rule: a stage is a function of digests (dataset, recipe, base); a killed run is gone on with to equal bytes; a finished one
is never run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from onshore.bundle.format import BundleMetadata
from onshore.bundle.runner import Network
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.core.label import Artifact
from onshore.core.progress import Progress, silent
from onshore.dataset import Perturb, WindowSpec, batches, in_order, load_windows
from onshore.dataset import manifest as frozen
from onshore.model import jailed, samples
from onshore.model.checkpoint import Shelf
from onshore.model.export import canonical, check_equal, onnx_difference_m, to_onnx
from onshore.model.quantise import calibration_feeds, to_int8
from onshore.model.recipe import Recipe
from onshore.model.trainable import Trainable, from_record, record_of
from onshore.model.training import PROBE_STEPS, precision, reproducible
from onshore.model.weights import load
from onshore.residency import derive
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.world import PolicySpec

EXPORTER = 2  # raise when the same weights would give another file
CALIBRATION_SAMPLES = 256
CHECKPOINT_STEPS = 200
TRAINER = 3  # raise when the same recipe would give other weights


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One trained model. id: the weights' artifact. log: [step, path loss, speed loss (m/s)].

    windows, takeovers: samples learned from. seconds, cpu_seconds, samples_per_s: measured when it was trained;
    fresh: whether that was now.
    """

    id: str
    name: str
    dataset: str
    base: str | None
    recipe: dict[str, Any]
    windows: int
    takeovers: int
    log: list[list[float]]
    sample_log: str
    seconds: float
    cpu_seconds: float
    samples_per_s: float
    synthetic: bool
    fresh: bool = field(default=True, compare=False)


def train(
    center: Center,
    dataset_id: str,
    recipe: Recipe,
    *,
    base: str | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    tell: Callable[[dict[str, float]], object] | None = None,
    progress: Progress = silent,
) -> ModelRow:
    """Train on a frozen dataset's training split, from fresh weights or from `base` (a weights artifact of this center).

    checkpoint_steps: after so many steps a checkpoint is kept (0: never), from which the same call goes on when a run was
    killed; it changes nothing but what a kill costs. tell: is told now and then how it goes (`training.fit`).
    Errors: NotFoundError for an unknown dataset or base, RefusedError when the rules forbid reading either,
    InputError `empty_input` when the split has no windows, `import_refused` when the base does not fit the network.
    """
    dataset = frozen.row_of(center, dataset_id)
    dataset_id = dataset.id  # a name means another version tomorrow
    inputs = {"trainer": TRAINER, "dataset": dataset_id, "recipe": recipe.as_record(), "base": base or ""}
    parents = [center.artifact(dataset.artifact), *([center.artifact(base)] if base else [])]
    shelf = Shelf(center, inputs, parents)
    since = shelf.newest()  # read before the run: what it makes is the same with and without

    def run() -> dict[str, Any]:
        if base:
            _check_shape(center, base, recipe)
        result = jailed.fitted(
            *(center, dataset_id, recipe, base),
            since=since,
            keep=shelf.put,
            every=checkpoint_steps,
            tell=tell,
            progress=progress,
        )
        return _kept(center, dataset_id, recipe, base, parents, result)

    outputs, fresh = center.stage("model.train", inputs, run)
    shelf.clear()
    return ModelRow(**outputs, fresh=fresh)


def load_network(center: Center, model_id: str) -> tuple[Trainable, nn.Module]:
    """A model's configuration and its network with its weights, in evaluation mode."""
    trainable = trainable_of(center.artifact(model_id))
    return trainable, load(trainable.build(), center.read(model_id, purpose="train"), model_id)


def trainable_of(artifact: Artifact) -> Trainable:
    """The network's configuration as the weights' artifact tells it."""
    if artifact.label.kind not in ("weights", "inbound_model") or "trainable" not in artifact.meta:
        raise InputError(
            "unknown_format", artifact.id, f"this is {artifact.label.kind}, not weights with a configuration."
        )
    return from_record(artifact.meta["trainable"])


def export_onnx(center: Center, model_id: str) -> Artifact:
    """The model as ONNX (kind `onnx`), checked against its network; the same model always gives the same bytes.

    An exported network is its own export: wherever a model is judged, `model_id` may name what ships instead.
    """
    if center.artifact(model_id).label.kind == "onnx":
        return center.artifact(model_id)

    def run() -> dict[str, Any]:
        trainable, network = load_network(center, model_id)
        data = to_onnx(trainable, network)
        difference = check_equal(trainable, network, data)
        return keep_onnx(center, data, [center.artifact(model_id)], trainable, difference, "float32")

    outputs, _ = center.stage("model.export", {"model": model_id, "exporter": EXPORTER}, run)
    return center.artifact(outputs["id"])


def export_int8(center: Center, model_id: str, dataset_id: str) -> Artifact:
    """The model with 8-bit convolutions, calibrated on the dataset's training windows (kind `onnx`).

    Its meta tells how far its plans are from the trained network's. Errors: InputError `empty_input` without windows.
    """
    exported, dataset = export_onnx(center, model_id), frozen.row_of(center, dataset_id)

    def run() -> dict[str, Any]:
        trainable, network = load_network(center, weights_of(center, model_id))
        spec = WindowSpec(
            view=trainable.view, side_views=trainable.side_views, frame_offsets_s=trainable.frame_offsets_s
        )
        windows = load_windows(center, dataset.id, spec, "train")
        shown = next(batches(windows, batch=CALIBRATION_SAMPLES, steps=1, seed=0, perturb=Perturb()))
        data = center.read(exported.id, purpose="train")
        runner = Network(data, policy_spec(center, exported.id).metadata)
        small = canonical(to_int8(data, calibration_feeds(runner, list(shown.views), shown.side_B9)))
        parents = [center.artifact(weights_of(center, model_id)), center.artifact(dataset.artifact)]
        return keep_onnx(center, small, parents, trainable, onnx_difference_m(trainable, network, small), "int8")

    inputs = {"model": exported.id, "dataset": dataset.id, "quantiser": EXPORTER}
    outputs, _ = center.stage("model.export_int8", inputs, run)
    return center.artifact(outputs["id"])


def shipped_shift_m(center: Center, model_id: str, dataset_id: str) -> float:
    """How far what ships is from what was trained: the 99th percentile, over held-out moments, of the largest distance
    (m) between their paths. Errors: InputError `not_measurable` without held-out moments.
    """
    trainable, network = load_network(center, weights_of(center, model_id))
    policy = policy_spec(center, model_id)
    if policy.onnx is None or policy.metadata is None:
        raise InputError("not_measurable", model_id, "it has no exported network.")
    runner = Network(policy.onnx, policy.metadata)
    spec = WindowSpec(view=trainable.view, side_views=trainable.side_views, frame_offsets_s=trainable.frame_offsets_s)
    apart: list[float] = []
    for batch in in_order(load_windows(center, dataset_id, spec, "held_out"), batch=64):
        shipped = runner.run(batch.views, batch.side_B9)[0]
        frames, *beside = (torch.from_numpy(view) for view in batch.views)
        with reproducible(0), torch.no_grad():
            trained = network(frames, torch.from_numpy(batch.side_B9), *beside)[0].numpy()
        apart += np.hypot(*np.moveaxis(shipped - trained, -1, 0)).max(1).tolist()
    if not apart:
        raise InputError("not_measurable", f"dataset {dataset_id}", "no drive is held out to compare on.")
    return float(np.percentile(apart, 99))


def keep_onnx(
    center: Center, data: bytes, parents: list[Artifact], trainable: Trainable, difference_m: float, precision: str
) -> dict[str, Any]:
    meta = {
        "model": parents[0].id,
        "trainable": record_of(trainable),
        "difference_m": difference_m,
        "precision": precision,
    }
    label = derive([parent.label for parent in parents], kind="onnx", retention="model")
    made = center.put(data, label, name=parents[0].name, parents=[parent.id for parent in parents], meta=meta)
    return {"id": made.id}


def weights_of(center: Center, model_id: str) -> str:
    """The weights behind a model: itself, or those it was exported from."""
    found = center.artifact(model_id)
    return str(found.meta["model"]) if found.label.kind == "onnx" else found.id


def policy_spec(center: Center, model_id: str, *, name: str = "") -> PolicySpec:
    """The model as a policy that worlds can run: its ONNX bytes and what a bundle's metadata says of them."""
    from onshore.world import PolicySpec

    exported = export_onnx(center, model_id)
    data = center.read(exported.id, purpose="train")
    seen = from_record(exported.meta["trainable"])
    metadata = BundleMetadata(
        region=center.region,
        model_id=str(exported.meta["model"]),
        onnx_sha256=sha256_hex(data),
        view=seen.view,
        side_views=seen.side_views,
        frame_offsets_s=seen.frame_offsets_s,
        synthetic=exported.label.synthetic,
    )
    return PolicySpec(kind="onnx", name=name or model_id, onnx=data, metadata=metadata)


def reproduce(center: Center, model_id: str, *, progress: Progress = silent) -> int:
    """Train the model's first steps again from what its record names; how many digests differ (0 or 1).

    Errors: InputError `not_measurable` for weights that were not trained in this center.
    """
    meta = center.artifact(model_id).meta
    if "probe" not in meta:
        raise InputError("not_measurable", model_id, "it was not trained here, so its making cannot be repeated here.")
    recipe = Recipe.from_record(meta["recipe"])
    progress("repeating the first steps", 0, 1)
    again = jailed.fitted(center, meta["dataset"], recipe, meta["base"], only_probe=True)
    return int(again["probe"] != meta["probe"]["weights"])


def _kept(
    center: Center, dataset_id: str, recipe: Recipe, base: str | None, parents: list[Artifact], result: dict[str, Any]
) -> dict[str, Any]:
    """Store what training gave."""
    log = samples.keep(center, result["samples"], frozen.show(center, dataset_id))
    facts = {
        "name": recipe.name,
        "dataset": dataset_id,
        "base": base,
        "recipe": recipe.as_record(),
        **{key: result[key] for key in ("windows", "takeovers", "log", "sample_log")},
    }
    meta = {
        **facts,
        "trainable": record_of(recipe.trainable),
        "manifest": result["tensors"],
        "samples": log.id,
        "precision": precision(recipe),
        "probe": {"steps": min(PROBE_STEPS, recipe.steps), "weights": result["probe"]},
    }
    label = derive([parent.label for parent in parents], kind="weights", retention="model")
    parent_ids = [parent.id for parent in parents]
    made = center.put(result["weights"], label, name=recipe.name, parents=parent_ids, meta=meta)
    times = {key: result[key] for key in ("seconds", "cpu_seconds", "samples_per_s")}
    return {"id": made.id, **facts, **times, "synthetic": label.synthetic}


def _check_shape(center: Center, base: str, recipe: Recipe) -> None:
    trainable = trainable_of(center.artifact(base))
    if trainable != recipe.trainable:
        raise InputError(
            "import_refused",
            f"base {base}",
            f"it is a {trainable.name} of another shape or view than recipe {recipe.name}'s.",
        )
