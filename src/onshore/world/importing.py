"""Maps of others as towns: OpenStreetMap extracts and OpenDRIVE files become a `Layout`.

Rule: netconvert reads the file, and what it understood is taken over street by street as plain data; what cars cannot
drive on is left out. The file says where streets run; looks, markings, traffic and law come from the region pack.
Stop and give-way signs of OpenStreetMap, which netconvert passes over, are put in afterwards (`osm_signs.py`).
"""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from onshore.core.errors import InputError, OnshoreError
from onshore.world.layout import ConnectionSpec, EdgeSpec, LaneSpec, Layout, NodeSpec, Points
from onshore.world.net import netconvert
from onshore.world.osm_signs import with_signs

#: Suffix -> the option that reads it and the engine's own table of street kinds for it.
READERS = {
    ".osm": ("--osm-files", "osmNetconvert.typ.xml"),
    ".xodr": ("--opendrive-files", "opendriveNetconvert.typ.xml"),
}
#: The ground is a raster of 0.125 m: a larger map would not fit into memory.
WIDEST_M = 1500.0
USUAL_WIDTH_M = 3.2
USUAL_RADIUS_M = 4.0
CLASSES = ("passenger", "truck", "bus", "motorcycle", "moped", "bicycle")
NODE_KINDS = {"traffic_light": "traffic_light", "priority_stop": "priority_stop", "allway_stop": "allway_stop"}


def import_map(path: Path) -> Layout:
    """The town of one .osm or .xodr file. InputError names the file when it is not one, holds no street, or is too large."""
    reader = READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise InputError("unknown_format", path, f"give an existing file that ends in {' or '.join(READERS)}.")
    with tempfile.TemporaryDirectory(prefix="onshore-map-") as folder:
        prefix = Path(folder) / "plain"
        try:
            _read(path, reader, prefix)
            parts = {name: _root(prefix, name) for name in ("nod", "edg", "con")}
        except (OnshoreError, OSError, ElementTree.ParseError) as error:
            raise InputError("unknown_format", path, f"it could not be read as a map: {error}") from error
    edges = tuple(_edge(element, _places(parts["nod"])) for element in parts["edg"].iter("edge"))
    if not edges:
        raise InputError("empty_input", path, "it holds no street that cars may use.")
    layout = _layout(path, parts, edges)
    _check_size(path, layout)
    return with_signs(layout, ElementTree.parse(path).getroot()) if path.suffix.lower() == ".osm" else layout


def _read(path: Path, reader: tuple[str, str], prefix: Path) -> None:
    import sumo

    option, types = reader
    options = {
        option: path,
        "-t": Path(sumo.SUMO_HOME) / "data" / "typemap" / types,
        "--plain-output-prefix": prefix,
        "--keep-edges.by-vclass": "passenger",
        "--keep-edges.components": 1,
    }
    flags = ("--no-turnarounds.except-deadend", "--geometry.remove", "--junctions.join", "--tls.guess-signals")
    netconvert(options, *flags, what=path.name)


def _root(prefix: Path, name: str) -> ElementTree.Element:
    return ElementTree.parse(prefix.with_name(f"{prefix.name}.{name}.xml")).getroot()


def _places(nodes: ElementTree.Element) -> dict[str, tuple[float, float]]:
    return {node.attrib["id"]: (float(node.attrib["x"]), float(node.attrib["y"])) for node in nodes.iter("node")}


def _layout(path: Path, parts: dict[str, ElementTree.Element], edges: tuple[EdgeSpec, ...]) -> Layout:
    used = {end for edge in edges for end in (edge.start, edge.end)}
    lanes = {edge.id: len(edge.lanes) for edge in edges}
    ways = (
        ConnectionSpec(
            start=way.attrib["from"],
            end=way.attrib["to"],
            from_lane=int(way.attrib["fromLane"]),
            to_lane=int(way.attrib["toLane"]),
        )
        for way in parts["con"].iter("connection")
        if "toLane" in way.attrib and way.attrib["from"] in lanes and way.attrib["to"] in lanes
    )
    return Layout(
        name=f"map-{path.stem}",
        nodes=tuple(_node(node) for node in parts["nod"].iter("node") if node.attrib["id"] in used),
        edges=edges,
        connections=tuple(ways),
    )


def _node(element: ElementTree.Element) -> NodeSpec:
    return NodeSpec(
        id=element.attrib["id"],
        x_m=float(element.attrib["x"]),
        y_m=float(element.attrib["y"]),
        kind=NODE_KINDS.get(element.get("type", ""), "priority"),
        radius_m=float(element.get("radius", USUAL_RADIUS_M)),
    )


def _edge(element: ElementTree.Element, places: dict[str, tuple[float, float]]) -> EdgeSpec:
    start, end = element.attrib["from"], element.attrib["to"]
    drawn = tuple((float(x), float(y)) for x, y in (point.split(",")[:2] for point in element.get("shape", "").split()))
    shape: Points = drawn if len(drawn) > 1 else (places[start], places[end])
    own = {int(lane.attrib["index"]): lane for lane in element.iter("lane")}
    count = int(element.get("numLanes", len(own) or 1))
    return EdgeSpec(
        id=element.attrib["id"],
        start=start,
        end=end,
        shape=shape,
        lanes=tuple(_lane(element, own.get(index)) for index in range(count)),
        speed_mps=float(element.get("speed", "13.9")),
        priority=int(float(element.get("priority", "1"))),
        spread=element.get("spreadType", "right"),
    )


def _lane(edge: ElementTree.Element, own: ElementTree.Element | None) -> LaneSpec:
    """A lane as its own entry says, else as its street's."""
    source = own if own is not None and ("allow" in own.attrib or "disallow" in own.attrib) else edge
    own_width = own.get("width") if own is not None else None
    width = float(own_width or edge.get("width") or USUAL_WIDTH_M)
    allowed = _allowed(source)
    if "passenger" in allowed:
        kind = "car"
    elif "bus" in allowed:
        kind = "bus"
    else:
        kind = "bike" if {"bicycle", "moped"} & set(allowed) else "shoulder"
    return LaneSpec(kind=kind, width_m=width if width > 0 else USUAL_WIDTH_M, allow=" ".join(allowed) or "pedestrian")


def _allowed(element: ElementTree.Element) -> list[str]:
    if "allow" in element.attrib and element.attrib["allow"] != "all":
        return [name for name in CLASSES if name in element.attrib["allow"].split()]
    closed = element.get("disallow", "").split()
    return [] if "all" in closed else [name for name in CLASSES if name not in closed]


def _check_size(path: Path, layout: Layout) -> None:
    xs, ys = zip(*((node.x_m, node.y_m) for node in layout.nodes), strict=True)
    across = max(max(xs) - min(xs), max(ys) - min(ys))
    if across > WIDEST_M:
        raise InputError("bad_config", path, f"the map is {across:.0f} m across; cut it to {WIDEST_M:.0f} m.")
