"""What a drive teaches: for each moment the path it then drove, the speeds it then had, and what was known at the time.

Rule: side inputs are the last values known at that moment, never later ones; labels come from the drive's own future and
are masked where that ends. A track is one unbroken stretch of one drive: no label crosses a gap, a jump or a drive.

Letters: M moments, K path points, S speed times.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import side_inputs
from onshore.clip.motion import MAX_GAP_S, STANDING_MPS, Motion, integrate, motion, seconds
from onshore.core.control import VehicleGeometry
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.core.recording import Signals

Floats = NDArray[np.float64]

#: A path is what was driven within this time: beyond it the reason for driving there is out of the picture.
LONGEST_FUTURE_S = 60.0
#: Measured positions that move this much further than the speed allows belong to another track.
JUMP_M = 2.0


@dataclass(frozen=True, kw_only=True)
class Track:
    """One unbroken stretch of a drive: times (ns), rear-axle poses (N, 3), metres driven since its start, signals."""

    t_ns: NDArray[np.int64]
    poses_N3: Floats
    along_m: Floats
    speed_mps: Floats
    command: NDArray[np.int8]
    junction_distance_m: Floats
    in_junction: Floats
    source: str


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Inputs and labels of M moments; masks are 1 where the label is known."""

    side_M9: NDArray[np.float32]
    path_MK2: NDArray[np.float32]
    path_mask_MK: NDArray[np.float32]
    speed_MS: NDArray[np.float32]
    speed_mask_MS: NDArray[np.float32]

    @property
    def usable_M(self) -> NDArray[np.bool_]:
        """Moments with at least one label."""
        return np.asarray(self.path_mask_MK.any(1) | self.speed_mask_MS.any(1))


def tracks(segments: Sequence[tuple[Signals, VehicleGeometry]]) -> list[Track]:
    """The unbroken stretches of one drive, from the signals of its segments in any order."""
    parts: list[tuple[Signals, Motion]] = []
    for signals, geometry in sorted(segments, key=lambda part: int(part[0].t_ns[0]) if len(part[0].t_ns) else 0):
        moved = motion(signals, geometry)
        parts += [(_cut(signals, run), _cut_motion(moved, run)) for run in _runs(moved)]
    joined: list[list[tuple[Signals, Motion]]] = []
    for part in parts:
        if joined and _continues(joined[-1][-1][1], part[1]):
            joined[-1].append(part)
        else:
            joined.append([part])
    return [_track(parts) for parts in joined]


def moments(track: Track, t_ns: NDArray[np.int64], ahead_s: float = 0.0) -> Moments:
    """Inputs and labels at `t_ns` (M), which must lie within the track.

    ahead_s: the track's speeds were read from pictures up to so long after their moment, so that is when they are known.
    """
    held = np.searchsorted(track.t_ns, t_ns, side="right") - 1
    known = np.searchsorted(track.t_ns, t_ns - round(ahead_s * 1e9), side="right") - 1
    speed_known = np.where(known >= 0, track.speed_mps[np.maximum(known, 0)], np.nan)
    side = side_inputs(speed_known, track.command[held], track.junction_distance_m[held], track.in_junction[held])
    path, path_mask = _paths(track, t_ns)
    ahead = t_ns[:, None] + np.round(np.array(SPEED_TIMES_S) * 1e9).astype(np.int64)
    speed = _at(track, ahead, track.speed_mps)
    speed_mask = (ahead <= track.t_ns[-1]) & np.isfinite(speed)
    return Moments(
        side_M9=side,
        path_MK2=np.where(path_mask[..., None], path, 0.0).astype(np.float32),
        path_mask_MK=path_mask.astype(np.float32),
        speed_MS=np.where(speed_mask, speed, 0.0).astype(np.float32),
        speed_mask_MS=speed_mask.astype(np.float32),
    )


def travelled(track: Track, from_ns: NDArray[np.int64], to_ns: NDArray[np.int64]) -> Floats:
    """Metres driven between two times."""
    return _at(track, to_ns, track.along_m) - _at(track, from_ns, track.along_m)


def driven_at(track: Track, t_ns: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Metres driven since the track's start and unwrapped yaw (rad) at times within it; NaN where the track knows no pose."""
    unknown = np.full(len(t_ns), np.nan)
    if track.source == "unknown":
        return unknown, unknown
    return _at(track, t_ns, track.along_m), _at(track, t_ns, track.poses_N3[:, 2])


def sampling_weights(
    side_M9: NDArray[np.float32],
    path_MK2: NDArray[np.float32],
    path_mask_MK: NDArray[np.float32],
    speed_MS: NDArray[np.float32],
    speed_mask_MS: NDArray[np.float32],
) -> NDArray[np.float64]:
    """How often each moment is drawn: standing 0.35, starting 4, braking 2, inside a junction 1.5; turning 1.7 times that."""
    now, has_now = side_M9[:, 0] * 10.0, side_M9[:, 1] > 0
    soon, known = speed_MS[:, 1], has_now & (speed_mask_MS[:, 1] > 0)
    weights = np.ones(len(now))
    weights[known & (now < 0.3) & (soon < 0.3)] = 0.35
    weights[known & (now < 0.5) & (soon > 0.8)] = 4.0
    weights[known & (soon - now < -1.0)] = 2.0
    weights[side_M9[:, 7] > 0] = 1.5
    at = PATH_ARCS_M.index(14.0)
    weights[(path_mask_MK[:, at] > 0) & (np.abs(path_MK2[:, at, 1]) > 2.5)] *= 1.7
    return weights


def _paths(track: Track, t_ns: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """Points driven at fixed arc lengths after each time, in the rig frame of that time, and which are known."""
    if track.source == "unknown":
        return np.zeros((len(t_ns), len(PATH_ARCS_M), 2)), np.zeros((len(t_ns), len(PATH_ARCS_M)), bool)
    here = _at(track, t_ns, track.along_m)
    arcs = here[:, None] + np.array(PATH_ARCS_M)
    horizon = _at(track, t_ns + round(LONGEST_FUTURE_S * 1e9), track.along_m)
    points = np.stack([np.interp(arcs, track.along_m, track.poses_N3[:, axis]) for axis in (0, 1)], -1)
    poses = np.stack([_at(track, t_ns, track.poses_N3[:, axis]) for axis in range(3)], -1)
    offset, (cos, sin) = points - poses[:, None, :2], (np.cos(poses[:, 2, None]), np.sin(poses[:, 2, None]))
    seen = np.stack([offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin], -1)
    return seen, arcs <= horizon[:, None] + 1e-6


def _at(track: Track, t_ns: NDArray[np.int64], column: Floats) -> Floats:
    """A column at any times, linear between samples and held at the ends."""
    return np.asarray(np.interp((t_ns - track.t_ns[0]) / 1e9, seconds(track.t_ns), column))


def _runs(moved: Motion) -> list[slice]:
    """Stretches without a gap in time or a jump in position."""
    if len(moved.t_ns) == 0:
        return []
    step_s = np.diff(moved.t_ns) / 1e9
    broken = step_s > MAX_GAP_S
    if moved.sources["pose"] == "measured":
        step_m = np.hypot(*np.diff(moved.poses_N3[:, :2], axis=0).T)
        speed = np.nan_to_num(np.maximum(moved.speed_mps[1:], moved.speed_mps[:-1]), nan=60.0)
        broken |= step_m > speed * step_s + JUMP_M
    edges = [0, *(np.flatnonzero(broken) + 1), len(moved.t_ns)]
    return [slice(first, last) for first, last in itertools.pairwise(edges) if last - first > 1]


def _continues(before: Motion, after: Motion) -> bool:
    """Whether a part goes on where another ends: same pose source, next in time, and no jump where poses are measured."""
    gap_s = int(after.t_ns[0] - before.t_ns[-1]) / 1e9
    if not 0 < gap_s <= MAX_GAP_S or before.sources["pose"] != after.sources["pose"]:
        return False
    if before.sources["pose"] != "measured":
        return True
    step_m = float(np.hypot(*(after.poses_N3[0, :2] - before.poses_N3[-1, :2])))
    speed = float(np.nan_to_num(max(before.speed_mps[-1], after.speed_mps[0]), nan=60.0))
    return step_m <= speed * gap_s + JUMP_M


def _cut(signals: Signals, run: slice) -> Signals:
    columns = {name: getattr(signals, name)[run] for name in Signals.COLUMNS}
    return Signals(t_ns=signals.t_ns[run], **columns)


def _cut_motion(moved: Motion, run: slice) -> Motion:
    names = ("t_ns", "speed_mps", "accel_mps2", "yaw_rate_radps", "poses_N3")
    return Motion(**{name: getattr(moved, name)[run] for name in names}, sources=moved.sources)


def _track(parts: list[tuple[Signals, Motion]]) -> Track:
    t_ns = np.concatenate([moved.t_ns for _, moved in parts])
    speed = np.concatenate([moved.speed_mps for _, moved in parts])
    source = parts[0][1].sources["pose"]
    if source == "measured":
        poses = np.concatenate([moved.poses_N3 for _, moved in parts])
        poses[:, 2] = np.unwrap(poses[:, 2])
    else:
        rate = np.concatenate([moved.yaw_rate_radps for _, moved in parts])
        poses = integrate(seconds(t_ns), speed, rate)
        source = source if np.isfinite(poses).all() else "unknown"
    step_m = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    if source == "measured":
        # a standing car's position noise is no distance driven
        step_m = np.where(np.maximum(speed[1:], speed[:-1]) < STANDING_MPS, 0.0, step_m)
    return Track(
        t_ns=t_ns,
        poses_N3=poses,
        along_m=np.concatenate([[0.0], np.cumsum(step_m)]),
        speed_mps=speed,
        command=np.concatenate([signals.command for signals, _ in parts]),
        junction_distance_m=np.concatenate([signals.junction_distance_m for signals, _ in parts]),
        in_junction=np.concatenate([signals.in_junction for signals, _ in parts]),
        source=source,
    )
