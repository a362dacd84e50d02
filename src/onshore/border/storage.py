"""Where the center's bytes lie, as attested: replication that somebody turns on later is a change that shows.

Rule: a center stores in its own region. What a disk or a bucket does behind the center's back (replication, lifecycle,
versions) is told by whoever runs it, in a file, and written into the ledger; the same file read again must say the same,
and no target may lie elsewhere. The mounts of a folder are read from the kernel. Self-attested: a lie is not found out.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border.lines import acting, refuse
from onshore.border.people import pseudonym
from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError, Refusal

if TYPE_CHECKING:
    from onshore.store import Center

ATTESTED = "border.store"
FIELDS: dict[str, type] = {"kind": str, "region": str, "replication": list, "lifecycle": list, "versions": bool}
KNOWN = frozenset([*FIELDS, "mounts"])


@dataclass(frozen=True, kw_only=True)
class StoreAttestation:
    """What was said and read of the store. changed: fields that differ from the attestation before. trust: how far."""

    sha256: str
    facts: dict[str, Any]
    changed: tuple[str, ...]
    trust: str = "self-attested"


def attest_store(center: Center, description: Path, *, accept: bool = False) -> StoreAttestation:
    """Read how the store is set up, compare with what was attested before, and write a ledger line.

    description: TOML with `kind` ("folder" or "s3"), `region`, `replication` (regions that copies go to), `lifecycle`
    (rules by name), `versions` (bool); more fields are kept as one salted digest, `more`: what they say stays out of the
    ledger. accept: a changed set-up becomes the attested one. Errors: InputError `bad_config`; RefusedError
    `out_of_region` when the store or a copy lies elsewhere, `drifted` when it changed.
    """
    facts = _told(center, {**_described(description), "mounts": _mounts([center.root, center.root / "blobs"])})
    elsewhere = sorted({region for region in (facts["region"], *facts["replication"]) if region != center.region})
    if elsewhere:
        refusal = Refusal(
            code="out_of_region",
            subject=f"store of {center.id}",
            rule="in-region",
            clause=f"CN-01: important data is stored in the territory; copies go to {', '.join(elsewhere)}",
            remedy="Turn the replication off, destroy what it copied, and attest the store again.",
        )
        refuse(center, refusal, [])
    before = next((one.body for one in reversed(list(center.ledger.entries())) if one.kind == ATTESTED), None)
    changed = _changed(_before(center, before["facts"]), facts) if before is not None else []
    if changed and not accept:
        refusal = Refusal(
            code="drifted",
            subject=f"store of {center.id}: {', '.join(changed)}",
            rule="store-as-attested",
            clause="CN-01: the store is what was attested; a set-up that changed behind the center's back is an alarm",
            remedy="Find out who changed it; if it is right, attest it anew with --accept.",
        )
        refuse(center, refusal, [])
    digest = sha256_hex(canonical_json(facts))
    if before is None or changed:
        body = {"store": digest, "facts": facts, "changed": changed, "trust": "self-attested", "by": acting(center)}
        center.ledger.append(ATTESTED, body)
    return StoreAttestation(sha256=digest, facts=facts, changed=tuple(changed))


def _described(path: Path) -> dict[str, Any]:
    try:
        record = tomllib.loads(path.read_text(encoding="utf8"))
        canonical_json(record)
    except (OSError, ValueError, TypeError) as problem:  # TypeError: a date, which has no canonical form
        raise InputError("bad_config", path, f"give a TOML file that describes the store ({problem}).") from problem
    for name, kind in FIELDS.items():
        if not isinstance(record.get(name), kind):
            raise InputError("bad_config", f"{path}: {name}", f"give a {kind.__name__}; an empty list means none.")
    return {
        **record,
        "replication": sorted(map(str, record["replication"])),
        "lifecycle": sorted(map(str, record["lifecycle"])),
    }


def _told(center: Center, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as the ledger gets them: what else the file says, a name or a telephone number, as a salted digest."""
    more = {name: value for name, value in facts.items() if name not in KNOWN}
    known = {name: value for name, value in facts.items() if name in KNOWN}
    return {**known, "more": pseudonym(center, "store", canonical_json(more).decode())} if more else known


def _before(center: Center, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an earlier line; older ones hold every field of the file."""
    return facts if set(facts) <= {*KNOWN, "more"} else _told(center, facts)


def _mounts(folders: list[Path]) -> list[list[str]]:
    """Kind and options-free source of the mount below each folder, as the kernel tells it."""
    known = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf8").splitlines()]
    found = []
    for folder in folders:
        place = folder.resolve()
        # Of two file systems mounted over each other the kernel names the visible one last.
        mount = max(
            (row for row in reversed(known) if place.is_relative_to(_path(row[4]))), key=lambda row: len(row[4])
        )
        after = mount[mount.index("-") + 1 :]
        found.append([after[0], after[1]])
    return found


def _path(told: str) -> str:
    """A mount's place: the kernel writes its blanks, line ends and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), told)


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
