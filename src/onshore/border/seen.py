"""Did a model see this? Answered from the sample logs that training kept, with a proof either way.

Rule: "yes" and "no" come with Merkle proofs that need only the log's root; where no log was kept the answer is
"not measurable", and whoever erases treats that as a yes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onshore.core.errors import InputError, OnshoreError
from onshore.store.sorted_tree import prove, sorted_root

if TYPE_CHECKING:
    from onshore.store import Center


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Whether a model saw something. answer: "yes", "no", or "not measurable" with the reason in `why`.

    proofs: one of each log on the way (the model's own, its base's, and so on), each with the log's artifact id.
    """

    answer: str
    why: str = ""
    proofs: list[dict[str, Any]] = field(default_factory=list)

    def as_record(self) -> dict[str, Any]:
        return {"answer": self.answer, "why": self.why, "proofs": self.proofs}


def seen(center: Center, model_id: str, wanted: str) -> Seen:
    """Did this model, or a base it started from, draw `wanted` (a clip, segment, drive or subject)?

    Takeovers count for the model that drove and pseudo-labels for the one that read them: what it had seen, its pupil saw
    through it.
    """
    proofs: list[dict[str, Any]] = []
    missing: list[str] = []
    for identity in _line_of(center, model_id):
        samples = center.artifact(identity).meta.get("samples")
        if samples is None:
            missing.append(identity)
            continue
        try:
            record = read_log(center, samples)
        except OnshoreError:  # a log that expired or broke proves nothing
            missing.append(identity)
            continue
        proofs.append({**prove(record["ids"], wanted), "model": identity, "log": samples})
    if any(proof["present"] for proof in proofs):
        return Seen(answer="yes", proofs=proofs)
    if missing:
        why = f"{missing[0]} has no readable sample log: it was trained elsewhere, or before samples were logged"
        return Seen(answer="not measurable", why=why, proofs=proofs)
    return Seen(answer="no", proofs=proofs)


def read_log(center: Center, artifact_id: str) -> dict[str, Any]:
    """A sample log. Raises InputError `corrupt` when its ids do not have its root."""
    record: dict[str, Any] = json.loads(center.read(artifact_id, purpose="train"))
    if sorted_root(record["ids"]) != record["root"]:
        raise InputError("corrupt", artifact_id, "the ids of this sample log do not have its root.")
    return record


def _line_of(center: Center, model_id: str) -> list[str]:
    """The model, its bases, and the models whose takeovers or pseudo-labels it learned from."""
    found: list[str] = []
    waiting = [model_id]
    while waiting:
        identity = waiting.pop()
        if identity in found:
            continue
        found.append(identity)
        one = center.artifact(identity)
        waiting += [one.meta["base"]] if one.meta.get("base") else []
        datasets = [parent for parent in center.many(one.parents) if parent.label.kind == "dataset"]
        above = center.many(parent for dataset in datasets for parent in dataset.parents)
        waiting += [
            t.meta["model"] for t in above if t.label.kind in ("takeovers", "pseudo_labels") and "model" in t.meta
        ]
    return found
