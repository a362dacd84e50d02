"""How long does it take to verify a ledger of a million entries?

    python benchmarks/ledger_verify.py [--entries 1000000]

Prints one JSON line; seconds (wall), one core. `peer` is the tree built leaf by leaf with the recursive definition of
RFC 6962 over the same lines, as it stands in the text; `limit` is hashing alone: as many SHA-256 calls over the same
bytes, and as many over two nodes. Appends are counted one by one (each flushed) and in blocks.
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

from onshore.store import Ledger
from onshore.store.merkle import leaf_hash, node_hash

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
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    line = {
        "benchmark": "ledger_verify",
        "entries": report.size,
        "ok": report.ok and same,
        "verify_s": round(ours_s, 2),
        "target_s": TARGET_S,
        "met": ours_s <= TARGET_S,
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
