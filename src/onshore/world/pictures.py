"""Pictures of rollouts for people: what the camera showed, and the same moments from above, drawn from a Rollout alone.

Rule: a picture is redrawn from the rollout's own columns, so it cannot show what the rollout does not hold: actors beyond
60 m are missing, of the lights only the ego's own burns, and brake lights follow the recorded speeds. Every picture from
above, every contact sheet and every picture through the camera for people says that it is synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.frames import from_frame
from onshore.core.rollout import ACTOR_KINDS, LIGHTS, Rollout
from onshore.region import RegionPack
from onshore.world.actors import USUAL_SIZES
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.layout import Layout
from onshore.world.pool import Task, Workers, default_cache_dir
from onshore.world.roads import Roads

if TYPE_CHECKING:
    from onshore.world.closed_loop import TownAssets, Towns

ABOVE_M, ABOVE_PX = 80.0, 400
EGO_COLOUR, ACTOR_COLOUR = (30, 110, 255), (235, 235, 235)
KIND_COLOURS = {
    "ebike": (250, 200, 60),
    "bicycle": (250, 200, 60),
    "tricycle": (250, 150, 60),
    "pedestrian": (255, 90, 160),
}
PLAN_COLOUR, TRAIL_COLOUR = (60, 230, 120), (30, 110, 255)
NO_LIGHT = 3
Rgb = NDArray[np.uint8]
Encoding = Literal["webp", "gif"]
GIF_PX = 256


@dataclass(frozen=True, kw_only=True)
class PictureRequest:
    """Which rows of a rollout to draw, and how; `scale` multiplies the camera's pixels."""

    roads: dict[str, Any]
    rollout: Rollout
    rows: tuple[int, ...]
    kind: Literal["camera", "above", "animation"]
    scale: int = 1
    layout: Layout | None = None
    encoding: Encoding = "webp"


def camera_pictures(
    rollout: Rollout,
    pack: RegionPack,
    *,
    at_s: tuple[float, ...],
    scale: int = 3,
    layout: Layout | None = None,
    cache_dir: Path | None = None,
) -> list[bytes]:
    """PNG pictures through the ego's camera at the given times; `scale` 1 is what a policy sees, 3 is for people."""
    rows = tuple(_row_at(rollout, at) for at in at_s)
    request = PictureRequest(roads=pack.roads, rollout=rollout, rows=rows, kind="camera", scale=scale, layout=layout)
    return _drawn(request, cache_dir)


def birdseye(
    rollout: Rollout,
    pack: RegionPack,
    *,
    every_s: float = 0.4,
    encoding: Encoding = "webp",
    layout: Layout | None = None,
    cache_dir: Path | None = None,
) -> bytes:
    """An animation of the whole run from above, `every_s` of driving per picture, five pictures a second; GIFs are smaller.

    layout: the town's, where it is not a generated one.
    """
    steps = max(1, round(every_s * 10))
    rows = tuple(range(0, len(rollout.steps["t_s"]), steps))
    request = PictureRequest(
        roads=pack.roads, rollout=rollout, rows=rows, kind="animation", encoding=encoding, layout=layout
    )
    return _drawn(request, cache_dir)[0]


def birdseye_pictures(
    rollout: Rollout,
    pack: RegionPack,
    *,
    at_s: tuple[float, ...],
    layout: Layout | None = None,
    cache_dir: Path | None = None,
) -> list[bytes]:
    """PNG pictures from above at the given times."""
    rows = tuple(_row_at(rollout, at) for at in at_s)
    return _drawn(PictureRequest(roads=pack.roads, rollout=rollout, rows=rows, kind="above", layout=layout), cache_dir)


@dataclass(frozen=True, kw_only=True)
class SheetRequest:
    """A contact sheet of one town: what its camera sees at twelve moments, by day, dusk, night and in rain."""

    region: str
    roads: dict[str, Any]
    town_seed: int


def contact_sheet(pack: RegionPack, *, town_seed: int = 3, cache_dir: Path | None = None) -> bytes:
    """JPEG: four columns (looks) of three places of one town, with road users put there by hand."""
    request = SheetRequest(region=pack.region, roads=pack.roads, town_seed=town_seed)
    with Workers(count=1, cache_dir=cache_dir or default_cache_dir()) as pool:
        sheet: bytes = pool.map([Task(name="sheet", argument=request)], what="contact sheet")[0]
    return sheet


def _row_at(rollout: Rollout, at_s: float) -> int:
    if not len(rollout.steps["t_s"]):
        raise InputError("empty_input", "rollout", "it has no steps, so there is nothing to draw.")
    return int(np.argmin(np.abs(rollout.steps["t_s"] - at_s)))


def _drawn(request: PictureRequest, cache_dir: Path | None) -> list[bytes]:
    with Workers(count=1, cache_dir=cache_dir or default_cache_dir()) as pool:
        pictures: list[bytes] = pool.map([Task(name="pictures", argument=request)], what="pictures")[0]
    return pictures


# -- in the child ------------------------------------------------------------------------------------------------


def draw_pictures(request: PictureRequest, towns: Towns) -> list[bytes]:
    """Encoded pictures of one request."""
    rollout = request.rollout
    roads = Roads.from_record(rollout.region, request.roads)
    assets = towns.get(roads, request.layout or _town_of(rollout, roads))
    if request.kind == "camera":
        return [_png(frame) for frame in _through_camera(request, roads, assets)]
    frames = [_from_above(rollout, row, roads, assets) for row in request.rows]
    return [_animation(frames, request.encoding)] if request.kind == "animation" else [_png(frame) for frame in frames]


def _town_of(rollout: Rollout, roads: Roads) -> int | Layout:
    """The seed of a generated town, or the layout of a scenario's world."""
    from onshore.world.scenarios import families

    if rollout.scenario in families():
        return families()[rollout.scenario].stage(roads, rollout.world_seed).layout
    return int(rollout.scenario.rpartition("-")[2])


def _through_camera(request: PictureRequest, roads: Roads, assets: TownAssets) -> list[Rgb]:
    from onshore.world.camera import Scene, TownCamera

    scale = request.scale
    sharp = replace(
        WIDE_CAMERA,
        width_px=WIDE_CAMERA.width_px * scale,
        height_px=WIDE_CAMERA.height_px * scale,
        focal_px=WIDE_CAMERA.focal_px * scale,
        centre_x_px=WIDE_CAMERA.centre_x_px * scale,
        centre_y_px=WIDE_CAMERA.centre_y_px * scale,
    )
    camera = TownCamera(sharp, assets.ground, assets.furniture.atlas, roads.looks.sky)
    frames = []
    for row in request.rows:
        lit = assets.furniture.lit(_lights(request.rollout, row, assets))
        scene = Scene(fixed=lit, vehicles=_vehicles(request.rollout, row, roads))
        frame = camera.render(scene, _pose(request.rollout, row)[None])[0]
        # at the policy's own size there is no room for words: such a picture is data, not for people
        said = f"synthetic {request.rollout.region} {request.rollout.scenario}"
        frames.append(frame if scale < 2 else _labelled(frame, said))
    return frames


# -- contact sheets -------------------------------------------------------------------------------------------------

SHEET_CAMERA = replace(WIDE_CAMERA, width_px=384, height_px=216, focal_px=210.0, centre_x_px=192.0, centre_y_px=96.0)
#: Per place of a sheet: metres before the end of the street, and who is there (kind, metres ahead, lanes from the ego's lane
#: towards the kerb, facing: 1 along, -1 against, 0 across).
SHEET_PLACES: tuple[tuple[float, tuple[tuple[str, float, float, int], ...]], ...] = (
    (
        24.0,
        (("car", 18.0, -1.0, 1), ("ebike", 11.0, 1.9, 1), ("pedestrian", 28.0, 0.4, 0), ("pedestrian", 29.0, 1.5, 0)),
    ),
    (62.0, (("car", 22.0, 0.0, 1), ("bus", 34.0, 1.0, 1), ("car", 26.0, -2.6, -1), ("bicycle", 13.0, 1.9, 1))),
    (
        95.0,
        (("truck", 30.0, 0.0, 1), ("tricycle", 17.0, 1.4, 1), ("car", 34.0, -2.6, -1), ("pedestrian", 14.0, 3.2, 1)),
    ),
)


def draw_sheet(request: SheetRequest, towns: Towns) -> bytes:
    """One region's contact sheet (in the child)."""
    from onshore.world.camera import Scene, TownCamera
    from onshore.world.looks import LOOKS

    roads = Roads.from_record(request.region, request.roads)
    assets = towns.get(roads, request.town_seed)
    eye = TownCamera(SHEET_CAMERA, assets.ground, assets.furniture.atlas, roads.looks.sky)
    lit = sorted(head.edge for head in assets.town.heads if assets.town.edges[head.edge].lanes[0].length_m > 82.0)
    rng = np.random.default_rng(request.town_seed)
    rows = []
    for number, (before_m, people) in enumerate(SHEET_PLACES):
        edge = assets.town.edges[lit[(number * 7 + 3) % len(lit)]]
        pose, crowd = _staged(edge, before_m, people, roads, number)
        lights = rng.integers(0, 3, len(assets.town.heads)).astype(np.int8)
        fixed = assets.furniture.lit(lights, rng.integers(3, 60, len(lights)))
        frames = []
        for look in LOOKS:
            frame = eye.render(Scene(fixed=fixed, vehicles=crowd, look=look), pose[None])[0]
            frames.append(_labelled(frame, f"synthetic {request.region} town-{request.town_seed:03d} {look}"))
        rows.append(np.concatenate(frames, 1))
    return _jpeg(np.concatenate(rows, 0))


def _staged(edge, before_m: float, people, roads: Roads, number: int):  # type: ignore[no-untyped-def]
    """The eye's pose in the kerb-side car lane, and boxes of who is there."""
    from onshore.world.furniture import vehicle_boxes
    from onshore.world.ground import on_lane

    known = [one for one in people if np.isfinite(roads.sizes[ACTOR_KINDS.index(one[0])][0])]
    fronts = []
    for kind, ahead, side, facing in known:
        rides = kind in ("ebike", "bicycle", "tricycle")
        lane = edge.lanes[0 if rides else edge.car_lanes[0]]
        at, along = on_lane(lane, min(ahead - before_m, -0.1))
        at = (
            at
            + along * max(ahead - before_m, 0.0)
            + np.array([along[1], -along[0]]) * roads.inward * side * lane.width_m
        )
        yaw = float(np.arctan2(along[1], along[0])) + {1: 0.0, -1: np.pi, 0: np.pi / 2}[facing]
        fronts.append((*at, yaw))
    here, along = on_lane(edge.lanes[edge.car_lanes[0]], -before_m)
    pose = np.array([*here, float(np.arctan2(along[1], along[0]))])
    kinds = np.array([ACTOR_KINDS.index(one[0]) for one in known], np.int8)
    numbers = np.arange(len(known), dtype=np.int32) + number * 11
    return pose, vehicle_boxes(roads, kinds, numbers, np.array(fronts), np.arange(len(known)) == 0)


def _labelled(frame: Rgb, text: str) -> Rgb:
    import cv2

    frame[:18] //= 3
    cv2.putText(frame, text, (6, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return frame


def _jpeg(frame: Rgb) -> bytes:
    import cv2

    done, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise InputError("bad_config", "picture", "it could not be encoded as JPEG.")
    return bytes(data.tobytes())


def _pose(rollout: Rollout, row: int) -> NDArray[np.float64]:
    return np.array([rollout.steps[name][row] for name in ("x_m", "y_m", "yaw_rad")])


def _vehicles(rollout: Rollout, row: int, roads: Roads) -> NDArray[np.float32]:
    from onshore.world.furniture import vehicle_boxes

    here = rollout.actor_row == row
    actors = {name: column[here] for name, column in rollout.actors.items()}
    ids = rollout.actor_id[here]
    before = rollout.actor_row == row - 1
    earlier = dict(zip(rollout.actor_id[before].tolist(), rollout.actors["speed_mps"][before].tolist(), strict=True))
    braking = [
        speed < earlier.get(int(name), speed) - 0.03 for name, speed in zip(ids, actors["speed_mps"], strict=True)
    ]
    reach = actors["length_m"] / 2
    fronts = np.column_stack(
        [
            actors["x_m"] + np.cos(actors["yaw_rad"]) * reach,
            actors["y_m"] + np.sin(actors["yaw_rad"]) * reach,
            actors["yaw_rad"],
        ]
    )
    kinds = rollout.actor_kind[here]
    usual = {kind: USUAL_SIZES[kind][2] for kind in USUAL_SIZES} | {
        n: style.height_m for n, style in roads.vehicles.items()
    }
    heights = [usual[ACTOR_KINDS[kind]] for kind in kinds]
    sizes = np.column_stack([actors["length_m"], actors["width_m"], heights]).astype(np.float64).reshape(-1, 3)
    return vehicle_boxes(roads, kinds, ids, fronts.astype(np.float64), np.array(braking, np.bool_), sizes)


def _lights(rollout: Rollout, row: int, assets: TownAssets) -> NDArray[np.int8]:
    """Lamp per head: only the light the ego drives towards is known, the others stay dark."""
    lights = np.full(len(assets.town.heads), NO_LIGHT, np.int8)
    shown = LIGHTS[int(rollout.steps["light"][row])]
    if shown == "none":
        return lights
    x, y, yaw = _pose(rollout, row)
    reach = float(rollout.steps["light_distance_m"][row]) + 3.7
    ahead = np.array([x + np.cos(yaw) * reach, y + np.sin(yaw) * reach])
    stops = np.array([assets.town.edges[head.edge].lanes[-1].xy_N2[-1] for head in assets.town.heads])
    lights[int(np.argmin(np.hypot(*(stops - ahead).T)))] = ("red", "yellow", "green").index(shown)
    return lights


def _from_above(rollout: Rollout, row: int, roads: Roads, assets: TownAssets) -> Rgb:
    """The ego in the middle; x to the right, y up."""
    import cv2

    x, y, yaw = _pose(rollout, row)
    middle = _centre(x, y, yaw, roads)
    frame = _ground_around(middle, assets)
    pixels_per_m = ABOVE_PX / ABOVE_M

    def at(points: NDArray[np.float64]) -> NDArray[np.int32]:
        offset = (np.atleast_2d(points) - middle) * pixels_per_m * (1, -1) + ABOVE_PX / 2
        return np.round(offset * 16).astype(np.int32)

    trail = np.column_stack([rollout.steps["x_m"][: row + 1], rollout.steps["y_m"][: row + 1]])
    cv2.polylines(frame, [at(trail)], False, TRAIL_COLOUR, 1, cv2.LINE_AA, 4)
    here = np.nonzero(rollout.actor_row == row)[0]
    for actor in here:
        values = {name: float(column[actor]) for name, column in rollout.actors.items()}
        kind = ACTOR_KINDS[rollout.actor_kind[actor]]
        # people are drawn larger than they are: two pixels would not be seen
        size = [max(values[name], 1.0) for name in ("length_m", "width_m")]
        box = (values["x_m"], values["y_m"], values["yaw_rad"], size[0], size[1])
        colour = KIND_COLOURS.get(kind, ACTOR_COLOUR)
        cv2.fillPoly(frame, [at(_corners(*box))], colour, cv2.LINE_AA, 4)
    car = roads.ego_geometry
    cv2.fillPoly(
        frame,
        [at(_corners(float(middle[0]), float(middle[1]), yaw, car.length_m, car.width_m))],
        EGO_COLOUR,
        cv2.LINE_AA,
        4,
    )
    plan = rollout.plan_path_NK2[row]
    if np.isfinite(plan).all():
        points = from_frame(np.vstack([[0.0, 0.0], plan]), x, y, yaw)
        cv2.polylines(frame, [at(points)], False, PLAN_COLOUR, 2, cv2.LINE_AA, 4)
    _caption(frame, rollout, row)
    return frame


def _centre(x: float, y: float, yaw: float, roads: Roads) -> NDArray[np.float64]:
    forward = roads.ego_geometry.axle_to_centre_m
    return np.array([x + np.cos(yaw) * forward, y + np.sin(yaw) * forward])


def _ground_around(middle: NDArray[np.float64], assets: TownAssets) -> Rgb:
    import cv2

    from onshore.world.ground import CELL_M

    ground, step = assets.ground, ABOVE_M / ABOVE_PX / CELL_M
    column = (middle[0] - ground.origin_x_m) / CELL_M - ABOVE_PX / 2 * step
    row = (middle[1] - ground.origin_y_m) / CELL_M + ABOVE_PX / 2 * step
    matrix = np.array([[step, 0.0, column], [0.0, -step, row]])
    flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(ground.picture, matrix, (ABOVE_PX, ABOVE_PX), flags=flags), np.uint8)


def _corners(x: float, y: float, yaw: float, length: float, width: float) -> NDArray[np.float64]:
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * (length / 2, width / 2)
    return from_frame(half, x, y, yaw)


def _caption(frame: Rgb, rollout: Rollout, row: int) -> None:
    import cv2

    now = float(rollout.steps["t_s"][row])
    light = LIGHTS[int(rollout.steps["light"][row])]
    lines = [
        f"synthetic {rollout.region} {rollout.scenario} {rollout.policy}",
        f"{now:5.1f} s  {rollout.steps['speed_mps'][row]:4.1f} m/s" + (f"  light {light}" if light != "none" else ""),
        *[f"{event.kind} at {event.t_s:.1f} s" for event in rollout.events if event.t_s <= now + 0.05],
    ]
    frame[: 9 + 17 * len(lines[:6])] //= 3
    for index, text in enumerate(lines[:6]):
        white, font = (255, 255, 255), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(frame, text, (8, 18 + 17 * index), font, 0.42, white, 1, cv2.LINE_AA)


def _png(frame: Rgb) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", frame[..., ::-1])
    if not done:
        raise InputError("bad_config", "picture", "it could not be encoded as PNG.")
    return bytes(data.tobytes())


def _animation(frames: list[Rgb], encoding: Encoding, *, show_ms: int = 200) -> bytes:
    import cv2

    if encoding == "gif":
        frames = [np.asarray(cv2.resize(f, (GIF_PX, GIF_PX), interpolation=cv2.INTER_AREA), np.uint8) for f in frames]

    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    animation.durations = [show_ms] * len(frames)
    done, data = cv2.imencodeanimation(f".{encoding}", animation, [cv2.IMWRITE_WEBP_QUALITY, 55])
    if not done:
        raise InputError("bad_config", "animation", "it could not be encoded.")
    return bytes(np.asarray(data).tobytes())
