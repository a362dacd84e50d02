"""What a network must offer to be trained, collected from, exported and released here: bring your own.

Rule: this room never asks which network it holds; everything it needs is in `Trainable`, and what a network's weights
are is in its tensor manifest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError

ENTRY_POINTS = "onshore.trainables"


@dataclass(frozen=True, kw_only=True)
class TrainingTensors:
    """One batch as tensors. frames: 0..255, uint8 or float32; masks: float32, 1 where the value beside it is known.

    side_frames: the pictures of the side views, each shaped as frames_BTCHW for its own view.
    """

    frames_BTCHW: Tensor
    side_B9: Tensor
    path_BK2: Tensor
    path_mask_BK: Tensor
    speed_BS: Tensor
    speed_mask_BS: Tensor
    side_frames: tuple[Tensor, ...] = ()

    def to(self, device: torch.device) -> TrainingTensors:
        """The same on a device; to a GPU it is copied while the GPU still computes what it was given before."""
        if device == self.side_B9.device:
            return self
        if device.type != "cuda":
            return self._each(lambda tensor: tensor.to(device))
        beside, now = _copying(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(beside):
            moved = self._each(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
        now.wait_stream(beside)
        moved._each(lambda tensor: tensor.record_stream(now))
        return moved

    def _each(self, change: Callable[[Tensor], Any]) -> TrainingTensors:
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "side_frames"}
        changed = {name: change(tensor) for name, tensor in plain.items()}
        return TrainingTensors(**changed, side_frames=tuple(change(view) for view in self.side_frames))


@lru_cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Trainable(Protocol):
    """A network and how to teach it: a frozen dataclass in a module of its own.

    view, side_views, frame_offsets_s: what it sees, as the dataset's windows must be cut; side views are other cameras'.
    `build()` makes fresh weights from torch's global random state (seeded by the caller) of a module
    (frames (B, T, 3, H, W), side (B, 9), one more array of frames per side view) -> (path (B, K, 2) in metres at
    core.plan.PATH_ARCS_M, speed (B, S) in m/s at SPEED_TIMES_S), which is also what is exported. A module with a method
    `streaming()` is exported as that: (one frame per view (B, 1, 3, H, W), side, memory (B, T - 1, F)) -> (path, speed,
    feature (B, F)); see bundle.runner. `loss` returns scalars, the one named `loss` to be minimised, with `path` and
    `speed` (m/s) to be shown. `as_record` is JSON that says all of it, and `from_record` reads it back.
    """

    @property
    def name(self) -> str: ...

    @property
    def view(self) -> View: ...

    @property
    def side_views(self) -> tuple[View, ...]: ...

    @property
    def frame_offsets_s(self) -> tuple[float, ...]: ...

    def build(self) -> nn.Module: ...

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]: ...

    def as_record(self) -> dict[str, Any]: ...

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Trainable: ...


class Adaptation(Protocol):
    """How training from a base differs from plain training: a frozen dataclass in a module of its own, recorded as a Trainable is.

    `prepared` gets the network with the base's weights, in training mode, before the optimiser is made, and returns what is
    trained in its place: parts frozen (no `requires_grad`, or in evaluation mode), factors put in, a copy of the base kept.
    `loss` may change the trainable's losses. `finished` returns what is kept: a network of the trainable's own manifest.
    """

    def prepared(self, network: nn.Module) -> nn.Module: ...

    def loss(self, network: nn.Module, batch: TrainingTensors, losses: dict[str, Tensor]) -> dict[str, Tensor]: ...

    def finished(self, network: nn.Module) -> nn.Module: ...

    def as_record(self) -> dict[str, Any]: ...

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Adaptation: ...


def record_of(trainable: Trainable | Adaptation) -> dict[str, Any]:
    """A trainable as JSON that tells its class too; `from_record` builds it again."""
    kind = type(trainable)
    return {**trainable.as_record(), "class": f"{kind.__module__}:{kind.__qualname__}"}


def from_record(record: dict[str, Any]) -> Trainable:
    """The trainable that `record_of` described: one of this room, or one that an installed package declares.

    A package of your own declares its classes as entry points of the group `onshore.trainables`; nothing else is
    imported, whatever a record names. Raises InputError `bad_config`.
    """
    named = record.get("class", "onshore.model.nano:Nano")
    declared = {point.value for point in entry_points(group=ENTRY_POINTS)}
    module, _, name = str(named).partition(":")
    if named not in declared and module.rpartition(".")[0] != __name__.rpartition(".")[0]:
        raise InputError("bad_config", f"network {named!r}", f"no installed package declares it in {ENTRY_POINTS}.")
    try:
        found: Any = getattr(importlib.import_module(module), name, None)
    except ImportError as problem:
        raise InputError("bad_config", f"network {named!r}", f"it cannot be imported: {problem}.") from problem
    if not hasattr(found, "from_record"):
        raise InputError("bad_config", f"network {named!r}", "there is no such class with a from_record.")
    try:
        made: Trainable = found.from_record({key: value for key, value in record.items() if key != "class"})
    except (TypeError, KeyError, ValueError, AttributeError) as problem:
        wrong = f"its record has a missing or impossible field: {type(problem).__name__} {problem}."
        raise InputError("bad_config", f"network {named!r}", wrong) from problem
    return made


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
