"""The label that every artifact carries; the algebra over labels lives in `residency`.

An unlabelled artifact does not exist. Synthetic is a label too, shown wherever a figure is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onshore.core.errors import InputError

KINDS = frozenset(
    [
        "raw_drive",
        "drive",
        "segment",
        "clip",
        "proxy",
        "embedding",
        "takeovers",
        "pseudo_labels",
        "dataset",
        "weights",
        "checkpoint",
        "inbound_model",
        "onnx",
        "rollouts",
        "metrics",
        "report",
        "evidence",
        "release",
        "campaign",
        "shadow_report",
        "picture",
        "positions",
        "log",
    ]
)
SENSITIVITIES = frozenset(
    [
        "face",
        "plate",
        "voice",
        "cabin",
        "position",
        "geo_sensitive",
        "vin",
        "flow",
        "charging",
        "important",
        "unmeasured_plates",
    ]
)
RETENTIONS = frozenset(["raw", "clip", "model", "evidence", "permanent"])


@dataclass(frozen=True, kw_only=True)
class Label:
    """Where an artifact belongs and what is in it.

    sensitivity: what it may still show; only a named, attested declassifier removes one.
    subjects: salted ids of vehicles and drivers. retention: the clock it runs under. custodian: who may hold it.
    """

    region: str
    kind: str
    sensitivity: frozenset[str] = field(default_factory=frozenset)
    subjects: frozenset[str] = field(default_factory=frozenset)
    retention: str = "clip"
    custodian: str = "center"
    derived_from_raw: bool = False
    synthetic: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("unlabelled", f"kind {self.kind!r}", f"use one of {', '.join(sorted(KINDS))}.")
        unknown = self.sensitivity - SENSITIVITIES
        if unknown:
            raise InputError("unlabelled", f"sensitivity {sorted(unknown)}", "use the sensitivities the label knows.")
        if self.retention not in RETENTIONS:
            raise InputError("unlabelled", f"retention {self.retention!r}", f"use one of {sorted(RETENTIONS)}.")
        if len(self.region) != 2 or not self.region.isalpha():
            raise InputError("unlabelled", f"region {self.region!r}", "use a two-letter region such as cn.")

    def as_record(self) -> dict[str, Any]:
        return {
            "region": self.region,
            "kind": self.kind,
            "sensitivity": sorted(self.sensitivity),
            "subjects": sorted(self.subjects),
            "retention": self.retention,
            "custodian": self.custodian,
            "derived_from_raw": self.derived_from_raw,
            "synthetic": self.synthetic,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Label:
        """Read a record back; a missing or unknown field is InputError `unlabelled`, never a default."""
        try:
            return cls(
                region=record["region"],
                kind=record["kind"],
                sensitivity=frozenset(record["sensitivity"]),
                subjects=frozenset(record["subjects"]),
                retention=record["retention"],
                custodian=record["custodian"],
                derived_from_raw=bool(record["derived_from_raw"]),
                synthetic=bool(record["synthetic"]),
            )
        except (KeyError, TypeError) as missing:
            raise InputError("unlabelled", "label", f"every field must be given; {missing} is not.") from missing


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Anything the store holds: its content id, label, parents, and small public facts (`meta`, JSON only)."""

    id: str
    label: Label
    parents: tuple[str, ...] = ()
    size_bytes: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    schema_version: int = 1

    def as_record(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "id": self.id,
            "name": self.name,
            "label": self.label.as_record(),
            "parents": list(self.parents),
            "size_bytes": self.size_bytes,
            "meta": self.meta,
        }
