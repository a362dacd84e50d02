"""From what a camera recorded to what the network sees: one virtual camera, one set of side inputs, for everybody.

Rule: dataset, world, evaluation and car turn pictures and signals into network inputs here and nowhere else, with the
same bytes on every machine: integer arithmetic on 1/16 (or 1/8) pixel weights, numpy only.

Pixel (i, j) covers [i, i+1) x [j, j+1): its centre lies at i + 0.5, and a centred principal point is width / 2.
Letters: N frames, H rows, W columns, C colours, P view pixels, K taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onshore.core.errors import InputError
from onshore.core.policy import RouteCommand
from onshore.core.recording import Camera, Recording, Video

SIDE_INPUTS: tuple[str, ...] = (
    "speed_over_10",
    "has_speed",
    "straight",
    "left",
    "right",
    "distance_over_100",
    "distance_nearness",
    "in_junction",
    "has_map",
)
#: A junction further away than this counts as this far: beyond it, distance says nothing about how to drive.
FAR_JUNCTION_M = 200.0
#: A camera turned away from a view's direction by more than this does not fill it.
WRONG_WAY_RAD = math.radians(60.0)
#: Cameras that look the same way but for this differ in what they are for, not in where they look.
SAME_WAY_RAD = math.radians(6.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """The network's own camera: level, `height_m` above the ground at the rig camera's x and y.

    It looks `yaw_rad` to the left of straight ahead; the rig's camera nearest to that direction fills it.
    `margin` is the share of width and height added on every side of the wide view, from which perturbed views are cut.
    """

    width_px: int = 128
    height_px: int = 64
    focal_px: float = 64.0
    height_m: float = 1.4
    margin: float = 0.25
    yaw_rad: float = 0.0

    def __post_init__(self) -> None:
        if not -math.pi <= self.yaw_rad <= math.pi:
            raise InputError("bad_config", "view.yaw_rad", "must lie between -pi and pi.")
        if min(self.width_px, self.height_px) < 2 or self.focal_px <= 0 or self.height_m <= 0 or self.margin < 0:
            raise InputError(
                "bad_config", "view", "sizes, focal length and height must be positive, margin not negative."
            )

    @property
    def margin_px(self) -> tuple[int, int]:
        """Columns and rows that the wide view has on either side of this one."""
        return round(self.width_px * self.margin), round(self.height_px * self.margin)

    def widened(self) -> View:
        """The wide view: same focal length and centre, `margin_px` more on every side, no margin of its own."""
        columns, rows = self.margin_px
        return replace(self, width_px=self.width_px + 2 * columns, height_px=self.height_px + 2 * rows, margin=0.0)

    def as_record(self) -> dict[str, Any]:
        return {
            "width_px": self.width_px,
            "height_px": self.height_px,
            "focal_px": float(self.focal_px),
            "height_m": float(self.height_m),
            "margin": float(self.margin),
            "yaw_rad": float(self.yaw_rad),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> View:
        try:
            return cls(**record)
        except TypeError as problem:
            raise InputError("bad_config", "view", f"unexpected or missing field: {problem}.") from problem


@dataclass(frozen=True, kw_only=True)
class ViewMap:
    """Where each pixel of a view comes from, for one camera: made once, used for every frame.

    source_HW and view_HW: sizes in pixels. map_x_px, map_y_px: (H, W) source coordinates of the view's pixel centres
    (before clamping). inside: (H, W) whether the source really shows that pixel; the rest repeats the border.
    box: the source is first averaged over box x box pixels. taps_KP, weights_KP: flat indices into that, and their
    weights in 1/256. crop: (row, column) when the view is cut out of the source without arithmetic.
    """

    source_HW: tuple[int, int]
    view_HW: tuple[int, int]
    map_x_px: NDArray[np.float32]
    map_y_px: NDArray[np.float32]
    inside: NDArray[np.bool_]
    box: int
    crop: tuple[int, int] | None
    taps_KP: NDArray[np.intp] = field(repr=False)
    weights_KP: NDArray[np.uint64] = field(repr=False)


def camera_for(view: View, cameras: Sequence[Camera]) -> Camera:
    """The rig's camera that looks most nearly where the view does.

    Of cameras within SAME_WAY_RAD of the nearest, the one that covers most of the view's width, then the one with the longest
    focal length, then the first. Raises InputError `not_found` without cameras or when the nearest one is turned away by more
    than WRONG_WAY_RAD.
    """

    def off_rad(camera: Camera) -> float:
        return abs(math.remainder(camera.pose_camera_in_rig[5] - view.yaw_rad, 2 * math.pi))

    def fit(camera: Camera) -> tuple[float, float]:
        covered = camera.width_px / camera.focal_px / (view.width_px / view.focal_px)
        return min(1.0, covered), camera.focal_px

    have = ", ".join(f"{c.name} at {math.degrees(c.pose_camera_in_rig[5]):.0f} deg" for c in cameras)
    wanted = f"a camera that looks {math.degrees(view.yaw_rad):.0f} deg to the left"
    nearest = min(map(off_rad, cameras), default=math.inf)
    if nearest > WRONG_WAY_RAD:
        raise InputError("not_found", "camera", f"the network wants {wanted}; there are {have or 'no frames of any'}.")
    return max((camera for camera in cameras if off_rad(camera) <= nearest + SAME_WAY_RAD), key=fit)


def video_for(view: View, recording: Recording) -> tuple[Camera, Video]:
    """The camera that fills the view, and its video. Errors as `camera_for`."""
    seen = {video.camera: video for video in recording.videos if video.packets}
    camera = camera_for(view, [camera for camera in recording.rig.cameras if camera.name in seen])
    return camera, seen[camera.name]


def front_video(recording: Recording) -> tuple[Camera, Video]:
    """The camera that looks most nearly straight ahead, and its video."""
    return video_for(View(), recording)


def frame_inputs(views: int) -> tuple[str, ...]:
    """Names of the network's picture inputs, one per view: frames, frames_1, frames_2, ..."""
    return ("frames", *(f"frames_{number}" for number in range(1, views)))


def view_maps(camera: Camera, view: View, *, wide: bool = False) -> ViewMap:
    """The map from `view` (or its wide form) to the pixels of `camera`.

    Pixels below the horizon follow the ground plane z = 0 where the two heights differ; pixels above it follow the
    rotation alone, as if infinitely far away. Pixels outside the source repeat its border.
    """
    shown = view.widened() if wide else view
    scale = camera.focal_px / shown.focal_px
    box = max(1, int(scale + 1e-9))
    box = min(box, camera.width_px // 2, camera.height_px // 2, 16)
    # what is still too fine after whole-pixel averaging is averaged over 2 x 2 rays per view pixel
    rays = 2 if scale / box > 1.25 else 1
    map_x, map_y, ahead = _project(camera, shown, rays=1)
    inside = ahead & (map_x >= 0) & (map_x <= camera.width_px) & (map_y >= 0) & (map_y <= camera.height_px)
    fine_x, fine_y, _ = _project(camera, shown, rays=rays)
    reduced_HW = camera.height_px // box, camera.width_px // box
    taps_KP, weights_KP = _taps(fine_x / box, fine_y / box, reduced_HW, rays)
    return ViewMap(
        source_HW=(camera.height_px, camera.width_px),
        view_HW=(shown.height_px, shown.width_px),
        map_x_px=map_x.astype(np.float32),
        map_y_px=map_y.astype(np.float32),
        inside=inside,
        box=box,
        crop=_crop(taps_KP, weights_KP, reduced_HW, (shown.height_px, shown.width_px)) if box == 1 else None,
        taps_KP=taps_KP,
        weights_KP=weights_KP,
    )


def rotation_camera_in_rig(roll_rad: float, pitch_rad: float, yaw_rad: float) -> NDArray[np.float64]:
    """Columns are the camera's axes in the rig frame: Rz(yaw) Ry(pitch) Rx(roll); positive pitch looks down."""
    cr, sr, cp, sp = math.cos(roll_rad), math.sin(roll_rad), math.cos(pitch_rad), math.sin(pitch_rad)
    cy, sy = math.cos(yaw_rad), math.sin(yaw_rad)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _project(
    camera: Camera, view: View, *, rays: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Source coordinates (H * rays, W * rays) of the view's rays, and whether they lie before the camera."""
    columns = (np.arange(view.width_px * rays) + 0.5) / rays
    rows = (np.arange(view.height_px * rays) + 0.5) / rays
    left, up = np.meshgrid((view.width_px / 2 - columns) / view.focal_px, (view.height_px / 2 - rows) / view.focal_px)
    ray = np.stack([np.ones_like(left), left, up], -1)
    if view.yaw_rad:
        ray = ray @ rotation_camera_in_rig(0.0, 0.0, view.yaw_rad).T
    height_m = camera.pose_camera_in_rig[2]
    if abs(height_m - view.height_m) > 1e-6:
        # the ground point seen along a ray at depth h / -up, seen again from the camera's own height
        ray[..., 2] += np.where(up < 0, (view.height_m - height_m) * -np.minimum(up, 0.0) / view.height_m, 0.0)
    seen = ray @ rotation_camera_in_rig(*camera.pose_camera_in_rig[3:])
    ahead = seen[..., 0] > 1e-3
    depth = np.maximum(seen[..., 0], 1e-3)
    x = camera.centre_x_px - camera.focal_px * seen[..., 1] / depth
    y = camera.centre_y_px - camera.focal_px * seen[..., 2] / depth
    return x, y, ahead


def _taps(
    x: NDArray[np.float64], y: NDArray[np.float64], source_HW: tuple[int, int], rays: int
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Bilinear taps of every ray, gathered per view pixel: weights are whole numbers that sum to 256."""
    height, width = source_HW
    steps = 16 // rays
    column, right = _neighbours(x, width, steps)
    row, below = _neighbours(y, height, steps)
    taps, weights = [], []
    for down in range(2):
        for across in range(2):
            at = np.minimum(row + down, height - 1) * width + np.minimum(column + across, width - 1)
            weight = (below if down else steps - below) * (right if across else steps - right)
            for sub_row in range(rays):
                for sub_column in range(rays):
                    taps.append(at[sub_row::rays, sub_column::rays].ravel())
                    weights.append(weight[sub_row::rays, sub_column::rays].ravel())
    used = [index for index, weight in enumerate(weights) if weight.any()]
    return (
        np.ascontiguousarray(np.stack([taps[index] for index in used]), np.intp),
        np.ascontiguousarray(np.stack([weights[index] for index in used]), np.uint64),
    )


def _neighbours(at: NDArray[np.float64], size: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pixel before each coordinate and the share of the next one in 1/steps, clamped to the border."""
    fixed = np.rint((np.clip(at, 0.5, size - 0.5) - 0.5) * steps).astype(np.int64)
    return fixed // steps, fixed % steps


def _crop(
    taps_KP: NDArray[np.intp], weights_KP: NDArray[np.uint64], source_HW: tuple[int, int], view_HW: tuple[int, int]
) -> tuple[int, int] | None:
    """The corner (row, column) of the view when it is a plain piece of the source, else None."""
    if len(taps_KP) != 1:
        return None
    row, column = divmod(int(taps_KP[0, 0]), source_HW[1])
    if row + view_HW[0] > source_HW[0] or column + view_HW[1] > source_HW[1]:
        return None
    piece = np.arange(source_HW[0] * source_HW[1]).reshape(source_HW)
    piece = piece[row : row + view_HW[0], column : column + view_HW[1]]
    return (row, column) if np.array_equal(piece.ravel(), taps_KP[0]) else None


def warp(frames_NHWC: NDArray[np.uint8], view_map: ViewMap) -> NDArray[np.uint8]:
    """Frames (N, H, W, 3) uint8 as the view sees them: (N, view H, view W, 3) uint8; one frame (H, W, 3) also goes.

    Raises InputError `bad_config` when the frames are not of the size the map was made for.
    """
    if frames_NHWC.ndim == 3:
        single: NDArray[np.uint8] = warp(frames_NHWC[None], view_map)[0]
        return single
    if frames_NHWC.shape[1:] != (*view_map.source_HW, 3) or frames_NHWC.dtype != np.uint8:
        height, width = view_map.source_HW
        raise InputError(
            "bad_config",
            f"frames {frames_NHWC.shape} {frames_NHWC.dtype}",
            f"the camera says {height} x {width} x 3 uint8; give frames as that camera recorded them.",
        )
    height, width = view_map.view_HW
    if view_map.crop is not None:
        row, column = view_map.crop
        return np.ascontiguousarray(frames_NHWC[:, row : row + height, column : column + width])
    out = np.empty((len(frames_NHWC), height, width, 3), np.uint8)
    for frame, target in zip(frames_NHWC, out, strict=True):
        _warp_one(_averaged(frame, view_map.box), view_map, target)
    return out


def _averaged(frame: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """Means over box x box pixels, rounded half up; rows and columns that do not fill a box are left out."""
    if box == 1:
        return frame
    height, width = frame.shape[0] // box * box, frame.shape[1] // box * box
    rows = frame[0:height:box].astype(np.uint16)
    for offset in range(1, box):
        rows += frame[offset:height:box]
    total: NDArray[np.uint32] = rows[:, 0:width:box].astype(np.uint32)
    for offset in range(1, box):
        total += rows[:, offset:width:box]
    total += box * box // 2
    return (total // (box * box)).astype(np.uint8)


def _warp_one(frame: NDArray[np.uint8], view_map: ViewMap, target: NDArray[np.uint8]) -> None:
    """Weighs three colours at once: each has a 16-bit lane of a 64-bit word, and 255 * 256 + 128 still fits a lane."""
    pixels = frame.reshape(-1, 3)
    lanes = np.zeros((len(pixels), 4), np.uint16)
    lanes[:, :3] = pixels
    words = lanes.view(np.uint64)[:, 0]
    whole_pixels = len(view_map.taps_KP) == 1
    if whole_pixels:
        mixed = words.take(view_map.taps_KP[0])
    else:
        mixed = np.full(view_map.taps_KP.shape[1], 0x0080_0080_0080, np.uint64)
        for taps, weights in zip(view_map.taps_KP, view_map.weights_KP, strict=True):
            mixed += words.take(taps) * weights
    colours = mixed.view(np.uint16).reshape(*view_map.view_HW, 4)[..., :3]
    target[...] = colours if whole_pixels else colours >> 8


def side_inputs(
    speed_mps: ArrayLike | None,
    command: ArrayLike | RouteCommand,
    junction_distance_m: ArrayLike | None,
    in_junction: ArrayLike | None,
) -> NDArray[np.float32]:
    """What the network hears beside pictures: (..., 9) float32 in the order of SIDE_INPUTS; arrays broadcast.

    None and NaN mean 'not known' and give zeros with a zero validity bit. A map that knows of no junction ahead
    (distance not known, in_junction known) counts as FAR_JUNCTION_M away, never as standing at the line.
    """
    speed, asked, distance, inside = np.broadcast_arrays(
        _known(speed_mps), np.asarray(command, np.int64), _known(junction_distance_m), _known(in_junction)
    )
    has_speed, has_map = np.isfinite(speed), np.isfinite(distance) | np.isfinite(inside)
    far = np.clip(np.where(np.isfinite(distance), distance, FAR_JUNCTION_M), 0.0, FAR_JUNCTION_M)
    columns = [
        np.where(has_speed, speed, 0.0) / 10.0,
        has_speed,
        asked == RouteCommand.STRAIGHT,
        asked == RouteCommand.LEFT,
        asked == RouteCommand.RIGHT,
        np.where(has_map, far / 100.0, 0.0),
        np.where(has_map, np.exp(-far / 20.0), 0.0),
        np.where(np.isfinite(inside), inside, 0.0) > 0.5,
        has_map,
    ]
    return np.stack([np.asarray(column, np.float32) for column in columns], -1)


def _known(value: ArrayLike | None) -> NDArray[np.float64]:
    return np.asarray(np.nan if value is None else value, np.float64)
