"""What does a jailed child cost beside a bare one?

    python benchmarks/jail_start.py [--repeats 30]

Prints one JSON object. `bare_ms`: a Python child that imports nothing and answers; `jailed_ms`: the same behind every fence,
with probes; `unprobed_ms`: without probes; `call_us`: one more call to a child that stays; `carry_mb_per_s`: bytes to the
child and back. Medians. `missing`: layers that this machine does not give, without which a child starts faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from onshore.jail import Jail
from row import print_row

TARGET, CARRIED_BYTES = "onshore.jail.probes:nothing", 64 << 20


def median_s(work: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def measure(repeats: int) -> dict[str, Any]:
    jail, unprobed = Jail(tolerant=True), Jail(tolerant=True, probe=False)
    bare = [sys.executable, "-I", "-S", "-c", "print(1)"]
    row: dict[str, Any] = {
        "bare_ms": 1e3 * median_s(lambda: subprocess.run(bare, capture_output=True, check=True), repeats),
        "jailed_ms": 1e3 * median_s(lambda: jail.run(TARGET), repeats),
        "unprobed_ms": 1e3 * median_s(lambda: unprobed.run(TARGET), repeats),
    }
    data = bytes(CARRIED_BYTES)
    with jail.open(TARGET) as cell:
        row["call_us"] = 1e6 * median_s(lambda: cell.call(None), 20 * repeats)
        row["carry_mb_per_s"] = 2 * CARRIED_BYTES / 1e6 / median_s(lambda: cell.call(data), 5)
    return {name: round(value, 1) for name, value in row.items()} | {"missing": jail.attestation["missing"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    print_row("jail_start", **measure(parser.parse_args().repeats))


if __name__ == "__main__":
    main()
