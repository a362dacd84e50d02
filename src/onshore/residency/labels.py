"""The algebra over labels: what is made of something carries everything that something carried.

Rule: union of the parents; only a named declassifier removes, only what it names, and only with a figure for it. Region
is not a label that anybody removes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from onshore.core.digest import check_id
from onshore.core.errors import InputError, Refusal, RefusedError, UsageError
from onshore.core.label import SENSITIVITIES, Label

#: Retention classes from the shortest clock to the longest.
RETENTION_ORDER = ("raw", "clip", "model", "evidence", "permanent")


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """What one declassifier did to one artifact.

    declassifier: its id. removes: the sensitivities it took out; `measured` has an entry for each (recall, bound, test
    set), else nothing is removed. adds: what it had to leave unmeasured. detector_digest: SHA-256 (hex) of what did it.
    """

    declassifier: str
    removes: frozenset[str]
    detector_digest: str
    measured: dict[str, Any]
    adds: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        check_id(self.declassifier, "declassifier")
        if not re.fullmatch("[0-9a-f]{64}", self.detector_digest):
            raise InputError("bad_id", f"detector digest {self.detector_digest!r}", "give 64 hex digits of SHA-256.")
        unknown = (self.removes | self.adds) - SENSITIVITIES
        if unknown:
            raise InputError(
                "unlabelled", f"sensitivity {sorted(unknown)}", "a declassifier removes sensitivities only."
            )
        unmeasured = {name for name in self.removes if self.measured.get(name) in (None, "", {}, "not measurable")}
        if unmeasured:
            advice = "a removal needs a figure in `measured`; without one the label keeps it."
            raise InputError("not_measurable", f"removal of {sorted(unmeasured)} by {self.declassifier}", advice)

    def as_record(self) -> dict[str, Any]:
        return {
            "declassifier": self.declassifier,
            "removes": sorted(self.removes),
            "adds": sorted(self.adds),
            "detector_digest": self.detector_digest,
            "measured": self.measured,
        }


def derive(
    parents: Iterable[Label],
    *,
    kind: str,
    retention: str | None = None,
    declassified: Attestation | None = None,
) -> Label:
    """The label of something made from `parents`: their union, less what `declassified` names.

    retention: given, or the shortest clock among the parents. Errors: UsageError without parents; RefusedError
    `out_of_region` when parents belong to several regions; InputError when custodians clash.
    """
    labels = list(parents)
    if not labels:
        raise UsageError("derive", "name at least one parent; a label without parents is made by hand.")
    regions = {label.region for label in labels}
    if len(regions) > 1:
        raise RefusedError(_mixed(sorted(regions)))
    sensitivity = frozenset().union(*(label.sensitivity for label in labels))
    if declassified is not None:
        sensitivity = (sensitivity - declassified.removes) | declassified.adds
    return Label(
        region=labels[0].region,
        kind=kind,
        sensitivity=sensitivity,
        subjects=frozenset().union(*(label.subjects for label in labels)),
        retention=retention or _shortest(labels),
        custodian=_custodian(labels),
        derived_from_raw=any(label.derived_from_raw or label.kind == "raw_drive" for label in labels),
        synthetic=any(label.synthetic for label in labels),
    )


def lost(label: Label, parents: Iterable[Label], declassified: Attestation | None = None) -> frozenset[str]:
    """What the parents carried and `label` does not, though nothing attested its removal; empty when all is well."""
    allowed = declassified.removes if declassified else frozenset()
    gone: set[str] = set()
    for parent in parents:
        gone |= parent.sensitivity - label.sensitivity - allowed
        if parent.subjects - label.subjects:
            gone.add("subjects")  # their ids stay out of refusals
        if parent.custodian not in ("center", label.custodian):
            gone.add(f"custodian {parent.custodian}")
        if (parent.derived_from_raw or parent.kind == "raw_drive") and not label.derived_from_raw:
            gone.add("derived_from_raw")
        if parent.synthetic and not label.synthetic:
            gone.add("synthetic")
        if parent.region != label.region:
            gone.add(f"region {parent.region}")
    return frozenset(gone)


def _shortest(labels: list[Label]) -> str:
    return min((label.retention for label in labels), key=RETENTION_ORDER.index)


def _custodian(labels: list[Label]) -> str:
    """The narrower custodian wins over 'center'; two different narrow ones cannot both hold the result."""
    narrow = sorted({label.custodian for label in labels} - {"center"})
    if len(narrow) > 1:
        raise InputError(
            "conflict", f"custodians {narrow}", "what two custodians hold cannot be mixed; derive them apart."
        )
    return narrow[0] if narrow else "center"


def _mixed(regions: list[str]) -> Refusal:
    return Refusal(
        code="out_of_region",
        subject=f"parents of {' and '.join(regions)}",
        rule="one-region",
        clause="a label's region is never removed",
        remedy="Bring the foreign part in through border import first; it then belongs to this region.",
    )
