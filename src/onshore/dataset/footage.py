"""What an inverse-dynamics network sees: a few grey frames before and after a moment, and how the car moved between them.

Rule: a window never crosses a segment or an unbroken stretch of a drive; every window tells the true times of its frames.
A planted camera is another height, mount, lens, frame rate and brightness, and a turn about the rear axle that changes the
label with the picture: below the horizon by the ground plane, above it by rotation alone.

Letters: N frames, H rows, W columns, M windows, B batch, T frames of a window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, rotation_camera_in_rig
from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.dataset.labels import driven_at, tracks
from onshore.dataset.proxy import Proxy, fill_frames

#: Ages of a window's frames about its moment (s), and how far a frame may lie from them.
OFFSETS_S = (-0.4, -0.2, 0.0, 0.2, 0.4)
TOLERANCE_S = 0.11
GREY = np.array([77, 150, 29], np.uint16)  # luma in 1/256
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Frames of many segments in one row. frames_NHW: grey wide frames. way_m, yaw_rad: NaN where not known.

    stretch_N: which unbroken stretch of a segment a frame belongs to. drive_N: index into `drives`. mount_N2: the
    camera's x, y in the rig (m).
    """

    view: View
    frames_NHW: NDArray[np.uint8]
    t_ns: NDArray[np.int64]
    way_m: Floats
    yaw_rad: Floats
    stretch_N: NDArray[np.int64]
    drive_N: NDArray[np.int64]
    mount_N2: NDArray[np.float32]
    drives: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MotionWindows:
    """index_MT: frames of each window, in order of time; t_MT: their times about the moment (s). speed_mps, yaw_rate_radps:
    means over the window (NaN where not known). drive_M: index into the footage's drives."""

    index_MT: NDArray[np.int64]
    t_MT: Floats
    speed_mps: Floats
    yaw_rate_radps: Floats
    drive_M: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index_MT)

    def take(self, chosen: NDArray[Any]) -> MotionWindows:
        return MotionWindows(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Planted:
    """How far training cameras are planted from the own one; ranges drawn evenly, sigmas normal.

    turn_radps: added yaw rates, in `turned` of the samples. shift: chance that an outer frame is taken 0.1 s off, as other
    frame rates have it. Heights and lenses are one for a window, as are all others.
    """

    height_m: tuple[float, float] = (1.0, 1.9)
    focal: tuple[float, float] = (0.88, 1.12)
    roll_rad: float = math.radians(1.0)
    pitch_rad: float = math.radians(1.5)
    yaw_rad: float = math.radians(2.5)
    turn_radps: float = 0.15
    turned: float = 0.4
    shift: float = 0.35
    contrast: tuple[float, float] = (0.75, 1.25)
    brightness: float = 18.0

    def __post_init__(self) -> None:
        if (
            min(*self.height_m, *self.focal, *self.contrast) <= 0
            or not 0 <= self.turned <= 1
            or not 0 <= self.shift <= 1
        ):
            raise InputError("bad_config", "planted cameras", "heights and factors are positive, shares lie in 0..1.")

    def as_record(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Planted:
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
        }
        return cls(**plain)


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """One camera per window: height (m), roll, pitch, yaw (rad), focal factor, contrast, brightness; added yaw rate
    (rad/s); whether the picture is mirrored."""

    height_B: Floats
    mount_B3: Floats
    focal_B: Floats
    contrast_B: Floats
    brightness_B: Floats
    turn_B: Floats
    mirrored_B: NDArray[np.bool_]

    @classmethod
    def own(cls, view: View, count: int) -> Cameras:
        """The camera that the proxies show."""
        ones, zeros = np.ones(count), np.zeros(count)
        return cls(
            height_B=ones * view.height_m,
            mount_B3=np.zeros((count, 3)),
            focal_B=ones,
            contrast_B=ones,
            brightness_B=zeros,
            turn_B=zeros,
            mirrored_B=np.zeros(count, bool),
        )

    @classmethod
    def drawn(cls, planted: Planted, random: np.random.Generator, count: int) -> Cameras:
        sigmas = (planted.roll_rad, planted.pitch_rad, planted.yaw_rad)
        turned = random.random(count) < planted.turned
        return cls(
            height_B=random.uniform(*planted.height_m, count),
            mount_B3=np.clip(random.normal(0, 1, (count, 3)), -2.5, 2.5) * sigmas,
            focal_B=random.uniform(*planted.focal, count),
            contrast_B=random.uniform(*planted.contrast, count),
            brightness_B=random.uniform(-1, 1, count) * planted.brightness,
            turn_B=np.where(turned, random.normal(0, planted.turn_radps, count), 0.0),
            mirrored_B=random.random(count) < 0.5,
        )

    def take(self, chosen: NDArray[Any]) -> Cameras:
        return Cameras(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class MotionBatch:
    """What one training step takes, under the names of `model.training.Batch`: frames (B, T, 1, H, W), times of the frames
    (s) as side inputs, (speed m/s, yaw rate rad/s) as the path's one point, the speed as its one speed."""

    frames_BTCHW: NDArray[np.uint8]
    side_B9: NDArray[np.float32]
    path_BK2: NDArray[np.float32]
    path_mask_BK: NDArray[np.float32]
    speed_BT: NDArray[np.float32]
    speed_mask_BT: NDArray[np.float32]
    side_frames: tuple[NDArray[np.uint8], ...] = field(default=())


def footage(proxies: Sequence[Proxy], view: View, *, progress: Progress = silent) -> Footage:
    """Every frame of the proxies of one view, with the way and yaw of the own signals where they know them.

    Raises InputError `empty_input` without a proxy of this view.
    """
    drives: dict[str, list[Proxy]] = {}
    for proxy in sorted((p for p in proxies if p.view == view), key=lambda p: (p.drive, int(p.t_ns[0]), p.segment)):
        drives.setdefault(proxy.drive, []).append(proxy)
    if not drives:
        raise InputError("empty_input", "footage", "no proxy of this view; freeze a dataset for it.")
    parts: list[tuple[NDArray[np.uint8], Floats, Floats, NDArray[np.int64]]] = []
    order = [proxy for members in drives.values() for proxy in members]
    stretches = 0
    for done, proxy in enumerate(order):
        progress("decoding proxies", done, len(order))
        way, yaw, stretch = _driven(proxy)
        parts.append((_grey(proxy), way, yaw, stretch + stretches))
        stretches += int(stretch.max(initial=0)) + 1
    progress("decoding proxies", len(order), len(order))
    frames, way_m, yaw_rad, stretch_N = (np.concatenate(column) for column in zip(*parts, strict=True))
    counts, numbers = [len(proxy.t_ns) for proxy in order], {drive: number for number, drive in enumerate(drives)}
    return Footage(
        view=view,
        frames_NHW=frames,
        t_ns=np.concatenate([proxy.t_ns for proxy in order]),
        way_m=way_m,
        yaw_rad=yaw_rad,
        stretch_N=stretch_N,
        drive_N=np.repeat([numbers[proxy.drive] for proxy in order], counts),
        mount_N2=np.repeat(np.array([proxy.mount_xy_m for proxy in order], np.float32), counts, axis=0),
        drives=tuple(drives),
    )


def motion_windows(seen: Footage, *, labelled: bool = True) -> MotionWindows:
    """The window about every frame that has one. labelled: only where way and yaw are known throughout."""
    t_s = (seen.t_ns - seen.t_ns.min()) / 1e9
    found = [_windows_within(t_s[first:past]) + first for first, past in _stretches(seen.stretch_N)]
    index = np.concatenate([np.empty((0, len(OFFSETS_S)), np.int64), *found])
    first, last = index[:, 0], index[:, -1]
    span = t_s[last] - t_s[first]
    speed = (seen.way_m[last] - seen.way_m[first]) / span
    rate = (seen.yaw_rad[last] - seen.yaw_rad[first]) / span
    kept = np.isfinite(speed) & np.isfinite(rate) if labelled else np.ones(len(index), bool)
    middle = len(OFFSETS_S) // 2
    return MotionWindows(
        index_MT=index[kept],
        t_MT=(t_s[index] - t_s[index[:, middle, None]])[kept],
        speed_mps=speed[kept],
        yaw_rate_radps=rate[kept],
        drive_M=seen.drive_N[index[:, middle]][kept],
    )


def motion_batch(seen: Footage, windows: MotionWindows, cameras: Cameras) -> MotionBatch:
    """Pictures and labels of windows as their cameras see them."""
    t_BT, mirror = windows.t_MT, np.where(cameras.mirrored_B, -1.0, 1.0)
    rate = (windows.yaw_rate_radps + cameras.turn_B) * mirror
    labels = np.stack([windows.speed_mps, rate], -1)[:, None].astype(np.float32)
    side = np.zeros((len(windows), 9), np.float32)
    side[:, : t_BT.shape[1]] = t_BT
    ones = np.ones((len(windows), 1), np.float32)
    return MotionBatch(
        frames_BTCHW=pictures(seen, windows, cameras)[:, :, None],
        side_B9=side,
        path_BK2=labels,
        path_mask_BK=ones,
        speed_BT=labels[:, :, 0],
        speed_mask_BT=ones,
    )


def pictures(seen: Footage, windows: MotionWindows, cameras: Cameras) -> NDArray[np.uint8]:
    """(B, T, H, W) grey views of the windows."""
    from onshore.dataset.kernel import plant_cameras  # numba takes half a second to import

    view, count = seen.view, len(windows)
    out = np.empty((*windows.index_MT.shape, view.height_px, view.width_px), np.uint8)
    turns_BT = cameras.turn_B[:, None] * windows.t_MT
    rotation = np.array(
        [
            [rotation_camera_in_rig(roll, pitch, yaw + turn) for turn in turns]
            for (roll, pitch, yaw), turns in zip(cameras.mount_B3, turns_BT, strict=True)
        ],
        np.float32,
    ).reshape(count, -1, 3, 3)
    mount = seen.mount_N2[windows.index_MT[:, 0]].astype(np.float64)
    cos, sin = np.cos(turns_BT), np.sin(turns_BT)
    moved = np.stack([cos * mount[:, :1] - sin * mount[:, 1:], sin * mount[:, :1] + cos * mount[:, 1:]], -1)
    kernel: Any = plant_cameras
    kernel(
        seen.frames_NHW,
        windows.index_MT,
        rotation,
        (moved - mount[:, None]).astype(np.float32),
        np.stack([cameras.height_B, cameras.focal_B, cameras.contrast_B, cameras.brightness_B], -1).astype(np.float32),
        cameras.mirrored_B,
        np.float32(view.focal_px),
        np.float32(view.height_m),
        out,
    )
    return out


def motion_batches(seen: Footage, planted: Planted, *, batch: int, steps: int, seed: int) -> Iterator[MotionBatch]:
    """Training batches: every window with a camera of its own. Batch n of a seed is always the same.

    Standing windows count 0.4, turning ones 2.5. Raises InputError `empty_input` when no window knows its motion.
    """
    plain = motion_windows(seen)
    if not len(plain):
        raise InputError("empty_input", "footage", "no window knows how the car moved; add drives with signals.")
    weight = np.where(plain.speed_mps < 0.3, 0.4, np.where(np.abs(plain.yaw_rate_radps) > 0.06, 2.5, 1.0))
    likelihood = np.cumsum(weight)
    for step in range(steps):
        random = np.random.default_rng([seed, step])
        drawn = np.searchsorted(likelihood, random.random(batch) * likelihood[-1], side="right")
        chosen = shifted(seen, plain.take(np.minimum(drawn, len(plain) - 1)), planted.shift, random)
        yield motion_batch(seen, chosen, Cameras.drawn(planted, random, batch))


def shifted(seen: Footage, windows: MotionWindows, chance: float, random: np.random.Generator) -> MotionWindows:
    """The same moments with some of the outer frames taken one frame off, labels with them; what cannot be stays."""
    index, middle = windows.index_MT.copy(), windows.index_MT.shape[1] // 2
    step = random.integers(0, 2, index.shape) * 2 - 1
    wanted = index + np.where(random.random(index.shape) < chance, step, 0)
    wanted[:, middle] = index[:, middle]
    inside = (wanted >= 0) & (wanted < len(seen.t_ns))
    wanted = np.where(inside, wanted, index)
    fits = (seen.stretch_N[wanted] == seen.stretch_N[index]).all(1) & (np.diff(wanted, axis=1) > 0).all(1)
    index = np.where(fits[:, None], wanted, index)
    t_s = (seen.t_ns[index] - seen.t_ns[index[:, middle, None]]) / 1e9
    span, ends = t_s[:, -1] - t_s[:, 0], (index[:, 0], index[:, -1])
    return MotionWindows(
        index_MT=index,
        t_MT=t_s,
        speed_mps=(seen.way_m[ends[1]] - seen.way_m[ends[0]]) / span,
        yaw_rate_radps=(seen.yaw_rad[ends[1]] - seen.yaw_rad[ends[0]]) / span,
        drive_M=windows.drive_M,
    )


def _stretches(stretch_N: NDArray[np.int64]) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(stretch_N)) + 1).tolist(), len(stretch_N)]
    return [(first, past) for first, past in itertools.pairwise(edges) if past - first >= len(OFFSETS_S)]


def _windows_within(t_s: Floats) -> NDArray[np.int64]:
    """(M, T) frames nearest to the offsets about each frame, where all are near enough and in order."""
    wanted = t_s[:, None] + np.array(OFFSETS_S)
    after = np.clip(np.searchsorted(t_s, wanted), 1, len(t_s) - 1)
    nearest = np.where(wanted - t_s[after - 1] <= t_s[after] - wanted, after - 1, after)
    near = (np.abs(t_s[nearest] - wanted) <= TOLERANCE_S).all(1)
    return np.asarray(nearest[near & (np.diff(nearest, axis=1) > 0).all(1)], np.int64)


def _driven(proxy: Proxy) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Way, yaw and stretch of every frame; frames outside every track are stretches without labels."""
    t_ns = proxy.t_ns
    way, yaw = np.full(len(t_ns), np.nan), np.full(len(t_ns), np.nan)
    stretch = np.zeros(len(t_ns), np.int64)
    for number, track in enumerate(tracks([(proxy.signals, proxy.vehicle)]), start=1):
        on = (t_ns >= track.t_ns[0]) & (t_ns <= track.t_ns[-1])
        way[on], yaw[on] = driven_at(track, t_ns[on])
        stretch[on & np.isfinite(way)] = number
    # a number per run, so that frames on either side of a gap never meet
    return way, yaw, np.concatenate([[0], np.cumsum(np.diff(stretch) != 0)]).astype(np.int64)


def _grey(proxy: Proxy) -> NDArray[np.uint8]:
    wide = proxy.view.widened()
    rgb = np.empty((len(proxy.t_ns), wide.height_px, wide.width_px, 3), np.uint8)
    fill_frames(proxy, np.arange(len(rgb)), rgb)
    return np.asarray((rgb.astype(np.uint16) * GREY).sum(-1, dtype=np.uint32) >> 8, np.uint8)
