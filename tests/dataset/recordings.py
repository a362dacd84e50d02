"""Small drives for the tests of clip and dataset: a real road picture, a real encoder, a bicycle that really drives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, view_maps, warp
from onshore.core.control import Action, Bicycle, EgoState, VehicleGeometry
from onshore.core.recording import Camera, Clock, Recording, Rig, Signals, Video
from onshore.wire import encode

START_NS = 1_700_000_000_000_000_000
CAMERA = Camera(
    name="front", width_px=192, height_px=96, focal_px=64.0, centre_x_px=96.0, centre_y_px=48.0,
    pose_camera_in_rig=(1.5, 0.0, 1.4, 0.0, 0.0, 0.0),
)  # fmt: skip

LEFT = replace(CAMERA, name="left", pose_camera_in_rig=(1.9, 0.9, 1.4, 0.0, 0.0, math.radians(70.0)))

Drive = Callable[[float], tuple[float, float]]


def driven(seconds: float, drive: Drive, *, hz: float = 10.0, start_speed_mps: float = 8.0) -> dict[str, Any]:
    """Signals of a bicycle model: `drive(t_s)` gives steering (rad) and acceleration (m/s^2)."""
    geometry, state = VehicleGeometry(), EgoState(x_m=0, y_m=0, yaw_rad=0.3, speed_mps=start_speed_mps)
    bicycle = Bicycle(geometry=geometry, max_steering_rate_radps=1e9)
    count, rows = round(seconds * hz) + 1, []
    for index in range(count):
        steering, accel = drive(index / hz)
        rate = state.speed_mps * math.tan(steering) / geometry.wheelbase_m
        rows.append((state.speed_mps, accel, rate, steering, state.x_m, state.y_m, state.yaw_rad))
        for _ in range(10):
            state = bicycle.step(state, Action(steering_rad=steering, accel_mps2=accel), 0.1 / hz)
    names = ("speed_mps", "accel_mps2", "yaw_rate_radps", "steering_rad", "x_m", "y_m", "yaw_rad")
    columns = dict(zip(names, np.array(rows).T, strict=True))
    return {"t_ns": START_NS + np.round(np.arange(count) * 1e9 / hz).astype(np.int64), **columns}


def signals(seconds: float = 12.0, drive: Drive = lambda t: (0.0, 0.0), **keep: Any) -> Signals:
    """Signals of `driven`; `drop=("x_m", …)` leaves columns unknown."""
    drop = keep.pop("drop", ())
    columns = driven(seconds, drive, **keep)
    return Signals.build(columns.pop("t_ns"), **{name: col for name, col in columns.items() if name not in drop})


def ground_picture(camera: Camera, x_m: float, y_m: float, yaw_rad: float) -> NDArray[np.uint8]:
    """What a level camera, turned to the side or not, sees of a smooth pattern painted on the plane z = 0, under a plain sky."""
    column, row = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    left, up = (camera.centre_x_px - column) / camera.focal_px, (camera.centre_y_px - row) / camera.focal_px
    mount_x, mount_y, height = camera.pose_camera_in_rig[:3]
    turned = camera.pose_camera_in_rig[5]
    ahead = height / np.maximum(-up, 1e-9)
    rig_x = mount_x + ahead * math.cos(turned) - ahead * left * math.sin(turned)
    rig_y = mount_y + ahead * math.sin(turned) + ahead * left * math.cos(turned)
    x = x_m + rig_x * math.cos(yaw_rad) - rig_y * math.sin(yaw_rad)
    y = y_m + rig_x * math.sin(yaw_rad) + rig_y * math.cos(yaw_rad)
    # detail fades with distance, as a lens that resolves no finer than a pixel would have it
    fade = np.exp(-ahead / 12.0)
    ground = np.stack([128 + 90 * fade * np.sin(x * 1.3), 128 + 90 * fade * np.sin(y * 1.7), 90 + 0 * x], -1)
    azimuth = np.arctan(left) + yaw_rad + turned
    sky = np.stack([160 + 60 * np.sin(3 * azimuth), 170 + 0 * azimuth, 200 + 0 * azimuth], -1)
    return np.where((up < 0)[..., None], ground, sky).clip(0, 255).astype(np.uint8)


def recording(
    *,
    vehicle: str = "car-0007",
    drive_key: str = "route-1",
    moves: Signals | None = None,
    camera: Camera = CAMERA,
    beside: tuple[Camera, ...] = (),
    hz: float = 10.0,
    video_seconds: float | None = None,
    **fields: Any,
) -> Recording:
    """A recording whose pictures are drawn from where the car was."""
    moves = moves or signals()
    span_s = float(moves.t_ns[-1] - moves.t_ns[0]) / 1e9
    count = int(min(span_s, span_s if video_seconds is None else video_seconds) * hz) + 1
    t_ns = moves.t_ns[0] + np.round(np.arange(count) * 1e9 / hz).astype(np.int64)
    at = (t_ns - moves.t_ns[0]) / 1e9
    seconds = (moves.t_ns - moves.t_ns[0]) / 1e9
    x, y, yaw = (
        np.interp(at, seconds, np.nan_to_num(column)) for column in (moves.x_m, moves.y_m, np.unwrap(moves.yaw_rad))
    )

    def film(seen: Camera) -> Video:
        frames = ((int(t), ground_picture(seen, *pose)) for t, *pose in zip(t_ns, x, y, yaw, strict=True))
        return encode(seen.name, frames, crf=10)

    given: dict[str, Any] = {"synthetic": True, "segment_index": 0, **fields}
    return Recording(
        vehicle=vehicle,
        clock=Clock(kind="utc", utc_offset_ns=0, uncertainty_ns=0),
        rig=Rig(cameras=(camera, *beside)),
        signals=moves,
        videos=tuple(film(seen) for seen in (camera, *beside)),
        drive_key=drive_key,
        **given,
    )


def shifted(moves: Signals, by_ns: int) -> Signals:
    """The same signals at another time."""
    return replace(moves, t_ns=moves.t_ns + by_ns)


def view_of(frame: NDArray[np.uint8], camera: Camera, view: View, *, wide: bool = False) -> NDArray[np.uint8]:
    return warp(frame, view_maps(camera, view, wide=wide))
