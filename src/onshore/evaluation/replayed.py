"""Closed loop on recorded video: a center's own drives, driven again by a policy, stored and scored as far as they hold.

Rule: what lies beyond the valid range of the pictures was never driven, so nothing of it is scored; a replay has no map, so
it has no driving score. Contacts are known only where the recording brings the boxes of others. Every row says what ended it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError, NotFoundError
from onshore.core.label import Label
from onshore.core.progress import Progress, silent
from onshore.core.recording import Recording
from onshore.core.rollout import Rollout
from onshore.evaluation.closedloop import pack_rollouts
from onshore.evaluation.driven import MapContext
from onshore.evaluation.identity import artifact_of, policy_record
from onshore.evaluation.recorded import from_rollout, read_context
from onshore.evaluation.scorers import comfort_pct
from onshore.residency import derive
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.world import PolicySpec
    from onshore.world.replay import Others

REPLAYER = 1  # raise when the same drive and policy would give other rollouts
SUITE = "replay"
#: The columns of a row that people are shown first.
SHOWN = ("policy", "segment", "verdict", "metres", "of_m", "lateral_max_m", "comfortable_pct", "contacts")


def replays(
    center: Center,
    policies: Sequence[PolicySpec],
    target: str,
    *,
    context: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Each policy through every segment of a recorded drive (or one segment); what was driven before is read.

    context: a map context whose `actors` follow the log. Returns rows by policy and segment, and per policy the artifact
    that `evaluation rescore` takes. Errors: NotFoundError for an unknown drive, InputError for a context of another one.
    """
    from onshore import drive

    segments = [row for row in drive.segments(center) if target in (row["drive"], row["id"])]
    if not segments:
        raise NotFoundError(target, "`drive list` shows the drives of this center.")
    mapped = None if context is None else read_context(context)
    if mapped is not None and not any(mapped.covers(drive.open_segment(center, row["id"])) for row in segments):
        raise InputError("not_measurable", "map context", "no moment of it lies in this drive; check its clock.")
    rows: list[dict[str, Any]] = []
    results = []
    for policy in policies:
        for segment in segments:
            progress("replay", len(rows), len(segments) * len(policies))
            rows.append(_segment(center, segment, policy, mapped))
        results.append(_result(center, policy, target, rows[-len(segments) :]))
    progress("replay", len(rows), len(rows))
    return {"drive": target, "world": SUITE, "routes": rows, "results": results}


def row_of(rollout: Rollout) -> dict[str, Any]:
    """What a replay shows: how far it is valid and why no further, how it kept to the recorded way, contacts, comfort."""
    last = rollout.events[-1]
    lateral = np.abs(rollout.steps["lateral_m"])
    comfortable = comfort_pct(from_rollout(rollout))
    contacts = [event.kind for event in rollout.events if event.kind.startswith("collision")]
    return {
        "ended": rollout.ended,
        "verdict": verdict(rollout),
        "valid_s": round(last.t_s, 1),
        "metres": round(float(rollout.steps["progress_m"][-1]), 1) if len(lateral) else 0.0,
        "of_m": round(rollout.route_length_m, 1),
        "lateral_mean_m": round(float(lateral.mean()), 3) if len(lateral) else None,
        "lateral_max_m": round(float(lateral.max()), 3) if len(lateral) else None,
        "comfortable_pct": None if math.isnan(comfortable) else round(comfortable, 1),
        "contacts": (", ".join(contacts) or "none") if rollout.others_known else "not measurable: no boxes of others",
        "why": ", ".join(f"{key} {value}" for key, value in last.detail.items()),
        "synthetic": rollout.synthetic,
        "digest": rollout.digest,
    }


def verdict(rollout: Rollout) -> str:
    """Whether all of the recording was driven, or until when what was driven holds."""
    last = rollout.events[-1]
    if last.kind == "route_complete":
        return "valid to the end of the recording"
    if last.kind == "left_valid_range":
        return f"valid until {last.t_s:.1f} s; beyond it the pictures cannot be trusted and nothing is scored"
    return f"valid until {last.t_s:.1f} s, when it ended: {last.kind}"


def _segment(center: Center, segment: dict[str, Any], policy: PolicySpec, mapped: MapContext | None) -> dict[str, Any]:
    """One segment driven by one policy, as a stage; a segment that cannot be replayed says why."""
    from onshore import drive
    from onshore.world.replay import replay

    identity = segment["id"]

    def run() -> dict[str, Any]:
        recording = drive.open_segment(center, identity)
        others = others_of(mapped, recording)
        rollout = replay(recording, policy, region=center.region, name=identity, others=others)
        rollout = replace(rollout, suite=SUITE)
        parents = [center.artifact(segment["artifact"]), *artifact_of(center, policy)]
        world = Label(region=center.region, kind="rollouts", retention="evidence", synthetic=rollout.synthetic)
        label = derive([world, *(one.label for one in parents)], kind="rollouts", retention="evidence")
        meta = {"world": rollout.world, "policy": policy.title, "suite": SUITE, "egos": 1}
        ids = [one.id for one in parents]
        made = center.put(pack_rollouts([rollout]), label, name=SUITE, parents=ids, meta=meta)
        return {"rollouts": made.id, **row_of(rollout)}

    digest = sha256_hex(mapped.to_bytes()) if mapped is not None else ""
    inputs = {
        "replayer": REPLAYER,
        "segment": segment["artifact"],
        "policy": policy_record(center, policy),
        "context": digest,
    }
    shown = {"policy": policy.title, "segment": identity}
    try:
        outputs, _ = center.stage("evaluation.replay", inputs, run)
    except InputError as problem:
        return {**shown, "ended": "not measurable", "verdict": f"not measurable: {problem}"}
    return {**shown, **outputs}


def others_of(mapped: MapContext | None, recording: Recording) -> Others | None:
    """The road users that a map context has for a recording; None where nobody looked."""
    from onshore.world.replay import Others

    if mapped is None or mapped.actors is None or not mapped.covers(recording):
        return None
    actors = mapped.actors
    return Others(t_ns=mapped.t_ns, row=actors.row, id=actors.id, kind=actors.kind, columns=actors.columns)


def _result(center: Center, policy: PolicySpec, target: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One policy's replays as one record, from which everything can be computed again."""
    driven = [row for row in rows if "rollouts" in row]
    if not driven:
        return {"policy": policy.title, "id": None}
    rollouts = [str(row["rollouts"]) for row in driven]
    record: dict[str, Any] = {
        "policy": policy.title,
        "suite": SUITE,
        "drive": target,
        "replays": rows,
        "rollouts": rollouts,
        "synthetic": all(row["synthetic"] for row in driven),
    }
    labels = [center.artifact(identity).label for identity in rollouts]
    label = derive(labels, kind="metrics")
    made = center.put(canonical_json(record), label, name=SUITE, parents=rollouts)
    return {"policy": policy.title, "id": made.id}
