"""Stop and give-way signs of an OpenStreetMap extract, put into the layout that netconvert made of its streets.

Rule: a sign rules the street that comes past it, by its `direction` along the way it stands on, else the street whose end is
nearest; `stop=all`, or a stop sign on the junction itself, rules every street there, `stop=minor` those of lower rank. Lights are
left as they are.
Tags: wiki.openstreetmap.org, Tag:highway=stop and Tag:highway=give_way.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onshore.world.layout import EdgeSpec, Layout

SIGNS = ("stop", "give_way")
#: A sign this far (m) from a street's middle stands on another one.
BESIDE_M = 3.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Sign:
    """One sign on one way.

    kind: of SIGNS. extent: "all", "minor" or "". junction: the one that it stands on, "" beside a street. xy_2: where in the
    layout. along_2: the way's direction there. onward: 1 with it, -1 against it, 0 not said.
    """

    kind: str
    extent: str
    junction: str
    xy_2: Floats
    along_2: Floats
    onward: int


def with_signs(layout: Layout, root: ElementTree.Element) -> Layout:
    """The layout with the extract's signs: kinds of junctions, and lower priorities of streets that have to wait."""
    waiting, kinds = dict[str, str](), dict[str, str]()
    for sign in _signs(layout, root):
        edge = None if sign.junction else _ruled(layout, sign)
        end = edge.end if edge is not None else sign.junction
        if sign.kind == "stop" and (sign.junction or sign.extent == "all"):
            kinds[end] = "priority_stop" if sign.extent == "minor" else "allway_stop"
        elif edge is not None:
            waiting[edge.id] = sign.kind
    return _ruling(layout, waiting, kinds)


def _signs(layout: Layout, root: ElementTree.Element) -> Iterator[_Sign]:
    """Every sign; none where the extract cannot be laid on the layout."""
    xy = _places(layout, root)
    ways = [[part.attrib["ref"] for part in way.iter("nd") if part.attrib["ref"] in xy] for way in root.iter("way")]
    coming = Counter(edge.end for edge in layout.edges)
    junctions = {name for name, streets in coming.items() if streets > 2}
    for node in root.iter("node") if xy else ():
        tags = {tag.attrib["k"]: tag.attrib["v"] for tag in node.iter("tag")}
        name, kind = node.get("id", ""), tags.get("highway", "")
        for way in (way for way in ways if kind in SIGNS and name in way):
            index = way.index(name)
            along = xy[way[min(index + 1, len(way) - 1)]] - xy[way[max(index - 1, 0)]]
            yield _Sign(
                kind=kind,
                extent=tags.get("stop", ""),
                junction=name if name in junctions else "",
                xy_2=xy[name],
                along_2=along,
                onward={"forward": 1, "backward": -1}.get(tags.get("direction", ""), 0),
            )


def _places(layout: Layout, root: ElementTree.Element) -> dict[str, Floats]:
    """Where in the layout each node of the extract is, by the nodes that both have; none where these lie on one line."""
    # nodes without a place were deleted
    here = [node.attrib for node in root.iter("node") if {"id", "lon", "lat"} <= set(node.attrib)]
    at = {one["id"]: (float(one["lon"]), float(one["lat"])) for one in here}
    known = [node for node in layout.nodes if node.id in at]
    origin_2 = np.array(at[known[0].id]) if known else np.zeros(2)
    offset = {name: np.append(np.array(place) - origin_2, 1.0) for name, place in at.items()}
    known_N3 = np.array([offset[node.id] for node in known]).reshape(-1, 3)
    if np.linalg.matrix_rank(known_N3) < 3:
        return {}
    # a town is so small a part of the projection that it is straight there
    to_xy_32, *_ = np.linalg.lstsq(known_N3, np.array([(node.x_m, node.y_m) for node in known]), rcond=None)
    return {name: place_3 @ to_xy_32 for name, place_3 in offset.items()}


def _ruled(layout: Layout, sign: _Sign) -> EdgeSpec | None:
    """The street that comes past a sign: its direction agrees, and of several its end is nearest."""
    found: list[tuple[float, EdgeSpec]] = []
    for edge in layout.edges:
        apart_m, left_m, heading_2 = _beside(np.array(edge.shape), sign.xy_2)
        agrees = sign.onward * float(heading_2 @ sign.along_2) >= 0
        if apart_m <= BESIDE_M and agrees:
            found.append((left_m, edge))
    return min(found, key=lambda one: one[0])[1] if found else None


def _beside(xy_N2: Floats, at_2: Floats) -> tuple[float, float, Floats]:
    """How far a point lies from a line, how much of the line is left from there on (m), and the line's heading there."""
    steps = np.diff(xy_N2, axis=0)
    lengths = np.maximum(np.hypot(*steps.T), 1e-9)
    share = np.clip(((at_2 - xy_N2[:-1]) * steps).sum(1) / lengths**2, 0.0, 1.0)
    apart = np.hypot(*(xy_N2[:-1] + steps * share[:, None] - at_2).T)
    row = int(np.argmin(apart))
    return float(apart[row]), float(lengths[row:].sum() - share[row] * lengths[row]), steps[row] / lengths[row]


def _ruling(layout: Layout, waiting: dict[str, str], said: dict[str, str]) -> Layout:
    """waiting: street -> the sign at its end. said: junction -> its kind by a sign of its own."""
    coming: dict[str, list[EdgeSpec]] = {}
    for edge in layout.edges:
        coming.setdefault(edge.end, []).append(edge)
    kinds, lower = {node.id: node.kind for node in layout.nodes}, dict[str, int]()
    for name in (node.id for node in layout.nodes if node.kind == "priority"):
        edges = coming.get(name, [])
        goes = [edge.priority for edge in edges if edge.id not in waiting]
        stops = any(waiting.get(edge.id) == "stop" for edge in edges)
        kinds[name] = said.get(name, ("priority_stop" if goes else "allway_stop") if stops else "priority")
        if goes and kinds[name] != "allway_stop":
            lower |= {edge.id: max(goes) - 1 for edge in edges if edge.id in waiting and edge.priority >= max(goes)}
    return replace(
        layout,
        nodes=tuple(replace(node, kind=kinds[node.id]) for node in layout.nodes),
        edges=tuple(replace(edge, priority=lower.get(edge.id, edge.priority)) for edge in layout.edges),
    )
