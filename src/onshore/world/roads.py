"""A region's roads, looks and traffic as typed records, read from the pack's `roads.toml`.

Rule: everything that differs between regions is a value here; no other module asks which region it is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.digest import record_digest
from onshore.core.errors import InputError
from onshore.core.rollout import ACTOR_KINDS

Colour = tuple[int, int, int]
SIGN_PLACES = ("give_way", "lane_start")


@dataclass(frozen=True, kw_only=True)
class Lane:
    kind: str
    width_m: float
    allow: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """Paint: colour, width and, when broken, the lengths of dash and gap."""

    colour: Colour
    width_m: float
    dash_m: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Where lamps hang: `across` 0 = middle of the car lanes, 1 = right edge; `far` = share of the junction's depth."""

    stack: str
    across: float
    far: float
    beyond_m: float
    height_m: float
    half_size_m: tuple[float, float]
    lamp_step_m: float
    housing: Colour
    pole: Colour


@dataclass(frozen=True, kw_only=True)
class Sign:
    where: str
    colour: Colour
    height_m: float
    half_size_m: float


@dataclass(frozen=True, kw_only=True)
class Share:
    """One kind's share of the traffic and the lanes it starts in."""

    kind: str
    share: float
    lanes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class VehicleKind:
    """A kind's box, colours, and attributes handed to the traffic engine as they are."""

    length_m: float
    width_m: float
    height_m: float
    colours: tuple[Colour, ...]
    engine: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Roads:
    """`roads.toml` of one region. `town`, `looks`, `traffic` and `expert` keep their figures by name."""

    region: str
    digest: str
    town: dict[str, Any]
    lanes: tuple[Lane, ...]
    paint: dict[str, Line]
    looks: dict[str, Any]
    lights: Lights
    signs: tuple[Sign, ...]
    traffic: dict[str, Any]
    mix: tuple[Share, ...]
    vehicles: dict[str, VehicleKind]
    expert: dict[str, Any]

    @property
    def car_lanes(self) -> tuple[int, ...]:
        return tuple(index for index, lane in enumerate(self.lanes) if lane.kind == "car")

    @property
    def ego_geometry(self) -> VehicleGeometry:
        car = self.vehicles["car"]
        return VehicleGeometry(length_m=car.length_m, width_m=car.width_m, height_m=car.height_m)

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """Length, width, height by ACTOR_KINDS index; NaN for kinds this region does not have."""
        table = np.full((len(ACTOR_KINDS), 3), np.nan)
        for name, kind in self.vehicles.items():
            table[ACTOR_KINDS.index(name)] = kind.length_m, kind.width_m, kind.height_m
        return table

    @classmethod
    def from_record(cls, region: str, record: dict[str, Any]) -> Roads:
        """Check and type one `roads.toml`; InputError `bad_config` names the field."""
        try:
            roads = cls(
                region=region,
                digest=record_digest(record),
                town=record["town"],
                lanes=tuple(Lane(**lane) for lane in record["lanes"]),
                paint={name: Line(**_frozen(line)) for name, line in record["paint"].items()},
                looks=record["looks"],
                lights=Lights(**_frozen(record["lights"])),
                signs=tuple(Sign(**_frozen(sign)) for sign in record.get("signs", [])),
                traffic={name: value for name, value in record["traffic"].items() if name != "mix"},
                mix=tuple(Share(**_frozen(share)) for share in record["traffic"]["mix"]),
                vehicles={name: VehicleKind(**_frozen(kind)) for name, kind in record["vehicles"].items()},
                expert=record["expert"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                "bad_config", f"{region}/roads.toml", f"a field is missing or unknown: {error}."
            ) from error
        roads._check()
        return roads

    def _check(self) -> None:
        problems = [
            *[f"traffic.mix names unknown vehicle {s.kind!r}" for s in self.mix if s.kind not in self.vehicles],
            *[f"traffic.mix {s.kind}: no lane {n}" for s in self.mix for n in s.lanes if n >= len(self.lanes)],
            *[f"vehicles.{name}: not one of {ACTOR_KINDS}" for name in self.vehicles if name not in ACTOR_KINDS],
            *[f"signs: where={s.where!r} is none of {SIGN_PLACES}" for s in self.signs if s.where not in SIGN_PLACES],
            *([] if self.car_lanes else ["lanes: at least one must be of kind 'car'"]),
            *([] if "car" in self.vehicles else ["vehicles.car is missing"]),
            *([] if self.lights.stack in ("vertical", "horizontal") else ["lights.stack: vertical or horizontal"]),
        ]
        if problems:
            raise InputError("bad_config", f"{self.region}/roads.toml", f"{'; '.join(problems)}.")


def _frozen(record: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, nested ones too, so that records can be compared and cached."""
    return {name: _tuples(value) for name, value in record.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
