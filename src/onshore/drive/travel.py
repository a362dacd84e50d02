"""Records of this room as plain values and back, for the way into the jail and out of it.

Rule: what comes out of the jail is built from a closed list of record types and numeric arrays; nothing is unpickled, and
a value that does not fit is an error, whoever sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onshore.core.control import VehicleGeometry
from onshore.core.errors import CorruptError, OnshoreError
from onshore.core.recording import Camera, Clock, Packet, Recording, Rig, Signals, Video
from onshore.drive.columns import Column, ColumnMap
from onshore.drive.discover import Source
from onshore.drive.grouping import Placed
from onshore.drive.prepare import Prepared

KNOWN: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Camera, Clock, Packet, Recording, Rig, Signals, Video, VehicleGeometry),
        *(Column, ColumnMap, Source, Placed, Prepared),
    )
}
NUMBERS = "biuf"


def packed(value: Any) -> Any:
    """A record, or any nesting of records, arrays, paths and plain values, as JSON with bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: packed(getattr(value, field.name)) for field in fields(value)}
        return {"$record": type(value).__name__, "parts": parts}
    if isinstance(value, np.ndarray):
        return {"$array": value.dtype.str, "shape": list(value.shape), "data": np.ascontiguousarray(value).tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return {"$path": str(value)}
    if isinstance(value, (tuple, list)):
        items = [packed(item) for item in value]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return {str(key): packed(item) for key, item in value.items()}
    return value


def unpacked(value: Any, kind: type[Any] | None = None) -> Any:
    """What `packed` packed; of this kind where one is named. Errors: CorruptError."""
    try:
        found = _built(value)
    except OnshoreError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as fault:
        raise CorruptError("corrupt", "a jailed reader's answer", f"it is no record of ours: {fault}.") from fault
    if kind is not None and not isinstance(found, kind):
        raise CorruptError("corrupt", "a jailed reader's answer", f"it is no {kind.__name__}.")
    return found


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$record" in value:
        return KNOWN[value["$record"]](**{name: _built(part) for name, part in value["parts"].items()})
    if "$array" in value:
        return _array(value)
    if "$path" in value:
        return Path(value["$path"])
    if "$tuple" in value:
        return tuple(_built(item) for item in value["$tuple"])
    return {key: _built(item) for key, item in value.items()}


def _array(value: Mapping[str, Any]) -> Any:
    kind = np.dtype(value["$array"])
    if kind.kind not in NUMBERS:
        raise ValueError(f"an array of {kind}")
    return np.frombuffer(value["data"], kind).reshape(value["shape"]).copy()
