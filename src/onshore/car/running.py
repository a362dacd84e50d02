"""Driving over a recording: the running release sees what the car saw, in order, and answers with plans.

Rule: a plan at time t is made from frames and signals up to t and nothing later.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.format import MODEL, Payload
from onshore.bundle.runner import OnnxPolicy
from onshore.car.install import load_running
from onshore.core.errors import InputError
from onshore.core.plan import Plan
from onshore.core.policy import Observation, RouteCommand
from onshore.core.progress import Progress, silent
from onshore.core.recording import Camera, Recording, Signals, Video

PLAN_EVERY_S = 0.2
#: Signals older than this are 'not known'.
STALE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class PlannedDrive:
    """Plans along a recording: t_ns (N,), one plan each, and how long each took (ms, decoding not counted)."""

    release_id: str
    road_use: str
    synthetic: bool
    t_ns: NDArray[np.int64]
    plans: tuple[Plan, ...]
    ms_per_plan: NDArray[np.float64]


def run(
    car_dir: Path | str, recording: Recording, *, camera: str | None = None, progress: Progress = silent
) -> PlannedDrive:
    """Plans of the running release, every 0.2 s, over what the rig's cameras show (or `camera` alone).

    Raises NotFoundError when the car runs no release, InputError when the recording has no such camera or no frames.
    """
    payload = load_running(car_dir)
    rig = [_named(recording, camera)] if camera else [v.camera for v in recording.videos if v.packets]
    policy = OnnxPolicy(payload.files[MODEL], payload.metadata, [recording.rig.camera(name) for name in rig])
    times, plans, spent = [], [], []
    for observation in observations(recording, policy.cameras):
        began = time.perf_counter()
        plans.append(policy.act(observation))
        spent.append((time.perf_counter() - began) * 1e3)
        times.append(observation.t_ns)
        progress("plan", len(plans), 0)
    return _planned(payload, times, plans, spent)


def _planned(payload: Payload, times: list[int], plans: list[Plan], spent: list[float]) -> PlannedDrive:
    return PlannedDrive(
        release_id=payload.release_id,
        road_use=payload.metadata.road_use,
        synthetic=payload.metadata.synthetic,
        t_ns=np.array(times, np.int64),
        plans=tuple(plans),
        ms_per_plan=np.array(spent),
    )


def observations(recording: Recording, cameras: Sequence[Camera]) -> Iterator[Observation]:
    """What a policy may see along a recording: one observation per plan, paced by the first of `cameras`.

    It carries every frame of the first camera since the plan before, and of each other camera every frame up to now.
    """
    videos = {video.camera: video for video in recording.videos}
    first, *others = cameras
    streams = {camera.name: _Frames(videos[camera.name], camera.time_offset_ns) for camera in others}
    due_ns = 0
    waiting: list[tuple[int, NDArray[np.uint8]]] = []
    for t_ns, frame in _Frames(videos[first.name], first.time_offset_ns):
        waiting.append((t_ns, frame))
        if t_ns < due_ns:
            continue
        shown = {first.name: waiting} | {name: stream.until(t_ns) for name, stream in streams.items()}
        if not all(shown.values()):
            continue  # a camera has not begun yet
        due_ns = t_ns + round(PLAN_EVERY_S * 1e9) - 10_000_000
        yield observe(
            recording.signals,
            t_ns,
            {name: np.stack([picture for _, picture in taken]) for name, taken in shown.items()},
            {name: tuple((t_ns - at) / 1e9 for at, _ in taken) for name, taken in shown.items()},
        )
        waiting = []


class _Frames:
    """A camera's frames in order, on the clock of the signals; `until` hands out what was taken since it was last asked."""

    def __init__(self, video: Video, offset_ns: int) -> None:
        from onshore.wire import decode

        self._source = ((stamp_ns + offset_ns, frame) for stamp_ns, frame in decode(video))
        self._next: tuple[int, NDArray[np.uint8]] | None = next(self._source, None)
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        while self._next is not None:
            yield self._next
            self._next = next(self._source, None)

    def until(self, t_ns: int) -> list[tuple[int, NDArray[np.uint8]]]:
        """Frames up to `t_ns` that are new, or the last one again when none is."""
        taken = []
        while self._next is not None and self._next[0] <= t_ns:
            taken.append(self._next)
            self._next = next(self._source, None)
        self._last = taken[-1] if taken else self._last
        return taken or ([self._last] if self._last else [])


def observe(
    signals: Signals, t_ns: int, frames: dict[str, NDArray[np.uint8]], ages_s: dict[str, tuple[float, ...]]
) -> Observation:
    """The signals as last known at `t_ns`: NaN, stale and missing values are None."""
    command = _latest(signals.t_ns, np.asarray(signals.command, np.float64), t_ns)
    inside = _latest(signals.t_ns, signals.in_junction, t_ns)
    return Observation(
        t_ns=t_ns,
        frames=frames,
        frame_ages_s=ages_s,
        speed_mps=_latest(signals.t_ns, signals.speed_mps, t_ns),
        command=RouteCommand(int(command)) if command is not None else RouteCommand.UNKNOWN,
        junction_distance_m=_latest(signals.t_ns, signals.junction_distance_m, t_ns),
        in_junction=bool(inside > 0.5) if inside is not None else None,
    )


def _latest(t_ns: NDArray[np.int64], column: NDArray[np.float64], at_ns: int) -> float | None:
    index = int(np.searchsorted(t_ns, at_ns, side="right")) - 1
    if index < 0 or at_ns - t_ns[index] > STALE_S * 1e9 or not np.isfinite(column[index]):
        return None
    return float(column[index])


def _named(recording: Recording, camera: str) -> str:
    if any(video.camera == camera and video.packets for video in recording.videos):
        return camera
    raise InputError("not_found", f"camera {camera!r}", "the recording has no frames of it.")
