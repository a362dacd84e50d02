"""Keys of cars and recorders: enrolled for one vehicle, revoked, and asked about every segment that carries a manifest.

Rule: a key counts while the ledger says so, for the vehicle it was enrolled for, in this center's region; a manifest that
fails any of that keeps its segment out. A segment without one comes in and says that it is unsigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, NotFoundError
from onshore.drive.digests import file_digest
from onshore.store import Center
from onshore.wire.signing import Signed, manifest_path, read_manifest

TABLE = "signers"
ENROLLED, REVOKED = "drive.signer.enrolled", "drive.signer.revoked"
UNSIGNED = "unsigned"


@dataclass(frozen=True, kw_only=True)
class Signer:
    """One key. id: SHA-256 (hex) of the public key; vehicle: salted; made: the day the vehicle was built, if known."""

    id: str
    vehicle: str
    public_key: str
    made: str
    state: str

    def as_record(self) -> dict[str, Any]:
        return vars(self).copy()


def enroll_signer(center: Center, vehicle: str, public_key: bytes, *, made: date | None = None) -> Signer:
    """Let a key (Ed25519, 32 bytes) sign for a vehicle. The same again is a no-op.

    Errors: InputError `bad_signer` for a key that was revoked or belongs to another vehicle.
    """
    if len(public_key) != 32:
        raise InputError("bad_signer", f"key of {vehicle}", "an Ed25519 public key has 32 bytes.")
    row = Signer(
        id=sha256_hex(public_key),
        vehicle=center.subject("vehicle", vehicle),
        public_key=public_key.hex(),
        made=made.isoformat() if made else "",
        state="enrolled",
    )
    for known in signers(center):
        if known.id == row.id and known.state != "unknown":  # a killed enrolling left the row without its ledger line
            if known.vehicle != row.vehicle or known.state != "enrolled":
                advice = f"this key is {known.state} for {known.vehicle}; one key signs for one vehicle, once."
                raise InputError("bad_signer", row.id, advice)
            return known
    center.table(TABLE).upsert([row.as_record()])
    center.ledger.append(ENROLLED, {"key": row.id, "vehicle": row.vehicle})
    return row


def revoke_signer(center: Center, key: str) -> None:
    """From now on nothing signed with this key comes in."""
    for known in signers(center):
        if known.id == key:
            center.ledger.append(REVOKED, {"key": known.id, "vehicle": known.vehicle})
            return
    raise NotFoundError(f"signer {key}", "`onshore drive signer list` shows the keys.")


def signers(center: Center) -> list[Signer]:
    """Every key with the state that the ledger gives it; rows that the ledger does not know count for nothing."""
    rows = center.table(TABLE).rows()
    if not rows:
        return []
    said: dict[tuple[str, str], str] = {}
    for entry in center.ledger.entries():
        if entry.kind in (ENROLLED, REVOKED):
            said[entry.body["key"], entry.body["vehicle"]] = "enrolled" if entry.kind == ENROLLED else "revoked"
    found = [Signer(**{**row, "state": said.get((row["id"], row["vehicle"]), "unknown")}) for row in rows]
    return sorted(found, key=lambda one: one.id)


class SignerBook:
    """The keys of one center as of now, for one run of intake."""

    def __init__(self, center: Center) -> None:
        self._center, self._known = center, {one.id: one for one in signers(center)}

    def judge(self, files: tuple[Path, ...], vehicle: str) -> str:
        """`unsigned`, or the id of the key that signed. Raises InputError `bad_signer` with the reason.

        vehicle: the salted id of the vehicle that the recording names.
        """
        path = manifest_path(files[0])
        signed = read_manifest(path)
        if signed is None:
            return UNSIGNED
        reason = self._objection(signed, files, vehicle)
        if reason is not None:
            raise InputError("bad_signer", path.name, reason)
        return signed.key

    def made_ns(self, vehicle: str) -> int | None:
        """When the vehicle was built (POSIX ns), if a key of it says so."""
        days = [one.made for one in self._known.values() if one.vehicle == vehicle and one.made]
        if not days:
            return None
        return int(datetime.combine(date.fromisoformat(min(days)), datetime.min.time(), UTC).timestamp()) * 10**9

    def _objection(self, signed: Signed, files: tuple[Path, ...], vehicle: str) -> str | None:
        signer, manifest = self._known.get(signed.key), signed.manifest
        if signer is None or signer.state == "unknown":
            return "its key is not enrolled here; `onshore drive signer enroll` it, or send the segment unsigned."
        if signer.state == "revoked":
            return "its key was revoked."
        if not signed.holds(bytes.fromhex(signer.public_key)):
            return "its signature does not verify; the manifest was changed."
        if manifest.region != self._center.region:
            return f"it was signed for region {manifest.region}; recordings stay in their region."
        if signer.vehicle != vehicle or self._center.subject("vehicle", manifest.vehicle) != vehicle:
            return "its key belongs to another vehicle than the recording names."
        if manifest.files != {path.name: file_digest(path) for path in files}:
            return "the files are not those that were signed."
        return None
