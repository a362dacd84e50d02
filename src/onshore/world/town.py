"""A town as the world uses it: lanes, junctions, stop lines, lights and routes, read from the engine's net.

Rule: geometry only; nothing here moves. Coordinates are the net's own plane (`local`), metres, yaw counter-clockwise.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onshore.core.policy import RouteCommand
from onshore.world.net import Net, cached_net
from onshore.world.roads import Roads

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LaneLine:
    """A lane's centre line (N, 2), width and length as the engine counts it."""

    index: int
    kind: str
    xy_N2: Floats
    width_m: float
    length_m: float


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One direction of a street; `priority` is the engine's (5 = runs through, less = gives way)."""

    id: str
    end: str
    priority: int
    lanes: tuple[LaneLine, ...]


@dataclass(frozen=True, kw_only=True)
class Junction:
    id: str
    kind: str
    shape_N2: Floats


@dataclass(frozen=True, kw_only=True)
class Head:
    """The light of one approach: the engine's program, and the link numbers of the approach's car lanes."""

    edge: str
    program: str
    links: tuple[int, ...]


class Town:
    """One town of one region; build it with `Town.open`."""

    def __init__(self, roads: Roads, seed: int, net: Net) -> None:
        self.roads, self.seed, self.net = roads, seed, net
        root = ElementTree.parse(net.path).getroot()
        self.edges = {edge.id: edge for edge in _edges(root, roads)}
        self.junctions = {junction.id: junction for junction in _junctions(root)}
        self.links = _links(root)
        self._inside = _inside_lines(root)
        self.heads = tuple(self._heads())

    @classmethod
    def open(cls, roads: Roads, seed: int, cache_dir: Path) -> Town:
        return cls(roads, seed, cached_net(roads, seed, cache_dir))

    @property
    def name(self) -> str:
        return f"town-{self.seed:03d}"

    def command(self, edge: str, following: str | None) -> RouteCommand:
        return RouteCommand.UNKNOWN if following is None else self.net.commands[edge, following]

    def lanes_for(self, edge: str, following: str | None) -> tuple[int, ...]:
        """The car lanes of `edge` from which `following` can be reached."""
        return self.roads.car_lanes if following is None else self.net.turn_lanes[edge, following]

    def inside(self, edge: str, following: str, lane: int) -> Floats | None:
        """The engine's own line through the junction, without its end points; None where this lane has no way there."""
        return self._inside.get((edge, following, lane))

    def links_for(self, edge: str, following: str) -> tuple[str, tuple[int, ...]] | None:
        """(program, link numbers) of the lights that rule this movement for cars; None without lights."""
        found = [
            (program, link)
            for (a, b, lane), (program, link) in self.links.items()
            if a == edge and b == following and lane in self.roads.car_lanes
        ]
        return (found[0][0], tuple(sorted(link for _, link in found))) if found else None

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        points = np.concatenate([lane.xy_N2 for edge in self.edges.values() for lane in edge.lanes])
        return (*points.min(0), *points.max(0))

    def _heads(self) -> list[Head]:
        heads = []
        for edge in self.edges.values():
            links = [
                (program, link)
                for (a, _, lane), (program, link) in self.links.items()
                if a == edge.id and lane in self.roads.car_lanes
            ]
            if links:
                heads.append(Head(edge=edge.id, program=links[0][0], links=tuple(sorted({link for _, link in links}))))
        return heads


def _edges(root: ElementTree.Element, roads: Roads) -> list[Edge]:
    edges = []
    for element in root.iter("edge"):
        if element.get("function") == "internal":
            continue
        lanes = tuple(
            LaneLine(
                index=int(lane.attrib["index"]),
                kind=roads.lanes[int(lane.attrib["index"])].kind,
                xy_N2=_points(lane.attrib["shape"]),
                width_m=float(lane.attrib["width"]),
                length_m=float(lane.attrib["length"]),
            )
            for lane in element.iter("lane")
        )
        priority = int(element.attrib["priority"])
        edges.append(Edge(id=element.attrib["id"], end=element.attrib["to"], priority=priority, lanes=lanes))
    return sorted(edges, key=lambda edge: edge.id)


def _junctions(root: ElementTree.Element) -> list[Junction]:
    return [
        Junction(id=element.attrib["id"], kind=element.attrib["type"], shape_N2=_points(element.attrib["shape"]))
        for element in root.iter("junction")
        if element.attrib["type"] != "internal" and element.get("shape")
    ]


def _links(root: ElementTree.Element) -> dict[tuple[str, str, int], tuple[str, int]]:
    links = {}
    for element in root.iter("connection"):
        if "tl" in element.attrib and not element.attrib["from"].startswith(":"):
            key = (element.attrib["from"], element.attrib["to"], int(element.attrib["fromLane"]))
            links[key] = (element.attrib["tl"], int(element.attrib["linkIndex"]))
    return links


def _inside_lines(root: ElementTree.Element) -> dict[tuple[str, str, int], Floats]:
    """Lines through junctions by (edge, next edge, lane): chains of the engine's internal lanes, about 1 m apart."""
    shapes = {lane.attrib["id"]: _points(lane.attrib["shape"]) for lane in root.iter("lane")}
    connections = [element.attrib for element in root.iter("connection") if "via" in element.attrib]
    onward = {f"{c['from']}_{c['fromLane']}": c["via"] for c in connections if c["from"].startswith(":")}
    lines = {}
    for connection in connections:
        if connection["from"].startswith(":"):
            continue
        via: str | None = connection["via"]
        pieces = []
        while via is not None:
            pieces.append(shapes[via])
            via = onward.get(via)
        xy = np.concatenate(pieces)
        xy = xy[np.concatenate([[True], np.hypot(*np.diff(xy, axis=0).T) > 0.05])]
        key = (connection["from"], connection["to"], int(connection["fromLane"]))
        lines[key] = _resampled(xy)[1:-1]
    return lines


def _points(text: str) -> Floats:
    return np.array([[float(value) for value in point.split(",")[:2]] for point in text.split()])


@dataclass(frozen=True, kw_only=True)
class Line:
    """A route along one car lane: points about 1 m apart, arc lengths, and per street its first and last point."""

    xy_N2: Floats
    along_N: Floats
    streets: tuple[tuple[int, int], ...]


def route_line(town: Town, edges: tuple[str, ...], lane: int) -> Line:
    """The centre line of `lane` along `edges`, joined through junctions as the engine drives them.

    A lane that may not make a turn is joined by a smooth curve: progress is still defined for whoever turns from it.
    """
    pieces: list[Floats] = []
    streets = []
    count = 0
    for index, edge in enumerate(edges):
        street = _resampled(town.edges[edge].lanes[lane].xy_N2)
        streets.append((count, count + len(street) - 1))
        pieces.append(street)
        count += len(street)
        if index + 1 < len(edges):
            through = town.inside(edge, edges[index + 1], lane)
            if through is None or not len(through):
                through = _through(street, _resampled(town.edges[edges[index + 1]].lanes[lane].xy_N2))
            pieces.append(through)
            count += len(through)
    xy = np.concatenate(pieces)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    return Line(xy_N2=xy, along_N=along, streets=tuple(streets))


def _resampled(xy: Floats) -> Floats:
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    at = np.append(np.arange(0.0, along[-1] - 0.3, 1.0), along[-1])
    return np.stack([np.interp(at, along, xy[:, 0]), np.interp(at, along, xy[:, 1])], -1)


def _through(before: Floats, after: Floats) -> Floats:
    """A cubic Bezier from the end of one lane to the start of the next, without its end points."""
    start, end = before[-1], after[0]
    out = (before[-1] - before[-2]) / np.hypot(*(before[-1] - before[-2]))
    into = (after[1] - after[0]) / np.hypot(*(after[1] - after[0]))
    length = float(np.hypot(*(end - start)))
    q = np.linspace(0.0, 1.0, max(3, int(length)))[1:-1, None]
    first, second = start + out * length * 0.4, end - into * length * 0.4
    return np.asarray(
        (1 - q) ** 3 * start + 3 * (1 - q) ** 2 * q * first + 3 * (1 - q) * q**2 * second + q**3 * end, np.float64
    )
