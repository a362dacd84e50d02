"""Lineage judged anew at the gate: did every sensitivity on the way from raw to here have its declassifier?

Rule: pure, and independent of the labels' own arithmetic. A label is a claim; what the ancestors carried, less what
attestations on the way removed, is what is owed. A label that claims less than is owed is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from onshore.core.digest import record_digest
from onshore.core.errors import InputError
from onshore.core.label import Artifact, Label
from onshore.residency import RAW_SENSITIVITIES, Attestation

#: What an original owes beyond its label: that some declassifier looked at all of it. Not a sensitivity anyone can write.
RAW = "raw"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A label that claims less than its lineage owes: at which artifact, what is missing, and why it matters."""

    artifact: str
    missing: frozenset[str]
    what: str

    @property
    def is_raw(self) -> bool:
        return bool(self.missing & (RAW_SENSITIVITIES | {RAW}))


def faults(
    target: Artifact,
    parent_of: Callable[[str], Artifact],
    attested: Callable[[str, str], bool] = lambda artifact, digest: True,
) -> list[Fault]:
    """Every fault among `target` and its ancestors. `parent_of` finds an artifact by id; what it raises goes through.

    attested(artifact id, digest of the attestation's record): did the ledger see it when it was made? One that it did
    not see removes nothing.
    """
    order = ancestors_first(target, parent_of)
    owed: dict[str, frozenset[str]] = {}
    found = []
    for artifact in order:
        parents = [parent_of(parent).label for parent in artifact.parents]
        attestation = attestation_of(artifact)
        if attestation is not None and not attested(artifact.id, record_digest(attestation.as_record())):
            attestation = None
        due = owed_by((owed[parent] for parent in artifact.parents), attestation)
        owed[artifact.id] = due | artifact.label.sensitivity | ({RAW} if artifact.label.kind == "raw_drive" else set())
        found += _faults_of(artifact, parents, due - {RAW})
    if RAW in owed[target.id]:
        found.append(
            Fault(artifact=target.id, missing=frozenset([RAW]), what="no declassifier worked on the way from raw")
        )
    return found


def owed_by(parents: Iterable[frozenset[str]], attestation: Attestation | None) -> frozenset[str]:
    """What a thing made of `parents` must carry: their union, less what the attestation removes, with what it adds."""
    union = frozenset().union(*parents)
    if attestation is None:
        return union
    return (union - attestation.removes - {RAW}) | attestation.adds


def attestation_of(artifact: Artifact) -> Attestation | None:
    """The attestation a declassifier left in the artifact's facts; an unreadable one removes nothing."""
    record = artifact.meta.get("declassified", artifact.meta.get("attestation"))
    if not isinstance(record, dict):
        return None
    try:
        return Attestation(
            declassifier=record["declassifier"],
            removes=frozenset(record["removes"]),
            adds=frozenset(record.get("adds", [])),
            detector_digest=record["detector_digest"],
            measured=dict(record["measured"]),
        )
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _faults_of(artifact: Artifact, parents: list[Label], due: frozenset[str]) -> list[Fault]:
    label = artifact.label
    found = []
    if due - label.sensitivity:
        found.append(Fault(artifact=artifact.id, missing=due - label.sensitivity, what="no declassifier removed it"))
    if any(parent.region != label.region for parent in parents):
        found.append(Fault(artifact=artifact.id, missing=frozenset(), what="a parent is of another region"))
    if any(p.derived_from_raw or p.kind == "raw_drive" for p in parents) and not label.derived_from_raw:
        found.append(
            Fault(artifact=artifact.id, missing=frozenset(), what="the label hides that it comes from raw data")
        )
    if any(p.synthetic for p in parents) and not label.synthetic:
        found.append(Fault(artifact=artifact.id, missing=frozenset(), what="the label hides that it is synthetic"))
    unseen = frozenset().union(*(p.subjects for p in parents)) - label.subjects
    if unseen:
        what = f"the label leaves out {len(unseen)} subjects"
        found.append(Fault(artifact=artifact.id, missing=frozenset(), what=what))
    return found


def ancestors_first(target: Artifact, parent_of: Callable[[str], Artifact]) -> list[Artifact]:
    """`target` and all its ancestors, parents before children; InputError `unlabelled` on a circle."""
    done: dict[str, Artifact] = {}
    open_ids: set[str] = set()
    stack: list[tuple[Artifact, bool]] = [(target, False)]
    while stack:
        artifact, expanded = stack.pop()
        if artifact.id in done:
            continue
        if expanded:
            open_ids.discard(artifact.id)
            done[artifact.id] = artifact
            continue
        if artifact.id in open_ids:
            raise InputError("unlabelled", artifact.id, "its lineage runs in a circle; the catalog was tampered with.")
        open_ids.add(artifact.id)
        stack.append((artifact, True))
        stack += [(parent_of(parent), False) for parent in artifact.parents if parent not in done]
    return list(done.values())


def summary(target: Artifact, parent_of: Callable[[str], Artifact]) -> dict[str, Any]:
    """Counts for the export record: ancestors by kind, and which declassifiers worked on the way."""
    kinds: dict[str, int] = {}
    declassifiers: set[str] = set()
    for artifact in ancestors_first(target, parent_of):
        if artifact.id != target.id:
            kinds[artifact.label.kind] = kinds.get(artifact.label.kind, 0) + 1
        attestation = attestation_of(artifact)
        if attestation is not None:
            declassifiers.add(attestation.declassifier)
    return {"ancestors": dict(sorted(kinds.items())), "declassifiers": sorted(declassifiers)}
