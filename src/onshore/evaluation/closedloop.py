"""Closed loop: policies drive held-out worlds; every figure is computed from the Rollouts that were stored.

Rule: a suite's worlds are the region pack's own; a result names its worlds, egos and seeds, and is made once per policy.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onshore.core.digest import canonical_json, record_digest
from onshore.core.label import Artifact, Label
from onshore.core.progress import Progress, silent
from onshore.core.rollout import Rollout
from onshore.evaluation.identity import artifact_of, policy_record
from onshore.evaluation.scores import FORMULAS, RouteScore, driving_score
from onshore.evaluation.statistics import Interval, RouteKey, Sequential, SequentialPlan, interval, sequential
from onshore.region import RegionPack
from onshore.residency import derive
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.world import PolicySpec, RolloutJob

EVALUATOR = 4  # raise when the same jobs would be driven or scored otherwise
FORMULA = "carla20"
SEQUENCE_FROM = 100_000  # traffic seeds of sequences lie this far above those of suites


@dataclass(frozen=True, kw_only=True)
class Route:
    """One ego's run. outcome: the event that ended it. events: infraction -> count, or percent for `_pct`."""

    world: str
    world_seed: int
    ego: int
    score: float
    completion_pct: float
    status: str
    outcome: str
    events: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """How one policy drove one suite. score: mean driving score (percent) with a 95 % interval by world.

    by_formula: means under every formula. rates: infractions per route (percent of distance for `_pct`), hits that were
    not its fault among them; placed_freely_pct: of the routes, where any was. rollouts: artifacts from which all this can be computed again. id: this record's artifact.
    """

    id: str
    policy: str
    suite: str
    formula: str
    score: Interval
    by_formula: dict[str, float]
    rates: dict[str, float]
    routes: tuple[Route, ...]
    rollouts: tuple[str, ...]
    synthetic: bool
    fresh: bool = field(default=True, compare=False)

    @property
    def scores(self) -> dict[RouteKey, float]:
        """(world, ego) -> driving score, as `compare` takes it."""
        return {(route.world, route.ego): route.score for route in self.routes}

    @property
    def worlds(self) -> list[str]:
        return sorted({route.world for route in self.routes})


def closed_loop(
    center: Center, policies: Sequence[PolicySpec], suite: str, *, workers: int = 2, progress: Progress = silent
) -> list[SuiteResult]:
    """Drive a suite of the center's region with each policy. What was driven before is read, not driven again.

    A policy is what it does, not what it is called: under another name the same rollouts serve.

    A policy that drives from an ONNX artifact of this center passes that artifact's label on to the rollouts.
    """
    from onshore.world import suite as suite_jobs

    return [
        drive_jobs(center, suite_jobs(center.pack, suite, policy), policy, suite, workers=workers, progress=progress)
        for policy in policies
    ]


def drive_jobs(
    center: Center,
    jobs: Sequence[RolloutJob],
    policy: PolicySpec,
    name: str,
    *,
    workers: int = 2,
    progress: Progress = silent,
) -> SuiteResult:
    """Drive any jobs with one policy under a name, store the rollouts and score them; what was driven is read."""
    inputs = {
        "evaluator": EVALUATOR,
        "suite": name,
        "jobs": _jobs_digest(jobs),
        "policy": policy_record(center, policy),
    }
    drive = _Drive(center, jobs, policy, name, workers, progress)
    outputs, fresh = center.stage("evaluation.closed_loop", inputs, drive.run)
    return replace(_read(outputs, fresh), policy=policy.title)


def compare_in_batches(
    center: Center,
    a: PolicySpec,
    b: PolicySpec,
    suite: str,
    plan: SequentialPlan,
    *,
    batch: int = 4,
    workers: int = 2,
    progress: Progress = silent,
) -> tuple[Sequential, list[tuple[SuiteResult, SuiteResult]]]:
    """Drive both policies in more and more held-out worlds until the sequential test decides, or its plan gives up.

    The worlds are those of the suite's kind on held-out towns with traffic seeds of their own, the same list for every
    comparison. Differences are world means of b - a in that order.
    """
    differences: list[float] = []
    driven = []
    found = sequential(differences, plan)
    while found.decision == "undecided" and len(differences) < plan.most_worlds:
        first = len(differences)
        count = min(batch, plan.most_worlds - first)
        pair = []
        for policy in (a, b):
            jobs = batch_jobs(center.pack, suite, policy, first, count)
            name = f"{suite}-sequence-{first:04d}-{count}"
            pair.append(drive_jobs(center, jobs, policy, name, workers=workers, progress=progress))
        differences += world_differences(pair[0], pair[1])
        driven.append((pair[0], pair[1]))
        found = sequential(differences, plan)
    return found, driven


def batch_jobs(pack: RegionPack, suite: str, policy: PolicySpec, first: int, count: int) -> list[RolloutJob]:
    """Jobs `first` to `first + count` of the endless list of held-out worlds behind a suite."""
    from onshore.world import suite as suite_jobs

    like = suite_jobs(pack, suite, policy)[0]
    towns, seeds_from = pack.suites["held_out_towns"], pack.suites["traffic_seeds_from"] + SEQUENCE_FROM
    return [
        replace(like, suite=f"{suite}-sequence", town_seed=towns[index % len(towns)], traffic_seed=seeds_from + index)
        for index in range(first, first + count)
    ]


def world_differences(a: SuiteResult, b: SuiteResult) -> list[float]:
    """Mean of b - a over the egos of each world, in the order in which the worlds were driven."""
    before, after = a.scores, b.scores
    worlds = dict.fromkeys(route.world for route in a.routes)
    return [float(np.mean([after[key] - before[key] for key in before if key[0] == world])) for world in worlds]


def score_suite(rollouts: Sequence[Rollout], formula: str = FORMULA) -> dict[str, Any]:
    """A suite's record from its rollouts alone: interval by world, means by formula, rates, routes."""
    scored = [(rollout, driving_score(rollout, formula)) for rollout in rollouts]
    values = [score.driving_score for _, score in scored]
    found = interval(values, [rollout.world for rollout in rollouts])
    return {
        "formula": formula,
        "score": found.as_record(),
        "by_formula": {
            name: round(sum(driving_score(rollout, name).driving_score for rollout in rollouts) / len(rollouts), 6)
            for name in FORMULAS
        },
        "rates": _rates(scored),
        "routes": [_route(rollout, score) for rollout, score in scored],
    }


def pack_rollouts(rollouts: Sequence[Rollout]) -> bytes:
    """Rollouts as one deterministic archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, rollout in enumerate(rollouts):
            archive.writestr(zipfile.ZipInfo(f"{index:04d}.rollout"), rollout.to_bytes())
    return buffer.getvalue()


def unpack_rollouts(data: bytes) -> list[Rollout]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [Rollout.from_bytes(archive.read(name)) for name in sorted(archive.namelist())]


@dataclass(frozen=True)
class _Drive:
    """One policy through one suite: drive, store, score from what was stored."""

    center: Center
    jobs: Sequence[RolloutJob]
    policy: PolicySpec
    suite: str
    workers: int
    progress: Progress

    def run(self) -> dict[str, Any]:
        from onshore.world import run_jobs

        parents = artifact_of(self.center, self.policy)
        label = self._label(parents, "rollouts")
        stored = []
        for rollouts in run_jobs(self.jobs, workers=self.workers, progress=self.progress):
            world = rollouts[0].world
            meta = {"world": world, "policy": self.policy.title, "suite": self.suite, "egos": len(rollouts)}
            stored.append(
                self.center.put(
                    pack_rollouts(rollouts), label, name=self.suite, parents=[p.id for p in parents], meta=meta
                )
            )
        again = self.center.open_many([artifact.id for artifact in stored], "train")
        kept = [rollout for artifact in stored for rollout in unpack_rollouts(again(artifact.id))]
        record = {
            "policy": self.policy.title,
            "suite": self.suite,
            **score_suite(kept),
            "rollouts": [artifact.id for artifact in stored],
            "synthetic": all(rollout.synthetic for rollout in kept),
        }
        metrics = self.center.put(
            canonical_json(record), derive([label], kind="metrics"), name=self.suite, parents=record["rollouts"]
        )
        return {"id": metrics.id, **record}

    def _label(self, parents: Sequence[Artifact], kind: str) -> Label:
        world = Label(region=self.center.region, kind=kind, retention="evidence", synthetic=True)
        return derive([world, *(parent.label for parent in parents)], kind=kind, retention="evidence")


def _rates(scored: Sequence[tuple[Rollout, RouteScore]]) -> dict[str, float]:
    names = sorted({name for _, score in scored for name in score.events})
    rates = {name: sum(score.events.get(name, 0.0) for _, score in scored) / len(scored) for name in names}
    blameless = sum(event.kind == "collision_not_at_fault" for rollout, _ in scored for event in rollout.events)
    failed = sum(event.kind == "policy_failed" for rollout, _ in scored for event in rollout.events)
    placed = sum(rollout.placed_freely for rollout, _ in scored)
    completion = sum(score.route_completion_pct for _, score in scored) / len(scored)
    return {
        **{name: round(rate, 6) for name, rate in rates.items()},
        "collision_not_at_fault": round(blameless / len(scored), 6),
        "completion_pct": round(completion, 6),
        **({"policy_failed": round(failed / len(scored), 6)} if failed else {}),
        **({"placed_freely_pct": round(100 * placed / len(scored), 6)} if placed else {}),
    }


def _route(rollout: Rollout, score: RouteScore) -> dict[str, Any]:
    return {
        "world": rollout.world,
        "world_seed": rollout.world_seed,
        "ego": rollout.ego,
        "score": score.driving_score,
        "completion_pct": score.route_completion_pct,
        "status": score.status,
        "outcome": rollout.ended,
        "events": score.events,
    }


def _read(outputs: dict[str, Any], fresh: bool) -> SuiteResult:
    fields = dict(outputs)
    fields["score"] = Interval.from_record(fields["score"])
    fields["routes"] = tuple(Route(**route) for route in fields["routes"])
    fields["rollouts"] = tuple(fields["rollouts"])
    return SuiteResult(**fields, fresh=fresh)


def _jobs_digest(jobs: Sequence[RolloutJob]) -> str:
    """Everything about the jobs but the policy's bytes, which the stage's inputs name by digest."""
    return record_digest([job.as_record() for job in jobs])
