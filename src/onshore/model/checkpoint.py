"""What a run is in the middle of: everything that a killed training needs to go on to the same bits.

Rule: plain values and tensors, no code: nothing of it is unpickled. It holds weights, so it is labelled as what they were
made of, sealed like every artifact, can never leave, and is destroyed when the run is done or somebody in it is erased.
"""

from __future__ import annotations

import json
import logging
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from onshore.core.digest import canonical_json, short_id
from onshore.core.errors import CorruptError, OnshoreError
from onshore.core.label import Artifact
from onshore.model.weights import parse, serialise
from onshore.residency import derive
from onshore.store import Center, custody

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """step: how many are behind. facts: JSON by whose they are. tensors: by name."""

    step: int
    facts: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def beside(self, name: str, facts: Any, tensors: Mapping[str, Tensor]) -> Checkpoint:
        """The same with one more part in it."""
        return replace(self, facts={**self.facts, name: facts}, tensors={**self.tensors, **tensors})

    def to_bytes(self) -> bytes:
        """Length of the JSON (8 bytes, little-endian), the JSON, safetensors."""
        text = canonical_json({"step": self.step, "facts": self.facts})
        return struct.pack("<Q", len(text)) + text + serialise(self.tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Errors: CorruptError, InputError."""
        try:
            (size,) = struct.unpack_from("<Q", data)
            told = json.loads(data[8 : 8 + size])
            return cls(**told, tensors=parse(data[8 + size :], "checkpoint"))
        except (struct.error, ValueError, TypeError) as fault:
            raise CorruptError("corrupt", "checkpoint", "it is not one of ours; the run starts again.") from fault


class Shelf:
    """Where a center keeps the checkpoints of one run: the newest alone, two for a moment while one replaces the other.

    inputs: what the run is made of. Checkpoints of another torch or class of processor are not gone on with: they would
    give other bits.
    """

    def __init__(self, center: Center, inputs: Mapping[str, Any], parents: Sequence[Artifact]) -> None:
        self._center, self.name, self._parents = center, short_id("run", dict(inputs)), parents
        self._older: list[str] = []

    def newest(self) -> bytes | None:
        """The bytes of the newest checkpoint that can be read, if there is one."""
        found = self._all()
        self._older = [one.id for one in found]
        for one in reversed(found):
            if one.meta.get("machine") != machine():
                continue
            try:
                return self._center.read(one.id, purpose="train")
            except OnshoreError as fault:  # an older one, or none, only costs time
                _log.warning("checkpoint %s of %s cannot be read (%s)", one.id, self.name, fault.code)
        return None

    def put(self, data: bytes, step: int) -> None:
        """Keep one, durably, then destroy those before it."""
        label = derive([parent.label for parent in self._parents], kind="checkpoint", retention="model")
        meta = {"step": step, "machine": machine()}
        parents = [parent.id for parent in self._parents]
        made = self._center.put(data, label, name=self.name, parents=parents, meta=meta)
        self._destroy([one for one in self._older if one != made.id])
        self._older = [made.id]

    def clear(self) -> None:
        """The run is done."""
        self._destroy([one.id for one in self._all()])

    def _all(self) -> list[Artifact]:
        return self._center.artifacts(kind="checkpoint", name=self.name)

    def _destroy(self, ids: list[str]) -> None:
        if ids:
            custody.destroy(self._center, ids, reason="superseded", ticket=self.name)


def machine() -> str:
    """What equal bits depend on beside the recipe: torch's version and which instructions its kernels use."""
    return f"torch {torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
