"""Measuring a model and asking a gate: the evidence that `release` needs, made by the rooms that can measure it.

Rule: every figure names the artifact it stands in; what could not be measured is handed over as 'not measurable'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onshore import evaluation, release, world
from onshore.border import audit
from onshore.bundle.format import Payload
from onshore.core.errors import InputError, NotFoundError, Refusal, UsageError
from onshore.core.progress import Progress, silent
from onshore.dataset import manifest
from onshore.evaluation import SuiteResult
from onshore.evaluation.closedloop import drive_jobs
from onshore.evaluation.replayed import replays
from onshore.evaluation.scenarios import EyesRow, FamilySuccess, eyes_matter, eyes_rows, suite_families, suite_rollouts
from onshore.model import models
from onshore.release import CheckResult, Verdict
from onshore.release.gates import load_gate
from onshore.store import Center
from onshore.world import PolicySpec
from onshore.world.jobs import POLICY_KINDS
from onshore.world.scenarios import families as world_families
from onshore.world.scenarios.sharing import scripted

#: Rows of every closed-loop table, lowest first: policies that need no model.
REFERENCES = ("stop", "constant-speed", "rule", "oracle", "expert")
PLAIN = tuple(name for name in REFERENCES if name in POLICY_KINDS)
#: Privileged drivers that know scenarios alone.
SCRIPTED = ("careful", "careless")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a gate is asked about: a model, where it is measured, and which model it must beat."""

    model: str
    gate: str
    dataset: str | None = None
    suite: str | None = None
    base: str | None = None
    counter: int = 1
    workers: int = 2


def policy(center: Center | None, name: str) -> PolicySpec:
    """A plain policy by name, a scripted driver of scenarios, a rival (`process:COMMAND`, `mapped:FILE.onnx`, `python:module:callable`), or a model."""
    if name in SCRIPTED:
        return scripted(name)  # type: ignore[arg-type]
    if name in PLAIN or center is None:
        return rival(name) or PolicySpec(kind=name, name=name)  # type: ignore[arg-type]
    return rival(name) or models.policy_spec(center, name)


def rival(name: str) -> PolicySpec | None:
    """A driver from elsewhere, or None when the name is none. Errors: NotFoundError for a file that is not there."""
    kind, _, rest = name.partition(":")
    if kind in ("process", "python"):
        return PolicySpec(kind=kind, name=rest, entry=rest)  # type: ignore[arg-type]
    if kind != "mapped":
        return None
    file = Path(rest)
    signature = file.with_suffix(".toml")
    if not file.is_file() or not signature.is_file():
        raise NotFoundError(rest, f"give an ONNX file with its signature {signature.name} beside it.")
    text = signature.read_text(encoding="utf8")
    return PolicySpec(kind="mapped", name=file.stem, onnx=file.read_bytes(), entry=text)


def judge(center: Center, asked: Asked, *, progress: Progress = silent) -> tuple[Verdict, Payload]:
    """Measure what the gate asks for and give the verdict over the unsigned payload.

    Errors: NotFoundError for an unknown model, dataset, suite or gate; RefusedError `not_cleared`, whatever the gate asks
    for, when people found too much visible in what it learned from.
    """
    weights = center.artifact(models.weights_of(center, asked.model))
    found = audit.standing(center, weights)
    if found.short:
        center.refuse(audit.refusal_of(weights.id, found.short))
    payload = candidate(center, asked)
    wanted = load_gate(asked.gate).require
    measures = {
        "complete": _complete,
        "anonymisation_audited": _anonymisation,
        "reproducible": _reproducible,
        "onnx_equals_torch": _onnx_equals_torch,
        "shipped_near_trained": _shipped_near_trained,
        "open_loop_measured": _open_loop,
        "closed_loop_above_base": _closed_loop,
    }
    evidence = {name: measures[name](center, asked, progress) for name in wanted if name in measures}
    return release.gate(center, payload, evidence), payload


def candidate(center: Center, asked: Asked) -> Payload:
    """The unsigned payload of a model: the same model, gate and counter give the same digest."""
    spec = models.policy_spec(center, asked.model)
    if spec.onnx is None or spec.metadata is None:
        raise InputError("bad_config", asked.model, "only an exported network can be released.")
    return release.candidate(
        spec.onnx,
        region=center.region,
        model_id=spec.metadata.model_id,
        gate=asked.gate,
        counter=asked.counter,
        view=spec.metadata.view,
        side_views=spec.metadata.side_views,
        frame_offsets_s=spec.metadata.frame_offsets_s,
        synthetic=center.artifact(asked.model).label.synthetic,
    )


def evaluate(
    center: Center,
    *,
    model: str,
    suite: str | None = None,
    dataset: str | None = None,
    replay: str | None = None,
    context: Path | None = None,
    rows: bool = True,
    workers: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Open loop on a dataset's held-out drives, closed loop on a suite or on a recorded drive's video, as rows to print."""
    if suite is None and dataset is None and replay is None:
        raise UsageError("evaluation run", "name a --suite (closed loop), a --dataset (open loop) or a --replay.")
    if context is not None and replay is None:
        raise UsageError("--context", "a map context belongs to a recorded drive; name it with --replay.")
    document: dict[str, Any] = {"model": model, "open_loop": [], "closed_loop": [], "scenarios": [], "replay": []}
    if replay is not None:
        asked = [policy(center, model), *(replay_references(policy(center, model)) if rows else [])]
        driven = replayed(center, replay, asked, context=context, progress=progress)
        document |= {"replay": driven["routes"], "replay_results": driven["results"]}
    if dataset is not None:
        table = evaluation.open_loop(center, model, dataset, progress=progress)
        document["open_loop"] = open_loop_rows(table)
        document |= {"open_loop_artifact": table.id, "moments": table.moments, "held_out_drives": table.drives}
    if suite is not None:
        asked = [policy(center, model), *(reference_policies(center, model) if rows else [])]
        found = evaluation.closed_loop(center, asked, suite, workers=workers, progress=progress)
        document["closed_loop"] = [suite_row(result) for result in found]
        document["closed_loop_artifact"] = found[0].id
        shown = [row for spec, row in zip(asked, found, strict=True) if row is found[0] or spec.blind]
        document["scenarios"] = scenario_rows(*(suite_families(center, row) for row in shown))
    return document


def reference_policies(center: Center, model: str) -> list[PolicySpec]:
    """The rows that stand beside every model, as far as this world has them; blind is the model before a black camera."""
    plain = [PolicySpec(kind=name, name=name) for name in PLAIN if name != model]  # type: ignore[arg-type]
    own = policy(center, model)
    can_be_blind = "blind" in PolicySpec.__dataclass_fields__ and own.kind not in REFERENCES
    return [*plain, *([replace(own, blind=True, name=f"{own.title}, blind")] if can_be_blind else [])]


def replay_references(own: PolicySpec) -> list[PolicySpec]:
    """The rows beside a model on recorded video: the recorded way through our controller, and the model blind."""
    blind = [] if own.kind in REFERENCES else [replace(own, blind=True, name=f"{own.title}, blind")]
    return [PolicySpec(kind="oracle", name="the recorded way"), *blind]


def scenario_rows(seeing: list[FamilySuccess], blind: list[FamilySuccess] | None = None) -> list[dict[str, Any]]:
    """Success by scenario family, in percent; with a blind run, that beside it and whether the intervals are apart."""
    shut = {row.family: row for row in blind or []}
    rows = []
    for row in seeing:
        shown = {
            "family": row.family,
            "worlds": row.worlds,
            "passed": row.passed,
            "not_measurable": row.not_measurable,
            "success": round(100 * row.rate, 1),
            "low": round(100 * row.low, 1),
            "high": round(100 * row.high, 1),
        }
        if row.family in shut:
            other = shut[row.family]
            shown |= {"blind": round(100 * other.rate, 1), "blind_high": round(100 * other.high, 1)}
            shown["eyes"] = ("apart" if eyes_matter(row, other) else "not apart") if row.needs_eyes else "not needed"
        rows.append({**shown, "commonest": row.commonest})
    return rows


def blind(
    center: Center,
    model: str,
    suite: str,
    *,
    families: Sequence[str] = (),
    workers: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """A suite's scenario families (or some) driven by a model and by itself before a black camera, paired by world.

    Errors: UsageError for a driver that needs no camera, InputError `not_measurable` for a suite without such families.
    """
    own = policy(center, model)
    if own.kind in (*REFERENCES, "scripted"):
        raise UsageError(f"--model {model}", "it looks at no camera; name a model or a rival.")
    pair = [own, replace(own, blind=True, name=f"{own.title}, blind")]
    known = {job.scenario for job in world.suite(center.pack, suite, own)} & set(world_families())
    asked = set(families) or known
    if not known or asked - known:
        missing = ", ".join(sorted(asked - known)) or "any"
        raise InputError("not_measurable", f"suite {suite}", f"it has no family {missing}; see `world scenarios`.")
    results = []
    for spec in pair:
        jobs = [job for job in world.suite(center.pack, suite, spec) if job.scenario in asked]
        results.append(drive_jobs(center, jobs, spec, suite, workers=workers, progress=progress))
    rows = eyes_rows(*(suite_rollouts(center, result) for result in results))
    needed = [row for row in rows if row.verdict != "not needed"]
    return {
        "model": own.title,
        "suite": suite,
        "region": center.region,
        "synthetic": all(result.synthetic for result in results),
        "apart": sum(row.verdict == "apart" for row in needed),
        "need_eyes": len(needed),
        "families": [blind_row(row) for row in rows],
        "results": [result.id for result in results],
    }


def blind_row(row: EyesRow) -> dict[str, Any]:
    """One family for the table: passed worlds with their intervals (percent), the paired difference (points) and p."""
    found: dict[str, Any] = {"family": row.family, "verdict": row.verdict, "worlds": row.seeing.worlds}
    for name, success in (("seeing", row.seeing), ("blind", row.blind)):
        bounds = {"low": 100 * success.low, "high": 100 * success.high}
        found |= {name: success.passed, **{f"{name}_{bound}": round(value, 1) for bound, value in bounds.items()}}
    if row.paired is not None:
        paired = {"difference": row.paired.difference, "low": row.paired.low, "high": row.paired.high}
        found |= {name: round(100 * value, 1) for name, value in paired.items()} | {"p": row.paired.p}
    not_told = row.seeing.not_measurable + row.blind.not_measurable
    return {**found, "not_measurable": not_told, "commonest": row.seeing.commonest, "eyes": row.eyes}


def compare(center: Center, a: str, b: str, suite: str) -> dict[str, Any]:
    """b - a in points of driving score over the routes both drove, with the interval by world and a paired p."""
    first, second = evaluation.closed_loop(center, [policy(center, a), policy(center, b)], suite)
    paired = evaluation.compare(first.scores, second.scores)
    return {"a": a, "b": b, "suite": suite, "synthetic": first.synthetic or second.synthetic, **vars(paired)}


def compare_sequentially(
    center: Center,
    a: str,
    b: str,
    suite: str,
    *,
    minimum_effect: float,
    most_worlds: int,
    batch: int = 4,
    workers: int = 2,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Is b better than a? Drives worlds batch by batch and stops when the evidence is there."""
    from onshore.evaluation.closedloop import compare_in_batches
    from onshore.evaluation.statistics import SequentialPlan

    plan = SequentialPlan(minimum_effect=minimum_effect, most_worlds=most_worlds)
    found, pairs = compare_in_batches(
        center, policy(center, a), policy(center, b), suite, plan, batch=batch, workers=workers, progress=progress
    )
    routes = [route for first, _ in pairs for route in first.routes]
    return {
        "a": a,
        "b": b,
        "suite": suite,
        **vars(found),
        "egos": len(routes),
        "seeds": len({route.world_seed for route in routes}),
        "synthetic": any(result.synthetic for pair in pairs for result in pair),
        "results": [result.id for pair in pairs for result in pair],
    }


def replay_drive(center: Center, target: str, name: str, *, progress: Progress = silent) -> dict[str, Any]:
    """Drive every segment of a recorded drive (or one segment) closed loop, as far as its pixels can be trusted.

    A row says how far it came and why it ended; beyond `left_valid_range` nothing is scored. Errors: NotFoundError;
    RefusedError `not_allowed` for a rival's program: it runs outside the jail, so it sees synthetic worlds only.
    """
    return replayed(center, target, [policy(center, name)], progress=progress)


def replayed(
    center: Center,
    target: str,
    policies: list[PolicySpec],
    *,
    context: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Each policy through a recorded drive. Errors: as `replay_drive`."""
    for spec in (spec for spec in policies if spec.kind == "process"):
        center.refuse(
            Refusal(
                code="not_allowed",
                subject=f"policy {spec.title}",
                rule="rivals-see-synthetic-worlds-only",
                clause="invariant 1: nothing leaves unasked; a program of somebody else is not jailed here",
                remedy="let it drive a suite of town worlds, or bring its network as ONNX (`mapped:FILE.onnx`).",
            )
        )
    return replays(center, policies, target, context=context, progress=progress)


def open_loop_rows(table: Any) -> list[dict[str, Any]]:
    """ADE and FDE (m) of the model, constant velocity and the mean plan; beside each what it is not."""
    return [
        {
            "planner": row["planner"],
            "ade_m": row["ade_m"]["mean"],
            "ade_low_m": row["ade_m"]["low"],
            "ade_high_m": row["ade_m"]["high"],
            "fde_m": row["fde_m"]["mean"],
            "drives": row["ade_m"]["worlds"],
            "note": row["note"],
        }
        for row in table.rows
    ]


def suite_row(found: SuiteResult) -> dict[str, Any]:
    """One policy's driving score with its interval, worlds, egos and seeds, and what went wrong per route."""
    score = found.score
    return {
        "model": found.policy,
        "suite": found.suite,
        "score": round(score.mean, 2),
        "low": score.low,
        "high": score.high,
        "routes": score.routes,
        "worlds": score.worlds,
        "seeds": len({route.world_seed for route in found.routes}),
        "world_seeds": sorted({route.world_seed for route in found.routes}),
        **{name: round(rate, 3) for name, rate in found.rates.items()},
        "synthetic": found.synthetic,
    }


def _complete(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """Is every ancestor of the weights, their dataset and their export recorded here?"""
    found = center.artifact(models.weights_of(center, asked.model))
    missing, todo, seen = 0, [found.id, models.export_onnx(center, asked.model).id], set[str]()
    while todo:
        identity = todo.pop()
        if identity in seen:
            continue
        seen.add(identity)
        try:
            todo += center.artifact(identity).parents
        except NotFoundError:
            missing += 1
    return CheckResult(name="complete", status="pass", figure=float(missing), evidence=found.id)


def _reproducible(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """Do the first steps of its training, made again, end in the weights that were recorded?"""
    found = center.artifact(models.weights_of(center, asked.model))
    if found.label.kind == "inbound_model":
        remark = "it was trained in another center; its making cannot be repeated here"
        return CheckResult(name="reproducible", status="not measurable", evidence=found.id, remark=remark)
    differing = models.reproduce(center, found.id, progress=progress)
    return CheckResult(name="reproducible", status="pass", figure=float(differing), evidence=found.id)


def _anonymisation(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """Did people look at a sample of the recorded segments it learned from, and does every bucket hold?"""
    weights = center.artifact(models.weights_of(center, asked.model))
    found, name = audit.standing(center, weights), "anonymisation_audited"
    if found.unmeasured:
        return CheckResult(name=name, status="not measurable", evidence=weights.id, remark=found.unmeasured[0])
    remark = "" if found.segments else "only synthetic segments"
    figure = float(len(found.short))
    return CheckResult(name=name, status="pass", figure=figure, evidence=weights.id, remark=remark)


def _onnx_equals_torch(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """Also of an 8-bit export: how far what ships is from what was trained."""
    exported = models.export_onnx(center, asked.model)
    figure = float(exported.meta["difference_m"])
    return CheckResult(name="onnx_equals_torch", status="pass", figure=figure, unit="m", evidence=exported.id)


def _shipped_near_trained(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """On real windows, so that what quantising costs is measured where it drives."""
    exported = models.export_onnx(center, asked.model)
    try:
        figure = models.shipped_shift_m(center, asked.model, _dataset(center, asked))
    except (InputError, NotFoundError) as problem:
        return CheckResult(name="shipped_near_trained", status="not measurable", remark=str(problem))
    synthetic = exported.label.synthetic
    return CheckResult(
        name="shipped_near_trained",
        status="pass",
        figure=figure,
        unit="m",
        evidence=exported.id,
        synthetic=synthetic,
    )


def _dataset(center: Center, asked: Asked) -> str:
    """The dataset whose held-out drives count: the one named, else the one that the weights learned from."""
    weights = center.artifact(models.weights_of(center, asked.model))
    return manifest.row_of(center, asked.dataset or str(weights.meta.get("dataset") or "")).id


def _open_loop(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    try:
        table = evaluation.open_loop(center, asked.model, _dataset(center, asked), progress=progress)
    except (InputError, NotFoundError) as problem:
        return CheckResult(name="open_loop_measured", status="not measurable", remark=str(problem))
    figure = float(table.rows[0]["ade_m"]["mean"])
    return CheckResult(
        name="open_loop_measured", status="pass", figure=figure, unit="m", evidence=table.id, synthetic=table.synthetic
    )


def _closed_loop(center: Center, asked: Asked, progress: Progress) -> CheckResult:
    """Against the base it started from, on the same worlds and egos."""
    base = asked.base or center.artifact(models.weights_of(center, asked.model)).meta.get("base")
    if not base or not asked.suite:
        remark = "name the suite, and the base it must beat"
        return CheckResult(name="closed_loop_above_base", status="not measurable", remark=remark)
    policies = [models.policy_spec(center, base), models.policy_spec(center, asked.model)]
    before, after = evaluation.closed_loop(center, policies, asked.suite, workers=asked.workers, progress=progress)
    paired = evaluation.compare(before.scores, after.scores)
    return CheckResult(
        name="closed_loop_above_base",
        status="pass",
        figure=paired.difference,
        p_value=paired.p,
        unit="points of driving score",
        evidence=after.id,
        synthetic=after.synthetic,
    )
