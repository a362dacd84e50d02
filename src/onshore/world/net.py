"""A town's road net: a `Layout` written for netconvert with explicit connections, built once and cached.

Rule: the net is a function of (layout, pack's junction figures, builder version) alone; its cache entry appears by atomic
rename.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from onshore.core.digest import record_digest
from onshore.core.errors import OnshoreError
from onshore.core.policy import RouteCommand
from onshore.world.layout import Layout, LightSpec
from onshore.world.roads import Roads

BUILDER_VERSION = 2
#: A turn of less than this (rad) is no turn.
STRAIGHT_RAD = 0.7


@dataclass(frozen=True, kw_only=True)
class Net:
    """A built net: the engine's file and, per (street, next street), the command and the car lanes that may go there."""

    path: Path
    layout: Layout
    commands: dict[tuple[str, str], RouteCommand]
    turn_lanes: dict[tuple[str, str], tuple[int, ...]]
    successors: dict[str, tuple[str, ...]] = field(default_factory=dict)


def cached_net(roads: Roads, layout: Layout, cache_dir: Path) -> Net:
    """The net of one layout, from the cache or built into it."""
    options = _options(roads)
    key = record_digest({"layout": layout.digest, "options": options, "builder": BUILDER_VERSION})
    target = cache_dir / "towns" / f"{roads.region}-{layout.name}-{key[:20]}"
    if not (target / "net.xml").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".town-", dir=target.parent))
        try:
            _build(layout, options, building)
            os.replace(building, target)
        except OSError:
            # another process was first: its entry has the same bytes
            if not (target / "net.xml").exists():
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _net(layout, target / "net.xml")


def command_between(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> RouteCommand:
    """What a driver is told who leaves one street for another: straight below STRAIGHT_RAD, else left or right."""
    turn = turn_between(before, after)
    if abs(turn) < STRAIGHT_RAD:
        return RouteCommand.STRAIGHT
    return RouteCommand.LEFT if turn > 0 else RouteCommand.RIGHT


def turn_between(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> float:
    """The change of heading (rad, left positive) from the end of one street to the start of another."""
    heading = math.atan2(before[-1][1] - before[-2][1], before[-1][0] - before[-2][0])
    turn = math.remainder(math.atan2(after[1][1] - after[0][1], after[1][0] - after[0][0]) - heading, 2 * math.pi)
    # a turnaround is a left turn, whichever side of the half circle rounding puts it on
    return turn if turn > -math.pi + 0.05 else math.pi


def _net(layout: Layout, path: Path) -> Net:
    edges = {edge.id: edge for edge in layout.edges}
    lanes: dict[tuple[str, str], list[int]] = {}
    for way in layout.connections:
        at = lanes.setdefault((way.start, way.end), [])
        if edges[way.start].lanes[way.from_lane].kind == "car" and way.from_lane not in at:
            at.append(way.from_lane)
    successors: dict[str, tuple[str, ...]] = {}
    for a, b in sorted(lanes):
        successors[a] = (*successors.get(a, ()), b)
    return Net(
        path=path,
        layout=layout,
        commands={(a, b): command_between(edges[a].shape, edges[b].shape) for a, b in lanes},
        turn_lanes={pair: tuple(sorted(of_pair)) for pair, of_pair in lanes.items()},
        successors=successors,
    )


def _options(roads: Roads) -> dict[str, Any]:
    return {
        **({} if roads.drive_on == "right" else {"--lefthand": "true"}),
        "--offset.disable-normalization": "true",
        "--tls.cycle.time": roads.town["light_cycle_s"],
        "--tls.yellow.time": roads.town["yellow_s"],
        "--junctions.internal-link-detail": 12,
        "--junctions.limit-turn-speed": roads.town.get("turn_mps2", 5.5),
    }


def _build(layout: Layout, options: dict[str, Any], folder: Path) -> None:
    inputs = {"-n": ("nodes", _nodes_xml(layout)), "-e": ("edges", _edges_xml(layout))}
    inputs["-x"] = ("connections", _connections_xml(layout))
    programs = [light for light in layout.lights if light.phases]
    if programs:
        inputs["-i"] = ("lights", _lights_xml(layout, programs))
    for name, text in inputs.values():
        (folder / f"{name}.xml").write_text(text, encoding="utf8")
    files = {option: folder / f"{name}.xml" for option, (name, _) in inputs.items()}
    turnarounds = "--no-turnarounds.except-deadend" if _turns_around(layout) else "--no-turnarounds"
    netconvert({**files, "-o": folder / "net.part", **options}, turnarounds, what=layout.name)
    # the header names the build time and folder: the cached net must not
    text = (folder / "net.part").read_text(encoding="utf8")
    head, comment, rest = text.partition("<!--")
    (folder / "net.xml").write_text(head + rest.partition("-->")[2] if comment else text, encoding="utf8")
    (folder / "net.part").unlink()


def _turns_around(layout: Layout) -> bool:
    ends = {edge.id: (edge.start, edge.end) for edge in layout.edges}
    return any(ends[way.start] == ends[way.end][::-1] for way in layout.connections)


def netconvert(options: dict[str, Any], *flags: str, what: str) -> None:
    """Run the engine's net builder; OnshoreError `bad_config` with its complaint when it fails."""
    import sumo

    argv = [str(Path(sumo.SUMO_HOME) / "bin" / "netconvert"), "--no-warnings", *flags]
    for name, value in options.items():
        argv += [name, str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"SUMO_HOME": sumo.SUMO_HOME})
    if done.returncode:
        raise OnshoreError("bad_config", what, f"the town could not be built: {done.stderr.strip()[-400:]}")


def _nodes_xml(layout: Layout) -> str:
    lines = [
        f'<node id={quoteattr(node.id)} x="{node.x_m}" y="{node.y_m}" type="{node.kind}" radius="{node.radius_m}"/>'
        for node in layout.nodes
    ]
    return f"<nodes>{''.join(lines)}</nodes>"


def _edges_xml(layout: Layout) -> str:
    lines = []
    for edge in layout.edges:
        lanes = "".join(
            f'<lane index="{index}" width="{lane.width_m}" allow="{lane.allow}"/>'
            for index, lane in enumerate(edge.lanes)
        )
        shape = " ".join(f"{x:.2f},{y:.2f}" for x, y in edge.shape)
        spread = "" if edge.spread == "right" else f' spreadType="{edge.spread}"'
        lines.append(
            f"<edge id={quoteattr(edge.id)} from={quoteattr(edge.start)} to={quoteattr(edge.end)} "
            f'numLanes="{len(edge.lanes)}" speed="{edge.speed_mps}" priority="{edge.priority}" '
            f'shape="{shape}"{spread}>{lanes}</edge>'
        )
    return f"<edges>{''.join(lines)}</edges>"


def _connections_xml(layout: Layout) -> str:
    lines = [
        f"<connection from={quoteattr(way.start)} to={quoteattr(way.end)} "
        f'fromLane="{way.from_lane}" toLane="{way.to_lane}"/>'
        for way in layout.connections
    ]
    return f"<connections>{''.join(lines)}</connections>"


def _lights_xml(layout: Layout, programs: Sequence[LightSpec]) -> str:
    """Programs and the number of each connection's light, in the layout's own order."""
    ends = {edge.id: edge.end for edge in layout.edges}
    lines, numbered = [], []
    for light in programs:
        ways = [way for way in layout.connections if ends[way.start] == light.node]
        phases = ""
        for seconds, states in light.phases:
            shown = {(a, b): letter for a, b, letter in states}
            state = "".join(shown.get((way.start, way.end), "r") for way in ways)
            phases += f'<phase duration="{seconds}" state="{state}"/>'
        name = quoteattr(light.node)
        lines.append(f'<tlLogic id={name} type="static" programID="0" offset="{light.offset_s}">{phases}</tlLogic>')
        numbered += [
            f'<connection from={quoteattr(way.start)} to={quoteattr(way.end)} fromLane="{way.from_lane}" '
            f'toLane="{way.to_lane}" tl={name} linkIndex="{index}"/>'
            for index, way in enumerate(ways)
        ]
    return f"<tlLogics>{''.join(lines)}{''.join(numbered)}</tlLogics>"
