"""Verbs that write files outside the center: each asks the border first, and writes nothing of its own.

Rule: a folder is in-region by center.toml, or a permit covers the artifact; else the answer is a refusal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onshore import border, drive, region, world
from onshore.core.digest import sha256_hex
from onshore.core.errors import UsageError
from onshore.core.progress import Progress, silent
from onshore.dataset import manifest
from onshore.evaluation import driving_score
from onshore.flywheel import judging
from onshore.model.models import export_int8, export_onnx
from onshore.store import Center
from onshore.world import PolicySpec, RolloutJob


def export_drive(center: Center, drive_id: str, out: Path, *, permit: str | None = None) -> list[dict[str, str]]:
    """Write a drive's anonymised segments as MCAP files; returns path and SHA-256 of each. Errors: RefusedError."""
    rows = drive.segments(center, drive_id)
    if permit is not None:
        paths = border.write_out(center, [row["artifact"] for row in rows], out, permit)
    else:
        folder = border.open_folder(center, [row["artifact"] for row in rows], out, kind="segment")
        paths = drive.export_mcap(center, drive_id, folder)
    return [{"path": str(path), "sha256": sha256_hex(path.read_bytes())} for path in paths]


def export_model(
    center: Center, model_id: str, out: Path | None, *, int8: str | None = None, permit: str | None = None
) -> dict[str, Any]:
    """The model as ONNX, compared with the trained network; written to `out` where one is named.

    int8: a dataset on whose training windows 8-bit convolutions are calibrated; the file's id then goes where a model's
    would: it is judged and signed as what ships.
    """
    if int8 is None:
        exported = export_onnx(center, model_id)
    else:
        exported = export_int8(center, model_id, manifest.row_of(center, int8).id)
    document = {"onnx": exported.id, "model": model_id, "file": None}
    document |= {name: exported.meta[name] for name in ("difference_m", "precision")}
    if out is not None:
        (path, *_) = border.write_out(center, [exported.id], out, permit)
        document["file"] = str(path)
    return document


def run_world(
    center: Center | None,
    *,
    region_name: str,
    policy: str,
    seed: int,
    video: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Drive one held-out town closed loop; one row per ego. video: an animation from above, written in-region."""
    pack = region.load_pack(region_name)
    if policy not in judging.PLAIN and center is None:
        raise UsageError("--policy", "a model lives in a center; name it with --center, or choose stop or expert.")
    spec = judging.policy(center, policy) if center is not None else PolicySpec(kind=policy, name=policy)  # type: ignore[arg-type]
    towns = pack.suites["held_out_towns"]
    job = RolloutJob(
        region=region_name,
        suite="one-world",
        town_seed=towns[seed % len(towns)],
        traffic_seed=seed,
        policy=spec,
        max_time_s=pack.roads["expert"]["max_time_s"],
    )
    (rollouts,) = world.run_jobs([job], workers=1, progress=progress)
    document: dict[str, Any] = {"synthetic": True, "policy": policy, "town": job.scenario, "video": None}
    document["routes"] = [
        {
            "ego": rollout.ego,
            "score": driving_score(rollout).driving_score,
            "completion_pct": driving_score(rollout).route_completion_pct,
            "ended": rollout.ended,
            "digest": rollout.digest,
        }
        for rollout in rollouts
    ]
    if video is not None:
        if center is None:
            raise UsageError("--video", "pictures are written where a center's border allows; name it with --center.")
        frames = world.birdseye(rollouts[0], pack)
        (path,) = border.write_out(center, {video.name: frames}, video.parent, kind="picture")
        document["video"] = str(path)
    return document
