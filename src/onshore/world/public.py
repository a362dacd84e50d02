"""Video of the town as strangers film it: other camera heights, mounts, lenses and frame rates, and no signals.

Rule: the recording claims an ordinary level camera and says that this is assumed, as a found video would have to be read;
how the camera really sits is drawn from the seed and written nowhere in the file. Traffic moves evenly between its steps,
so that any frame rate can be filmed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import UsageError
from onshore.core.frames import wrap_angle
from onshore.core.progress import Progress, silent
from onshore.core.recording import Camera, Clock, Recording, Rig, Signals
from onshore.region import RegionPack
from onshore.world.fleet import HZ, START_NS, LogRequest, load_log, scene_at, signals_of
from onshore.world.jobs import WIDE_CAMERA, fleet_rig
from onshore.world.looks import look_named
from onshore.world.pool import Task, Workers, default_cache_dir
from onshore.world.roads import Roads
from onshore.world.towing import rear_axle_track

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Strangers:
    """How strangers' cameras differ from the one they are taken for: ranges drawn evenly, sigmas cut at two.

    height_m: above the ground. focal: factor on the assumed focal length. hz: frame rates, one drawn for each video.
    """

    height_m: tuple[float, float] = (1.15, 1.75)
    focal: tuple[float, float] = (0.92, 1.08)
    roll_rad: float = math.radians(0.7)
    pitch_rad: float = math.radians(1.2)
    yaw_rad: float = math.radians(2.0)
    hz: tuple[float, ...] = (8.0, 10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0)

    def draw(self, random: np.random.Generator) -> tuple[Camera, float]:
        """A camera as it really sits, and its frame rate."""

        def about(sigma: float) -> float:
            return float(np.clip(random.normal(0.0, sigma), -2 * sigma, 2 * sigma)) if sigma else 0.0

        x, y, _, _, _, _ = WIDE_CAMERA.pose_camera_in_rig
        height = float(random.uniform(*self.height_m))
        roll, pitch, yaw = about(self.roll_rad), about(self.pitch_rad), about(self.yaw_rad)
        focal = WIDE_CAMERA.focal_px * float(random.uniform(*self.focal))
        camera = replace(WIDE_CAMERA, name="front", focal_px=focal, pose_camera_in_rig=(x, y, height, roll, pitch, yaw))
        return camera, float(random.choice(self.hz))


@dataclass(frozen=True, kw_only=True)
class StrangerRequest:
    """One video of a finished log. signals: also write what the car's own log would have known, for measuring."""

    log: LogRequest
    car: int
    camera: Camera
    hz: float
    signals: bool
    out_dir: Path
    look: str


def record_public(
    pack: RegionPack,
    *,
    town_seed: int,
    videos: int,
    seconds: float,
    seed: int,
    out_dir: Path,
    strangers: Strangers | None = None,
    signals: bool = False,
    look: str = "day",
    workers: int = 2,
    progress: Progress = silent,
    cache_dir: Path | None = None,
) -> list[Path]:
    """`videos` MCAP files of `seconds` each, every one filmed by another car's own camera; speeds and poses unknown.

    signals=True writes the true motion too: the same pictures, for whoever measures pseudo-labels against it. Raises
    UsageError when asked for nothing, OnshoreError `world_crashed` when the traffic engine keeps dying.
    """
    if videos < 1 or seconds < 2:
        raise UsageError("record public video", "ask for at least one video of two seconds.")
    look_named(look)
    out_dir.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, town_seed])
    drawn = [(strangers or Strangers()).draw(random) for _ in range(videos)]
    with tempfile.TemporaryDirectory(prefix="onshore-public-") as folder:
        log = LogRequest(
            region=pack.region,
            roads=pack.roads,
            town_seed=town_seed,
            cars=videos,
            seconds=seconds,
            seed=seed,
            path=Path(folder) / "log.npz",
        )
        with Workers(count=workers, cache_dir=cache_dir or default_cache_dir()) as pool:
            found: int = pool.map([Task(name="log", argument=log)], what="traffic", progress=progress)[0]
            requests = [
                StrangerRequest(log=log, car=car, camera=camera, hz=hz, signals=signals, out_dir=out_dir, look=look)
                for car, (camera, hz) in enumerate(drawn[:found])
            ]
            tasks = [Task(name="film-public", argument=request) for request in requests]
            files: list[list[Path]] = pool.map(tasks, what="strangers' cameras", progress=progress)
    return [path for paths in files for path in paths]


# -- in the child ------------------------------------------------------------------------------------------------


def film_public(request: StrangerRequest, towns: object) -> list[Path]:
    """Film one stranger's video and write it; none when the car left the town within two seconds."""
    from onshore.wire import encode, write_mcap
    from onshore.world.camera import TownCamera
    from onshore.world.closed_loop import Towns

    if not isinstance(towns, Towns):
        raise UsageError("film", "a film is made in a world's child process.")
    roads = Roads.from_record(request.log.region, request.log.roads)
    log, assets = load_log(request.log.path), towns.get(roads, request.log.town_seed)
    rows = np.nonzero(log["number"] == int(log["drivers"][request.car]))[0]
    steps = np.searchsorted(log["start"], rows, side="right") - 1
    if len(rows) < 2 * HZ:
        return []
    rig = fleet_rig(roads)
    front = log["poses"][rows]
    track = rear_axle_track(front[:, :2], float(front[0, 2]), rig.vehicle.axle_to_front_m)
    track[:, 2] = np.unwrap(track[:, 2])
    moments = np.arange(0.0, len(rows) - 1 - 1e-9, HZ / request.hz)
    eye = TownCamera(request.camera, assets.ground, assets.furniture.atlas, roads.looks.sky)

    def frames() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for moment in moments:
            row, share = int(moment), float(moment) % 1.0
            scene, own = _between(roads, assets, log, (int(steps[row]), int(rows[row])), share, request.look)
            pose = track[row] * (1 - share) + track[row + 1] * share
            yield _ns(int(steps[0]), float(moment)), eye.render(scene, pose[None], np.array([own]))[0]

    video = encode("front", frames())
    times = np.array(
        [_ns(int(steps[0]), float(at)) for at in (np.arange(len(rows)) if request.signals else moments)], np.int64
    )
    known = (
        signals_of(times, track, log["speed"][rows], log["guide"][request.car][steps], rig) if request.signals else None
    )
    claimed = replace(WIDE_CAMERA, name="front", source="assumed")
    place = f"{request.log.region}-town-{request.log.town_seed:03d}"
    name = f"{place}-public-{request.log.seed}-{request.car:03d}"
    recording = Recording(
        vehicle=name,
        clock=Clock(kind="boot"),
        rig=Rig(cameras=(claimed,), vehicle=rig.vehicle),
        signals=known or Signals.build(times),
        videos=(video,),
        drive_key=name,
        synthetic=True,
        facts={
            "place": place,
            "town_seed": request.log.town_seed,
            "traffic_seed": request.log.seed,
            "look": request.look,
        },
    )
    path = request.out_dir / f"{name}.mcap"
    write_mcap(recording, path)
    return [path]


def _ns(first_step: int, moment: float) -> int:
    return START_NS + round((first_step + moment) * 1_000_000_000 / HZ)


def _between(  # type: ignore[no-untyped-def]
    roads, assets, log: dict[str, Any], here: tuple[int, int], share: float, look: str
):
    """The scene a share of a step after a logged moment, and the own vehicle's row in it. here: (step, the log's row)."""
    step, row = here
    first, last = int(log["start"][step]), int(log["start"][step + 1])
    poses = log["poses"][first:last].copy()
    if share > 1e-6:
        then = slice(last, int(log["start"][step + 2]))
        of_number = {int(number): index for index, number in enumerate(log["number"][then])}
        after = np.array([of_number.get(int(number), -1) for number in log["number"][first:last]])
        both = np.flatnonzero(after >= 0)
        moved = log["poses"][then][after[both]] - poses[both]
        moved[:, 2] = wrap_angle(moved[:, 2])
        poses[both] += share * moved
    scene, start = scene_at(roads, assets, log, step, look, poses)
    return scene, row - start
