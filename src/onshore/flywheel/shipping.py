"""From a judged model to cars, for the command: gate, sign, revoke, verify the center's own release repository.

Rule: the repository lies inside the center's region (`CENTER/release`); the verdict that counts is the newest one that
passed for exactly this model and gate.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from onshore import release
from onshore.bundle import tuf
from onshore.core.errors import NotFoundError, Refusal, RefusedError
from onshore.core.progress import Progress, silent
from onshore.dataset import manifest
from onshore.flywheel import judging
from onshore.flywheel.judging import Asked
from onshore.store import Center

JUDGED = "judged"


def repository(center: Center) -> Path:
    """Where the center publishes: cars fetch from a copy of this folder."""
    return center.root / "release"


def gate_model(
    center: Center,
    model: str,
    *,
    gate: str = "bench",
    dataset: str | None = None,
    suite: str | None = None,
    base: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure and judge; remembers what was asked, so that `sign_model` can sign exactly this."""
    named = manifest.row_of(center, dataset).id if dataset else None  # a name means another version tomorrow
    asked = Asked(model=model, gate=gate, dataset=named, suite=suite, base=base)
    asked = replace(asked, counter=_counter(center, asked))
    verdict, payload = judging.judge(center, asked, progress=progress)
    row = {
        "id": f"{gate}-{payload.digest[:32]}",
        "asked": asdict(asked),
        "payload": payload.digest,
        "passed": verdict.passed,
        "order": 1 + max((one["order"] for one in center.table(JUDGED).rows()), default=0),
    }
    center.table(JUDGED).upsert([row])
    return {"payload": payload.digest, **verdict.as_record()}


def sign_model(center: Center, model: str | None, *, gate: str | None = None, days: int = 90) -> dict[str, Any]:
    """Sign the payload that passed; without names the newest that did. Errors: RefusedError `gate_failed`."""
    rows = [
        row
        for row in sorted(center.table(JUDGED).rows(), key=lambda row: row["order"])
        if model in (None, row["asked"]["model"]) and gate in (None, row["asked"]["gate"])
    ]
    passed = [row for row in rows if row["passed"]]
    if not passed:
        center.refuse(
            Refusal(
                code="gate_failed",
                subject=model or "any model",
                rule="verdict-is-recorded" if not rows else "verdict-passed",
                clause="invariant 4: no verdict, no signature",
                remedy="run `onshore release gate MODEL` and look at the checks that did not pass.",
            )
        )
    asked = Asked(**passed[-1]["asked"])
    verdict, payload = judging.judge(center, asked)
    lifetimes = tuf.Lifetimes(**dict.fromkeys(("targets", "snapshot", "timestamp"), timedelta(days=days)))
    row = release.sign(center, payload, verdict, repository(center), lifetimes=lifetimes)
    return {**asdict(row), "repository": str(repository(center))}


def revoke_release(center: Center, release_id: str, *, reason: str) -> dict[str, Any]:
    """Recall a release; cars that run it stop using it at their next update."""
    return asdict(release.revoke(center, release_id, repository(center), reason=reason))


def verify_releases(center: Center, folder: Path | None = None) -> dict[str, Any]:
    """What a freshly enrolled car of this region would say. Errors: RefusedError with what does not verify."""
    place = folder or repository(center)
    if not place.exists():
        raise NotFoundError(place, "nothing was signed yet; run `onshore release sign`.")
    outcome = release.verify(center, place)
    if isinstance(outcome, Refusal):
        raise RefusedError(outcome)
    return {"repository": str(place), "release": outcome.release_id, "verifies": True}


def _counter(center: Center, asked: Asked) -> int:
    """The counter under which exactly this was signed, or the next free one."""
    releases = release.show(center)
    for row in (row for row in releases if row["gate"] == asked.gate and row["status"] == "signed"):
        again = replace(asked, counter=int(row["counter"]))
        if judging.candidate(center, again).digest == row["payload_digest"]:
            return again.counter
    return max((int(row["counter"]) for row in releases), default=0) + 1
