"""Verbs that write files outside the center: each asks the border first, and writes nothing of its own.

Rule: a folder is in-region by center.toml, or a permit covers the artifact; else the answer is a refusal.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from onshore import border, drive, region, world
from onshore.core.digest import sha256_hex
from onshore.core.errors import UsageError
from onshore.core.progress import Progress, silent
from onshore.core.rollout import Rollout
from onshore.dataset import manifest
from onshore.evaluation import driving_score
from onshore.flywheel import judging
from onshore.model.convert import convert
from onshore.model.models import export_int8, export_onnx
from onshore.store import Center
from onshore.world import PolicySpec, RolloutJob
from onshore.world.roads import Roads
from onshore.world.scenarios import family


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


def convert_weights(center: Center, file: Path, out: Path) -> dict[str, Any]:
    """A pickle or PyTorch checkpoint as safetensors at `out`, in-region; `onshore border import` then takes it in."""
    found = convert(center, file)
    (path,) = border.write_out(center, {out.name: found.data}, out.parent, kind="inbound_model")
    return {
        "file": str(path),
        "sha256": sha256_hex(found.data),
        "tensors": found.tensors,
        "opened": found.opened,
        "left_out": list(found.left_out),
    }


def run_world(
    center: Center | None,
    *,
    region_name: str,
    policy: str,
    seed: int,
    scenario: str = "town",
    map_file: Path | None = None,
    video: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Drive one held-out town, the town of a map file, or one world of a scenario family; a row per ego.

    video: an animation, written in-region.
    """
    pack = region.load_pack(region_name)
    if policy not in (*judging.PLAIN, *judging.SCRIPTED) and center is None:
        raise UsageError("--policy", "a model lives in a center; name it with --center, or choose stop or expert.")
    if policy in judging.SCRIPTED and scenario == "town":
        raise UsageError(f"--policy {policy}", "scripted drivers know scenarios only; name a family with --scenario.")
    job = _one_world(pack, scenario, seed, judging.policy(center, policy))
    if map_file is not None:
        if scenario != "town":
            raise UsageError("--map", "scenario families bring their own roads; leave --scenario out.")
        job = replace(job, layout=world.import_map(map_file))
    (rollouts,) = world.run_jobs([job], workers=1, progress=progress)
    document: dict[str, Any] = {"synthetic": True, "policy": policy, "town": job.scenario, "video": None}
    document["routes"] = [_route_row(rollout, scenario) for rollout in rollouts]
    if video is not None:
        if center is None:
            raise UsageError("--video", "pictures are written where a center's border allows; name it with --center.")
        frames = world.birdseye(
            rollouts[0], pack, layout=job.layout, encoding="gif" if video.suffix == ".gif" else "webp"
        )
        (path,) = border.write_out(center, {video.name: frames}, video.parent, kind="picture")
        document["video"] = str(path)
    return document


def _one_world(pack: region.RegionPack, scenario: str, seed: int, spec: PolicySpec) -> RolloutJob:
    if scenario != "town":
        return family(scenario).job(Roads.from_record(pack.region, pack.roads), seed, spec)
    towns = pack.suites["held_out_towns"]
    return RolloutJob(
        region=pack.region,
        suite="one-world",
        town_seed=towns[seed % len(towns)],
        traffic_seed=seed,
        policy=spec,
        max_time_s=pack.roads["expert"]["max_time_s"],
    )


def _route_row(rollout: Rollout, scenario: str) -> dict[str, Any]:
    score = driving_score(rollout)
    row = {
        "ego": rollout.ego,
        "score": score.driving_score,
        "completion_pct": score.route_completion_pct,
        "ended": rollout.ended,
        "digest": rollout.digest,
    }
    if scenario != "town":
        found = family(scenario).verdict(rollout)
        row |= {"passed": found.passed, "why": found.why}
    return row
