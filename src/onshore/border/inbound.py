"""The gate inwards: weights from elsewhere, parsed strictly, written anew, labelled as this region's with their origin.

Rule: only safetensors. A pickle is never opened, an archive never unpacked, a second file in one file never kept. What
comes in belongs to this region from then on; where it came from stays in its facts and in the ledger.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border import approval
from onshore.border.canonical import Tensors, manifest_from_record, manifest_of, manifest_record, rewrite_weights
from onshore.border.figures import check_table
from onshore.border.lines import acting
from onshore.border.permitting import NETWORK_LIMITS
from onshore.border.scan import is_pickle, scan, weight_findings
from onshore.core.digest import blob_id_of, record_digest, sha256_hex
from onshore.core.errors import InputError, NotFoundError, OnshoreError, Refusal, RefusedError
from onshore.core.label import Artifact, Label
from onshore.residency import Request

if TYPE_CHECKING:
    from onshore.store import Center

IMPORT_LIMIT_BYTES = 8 << 30
KINDS = frozenset(["inbound_model", "weights"])
UNKNOWN_REGION = "xx"
COMPANION_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a file says it comes from. trust: 'unsigned', 'claimed' (a permit nobody here can verify) or 'verified'."""

    region: str = UNKNOWN_REGION
    permit: str = ""
    artifact: str = ""
    synthetic: bool = False
    trust: str = "unsigned"
    tensors: Tensors | None = None
    network: dict[str, Any] | None = None


def import_file(
    center: Center,
    path: str | Path,
    *,
    kind: str = "inbound_model",
    tensors: Mapping[str, Any] | None = None,
    origin_region: str | None = None,
    trusted: Mapping[str, bytes] | None = None,
) -> Artifact:
    """Take a model in. Its exporter's `<name>.permit.json` beside it is read: origin, tensor manifest, digest.

    tensors: the manifest it must match, if the caller knows the network. origin_region: for a file without a permit.
    trusted: approver name -> Ed25519 public key of the sending center, to verify the permit with.
    The same file again is a no-op. Errors: RefusedError `import_refused`, NotFoundError.
    """
    file = Path(path)
    if kind not in KINDS:
        raise _refused(center, file, b"", f"kind {kind} does not come in this way; use inbound_model")
    data = _read(center, file)
    try:
        origin = _origin(file, data, trusted or {}, origin_region)
        manifest = manifest_from_record(tensors) if tensors is not None else origin.tensors
        rewritten = _rewritten(data, manifest, file.name)
    except InputError as problem:
        raise _refused(center, file, data, f"{problem.subject}: {problem.advice}") from problem
    _check_not_ours(center, file, rewritten)
    _ask(center, file, data, kind, origin)
    return _stored(center, rewritten, kind, origin, file)


def _stored(center: Center, data: bytes, kind: str, origin: Origin, file: Path) -> Artifact:
    label = Label(region=center.region, kind=kind, retention="model", synthetic=origin.synthetic)
    meta: dict[str, Any] = {
        "origin_region": origin.region,
        "origin_trust": origin.trust,
        "origin_permit": origin.permit,
        "origin_artifact": origin.artifact,
        "tensors": manifest_record(manifest_of(data)),
    }
    if origin.network is not None:
        meta["trainable"] = origin.network
    body = {
        "sha256": sha256_hex(data),
        "bytes": len(data),
        "kind": kind,
        "origin": origin.region,
        "trust": origin.trust,
        "permit": origin.permit,
        "tensors": record_digest(meta["tensors"]),
        "by": acting(center),
    }
    center.ledger.append("border.import", body)
    return center.put(data, label, name=_name(file), meta=meta)


def _name(file: Path) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", file.stem.lower()).strip("-")[:80]


def _check_not_ours(center: Center, file: Path, data: bytes) -> None:
    """Recordings of this center's fleet, and what shows them, do not come back as somebody else's, destroyed ones neither."""
    identity = blob_id_of(center.region, sha256_hex(data))
    for known in center.many([identity]):
        if known.label.derived_from_raw and known.label.kind not in KINDS:
            why = f"the very bytes are known here as {known.label.kind} made of fleet data"
            raise _refused(center, file, data, why, code="laundered")


def _read(center: Center, file: Path) -> bytes:
    if not file.exists():
        raise NotFoundError(file, "no such file.")
    if file.is_symlink() or not file.is_file():
        raise _refused(center, file, b"", "it is no plain file (links, folders and devices do not come in)")
    if file.stat().st_size > IMPORT_LIMIT_BYTES:
        raise _refused(center, file, b"", f"it is larger than {IMPORT_LIMIT_BYTES} bytes")
    data = file.read_bytes()
    _check_not_ours(center, file, data)
    reason = _foreign_form(data)
    if reason:
        raise _refused(center, file, data, reason)
    return data


def _foreign_form(data: bytes) -> str | None:
    """Why these bytes are not even parsed, told from their first bytes and opcodes alone."""
    if not data:
        return "it is empty"
    if is_pickle(data):
        return "it is a pickle, which runs code when opened; convert it with `onshore model convert`"
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06") or data[257:262] == b"ustar" or data[:3] == b"\x1f\x8b\x08":
        return "it is an archive (a PyTorch checkpoint is one, with a pickle in it); convert it with `onshore model convert`"
    if data[:8] == b"\x89HDF\r\n\x1a\n":
        return "it is an HDF5 file; only safetensors comes in"
    return None


def _rewritten(data: bytes, manifest: Tensors | None, subject: str) -> bytes:
    found = [*weight_findings(data), *scan(data)]
    if found:
        what = "; ".join(sorted({finding.what for finding in found})[:4])
        raise InputError("import_refused", subject, f"its content is not only parameters: {what}.")
    return rewrite_weights(data, manifest if manifest is not None else manifest_of(data, subject), subject)


def _origin(file: Path, data: bytes, trusted: Mapping[str, bytes], region: str | None) -> Origin:
    companion = file.with_name(f"{file.name}.permit.json")
    if not companion.is_file():
        return Origin(region=region or UNKNOWN_REGION)
    if companion.stat().st_size > COMPANION_LIMIT_BYTES:
        raise InputError("import_refused", companion.name, f"it is larger than {COMPANION_LIMIT_BYTES} bytes.")
    try:
        record = json.loads(companion.read_bytes())
        approved = approval.verify(record["envelope"], trusted)
        sent = record["export"]["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError, OnshoreError) as problem:
        raise InputError(
            "import_refused", companion.name, "the permit beside it cannot be read; send it again."
        ) from problem
    permit = approved.permit
    if sent != sha256_hex(data):
        raise InputError("import_refused", file.name, "the bytes are not the ones its permit's export record names.")
    if region is not None and region != permit.from_region:
        raise InputError(
            "import_refused", file.name, f"its permit says it comes from {permit.from_region}, not {region}."
        )
    if permit.network is not None:
        check_table(permit.network, NETWORK_LIMITS, f"network of {file.name}")
    enough = len(approved.approvers) >= max(approval.LEAST_APPROVERS, permit.threshold)
    if trusted and not enough:
        raise InputError(
            "import_refused", companion.name, "its permit's signatures do not verify with the trusted keys."
        )
    return Origin(
        region=permit.from_region,
        permit=permit.id,
        artifact=permit.artifact,
        synthetic=permit.synthetic,
        trust="verified" if enough else "claimed",
        tensors=permit.tensors,
        network=permit.network,
    )


def _ask(center: Center, file: Path, data: bytes, kind: str, origin: Origin) -> None:
    """The region's policy about its origin (US-01): asked with the label it has where it comes from."""
    label = Label(region=origin.region, kind=kind, retention="model", synthetic=origin.synthetic)
    try:
        refusal = center.rules.decide(
            Request(
                action="import",
                label=label,
                region=center.region,
                actor=center.actor,
                role=center.role,
                artifact=sha256_hex(data),
            )
        )
    except Exception:  # a rule engine that breaks has not said yes
        raise _refused(center, file, data, "the policy gave no clean answer", code="no_decision") from None
    if refusal is not None:
        raise _recorded(center, refusal, data)


def _refused(center: Center, file: Path, data: bytes, why: str, code: str = "import_refused") -> RefusedError:
    refusal = Refusal(
        code=code,
        subject=f"import {file.name}",
        rule="import-gate",
        clause=f"only safetensors comes in, written anew from what it holds (GB 44496-2024, CN-28; US-01); {why}",
        remedy="Save it as safetensors with plain parameters and no metadata, from a source you know.",
    )
    return _recorded(center, refusal, data)


def _recorded(center: Center, refusal: Refusal, data: bytes) -> RefusedError:
    body = {"code": refusal.code, "rule": refusal.rule, "sha256": sha256_hex(data), "bytes": len(data)}
    body["by"] = acting(center)
    center.ledger.append("border.import.refused", body)
    return RefusedError(refusal)
