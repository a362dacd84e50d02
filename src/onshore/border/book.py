"""What the gate believes, read from the ledger in one pass: who may approve, which attestations were seen, what left.

Rule: tables in the center's folder can be edited and counters reset; the ledger cannot unseen. Read again whenever it has
grown; an export verifies it whole first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from onshore.core.errors import CorruptError

if TYPE_CHECKING:
    from onshore.store import Center, LedgerEntry

ENROLLED, DISMISSED = "border.approver", "border.approver.dismissed"
PERSON, PERSON_DISMISSED, CLIENT_CA = "border.person", "border.person.dismissed", "border.client-ca"
PERMIT_APPROVED = "border.permit.approve"
REQUESTED = "border.permit.request"
EXPORT, LEAKAGE = "border.export", "border.leakage"
AUDIT_DRAWN, AUDIT_MARKED = "border.audit.drawn", "border.audit.marked"
#: Lines that name an artifact and the digest of the attestation it was stored with.
ATTESTING = frozenset(["declassified", "segment"])


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One export line: to whom (salted), to which region, what, the file's digest and size, and when (POSIX ns)."""

    recipient: str
    to: str
    artifact: str
    sha256: str
    bytes: int
    time_ns: int


@dataclass(frozen=True, kw_only=True)
class Person:
    """What the ledger says of one enrolled person."""

    roles: frozenset[str]
    region: str


@dataclass(kw_only=True)
class Book:
    """enrolled: digest of a public key -> the approver's salted id. attested: (artifact, attestation digest).

    approvals: (permit, digest of the approver's public key) of every approval that was written down.
    audits, marked: samples of anonymised pictures by artifact, as drawn and as people marked them.
    people: salted id -> roles and region. client_cas: SHA-256 of the certificates whose client certificates count.
    outlived: permits requested before a person had the ledger's time go back: a clock set back revives none of them.
    """

    size: int
    root: bytes
    enrolled: dict[str, str] = field(default_factory=dict)
    attested: set[tuple[str, str]] = field(default_factory=set)
    approvals: set[tuple[str, str | None]] = field(default_factory=set)
    exports: list[Exported] = field(default_factory=list)
    people: dict[str, Person] = field(default_factory=dict)
    client_cas: set[str] = field(default_factory=set)
    ever_enrolled: bool = False
    leakage: dict[str, dict[str, Any]] = field(default_factory=dict)
    audits: dict[str, dict[str, Any]] = field(default_factory=dict)
    marked: dict[str, dict[str, Any]] = field(default_factory=dict)
    requested: set[str] = field(default_factory=set)
    outlived: set[str] = field(default_factory=set)
    time_ns: int = 0

    def take(self, entry: LedgerEntry) -> None:
        body = entry.body
        self.outlived |= self.requested if entry.time_ns < self.time_ns else set()
        self.time_ns = entry.time_ns
        if entry.kind == REQUESTED:
            self.requested.add(body["permit"])
        elif entry.kind == ENROLLED:
            self.enrolled[body["key"]] = body["approver"]
        elif entry.kind == DISMISSED:
            self.enrolled.pop(body["key"], None)
        elif entry.kind == PERSON:
            self.people[body["person"]] = Person(roles=frozenset(body["roles"]), region=body["region"])
            self.ever_enrolled = True
        elif entry.kind == PERSON_DISMISSED:
            self.people.pop(body["person"], None)
        elif entry.kind == CLIENT_CA:
            self.client_cas.add(body["ca"])
        elif entry.kind in ATTESTING and "attestation" in body:
            self.attested.add((body["artifact"], body["attestation"]))
        elif entry.kind == PERMIT_APPROVED:
            self.approvals.add((body["permit"], body.get("key")))  # older lines name no key
        elif entry.kind == LEAKAGE:
            self.leakage[body["weights"]] = body
        elif entry.kind in (AUDIT_DRAWN, AUDIT_MARKED):
            (self.audits if entry.kind == AUDIT_DRAWN else self.marked).setdefault(body["audit"], body)
        elif entry.kind == EXPORT:
            self.exports.append(
                Exported(
                    recipient=body["recipient"],
                    to=body["to"],
                    artifact=body["artifact"],
                    sha256=body["sha256"],
                    bytes=body["bytes"],
                    time_ns=entry.time_ns,
                )
            )


_BOOKS: WeakKeyDictionary[Center, Book] = WeakKeyDictionary()


def read_book(center: Center) -> Book:
    """The ledger's facts as of now."""
    head = center.ledger.head()
    known = _BOOKS.get(center)
    if known is not None and (known.size, known.root) == (head.size, head.root()):
        return known
    book = Book(size=head.size, root=head.root())
    for entry in center.ledger.entries():
        book.take(entry)
    _BOOKS[center] = book
    return book


def verified_book(center: Center) -> Book:
    """The ledger's facts after verifying every byte of it. Errors: CorruptError `ledger_broken`."""
    report = center.ledger.verify()
    if not report.ok:
        advice = "nothing leaves while the ledger does not verify; find out who changed it and restore a copy."
        raise CorruptError("ledger_broken", "ledger", f"{report.problems[0]}; {advice}")
    _BOOKS.pop(center, None)
    return read_book(center)
