"""What stands in a town: light housings, poles, houses and trees as boxes, signs and lamps as faces; and road users as boxes.

Rule: a box is one row of BOX_COLUMNS, a face one row of DECAL_COLUMNS (float32). Colours are 0..1. Where things stand follows
from the town's lanes and the pack; what the lamps show is asked for picture by picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import ACTOR_KINDS, TURNS
from onshore.world.ground import MEANING_CELL_M, Ground
from onshore.world.looks import look_named
from onshore.world.roads import Colour, House, Roads, Sign, Temporary
from onshore.world.signs import Atlas, build_atlas, face_name, sign_text
from onshore.world.town import Edge, Head, Town

#: `owner`: row of the road user a box belongs to (-1: nobody's); `detail`: storey height of a house, 1 for a window band.
BOX_COLUMNS = (
    *("x_m", "y_m", "z_m", "half_x_m", "half_y_m", "half_z_m", "yaw_rad", "red", "green", "blue"),
    *("faces", "owner", "detail"),
)
DECAL_COLUMNS = ("x_m", "y_m", "z_m", "half_w_m", "half_h_m", "yaw_rad", "face", "red", "green", "blue", "shines")
PLAIN, HOUSE, GLOWING, VEHICLE, VEHICLE_BRAKING, CABIN, TREE, STRIPED = range(8)
#: Lamp colours in the order of the lamps: red, yellow, green; and a lamp that is off.
LAMP_COLOURS = ((1.0, 0.08, 0.05), (1.0, 0.8, 0.05), (0.1, 1.0, 0.35))
LAMP_OFF = (0.16, 0.16, 0.17)
WHITE = (1.0, 1.0, 1.0)
#: Road users and things of kinds that the region gives no colours.
UNNAMED_COLOUR = (0.92, 0.45, 0.1)
SIGN_GREY, POLE_HALF_M = (120, 122, 125), 0.05
Boxes = NDArray[np.float32]
Decals = NDArray[np.float32]
Floats = NDArray[np.float64]
Rows = list[tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Everything that is no road user, at one moment."""

    boxes: Boxes
    decals: Decals


class Furniture:
    """What stands in one town; `lit` says what its lamps show."""

    def __init__(self, town: Town, ground: Ground) -> None:
        self.roads = town.roads
        self.atlas = build_atlas(town.roads, _texts(town))
        site = _Site(town, ground, self.atlas)
        lamps = [site.light(head) for head in town.heads]
        site.signs()
        site.trees()
        site.houses()
        self.fixed: Boxes = np.array(site.boxes, np.float32).reshape(-1, len(BOX_COLUMNS))
        self.signs: Decals = np.array(site.decals, np.float32).reshape(-1, len(DECAL_COLUMNS))
        self.lamps: Decals = np.array([lamp for lamp, _ in lamps], np.float32).reshape(-1, 3, len(DECAL_COLUMNS))
        self._burning: tuple[bytes, Fixed] | None = None
        self.digits: Decals = np.array([pair for _, pair in lamps], np.float32).reshape(-1, 2, len(DECAL_COLUMNS))

    @property
    def standing(self) -> Fixed:
        """Everything with all lamps off."""
        return self.lit(np.full(len(self.lamps), 3, np.int8))

    def lit(self, lights: NDArray[np.int8], seconds: NDArray[np.int64] | None = None) -> Fixed:
        """With the lamps as `lights` says (per head: 0 red, 1 yellow, 2 green, else off) and, where housings count, `seconds`."""
        burning_now = lights.tobytes()
        if seconds is None and self._burning is not None and self._burning[0] == burning_now:
            return self._burning[1]
        lamps = self.lamps.copy()
        lamps[:, :, 7:10], lamps[:, :, 10] = LAMP_OFF, 0.0
        for lamp, colour in enumerate(LAMP_COLOURS):
            burning = np.asarray(lights) == lamp
            lamps[burning, lamp, 7:10], lamps[burning, lamp, 10] = colour, 1.0
        decals = [self.signs, lamps.reshape(-1, len(DECAL_COLUMNS))]
        if seconds is not None and self.roads.lights.countdown:
            decals.append(self._counting(np.asarray(lights), np.asarray(seconds)))
        fixed = Fixed(boxes=self.fixed, decals=np.concatenate(decals))
        if seconds is None:
            self._burning = (burning_now, fixed)
        return fixed

    def _counting(self, lights: NDArray[np.int8], seconds: NDArray[np.int64]) -> Decals:
        shown = self.digits.copy()
        first = self.atlas.index["digit_0"]
        counted = np.clip(seconds, 0, 99)
        shown[:, 0, 6], shown[:, 1, 6] = first + counted // 10, first + counted % 10
        for lamp, colour in enumerate(LAMP_COLOURS):
            shown[lights == lamp, :, 7:10] = colour
        known = (lights >= 0) & (lights < 3) & (self.digits[:, 0, 3] > 0)
        return np.asarray(shown[known].reshape(-1, len(DECAL_COLUMNS)), np.float32)


def sign_decal(roads: Roads, atlas: Atlas, face: str, place: tuple[float, float, float], yaw_rad: float, half_m: float):  # type: ignore[no-untyped-def]
    """One sign's row: its centre (x, y, z), facing whoever drives along `yaw_rad`; `half_m` is half its height."""
    return (*place, half_m * roads.sign_faces[face].aspect, half_m, yaw_rad, atlas.index[face], *WHITE, 0.0)


def _texts(town: Town) -> list[tuple[str, str]]:
    """Texts that differ from a face's usual one: the speed limits of this town's streets."""
    posted = {sign.face for sign in town.roads.signs if "{speed}" in town.roads.sign_faces[sign.face].text}
    speeds = {edge.speed_mps for edge in town.edges.values()}
    return [(face, sign_text(town.roads, face, speed_mps=speed)) for face in posted for speed in speeds]


class _Site:
    """A town's furniture while it is put up."""

    def __init__(self, town: Town, ground: Ground, atlas: Atlas) -> None:
        self.town, self.roads, self.ground, self.atlas = town, town.roads, ground, atlas
        self.boxes: Rows = []
        self.decals: Rows = []
        self.hung: dict[str, int] = {}

    # -- lights --------------------------------------------------------------------------------------------------

    def light(self, head: Head) -> tuple[Rows, Rows]:
        """One head: three lamps (red, yellow, green) and two digits (of no size where nothing counts)."""
        temporary = self.roads.lights.temporary
        if head.shape == "temporary" and temporary is not None:
            return self._temporary(head, temporary)
        style, edge = self.roads.lights, self.town.edges[head.edge]
        first, along, inward = _end(edge, edge.car_lanes[0], self.roads)
        middle = (first + _end(edge, edge.car_lanes[-1], self.roads)[0]) / 2
        kerb = _end(edge, 0, self.roads)[0] - inward * edge.lanes[0].width_m / 2
        depth = max(float((point - first) @ along) for point in self.town.junctions[edge.end].shape_N2)
        ahead = along * (depth * style.far + style.beyond_m)
        wide, high = style.half_size_m
        place = middle + (kerb - middle) * style.across + ahead
        place = place + inward * (2 * wide + 0.3) * self.hung.get(edge.id, 0)
        self.hung[edge.id] = self.hung.get(edge.id, 0) + 1
        yaw = float(np.arctan2(along[1], along[0]))
        pole = kerb - inward + ahead
        top = style.height_m + (high if style.stack == "vertical" else 0.8)
        arm = float(np.hypot(*(pole - place))) / 2
        self._box(place, style.height_m, (0.15, wide, high), yaw, style.housing)
        self._box(pole, top / 2, (0.12, 0.12, top / 2), yaw, style.pole)
        self._box((pole + place) / 2, top, (0.1, arm, 0.1), yaw, style.pole)
        half = (style.lamp_half_m, style.lamp_half_m)
        lamps = self._lamps(
            place - along * 0.2, style.height_m, yaw, style.stack, style.lamp_step_m, half, self._face(head)
        )
        return lamps, self._digits(place - along * 0.2, style.height_m + high + 0.5, yaw, style.countdown)

    def _temporary(self, head: Head, style: Temporary) -> tuple[Rows, Rows]:
        """A light on a trailer beside the stop line."""
        edge = self.town.edges[head.edge]
        end, along, inward = _end(edge, 0, self.roads)
        place = end - inward * (edge.lanes[0].width_m / 2 + 0.8) + along * 1.5
        yaw = float(np.arctan2(along[1], along[0]))
        self._box(place, 0.25, (0.6, 0.5, 0.25), yaw, style.housing)
        self._box(place, style.height_m / 2, (0.06, 0.06, style.height_m / 2), yaw, SIGN_GREY)
        self._box(place, style.height_m, (0.12, *style.half_size_m), yaw, (30, 30, 32))
        half = (style.lamp_step_m * 0.46, style.lamp_step_m * 0.46)
        lamps = self._lamps(place - along * 0.2, style.height_m, yaw, style.stack, style.lamp_step_m, half, "disc")
        return lamps, self._digits(place, 1.0, yaw, False)

    def _face(self, head: Head) -> str:
        """What a head's lamps look like: discs, or an arrow of its movement."""
        if head.shape != "arrow":
            return "disc"
        town = self.town
        bits = [
            town.movement(head.edge, following)
            for following in town.net.successors.get(head.edge, ())
            if town.light_shape(head.edge, following) == "arrow"
        ]
        names = {bit: name for name, bit in TURNS.items()}
        return names[bits[0]] if len(bits) == 1 else "straight" if TURNS["straight"] in bits else "left"

    def _lamps(
        self, place: Floats, z: float, yaw: float, stack: str, step: float, half: tuple[float, float], face: str
    ) -> Rows:
        left = np.array([-np.sin(yaw), np.cos(yaw)])
        rows: Rows = []
        for position in (1, 0, -1):
            at = place + left * (0.0 if stack == "vertical" else position * step)
            up = position * step if stack == "vertical" else 0.0
            rows.append((*at, z + up, *half, yaw, self.atlas.index[f"lamp_{face}"], *LAMP_OFF, 0.0))
        return rows

    def _digits(self, place: Floats, z: float, yaw: float, counts: bool) -> Rows:
        left, half = np.array([-np.sin(yaw), np.cos(yaw)]), 0.5 if counts else 0.0
        return [(*(place + left * side), z, half, half, yaw, 0.0, *WHITE, 1.0) for side in (0.42, -0.42)]

    # -- signs ---------------------------------------------------------------------------------------------------

    def signs(self) -> None:
        for edge in self.town.edges.values():
            taken = 0
            for sign in self.roads.signs:
                taken += self._sign(edge, sign, taken)
        for crosswalk in self.town.crosswalks:
            for sign in self.roads.signs:
                if sign.where == "crosswalk":
                    edge = self.town.edges[crosswalk.edge]
                    self._post(edge, sign, sign.face, float(edge.lanes[0].length_m) - 7.0)

    def _sign(self, edge: Edge, sign: Sign, taken: int) -> int:
        """Put one kind of sign up along a street if it belongs there; 1 if it took a place at the street's start."""
        length = float(edge.lanes[0].length_m)
        rule = {"give_way": "give_way", "stop": "stop_sign"}.get(sign.where)
        through = edge.stop_rule == "none" and self.town.junctions[edge.end].kind == "priority"
        if (rule is not None and edge.stop_rule == rule) or (sign.where == "priority" and through):
            self._post(edge, sign, sign.face, length - 1.0)
        elif sign.where == "lane_start" and any(lane.kind == sign.lane_kind for lane in edge.lanes):
            self._post(edge, sign, sign.face, min(12.0 + 9.0 * taken, length / 2))
            return 1
        elif sign.where == "street_start":
            text = sign_text(self.roads, sign.face, speed_mps=edge.speed_mps)
            name = face_name(sign.face, text) if "{speed}" in self.roads.sign_faces[sign.face].text else sign.face
            self._post(edge, sign, name, min(12.0 + 9.0 * taken, length / 2))
            return 1
        elif sign.where == "waiting_area" and any(lane.spec.waiting_m for lane in edge.lanes):
            self._post(edge, sign, sign.face, length - 3.0)
        elif sign.where == "approach_lanes" and any(lane.spec.turns for lane in edge.lanes) and length > 45.0:
            self._over_lanes(edge, sign, length - 32.0)
        return 0

    def _post(self, edge: Edge, sign: Sign, face: str, at_m: float) -> None:
        place, along, inward = _along(edge, 0, at_m, self.roads)
        place = place - inward * (edge.lanes[0].width_m / 2 + 0.9)
        yaw = float(np.arctan2(along[1], along[0]))
        self._box(
            place + along * 0.08, sign.height_m / 2, (POLE_HALF_M, POLE_HALF_M, sign.height_m / 2), yaw, SIGN_GREY
        )
        self._plate(place, sign, face, yaw)

    def _over_lanes(self, edge: Edge, sign: Sign, at_m: float) -> None:
        """A gantry with one plate over each car lane that has an arrow."""
        kerb, along, inward = _along(edge, 0, at_m, self.roads)
        pole = kerb - inward * (edge.lanes[0].width_m / 2 + 0.9)
        yaw = float(np.arctan2(along[1], along[0]))
        last = _along(edge, edge.car_lanes[-1], at_m, self.roads)[0]
        top = sign.height_m + sign.half_size_m + 0.15
        self._box(pole, top / 2, (0.12, 0.12, top / 2), yaw, self.roads.lights.pole)
        self._box(
            (pole + last) / 2, top, (0.08, float(np.hypot(*(pole - last))) / 2, 0.08), yaw, self.roads.lights.pole
        )
        for index in edge.car_lanes:
            spec = edge.lanes[index].spec
            name = "variable_lane" if spec.turns_by_hour else _lane_face(spec.turns)
            if spec.turns and name in self.roads.sign_faces:
                self._plate(_along(edge, index, at_m - 0.15, self.roads)[0], sign, name, yaw)

    def _plate(self, place: Floats, sign: Sign, face: str, yaw: float) -> None:
        aspect = self.roads.sign_faces[face.partition("|")[0]].aspect
        half = sign.half_size_m
        self.decals.append((*place, sign.height_m, half * aspect, half, yaw, self.atlas.index[face], *WHITE, 0.0))

    # -- houses and trees ----------------------------------------------------------------------------------------

    def houses(self) -> None:
        looks, rng = self.roads.looks, np.random.default_rng(self.town.seed + 5)
        extent = len(self.ground.kind) * MEANING_CELL_M
        shares = np.array([style.share for style in looks.houses]) / sum(style.share for style in looks.houses)
        for x in np.arange(10.0, extent - 10.0, 22.0):
            for y in np.arange(10.0, extent - 10.0, 22.0):
                place = np.array([x + self.ground.origin_x_m, y + self.ground.origin_y_m])
                if self._on_road(place, 11.0) or rng.random() > 0.8:
                    continue
                self._house(looks.houses[rng.choice(len(looks.houses), p=shares)], place, rng)

    def _house(self, style: House, place: Floats, rng: np.random.Generator) -> None:
        tall = float(rng.uniform(*style.half_height_m))
        shade = rng.uniform(0.85, 1.1)
        tone = tuple(min(255, int(part * shade)) for part in style.colours[rng.integers(len(style.colours))])
        size = (float(rng.uniform(*style.half_width_m)), float(rng.uniform(*style.half_width_m)), tall)
        self._box(place, tall, size, float(rng.uniform(0, 3)), tone, HOUSE, style.storey_m)  # type: ignore[arg-type]

    def trees(self) -> None:
        looks, rng = self.roads.looks, np.random.default_rng(self.town.seed + 6)
        for edge in self.town.edges.values():
            for at_m in np.arange(24.0, float(edge.lanes[0].length_m) - 22.0, 13.0):
                place, _, inward = _along(edge, 0, at_m, self.roads)
                place = place - inward * (edge.lanes[0].width_m / 2 + float(self.roads.town["side_m"]) + 2.2)
                if rng.random() > looks.tree_share or self._on_road(place, 2.0):
                    continue
                high, wide = float(rng.uniform(1.3, 2.1)), float(rng.uniform(1.2, 1.8))
                tone = tuple(int(part * rng.uniform(0.85, 1.15)) for part in looks.tree)
                yaw = float(rng.uniform(0, 3))
                self._box(place, 1.2, (0.15, 0.15, 1.2), yaw, (92, 74, 58))
                self._box(place, 2.3 + high, (wide, wide, high), yaw, tone, TREE)  # type: ignore[arg-type]
                self._box(place, 2.6 + 2 * high, (wide * 0.6, wide * 0.6, high * 0.35), yaw + 0.6, tone, TREE)  # type: ignore[arg-type]

    def _on_road(self, place: Floats, within_m: float) -> bool:
        reach = int(within_m / MEANING_CELL_M)
        row = int((place[1] - self.ground.origin_y_m) / MEANING_CELL_M)
        column = int((place[0] - self.ground.origin_x_m) / MEANING_CELL_M)
        plot = self.ground.kind[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
        return bool(plot.any())

    def _box(
        self,
        centre: Floats,
        z: float,
        half: tuple[float, float, float],
        yaw: float,
        colour: Colour,
        faces: int = PLAIN,
        detail: float = 0.0,
    ) -> None:
        tone = tuple(part / 255 for part in colour)
        self.boxes.append((float(centre[0]), float(centre[1]), z, *half, yaw, *tone, faces, -1.0, detail))


def _lane_face(turns: int) -> str:
    return "lane_" + "_".join(name for name, bit in TURNS.items() if turns & bit)


def _end(edge: Edge, lane: int, roads: Roads) -> tuple[Floats, Floats, Floats]:
    """A lane's last point with the directions along it and towards the middle of the road."""
    xy = edge.lanes[lane].xy_N2
    along = (xy[-1] - xy[-2]) / np.hypot(*(xy[-1] - xy[-2]))
    return xy[-1], along, np.array([-along[1], along[0]]) * roads.inward


def _along(edge: Edge, lane: int, at_m: float, roads: Roads) -> tuple[Floats, Floats, Floats]:
    """A lane's point `at_m` along with the directions along it and towards the middle of the road."""
    xy = edge.lanes[lane].xy_N2
    steps = np.hypot(*np.diff(xy, axis=0).T)
    arcs = np.concatenate([[0.0], np.cumsum(steps)])
    piece = int(np.clip(np.searchsorted(arcs, at_m) - 1, 0, len(steps) - 1))
    along = (xy[piece + 1] - xy[piece]) / max(float(steps[piece]), 1e-6)
    return xy[piece] + along * (at_m - arcs[piece]), along, np.array([-along[1], along[0]]) * roads.inward


# -- road users -----------------------------------------------------------------------------------------------------

BODY, COAT, SKIN, DARK, TROUSERS, PALE = range(6)
#: Parts of a kind: ahead of the middle (share of length), bottom and top (shares of height), length and width (shares),
#: colour, faces, detail.
PARTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "car": ((0, 0, 0.62, 1, 1, BODY, VEHICLE, 0), (-0.06, 0.62, 1, 0.52, 0.86, BODY, CABIN, 0)),
    "truck": ((-0.13, 0, 1, 0.74, 1, PALE, VEHICLE, 0), (0.38, 0, 0.8, 0.24, 0.96, BODY, VEHICLE, 1)),
    "bus": ((0, 0, 1, 1, 1, BODY, VEHICLE, 1),),
    "tricycle": ((-0.18, 0, 0.58, 0.64, 1, BODY, VEHICLE, 0), (0.2, 0.3, 0.86, 0.22, 0.5, COAT, PLAIN, 0), (0.2, 0.86, 1, 0.1, 0.22, SKIN, PLAIN, 0), (0.34, 0, 0.5, 0.3, 0.2, DARK, PLAIN, 0)),
    "ebike": ((0, 0, 0.42, 1, 0.3, BODY, PLAIN, 0), (-0.08, 0.36, 0.84, 0.26, 0.7, COAT, PLAIN, 0), (-0.06, 0.84, 1, 0.14, 0.36, SKIN, PLAIN, 0)),
    "bicycle": ((0, 0, 0.38, 1, 0.12, DARK, PLAIN, 0), (-0.08, 0.4, 0.84, 0.24, 0.7, COAT, PLAIN, 0), (-0.04, 0.84, 1, 0.14, 0.36, SKIN, PLAIN, 0)),
    "pedestrian": ((0, 0, 0.47, 0.7, 0.7, TROUSERS, PLAIN, 0), (0, 0.47, 0.85, 0.75, 1, COAT, PLAIN, 0), (0, 0.87, 1, 0.55, 0.4, SKIN, PLAIN, 0)),
    "static": ((0, 0, 1, 1, 1, BODY, STRIPED, 0),),
}  # fmt: skip
_MOST = max(len(parts) for parts in PARTS.values())
_TABLE = np.zeros((len(ACTOR_KINDS), _MOST, 8), np.float32)
for _kind, _parts in PARTS.items():
    _TABLE[ACTOR_KINDS.index(_kind), : len(_parts)] = _parts
_HAS = _TABLE[:, :, 3] > 0
_SKINS = np.array([(225, 180, 150), (150, 105, 80), (240, 240, 235), (40, 60, 140)], np.float32) / 255


def vehicle_boxes(
    roads: Roads,
    kind_N: NDArray[np.int8],
    number_N: NDArray[np.int32],
    poses_N3: Floats,
    braking_N: NDArray[np.bool_],
    sizes_N3: Floats | None = None,
    look: str = "day",
) -> Boxes:
    """Boxes of road users by kind (ACTOR_KINDS index), front and heading; sizes as the region's unless given.

    A number keeps its colours. `owner` of a box is the row of its road user. look: whether plates and faces are among them.
    """
    identities = look_named(look).identities
    sizes = (roads.sizes[kind_N] if sizes_N3 is None else sizes_N3).astype(np.float32)
    kinds, numbers = np.asarray(kind_N, np.int8), np.asarray(number_N, np.int32)
    bodies = _bodies(roads, kinds.tobytes(), numbers.tobytes(), sizes.tobytes(), identities)
    boxes, yaw = bodies.boxes.copy(), poses_N3[:, 2]
    braking = np.asarray(braking_N, np.bool_)
    _put(boxes, bodies.owner, bodies.ahead_m, bodies.may_brake, poses_N3, np.cos(yaw), np.sin(yaw), braking)
    return boxes


@numba.njit(cache=True)
def _put(
    boxes: Boxes,
    owner: NDArray[np.int64],
    ahead_m: NDArray[np.float32],
    may_brake: NDArray[np.bool_],
    poses_N3: Floats,
    cos_N: Floats,
    sin_N: Floats,
    braking_N: NDArray[np.bool_],
) -> None:
    """Boxes to where their road users are, with their brake lights."""
    for box in range(len(boxes)):
        row = owner[box]
        boxes[box, 0] = poses_N3[row, 0] + cos_N[row] * ahead_m[box]
        boxes[box, 1] = poses_N3[row, 1] + sin_N[row] * ahead_m[box]
        boxes[box, 6] = poses_N3[row, 2]
        if braking_N[row] and may_brake[box]:
            boxes[box, 10] += 1


@dataclass(frozen=True, kw_only=True)
class _Bodies:
    """The boxes of some road users but for where they are; per box its road user's row, how far ahead of whose front it lies."""

    boxes: Boxes
    owner: NDArray[np.int64]
    ahead_m: NDArray[np.float32]
    may_brake: NDArray[np.bool_]


@lru_cache(maxsize=8)
def _bodies(roads: Roads, kinds: bytes, numbers: bytes, sizes_N3: bytes, identities: str) -> _Bodies:
    """From int8 kinds, int32 numbers and float32 sizes: the same road users come back picture after picture."""
    kind, number = np.frombuffer(kinds, np.int8), np.frombuffer(numbers, np.int32)
    sizes, table = np.frombuffer(sizes_N3, np.float32).reshape(-1, 3), _TABLE[kind]
    boxes = np.zeros((len(kind), _MOST, len(BOX_COLUMNS)), np.float32)
    boxes[:, :, 2] = (table[:, :, 1] + table[:, :, 2]) / 2 * sizes[:, None, 2]
    boxes[:, :, 3] = table[:, :, 3] * sizes[:, None, 0] / 2
    boxes[:, :, 4] = table[:, :, 4] * sizes[:, None, 1] / 2
    boxes[:, :, 5] = (table[:, :, 2] - table[:, :, 1]) * sizes[:, None, 2] / 2
    boxes[:, :, 7:10] = np.take_along_axis(_colours(roads, kind, number), table[:, :, 5, None].astype(np.int64), 1)
    boxes[:, :, 10] = table[:, :, 6]
    boxes[:, :, 11], boxes[:, :, 12] = np.arange(len(kind))[:, None], table[:, :, 7]
    has = _HAS[kind]
    bodies = _Bodies(
        boxes=boxes[has],
        owner=np.nonzero(has)[0],
        ahead_m=((table[:, :, 0] - 0.5) * sizes[:, None, 0])[has],
        may_brake=(table[:, :, 6] == VEHICLE)[has],
    )
    if identities == "none":
        return bodies
    known = _identities(kind, number, sizes, redacted=identities == "redacted")
    return _Bodies(**{name: np.concatenate([part, getattr(known, name)]) for name, part in vars(bodies).items()})


#: A plate (GA 36-2018: 440 x 140 mm; others differ by centimetres) and its middle's height, at most; half its thickness.
PLATE_M, PLATE_HEIGHT_M, THIN_M = (0.44, 0.14), 0.5, 0.01
PLATE_RGB = (0.9, 0.9, 0.88)
FRONT_AND_REAR, REAR = ("car", "truck", "bus"), ("tricycle", "ebike")
#: How much larger a box over a face or plate is than what it hides, and its colour: as the anonymiser fills.
FILLED, FILL_RGB = 1.3, (0.0, 0.0, 0.0)


def _identities(
    kind_N: NDArray[np.int8], number_N: NDArray[np.int32], sizes_N3: NDArray[np.float32], *, redacted: bool
) -> _Bodies:
    """A thin box for every plate and, before each head, for every face; or the filled box over each."""
    rows: list[tuple[float, ...]] = []
    owners: list[int] = []
    ahead: list[float] = []
    for row, (kind, number) in enumerate(zip(kind_N.tolist(), number_N.tolist(), strict=True)):
        name, (length, width, height) = ACTOR_KINDS[kind], sizes_N3[row].tolist()
        ends = (THIN_M, -length - THIN_M) if name in FRONT_AND_REAR else (-length - THIN_M,) if name in REAR else ()
        plate = (min(PLATE_HEIGHT_M, height / 2), *PLATE_M, PLATE_RGB)
        heads = [part for part in PARTS.get(name, ()) if part[5] == SKIN]
        tone = tuple((_SKINS[((number * 2654435761 >> 7) >> 5) % 2] * 0.8).tolist())
        faces = [
            (
                ((at - 0.5) + long / 2) * length + THIN_M,
                ((low + high) / 2 * height, wide * width, (high - low) * height, tone),
            )
            for at, low, high, long, wide, *_ in heads
        ]
        for place, (z, w, h, colour) in [*((end, plate) for end in ends), *faces]:
            grown, seen = (FILLED, FILL_RGB) if redacted else (1.0, colour)
            rows.append((0, 0, z, THIN_M, w / 2 * grown, h / 2 * grown, 0, *seen, PLAIN, row, 0))
            owners.append(row)
            ahead.append(place)
    return _Bodies(
        boxes=np.array(rows, np.float32).reshape(-1, len(BOX_COLUMNS)),
        owner=np.array(owners, np.int64),
        ahead_m=np.array(ahead, np.float32),
        may_brake=np.zeros(len(rows), np.bool_),
    )


def _colours(roads: Roads, kind_N: NDArray[np.int8], number_N: NDArray[np.int32]) -> NDArray[np.float32]:
    """(N, 6, 3): body, coat, skin or helmet, dark, trousers, pale."""
    mixed = (number_N.astype(np.int64) * 2654435761) >> 7
    walkers = roads.pedestrians
    colours = np.empty((len(kind_N), 6, 3), np.float32)
    colours[:, BODY] = UNNAMED_COLOUR
    for name, style in roads.vehicles.items():
        mine = kind_N == ACTOR_KINDS.index(name)
        colours[mine, BODY] = np.array(style.colours, np.float32)[mixed[mine] % len(style.colours)] / 255
    colours[:, COAT] = np.array(walkers.coats, np.float32)[(mixed >> 3) % len(walkers.coats)] / 255
    colours[:, SKIN] = _SKINS[(mixed >> 5) % len(_SKINS)]
    colours[:, DARK] = (0.13, 0.13, 0.14)
    colours[:, TROUSERS] = np.array(walkers.trousers, np.float32)[(mixed >> 6) % len(walkers.trousers)] / 255
    colours[:, PALE] = (0.82, 0.82, 0.8)
    return colours
