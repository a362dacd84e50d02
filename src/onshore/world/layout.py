"""What a town is made of, as data: nodes, streets with their own lanes, connections, lights, crosswalks.

Rule: one description serves generated towns, hand-made scenes and imported maps; a net is built from it and from nothing
else. Units: m, s, m/s, hours of the day. Lanes are listed from the kerb to the middle of the road.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from onshore.core.digest import record_digest
from onshore.core.errors import InputError
from onshore.core.rollout import LANE_KINDS, LIGHT_SHAPES, LINES

Points = tuple[tuple[float, float], ...]
Hours = tuple[tuple[float, float], ...]
NODE_KINDS = ("priority", "traffic_light", "priority_stop", "allway_stop", "right_before_left", "dead_end", "zipper")
CARS = "passenger truck"


@dataclass(frozen=True, kw_only=True)
class LaneSpec:
    """One lane.

    allow: the engine's vehicle classes. hours: while the lane belongs to `allow` alone (empty: always); at other times
    `others` may use it too. turns: TURNS bits of the arrows painted on it (0: no arrow); turns_by_hour replaces them between
    two hours. line_left: LINES name of the marking on its left ("": the region's usual one); solid_end_m: that marking is
    solid over the last metres before the stop line. waiting_m: length of a left-turn waiting area beyond the stop line.
    """

    kind: str
    width_m: float
    allow: str
    hours: Hours = ()
    others: str = ""
    turns: int = 0
    turns_by_hour: tuple[tuple[float, float, int], ...] = ()
    line_left: str = ""
    solid_end_m: float = 0.0
    waiting_m: float = 0.0

    def open_to_cars(self, clock_h: float) -> bool:
        """Whether a car may use this lane at this time of day."""
        if "passenger" in self.allow.split():
            return True
        return "passenger" in self.others.split() and not within(self.hours, clock_h)

    def turns_at(self, clock_h: float) -> int:
        """The arrows in force at this time of day."""
        for start, end, turns in self.turns_by_hour:
            if within(((start, end),), clock_h):
                return turns
        return self.turns


def within(hours: Hours, clock_h: float) -> bool:
    """Whether a time of day lies in one of the spans (a span may run over midnight); no span means always."""
    return not hours or any(
        start <= clock_h < end if start <= end else clock_h >= start or clock_h < end for start, end in hours
    )


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    id: str
    x_m: float
    y_m: float
    kind: str = "priority"
    radius_m: float = 7.0


@dataclass(frozen=True, kw_only=True)
class EdgeSpec:
    """One direction of a street; `shape` runs from node to node. Of two priorities at a node the lower one gives way."""

    id: str
    start: str
    end: str
    shape: Points
    lanes: tuple[LaneSpec, ...]
    speed_mps: float
    priority: int = 5
    spread: str = "right"


@dataclass(frozen=True, kw_only=True)
class ConnectionSpec:
    """From a lane of one street into a lane of the next."""

    start: str
    end: str
    from_lane: int
    to_lane: int


@dataclass(frozen=True, kw_only=True)
class LightSpec:
    """The lights of one node. phases: (seconds, ((street, next street, state), ...)) with the engine's letters G g y r.

    A movement that a phase does not name is red. shapes: (street, next street, LIGHT_SHAPES name) where it is not "round".
    """

    node: str
    phases: tuple[tuple[float, tuple[tuple[str, str, str], ...]], ...] = ()
    offset_s: float = 0.0
    shapes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CrosswalkSpec:
    """Across a whole street: its far edge lies `before_end_m` before the street's end (negative: beyond), `depth_m` deep."""

    edge: str
    before_end_m: float = 1.5
    depth_m: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A whole town. `seed` colours what the layout does not say (houses, noise of the ground)."""

    name: str
    nodes: tuple[NodeSpec, ...]
    edges: tuple[EdgeSpec, ...]
    connections: tuple[ConnectionSpec, ...]
    lights: tuple[LightSpec, ...] = ()
    crosswalks: tuple[CrosswalkSpec, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise InputError("bad_config", f"layout {self.name}", f"{'; '.join(problems[:5])}.")

    @cached_property
    def digest(self) -> str:
        return record_digest(asdict(self))

    @cached_property
    def lanes(self) -> dict[str, tuple[LaneSpec, ...]]:
        return {edge.id: edge.lanes for edge in self.edges}

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def _problems(layout: Layout) -> list[str]:
    nodes, edges = {node.id for node in layout.nodes}, {edge.id: edge for edge in layout.edges}
    problems = [f"node {node.id}: kind {node.kind!r}" for node in layout.nodes if node.kind not in NODE_KINDS]
    for edge in layout.edges:
        problems += [f"edge {edge.id}: no node {end}" for end in (edge.start, edge.end) if end not in nodes]
        problems += [f"edge {edge.id}: no lanes"] if not edge.lanes else []
        problems += [f"edge {edge.id}: lane kind {s.kind!r}" for s in edge.lanes if s.kind not in LANE_KINDS]
        problems += [f"edge {edge.id}: line {s.line_left!r}" for s in edge.lanes if s.line_left not in ("", *LINES)]
    for way in layout.connections:
        if way.start not in edges or way.end not in edges:
            problems.append(f"connection {way.start} to {way.end}: no such edge")
        elif way.from_lane >= len(edges[way.start].lanes) or way.to_lane >= len(edges[way.end].lanes):
            problems.append(f"connection {way.start}:{way.from_lane} to {way.end}:{way.to_lane}: no such lane")
    problems += [f"crosswalk: no edge {walk.edge}" for walk in layout.crosswalks if walk.edge not in edges]
    for light in layout.lights:
        problems += [f"light: no node {light.node}"] if light.node not in nodes else []
        problems += [f"light {light.node}: shape {s!r}" for _, _, s in light.shapes if s not in LIGHT_SHAPES]
    return problems
