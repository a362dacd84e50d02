"""Weights as bytes: safetensors written one way only, so that equal weights have equal digests.

Rule: sorted names, no padding, no metadata but the schema; what a file holds beyond the network's manifest is refused.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import torch
from torch import Tensor, nn

from onshore.core.errors import InputError
from onshore.model.trainable import check_manifest, manifest

METADATA = {"schema": "onshore-weights-1"}
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
NAMES = {kind: name for name, kind in _TYPES.items()}
HEADER_LIMIT = 1 << 20


def to_bytes(network: nn.Module) -> bytes:
    """The network's state as canonical safetensors."""
    return serialise(network.state_dict())


def serialise(state: dict[str, Tensor]) -> bytes:
    """Tensors as canonical safetensors: names sorted, C order, offsets without gaps, header padded to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": METADATA}
    blocks: list[bytes] = []
    at = 0
    for name, tensor in sorted(state.items()):
        plain = tensor.detach().to("cpu", memory_format=torch.contiguous_format).contiguous()
        block = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        header[name] = {
            "dtype": NAMES[plain.dtype],
            "shape": list(plain.shape),
            "data_offsets": [at, at + len(block)],
        }
        blocks.append(block)
        at += len(block)
    head = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(blocks)


def parse(data: bytes, subject: str = "weights") -> dict[str, Tensor]:
    """Tensors of canonical bytes. Anything not written by `serialise`'s rules is InputError `import_refused`."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size]) if size <= HEADER_LIMIT else None
        state = {name: _tensor(entry, data[8 + size :]) for name, entry in header.items() if name != "__metadata__"}  # type: ignore[union-attr]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise InputError(
            "import_refused", subject, "this is not a safetensors file of ours; convert it first."
        ) from problem
    if serialise(state) != data:
        raise InputError("import_refused", subject, "the file is not canonical: it hides bytes or names out of order.")
    return state


def load(network: nn.Module, data: bytes, subject: str = "weights") -> nn.Module:
    """Put weights into a network whose manifest they must match exactly; returns the network in evaluation mode."""
    state = parse(data, subject)
    found = {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in state.items()
    }
    check_manifest(found, manifest(network), subject)
    network.load_state_dict(state)
    return network.eval()


def _tensor(entry: dict[str, Any], body: bytes) -> Tensor:
    first, past = entry["data_offsets"]
    kind = _TYPES[entry["dtype"]]
    if not 0 <= first <= past <= len(body):
        raise ValueError("offsets outside the file")
    raw = (
        torch.frombuffer(bytearray(body[first:past]), dtype=torch.uint8)
        if past > first
        else torch.empty(0, dtype=torch.uint8)
    )
    return raw.view(kind).reshape(entry["shape"])
