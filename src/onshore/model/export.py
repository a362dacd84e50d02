"""From weights to the ONNX file that evaluation runs and the car gets: batch norm folded, bytes equal on every export.

Rule: no export is used before it agreed with the network it came from to 0.1 mm on real inputs' ranges.
"""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onshore.bundle.format import BundleMetadata
from onshore.bundle.inputs import SIDE_INPUTS, View, frame_inputs
from onshore.bundle.runner import Network
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.model.trainable import Trainable
from onshore.model.training import reproducible

OPSET = 17
TOLERANCE_M = 1e-4
CHECK_SAMPLES, CHECK_BATCH = 200, 50


def to_onnx(trainable: Trainable, network: nn.Module) -> bytes:
    """The network as ONNX of the interface in `bundle.runner`; a module with `streaming()` as its streaming form."""
    folded: Any = fold_batch_norm(copy.deepcopy(network).eval())
    views, side = example_inputs(trainable, 2, seed=0)
    pictures, outputs = frame_inputs(len(views)), ["path", "speed"]
    names = [pictures[0], "side", *pictures[1:]]
    given = [torch.from_numpy(views[0]), torch.from_numpy(side), *map(torch.from_numpy, views[1:])]
    if hasattr(folded, "streaming"):
        folded = folded.streaming()
        memory = torch.zeros(len(side), len(trainable.frame_offsets_s) - 1, folded.width)
        given = [*(view[:, -1:] if view.ndim == 5 else view for view in given), memory]
        names, outputs = [*names, "memory"], [*outputs, "feature"]
    buffer = io.BytesIO()
    with reproducible(0), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecation and of constant folding
        torch.onnx.export(
            _Exported(folded),
            tuple(given),
            buffer,  # type: ignore[arg-type]
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "B"} for name in (*names, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    return canonical(buffer.getvalue())


def onnx_difference_m(trainable: Trainable, network: nn.Module, onnx: bytes, *, samples: int = CHECK_SAMPLES) -> float:
    """Largest difference of path (m) or speed (m/s) between what ships and PyTorch in float32 over random inputs."""
    seen = {"view": trainable.view, "side_views": trainable.side_views, "frame_offsets_s": trainable.frame_offsets_s}
    runner = Network(onnx, BundleMetadata(region="xx", model_id="", onnx_sha256=sha256_hex(onnx), **seen))  # type: ignore[arg-type]
    worst = 0.0
    for seed, first in enumerate(range(0, samples, CHECK_BATCH), start=1):
        views, side = example_inputs(trainable, min(CHECK_BATCH, samples - first), seed=seed)
        with reproducible(0), torch.no_grad():
            frames, *beside = (torch.from_numpy(view) for view in views)
            wanted = network.eval()(frames, torch.from_numpy(side), *beside)
        found = runner.run(views, side)
        worst = max(worst, *(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, wanted, strict=True)))
    return worst


def check_equal(trainable: Trainable, network: nn.Module, onnx: bytes) -> float:
    """Return the largest difference; InputError `not_measurable` when it is above `TOLERANCE_M`."""
    difference = onnx_difference_m(trainable, network, onnx)
    if not difference <= TOLERANCE_M:
        raise InputError(
            "not_measurable",
            f"export of {trainable.name}",
            f"ONNX differs from PyTorch by {difference:.2g} m; do not use it.",
        )
    return difference


def example_inputs(
    trainable: Trainable, samples: int, *, seed: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
    """Random pictures per view (flat areas with noise) and side inputs over the ranges of driving, some unknown."""
    rng = np.random.default_rng(seed)
    times = len(trainable.frame_offsets_s)
    views = [_pictures(rng, samples, times, view) for view in (trainable.view, *trainable.side_views)]
    side = np.zeros((samples, len(SIDE_INPUTS)), np.float32)
    known = rng.random((samples, 2)) < 0.8
    side[:, 0], side[:, 1] = rng.uniform(0, 1.5, samples) * known[:, 0], known[:, 0]
    command = rng.integers(0, 4, samples)
    side[np.flatnonzero(command), 1 + command[command > 0]] = 1
    distance_m = rng.uniform(0, 200, samples)
    side[:, 5], side[:, 6] = distance_m / 100 * known[:, 1], np.exp(-distance_m / 20) * known[:, 1]
    side[:, 7], side[:, 8] = (rng.random(samples) < 0.2) * known[:, 1], known[:, 1]
    return views, side


def _pictures(rng: np.random.Generator, samples: int, times: int, view: View) -> NDArray[np.uint8]:
    flat = rng.integers(0, 256, (samples, times, 3, view.height_px // 8, view.width_px // 8), dtype=np.int16)
    noise = rng.integers(-8, 9, (samples, times, 3, view.height_px, view.width_px), dtype=np.int16)
    return (flat.repeat(8, axis=3).repeat(8, axis=4) + noise).clip(0, 255).astype(np.uint8)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Every convolution takes over the batch norm behind it; the module is changed and returned."""
    for child in network.children():
        if isinstance(child, nn.Sequential):
            _fold_sequence(child)
        fold_batch_norm(child)
    return network


def _fold_sequence(sequence: nn.Sequential) -> None:
    for index in range(len(sequence) - 1):
        first, second = sequence[index], sequence[index + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            sequence[index] = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
            sequence[index + 1] = nn.Identity()


def canonical(data: bytes) -> bytes:
    """The graph without what tells of the machine that wrote it, in protobuf's deterministic form."""
    import onnx

    model = onnx.load_model_from_string(data)
    model.producer_name, model.producer_version, model.doc_string = "onshore", "", ""
    for node in model.graph.node:
        node.doc_string = ""
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


class _Exported(nn.Module):
    """float32 in contiguous layout: the exporter knows no memory formats."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)
