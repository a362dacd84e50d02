"""What stands in a town as boxes: light housings and lamps, poles, signs, houses; and vehicles as boxes.

Rule: a box is one row of BOX_COLUMNS (float32): centre, half sizes, yaw, colour 0..1 and how its faces are drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import ACTOR_KINDS
from onshore.world.ground import MEANING_CELL_M, Ground
from onshore.world.roads import Colour, Roads
from onshore.world.town import Edge, Head, Town

BOX_COLUMNS = ("x_m", "y_m", "z_m", "half_x_m", "half_y_m", "half_z_m", "yaw_rad", "red", "green", "blue", "faces")
PLAIN, HOUSE, GLOWING, VEHICLE, VEHICLE_BRAKING = range(5)
#: Lamp colours in the order of the lamps: red, yellow, green; and a lamp that is off.
LAMP_COLOURS = ((1.0, 0.08, 0.05), (1.0, 0.8, 0.05), (0.1, 1.0, 0.35))
LAMP_OFF = (0.1, 0.1, 0.1)
#: Road users and things of kinds that the region gives no colours.
UNNAMED_COLOUR = (0.75, 0.45, 0.2)
Boxes = NDArray[np.float32]
Floats = NDArray[np.float64]


class Furniture:
    """The boxes of one town: `fixed` ones, and `lamps` (heads, 3) whose colour follows the lights."""

    def __init__(self, town: Town, ground: Ground) -> None:
        rows: list[tuple[float, ...]] = []
        lamps = []
        for head in town.heads:
            lamps.append(_hang_light(town, head, rows))
        for edge in town.edges.values():
            _put_signs(town, edge, rows)
        _build_houses(town, ground, rows)
        self.fixed: Boxes = np.array(rows, np.float32).reshape(-1, len(BOX_COLUMNS))
        self.lamps: Boxes = np.array(lamps, np.float32).reshape(-1, 3, len(BOX_COLUMNS))

    def lit(self, lights: NDArray[np.int8]) -> Boxes:
        """Every box that is not a vehicle, with the lamps as `lights` says (per head: 0 red, 1 yellow, 2 green)."""
        lamps = self.lamps.copy()
        lamps[:, :, 7:10] = LAMP_OFF
        for lamp, colour in enumerate(LAMP_COLOURS):
            lamps[np.asarray(lights) == lamp, lamp, 7:10] = colour
        return np.concatenate([self.fixed, lamps.reshape(-1, len(BOX_COLUMNS))])


def vehicle_boxes(
    roads: Roads,
    kind_N: NDArray[np.int8],
    number_N: NDArray[np.int32],
    poses_N3: Floats,
    braking_N: NDArray[np.bool_],
    sizes_N3: Floats | None = None,
) -> Boxes:
    """Boxes of road users by kind (ACTOR_KINDS index), front and heading; sizes as the region's unless given.

    A number keeps its colour.
    """
    boxes = np.zeros((len(kind_N), len(BOX_COLUMNS)), np.float32)
    sizes, yaw = roads.sizes[kind_N] if sizes_N3 is None else sizes_N3, poses_N3[:, 2]
    boxes[:, 7:10] = UNNAMED_COLOUR
    boxes[:, 0] = poses_N3[:, 0] - np.cos(yaw) * sizes[:, 0] / 2
    boxes[:, 1] = poses_N3[:, 1] - np.sin(yaw) * sizes[:, 0] / 2
    boxes[:, 2], boxes[:, 3:6], boxes[:, 6] = sizes[:, 2] / 2, sizes / 2, yaw
    mixed = (number_N.astype(np.int64) * 2654435761) >> 7
    for name, style in roads.vehicles.items():
        mine = kind_N == ACTOR_KINDS.index(name)
        boxes[mine, 7:10] = np.array(style.colours, np.float32)[mixed[mine] % len(style.colours)] / 255
    boxes[:, 10] = np.where(braking_N, VEHICLE_BRAKING, VEHICLE)
    return boxes


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


def _box(centre: Floats, z: float, half: tuple[float, float, float], yaw: float, colour: Colour, faces: int = PLAIN):  # type: ignore[no-untyped-def]
    return (float(centre[0]), float(centre[1]), z, *half, yaw, *_rgb(colour), faces)


def _stop(edge: Edge, lane: int) -> tuple[Floats, Floats, Floats]:
    """A lane's last point with the directions along and to the left of it."""
    xy = edge.lanes[lane].xy_N2
    along = (xy[-1] - xy[-2]) / np.hypot(*(xy[-1] - xy[-2]))
    return xy[-1], along, np.array([-along[1], along[0]])


def _hang_light(town: Town, head: Head, rows: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Housing, pole and arm into `rows`; returns the three lamps (red, yellow, green)."""
    style, edge = town.roads.lights, town.edges[head.edge]
    first, along, left = _stop(edge, edge.car_lanes[0])
    middle = (first + _stop(edge, edge.car_lanes[-1])[0]) / 2
    kerb, _, _ = _stop(edge, 0)
    right = kerb - left * edge.lanes[0].width_m / 2
    yaw = float(np.arctan2(along[1], along[0]))
    depth = max(float((point - first) @ along) for point in town.junctions[edge.end].shape_N2)
    ahead = along * (depth * style.far + style.beyond_m)
    place = middle + (right - middle) * style.across + ahead
    wide, high = style.half_size_m
    pole = right - left + ahead
    top = style.height_m + (high if style.stack == "vertical" else 0.8)
    rows.append(_box(place, style.height_m, (0.15, wide, high), yaw, style.housing))
    rows.append(_box(pole, top / 2, (0.12, 0.12, top / 2), yaw, style.pole))
    rows.append(_box((pole + place) / 2, top, (0.1, float(np.hypot(*(pole - place))) / 2, 0.1), yaw, style.pole))
    lamps: list[tuple[float, ...]] = []
    for position, colour in zip((1, 0, -1), LAMP_COLOURS, strict=True):
        step = position * style.lamp_step_m
        sideways, upwards = (0.0, step) if style.stack == "vertical" else (step, 0.0)
        at = place - along * 0.25 + left * sideways
        lamps.append((at[0], at[1], style.height_m + upwards, 0.12, 0.55, 0.55, yaw, *colour, GLOWING))
    return lamps


def _put_signs(town: Town, edge: Edge, rows: list[tuple[float, ...]]) -> None:
    gives_way = edge.stop_rule == "give_way"
    for sign in town.roads.signs:
        if sign.where == "give_way" and not gives_way:
            continue
        kerb, along, left = _stop(edge, 0)
        if sign.where not in ("give_way", "lane_start"):
            continue
        if sign.where == "lane_start":
            kerb = edge.lanes[0].xy_N2[0] + along * 13.0
        place = kerb - left * (edge.lanes[0].width_m / 2 + 1.0) - along
        yaw, size, foot = (
            float(np.arctan2(along[1], along[0])),
            sign.half_size_m,
            (sign.height_m - sign.half_size_m) / 2,
        )
        rows.append(_box(place, foot, (0.06, 0.06, foot), yaw, (160, 160, 160)))
        rows.append(_box(place, sign.height_m, (0.05, size, size), yaw, town.roads.sign_faces[sign.face].fill, GLOWING))


def _build_houses(town: Town, ground: Ground, rows: list[tuple[float, ...]]) -> None:
    looks, rng = town.roads.looks, np.random.default_rng(town.seed + 5)
    extent = len(ground.kind) * MEANING_CELL_M
    shares = np.array([style.share for style in looks.houses]) / sum(style.share for style in looks.houses)
    reach = int(11 / MEANING_CELL_M)
    for x in np.arange(10.0, extent - 10.0, 22.0):
        for y in np.arange(10.0, extent - 10.0, 22.0):
            row, column = int(y / MEANING_CELL_M), int(x / MEANING_CELL_M)
            plot = ground.kind[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
            if plot.any() or rng.random() > 0.8:
                continue
            style = looks.houses[rng.choice(len(looks.houses), p=shares)]
            half_height = float(rng.uniform(*style.half_height_m))
            colour = style.colours[rng.integers(len(style.colours))]
            shade = rng.uniform(0.8, 1.1)
            tone = tuple(min(255, int(part * shade)) for part in colour)
            size = (float(rng.uniform(*style.half_width_m)), float(rng.uniform(*style.half_width_m)), half_height)
            place = np.array([x + ground.origin_x_m, y + ground.origin_y_m])
            rows.append(_box(place, half_height, size, float(rng.uniform(0, 3)), tone, HOUSE))  # type: ignore[arg-type]
