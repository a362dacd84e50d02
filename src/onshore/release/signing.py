"""From a trained network to a signed release, and back when it must be recalled.

Rule: no verdict, no signature. A release is signed only for the payload its recorded, passing verdict names; gate files,
evidence and signatures are in the ledger; the repository lies in a folder the center names as in-region.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.bundle import tuf
from onshore.bundle.format import NOTES, VERDICT, BundleMetadata, Payload, from_archive, pack, to_archive
from onshore.bundle.inputs import View
from onshore.core.digest import BLOB_PATTERN, blob_id, record_digest, sha256_hex
from onshore.core.errors import NotFoundError, Refusal, UsageError
from onshore.core.label import Artifact, Label
from onshore.release.gates import PASS, CheckResult, Verdict, judge, load_gate
from onshore.residency import derive

if TYPE_CHECKING:
    from onshore.store import Center

TABLE = "releases"
NO_VERDICT = "invariant 4: no verdict, no signature"


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A signed release. id is its name in repository and car; status: signed or revoked; artifact: the payload kept."""

    id: str
    model: str
    region: str
    counter: int
    gate: str
    road_use: str
    payload_digest: str
    verdict_digest: str
    synthetic: bool
    status: str
    artifact: str
    reason: str = ""


def candidate(
    onnx_bytes: bytes,
    *,
    region: str,
    model_id: str,
    gate: str,
    counter: int,
    view: View | None = None,
    side_views: tuple[View, ...] = (),
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0),
    synthetic: bool = False,
    notes: str = "",
) -> Payload:
    """The unsigned payload of a network that is meant to pass `gate`: the same inputs give the same digest."""
    metadata = BundleMetadata(
        region=region,
        model_id=model_id,
        onnx_sha256=sha256_hex(onnx_bytes),
        view=view or View(),
        side_views=side_views,
        frame_offsets_s=frame_offsets_s,
        gate=gate,
        road_use=load_gate(gate).road_use,
        synthetic=synthetic,
        counter=counter,
    )
    return pack(onnx_bytes, metadata, notes=notes)


def gate(center: Center, payload: Payload, evidence: Mapping[str, CheckResult]) -> Verdict:
    """Judge a payload by the gate its metadata names; the verdict becomes an evidence artifact and a ledger line.

    The same payload and evidence give the same verdict and no second line.
    """
    verdict = judge(
        load_gate(payload.metadata.gate),
        region=payload.metadata.region,
        model_id=payload.metadata.model_id,
        payload_digest=payload.digest,
        evidence=evidence,
    )
    parents = _known_parents(center, [payload.metadata.model_id, *(check.evidence for check in verdict.checks)])
    label = _label(center, parents, "evidence", synthetic=verdict.synthetic or payload.metadata.synthetic)
    body = {
        "verdict": verdict.digest,
        "gate": verdict.gate,
        "payload": payload.digest,
        "model": verdict.model_id,
        "passed": verdict.passed,
    }

    def record() -> dict[str, Any]:
        kept = center.put(verdict.to_bytes(), label, name=f"verdict-{verdict.gate}", parents=[p.id for p in parents])
        center.ledger.append("gate", body)
        return {"verdict": kept.id}

    center.stage("gate", body, record)
    return verdict


def sign(
    center: Center,
    payload: Payload,
    verdict: Verdict,
    repo_dir: Path | str,
    *,
    lifetimes: tuf.Lifetimes | None = None,
    renew: bool = False,
) -> ReleaseRow:
    """Publish a payload as the one release a repository offers.

    Raises RefusedError: `gate_failed` without a recorded passing verdict for exactly this payload, `wrong_region`,
    `not_in_region` for the folder, `not_allowed` for words the region forbids in notes, `rollback` for a used counter.
    Doing it again changes nothing; with `renew` (or lifetimes) the same release is signed afresh.
    """
    repo = Path(repo_dir)
    with _one_at_a_time(center):
        refusal = (
            _refuse_verdict(center, payload, verdict)
            or _refuse_place(center, payload, repo)
            or _refuse_words(center.pack.law, payload)
            or _refuse_counter(center, payload, repo)
        )
        if refusal is not None:
            center.refuse(refusal)
        row = _keep(center, payload, verdict)
        # The row comes first: from its publication on, cars may hold the counter to this payload.
        if not center.table(TABLE).count(f"id = '{row.id}'"):
            center.table(TABLE).upsert([asdict(row)])
        ahead, same = _offered(repo, row.counter)
        if not ahead and (renew or lifetimes is not None or not same):
            _publish(center, row, payload, verdict.to_bytes(), repo, lifetimes)
        if not _in_ledger(center, "release", "release", row.id):  # a kill may have left the row without its line
            center.ledger.append("release", {"release": row.id, "payload": payload.digest, "verdict": verdict.digest})
    return row


def revoke(center: Center, release_id: str, repo_dir: Path | str, *, reason: str) -> ReleaseRow:
    """Recall a release: cars that run it stop using it at their next update, others never install it.

    A repository that offers another release, not recalled itself, carries the recall beside it; any other offers the recall
    in place of a release. Doing it again publishes the recall afresh (cars get a later expiry) and keeps the first reason.
    Raises NotFoundError for an unknown release, UsageError for a model that was signed as several.
    """
    repo = Path(repo_dir)
    with _one_at_a_time(center):
        known = _to_recall(center, release_id)
        _must_be_in_region(center, repo)
        if known.status != "revoked":
            known = replace(known, status="revoked", reason=reason)
            center.table(TABLE).upsert([asdict(known)])
        if not _in_ledger(center, "revoke", "release", known.id):  # a kill may have left the row without its line
            center.ledger.append("revoke", {"release": known.id, "reason_digest": record_digest(known.reason)})
        _publish_recall(center, known, repo)
    return known


def releases(center: Center) -> list[dict[str, Any]]:
    """Every release of a center, oldest first."""
    return [asdict(row) for row in _rows(center)]


def show(center: Center, release_id: str | None = None) -> list[dict[str, Any]]:
    """Releases with their whole verdicts, oldest first; or those with this id, payload digest or model.

    Raises NotFoundError for an unknown one.
    """
    rows = _named(center, release_id) if release_id else _rows(center)
    return [{**asdict(row), "verdict": json.loads(_kept(center, row)[1])} for row in rows]


def root(center: Center) -> bytes:
    """What cars of this center are enrolled with: the root of its release keys, never one found in a repository.

    Raises NotFoundError while the center has signed nothing.
    """
    return _keys(center).root()


def verify(center: Center, repo_dir: Path | str) -> tuf.VerifiedBundle | Refusal:
    """What a freshly enrolled car of this center would say about a repository, its own or one from elsewhere.

    Raises NotFoundError while the center has signed nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        trust = tuf.Trust(root=root(center), metadata_dir=Path(scratch), region=center.region)
        return tuf.verify(Path(repo_dir), trust)


# -- why not -------------------------------------------------------------------------------------------------------


def _refuse_verdict(center: Center, payload: Payload, verdict: Verdict) -> Refusal | None:
    """Invariant 4, each way around it closed: another payload, a failed check, another gate, a verdict made by hand."""
    subject, remedy = payload.release_id, "run the gate on this payload and sign with its verdict."
    gate_now = load_gate(payload.metadata.gate)
    required = {check.name: check for check in verdict.checks if check.name in gate_now.require}
    problems = {
        "verdict-names-payload": verdict.payload_digest != payload.digest,
        "verdict-is-of-this-gate": verdict.gate != gate_now.name or verdict.gate_digest != gate_now.digest,
        "gate-decides-road-use": not payload.metadata.road_use == verdict.road_use == gate_now.road_use,
        "verdict-passed": not verdict.passed
        or any(name not in required or required[name].status != PASS for name in gate_now.require),
        "verdict-is-recorded": not _is_recorded(center, verdict),
    }
    for rule, broken in problems.items():
        if broken:
            failing = [f"{c.name}: {c.status} ({c.reason})" for c in required.values() if c.status != PASS]
            advice = f"{'; '.join(failing) or 'the verdict does not fit'}; {remedy}"
            return Refusal(code="gate_failed", subject=subject, rule=rule, clause=NO_VERDICT, remedy=advice)
    return None


def _is_recorded(center: Center, verdict: Verdict) -> bool:
    """A verdict counts when the center stores it as evidence and the ledger has its line."""
    try:
        center.artifact(blob_id(center.region, verdict.to_bytes()))
    except NotFoundError:
        return False
    return _in_ledger(center, "gate", "verdict", verdict.digest)


def _in_ledger(center: Center, kind: str, name: str, value: str) -> bool:
    """Whether a line of this kind has this value in its body."""
    return any(entry.kind == kind and entry.body.get(name) == value for entry in center.ledger.entries())


def _refuse_place(center: Center, payload: Payload, repo: Path) -> Refusal | None:
    if payload.metadata.region != center.region:
        return Refusal(
            code="wrong_region",
            subject=payload.release_id,
            rule="a center signs for its own region",
            clause="a release is bound to one region",
            remedy=f"sign it in a center of region {payload.metadata.region}.",
        )
    return None if center.in_region(repo) else _outside(repo)


def _must_be_in_region(center: Center, repo: Path) -> None:
    if not center.in_region(repo):
        center.refuse(_outside(repo))


def _outside(repo: Path) -> Refusal:
    return Refusal(
        code="not_in_region",
        subject=str(repo.name),
        rule="in-region-folder",
        clause="invariant 1: nothing leaves unasked",
        remedy="put the repository into the center or a folder that center.toml names as in-region.",
    )


def _refuse_words(law: Mapping[str, Any], payload: Payload) -> Refusal | None:
    """Words the region does not allow for driver assistance (region.toml, [product] banned), in the release notes."""
    product = law.get("product", {})
    text = payload.files[NOTES].decode().casefold()
    for term in product.get("banned", ()):
        if re.search(rf"(?<![a-z]){re.escape(str(term).casefold())}(?![a-z])", text):
            return Refusal(
                code="not_allowed",
                subject=f"notes of {payload.release_id}: {term!r}",
                rule="release-words",
                clause=f"region.toml of {payload.metadata.region}, [product] banned: names must not imply automated driving",
                remedy=f"call it what it is: {product.get('name', 'driver assistance')}; the driver stays responsible.",
            )
    return None


def _refuse_counter(center: Center, payload: Payload, repo: Path) -> Refusal | None:
    """A counter stands for one payload, whoever holds the other: the table, or a repository that knows more than it."""
    rows, counter = _rows(center), payload.metadata.counter
    known = [row for row in rows if row.id == payload.release_id]
    if known and known[0].status == "revoked":
        return _counter_refusal(payload, "a recalled release stays recalled", "train, gate and sign another one.")
    others = [row.counter for row in rows if row.id != payload.release_id]
    offered = tuf.offered_index(repo) or {}
    if offered.get("payload_digest") != payload.digest:
        others.append(int(offered.get("counter", 0)))
    highest = max(others, default=0)
    if counter in others or (not known and highest > counter):
        advice = f"counter {highest} is taken; make the candidate with a higher one."
        return _counter_refusal(payload, "release counters rise", advice)
    return None


def _counter_refusal(payload: Payload, rule: str, remedy: str) -> Refusal:
    return Refusal(
        code="rollback", subject=payload.release_id, rule=rule, clause="onshore release rules", remedy=remedy
    )


# -- what is kept and published ------------------------------------------------------------------------------------


def _keep(center: Center, payload: Payload, verdict: Verdict) -> ReleaseRow:
    facts = payload.metadata
    verdict_id = blob_id(center.region, verdict.to_bytes())
    parents = _known_parents(center, [facts.model_id, verdict_id])
    label = _label(center, parents, "release", synthetic=facts.synthetic or verdict.synthetic)
    kept = center.put(to_archive(payload), label, name=payload.release_id, parents=[parent.id for parent in parents])
    return ReleaseRow(
        id=payload.release_id,
        model=facts.model_id,
        region=facts.region,
        counter=facts.counter,
        gate=facts.gate,
        road_use=facts.road_use,
        payload_digest=payload.digest,
        verdict_digest=verdict.digest,
        synthetic=label.synthetic,
        status="signed",
        artifact=kept.id,
    )


def _kept(center: Center, row: ReleaseRow) -> tuple[Payload, bytes]:
    """A release's payload and the bytes of its verdict, from the center's own store."""
    payload = from_archive(center.read(row.artifact, purpose="release"))
    return payload, center.read(f"{center.region}-sha256-{row.verdict_digest}", purpose="release")


def _publish(
    center: Center, row: ReleaseRow, payload: Payload, verdict: bytes, repo: Path, lifetimes: tuf.Lifetimes | None
) -> None:
    repo.mkdir(parents=True, exist_ok=True)
    tuf.publish(repo, _keys(center), {**payload.files, VERDICT: verdict}, _index(center, row), lifetimes=lifetimes)


def _publish_recall(center: Center, recalled: ReleaseRow, repo: Path) -> None:
    """Beside the release that a repository offers; in its place when that one is recalled too, or not known here."""
    offered = tuf.offered_index(repo) or {}
    standing = [row for row in _rows(center) if row.id == offered.get("release_id") and row.status == "signed"]
    if standing and not offered.get("revoked"):
        payload, verdict = _kept(center, standing[0])
        _publish(center, standing[0], payload, verdict, repo, None)
    else:
        index = {**_index(center, recalled), "revoked": True, "reason": recalled.reason}
        repo.mkdir(parents=True, exist_ok=True)
        tuf.publish(repo, _keys(center), {}, index)


def _index(center: Center, row: ReleaseRow) -> dict[str, Any]:
    """What cars decide by: signed as the custom field of every target file."""
    return {
        "schema_version": 1,
        "region": row.region,
        "counter": row.counter,
        "release_id": row.id,
        "model_id": row.model,
        "payload_digest": row.payload_digest,
        "verdict_digest": row.verdict_digest,
        "road_use": row.road_use,
        "synthetic": row.synthetic,
        "revoked_ids": sorted(known.id for known in _rows(center) if known.status == "revoked"),
    }


def _offered(repo: Path, counter: int) -> tuple[bool, bool]:
    """Whether a repository offers a later release than this one (which is never taken back), and whether it offers this."""
    offered = tuf.offered_index(repo) or {}
    return int(offered.get("counter", 0)) > counter, offered.get("counter") == counter and not offered.get("revoked")


def _one_at_a_time(center: Center) -> AbstractContextManager[None]:
    """What is checked, published and kept is one step, or two processes could give one counter to two payloads."""
    from onshore.store.files import locked

    return locked(center.root / "locks" / "release.lock")


def _keys(center: Center) -> tuf.ReleaseKeys:
    """Release keys lie beside the center's other keys, outside its folder."""
    return tuf.ReleaseKeys.open(center.keys.folder / "release")


def _rows(center: Center) -> list[ReleaseRow]:
    """Oldest first."""
    return sorted((ReleaseRow(**row) for row in center.table(TABLE).rows()), key=lambda row: row.counter)


def _named(center: Center, word: str) -> list[ReleaseRow]:
    rows = [row for row in _rows(center) if word in (row.id, row.payload_digest, row.model)]
    if not rows:
        raise NotFoundError(word, "no release of this center has this id; `release show` lists them.")
    return rows


def _to_recall(center: Center, word: str) -> ReleaseRow:
    """The one release that a word names: a model's other releases are not recalled by guessing which is meant."""
    named = _named(center, word)
    signed = [row for row in named if row.status == "signed"]
    if len(signed) > 1:
        raise UsageError(
            word, f"it names {len(signed)} signed releases: {', '.join(row.id for row in signed)}; name one."
        )
    return (signed or named)[-1]


def _known_parents(center: Center, ids: list[str]) -> list[Artifact]:
    found = {}
    for identity in ids:
        if BLOB_PATTERN.fullmatch(identity):
            try:
                found[identity] = center.artifact(identity)
            except NotFoundError:
                continue
    return list(found.values())


def _label(center: Center, parents: list[Artifact], kind: str, *, synthetic: bool) -> Label:
    if not parents:
        return Label(region=center.region, kind=kind, retention="evidence", synthetic=synthetic)
    label = derive([parent.label for parent in parents], kind=kind, retention="evidence")
    return replace(label, synthetic=label.synthetic or synthetic)
