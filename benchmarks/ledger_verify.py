"""How long does it take to verify a ledger of a million entries?

    python benchmarks/ledger_verify.py [--entries 1000000]

Prints one JSON line; seconds (wall), one core. `peer` is the tree built leaf by leaf with the recursive definition of
RFC 6962 over the same lines, as it stands in the text; `limit` is hashing alone: as many SHA-256 calls over the same
bytes, and as many over two nodes. Appends are counted one by one (each flushed) and in blocks. `checks` are the same log
edited, with a line dropped and two swapped, and, against a witness's note, cut back and forked: seconds by the center's
own verification and by the stand-alone file, each of which must find it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onshore.store import Ledger, standalone
from onshore.store.merkle import leaf_hash, node_hash
from onshore.store.witness import Witness, request

TARGET_S = 10.0
BLOCK = 20_000


def build(ledger: Ledger, entries: int) -> dict[str, float]:
    start = time.perf_counter()
    for first in range(0, entries, BLOCK):
        numbers = range(first, min(entries, first + BLOCK))
        ledger.append_many(
            ("border.export", {"artifact": hashlib.sha256(b"%d" % n).hexdigest(), "n": n}) for n in numbers
        )
    blocks_s = time.perf_counter() - start
    start = time.perf_counter()
    for number in range(50):
        ledger.append("refusal", {"code": "raw_ban", "n": number})
    return {"block_appends_per_s": round(entries / blocks_s), "append_ms": round((time.perf_counter() - start) * 20, 2)}


def recursive_root(lines: Sequence[bytes]) -> bytes:
    """RFC 6962 2.1 as written."""
    if len(lines) == 1:
        return leaf_hash(lines[0])
    split = 1 << ((len(lines) - 1).bit_length() - 1)
    return node_hash(recursive_root(lines[:split]), recursive_root(lines[split:]))


def hashing_alone(lines: Sequence[bytes]) -> float:
    pair, sha256 = b"\x01" + bytes(64), hashlib.sha256
    start = time.perf_counter()
    for line in lines:
        sha256(line).digest()
        sha256(pair).digest()
    return time.perf_counter() - start


def checks(ledger: Ledger, root: Path) -> dict[str, dict[str, object]]:
    """Each way to falsify the log, found or not and in how many seconds, by both verifiers."""
    folder, entries = root / "ledger", root / "ledger" / "entries.jsonl"
    kept, earlier = entries.read_bytes(), {path.name: path.read_bytes() for path in folder.iterdir()}
    ledger.append("refusal", {"code": "raw_ban", "n": "seen by the witness"})
    auditor, note = Witness(root / "auditor", "auditor.example"), root / "kept.note"
    note.write_bytes(auditor.sign(request(ledger)))
    longer = {path.name: path.read_bytes() for path in folder.iterdir()}
    first, second, rest = kept.split(b"\n", 2)
    found = {"intact": timed(ledger, note, auditor, folder)}
    for how, data in {
        "edit": longer["entries.jsonl"].replace(b'"n":7}', b'"n":8}', 1),
        "drop": longer["entries.jsonl"].partition(b"\n")[2],
        "reorder": b"\n".join([second, first, rest]) + longer["entries.jsonl"][len(kept) :],
    }.items():
        entries.write_bytes(data)
        found[how] = timed(ledger, note, auditor, folder)
    for name, data in earlier.items():
        (folder / name).write_bytes(data)
    found["truncation"] = timed(ledger, note, auditor, folder)
    ledger.append_many(("refusal", {"code": "raw_ban", "n": f"never shown {n}"}) for n in range(2))
    found["fork"] = timed(ledger, note, auditor, folder)
    return found


def timed(ledger: Ledger, note: Path, auditor: Witness, folder: Path) -> dict[str, object]:
    start = time.perf_counter()
    ours = ledger.verify(note, {auditor.name: auditor.public_key}).ok
    between = time.perf_counter()
    theirs = standalone.verify(folder, ledger.public_key, note.read_bytes(), {auditor.name: auditor.public_key})["ok"]
    seconds = (round(between - start, 2), round(time.perf_counter() - between, 2))
    return {"verifies": [ours, theirs], "s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        signer = Ed25519PrivateKey.generate()
        ledger = Ledger(root / "ledger", origin="benchmark", signer=signer, scratch=root, lock=root / "lock")
        ledger.create()
        appends = build(ledger, entries)
        start = time.perf_counter()
        report = ledger.verify()
        ours_s = time.perf_counter() - start
        lines = (root / "ledger/entries.jsonl").read_bytes().splitlines()
        start = time.perf_counter()
        same = recursive_root(lines).hex() == report.root
        peer_s = time.perf_counter() - start
        limit_s = hashing_alone(lines)
        del lines
        found = checks(ledger, root)
    caught = found["intact"]["verifies"] == [True, True] and all(
        check["verifies"] == [False, False] for how, check in found.items() if how != "intact"
    )
    slowest = max(max(check["s"]) for check in found.values())  # type: ignore[type-var, call-overload]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    line = {
        "benchmark": "ledger_verify",
        "entries": report.size,
        "ok": report.ok and same,
        "verify_s": round(ours_s, 2),
        "target_s": TARGET_S,
        "met": max(ours_s, slowest) <= TARGET_S and caught,
        "checks": found,
        **appends,
        "peer": {"name": "RFC 6962 recursive definition, lines in memory", "s": round(peer_s, 2)},
        "peer_over_ours": round(peer_s / ours_s, 2),
        "limit": {"name": "SHA-256 calls alone", "s": round(limit_s, 2)},
        "ours_over_limit": round(ours_s / limit_s, 2),
        "hardware": f"{platform.machine()}, one core, Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
