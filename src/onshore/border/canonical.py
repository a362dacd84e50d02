"""Bytes are rewritten, never passed through: what leaves or enters is a new file made from what a manifest names.

Rule: a file says nothing that its manifest does not ask for. safetensors files are parsed strictly and written again
tightly packed; JSON is parsed strictly and written again in canonical form. Everything here is a pure function of bytes.

`Tensors` is a manifest: name -> (dtype, shape), as JSON `{name: [dtype, [d0, d1, …]]}`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onshore.core.errors import InputError

Tensors = dict[str, tuple[str, tuple[int, ...]]]

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
#: The one metadata a file may carry, and every rewritten file does: the same for all, so it says nothing.
METADATA = {"schema": "onshore-weights-1"}
#: Types a network's parameters have. A uint8 tensor of 1280x720x3 is a picture, not a parameter.
PARAMETER_TYPES = frozenset(["F32", "F16", "BF16"])
_TORCH_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "uint8": "U8", "float64": "F64"}
MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 20_000
_MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where one tensor lies in the data section of a file: `data[start:end]`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def tensors_in(data: bytes, subject: str = "weights") -> tuple[list[Tensor], memoryview]:
    """Parse a safetensors file strictly; returns its tensors and its data section.

    Refuses (InputError `import_refused`) what the format's readers let through and a payload can hide in: metadata,
    a name given twice, more header padding than alignment needs, gaps, overlaps, trailing bytes, unknown fields.
    """
    if len(data) < 10:
        raise _bad(subject, "is too short for a safetensors file")
    size = struct.unpack_from("<Q", data)[0]
    if size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise _bad(subject, f"names a header of {size} bytes, which it does not hold; it is no safetensors file")
    raw = data[8 : 8 + size]
    text = raw.rstrip(b" ")
    if not text.startswith(b"{") or len(raw) - len(text) > 7:
        raise _bad(subject, "has a header that is padded with more than alignment needs, or is no JSON object")
    header = strict_json(text, subject)
    if header.pop("__metadata__", METADATA) != METADATA:
        raise _bad(subject, "carries metadata of its own; save it without")
    body = memoryview(data)[8 + size :]
    found = [_tensor(name, entry, subject) for name, entry in header.items()]
    _check_packing(found, len(body), subject)
    return found, body


def _tensor(name: str, entry: Any, subject: str) -> Tensor:
    if not name.isascii() or not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
        raise _bad(subject, "has a tensor name that is not 1 to 200 printable ASCII characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(subject, f"tensor {name}: the fields must be dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _known(dtype):
        raise _bad(subject, f"tensor {name}: type {dtype!r} is not one of {', '.join(ITEM_BYTES)}")
    if not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise _bad(subject, f"tensor {name}: shape and data_offsets must be lists of whole numbers")
    tensor = Tensor(name=name, dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])
    if tensor.end - tensor.start != math.prod(tensor.shape) * ITEM_BYTES[dtype]:
        raise _bad(subject, f"tensor {name}: its bytes do not fit its shape and type")
    return tensor


def _known(dtype: Any) -> bool:
    return isinstance(dtype, str) and dtype in ITEM_BYTES


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_packing(tensors: list[Tensor], size: int, subject: str) -> None:
    if not tensors or len(tensors) > MAX_TENSORS:
        raise _bad(subject, f"holds {len(tensors)} tensors; 1 to {MAX_TENSORS} are expected")
    at = 0
    for tensor in sorted(tensors, key=lambda t: (t.start, t.end)):
        if tensor.start != at:
            raise _bad(subject, f"tensor {tensor.name}: bytes before it belong to no tensor, or to two")
        at = tensor.end
    if at != size:
        raise _bad(subject, f"has {size - at} bytes after its last tensor")


def manifest_of(data: bytes, subject: str = "weights") -> Tensors:
    """The manifest a file describes itself with: good for showing, worth nothing as a check of that file."""
    tensors, _ = tensors_in(data, subject)
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}


def manifest_from_record(record: Any, subject: str = "tensor manifest") -> Tensors:
    """Read `{name: [dtype, shape]}` or `{name: {"dtype", "shape"}}`; InputError `bad_config` names what is wrong."""
    if not isinstance(record, Mapping) or not record:
        raise InputError(
            "bad_config", subject, "a manifest is a table {name: [dtype, shape]} with at least one tensor."
        )
    manifest: Tensors = {}
    for name, entry in record.items():
        pair = [entry.get("dtype"), entry.get("shape")] if isinstance(entry, Mapping) else entry
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[1], list | tuple):
            raise InputError("bad_config", f"{subject} {name}", "each tensor is [dtype, shape].")
        dtype, shape = _TORCH_NAMES.get(str(pair[0]), pair[0]), list(pair[1])
        if not _known(dtype) or not _whole(shape):
            raise InputError("bad_config", f"{subject} {name}", "use a safetensors type such as F32 and whole sizes.")
        manifest[str(name)] = (str(dtype), tuple(shape))
    return manifest


def manifest_record(manifest: Tensors) -> dict[str, list[Any]]:
    return {name: [dtype, list(shape)] for name, (dtype, shape) in sorted(manifest.items())}


def rewrite_weights(data: bytes, manifest: Tensors, subject: str = "weights") -> bytes:
    """The file again, holding exactly the manifest's tensors in one fixed order, no metadata and no choice anywhere.

    Raises InputError `import_refused` naming the first tensor that is missing, extra, or of another type or shape.
    """
    tensors, body = tensors_in(data, subject)
    held = {tensor.name: tensor for tensor in tensors}
    for name in sorted(held.keys() - manifest.keys()):
        raise _bad(subject, f"tensor {name} is not in the manifest")
    for name, (dtype, shape) in sorted(manifest.items()):
        if name not in held:
            raise _bad(subject, f"tensor {name} of the manifest is missing")
        if (held[name].dtype, held[name].shape) != (dtype, tuple(shape)):
            raise _bad(
                subject,
                f"tensor {name} is {held[name].dtype}{list(held[name].shape)}, the manifest says {dtype}{list(shape)}",
            )
    return _pack(tensors, body)


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays of float32 or float16 as the bytes that `rewrite_weights` would give."""
    names = {"float32": "F32", "float16": "F16"}
    at, tensors = 0, []
    for name, array in sorted(arrays.items()):
        tensors.append(
            Tensor(name=name, dtype=names[array.dtype.name], shape=array.shape, start=at, end=at + array.nbytes)
        )
        at += array.nbytes
    return _pack(tensors, memoryview(b"".join(array.tobytes() for _, array in sorted(arrays.items()))))


def _pack(tensors: list[Tensor], body: memoryview) -> bytes:
    """Names sorted, no gaps, header padded to 8 bytes: the form in which `model` writes weights, so digests stay."""
    ordered = sorted(tensors, key=lambda t: t.name)
    header: dict[str, Any] = {"__metadata__": METADATA}
    at = 0
    for tensor in ordered:
        size = tensor.end - tensor.start
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # alignment only: its length follows from the header, so it carries nothing
    return b"".join([struct.pack("<Q", len(text)), text, *(body[t.start : t.end] for t in ordered)])


def strict_json(text: bytes, subject: str) -> Any:
    """Parse JSON. Errors: InputError `import_refused` for a key given twice, NaN or Infinity, bytes that are no UTF-8, a
    number of thousands of digits, and tables in tables without end.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(items)
        if len(record) != len(items):
            raise _bad(subject, "gives a key twice; readers differ on which one counts")
        return record

    def constant(name: str) -> Any:
        raise _bad(subject, f"holds {name}, which JSON does not know")

    try:
        return json.loads(text.decode("utf8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as problem:
        raise _bad(subject, "is no readable JSON") from problem


def _bad(subject: str, what: str) -> InputError:
    return InputError("import_refused", subject, f"the file {what}.")
