"""A permit: who may have which bytes, for what, until when, and the signatures of those who said so.

Rule: pure. A permit is an in-toto statement in a DSSE envelope; its id is the digest of everything it says, so nothing
in it can change without becoming another permit. It counts only with k distinct enrolled keys, none the requester's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from onshore.border.canonical import Tensors, manifest_from_record, manifest_record, strict_json
from onshore.core.digest import BLOB_PATTERN, canonical_json, check_id, record_digest
from onshore.core.errors import InputError, Refusal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:onshore:permit:1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: Never fewer people than this, whatever a permit or a policy file says.
LEAST_APPROVERS = 2
_TEXT = re.compile(r"[\w.,:;()/@ '+-]{1,160}")


@dataclass(frozen=True, kw_only=True)
class Permit:
    """What is permitted. artifact: blob id. to_region, recipient, purpose: who gets it and why. expires_ns: POSIX ns.

    accepts: sensitivities that the artifact still carries and the approvers accept by name. tensors: the manifest that
    weights are rewritten to; tensors_source says who declared it ('declared' by the training, 'self-described' by file).
    network: the network's own description, which travels with the weights so that they can be loaded elsewhere. basis: what
    in law it rests on (an assessment's, contract's or decision's id), where the region asks; unsaid in a permit without one.
    """

    artifact: str
    kind: str
    from_region: str
    to_region: str
    recipient: str
    purpose: str
    requester: str
    issued_ns: int
    expires_ns: int
    threshold: int = LEAST_APPROVERS
    accepts: tuple[str, ...] = ()
    tensors: Tensors | None = None
    tensors_source: str = ""
    network: dict[str, Any] | None = None
    policy: str = ""
    synthetic: bool = False
    basis: str = ""

    def __post_init__(self) -> None:
        if not BLOB_PATTERN.fullmatch(self.artifact):
            raise InputError("bad_id", self.artifact, "a permit names one artifact by its blob id.")
        check_id(self.requester, "requester")
        for name in ("recipient", "purpose", *(["basis"] if self.basis else [])):
            if not _TEXT.fullmatch(getattr(self, name)):
                raise InputError(
                    "permit_invalid", name, "use 1 to 160 letters, digits, spaces and . , : ; ( ) / @ ' + -"
                )
        if not re.fullmatch("[a-z]{2}", self.to_region):
            raise InputError("permit_invalid", f"to_region {self.to_region!r}", "use a two-letter region such as us.")
        if self.threshold < LEAST_APPROVERS or self.expires_ns <= self.issued_ns:
            raise InputError("permit_invalid", "permit", "it needs two approvers at least and an end after its start.")

    @property
    def sha256(self) -> str:
        return self.artifact.rpartition("-")[2]

    @property
    def id(self) -> str:
        return f"permit-{record_digest(self.predicate())[:32]}"

    def predicate(self) -> dict[str, Any]:
        record = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "basis" or self.basis}
        record["accepts"] = list(self.accepts)
        record["tensors"] = None if self.tensors is None else manifest_record(self.tensors)
        return record

    def statement(self) -> bytes:
        """The in-toto statement that approvers sign: canonical JSON."""
        return canonical_json(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.artifact, "digest": {"sha256": self.sha256}}],
                "predicateType": PREDICATE_TYPE,
                "predicate": {**self.predicate(), "id": self.id},
            }
        )

    @classmethod
    def from_statement(cls, payload: bytes) -> Permit:
        """Read a statement back; it must be exactly what `statement` writes, else InputError `permit_invalid`."""
        try:
            record = dict(strict_json(payload, "permit")["predicate"])
            record.pop("id")
            record["accepts"] = tuple(record["accepts"])
            tensors = record["tensors"]
            record["tensors"] = None if tensors is None else manifest_from_record(tensors)
            permit = cls(**record)
        except (InputError, KeyError, TypeError, ValueError) as problem:
            raise _unreadable() from problem
        if permit.statement() != payload:
            raise _unreadable()
        return permit


def _unreadable() -> InputError:
    return InputError("permit_invalid", "permit", "the statement is not one that onshore writes; request a new one.")


@dataclass(frozen=True, kw_only=True)
class Approved:
    """A permit whose signatures were verified: the names of the distinct people who signed, the requester left out."""

    permit: Permit
    approvers: tuple[str, ...] = field(default_factory=tuple)


def envelope(permit: Permit) -> dict[str, Any]:
    """An unsigned DSSE envelope, as a JSON record."""
    from securesystemslib.dsse import Envelope

    record: dict[str, Any] = Envelope(permit.statement(), PAYLOAD_TYPE, {}).to_dict()
    return record


def sign(record: Mapping[str, Any], private_key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope with one more signature; InputError `permit_invalid` when this key has signed already."""
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    opened = open_envelope(record)
    signer = CryptoSigner(private_key)
    if signer.public_key.keyid in opened.signatures:
        raise InputError("permit_invalid", "approval", "this key has approved already; another person has to.")
    opened.sign(signer)
    signed: dict[str, Any] = opened.to_dict()
    return signed


def open_envelope(record: Mapping[str, Any]) -> Any:
    """The DSSE envelope of a record; anything malformed, or one key id twice, is InputError `permit_invalid`."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError

    try:
        copied = {**record, "signatures": [dict(one) for one in record["signatures"]]}
        opened = Envelope.from_dict(copied)
    except (AttributeError, KeyError, TypeError, ValueError, FormatError) as problem:
        raise InputError("permit_invalid", "envelope", "it is no DSSE envelope, or a key signs twice.") from problem
    if opened.payload_type != PAYLOAD_TYPE:
        raise InputError("permit_invalid", "envelope", f"its payload type must be {PAYLOAD_TYPE}.")
    return opened


def verify(record: Mapping[str, Any], keys: Mapping[str, bytes]) -> Approved:
    """The permit with the names of those whose signature holds. keys: enrolled name -> Ed25519 public key (32 bytes).

    One key under two names counts once; the requester's own signature counts for nothing.
    """
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

    opened = open_envelope(record)
    permit = Permit.from_statement(opened.payload)
    names: dict[bytes, str] = {}
    for name, public in sorted(keys.items()):
        names.setdefault(public, name)
    own = keys.get(permit.requester)
    found = []
    for public, name in names.items():
        key = public_key(public)
        signature = opened.signatures.get(key.keyid)
        if signature is None or public == own or name == permit.requester:
            continue
        try:
            key.verify_signature(signature, opened.pae())
        except (UnverifiedSignatureError, VerificationError):
            continue
        found.append(name)
    return Approved(permit=permit, approvers=tuple(sorted(found)))


def public_key(raw: bytes) -> Any:
    """The verification key of 32 Ed25519 bytes; its id is the digest of the key itself."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw))


def objection(
    approved: Approved,
    *,
    artifact: str,
    to_region: str,
    recipient: str | None,
    now_ns: int,
    basis: str = "",
    outlived: bool = False,
) -> Refusal | None:
    """Why this permit does not cover that export at that time, or None. basis: what the region asks a permit to name.

    outlived: the ledger's time went back since it was requested, so that its own says nothing any more.
    """
    permit = approved.permit
    need = max(LEAST_APPROVERS, permit.threshold)
    if permit.artifact != artifact:
        return _no(
            permit, "permit-artifact", "it is for other bytes; a permit covers one digest", "Request one for these."
        )
    if permit.to_region != to_region or (recipient is not None and recipient != permit.recipient):
        return _no(permit, "permit-recipient", "it is for another recipient", "Request one that names this recipient.")
    if now_ns >= permit.expires_ns:
        return _no(permit, "permit-expired", "its time has passed", "Request a new one and have it approved again.")
    if outlived:
        clause = "the clock was turned back since it was requested"
        return _no(permit, "permit-expired", clause, "Request a new one and have it approved again.")
    if now_ns < permit.issued_ns:
        return _no(permit, "permit-early", "it was issued in the future", "Set the clock right and request a new one.")
    if basis and not permit.basis:
        return _no(permit, "permit-basis", f"it names no legal basis ({basis})", "Request one with `--basis`.")
    if len(approved.approvers) < need:
        have = len(approved.approvers)
        clause = f"{have} of {need} distinct people other than the requester have approved"
        return _no(permit, "permit-approvers", clause, "Have `onshore border permit approve` run by another person.")
    return None


def _no(permit: Permit, rule: str, clause: str, remedy: str) -> Refusal:
    return Refusal(code="permit_invalid", subject=permit.id, rule=rule, clause=clause, remedy=remedy)
