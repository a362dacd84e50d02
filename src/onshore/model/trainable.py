"""What a network must offer to be trained, collected from, exported and released here: bring your own.

Rule: this room never asks which network it holds; everything it needs is in `Trainable`, and what a network's weights
are is in its tensor manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingTensors:
    """One batch as tensors. frames: 0..255, uint8 or float32; masks: float32, 1 where the value beside it is known."""

    frames_BTCHW: Tensor
    side_B9: Tensor
    path_BK2: Tensor
    path_mask_BK: Tensor
    speed_BS: Tensor
    speed_mask_BS: Tensor


class Trainable(Protocol):
    """A network and how to teach it.

    view, frame_offsets_s: what it sees, as the dataset's windows must be cut. `build()` makes fresh weights from torch's
    global random state (seeded by the caller) of a module (frames (B, T, 3, H, W), side (B, 9)) -> (path (B, K, 2) in
    metres at core.plan.PATH_ARCS_M, speed (B, S) in m/s at SPEED_TIMES_S), which is also what is exported.
    `loss` returns scalars, the one named `loss` to be minimised. `as_record` is JSON that says all of it.
    """

    @property
    def name(self) -> str: ...

    @property
    def view(self) -> View: ...

    @property
    def frame_offsets_s(self) -> tuple[float, ...]: ...

    def build(self) -> nn.Module: ...

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]: ...

    def as_record(self) -> dict[str, Any]: ...


def manifest(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Tensor name -> dtype and shape of everything that is saved: what weights for this network must hold, no more."""
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in sorted(network.state_dict().items())
    }


def check_manifest(found: Mapping[str, Any], wanted: Mapping[str, Any], subject: str) -> None:
    """Raise InputError `import_refused` unless both manifests name the same tensors, types and shapes."""
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise InputError(
                "import_refused",
                f"{subject} tensor {name!r}",
                f"the network's manifest says {wanted.get(name, 'no such tensor')}, the weights {found.get(name, 'none')}.",
            )
