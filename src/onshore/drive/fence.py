"""Areas that the operator fenced off, as GeoJSON polygons: a recording that touches one does not come in.

Rule: the polygons are the operator's and lie encrypted in the center; the ledger holds their version and counts, never a
place. Only recordings that carry positions can be judged; how many could not is counted too. A polygon that crosses the
antimeridian is not understood and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.digest import canonical_json, record_digest
from onshore.core.errors import InputError, UsageError
from onshore.core.label import Label
from onshore.store import Center

NAME, ACTIONS = "geofence", ("quarantine", "drop")
Ring = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fence:
    """polygons: each an outer ring and holes, (N, 2) longitude and latitude in degrees. version: digest of all of it."""

    version: str
    action: str
    polygons: tuple[tuple[Ring, ...], ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Fence:
        polygons = tuple(tuple(np.array(ring, np.float64) for ring in polygon) for polygon in record["polygons"])
        return cls(version=record_digest(dict(record)), action=record["action"], polygons=polygons)

    def hits(self, fixes: Iterable[Sequence[float]]) -> int:
        """How many fixes (time, latitude, longitude, ...) lie in a polygon."""
        places = np.array([(fix[2], fix[1]) for fix in fixes], np.float64).reshape(-1, 2)
        inside = np.zeros(len(places), np.bool_)
        for outer, *holes in self.polygons:
            within = _inside(places, outer)
            for hole in holes:
                within &= ~_inside(places, hole)
            inside |= within
        return int(inside.sum())


def set_fence(center: Center, path: Path | str, *, action: str = "quarantine") -> Fence:
    """Take a GeoJSON file as the center's map from now on. action: what becomes of a recording that touches it.

    Errors: InputError `bad_config` naming what is wrong, UsageError for another action.
    """
    if action not in ACTIONS:
        raise UsageError(f"action {action!r}", f"use one of {', '.join(ACTIONS)}.")
    file = Path(path)
    try:
        polygons = _polygons(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError("bad_config", file.name, f"it is no GeoJSON of polygons: {problem!r}.") from problem
    if not polygons:
        raise InputError("bad_config", file.name, "it holds no polygon.")
    record = {"number": len(center.artifacts(kind="evidence", name=NAME)), "action": action, "polygons": polygons}
    known = _current(center)
    if known is not None and {**known, "number": 0} == {**record, "number": 0}:
        return Fence.from_record(known)
    label = Label(
        region=center.region, kind="evidence", sensitivity=frozenset(["geo_sensitive"]), retention="permanent"
    )
    center.put(canonical_json(record), label, name=NAME)
    fence = Fence.from_record(record)
    center.ledger.append("drive.geofence", {"fence": fence.version, "polygons": len(polygons), "action": action})
    return fence


def fence_record(center: Center) -> dict[str, Any] | None:
    """The center's map as a record, for processes that have no center; None while there is none."""
    return _current(center)


def _current(center: Center) -> dict[str, Any] | None:
    known = center.artifacts(kind="evidence", name=NAME)
    if not known:
        return None
    record: dict[str, Any] = json.loads(center.read(known[-1].id, purpose="geofence"))
    return record


def _polygons(document: Any) -> list[list[list[list[float]]]]:
    """Rings of every Polygon and MultiPolygon in a GeoJSON document (RFC 7946)."""
    kind = document["type"]
    if kind == "FeatureCollection":
        return [polygon for feature in document["features"] for polygon in _polygons(feature)]
    if kind == "Feature":
        return _polygons(document["geometry"])
    if kind == "GeometryCollection":
        return [polygon for geometry in document["geometries"] for polygon in _polygons(geometry)]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"{kind} is no area")
    given = [document["coordinates"]] if kind == "Polygon" else document["coordinates"]
    return [[_ring(ring) for ring in polygon] for polygon in given]


def _ring(points: Any) -> list[list[float]]:
    ring = [[float(point[0]), float(point[1])] for point in points]
    places = np.array(ring)
    if len(ring) < 4 or ring[0] != ring[-1]:
        raise ValueError("a ring has at least four points and ends where it begins")
    if not (np.abs(places) <= [180, 90]).all() or np.abs(np.diff(places[:, 0])).max() > 180:
        raise ValueError("a ring leaves the map or crosses the antimeridian")
    return ring


def _inside(places_N2: Ring, ring_M2: Ring) -> NDArray[np.bool_]:
    """Ray casting: an odd number of edges crossed to the east (Shimrat 1962)."""
    x, y = places_N2[:, :1], places_N2[:, 1:]
    (x0, y0), (x1, y1) = ring_M2[:-1].T, ring_M2[1:].T
    straddles = (y0 > y) != (y1 > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
    inside: NDArray[np.bool_] = ((straddles & (x < crossing)).sum(1) % 2).astype(bool)
    return inside
