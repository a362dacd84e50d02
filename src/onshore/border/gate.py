"""The gate: the one way out of a center, and the questions asked before anything takes it.

Rule: every answer, yes or no, is a ledger line of digests and salted ids, written before any file. The controls are
asked in one order and each alone refuses a raw export: the ban in code, lineage, policy, kind, permit, audit, leakage,
rewriting, scanning, budget. Files are made anew, under fixed names and times, by fsync and rename.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border import approval, audit, budgets, leakage
from onshore.border.ancestry import finder
from onshore.border.approval import Approved
from onshore.border.book import EXPORT, read_book, verified_book
from onshore.border.canonical import packed, rewrite_weights
from onshore.border.figures import FigureLimits, rewrite_figures
from onshore.border.lineage import faults
from onshore.border.lines import acting, refuse, refuse_if
from onshore.border.networks import parameters_of, rewrite_network
from onshore.border.outside import check_name, place
from onshore.border.people import BORDER_LOCK, pseudonym
from onshore.border.permitting import envelope_of, now_ns, permits_for, verified
from onshore.border.scan import Finding, scan, weight_findings
from onshore.core.digest import BLOB_PATTERN, blob_id_of, canonical_json, record_digest, sha256_hex
from onshore.core.errors import InputError, NotFoundError, OnshoreError, Refusal, UsageError
from onshore.core.label import Artifact, Label
from onshore.residency import RAW_SENSITIVITIES, PermitFacts, Request

if TYPE_CHECKING:
    from onshore.store import Center, LedgerEntry

#: What this gate knows how to write anew. Anything else stays, whatever a policy file says.
WEIGHTS, NETWORKS = frozenset(["weights"]), frozenset(["onnx"])
FIGURES = frozenset(["metrics", "report", "evidence"])
ENDING = {"weights": "safetensors", "inbound_model": "safetensors", "segment": "mcap", "onnx": "onnx"}
NOT_MEASURABLE = "not measurable"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer for one artifact: None means allowed. entry: the ledger line that records it."""

    artifact: str
    refusal: Refusal | None
    entry: LedgerEntry


@dataclass(frozen=True, kw_only=True)
class Outbound:
    """One artifact on its way to one place, with the permit shown for it."""

    center: Center
    artifact: Artifact
    to_region: str
    permit: Approved | None
    recipient: str | None
    now_ns: int

    @cached_property
    def parent_of(self) -> Callable[[str], Artifact]:
        """Ancestors by id, each read once however many controls ask."""
        return finder(self.center, self.artifact)


#: A leakage certificate's check: given what leaves and the bytes, a refusal, or the finding to record.
Certificate = Callable[[Outbound, bytes], "Refusal | str"]


def check(center: Center, artifact: str, to: str, *, permit: str | None = None) -> Decision:
    """May this leave for region `to`? `artifact`: digest, id (drive, segment, clip, dataset, model), name, or a file.

    Moves nothing. Without `permit`, an approved one for the same bytes and region counts if there is one.
    Errors: NotFoundError when it is neither an id nor a file.
    """
    found, identity = resolve(center, artifact)
    refusal = _unlabelled(identity) if not found else None
    for one in found:
        try:
            shown = [verified(center, permit)] if permit else permits_for(center, one.id)
        except InputError as problem:
            refusal = refusal or _permit_unreadable(problem)
            continue
        refusal = refusal or _answer(center, one, to, shown)
    return _recorded(center, identity, to, refusal)


def export(
    center: Center,
    artifact: str,
    *,
    permit: str,
    out_dir: str | Path,
    recipient: str | None = None,
    certificates: Iterable[Certificate] = (),
) -> Path:
    """Write one artifact outside under a permit; returns the file. Its permit lies beside it as `<name>.permit.json`.

    recipient: if given, the permit must name it. certificates: leakage checks; without one the record says
    'not measurable'. The same export again writes the same bytes. Errors: RefusedError, its line is in the ledger;
    CorruptError `ledger_broken` when the ledger does not verify.
    """
    from onshore.store.files import locked

    # Whoever waited for the lock asks only then: a permit may have ended meanwhile, or an approver have been dismissed.
    with locked(center.root / "locks" / BORDER_LOCK):
        verified_book(center)
        one = one_artifact(center, artifact)
        shown = _shown(center, permit)
        outbound = Outbound(
            center=center,
            artifact=one,
            to_region=shown.permit.to_region,
            permit=shown,
            recipient=recipient,
            now_ns=now_ns(center),
        )
        data, remembered = _cleared(outbound, tuple(certificates))
        record = _export_record(outbound, data, remembered)
        entry = center.ledger.append(EXPORT, record)
        name = f"{one.label.kind}-{sha256_hex(data)[:32]}.{ENDING.get(one.label.kind, 'json')}"
        companion = {
            "envelope": envelope_of(center, permit),
            "export": record,
            "entry": entry.index,
            "leaf": entry.leaf,
        }
        place(Path(out_dir), f"{name}.permit.json", canonical_json(companion))
        return place(Path(out_dir), name, data)


def write_out(
    center: Center,
    what: Mapping[str, bytes] | Iterable[str],
    out_dir: str | Path,
    permit: str | None = None,
    *,
    kind: str = "report",
) -> list[Path]:
    """Write bytes (name -> bytes, of one kind) or stored artifacts into a folder; returns the files.

    Free only in a folder that center.toml names as in-region. Elsewhere each must be a stored artifact with a permit and
    takes the way of `export`. Errors: RefusedError `not_in_region`, InputError `unsafe_path` for a name with a path.
    """
    folder = Path(out_dir)
    named = dict(what) if isinstance(what, Mapping) else {}
    stored = [] if isinstance(what, Mapping) else [one for item in what for one in _known(center, item)]
    for name in named:
        check_name(name)
    if not center.in_region(folder):
        if permit is None or named:
            refuse(
                center, _not_in_region(folder), [sha256_hex(data) for data in named.values()] or [a.id for a in stored]
            )
        return [export(center, one.id, permit=permit, out_dir=folder) for one in stored]
    for one in stored:
        refuse_if(center, _ask(center, one, "show", None), [one.id])
    files = named | {_file_name(one): center.read(one.id, purpose="show") for one in stored}
    parents = [one.id for one in stored]
    _line_for_folder(center, kind, {name: sha256_hex(data) for name, data in files.items()}, parents)
    return [place(folder, name, data) for name, data in sorted(files.items())]


def open_folder(center: Center, artifacts: Iterable[str], out_dir: str | Path, *, kind: str) -> Path:
    """Clearance for a writer that makes its own files in a folder (a recording's export, a report): in-region only.

    Asks for each artifact, writes the ledger line, and returns the resolved folder. Errors: RefusedError.
    """
    folder = Path(out_dir).resolve()
    found = [one for item in artifacts for one in _known(center, item) if one.label.kind != "raw_drive"]
    if not center.in_region(folder):
        refuse(center, _not_in_region(folder), [one.id for one in found])
    for one in found:
        refuse_if(center, _ask(center, one, "show", None), [one.id])
    _line_for_folder(center, kind, {}, [one.id for one in found])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- what a name means ------------------------------------------------------------------------------------------------


def resolve(center: Center, name: str) -> tuple[list[Artifact], str]:
    """As `_resolve`; an artifact whose label cannot be read counts as bytes without one."""
    try:
        return _resolve(center, name)
    except InputError as problem:
        if problem.code != "unlabelled":
            raise
        return [], name


def _resolve(center: Center, name: str) -> tuple[list[Artifact], str]:
    """The stored artifacts behind a name (a drive's originals first), and the identity the ledger gets.

    A file whose bytes the center holds is that artifact, wherever it lies; other bytes have no label: ([], blob id).
    """
    if BLOB_PATTERN.fullmatch(name):
        return [center.artifact(name)], name
    found = _by_name(center, name)
    if found:
        return found, found[0].id if len(found) == 1 else name
    path = Path(name)
    if not path.is_file():
        raise NotFoundError(name, "give a digest, the id of a drive, segment, clip, dataset or model, or a file.")
    identity = blob_id_of(center.region, _file_sha256(path))
    try:
        return [center.artifact(identity)], identity
    except NotFoundError:
        return [], identity


def one_artifact(center: Center, name: str) -> Artifact:
    """The one artifact behind a name. Errors: NotFoundError, RefusedError `unlabelled`, UsageError for several."""
    found, identity = resolve(center, name)
    if not found:
        refuse(center, _unlabelled(identity), [identity])
    if len(found) > 1:
        raw = [one for one in found if one.label.kind == "raw_drive"]
        if raw:
            return raw[0]  # the strictest part answers for the whole
        raise UsageError(name, f"it stands for {len(found)} artifacts; name one by its digest.")
    return found[0]


def _by_name(center: Center, name: str) -> list[Artifact]:
    found = {one.id: one for one in center.artifacts(name=name)} if name else {}
    for one in _by_row(center, name):
        found.setdefault(one.id, one)
    if name.startswith("drive-"):
        for one in center.artifacts(kind="raw_drive"):
            if name in (one.name, one.meta.get("drive"), one.meta.get("drive_id")):
                found.setdefault(one.id, one)
    return sorted(found.values(), key=lambda one: (one.label.kind != "raw_drive", one.id))


def _by_row(center: Center, name: str) -> list[Artifact]:
    """Artifacts that the catalog's rows for this drive, segment, clip or dataset point to; a clip takes its own kind."""
    kind = name.partition("-")[0]
    if kind not in {"drive", "segment", "clip", "dataset"}:
        return []
    rows = center.table(f"{kind}s").rows(where=f"id = '{_quoted(name)}'")
    if kind == "drive":
        rows = rows + center.table("segments").rows(where=f"drive = '{_quoted(name)}'")
    if kind == "clip":
        rows = [s for r in rows for s in center.table("segments").rows(where=f"id = '{_quoted(str(r['segment']))}'")]
    ids = {value for row in rows for value in _blob_ids(row)}
    held = _still_here(center, ids)
    if kind in {"segment", "clip"}:  # a drive's id means its originals too; a segment is what was made of them
        held = [one for one in held if one.label.kind != "raw_drive"]
    return [_as_clip(one) for one in held] if kind == "clip" else held


def _still_here(center: Center, ids: Iterable[str]) -> list[Artifact]:
    """The artifacts of these ids; what retention or erasure has taken is left out."""
    found = []
    for identity in sorted(ids):
        try:
            found.append(center.artifact(identity))
        except NotFoundError:
            continue
    return found


def _as_clip(one: Artifact) -> Artifact:
    label = Label.from_record({**one.label.as_record(), "kind": "clip"})
    return Artifact(
        id=one.id, label=label, parents=one.parents, size_bytes=one.size_bytes, meta=one.meta, name=one.name
    )


def _blob_ids(value: Any) -> list[str]:
    if isinstance(value, str):
        return [match.group() for match in BLOB_PATTERN.finditer(value)]
    if isinstance(value, dict):
        return [found for item in value.values() for found in _blob_ids(item)]
    if isinstance(value, list | tuple):
        return [found for item in value for found in _blob_ids(item)]
    return []


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _known(center: Center, name: str) -> list[Artifact]:
    found, identity = resolve(center, name)
    if not found:
        refuse(center, _unlabelled(identity), [identity])
    return found


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


# -- the controls -----------------------------------------------------------------------------------------------------


def _answer(center: Center, one: Artifact, to: str, shown: list[Approved]) -> Refusal | None:
    """The first refusal, or None; of several permits shown the one that goes furthest counts."""
    if to == center.region:
        return _ask(center, one, "show", None)
    tried: list[Approved | None] = [*shown] or [None]
    answers = [
        _refusal(Outbound(center=center, artifact=one, to_region=to, permit=p, recipient=None, now_ns=now_ns(center)))
        for p in tried
    ]
    return None if None in answers else answers[-1]


def _refusal(outbound: Outbound) -> Refusal | None:
    """Every control that needs no bytes, in order."""
    for control in (_raw_again, _lineage, _policy, _kind, _permit, _audit, _leakage):
        refusal = control(outbound)
        if refusal is not None and refusal.code == "permit_invalid":
            return _permit(outbound) or refusal  # it names which part of the permit is wrong
        if refusal is not None:
            return refusal
    return None


def _raw_again(outbound: Outbound) -> Refusal | None:
    """The gate's own ban; it shares no line with the policy or with residency's ban."""
    label = outbound.artifact.label
    if label.kind == "raw_drive" or label.retention == "raw" or label.sensitivity & RAW_SENSITIVITIES:
        return Refusal(
            code="raw_ban",
            subject=f"export {outbound.artifact.id}",
            rule="raw-ban",
            clause="raw recordings and what identifies people never leave (CN-03, CN-21, US-02)",
            remedy="Only weights and figures made of anonymised segments may be asked to leave.",
        )
    return None


def _lineage(outbound: Outbound) -> Refusal | None:
    """Labels are claims: what the ancestors carried must be on the label or in an attestation."""
    target = outbound.artifact
    seen = read_book(outbound.center).attested
    try:
        found = faults(target, outbound.parent_of, lambda artifact, digest: (artifact, digest) in seen)
    except OnshoreError as problem:
        return _lineage_refusal(target.id, f"an ancestor cannot be read ({problem.code})", raw=False)
    if not found:
        return None
    worst = next((fault for fault in found if fault.is_raw), found[0])
    lost = f": {', '.join(sorted(worst.missing))}" if worst.missing else ""
    return _lineage_refusal(worst.artifact, f"{worst.what}{lost}", raw=worst.is_raw)


def _lineage_refusal(artifact: str, what: str, *, raw: bool) -> Refusal:
    return Refusal(
        code="raw_ban" if raw else "not_cleared",
        subject=f"export {artifact}",
        rule="lineage",
        clause=f"labels are the union of their parents' unless a declassifier attests a removal; {what}",
        remedy="Make it again from anonymised parents through the stages that derive its label.",
    )


def _policy(outbound: Outbound) -> Refusal | None:
    """Cedar and residency's ban in code; whatever goes wrong there is a no."""
    return _ask(outbound.center, outbound.artifact, "export", outbound)


def _ask(center: Center, one: Artifact, action: str, outbound: Outbound | None) -> Refusal | None:
    shown = outbound.permit if outbound else None
    try:
        refusal = center.rules.decide(
            Request(
                action=action,
                label=center.effective(one.label),
                region=center.region,
                actor=center.actor,
                role=center.role,
                recipient_region=outbound.to_region if outbound else None,
                purpose=shown.permit.purpose if shown else "",
                permit=_facts(shown) if shown else None,
                artifact=one.id,
                now_s=(outbound.now_ns if outbound else now_ns(center)) // 10**9,
            )
        )
    except Exception:  # a rule engine that breaks has not said yes
        return _no_decision(action, one.id)
    return refusal if refusal is None or isinstance(refusal, Refusal) else _no_decision(action, one.id)


def _shown(center: Center, permit: str) -> Approved:
    """The permit, verified now; one that was tampered with is a refusal with its line."""
    try:
        return verified(center, permit)
    except InputError as problem:
        refuse(center, _permit_unreadable(problem), [permit])


def _permit_unreadable(problem: InputError) -> Refusal:
    return Refusal(
        code="permit_invalid",
        subject=problem.subject,
        rule="permit-statement",
        clause=f"a permit is exactly the statement that was signed; {problem.advice}",
        remedy="Find out who changed it; request a new one and have it approved.",
    )


def _facts(shown: Approved) -> PermitFacts:
    permit = shown.permit
    return PermitFacts(
        id=permit.id,
        artifacts=frozenset([permit.artifact]),
        kinds=frozenset([permit.kind]),
        recipient_region=permit.to_region,
        purpose=permit.purpose,
        expires_s=permit.expires_ns // 10**9,
        approvals=len(shown.approvers),
        threshold=permit.threshold,
        accepts=frozenset(permit.accepts),
    )


def _kind(outbound: Outbound) -> Refusal | None:
    kind = outbound.artifact.label.kind
    if kind in WEIGHTS | NETWORKS | FIGURES:
        return None
    return Refusal(
        code="not_cleared",
        subject=f"export {outbound.artifact.id}",
        rule="kinds-that-leave",
        clause=f"only weights, networks and figures can be written anew; {kind} would be copied, with what nobody saw in it",
        remedy="Export the weights, their ONNX or the metrics instead.",
    )


def _permit(outbound: Outbound) -> Refusal | None:
    """The permit in code as well as in Cedar: a policy file that allows everything still needs two people."""
    if outbound.permit is None:
        return Refusal(
            code="permit_invalid",
            subject=f"export {outbound.artifact.id}",
            rule="permit-needed",
            clause="no export without a permit (CN-02; US-02)",
            remedy="Ask with `onshore border permit request`; two other people approve it.",
        )
    return approval.objection(
        outbound.permit,
        artifact=outbound.artifact.id,
        to_region=outbound.to_region,
        recipient=outbound.recipient,
        now_ns=outbound.now_ns,
        basis=str(outbound.center.pack.law.get("permit", {}).get("basis", "")),
        outlived=outbound.permit.permit.id in read_book(outbound.center).outlived,
    )


def _audit(outbound: Outbound) -> Refusal | None:
    """What was trained on pictures is as anonymous as those were found to be."""
    one = outbound.artifact
    return audit.objection(outbound.center, one, outbound.parent_of) if one.label.kind in WEIGHTS | NETWORKS else None


def _leakage(outbound: Outbound) -> Refusal | None:
    one = outbound.artifact
    return leakage.objection(outbound.center, one, outbound.parent_of) if one.label.kind in WEIGHTS | NETWORKS else None


def _cleared(outbound: Outbound, certificates: tuple[Certificate, ...]) -> tuple[bytes, str]:
    """The bytes that may leave, made anew, and what is known of leakage; RefusedError with its ledger line otherwise."""
    center, one = outbound.center, outbound.artifact
    ids = [one.id]
    refuse_if(center, _refusal(outbound), ids)
    data = _made_anew(outbound)
    if isinstance(data, Refusal):
        refuse(center, data, ids)
    found = scan(data)
    if one.label.kind in NETWORKS:
        found += weight_findings(packed(parameters_of(data, one.id)))
    found += weight_findings(data) if one.label.kind in WEIGHTS else []
    if found:
        refuse(center, _scanned(one.id, found), ids)
    known = leakage.told(center, one, outbound.parent_of) if one.label.kind in WEIGHTS | NETWORKS else NOT_MEASURABLE
    for certificate in certificates:
        finding = certificate(outbound, data)
        if isinstance(finding, Refusal):
            refuse(center, finding, ids)
        known = finding
    refuse_if(center, _over_budget(outbound, data), ids)
    return data, known


def _over_budget(outbound: Outbound, data: bytes) -> Refusal | None:
    fresh = (outbound.artifact.id, sha256_hex(data))
    return budgets.objection(outbound.center, _recipient(outbound), fresh, len(data), outbound.now_ns)


def _made_anew(outbound: Outbound) -> bytes | Refusal:
    one, shown = outbound.artifact, outbound.permit
    data = outbound.center.read(one.id, purpose="export")
    try:
        if one.label.kind in WEIGHTS | NETWORKS:
            if shown is None or shown.permit.tensors is None:
                raise InputError("not_cleared", one.id, "the permit carries no tensor manifest.")
            rewrite = rewrite_weights if one.label.kind in WEIGHTS else rewrite_network
            return rewrite(data, shown.permit.tensors, one.id)
        return rewrite_figures(data, FigureLimits.from_law(outbound.center.pack.law), one.id)
    except InputError as problem:
        return Refusal(
            code="not_cleared",
            subject=problem.subject,
            rule="made-anew",
            clause=f"what leaves is rewritten from its manifest or schema; {problem.advice}",
            remedy="Train or measure again so that the artifact holds only what its manifest names.",
        )


def _scanned(artifact: str, found: list[Finding]) -> Refusal:
    what = "; ".join(sorted({f"{finding.kind}: {finding.what}" for finding in found})[:4])
    return Refusal(
        code="not_cleared",
        subject=f"export {artifact}",
        rule="content-scan",
        clause=f"nothing that leaves carries pictures, code, archives, vehicle numbers or positions; found {what}",
        remedy="Find out how it got there; make the artifact again without it.",
    )


def _no_decision(action: str, artifact: str) -> Refusal:
    return Refusal(
        code="no_decision",
        subject=f"{action} {artifact}",
        rule="default-deny",
        clause="the policy gave no clean answer",
        remedy="Check the region pack's policy.cedar; until it answers, the answer is no.",
    )


def _unlabelled(identity: str) -> Refusal:
    return Refusal(
        code="unlabelled",
        subject=f"export {identity}",
        rule="labelled",
        clause="every artifact has a label; bytes that the center never labelled do not exist for it",
        remedy="Bring it in through `onshore drive add` or `onshore border import`, which label it.",
    )


def _not_in_region(folder: Path) -> Refusal:
    return Refusal(
        code="not_in_region",
        subject=f"write into {folder.name}",
        rule="one-exit",
        clause="a folder that center.toml does not name as in-region is outside (CN-01, US-02)",
        remedy="Choose a folder named in-region, or export one artifact with `onshore border export --permit`.",
    )


# -- the ledger's lines -----------------------------------------------------------------------------------------------


def _recorded(center: Center, identity: str, to: str, refusal: Refusal | None) -> Decision:
    body: dict[str, Any] = {
        "artifact": _public_identity(center, identity),
        "to": to,
        "by": acting(center),
    }
    body |= {"allowed": refusal is None, **({"code": refusal.code, "rule": refusal.rule} if refusal else {})}
    return Decision(artifact=identity, refusal=refusal, entry=center.ledger.append("border.check", body))


def _public_identity(center: Center, identity: str) -> str:
    """Ids are digests already; a name somebody chose is salted."""
    return identity if BLOB_PATTERN.fullmatch(identity) else pseudonym(center, "artifact", identity)


def _recipient(outbound: Outbound) -> str:
    name = outbound.permit.permit.recipient if outbound.permit else ""
    return pseudonym(outbound.center, "recipient", name)


def _export_record(outbound: Outbound, data: bytes, remembered: str) -> dict[str, Any]:
    center, one, shown = outbound.center, outbound.artifact, outbound.permit
    permit = shown.permit if shown else None
    return {
        "artifact": one.id,
        "kind": one.label.kind,
        "sha256": sha256_hex(data),
        "bytes": len(data),
        "to": outbound.to_region,
        "recipient": _recipient(outbound),
        "purpose": pseudonym(center, "purpose", permit.purpose) if permit else "",
        "permit": permit.id if permit else "",
        "approvers": sorted(pseudonym(center, "person", name) for name in (shown.approvers if shown else ())),
        "accepts": list(permit.accepts) if permit else [],
        "tensors": permit.tensors_source if permit else "",
        "synthetic": one.label.synthetic,
        "leakage": remembered,
        "policy": center.pack.digest,
        "trust": "self-attested",
        "by": acting(center),
    }


def _line_for_folder(center: Center, kind: str, digests: dict[str, str], artifacts: list[str]) -> None:
    body: dict[str, Any] = {"kind": kind, "files": len(digests), "artifacts": len(artifacts), "in_region": True}
    body |= {"digest": record_digest([sorted(digests.values()), sorted(artifacts)])}
    body |= {"by": acting(center)}
    center.ledger.append("border.in-region", body)


def _file_name(one: Artifact) -> str:
    return f"{one.label.kind.replace('_', '-')}-{one.id.rpartition('-')[2][:32]}.{ENDING.get(one.label.kind, 'json')}"
