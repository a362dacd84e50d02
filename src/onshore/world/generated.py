"""Generated towns: a jittered grid with curved streets as a `Layout`.

Rule: a layout is a function of (pack, town seed) alone. Turns are permitted from the outermost car lanes only, across bicycle
and bus lanes.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from onshore.core.policy import RouteCommand
from onshore.core.rollout import TURNS
from onshore.world.layout import CARS, ConnectionSpec, CrosswalkSpec, EdgeSpec, LaneSpec, Layout, NodeSpec, Points
from onshore.world.net import command_between
from onshore.world.roads import Roads

Cell = tuple[int, int]


def generated_layout(roads: Roads, town_seed: int) -> Layout:
    """The town of one seed."""
    rng = random.Random(town_seed)
    grid = int(roads.town["grid"])
    places = _places(roads, rng, grid)
    nodes, plain = _nodes(roads, places, grid, town_seed), _edges(roads, rng, places, grid)
    connections = _connections(roads, plain)
    edges = _with_arrows(roads, plain, connections)
    return Layout(
        name=f"town-{town_seed:03d}",
        nodes=nodes,
        edges=edges,
        connections=connections,
        crosswalks=_crosswalks(roads, nodes, edges),
        seed=town_seed,
    )


def _with_arrows(
    roads: Roads, edges: tuple[EdgeSpec, ...], connections: tuple[ConnectionSpec, ...]
) -> tuple[EdgeSpec, ...]:
    """Arrows on the car lanes of approaches that leave a choice, where the region paints them."""
    if not roads.approach.arrow_at_m:
        return edges
    shapes = {edge.id: edge.shape for edge in edges}
    allowed: dict[tuple[str, int], int] = {}
    exits: dict[str, set[str]] = {}
    for way in connections:
        command = command_between(shapes[way.start], shapes[way.end])
        key = (way.start, way.from_lane)
        allowed[key] = allowed.get(key, 0) | TURNS[command.name.lower()]
        exits.setdefault(way.start, set()).add(way.end)
    return tuple(
        replace(
            edge,
            lanes=tuple(
                replace(lane, turns=allowed.get((edge.id, index), 0) if lane.kind == "car" else 0)
                for index, lane in enumerate(edge.lanes)
            ),
        )
        if len(exits.get(edge.id, ())) > 1
        else edge
        for edge in edges
    )


def _crosswalks(roads: Roads, nodes: tuple[NodeSpec, ...], edges: tuple[EdgeSpec, ...]) -> tuple[CrosswalkSpec, ...]:
    """One across each approach of the junctions at which the region paints them."""
    style = roads.crosswalk
    if style is None:
        return ()
    kinds = {node.id: node.kind for node in nodes}
    far = -(style.after_stop_m + style.width_m)
    marked = [edge.id for edge in edges if kinds[edge.end] in style.at]
    return tuple(CrosswalkSpec(edge=edge, before_end_m=far, depth_m=style.width_m) for edge in marked)


def _places(roads: Roads, rng: random.Random, grid: int) -> dict[Cell, tuple[float, float]]:
    block, jitter = roads.town["block_m"], roads.town["jitter_m"]
    return {
        (i, j): (i * block + rng.uniform(-jitter, jitter), j * block + rng.uniform(-jitter, jitter))
        for i in range(grid)
        for j in range(grid)
    }


def _nodes(roads: Roads, places: dict[Cell, tuple[float, float]], grid: int, town_seed: int) -> tuple[NodeSpec, ...]:
    nodes = []
    for (i, j), (x, y) in places.items():
        sides = (i in (0, grid - 1)) + (j in (0, grid - 1))
        plain = sides == 2 or (sides == 1 and (i + j + town_seed) % 2)
        kind = "priority" if plain else "traffic_light"
        radius = roads.town["junction_radius_m"]
        nodes.append(NodeSpec(id=f"n{i}_{j}", x_m=round(x, 1), y_m=round(y, 1), kind=kind, radius_m=radius))
    return tuple(nodes)


def _edges(
    roads: Roads, rng: random.Random, places: dict[Cell, tuple[float, float]], grid: int
) -> tuple[EdgeSpec, ...]:
    lanes = tuple(
        LaneSpec(
            kind=lane.kind,
            width_m=lane.width_m,
            allow=lane.allow,
            hours=lane.reserved_h,
            others=CARS if lane.reserved_h else "",
        )
        for lane in roads.lanes
    )
    edges = []
    for here in places:
        for there in ((here[0] + 1, here[1]), (here[0], here[1] + 1)):
            if there not in places:
                continue
            shape = _bent(places[here], places[there], rng.choice(roads.town["bends_m"]))
            perimeter = any(here[axis] == there[axis] and here[axis] in (0, grid - 1) for axis in (0, 1))
            for a, b, points in ((here, there, shape), (there, here, shape[::-1])):
                edges.append(
                    EdgeSpec(
                        id=f"e{a[0]}{a[1]}_{b[0]}{b[1]}",
                        start=f"n{a[0]}_{a[1]}",
                        end=f"n{b[0]}_{b[1]}",
                        shape=points,
                        lanes=lanes,
                        speed_mps=roads.town["speed_limit_mps"],
                        priority=5 if perimeter else 2,
                    )
                )
    return tuple(edges)


def _bent(a: tuple[float, float], b: tuple[float, float], bend_m: float) -> Points:
    """A street from a to b, bulging sideways by `bend_m` in its middle."""
    if not bend_m:
        return (a, b)
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    normal = (-(b[1] - a[1]) / length, (b[0] - a[0]) / length)
    shape = []
    for share in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
        side = bend_m * math.sin(math.pi * share) ** 2
        shape.append((a[0] + (b[0] - a[0]) * share + normal[0] * side, a[1] + (b[1] - a[1]) * share + normal[1] * side))
    return tuple(shape)


def _connections(roads: Roads, edges: tuple[EdgeSpec, ...]) -> tuple[ConnectionSpec, ...]:
    """Straight on from every lane, to the near side too; across the oncoming traffic from the innermost car lane alone.

    A bicycle that crossed from its lane at the kerb would cut off the cars beside it, who have green as well: no engine
    lets either give way, and riders in traffic turn in two steps (or not here).
    """
    cars = roads.car_lanes
    far, near = (RouteCommand.LEFT, RouteCommand.RIGHT)[:: int(roads.inward)]
    ways = []
    for edge in edges:
        exits = [other for other in edges if other.start == edge.end and other.end != edge.start]
        for other in exits:
            command = command_between(edge.shape, other.shape)
            straight = len(exits) == 1 or command is RouteCommand.STRAIGHT
            for index, lane in enumerate(roads.lanes):
                if lane.kind == "car":
                    allowed = straight or index == (cars[-1] if command is far else cars[0])
                else:
                    allowed = straight or command is near
                if allowed:
                    ways.append(ConnectionSpec(start=edge.id, end=other.id, from_lane=index, to_lane=index))
    return tuple(ways)
