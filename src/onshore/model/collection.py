"""On-policy samples: the model drives training worlds, and the expert says what it would have done from there.

Rule: only towns and traffic seeds that no suite uses; the samples, not the score of the drive, are what is kept. Under
supervision only what happened while the driver had the wheel is kept, and no more of it than the fleet's kilometres earn.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.label import Label
from onshore.core.progress import Progress, silent
from onshore.model.models import policy_spec
from onshore.residency import derive
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.core.rollout import Rollout
    from onshore.world.jobs import RolloutJob, Supervision

#: Metres of one supervised drive, and how many cars of a fleet share a world.
DRIVE_M, CARS_A_WORLD = 250.0, 8
COLLECTOR = 3  # raise when the same model and worlds would give other samples


@dataclass(frozen=True, kw_only=True)
class TakeoverRow:
    """Takeovers of one model. id: the artifact (kind takeovers). ego_seconds: how long it drove; outcomes: how runs ended.

    km, takeovers: driven under supervision, and how often the driver took the wheel (0 without supervision).
    """

    id: str
    model: str
    samples: int
    worlds: int
    egos: int
    seed: int
    ego_seconds: float
    outcomes: dict[str, int]
    synthetic: bool
    km: float = 0.0
    takeovers: int = 0
    fresh: bool = field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Who drives supervised: `cars` cars, `km_per_car` each in this round. Their kilometres are what a round can earn."""

    cars: int
    km_per_car: float

    def __post_init__(self) -> None:
        if self.cars < 1 or self.km_per_car <= 0:
            raise InputError("bad_config", "fleet", "a round takes at least one car and more than 0 km of each.")

    @property
    def km(self) -> float:
        return self.cars * self.km_per_car

    def worlds(self) -> tuple[int, int]:
        """(worlds, egos of each) that drive at least these kilometres."""
        drives = math.ceil(self.km * 1000 / DRIVE_M)
        worlds = math.ceil(drives / CARS_A_WORLD)
        return worlds, math.ceil(drives / worlds)


def supervise(
    center: Center,
    model_id: str,
    fleet: Fleet,
    how: Supervision,
    *,
    seed: int = 0,
    most_samples: int | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> TakeoverRow:
    """Let a fleet drive with a model under the eyes of drivers, and keep what they did when they took the wheel.

    most_samples: keep no more than these, drawn by the seed. Errors: as `collect`.
    """
    worlds, egos = fleet.worlds()
    inputs = {
        "collector": COLLECTOR,
        "model": model_id,
        "fleet": asdict(fleet),
        "supervision": asdict(how),
        "most_samples": most_samples,
        "seed": seed,
    }

    def run() -> dict[str, Any]:
        from onshore.world import training_jobs

        policy = policy_spec(center, model_id)
        jobs = training_jobs(center.pack, policy, worlds=worlds, egos=egos, seed=seed, supervision=how)
        rollouts, arrays = _drive(jobs, workers, progress)
        kept, km = earned(arrays, rollouts, fleet.km)
        if most_samples is not None and most_samples < len(kept):
            kept = np.sort(np.random.default_rng(seed).choice(kept, most_samples, replace=False))
        arrays = {name: column[kept] for name, column in arrays.items()}
        places = ("world_N", "ego_N", "takeover_N")
        took = len(np.unique(np.stack([arrays[name] for name in places]), axis=1).T) if len(kept) else 0
        facts = {"km": round(km, 3), "takeovers": took}
        return _keep(center, model_id, rollouts, arrays, {"worlds": worlds, "seed": seed, **facts})

    outputs, fresh = center.stage("model.supervise", inputs, run)
    return TakeoverRow(**outputs, fresh=fresh)


def earned(
    arrays: dict[str, NDArray[Any]], rollouts: list[list[Rollout]], km: float
) -> tuple[NDArray[np.int64], float]:
    """Which samples `km` driven kilometres earn, drives counted in order, and how many kilometres those drives were.

    A drive that begins within the kilometres counts whole.
    """
    driven, counted = 0.0, []
    for world, egos in enumerate(rollouts):
        for ego, rollout in enumerate(egos):
            if driven < km:
                counted.append((world, ego))
                driven += max(0.0, float(rollout.steps["progress_m"].max(initial=0.0))) / 1000
    if not arrays:
        return np.empty(0, np.int64), driven
    inside = [pair in set(counted) for pair in zip(arrays["world_N"].tolist(), arrays["ego_N"].tolist(), strict=True)]
    return np.flatnonzero(inside), driven


def collect(
    center: Center,
    model_id: str,
    *,
    worlds: int = 3,
    egos: int = 8,
    seed: int = 0,
    each: int = 0,
    workers: int = 2,
    progress: Progress = silent,
) -> TakeoverRow:
    """Let a model drive `worlds` training worlds of the center's region and keep the expert's answers.

    each: instead of town worlds, so many worlds of every scenario family, where the careful driver answers. seed: which towns and traffic; another seed shares none with it. Errors: InputError `empty_input` when no ego drove
    long enough to give a sample; OnshoreError `world_crashed` when a world's process keeps dying.
    """

    def run() -> dict[str, Any]:
        from onshore.world import training_jobs
        from onshore.world.scenarios.sharing import training_jobs as scenario_jobs

        policy = policy_spec(center, model_id)
        jobs = (
            scenario_jobs(center.pack, policy, each=each, seed=seed)
            if each
            else training_jobs(center.pack, policy, worlds=worlds, egos=egos, seed=seed)
        )
        return _keep(center, model_id, *_drive(jobs, workers, progress), {"worlds": len(jobs), "seed": seed})

    inputs = {"collector": COLLECTOR, "model": model_id, "worlds": worlds, "egos": egos, "seed": seed}
    if each:
        inputs = {"collector": COLLECTOR, "model": model_id, "each": each, "seed": seed}
    outputs, fresh = center.stage("model.collect", inputs, run)
    return TakeoverRow(**outputs, fresh=fresh)


def _drive(
    jobs: list[RolloutJob], workers: int, progress: Progress
) -> tuple[list[list[Rollout]], dict[str, NDArray[Any]]]:
    from onshore.world import collect_takeovers

    return collect_takeovers(jobs, workers=workers, progress=progress)


def _keep(
    center: Center,
    model_id: str,
    rollouts: list[list[Rollout]],
    arrays: dict[str, NDArray[Any]],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Store samples with what is told about them."""
    if not len(arrays.get("side_N9", ())):
        raise InputError("empty_input", f"takeovers of {model_id}", "no ego drove long enough; use more worlds.")
    model = center.artifact(model_id)
    world = Label(region=center.region, kind="takeovers", synthetic=True)
    told: dict[str, Any] = {
        "model": model_id,
        "samples": len(arrays["side_N9"]),
        "egos": sum(len(of_world) for of_world in rollouts),
        "ego_seconds": round(sum(float(len(r.steps["t_s"])) for w in rollouts for r in w) / 10, 3),
        "outcomes": _counted([r.ended for w in rollouts for r in w]),
        **facts,
    }
    label = derive([model.label, world], kind="takeovers", retention="clip")
    name = f"takeovers-{facts['seed']}"
    made = center.put(pack_arrays(_named(arrays)), label, name=name, parents=[model_id], meta=told)
    return {"id": made.id, **told, "synthetic": label.synthetic}


def pack_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Arrays as an .npz whose bytes depend on nothing but them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            column = io.BytesIO()
            np.lib.format.write_array(column, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), column.getvalue())
    return buffer.getvalue()


def _named(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The world's columns under the names that datasets read; one mask per speed time."""
    speed = arrays["speed_NT"]
    return {
        **{name: array for name, array in arrays.items() if name.startswith("frames")},
        "side_N9": arrays["side_N9"],
        "path": arrays["path_NK2"],
        "path_mask": arrays["path_mask_NK"],
        "speed": speed,
        "speed_mask": np.broadcast_to(arrays["speed_mask_N"][:, None], speed.shape).astype(np.float32),
    }


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}
