"""What does the gate cost: a decision without bytes, rewriting and scanning weights, a whole export?

    python benchmarks/border_gate.py [--repeats 200] [--million-parameters 4]

One core. Prints one JSON object. `decision_us`: the rules alone (Cedar and the bans), `controls_us`: every control of the
gate that needs no bytes (bans, lineage of five ancestors, Cedar, permit), `rewrite_mb_per_s`, `scan_mb_per_s`: canonical
rewriting and content scan of weights, `export_ms`: a whole export with ledger verification and two files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onshore import border
from onshore.border import canonical, gate, permitting, scan
from onshore.core.label import Label
from onshore.residency import Request
from onshore.store import Center
from row import print_row


def median_s(work: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def weights(parameters: int) -> bytes:
    """Parameters of plausible size as canonical safetensors."""
    values = np.random.default_rng(0).normal(0, 0.05, parameters).astype(np.float32)
    entry = {"dtype": "F32", "shape": [parameters], "data_offsets": [0, values.nbytes]}
    header = json.dumps({"w": entry}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + values.tobytes()


def measure(root: Path, repeats: int, parameters: int) -> dict[str, float]:
    center = Center.init(root / "center", "us", keys_dir=root / "keys")
    chain: list[str] = []
    for step, kind in enumerate(["segment", "proxy", "dataset", "dataset", "dataset"]):
        chain.append(center.put(bytes([step]), Label(region="us", kind=kind, synthetic=True), parents=chain[-1:]).id)
    data = weights(parameters)
    manifest = canonical.manifest_of(data)
    one = center.put(data, Label(region="us", kind="weights", retention="model", synthetic=True), parents=chain[-1:])
    for name in ("bea", "chen"):
        border.enroll_approver(center, name)
    row = border.request_permit(center, one.id, recipient="Example", to_region="cn", purpose="test", requester="alice")
    for name in ("bea", "chen"):
        border.approve(center, row.id, name)
    shown = permitting.verified(center, row.id)
    outbound = gate.Outbound(
        center=center, artifact=one, to_region="cn", permit=shown, recipient=None, now_ns=permitting.now_ns(center)
    )
    asked = Request(action="export", label=one.label, region="us", actor="alice", role="engineer", artifact=one.id)
    megabytes = len(data) / 1e6
    out = root / "out"
    return {
        "decision_us": round(median_s(lambda: center.rules.decide(asked), repeats) * 1e6, 1),
        "controls_us": round(median_s(lambda: gate._refusal(outbound), repeats) * 1e6, 1),
        "rewrite_mb_per_s": round(megabytes / median_s(lambda: canonical.rewrite_weights(data, manifest), 5), 1),
        "scan_mb_per_s": round(megabytes / median_s(lambda: (scan.scan(data), scan.weight_findings(data)), 3), 1),
        "export_ms": round(median_s(lambda: border.export(center, one.id, permit=row.id, out_dir=out), 3) * 1e3, 1),
        "megabytes": round(megabytes, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--million-parameters", type=float, default=4.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print_row("border_gate", **measure(Path(folder), asked.repeats, int(asked.million_parameters * 1e6)))


if __name__ == "__main__":
    main()
