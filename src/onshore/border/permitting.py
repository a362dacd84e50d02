"""Permits of one center: requested, approved by distinct people, kept, verified anew at every use.

Rule: the table only keeps envelopes; nothing is believed because the table says it. Every use opens the envelope and
verifies every signature against the keys that the ledger enrolled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from onshore.border import approval
from onshore.border.approval import Approved, Permit
from onshore.border.book import PERMIT_APPROVED, REQUESTED, read_book
from onshore.border.canonical import PARAMETER_TYPES, Tensors, manifest_from_record, manifest_of
from onshore.border.figures import FigureLimits, check_table
from onshore.border.lines import refuse
from onshore.border.networks import manifest_of_network
from onshore.border.people import approver_key, approver_keys, person, pseudonym
from onshore.border.scan import scan
from onshore.core.digest import record_digest, sha256_hex
from onshore.core.errors import InputError, NotFoundError, Refusal
from onshore.core.label import Artifact

if TYPE_CHECKING:
    from onshore.store import Center

DAY_NS = 86_400 * 10**9
LONGEST_DAYS = 366
NETWORK_LIMITS = FigureLimits(k=1, max_values=500, max_list=200, max_word=60)
_TABLE = sa.Table(
    "border_permits",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("artifact", sa.String, nullable=False, index=True),
    sa.Column("envelope", sa.Text, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class PermitRow:
    """A permit as people list it. state: waiting, approved or expired. approvals: distinct people so far."""

    id: str
    artifact: str
    kind: str
    to_region: str
    recipient: str
    purpose: str
    requester: str
    approvers: tuple[str, ...]
    threshold: int
    expires_ns: int
    state: str
    tensors: int
    tensors_source: str
    accepts: tuple[str, ...]
    basis: str


def request_permit(
    center: Center,
    artifact: str,
    *,
    recipient: str,
    to_region: str,
    purpose: str,
    expires_days: float = 30,
    requester: str | None = None,
    threshold: int | None = None,
    basis: str = "",
) -> PermitRow:
    """Ask for a permit for one artifact. Approvers read and sign exactly this; asking allows nothing.

    threshold: approvers needed, the region's unless given, never below it. basis: what in law it rests on, where the region
    asks for that (`[permit] basis`). Errors: InputError `permit_invalid` when a
    field is missing or too long or names a car or a place.
    """
    from onshore.border.gate import one_artifact  # the gate imports this module

    asked = one_artifact(center, artifact)
    law = center.pack.law.get("permit", {})
    longest, least = law.get("valid_days_max", LONGEST_DAYS), law.get("threshold", approval.LEAST_APPROVERS)
    if not 0 < expires_days <= longest:
        raise InputError("permit_invalid", f"expires_days {expires_days}", f"give up to {longest} days.")
    if threshold is not None and threshold < least:
        raise InputError("permit_invalid", f"threshold {threshold}", f"this region needs {least} approvers at least.")
    if law.get("basis") and not basis:
        raise InputError("permit_invalid", "basis", f"this region asks for one: {law['basis']}.")
    if scan(f"{recipient}\n{purpose}\n{basis}".encode()):
        raise InputError(
            "permit_invalid", "recipient, purpose or basis", "they may not name a car, a plate or a position."
        )
    issued_ns = now_ns(center)
    tensors, source = _tensors(center, asked)
    permit = Permit(
        artifact=asked.id,
        kind=asked.label.kind,
        from_region=center.region,
        to_region=to_region,
        recipient=recipient,
        purpose=purpose,
        requester=person(requester or center.actor),
        issued_ns=issued_ns,
        expires_ns=issued_ns + round(expires_days * DAY_NS),
        threshold=threshold or least,
        accepts=tuple(sorted(asked.label.sensitivity)),
        tensors=tensors,
        tensors_source=source,
        network=_network(asked),
        policy=center.pack.digest,
        synthetic=asked.label.synthetic,
        basis=basis,
    )
    center.ledger.append(REQUESTED, _line(center, permit, by=permit.requester))
    _save(center, permit, approval.envelope(permit))
    return _row(center, approval.Approved(permit=permit))


def approve(center: Center, permit_id: str, approver_key_name: str) -> PermitRow:
    """Add one enrolled person's signature. Errors: RefusedError `permit_invalid` for the requester or a second time."""
    name = person(approver_key_name)
    with _alone(center):
        record = envelope_of(center, permit_id)
        permit = approval.verify(record, approver_keys(center)).permit
        if name == permit.requester:
            refuse(center, _not_by(permit_id, "who requests a permit does not approve it"), [permit_id])
        key = approver_key(center, name)
        try:
            signed = approval.sign(record, key)
        except InputError as problem:
            refuse(center, _not_by(permit_id, problem.advice), [permit_id])
        return _keep(center, permit, signed, {name: key.public_key().public_bytes_raw()})


@contextmanager
def _alone(center: Center) -> Iterator[None]:
    """Signing is reading, adding and writing back: of two people who sign at once the second waits for the first."""
    from onshore.store.files import locked

    with locked(center.root / "locks" / "permits.lock"):
        yield


def _not_by(permit_id: str, why: str) -> Refusal:
    return Refusal(
        code="permit_invalid",
        subject=permit_id,
        rule="permit-approvers",
        clause=f"distinct people with distinct keys approve, and not the one who asked; {why}",
        remedy="Have another enrolled person approve.",
    )


def attach(center: Center, permit_id: str, signed: dict[str, Any]) -> PermitRow:
    """Take over signatures made elsewhere: an envelope of the same statement, signed where the approver keeps the key.

    Errors: InputError `permit_invalid` for another statement or no envelope, `bad_signature` when nobody new signed it.
    """
    approval.open_envelope(signed)
    with _alone(center):
        record = envelope_of(center, permit_id)
        if signed["payload"] != record["payload"]:
            raise InputError("permit_invalid", permit_id, "this envelope holds another statement.")
        before = {one["keyid"] for one in record["signatures"]}
        merged = {
            **record,
            "signatures": record["signatures"] + [s for s in signed["signatures"] if s["keyid"] not in before],
        }
        keys = approver_keys(center)
        known, found = approval.verify(record, keys), approval.verify(merged, keys)
        fresh = sorted(set(found.approvers) - set(known.approvers))
        if not fresh:
            raise InputError("bad_signature", permit_id, "no signature of another enrolled person is on it.")
        return _keep(center, found.permit, merged, {name: keys[name] for name in fresh})


def permits(center: Center) -> list[dict[str, Any]]:
    """Every permit of the center as a record, by id; one whose row was changed is listed with state 'tampered'."""
    rows: list[dict[str, Any]] = []
    for permit_id in _ids(center):
        try:
            rows.append(vars(_row(center, verified(center, permit_id))))
        except InputError:
            blank: dict[str, Any] = {one.name: "" for one in fields(PermitRow)}
            rows.append({**blank, "id": permit_id, "state": "tampered"})
    return rows


def verified(center: Center, permit_id: str) -> Approved:
    """The permit with whoever validly signed it, checked now."""
    return approval.verify(envelope_of(center, permit_id), approver_keys(center))


def permits_for(center: Center, artifact: str) -> list[Approved]:
    return [verified(center, permit_id) for permit_id in _ids(center, artifact)]


def envelope_of(center: Center, permit_id: str) -> dict[str, Any]:
    """The DSSE envelope of a permit. Errors: NotFoundError; InputError when the row holds another permit's envelope."""
    table = _table(center)
    with center.db.begin() as connection:
        text = connection.execute(sa.select(table.c.envelope).where(table.c.id == permit_id)).scalar_one_or_none()
    if text is None:
        raise NotFoundError(f"permit {permit_id}", "list them with `onshore border permit list`.")
    changed = InputError("permit_invalid", permit_id, "its statement was changed; request a new one.")
    try:
        record: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise changed from problem
    if Permit.from_statement(approval.open_envelope(record).payload).id != permit_id:
        raise changed
    return record


def now_ns(center: Center) -> int:
    """The wall clock, but never before the ledger's last line: a clock set back revives nothing."""
    return max(time.time_ns(), center.ledger.head().time_ns)


def _tensors(center: Center, artifact: Artifact) -> tuple[Tensors | None, str]:
    """The manifest weights are rewritten to: declared by whoever trained them, else read off the file and said so.

    A network's parameters are not those of its weights (batch norm is folded), so its own are signed.
    """
    if artifact.label.kind == "onnx":
        return manifest_of_network(center.read(artifact.id, purpose="export"), artifact.id), "self-described"
    if artifact.label.kind not in {"weights", "inbound_model"}:
        return None, ""
    declared = artifact.meta.get("tensors", artifact.meta.get("manifest"))
    if declared is not None:
        return manifest_from_record(declared), "declared"
    found = manifest_of(center.read(artifact.id, purpose="export"), artifact.id)
    plain = PARAMETER_TYPES | {"I64"}
    odd = sorted(name for name, (dtype, _) in found.items() if dtype not in plain)
    if odd:
        raise InputError(
            "permit_invalid", f"{artifact.id} tensor {odd[0]}", "it is no parameter, and nobody declared it."
        )
    return found, "self-described"


def _network(artifact: Artifact) -> dict[str, Any] | None:
    """The network's description, if it has one: a small table of plain words and numbers, or InputError."""
    described = artifact.meta.get("trainable")
    if described is None or artifact.label.kind not in {"weights", "inbound_model"}:
        return None
    check_table(described, NETWORK_LIMITS, f"network of {artifact.id}")
    return dict(described)


def _keep(center: Center, permit: Permit, signed: dict[str, Any], signers: dict[str, bytes]) -> PermitRow:
    """The line, then the signature. A line whose signature a kill took is not written again when they sign again."""
    written = read_book(center).approvals
    for name, public in signers.items():
        key = sha256_hex(public)
        if (permit.id, key) not in written:
            center.ledger.append(PERMIT_APPROVED, {**_line(center, permit, by=name), "key": key})
    _save(center, permit, signed)
    return _row(center, verified(center, permit.id))


def _line(center: Center, permit: Permit, *, by: str) -> dict[str, Any]:
    return {
        "permit": permit.id,
        "artifact": permit.artifact,
        "to": permit.to_region,
        "recipient": pseudonym(center, "recipient", permit.recipient),
        "purpose": pseudonym(center, "purpose", permit.purpose),
        "statement": record_digest(permit.predicate()),
        "by": pseudonym(center, "person", by),
    }


def _row(center: Center, approved: Approved) -> PermitRow:
    permit = approved.permit
    state = "approved" if len(approved.approvers) >= permit.threshold else "waiting"
    return PermitRow(
        id=permit.id,
        artifact=permit.artifact,
        kind=permit.kind,
        to_region=permit.to_region,
        recipient=permit.recipient,
        purpose=permit.purpose,
        requester=permit.requester,
        approvers=approved.approvers,
        threshold=permit.threshold,
        expires_ns=permit.expires_ns,
        state="expired" if now_ns(center) >= permit.expires_ns or permit.id in read_book(center).outlived else state,
        tensors=len(permit.tensors or {}),
        tensors_source=permit.tensors_source,
        accepts=permit.accepts,
        basis=permit.basis,
    )


def _save(center: Center, permit: Permit, record: dict[str, Any]) -> None:
    from sqlalchemy.dialects.sqlite import insert

    table = _table(center)
    row = {"id": permit.id, "artifact": permit.artifact, "envelope": json.dumps(record, sort_keys=True)}
    with center.db.begin() as connection:
        written = insert(table).values(row)
        connection.execute(written.on_conflict_do_update(index_elements=["id"], set_={"envelope": row["envelope"]}))


def _ids(center: Center, artifact: str | None = None) -> list[str]:
    table = _table(center)
    asked = sa.select(table.c.id).order_by(table.c.id)
    asked = asked if artifact is None else asked.where(table.c.artifact == artifact)
    with center.db.begin() as connection:
        return list(connection.execute(asked).scalars())


def _table(center: Center) -> sa.Table:
    with center.db.begin() as connection:
        _TABLE.create(connection, checkfirst=True)
    return _TABLE
