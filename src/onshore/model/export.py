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

from onshore.bundle.inputs import SIDE_INPUTS
from onshore.core.errors import InputError
from onshore.model.trainable import Trainable
from onshore.model.training import reproducible

OPSET = 17
TOLERANCE_M = 1e-4
CHECK_SAMPLES = 200


def to_onnx(trainable: Trainable, network: nn.Module) -> bytes:
    """The network as ONNX: inputs `frames` uint8 (B, T, 3, H, W) and `side` float32 (B, 9), outputs `path`, `speed`."""
    exported = _Exported(fold_batch_norm(copy.deepcopy(network).eval()))
    frames, side = example_inputs(trainable, 2, seed=0)
    buffer = io.BytesIO()
    with reproducible(0), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecation and of constant folding
        torch.onnx.export(
            exported,
            (torch.from_numpy(frames), torch.from_numpy(side)),
            buffer,  # type: ignore[arg-type]
            input_names=["frames", "side"],
            output_names=["path", "speed"],
            dynamic_axes={name: {0: "B"} for name in ("frames", "side", "path", "speed")},
            opset_version=OPSET,
            dynamo=False,
        )
    return _canonical(buffer.getvalue())


def onnx_difference_m(trainable: Trainable, network: nn.Module, onnx: bytes, *, samples: int = CHECK_SAMPLES) -> float:
    """Largest difference of path (m) or speed (m/s) between ONNX Runtime and PyTorch in float32 over random inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    frames, side = example_inputs(trainable, samples, seed=1)
    with reproducible(0), torch.no_grad():
        path, speed = network.eval()(torch.from_numpy(frames), torch.from_numpy(side))
    found = session.run(["path", "speed"], {"frames": frames, "side": side})
    return float(max(np.abs(found[0] - path.numpy()).max(), np.abs(found[1] - speed.numpy()).max()))


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


def example_inputs(trainable: Trainable, samples: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Random pictures (flat areas with noise) and side inputs over the ranges that driving has, some of them unknown."""
    rng = np.random.default_rng(seed)
    times, view = len(trainable.frame_offsets_s), trainable.view
    flat = rng.integers(0, 256, (samples, times, 3, view.height_px // 8, view.width_px // 8))
    frames = flat.repeat(8, axis=3).repeat(8, axis=4) + rng.integers(
        -8, 9, (samples, times, 3, view.height_px, view.width_px)
    )
    side = np.zeros((samples, len(SIDE_INPUTS)), np.float32)
    known = rng.random((samples, 2)) < 0.8
    side[:, 0], side[:, 1] = rng.uniform(0, 1.5, samples) * known[:, 0], known[:, 0]
    command = rng.integers(0, 4, samples)
    side[np.flatnonzero(command), 1 + command[command > 0]] = 1
    distance_m = rng.uniform(0, 200, samples)
    side[:, 5], side[:, 6] = distance_m / 100 * known[:, 1], np.exp(-distance_m / 20) * known[:, 1]
    side[:, 7], side[:, 8] = (rng.random(samples) < 0.2) * known[:, 1], known[:, 1]
    return frames.clip(0, 255).astype(np.uint8), side


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


def _canonical(data: bytes) -> bytes:
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

    def forward(self, frames: Tensor, side: Tensor) -> Any:
        return self.network(frames, side)
