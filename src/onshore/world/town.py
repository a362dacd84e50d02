"""A town as the world uses it: lanes, junctions, stop lines, lights and routes, read from the engine's net.

Rule: geometry only; nothing here moves. Coordinates are the net's own plane (`local`), metres, yaw counter-clockwise.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onshore.core.policy import RouteCommand
from onshore.core.rollout import TURNS
from onshore.world.generated import generated_layout
from onshore.world.layout import CrosswalkSpec, EdgeSpec, LaneSpec, Layout
from onshore.world.net import Net, cached_net, turn_between
from onshore.world.roads import Roads

Floats = NDArray[np.float64]
U_TURN_RAD = 2.6
#: STOP_RULES name of what rules a street without priority at a node of this kind.
STOP_RULE_OF_NODE = {
    "traffic_light": "light",
    "priority": "give_way",
    "priority_stop": "stop_sign",
    "allway_stop": "stop_sign",
}


@dataclass(frozen=True, kw_only=True)
class LaneLine:
    """A lane's centre line (N, 2), width and length as the engine counts it, and what the layout says of it."""

    index: int
    kind: str
    xy_N2: Floats
    width_m: float
    length_m: float
    spec: LaneSpec


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One direction of a street. stop_rule: STOP_RULES name of what rules its end; car_lanes: from the kerb inwards."""

    id: str
    end: str
    priority: int
    speed_mps: float
    lanes: tuple[LaneLine, ...]
    stop_rule: str

    @cached_property
    def car_lanes(self) -> tuple[int, ...]:
        return tuple(lane.index for lane in self.lanes if lane.kind == "car")

    def rank(self, rank: int) -> int:
        """The car lane that is `rank`-th from the middle of the road; the outermost where there are fewer."""
        return self.car_lanes[max(len(self.car_lanes) - 1 - rank, 0)]


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
    shape: str = "round"


@dataclass(frozen=True, kw_only=True)
class Crosswalk:
    """A crosswalk across a whole street: corners (4, 2), and the direction of the road it crosses.

    middle_m: how far left of its centre that direction's half ends and the other one begins, NaN on a one-way street.
    """

    edge: str
    corners_42: Floats
    yaw_rad: float
    middle_m: float

    @cached_property
    def box(self) -> tuple[float, float, float, float, float]:
        """Its centre, the direction of the road, half its depth along the road and half its width across."""
        x, y = self.corners_42.mean(0).tolist()
        half_depth = float(np.hypot(*(self.corners_42[1] - self.corners_42[2]))) / 2
        half_width = float(np.hypot(*(self.corners_42[0] - self.corners_42[1]))) / 2
        return x, y, self.yaw_rad, half_depth, half_width

    def holds(self, points_N2: Floats, margin_m: float = 0.0) -> NDArray[np.bool_]:
        """Which points lie on it, or within `margin_m` of it."""
        x, y, yaw, half_depth, half_width = self.box
        gap = points_N2 - (x, y)
        cos, sin = math.cos(yaw), math.sin(yaw)
        along, across = gap[:, 0] * cos + gap[:, 1] * sin, -gap[:, 0] * sin + gap[:, 1] * cos
        return np.asarray(
            (np.abs(along) <= half_depth + margin_m) & (np.abs(across) <= half_width + margin_m), np.bool_
        )


class Town:
    """One town of one region; build it with `Town.open` from its seed, or with `Town.of` from a layout."""

    def __init__(self, roads: Roads, net: Net) -> None:
        self.roads, self.net, self.layout = roads, net, net.layout
        self.seed, self.name = net.layout.seed, net.layout.name
        root = ElementTree.parse(net.path).getroot()
        self.junctions = {junction.id: junction for junction in _junctions(root)}
        self.edges = {edge.id: edge for edge in _edges(root, net.layout)}
        self.links = _links(root)
        self._inside = _inside_lines(root)
        self._shapes = {(a, b): shape for light in net.layout.lights for a, b, shape in light.shapes}
        self.heads = tuple(self._heads())

    @classmethod
    def open(cls, roads: Roads, seed: int, cache_dir: Path) -> Town:
        return cls.of(roads, generated_layout(roads, seed), cache_dir)

    @classmethod
    def of(cls, roads: Roads, layout: Layout, cache_dir: Path) -> Town:
        return cls(roads, cached_net(roads, layout, cache_dir))

    @cached_property
    def reverse(self) -> dict[str, str]:
        """The other direction of a street, where it has one."""
        ends = {(edge.start, edge.end): edge.id for edge in self.layout.edges}
        return {edge.id: ends[edge.end, edge.start] for edge in self.layout.edges if (edge.end, edge.start) in ends}

    @cached_property
    def crosswalks(self) -> tuple[Crosswalk, ...]:
        """The layout's crosswalks, each across both directions of its street."""
        return tuple(self._crosswalk(spec) for spec in self.layout.crosswalks)

    def _crosswalk(self, spec: CrosswalkSpec) -> Crosswalk:
        edge = self.edges[spec.edge]
        xy = edge.lanes[-1].xy_N2
        along = (xy[-1] - xy[-2]) / np.hypot(*(xy[-1] - xy[-2]))
        inward = np.array([-along[1], along[0]]) * self.roads.inward
        sides = [
            edge.lanes[0].xy_N2[-1] - inward * edge.lanes[0].width_m / 2,
            xy[-1] + inward * edge.lanes[-1].width_m / 2,
        ]
        other, middle = self.reverse.get(edge.id), sides[1]
        if other is not None:
            kerb = self.edges[other].lanes[0]
            sides[1] = kerb.xy_N2[0] + inward * kerb.width_m / 2
        # square to the road, measured from this street's innermost lane's end
        across = [float((side - xy[-1]) @ inward) for side in sides]
        far, near = xy[-1] - along * spec.before_end_m, xy[-1] - along * (spec.before_end_m + spec.depth_m)
        corners = [
            far + inward * across[0],
            far + inward * across[1],
            near + inward * across[1],
            near + inward * across[0],
        ]
        beyond = float((middle - xy[-1]) @ inward) - sum(across) / 2
        return Crosswalk(
            edge=edge.id,
            corners_42=np.array(corners),
            yaw_rad=math.atan2(along[1], along[0]),
            middle_m=math.nan if other is None else beyond * self.roads.inward,
        )

    def command(self, edge: str, following: str | None) -> RouteCommand:
        return RouteCommand.UNKNOWN if following is None else self.net.commands[edge, following]

    def movement(self, edge: str, following: str | None) -> int:
        """The TURNS bit of a movement; 0 where the route ends."""
        if following is None:
            return 0
        if self._turned(edge, following) > U_TURN_RAD:
            return TURNS["u_turn"]
        return TURNS[self.net.commands[edge, following].name.lower()]

    def _turned(self, edge: str, following: str) -> float:
        shapes = [self.edges[name].lanes[-1].xy_N2.tolist() for name in (edge, following)]
        return abs(turn_between(*shapes))

    def lanes_for(self, edge: str, following: str | None) -> tuple[int, ...]:
        """The car lanes of `edge` from which `following` can be reached."""
        return self.edges[edge].car_lanes if following is None else self.net.turn_lanes[edge, following]

    def inside(self, edge: str, following: str, lane: int, to_lane: int | None = None) -> Floats | None:
        """The engine's own line through the junction, without its end points; None where this lane has no way there."""
        ways = self._inside.get((edge, following, lane), {})
        if to_lane is None:
            return next(iter(ways.values()), None)
        return ways.get(to_lane)

    def links_for(self, edge: str, following: str) -> tuple[str, tuple[int, ...]] | None:
        """(program, link numbers) of the lights that rule this movement for cars; None without lights."""
        return self._ruling.get((edge, following))

    @cached_property
    def _ruling(self) -> dict[tuple[str, str], tuple[str, tuple[int, ...]]]:
        found: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
        for (a, b, lane), (program, links) in self.links.items():
            if lane in self.edges[a].car_lanes:
                found[a, b] = (program, tuple(sorted({*found.get((a, b), ("", ()))[1], *links})))
        return found

    def light_shape(self, edge: str, following: str) -> str:
        """LIGHT_SHAPES name of the light that rules this movement."""
        if (edge, following) not in self._ruling:
            return "none"
        return self._shapes.get((edge, following), "round")

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        points = np.concatenate([lane.xy_N2 for edge in self.edges.values() for lane in edge.lanes])
        return (*points.min(0), *points.max(0))

    def _heads(self) -> list[Head]:
        """One head per approach, and one more for each movement that the layout gives a shape of its own."""
        heads = []
        for edge in self.edges.values():
            mine = {pair: ruled for pair, ruled in self._ruling.items() if pair[0] == edge.id}
            for shape in sorted({self._shapes.get(pair, "round") for pair in mine}, reverse=True):
                ruled = [ruled for pair, ruled in mine.items() if self._shapes.get(pair, "round") == shape]
                links = tuple(sorted({link for _, links in ruled for link in links}))
                heads.append(Head(edge=edge.id, program=ruled[0][0], links=links, shape=shape))
        return heads


def _edges(root: ElementTree.Element, layout: Layout) -> list[Edge]:
    kinds = {node.id: node.kind for node in layout.nodes}
    best: dict[str, int] = {}
    for spec in layout.edges:
        best[spec.end] = max(best.get(spec.end, spec.priority), spec.priority)
    specs = {edge.id: edge for edge in layout.edges}
    edges = []
    for element in root.iter("edge"):
        if element.get("function") is not None:
            continue
        spec = specs[element.attrib["id"]]
        lanes = tuple(_lane(lane, spec) for lane in element.iter("lane"))
        rule = STOP_RULE_OF_NODE.get(kinds[spec.end], "none")
        if rule in ("give_way", "stop_sign") and spec.priority >= best[spec.end] and kinds[spec.end] != "allway_stop":
            rule = "none"
        edges.append(
            Edge(
                id=spec.id,
                end=element.attrib["to"],
                priority=spec.priority,
                speed_mps=spec.speed_mps,
                lanes=lanes,
                stop_rule=rule,
            )
        )
    return sorted(edges, key=lambda edge: edge.id)


def _lane(element: ElementTree.Element, edge: EdgeSpec) -> LaneLine:
    index = int(element.attrib["index"])
    spec = edge.lanes[index]
    return LaneLine(
        index=index,
        kind=spec.kind,
        xy_N2=_points(element.attrib["shape"]),
        width_m=float(element.get("width", spec.width_m)),
        length_m=float(element.attrib["length"]),
        spec=spec,
    )


def _junctions(root: ElementTree.Element) -> list[Junction]:
    return [
        Junction(id=element.attrib["id"], kind=element.attrib["type"], shape_N2=_points(element.attrib["shape"]))
        for element in root.iter("junction")
        if element.attrib["type"] != "internal" and element.get("shape")
    ]


def _links(root: ElementTree.Element) -> dict[tuple[str, str, int], tuple[str, tuple[int, ...]]]:
    links: dict[tuple[str, str, int], tuple[str, tuple[int, ...]]] = {}
    for element in root.iter("connection"):
        if "tl" in element.attrib and not element.attrib["from"].startswith(":"):
            key = (element.attrib["from"], element.attrib["to"], int(element.attrib["fromLane"]))
            before = links.get(key, ("", ()))[1]
            links[key] = (element.attrib["tl"], (*before, int(element.attrib["linkIndex"])))
    return links


def _inside_lines(root: ElementTree.Element) -> dict[tuple[str, str, int], dict[int, Floats]]:
    """Lines through junctions by (edge, next edge, lane), then lane entered: chains of internal lanes, about 1 m apart."""
    shapes = {lane.attrib["id"]: _points(lane.attrib["shape"]) for lane in root.iter("lane")}
    connections = [element.attrib for element in root.iter("connection") if "via" in element.attrib]
    onward = {f"{c['from']}_{c['fromLane']}": c["via"] for c in connections if c["from"].startswith(":")}
    lines: dict[tuple[str, str, int], dict[int, Floats]] = {}
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
        lines.setdefault(key, {})[int(connection["toLane"])] = _resampled(xy)[1:-1]
    return lines


def _points(text: str) -> Floats:
    return np.array([[float(value) for value in point.split(",")[:2]] for point in text.split()])


@dataclass(frozen=True, kw_only=True)
class Line:
    """A route along one car lane: points about 1 m apart, arc lengths, and per street its first and last point."""

    xy_N2: Floats
    along_N: Floats
    streets: tuple[tuple[int, int], ...]


def route_line(town: Town, edges: tuple[str, ...], lanes: Sequence[int]) -> Line:
    """The centre line along `edges`, in one lane of each (`lanes`), joined through junctions as the engine drives them.

    A lane that may not make a turn is joined by a smooth curve: progress is still defined for whoever turns from it.
    """
    pieces: list[Floats] = []
    streets = []
    count = 0
    for index, edge in enumerate(edges):
        street = _resampled(town.edges[edge].lanes[lanes[index]].xy_N2)
        streets.append((count, count + len(street) - 1))
        pieces.append(street)
        count += len(street)
        if index + 1 < len(edges):
            into = lanes[index + 1]
            through = town.inside(edge, edges[index + 1], lanes[index], into)
            if through is None or not len(through):
                through = _through(street, _resampled(town.edges[edges[index + 1]].lanes[into].xy_N2))
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
