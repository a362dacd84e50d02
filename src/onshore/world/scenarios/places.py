"""The places scenarios happen in: one street, or one junction, as a `Layout` of the region's own lanes.

Rule: nothing here knows a family; a place is a function of its arguments. Streets run east; a junction's arms are named
w, s, e, n, `w_in` towards it and `w_out` away from it, and the ego comes from the west.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import TURNS
from onshore.world.layout import (
    CARS,
    ConnectionSpec,
    CrosswalkSpec,
    EdgeSpec,
    LaneSpec,
    Layout,
    LightSpec,
    NodeSpec,
    Points,
)
from onshore.world.roads import Lane, Roads
from onshore.world.scenarios.movers import arc_lengths, project
from onshore.world.town import Town

Floats = NDArray[np.float64]
#: Lanes of kinds that a region's own streets do not have.
SPARE = {"bike": (2.0, "bicycle moped"), "bus": (3.3, "bus"), "car": (3.2, "passenger truck")}
ARMS: dict[str, tuple[float, float]] = {"w": (-1.0, 0.0), "s": (0.0, -1.0), "e": (1.0, 0.0), "n": (0.0, 1.0)}
AHEAD, LEFT, RIGHT, BACK = TURNS["straight"], TURNS["left"], TURNS["right"], TURNS["u_turn"]
STREET = ("street", "on")


def own_lanes(roads: Roads) -> list[LaneSpec]:
    """The lanes that the region's streets have, from the kerb inwards."""
    return [_built(own) for own in roads.lanes]


def lane(roads: Roads, kind: str, **more: object) -> LaneSpec:
    """A lane of a kind, as the region builds it."""
    found = next((own for own in roads.lanes if own.kind == kind), None)
    built = _built(found) if found else LaneSpec(kind=kind, width_m=SPARE[kind][0], allow=SPARE[kind][1])
    return replace(built, **more)  # type: ignore[arg-type]


def _built(own: Lane) -> LaneSpec:
    hours = own.reserved_h
    return LaneSpec(kind=own.kind, width_m=own.width_m, allow=own.allow, hours=hours, others=CARS if hours else "")


def street(
    name: str,
    shape: Points,
    after: Points,
    lanes: Sequence[LaneSpec],
    *,
    speed_mps: float,
    on_lanes: Sequence[LaneSpec] | None = None,
    light: LightSpec | None = None,
    crosswalks: tuple[CrosswalkSpec, ...] = (),
    joint: str = "priority",
    two_way: bool = True,
) -> Layout:
    """`street` along `shape`, then `on` along `after`, and the way back beside them."""
    on = tuple(on_lanes or lanes)
    ends = {"a": shape[0], "b": shape[-1], "c": after[-1]}
    nodes = [
        NodeSpec(id=node, x_m=x, y_m=y, kind=joint if node == "b" else "priority", radius_m=1.0)
        for node, (x, y) in ends.items()
    ]
    edges = [_edge("street", "a", "b", shape, lanes, speed_mps), _edge("on", "b", "c", after, on, speed_mps)]
    ways = [("street", "on")]
    if two_way:
        plain = [replace(spec, turns=0, turns_by_hour=(), waiting_m=0.0) for spec in on]
        edges += [
            _edge("back", "c", "b", after[::-1], plain, speed_mps),
            _edge("home", "b", "a", shape[::-1], plain, speed_mps),
        ]
        ways.append(("back", "home"))
    count = {edge.id: len(edge.lanes) for edge in edges}
    connections = tuple(
        ConnectionSpec(start=a, end=b, from_lane=index, to_lane=min(index, count[b] - 1))
        for a, b in ways
        for index in range(count[a])
    )
    return Layout(
        name=name,
        nodes=tuple(nodes),
        edges=tuple(edges),
        connections=connections,
        lights=(light,) if light else (),
        crosswalks=crosswalks,
    )


def _edge(
    name: str, start: str, end: str, shape: Points, lanes: Sequence[LaneSpec], speed_mps: float, priority: int = 5
) -> EdgeSpec:
    return EdgeSpec(
        id=name, start=start, end=end, shape=shape, lanes=tuple(lanes), speed_mps=speed_mps, priority=priority
    )


def cross(
    name: str,
    lanes: Mapping[str, Sequence[LaneSpec]],
    *,
    arm_m: float,
    speed_mps: float,
    light: LightSpec | None = None,
    crosswalks: tuple[CrosswalkSpec, ...] = (),
    median_m: float = 0.0,
    before: Sequence[LaneSpec] | None = None,
    before_m: float = 0.0,
    radius_m: float = 7.0,
) -> Layout:
    """A junction of the arms named in `lanes`; arms without lanes of their own take those of the west.

    before: lanes of a further street `far` of `before_m` that leads to the western approach. median_m: a strip between the
    two directions of the western and eastern arms.
    """
    kind = "traffic_light" if light else "priority"
    nodes = [NodeSpec(id="x", x_m=0.0, y_m=0.0, kind=kind, radius_m=radius_m)]
    edges: list[EdgeSpec] = []
    for arm, (dx, dy) in ARMS.items():
        if arm not in lanes:
            continue
        end = (dx * arm_m, dy * arm_m)
        nodes.append(NodeSpec(id=arm, x_m=end[0], y_m=end[1], radius_m=1.0))
        shift = median_m / 2 if arm in ("w", "e") else 0.0
        right = (dy * shift, -dx * shift)
        into = tuple((x - right[0], y - right[1]) for x, y in (end, (0.0, 0.0)))
        out = tuple((x + right[0], y + right[1]) for x, y in ((0.0, 0.0), end))
        priority = 5 if arm in ("w", "e") else 3
        leaving = [replace(spec, turns=0, turns_by_hour=(), waiting_m=0.0, solid_end_m=0.0) for spec in lanes[arm]]
        edges.append(_edge(f"{arm}_in", arm, "x", into, lanes[arm], speed_mps, priority))
        edges.append(_edge(f"{arm}_out", "x", arm, out, leaving, speed_mps, priority))
    ways = _ways(edges)
    if before is not None:
        nodes.append(NodeSpec(id="v", x_m=-arm_m - before_m, y_m=0.0, radius_m=1.0))
        further, joined = _lengthened(edges, before, before_m, speed_mps)
        edges += further
        ways += joined
    return Layout(
        name=name,
        nodes=tuple(nodes),
        edges=tuple(edges),
        connections=tuple(ways),
        lights=(light,) if light else (),
        crosswalks=crosswalks,
    )


def _lengthened(
    edges: Sequence[EdgeSpec], before: Sequence[LaneSpec], before_m: float, speed_mps: float
) -> tuple[list[EdgeSpec], list[ConnectionSpec]]:
    """The street `far` that leads to the western approach, and `back` that leads away beside it."""
    into, out = (next(edge for edge in edges if edge.id == name) for name in ("w_in", "w_out"))
    (x, y), (out_x, out_y) = into.shape[0], out.shape[-1]
    far = _edge("far", "v", "w", ((x - before_m, y), (x, y)), before, speed_mps)
    back = _edge("back", "w", "v", ((out_x, out_y), (out_x - before_m, out_y)), out.lanes, speed_mps)
    ways = [
        ConnectionSpec(start=a.id, end=b.id, from_lane=k, to_lane=min(k, len(b.lanes) - 1))
        for a, b in ((far, into), (out, back))
        for k in range(len(a.lanes))
    ]
    return [far, back], ways


def _ways(edges: Sequence[EdgeSpec]) -> list[ConnectionSpec]:
    """From every lane where its arrows lead; a lane without arrows leads everywhere its kind may go, but not back."""
    byname = {edge.id: edge for edge in edges}
    ways = []
    for edge in edges:
        if not edge.id.endswith("_in"):
            continue
        for turn, arm in _exits(edge.id[0]).items():
            other = byname.get(f"{arm}_out")
            if other is None:
                continue
            for index, spec in enumerate(edge.lanes):
                if turn & all_turns(spec):
                    to = _onto(other.lanes, index, spec.kind, turn)
                    ways.append(ConnectionSpec(start=edge.id, end=other.id, from_lane=index, to_lane=to))
    return ways


def all_turns(spec: LaneSpec) -> int:
    """Every turn that the lane's arrows allow at any hour."""
    bits = spec.turns or (AHEAD | LEFT | RIGHT if spec.kind != "bus" else AHEAD | RIGHT)
    for _, _, by_hour in spec.turns_by_hour:
        bits |= by_hour
    return bits


def _exits(arm: str) -> dict[int, str]:
    order = "wsen"
    at = order.index(arm)
    return {RIGHT: order[(at + 1) % 4], AHEAD: order[(at + 2) % 4], LEFT: order[(at + 3) % 4], BACK: arm}


def _onto(lanes: Sequence[LaneSpec], index: int, kind: str, turn: int) -> int:
    """The lane a turn leads into: of its own kind, the middle one for left turns, the kerb's for right turns."""
    same = [k for k, spec in enumerate(lanes) if spec.kind == kind] or [
        k for k, spec in enumerate(lanes) if spec.kind == "car"
    ]
    if turn in (LEFT, BACK):
        return same[-1]
    return same[0] if turn == RIGHT else min(same, key=lambda k: abs(k - index))


def light(
    *phases: tuple[float, Mapping[tuple[str, str], str]], shapes: Sequence[tuple[str, str, str]] = (), node: str = "x"
) -> LightSpec:
    """The lights of a node: per phase its seconds and the states of the movements that are not red."""
    return LightSpec(
        node=node,
        phases=tuple((seconds, tuple((a, b, state) for (a, b), state in states.items())) for seconds, states in phases),
        shapes=tuple(shapes),
    )


# -- lines to drive on -------------------------------------------------------------------------------------------


def lane_line(town: Town, *way: tuple[str, int]) -> Floats:
    """The centre line of lanes (street, lane), joined through junctions as the engine drives them."""
    pieces: list[Floats] = []
    for (edge, index), (following, _) in zip(way, [*way[1:], ("", 0)], strict=True):
        pieces.append(town.edges[edge].lanes[index].xy_N2)
        inside = town.inside(edge, following, index) if following else None
        if inside is not None and len(inside):
            pieces.append(inside)
    return np.concatenate(pieces)


def beside(line_N2: Floats, left_m: float) -> Floats:
    """The line `left_m` to the left of another."""
    step = np.gradient(line_N2, axis=0)
    step /= np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    return np.asarray(line_N2 + np.stack([-step[:, 1], step[:, 0]], -1) * left_m, np.float64)


def shifted(line_N2: Floats, *shifts: tuple[float, float, float]) -> Floats:
    """The line with sideways shifts: from `at_m` on, over `over_m` metres, `left_m` further to the left."""
    along = arc_lengths(line_N2)
    dense = np.arange(0.0, along[-1], 1.0)
    line = np.stack([np.interp(dense, along, line_N2[:, k]) for k in (0, 1)], -1)
    left = np.zeros(len(dense))
    for at_m, over_m, left_m in shifts:
        share = np.clip((dense - at_m) / over_m, 0.0, 1.0)
        left += left_m * (3 * share**2 - 2 * share**3)
    step = np.gradient(line, axis=0)
    step /= np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    return np.asarray(line + np.stack([-step[:, 1], step[:, 0]], -1) * left[:, None], np.float64)


def station(line_N2: Floats, point: tuple[float, float] | Floats) -> float:
    """The arc length at which a line passes a point."""
    return project(line_N2, arc_lengths(line_N2), np.asarray(point, np.float64))[0]


def crossing(a_N2: Floats, b_N2: Floats) -> tuple[float, float]:
    """Where two lines meet, or come nearest to each other."""
    apart = np.hypot(*(a_N2[:, None] - b_N2[None]).transpose(2, 0, 1))
    row, column = np.unravel_index(int(np.argmin(apart)), apart.shape)
    middle = (a_N2[row] + b_N2[column]) / 2
    return float(middle[0]), float(middle[1])


def bends(radius_m: float, turn_rad: float, straight_m: float, *, sign: int) -> tuple[Points, Points]:
    """An S: straight, a bend one way, a short straight, a bend the other way; and the straight after it."""
    points, heading, x, y = [(0.0, 0.0)], 0.0, 0.0, 0.0
    for length, curvature in (
        (straight_m, 0.0),
        (radius_m * turn_rad, sign / radius_m),
        (12.0, 0.0),
        (radius_m * turn_rad, -sign / radius_m),
        (15.0, 0.0),
    ):
        count = max(1, round(length / 2.5))
        for _ in range(count):
            step = length / count
            middle = heading + curvature * step / 2
            x, y, heading = x + step * math.cos(middle), y + step * math.sin(middle), heading + curvature * step
            points.append((round(x, 3), round(y, 3)))
    after = ((points[-1]), (round(x + 50 * math.cos(heading), 3), round(y + 50 * math.sin(heading), 3)))
    return tuple(points), after
