"""On-policy samples: the model drives training worlds, and the expert says what it would have done from there.

Rule: only towns and traffic seeds that no suite uses; the samples, not the score of the drive, are what is kept.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.label import Label
from onshore.core.progress import Progress, silent
from onshore.model.models import policy_spec
from onshore.residency import derive
from onshore.store import Center

COLLECTOR = 1  # raise when the same model and worlds would give other samples


@dataclass(frozen=True, kw_only=True)
class TakeoverRow:
    """Takeovers of one model. id: the artifact (kind takeovers). ego_seconds: how long it drove; outcomes: how runs ended."""

    id: str
    model: str
    samples: int
    worlds: int
    egos: int
    seed: int
    ego_seconds: float
    outcomes: dict[str, int]
    synthetic: bool
    fresh: bool = field(default=True, compare=False)


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
        from onshore.world import collect_takeovers, training_jobs
        from onshore.world.scenarios.sharing import training_jobs as scenario_jobs

        policy = policy_spec(center, model_id)
        jobs = (
            scenario_jobs(center.pack, policy, each=each, seed=seed)
            if each
            else training_jobs(center.pack, policy, worlds=worlds, egos=egos, seed=seed)
        )
        rollouts, arrays = collect_takeovers(jobs, workers=workers, progress=progress)
        if not arrays:
            raise InputError("empty_input", f"takeovers of {model_id}", "no ego drove long enough; use more worlds.")
        model = center.artifact(model_id)
        world = Label(region=center.region, kind="takeovers", synthetic=True)
        facts: dict[str, Any] = {
            "model": model_id,
            "samples": len(arrays["side_N9"]),
            "worlds": len(jobs),
            "egos": sum(len(of_world) for of_world in rollouts),
            "seed": seed,
            "ego_seconds": round(sum(float(len(r.steps["t_s"])) for w in rollouts for r in w) / 10, 3),
            "outcomes": _counted([r.ended for w in rollouts for r in w]),
        }
        label = derive([model.label, world], kind="takeovers", retention="clip")
        made = center.put(pack_arrays(_named(arrays)), label, name=f"takeovers-{seed}", parents=[model_id], meta=facts)
        return {"id": made.id, **facts, "synthetic": label.synthetic}

    inputs = {"collector": COLLECTOR, "model": model_id, "worlds": worlds, "egos": egos, "seed": seed}
    if each:
        inputs = {"collector": COLLECTOR, "model": model_id, "each": each, "seed": seed}
    outputs, fresh = center.stage("model.collect", inputs, run)
    return TakeoverRow(**outputs, fresh=fresh)


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
