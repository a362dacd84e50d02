"""From what is stored to what the rules judge: rollouts of a suite, drives of a center, log files with a map context.

Rule: reads only; a drive of a center is opened anonymised, as anybody opens it. What has no map context is judged all the
same, and its map rules are 'not measurable'.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onshore.core.digest import check_id
from onshore.core.errors import InputError, NotFoundError, UsageError
from onshore.core.rollout import Rollout
from onshore.evaluation.driven import Driven, MapContext
from onshore.evaluation.rules import RuleBook, judge, totals
from onshore.region import load_pack
from onshore.store import Center
from onshore.wire import read_mcap

LOG, ROLLOUT, ARCHIVE = ".mcap", ".rollout", ".zip"
#: What bytes that are no rollouts, or are cut or damaged, raise on their way through zip, JSON and arrays.
UNREADABLE = (
    *(KeyError, ValueError, OSError, TypeError, AttributeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def rule_report(
    targets: Sequence[str], *, center: Center | None = None, context: Path | None = None, region: str | None = None
) -> dict[str, Any]:
    """Verdicts and totals of drives, suite results, rollouts or files, by the rules of `region` (theirs if not given).

    Errors: NotFoundError for an unknown target, InputError for a file or context that cannot be read, UsageError where
    the region is not clear.
    """
    mapped = None if context is None else read_context(context)
    driven = [one for target in targets for one in what_was_driven(target, center=center, context=mapped)]
    name = region or next((one.region for one in driven if one.region), "") or (center.region if center else "")
    if not name:
        raise UsageError("--region", "neither center, rollout nor context names the region; give it.")
    book = RuleBook.of(load_pack(name))
    verdicts = [judge(one, book) for one in driven]
    return {**totals(verdicts, book).as_record(), "judged": [verdict.as_record() for verdict in verdicts]}


def rescore(center: Center, targets: Sequence[str], scorers: Sequence[str]) -> dict[str, Any]:
    """Every named scorer over stored rollouts, computed anew; one table per target. Errors: UsageError, NotFoundError."""
    from onshore.evaluation.scorers import score_rollouts

    results = []
    for target in targets:
        rollouts = stored_rollouts(center, target)
        rows = [vars(row) for row in score_rollouts(rollouts, scorers)]
        results.append({"target": target, "policy": rollouts[0].policy, "suite": rollouts[0].suite, "rows": rows})
    return {"scorers": list(scorers), "results": results}


def suite_results(center: Center) -> list[dict[str, Any]]:
    """Every closed-loop result of a center: policy, suite, score with interval, worlds, egos, seeds."""
    found = []
    for artifact in center.artifacts("metrics"):
        record = json.loads(center.read(artifact.id))
        if "rollouts" not in record or "routes" not in record:
            continue
        routes = record["routes"]
        found.append(
            {
                "id": artifact.id,
                "policy": record["policy"],
                "suite": record["suite"],
                "formula": record["formula"],
                "score": record["score"]["mean"],
                "low": record["score"]["low"],
                "high": record["score"]["high"],
                "worlds": record["score"]["worlds"],
                "egos": len(routes),
                "seeds": len({route["world_seed"] for route in routes}),
                "synthetic": record["synthetic"],
            }
        )
    return sorted(found, key=lambda row: (row["suite"], -row["score"]))


def replay_results(center: Center) -> list[dict[str, Any]]:
    """Every replay of recorded video in a center: how far each segment is valid. No driving score is among them."""
    columns = ("segment", "ended", "valid_s", "metres", "of_m", "lateral_max_m", "contacts", "synthetic")
    found = []
    for artifact in center.artifacts("metrics"):
        record = json.loads(center.read(artifact.id))
        for row in record.get("replays", []):
            found.append({"id": artifact.id, "policy": record["policy"], **{name: row.get(name) for name in columns}})
    return found


def rule_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of a report: one row per rule, with its rate where it could be judged."""
    rows = []
    for rule in document["rules"]:
        rate = rule["per_100_km"]
        rows.append(
            {
                "rule": rule["rule"],
                "clause": rule["clause"],
                "certainty": rule["certainty"],
                "offences": rule["violations"],
                "per_100_km": round(rate["value"], 2) if rate else None,
                "low": round(rate["low"], 2) if rate else None,
                "high": round(rate["high"], 2) if rate else None,
                "not_measurable": f"{rule['not_measurable']} ({', '.join(rule['missing'])})" if rule["missing"] else "",
            }
        )
    return rows


def rule_lines(document: dict[str, Any]) -> list[str]:
    """The sums of a report, each with its interval; what no rule could judge is said, not left out."""
    lines = [f"{document['drives']} drives, {document['km']:.3f} km" + (", synthetic" if document["synthetic"] else "")]
    for name, unit in (("violations", ""), ("points", ""), ("fine", document["currency"])):
        rate = document[name]
        told = (
            "not measurable" if rate is None else f"{rate['value']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}] {unit}"
        )
        lines.append(f"{name} per 100 km: {told}".rstrip())
    if not document["complete"]:
        lines.append("some rules could not be judged everywhere: their part is missing from these sums")
    return lines


def what_was_driven(target: str, *, center: Center | None = None, context: MapContext | None = None) -> list[Driven]:
    """The Driven records of a file, of a drive of the center, or of an artifact with rollouts."""
    path = Path(target)
    if path.suffix in (LOG, ROLLOUT, ARCHIVE):
        return _from_file(path, context)
    if center is None:
        raise UsageError(target, f"name a center, or a file that ends in {LOG}, {ROLLOUT} or {ARCHIVE}.")
    try:
        return [from_rollout(rollout) for rollout in stored_rollouts(center, target)]
    except NotFoundError:
        return _from_drive(center, target, context)


def stored_rollouts(center: Center, identity: str) -> list[Rollout]:
    """The rollouts of one artifact, or all those a suite's result names. Errors: NotFoundError for another id."""
    from onshore.evaluation.closedloop import unpack_rollouts

    artifact = center.artifact(identity)
    if artifact.label.kind == "rollouts":
        return unpack_rollouts(center.read(artifact.id))
    if artifact.label.kind != "metrics":
        raise NotFoundError(identity, "give rollouts, or the result of a suite that was driven here.")
    named = json.loads(center.read(artifact.id)).get("rollouts", [])
    if not named:
        raise NotFoundError(identity, "this result names no rollouts.")
    read = center.open_many(named, "train")
    return [rollout for name in named for rollout in unpack_rollouts(read(name))]


def from_rollout(rollout: Rollout) -> Driven:
    """A rollout with the ego box of its region's pack."""
    from onshore.world.roads import Roads

    return Driven.from_rollout(rollout, Roads.from_record(rollout.region, load_pack(rollout.region).roads).ego_geometry)


def _from_file(path: Path, context: MapContext | None) -> list[Driven]:
    from onshore.evaluation.closedloop import unpack_rollouts

    if not path.is_file():
        raise NotFoundError(path, "give a log, or rollouts.")
    if path.suffix == LOG:
        region = context.region if context else ""
        return [Driven.from_recording(read_mcap(path), context, name=path.stem, region=region)]
    try:
        data = path.read_bytes()
        rollouts = [Rollout.from_bytes(data)] if path.suffix == ROLLOUT else unpack_rollouts(data)
    except UNREADABLE as problem:
        raise InputError("unknown_format", path, f"these are no rollouts: {problem}.") from problem
    return [from_rollout(rollout) for rollout in rollouts]


def _from_drive(center: Center, identity: str, context: MapContext | None) -> list[Driven]:
    """Every segment of a drive (or one segment); the context speaks for the segments it has moments in."""
    from onshore import drive

    check_id(identity, "drive")
    rows = [row for row in drive.segments(center) if identity in (row["drive"], row["id"])]
    if not rows:
        raise NotFoundError(identity, "`drive list` shows the drives, `evaluation show` the results of this center.")
    recordings = [(row["id"], drive.open_segment(center, row["id"])) for row in rows]
    if context is not None and not any(context.covers(recording) for _, recording in recordings):
        raise InputError("not_measurable", "map context", "no moment of it lies in this drive; check its clock.")
    return [
        Driven.from_recording(
            recording,
            context if context is not None and context.covers(recording) else None,
            name=name,
            region=center.region,
        )
        for name, recording in recordings
    ]


def read_context(path: Path) -> MapContext:
    """A map context from its file."""
    try:
        return MapContext.from_bytes(path.read_bytes(), path.name)
    except OSError as problem:
        raise InputError("unknown_format", path, "the map context cannot be read.") from problem
