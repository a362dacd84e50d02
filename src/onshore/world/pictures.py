"""Pictures of rollouts for people: what the camera showed, and the same moments from above, drawn from a Rollout alone.

Rule: a picture is redrawn from the rollout's own columns, so it cannot show what the rollout does not hold: actors beyond
60 m are missing, of the lights only the ego's own burns, and brake lights follow the recorded speeds. Every picture from
above says that it is synthetic.
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
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.pool import Task, Workers, default_cache_dir
from onshore.world.roads import Roads

if TYPE_CHECKING:
    from onshore.world.closed_loop import TownAssets, Towns

ABOVE_M, ABOVE_PX = 80.0, 400
EGO_COLOUR, ACTOR_COLOUR, BIKE_COLOUR = (30, 110, 255), (235, 235, 235), (250, 200, 60)
PLAN_COLOUR, TRAIL_COLOUR = (60, 230, 120), (30, 110, 255)
NO_LIGHT = 3
Rgb = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class PictureRequest:
    """Which rows of a rollout to draw, and how; `scale` multiplies the camera's pixels."""

    roads: dict[str, Any]
    rollout: Rollout
    rows: tuple[int, ...]
    kind: Literal["camera", "above", "animation"]
    scale: int = 1


def camera_pictures(
    rollout: Rollout, pack: RegionPack, *, at_s: tuple[float, ...], scale: int = 3, cache_dir: Path | None = None
) -> list[bytes]:
    """PNG pictures through the ego's camera at the given times; `scale` 1 is what a policy sees, 3 is for people."""
    rows = tuple(_row_at(rollout, at) for at in at_s)
    request = PictureRequest(roads=pack.roads, rollout=rollout, rows=rows, kind="camera", scale=scale)
    return _drawn(request, cache_dir)


def birdseye(rollout: Rollout, pack: RegionPack, *, every_s: float = 0.4, cache_dir: Path | None = None) -> bytes:
    """An animated WebP of the whole run from above, `every_s` of driving per picture, played at twice that pace."""
    steps = max(1, round(every_s * 10))
    rows = tuple(range(0, len(rollout.steps["t_s"]), steps))
    return _drawn(PictureRequest(roads=pack.roads, rollout=rollout, rows=rows, kind="animation"), cache_dir)[0]


def birdseye_pictures(
    rollout: Rollout, pack: RegionPack, *, at_s: tuple[float, ...], cache_dir: Path | None = None
) -> list[bytes]:
    """PNG pictures from above at the given times."""
    rows = tuple(_row_at(rollout, at) for at in at_s)
    return _drawn(PictureRequest(roads=pack.roads, rollout=rollout, rows=rows, kind="above"), cache_dir)


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
    assets = towns.get(roads, int(rollout.scenario.rpartition("-")[2]))
    if request.kind == "camera":
        return [_png(frame) for frame in _through_camera(request, roads, assets)]
    frames = [_from_above(rollout, row, roads, assets) for row in request.rows]
    return [_animation(frames)] if request.kind == "animation" else [_png(frame) for frame in frames]


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
    camera = TownCamera(sharp, assets.ground, roads.looks.sky)
    frames = []
    for row in request.rows:
        lit = assets.furniture.lit(_lights(request.rollout, row, assets))
        scene = Scene(fixed=lit, vehicles=_vehicles(request.rollout, row, roads))
        frames.append(camera.render(scene, _pose(request.rollout, row)[None])[0])
    return frames


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
    return vehicle_boxes(roads, rollout.actor_kind[here], ids, fronts.astype(np.float64), np.array(braking, np.bool_))


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
        colour = BIKE_COLOUR if ACTOR_KINDS[rollout.actor_kind[actor]] in ("ebike", "bicycle") else ACTOR_COLOUR
        box = (values["x_m"], values["y_m"], values["yaw_rad"], values["length_m"], values["width_m"])
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


def _animation(frames: list[Rgb], *, show_ms: int = 200) -> bytes:
    import cv2

    animation = cv2.Animation()
    animation.frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    animation.durations = [show_ms] * len(frames)
    done, data = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, 55])
    if not done:
        raise InputError("bad_config", "animation", "it could not be encoded as WebP.")
    return bytes(np.asarray(data).tobytes())
