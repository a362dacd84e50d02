"""Column maps: what a table's columns mean, as data. A map names columns by name or position, with unit and clock.

Rule: nothing about a source is guessed silently: what a map assumes it lists, and a column that is required and absent is
an error that names it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.errors import InputError
from onshore.core.recording import Camera, Signals

MAPS = Path(__file__).parent / "maps"
UNITS: dict[str, float] = {
    "": 1.0,
    "m": 1.0,
    "m/s": 1.0,
    "km/h": 1 / 3.6,
    "mph": 0.44704,
    "m/s^2": 1.0,
    "g": 9.80665,
    "rad": 1.0,
    "deg": np.pi / 180,
    "rad/s": 1.0,
    "deg/s": np.pi / 180,
    "1/m": 1.0,
}
TIME_UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
SPEED_WORDS = re.compile("speed|vego|veloc", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: by `column` (name) or `position` (from 0), in `unit`, times `factor`, by `ratio`, times another column."""

    column: str | None = None
    position: int | None = None
    unit: str = ""
    factor: float = 1.0
    ratio: float = 1.0
    times: str | None = None
    required: bool = False
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.column is None) == (self.position is None):
            raise InputError("bad_config", "column map", "name each column by `column` or by `position`, not both.")
        if self.unit not in UNITS and self.unit not in TIME_UNITS_NS:
            raise InputError("bad_config", f"unit {self.unit!r}", f"use one of {', '.join([*UNITS, *TIME_UNITS_NS])}.")
        if self.ratio == 0:
            raise InputError("bad_config", "ratio", "a ratio of 0 divides by nothing.")

    def __str__(self) -> str:
        return f"column {self.column!r}" if self.column is not None else f"column at position {self.position}"

    def index(self, header: Sequence[str]) -> int | None:
        """Where it stands in this header; of columns of one name, the first."""
        if self.position is not None:
            return self.position if self.position < len(header) else None
        return header.index(self.column or "") if self.column in header else None


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """One kind of table: how it is recognised, laid out in folders, timed, and what its columns mean."""

    name: str
    recognise: tuple[str, ...]
    any_of: tuple[str, ...] = ()
    version: int = 1
    drive_folder: str | None = None
    vehicle_levels_up: int = 1
    index: str = r"(\d+)$"
    clock: str = "boot"
    time: tuple[Column, ...] = ()
    utc: Column | None = None
    signals: dict[str, Column] = field(default_factory=dict)
    camera: Camera | None = None
    camera_name: str = "front"
    vehicle: VehicleGeometry = VehicleGeometry()

    def __post_init__(self) -> None:
        unknown = set(self.signals) - set(Signals.COLUMNS)
        if unknown:
            raise InputError(
                "bad_config", f"map {self.name} {sorted(unknown)}", f"signals are {', '.join(Signals.COLUMNS)}."
            )
        if not self.time or "speed_mps" not in self.signals or self.clock not in ("boot", "utc"):
            raise InputError("bad_config", f"map {self.name}", "give clock (boot or utc), clock.time and speed_mps.")
        timed = [*self.time, *([self.utc] if self.utc else [])]
        for columns, units in ((timed, TIME_UNITS_NS), (self.signals.values(), UNITS)):
            for column in columns:
                if column.unit not in units:
                    advice = f"its unit {column.unit!r} is not one of {', '.join(filter(None, units))}."
                    raise InputError("bad_config", f"map {self.name} {column}", advice)

    def score(self, header: Sequence[str]) -> float:
        """Share of the map's own columns that the header holds; 0 when none of `any_of` is there."""
        if self.any_of and not set(self.any_of) & set(header):
            return 0.0
        return sum(name in header for name in self.recognise) / max(len(self.recognise), 1)

    @property
    def assumed(self) -> list[str]:
        """Everything the map assumes rather than reads."""
        listed = [text for column in self.signals.values() for text in column.assumed]
        if self.camera is None or self.camera.source == "assumed":
            listed.append("camera calibration")
        return listed


def load_map(path: Path | str) -> ColumnMap:
    """Read one TOML map. Raises InputError `bad_config` naming the file and what is missing."""
    source = Path(path)
    try:
        record = tomllib.loads(source.read_text(encoding="utf8"))
        layout, clock, camera = record.get("layout", {}), record["clock"], record.get("camera")
        times = clock["time"] if isinstance(clock["time"], list) else [clock["time"]]
        return ColumnMap(
            name=record["name"],
            version=record.get("version", 1),
            recognise=tuple(record["recognise"]["columns"]),
            any_of=tuple(record["recognise"].get("any_of", ())),
            drive_folder=layout.get("drive_folder"),
            vehicle_levels_up=layout.get("vehicle_levels_up", 1),
            index=layout.get("index", r"(\d+)$"),
            clock=clock["kind"],
            time=tuple(_column(time) for time in times),
            utc=_column(clock["utc"]) if "utc" in clock else None,
            signals={name: _column(column) for name, column in record["signals"].items()},
            camera=_camera(camera) if camera and "focal_px" in camera else None,
            camera_name=camera.get("name", "front") if camera else "front",
            vehicle=VehicleGeometry(**record.get("vehicle", {})),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, re.error) as problem:
        raise InputError("bad_config", source.name, f"the column map cannot be read: {problem!r}.") from problem


def _column(record: dict[str, Any]) -> Column:
    return Column(**{**record, "assumed": tuple(record.get("assumed", ()))})


def _camera(record: dict[str, Any]) -> Camera:
    centred = {"centre_x_px": record["width_px"] / 2, "centre_y_px": record["height_px"] / 2}
    pose = tuple(float(value) for value in record.get("pose_camera_in_rig", Camera.pose_camera_in_rig))
    return Camera(**{**centred, "name": "front", **record, "pose_camera_in_rig": pose})


def shipped_maps() -> list[ColumnMap]:
    return [load_map(path) for path in sorted(MAPS.glob("*.toml"))]


def recognise(header: Sequence[str], maps: Sequence[ColumnMap]) -> ColumnMap | None:
    """The map whose columns the header holds best, if it holds at least six in ten of them."""
    best = max(maps, key=lambda known: (known.score(header), len(known.recognise)), default=None)
    return best if best is not None and best.score(header) >= 0.6 else None


def scaled(column: Column, values: NDArray[np.float64], other: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Values in SI units."""
    result = values * (UNITS[column.unit] * column.factor / column.ratio)
    return result if other is None else result * other
