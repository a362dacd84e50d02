"""Precise positions lie apart, under their custodian; everybody else sees them rounded as the region pack says.

Rule: positions are taken from a recording at intake and never stand in a segment unless the pack keeps them there. The
precise ones are readable in the custodian's role alone, by the region's policy. Rounding is no coordinate processing: for that
there is a plug-in point, and the project ships nothing behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, Protocol

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError, NotFoundError, OnshoreError, RefusedError
from onshore.core.label import Artifact, Label
from onshore.drive.catalog import settle_drives
from onshore.drive.fence import Fence
from onshore.residency import Attestation, derive
from onshore.store import Center, custody

TABLE, KIND = "positions", "positions"
CUSTODY = "custody"  # the verdict of a pack for a topic: keep it, apart, under its custodian
PROCESSORS = "onshore.coordinate_processors"

Fix = tuple[int, float, float, float]


class CoordinateProcessor(Protocol):
    """A licensed tool that turns precise positions into ones that may be used; installed by the operator as an entry point."""

    @property
    def tool(self) -> str:
        """An id that says which tool and version this is."""
        ...

    @property
    def licence(self) -> str:
        """The number under which it is recognised."""
        ...

    def process(self, fixes: Sequence[Fix]) -> Sequence[Fix]: ...


def keep_positions(
    center: Center, raw_label: Label, parents: Sequence[str], fixes: Sequence[Fix], segment: str, drive: str
) -> None:
    """Store a segment's fixes twice: as they are, for the custodian, and rounded. The same again is a no-op."""
    law = custody_law(center)
    precise = _put(center, raw_label, parents, fixes, segment, drive, custodian=str(law["role"]), decimals=None)
    decimals = int(law["decimals"])
    rounded = [(t_ns, round(lat, decimals), round(lon, decimals), 0.0) for t_ns, lat, lon, _ in fixes]
    coarse = _put(center, raw_label, parents, rounded, segment, drive, custodian="center", decimals=decimals)
    center.table(TABLE).upsert([{"id": segment, "drive": drive, "precise": precise.id, "coarse": coarse.id}])


def custody_law(center: Center) -> Mapping[str, Any]:
    """Who holds precise positions and how many decimals others see: `[custody]` of the region pack."""
    given: Mapping[str, Any] = center.pack.law.get("custody", {})
    return {"role": "custodian", "decimals": 2, **given}


def positions(center: Center, segment_id: str) -> dict[str, Any]:
    """Fixes of a segment: precise for the custodian's role, rounded for any other. {"precise", "fixes"}.

    Raises NotFoundError where the center kept none.
    """
    row = _row(center, segment_id)
    precise = center.role == custody_law(center)["role"]
    data = center.read(row["precise" if precise else "coarse"], purpose="positions")
    return {"precise": precise, "fixes": _fixes(data)}


def process(center: Center, segment_id: str, tool: str) -> Artifact:
    """Have a licensed processor, installed as an entry point, work on a segment's precise positions.

    The result is an artifact that names tool and licence; its position label stays. Errors: OnshoreError
    `missing_dependency` without such a processor, RefusedError for anybody but the custodian.
    """
    found = [point for point in entry_points(group=PROCESSORS) if point.name == tool]
    if not found:
        names = sorted(point.name for point in entry_points(group=PROCESSORS))
        advice = f"no such processor is installed (there are: {', '.join(names) or 'none'}); the project ships none."
        raise OnshoreError("missing_dependency", f"coordinate processor {tool}", advice)
    processor: CoordinateProcessor = found[0].load()()
    row = _row(center, segment_id)
    fixes = _fixes(center.read(row["precise"], purpose="process"))
    answer = [[int(t), float(lat), float(lon), float(alt)] for t, lat, lon, alt in processor.process(fixes)]
    if len(answer) != len(fixes):
        raise InputError("bad_config", f"coordinate processor {tool}", "it did not answer every fix.")
    source = center.artifact(row["precise"])
    meta = {"tool": processor.tool, "licence": processor.licence, "drive": row["drive"]}
    label = derive([source.label], kind=KIND)
    made = center.put(
        canonical_json([meta["tool"], answer]), label, name=f"processed-{segment_id}", parents=[source.id], meta=meta,
        key=row["drive"],
    )  # fmt: skip
    body = {"artifact": made.id, "tool": processor.tool, "licence": processor.licence}
    center.ledger.append("drive.coordinates", body)
    return made


def recheck(center: Center, fence: Fence, *, destroy: bool = False) -> dict[str, Any]:
    """Judge the segments that are here by a changed map. Returns counts and the segments that touch it.

    Precise positions are needed, so the custodian runs it. destroy: what touches the map is destroyed, with tombstones.
    Segments whose positions were never kept or have expired are counted as `unlocated`.
    """
    rows = {row["id"]: row for row in center.table(TABLE).rows()}
    known = [row["id"] for row in center.table("segments").rows(columns=["id"])]
    hit: list[str] = []
    judged = 0
    for segment in sorted(set(known) & set(rows)):
        try:
            fixes = _fixes(center.read(rows[segment]["precise"], purpose="geofence"))
        except InputError:  # destroyed: nothing left to judge by
            continue
        except RefusedError as refused:
            if refused.code != "expired":
                raise
            continue
        judged += 1
        hit += [segment] if fence.hits(fixes) else []
    body = {"fence": fence.version, "checked": judged, "unlocated": len(known) - judged, "hits": len(hit)}
    entry = center.ledger.append("drive.geofence.checked", body)
    if destroy and hit:
        _withdraw(center, hit, f"geofence-{entry.index}")
    return {**body, "segments": hit}


def _withdraw(center: Center, segments: list[str], ticket: str) -> None:
    listed = ", ".join(f"'{segment}'" for segment in segments)
    rows = center.table("segments").rows(f"id IN ({listed})")
    kept = center.table(TABLE).rows(f"id IN ({listed})")
    seeds = {row["artifact"] for row in rows} | {row[name] for row in kept for name in ("precise", "coarse")}
    seeds |= {original for row in rows for original in row["originals"].split(",") if original}
    own = {"raw_drive", "segment", "proxy", "embedding", "picture", KIND}
    blobs = [one.id for one in center.many(sorted(custody.descendants(center, seeds))) if one.label.kind in own]
    custody.bury(center, segments, reason="geofence", ticket=ticket)
    custody.destroy(center, blobs, reason="geofence", ticket=ticket)
    for name in center.tables():
        center.table(name).forget([*segments, *blobs])
    settle_drives(center, {row["drive"] for row in rows})


def _fixes(data: bytes) -> list[Fix]:
    return [(int(t), float(lat), float(lon), float(alt)) for t, lat, lon, alt in json.loads(data)["fixes"]]


def _row(center: Center, segment_id: str) -> dict[str, Any]:
    for row in center.table(TABLE).rows():
        if row["id"] == segment_id:
            return row
    raise NotFoundError(f"positions of {segment_id}", "this center keeps none for it.")


def _put(
    center: Center,
    raw_label: Label,
    parents: Sequence[str],
    fixes: Sequence[Fix],
    segment: str,
    drive: str,
    *,
    custodian: str,
    decimals: int | None,
) -> Artifact:
    """Fixes alone, without any picture: what identifies people in the original is left behind with them."""
    removes = raw_label.sensitivity - {"position"}
    attestation = Attestation(
        declassifier="position-extract",
        removes=removes,
        detector_digest=sha256_hex(b"position-extract-1"),
        measured={name: {"pictures_kept": 0, "decimals": decimals} for name in sorted(removes)},
    )
    label = derive([raw_label], kind=KIND, retention="raw", declassified=attestation)
    return center.put(
        canonical_json({"segment": segment, "decimals": decimals, "fixes": [list(fix) for fix in fixes]}),
        replace(label, custodian=custodian),
        name=f"{'coarse-' if decimals is not None else ''}positions-{segment}"[:80],
        parents=parents,
        key=f"{drive}-raw",
        meta={"drive": drive, "segment": segment},
        declassified=attestation,
    )  # fmt: skip
