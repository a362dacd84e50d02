"""Fleet recording: one run of the town's traffic, from which any number of its cars bring home ordinary MCAP drives.

Rule: the traffic runs once and is logged; pictures are taken afterwards from each car's own logged pose, and carry no
perturbation: fleet clips are video as real ones are. The files are a function of (pack, town, cars, minutes, seed).
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import UsageError
from onshore.core.policy import RouteCommand
from onshore.core.progress import Progress, silent
from onshore.core.recording import Clock, Recording, Rig, Signals
from onshore.region import RegionPack
from onshore.world.jobs import fleet_rig
from onshore.world.looks import look_named
from onshore.world.pool import Task, Workers, default_cache_dir
from onshore.world.roads import Roads
from onshore.world.towing import rear_axle_track

HZ = 10
WARM_S = 45.0
SEGMENT_FRAMES = 600
#: The clock of a simulated car counts from its world's start; it begins away from zero because MCAP times are unsigned.
START_NS = 1_000_000_000
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LogRequest:
    """What the logging child is asked for; it writes `path` (npz)."""

    region: str
    roads: dict[str, object]
    town_seed: int
    cars: int
    seconds: float
    seed: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class FilmRequest:
    """One car of a finished log, to be filmed and written below `out_dir`."""

    log: LogRequest
    car: int
    name: str
    out_dir: Path
    look: str
    surround: bool


def record_fleet(
    pack: RegionPack,
    *,
    town_seed: int,
    cars: int,
    minutes: float,
    seed: int,
    out_dir: Path,
    progress: Progress = silent,
    workers: int = 2,
    first_car: int = 1,
    look: str = "day",
    surround: bool = False,
    cache_dir: Path | None = None,
) -> list[Path]:
    """Record `minutes` fleet minutes, shared evenly by `cars` cars; returns one MCAP file per car and 60 s or less.

    look: one of `onshore.world.looks.LOOKS`. surround: three more cameras (narrow, left, right) beside the wide one.

    Cars are named car-0001 and on from `first_car`. Raises UsageError when asked for nothing, OnshoreError
    `world_crashed` when the traffic engine keeps dying.
    """
    if cars < 1 or minutes <= 0:
        raise UsageError("record fleet", "ask for at least one car and more than zero minutes.")
    look_named(look)
    out_dir.mkdir(parents=True, exist_ok=True)
    cache = cache_dir or default_cache_dir()
    with tempfile.TemporaryDirectory(prefix="onshore-fleet-") as folder:
        log = LogRequest(
            region=pack.region,
            roads=pack.roads,
            town_seed=town_seed,
            cars=cars,
            seconds=minutes * 60 / cars,
            seed=seed,
            path=Path(folder) / "log.npz",
        )
        with Workers(count=workers, cache_dir=cache) as pool:
            what = f"town {town_seed}"
            found: int = pool.map([Task(name="log", argument=log)], what=f"{what} traffic", progress=progress)[0]
            names = [f"car-{first_car + car:04d}" for car in range(found)]
            requests = [
                FilmRequest(log=log, car=car, name=name, out_dir=out_dir, look=look, surround=surround)
                for car, name in enumerate(names)
            ]
            tasks = [Task(name="film", argument=request) for request in requests]
            files: list[list[Path]] = pool.map(tasks, what=f"{what} cameras", progress=progress)
    return [path for paths in files for path in paths]


# -- in the child ------------------------------------------------------------------------------------------------


def log_traffic(request: LogRequest, towns: object) -> int:
    """Run the traffic and write the log; returns how many cars were chosen."""
    from onshore.world.closed_loop import Towns
    from onshore.world.traffic import Moment, Traffic

    if not isinstance(towns, Towns):
        raise UsageError("log", "a log is made in a world's child process.")
    roads = Roads.from_record(request.region, request.roads)
    town = towns.get(roads, request.town_seed).town
    steps = round(request.seconds * HZ)
    moments: list[Moment] = []
    with Traffic(town, request.seed, WARM_S + request.seconds + 5) as traffic:
        for _ in range(round(WARM_S * HZ)):
            traffic.step()
        first = traffic.moment()
        drivers = _choose(first, request, traffic)
        guide = np.zeros((len(drivers), steps, 3))
        for step in range(steps):
            traffic.step()
            moments.append(traffic.moment())
            for car, name in enumerate(drivers):
                guide[car, step] = _guide(traffic, town, name)
    counts = np.array([len(moment.ids) for moment in moments])
    np.savez(
        request.path,
        start=np.concatenate([[0], np.cumsum(counts)]),
        number=np.concatenate([moment.numbers for moment in moments]),
        kind=np.concatenate([moment.kinds for moment in moments]),
        poses=np.concatenate([moment.poses_N3 for moment in moments]),
        speed=np.concatenate([moment.speed_N for moment in moments]),
        braking=np.concatenate([moment.braking_N for moment in moments]),
        lights=np.array([moment.lights for moment in moments]),
        drivers=np.array([int(name.partition(".")[2]) for name in drivers]),
        guide=guide,
    )
    return len(drivers)


def _choose(moment, request: LogRequest, traffic) -> list[str]:  # type: ignore[no-untyped-def]
    """Cars that are on a street at the start, drawn by the seed."""
    names = [name for name in moment.ids if name.startswith("car.") and traffic.place(name)[1] is not None]
    random.Random(request.seed).shuffle(names)
    return names[: request.cars]


def _guide(traffic, town, name: str) -> tuple[float, float, float]:  # type: ignore[no-untyped-def]
    """(command, metres to the stop line, inside a junction) as the car's own navigation knows them."""
    route = traffic.route(name)
    index, distance = traffic.place(name)
    if index + 1 >= len(route):
        return float(RouteCommand.UNKNOWN), math.nan, 0.0
    command = float(town.command(route[index], route[index + 1]))
    return (command, 0.0, 1.0) if distance is None else (command, distance, 0.0)


@lru_cache(maxsize=1)
def load_log(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as log:
        return {name: log[name] for name in log.files}


def film_car(request: FilmRequest, towns: object) -> list[Path]:
    """Film one car from its log and write its segments."""
    from onshore.wire import encode, write_mcap
    from onshore.world.camera import TownCamera
    from onshore.world.closed_loop import Towns

    if not isinstance(towns, Towns):
        raise UsageError("film", "a film is made in a world's child process.")
    roads = Roads.from_record(request.log.region, request.log.roads)
    log = load_log(request.log.path)
    number = int(log["drivers"][request.car])
    rows = np.nonzero(log["number"] == number)[0]
    steps = np.searchsorted(log["start"], rows, side="right") - 1
    rig = fleet_rig(roads, surround=request.surround)
    poses_log = log["poses"][rows]
    track = rear_axle_track(poses_log[:, :2], float(poses_log[0, 2]), rig.vehicle.axle_to_front_m)
    times = START_NS + steps.astype(np.int64) * (1_000_000_000 // HZ)
    signals = signals_of(times, track, log["speed"][rows], log["guide"][request.car][steps], rig)
    assets = towns.get(roads, request.log.town_seed)

    eyes = [TownCamera(camera, assets.ground, assets.furniture.atlas, roads.looks.sky) for camera in rig.cameras]

    def frames(eye: TownCamera, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for row in range(first, last):
            step = int(steps[row])
            scene, start = scene_at(roads, assets, log, step, request.look)
            yield int(times[row]), eye.render(scene, track[row][None], np.array([int(rows[row]) - start]))[0]

    dressed = "" if request.look == "day" else f"-{request.look}"
    paths = []
    for index, first in enumerate(range(0, len(rows), SEGMENT_FRAMES)):
        last = min(first + SEGMENT_FRAMES, len(rows))
        if last - first < HZ:
            break
        recording = Recording(
            vehicle=request.name,
            clock=Clock(kind="boot"),
            rig=rig,
            signals=_cut(signals, first, last),
            videos=tuple(encode(eye.camera.name, frames(eye, first, last)) for eye in eyes),
            segment_index=index,
            drive_key=f"{request.log.region}-town-{request.log.town_seed:03d}-{request.log.seed}-{request.name}{dressed}",
            synthetic=True,
            facts={
                "place": f"{request.log.region}-town-{request.log.town_seed:03d}",
                "town_seed": request.log.town_seed,
                "traffic_seed": request.log.seed,
                "look": request.look,
            },
        )
        path = request.out_dir / f"{recording.drive_key}-{index:03d}.mcap"
        write_mcap(recording, path)
        paths.append(path)
    return paths


def scene_at(roads, assets, log, step: int, look: str, poses_N3: Floats | None = None):  # type: ignore[no-untyped-def]
    """The logged moment as the camera sees it, and the log's row of its first vehicle. poses_N3: in place of the logged ones."""
    from onshore.world.camera import Scene
    from onshore.world.furniture import vehicle_boxes

    first, last = int(log["start"][step]), int(log["start"][step + 1])
    kinds, numbers, poses, braking = (log[name][first:last] for name in ("kind", "number", "poses", "braking"))
    columns = (kinds, numbers, poses if poses_N3 is None else poses_N3, braking)
    lit = assets.furniture.lit(log["lights"][step])
    return Scene(fixed=lit, vehicles=vehicle_boxes(roads, *columns, look=look), look=look), first


def signals_of(times: NDArray[np.int64], track: Floats, speed: Floats, guide: Floats, rig: Rig) -> Signals:
    yaw = np.unwrap(track[:, 2])
    yaw_rate = np.gradient(yaw, 1 / HZ)
    steering = np.arctan(rig.vehicle.wheelbase_m * yaw_rate / np.maximum(speed, 1.0))
    return Signals.build(
        times,
        speed_mps=speed,
        accel_mps2=np.gradient(speed, 1 / HZ),
        yaw_rate_radps=yaw_rate,
        steering_rad=np.clip(steering, -0.7, 0.7),
        x_m=track[:, 0],
        y_m=track[:, 1],
        yaw_rad=track[:, 2],
        command=guide[:, 0],
        junction_distance_m=guide[:, 1],
        in_junction=guide[:, 2],
    )


def _cut(signals: Signals, first: int, last: int) -> Signals:
    columns = {name: getattr(signals, name)[first:last] for name in Signals.COLUMNS}
    return Signals(t_ns=signals.t_ns[first:last], **columns)
