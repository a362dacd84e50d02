"""Seeing is export: what a person may see, decided from where their certificate says they belong.

Rule: a viewer is at home only with an X.509 client certificate that verifies against a client CA the ledger enrolled, that
names the region in its subject alternative name `urn:onshore:viewer:<region>:<name>`, and whose person the ledger enrolled
for that same region. Everybody else is abroad, a password or the source address notwithstanding: no address is ever asked
for. From abroad only what has left under a permit is seen, and every attempt is a ledger line (CN-22).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border.book import CLIENT_CA, read_book
from onshore.border.gate import resolve
from onshore.border.lines import acting, refuse
from onshore.border.people import person, pseudonym
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, NotFoundError, Refusal
from onshore.residency import RAW_SENSITIVITIES, Request

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from onshore.core.label import Artifact
    from onshore.store import Center

VIEWER_URN = "urn:onshore:viewer"
CA_DAYS, CERTIFICATE_DAYS = 3650, 365


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks. region: proven or claimed from abroad, empty when nothing says it. why: what it rests on, for people."""

    name: str
    region: str
    at_home: bool
    why: str


def identify(
    center: Center, name: str, certificate: bytes | None = None, *, now: datetime.datetime | None = None
) -> Viewer:
    """The viewer behind a name and a client certificate (PEM, intermediates behind it); whoever calls has seen proof
    that the other side holds its key (TLS, or `prove_possession`). now: aware UTC."""
    name = person(name)
    enrolled = read_book(center).people.get(pseudonym(center, "person", name))
    belongs = enrolled.region if enrolled else ""
    abroad = belongs if belongs != center.region else ""
    if certificate is None:
        return Viewer(name=name, region=abroad, at_home=False, why="an account without a certificate counts as abroad")
    try:
        region = _certified_region(center, name, certificate, now or datetime.datetime.now(datetime.UTC))
    except InputError as problem:
        return Viewer(name=name, region=abroad, at_home=False, why=problem.advice)
    if enrolled is None:
        return Viewer(name=name, region=region, at_home=False, why="nobody of this name is enrolled")
    if region != center.region or belongs != center.region:
        other = region if region != center.region else belongs
        return Viewer(name=name, region=other, at_home=False, why=f"belongs to {other}")
    return Viewer(name=name, region=region, at_home=True, why="certificate and enrolment name this region")


def may_view(center: Center, viewer: Viewer, artifact: Artifact) -> Refusal | None:
    """None when this person may see what the artifact shows; moves nothing and writes nothing."""
    if not viewer.at_home:
        return None if _cleared(center, viewer, artifact) else _abroad(viewer, artifact.id)
    return center.rules.decide(
        Request(
            action="show",
            label=artifact.label,
            region=center.region,
            actor=viewer.name,
            role=center.role,
            artifact=artifact.id,
        )
    )


def view(center: Center, viewer: Viewer, name: str) -> None:
    """May this person see the record called `name` (an id or digest)? A look from abroad is a ledger line either way.

    Errors: RefusedError `not_cleared`.
    """
    if viewer.at_home:
        return
    try:
        found, identity = resolve(center, name)
    except NotFoundError:
        found, identity = [], sha256_hex(name.encode())  # what there is not is not told from abroad either
    ids = [one.id for one in found] or [identity]
    if not found or not all(_cleared(center, viewer, one) for one in found):
        refuse(center, _abroad(viewer, ids[0]), ids)
    center.ledger.append("border.view", {"artifacts": ids, "to": viewer.region, "by": acting(center)})


def visible(center: Center, viewer: Viewer, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows (each with an `id`) that this person may see; a list asked for from abroad is a ledger line."""
    rows = list(rows)
    if viewer.at_home:
        return rows
    kept = [row for row in rows if _row_cleared(center, viewer, str(row.get("id", "")))]
    body = {"shown": len(kept), "hidden": len(rows) - len(kept), "to": viewer.region, "by": acting(center)}
    center.ledger.append("border.view.list", body)
    return kept


def refuse_abroad(center: Center, viewer: Viewer, verb: str) -> None:
    """A verb that cannot show cleared things alone is refused from abroad, with its ledger line."""
    if not viewer.at_home:
        refuse(center, _abroad(viewer, verb), [])


def _row_cleared(center: Center, viewer: Viewer, name: str) -> bool:
    try:
        found = resolve(center, name)[0]
    except NotFoundError:
        return False
    return bool(found) and all(_cleared(center, viewer, one) for one in found)


def _cleared(center: Center, viewer: Viewer, artifact: Artifact) -> bool:
    """It has left under a permit to the viewer's region; to any, when nothing says where the viewer is."""
    label = artifact.label
    if label.kind == "raw_drive" or label.sensitivity & RAW_SENSITIVITIES:
        return False
    sent = {one.to for one in read_book(center).exports if one.artifact == artifact.id}
    return viewer.region in sent if viewer.region else bool(sent)


def _abroad(viewer: Viewer, subject: str) -> Refusal:
    return Refusal(
        code="not_cleared",
        subject=f"show {subject}",
        rule="seeing-is-export",
        clause=f"CN-22: access from abroad is export; this viewer counts as abroad: {viewer.why}",
        remedy="Show the client certificate of an enrolled person of this region, or ask for an export permit.",
    )


# -- certificates -----------------------------------------------------------------------------------------------------


def trust_client_ca(center: Center, pem: bytes) -> str:
    """Accept client certificates of this CA (PEM) from now on; returns its SHA-256. A ledger line; again is a no-op."""
    ca = _loaded(pem)[0]
    digest = _digest(ca)
    _keep(center, f"ca-{digest[:16]}.pem", pem, 0o644)
    if digest not in read_book(center).client_cas:
        center.ledger.append(CLIENT_CA, {"ca": digest, "by": acting(center)})
    return digest


def issue_certificate(center: Center, name: str, *, region: str | None = None) -> bytes:
    """A client certificate and its key (PEM) for `name` from the center's own CA, made on first use in the key folder.

    For a center without a CA of its site; in service the site's CA issues, and the center trusts it (`trust_client_ca`).
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca, ca_key = _own_ca(center)
    key = ec.generate_private_key(ec.SECP256R1())
    urn = f"{VIEWER_URN}:{region or center.region}:{person(name)}"
    signed = _certificate(person(name), key.public_key(), ca_key, issuer=ca, urn=urn, days=CERTIFICATE_DAYS)
    return signed.public_bytes(serialization.Encoding.PEM) + _key_pem(key)


def prove_possession(pem: bytes) -> None:
    """Sign a fresh challenge with the key in `pem` and verify it with its certificate. Errors: InputError."""
    import secrets

    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    challenge = secrets.token_bytes(32)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        public = _loaded(pem)[0].public_key()
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError("use an elliptic-curve key")
        public.verify(key.sign(challenge, ec.ECDSA(hashes.SHA256())), challenge, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, InvalidSignature) as fault:
        advice = "give one PEM file with the certificate and the private key that belongs to it."
        raise InputError("bad_signature", "client certificate", advice) from fault


def kept_certificate(center: Center, name: str) -> bytes | None:
    """The certificate and key that lie in the key folder for this name, where there are any."""
    path = _folder(center) / f"{person(name)}.pem"
    return path.read_bytes() if path.is_file() else None


def keep_certificate(center: Center, name: str, pem: bytes) -> Path:
    """Keep a person's certificate and key in the key folder (0600), for the command on this machine."""
    return _keep(center, f"{person(name)}.pem", pem, 0o600)


def _certified_region(center: Center, name: str, pem: bytes, now: datetime.datetime) -> str:
    """The region a certificate proves for `name`. Errors: InputError `bad_signature` saying why it proves none."""
    from cryptography.x509 import UniformResourceIdentifier
    from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

    leaf, *between = _loaded(pem)
    trusted = _trusted_cas(center)
    if not trusted:
        raise InputError("bad_signature", "client certificate", "this center trusts no client CA")
    verifier = PolicyBuilder().store(Store(trusted)).time(now.replace(tzinfo=None)).build_client_verifier()
    try:
        subjects: Sequence[Any] = verifier.verify(leaf, between).subjects or ()
    except VerificationError as fault:
        raise InputError("bad_signature", "client certificate", f"it does not verify ({fault})") from fault
    uris = [one.value for one in subjects if isinstance(one, UniformResourceIdentifier)]
    found = [uri.split(":") for uri in uris if uri.startswith(f"{VIEWER_URN}:")]
    if len(found) != 1 or len(found[0]) != 5 or found[0][4] != name:
        raise InputError("bad_signature", "client certificate", "it does not name this person and one region")
    return str(found[0][3])


def _trusted_cas(center: Center) -> list[x509.Certificate]:
    enrolled = read_book(center).client_cas
    found = [_loaded(path.read_bytes())[0] for path in sorted(_folder(center).glob("ca-*.pem"))]
    return [ca for ca in found if _digest(ca) in enrolled]


def _own_ca(center: Center) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    kept = _folder(center) / "own-ca.pem"
    if not kept.is_file():
        key = ec.generate_private_key(ec.SECP256R1())
        ca = _certificate(f"onshore {center.id}", key.public_key(), key, issuer=None, urn=None, days=CA_DAYS)
        _keep(center, kept.name, ca.public_bytes(serialization.Encoding.PEM) + _key_pem(key), 0o600)
    pem = kept.read_bytes()
    ca = _loaded(pem)[0]
    trust_client_ca(center, ca.public_bytes(serialization.Encoding.PEM))
    own = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(own, ec.EllipticCurvePrivateKey):
        raise InputError("bad_signature", kept.name, "the center's own CA has an elliptic-curve key; restore it.")
    return ca, own


def _certificate(
    name: str,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    urn: str | None,
    days: int,
) -> x509.Certificate:
    """A CA (no issuer) or a client certificate, as RFC 5280 and the verifier's profile ask."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    made = x509.CertificateBuilder().subject_name(named).issuer_name(issuer.subject if issuer else named)
    made = made.public_key(public).serial_number(x509.random_serial_number())
    made = made.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=urn is None, path_length=None), critical=True)
    made = made.add_extension(_usage(ca=urn is None), critical=True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    made = made.add_extension(authority, critical=False)
    if urn is not None:
        made = made.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(urn)]), critical=False)
        made = made.add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return made.sign(signer, hashes.SHA256())


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, kind, plain)


def _loaded(pem: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as fault:
        raise InputError("bad_signature", "client certificate", "it is no certificate in PEM") from fault


def _digest(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def _folder(center: Center) -> Path:
    return Path(center.keys.folder) / "people"


def _keep(center: Center, name: str, data: bytes, mode: int) -> Path:
    from onshore.store.files import write_durably

    folder = _folder(center)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(folder / name, data, scratch=folder, mode=mode)
    return folder / name
