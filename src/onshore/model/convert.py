"""Pickles and PyTorch checkpoints become safetensors, opened where whatever they run reaches nothing.

Rule: a pickle is a program. It is opened in a jailed child that gets its bytes over a pipe and has no network and no file
but the interpreter's; first with torch's own reader of plain tensors, and only if that cannot, as code, in a jail that
lacks no layer. Nothing that comes back is believed: it is parsed strictly and written again, and the import gate asks anew.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onshore.core.errors import InputError, NotFoundError
from onshore.jail import Jail, Limits
from onshore.model.weights import HEADER_LIMIT, NAMES, parse, serialise
from onshore.store import Center

GIB = 1 << 30
MOST_BYTES, MOST_S = 8 * GIB, 600.0
#: Under which key training tools keep the weights beside other things.
NESTS = ("state_dict", "model_state_dict", "model", "network", "module", "weights", "ema")
#: What wrappers put before every name: DataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """data: canonical safetensors. opened: "as tensors", or "as code" when the file holds more than plain tensors.

    left_out: what was in the file and is not among the tensors, by its name there.
    """

    data: bytes
    opened: str
    tensors: int
    left_out: tuple[str, ...]


def convert(center: Center, path: str | Path) -> Converted:
    """A pickle's or PyTorch checkpoint's tensors as safetensors; the jail's attestation is in the ledger before it is opened.

    Errors: NotFoundError, InputError `unknown_format` when it holds no usable tensors or two of one name, `limit_exceeded`, RefusedError
    `jail_unavailable` when it needs to run code and this machine's jail lacks a layer.
    """
    file = Path(path)
    if not file.is_file() or file.is_symlink():
        raise NotFoundError(file, "give a plain file.")
    if file.stat().st_size > MOST_BYTES:
        raise InputError("limit_exceeded", file.name, f"it is larger than {MOST_BYTES} bytes.")
    data = file.read_bytes()
    jail = center.jail("convert", _limits(len(data)))
    answer = _opened(jail, data, as_code=False)
    if answer is None:
        jail.strict = True
        answer = _opened(jail, data, as_code=True)
    if answer is None:
        raise InputError("unknown_format", file.name, "neither torch nor pickle finds tensors in it.")
    state = parse(bytes(answer["data"]), file.name)
    return Converted(
        data=serialise(state),
        opened=str(answer["opened"])[:40],
        tensors=len(state),
        left_out=tuple(str(name)[:80] for name in answer["left_out"])[:100],
    )


def _opened(jail: Jail, data: bytes, *, as_code: bool) -> dict[str, Any] | None:
    answer = jail.run(f"{__name__}:opened", {"data": data, "as_code": as_code}, timeout_s=MOST_S)
    fits = (
        isinstance(answer, dict) and isinstance(answer.get("data"), bytes) and isinstance(answer.get("left_out"), list)
    )
    return {"opened": "", **answer} if fits else None


def _limits(size: int) -> Limits:
    """Address space for torch and several copies of the weights."""
    return Limits(memory_bytes=16 * GIB + 6 * size, cpu_s=int(MOST_S), answer_bytes=2 * size + HEADER_LIMIT + GIB)


# -- in the child ------------------------------------------------------------------------------------------------------


def opened(asked: dict[str, Any]) -> dict[str, Any] | None:
    """What runs in the child. None when the file cannot be opened this way."""
    read = _as_code if asked["as_code"] else _as_tensors
    found = read(asked["data"])
    state, beside = _state(found)
    if not state:
        return None
    kept = {name: tensor for name, tensor in state.items() if tensor.dtype in NAMES}
    if not kept:
        wanted = ", ".join(sorted(NAMES.values()))
        raise InputError("unknown_format", min(state), f"no tensor has a type that weights here can have: {wanted}.")
    plain: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        if _plain(name) in plain:
            raise InputError("unknown_format", name, "another tensor has this name without its wrapper; keep one.")
        plain[_plain(name)] = tensor
    return {
        "data": serialise(plain),
        "left_out": sorted(beside | (state.keys() - kept.keys())),
        "opened": "as code" if asked["as_code"] else "as tensors",
    }


def _as_tensors(data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # whatever is wrong with it: not plain tensors
        return None


def _as_code(data: bytes) -> Any:
    """It may run anything now."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    except Exception:  # not made by torch
        return _unpickled(data)


def _unpickled(data: bytes) -> Any:
    try:
        return pickle.loads(data)
    except Exception:  # no pickle either
        return None


def _state(found: Any) -> tuple[dict[str, Tensor], set[str]]:
    """The named tensors in what was read (a network's, a mapping's, or those of a nest inside) and what lay beside them."""
    if isinstance(found, nn.Module):
        found = found.state_dict()
    if not isinstance(found, Mapping):
        return {}, set()
    direct = {str(name): _tensor(value) for name, value in found.items() if _is_array(value)}
    if direct:
        return direct, {str(name) for name in found} - direct.keys()
    for nest in (name for name in NESTS if name in found):
        state, beside = _state(found[nest])
        if state:
            return state, beside | {str(name) for name in found if name != nest}
    return {}, set()


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray) and (isinstance(value, Tensor) or value.dtype.kind in "fiu")


def _tensor(value: Any) -> Tensor:
    return value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def _plain(name: str) -> str:
    for prefix in WRAPPERS:
        name = name.removeprefix(prefix)
    return name
