"""A town's road net: a jittered grid written for netconvert with explicit connections, built once and cached.

Rule: the net is a function of (pack digest, town seed, builder version) alone; its cache entry appears by atomic rename.
Turns are permitted from the outermost car lanes only, across bicycle and bus lanes.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onshore.core.digest import canonical_json, record_digest
from onshore.core.errors import OnshoreError
from onshore.core.policy import RouteCommand
from onshore.world.roads import Roads

BUILDER_VERSION = 1
Cell = tuple[int, int]
Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Net:
    """A built net: the engine's file and, per (edge, next edge), the command and the car lanes that may go there."""

    path: Path
    commands: dict[tuple[str, str], RouteCommand]
    turn_lanes: dict[tuple[str, str], tuple[int, ...]]
    successors: dict[str, tuple[str, ...]] = field(default_factory=dict)


def cached_net(roads: Roads, town_seed: int, cache_dir: Path) -> Net:
    """The net of one town, from the cache or built into it."""
    key = record_digest({"roads": roads.digest, "town": town_seed, "builder": BUILDER_VERSION})
    target = cache_dir / "towns" / f"{roads.region}-{town_seed}-{key[:20]}"
    if not (target / "net.xml").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".town-", dir=target.parent))
        try:
            _build(roads, town_seed, building)
            os.replace(building, target)
        except OSError:
            # another process was first: its entry has the same bytes
            if not (target / "net.xml").exists():
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _load(target)


def _load(folder: Path) -> Net:
    record = json.loads((folder / "turns.json").read_bytes())
    commands = {(a, b): RouteCommand(command) for a, b, command, _ in record}
    successors: dict[str, tuple[str, ...]] = {}
    for a, b, _, _ in record:
        successors[a] = (*successors.get(a, ()), b)
    return Net(
        path=folder / "net.xml",
        commands=commands,
        turn_lanes={(a, b): tuple(lanes) for a, b, _, lanes in record},
        successors=successors,
    )


@dataclass(frozen=True, kw_only=True)
class _Edge:
    start: Cell
    end: Cell
    shape: Points
    perimeter: bool

    @property
    def id(self) -> str:
        return f"e{self.start[0]}{self.start[1]}_{self.end[0]}{self.end[1]}"


def _build(roads: Roads, town_seed: int, folder: Path) -> None:
    rng = random.Random(town_seed)
    grid = int(roads.town["grid"])
    nodes = _nodes(roads, rng, grid)
    edges = _edges(roads, rng, nodes, grid)
    turns = _turns(roads, edges)
    (folder / "nodes.xml").write_text(_nodes_xml(roads, nodes, grid, town_seed), encoding="utf8")
    (folder / "edges.xml").write_text(_edges_xml(roads, edges), encoding="utf8")
    (folder / "connections.xml").write_text(_connections_xml(roads, turns), encoding="utf8")
    record = [[a, b, int(command), lanes] for (a, b), (command, lanes, _) in sorted(turns.items())]
    (folder / "turns.json").write_bytes(canonical_json(record))
    _netconvert(roads, folder)


def _nodes(roads: Roads, rng: random.Random, grid: int) -> dict[Cell, tuple[float, float]]:
    block, jitter = roads.town["block_m"], roads.town["jitter_m"]
    return {
        (i, j): (i * block + rng.uniform(-jitter, jitter), j * block + rng.uniform(-jitter, jitter))
        for i in range(grid)
        for j in range(grid)
    }


def _edges(roads: Roads, rng: random.Random, nodes: dict[Cell, tuple[float, float]], grid: int) -> dict[str, _Edge]:
    edges: dict[str, _Edge] = {}
    for i, j in nodes:
        for other in ((i + 1, j), (i, j + 1)):
            if other not in nodes:
                continue
            shape = _bent(nodes[i, j], nodes[other], rng.choice(roads.town["bends_m"]))
            perimeter = (i == other[0] and i in (0, grid - 1)) or (j == other[1] and j in (0, grid - 1))
            for edge in (
                _Edge(start=(i, j), end=other, shape=shape, perimeter=perimeter),
                _Edge(start=other, end=(i, j), shape=shape[::-1], perimeter=perimeter),
            ):
                edges[edge.id] = edge
    return edges


def _bent(a: tuple[float, float], b: tuple[float, float], bend_m: float) -> Points:
    """A street from a to b, bulging sideways by `bend_m` in its middle."""
    if not bend_m:
        return [a, b]
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    normal = (-(b[1] - a[1]) / length, (b[0] - a[0]) / length)
    shape = []
    for share in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
        side = bend_m * math.sin(math.pi * share) ** 2
        shape.append((a[0] + (b[0] - a[0]) * share + normal[0] * side, a[1] + (b[1] - a[1]) * share + normal[1] * side))
    return shape


Turns = dict[tuple[str, str], tuple[RouteCommand, list[int], list[int]]]


def _turns(roads: Roads, edges: dict[str, _Edge]) -> Turns:
    """Per (edge, next edge): the command, the car lanes that may go there, and every lane that may."""
    cars = roads.car_lanes
    turns: Turns = {}
    for a, edge in edges.items():
        exits = [b for b, other in edges.items() if other.start == edge.end and other.end != edge.start]
        for b in exits:
            command = _command(edge.shape, edges[b].shape)
            lanes = []
            for index, lane in enumerate(roads.lanes):
                straight = len(exits) == 1 or command is RouteCommand.STRAIGHT
                if lane.kind == "car":
                    outermost = cars[-1] if command is RouteCommand.LEFT else cars[0]
                    allowed = straight or index == outermost
                else:
                    allowed = straight or lane.kind != "bus" or command is RouteCommand.RIGHT
                if allowed:
                    lanes.append(index)
            turns[a, b] = (command, [lane for lane in lanes if lane in cars], lanes)
    return turns


def _command(before: Points, after: Points) -> RouteCommand:
    heading = math.atan2(before[-1][1] - before[-2][1], before[-1][0] - before[-2][0])
    turn = math.remainder(math.atan2(after[1][1] - after[0][1], after[1][0] - after[0][0]) - heading, 2 * math.pi)
    if abs(turn) < 0.7:
        return RouteCommand.STRAIGHT
    return RouteCommand.LEFT if turn > 0 else RouteCommand.RIGHT


def _nodes_xml(roads: Roads, nodes: dict[Cell, tuple[float, float]], grid: int, town_seed: int) -> str:
    lines = []
    for (i, j), (x, y) in nodes.items():
        sides = (i in (0, grid - 1)) + (j in (0, grid - 1))
        plain = sides == 2 or (sides == 1 and (i + j + town_seed) % 2)
        kind = "priority" if plain else "traffic_light"
        radius = roads.town["junction_radius_m"]
        lines.append(f'<node id="n{i}_{j}" x="{x:.1f}" y="{y:.1f}" type="{kind}" radius="{radius}"/>')
    return f"<nodes>{''.join(lines)}</nodes>"


def _edges_xml(roads: Roads, edges: dict[str, _Edge]) -> str:
    lanes = "".join(
        f'<lane index="{index}" width="{lane.width_m}" allow="{lane.allow}"/>' for index, lane in enumerate(roads.lanes)
    )
    lines = []
    for edge in edges.values():
        shape = " ".join(f"{x:.2f},{y:.2f}" for x, y in edge.shape)
        ends = f'from="n{edge.start[0]}_{edge.start[1]}" to="n{edge.end[0]}_{edge.end[1]}"'
        lines.append(
            f'<edge id="{edge.id}" {ends} numLanes="{len(roads.lanes)}" speed="{roads.town["speed_limit_mps"]}" '
            f'priority="{5 if edge.perimeter else 2}" shape="{shape}">{lanes}</edge>'
        )
    return f"<edges>{''.join(lines)}</edges>"


def _connections_xml(roads: Roads, turns: Turns) -> str:
    lines = [
        f'<connection from="{a}" to="{b}" fromLane="{lane}" toLane="{lane}"/>'
        for (a, b), (_, _, lanes) in turns.items()
        for lane in lanes
    ]
    return f"<connections>{''.join(lines)}</connections>"


def _netconvert(roads: Roads, folder: Path) -> None:
    import sumo

    options: dict[str, Any] = {
        "-n": folder / "nodes.xml",
        "-e": folder / "edges.xml",
        "-x": folder / "connections.xml",
        "-o": folder / "net.part",
        "--tls.cycle.time": roads.town["light_cycle_s"],
        "--tls.yellow.time": roads.town["yellow_s"],
        "--junctions.internal-link-detail": 12,
        "--junctions.limit-turn-speed": roads.town.get("turn_mps2", 5.5),
    }
    argv = [str(Path(sumo.SUMO_HOME) / "bin" / "netconvert"), "--no-turnarounds", "--no-warnings"]
    for name, value in options.items():
        argv += [name, str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"SUMO_HOME": sumo.SUMO_HOME})
    if done.returncode:
        raise OnshoreError("bad_config", "netconvert", f"the town could not be built: {done.stderr.strip()[-400:]}")
    # the header names the build time and folder: the cached net must not
    text = (folder / "net.part").read_text(encoding="utf8")
    head, comment, rest = text.partition("<!--")
    (folder / "net.xml").write_text(head + rest.partition("-->")[2] if comment else text, encoding="utf8")
    (folder / "net.part").unlink()
