"""What share of taking a drive in is encryption? Asked: at most 5 % of the CPU time, under `aes` and under `sm`.

    python benchmarks/encryption_share.py [--frames 300]

One segment of 526 x 330 pixels goes through `drive.add` in a fresh center for each suite; every call of the file cipher is
timed inside that very run. Prints one JSON line; `within` says whether both shares are at most 0.05.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ingest_speed import segment
from onshore import drive
from onshore.store import Center, cipher
from row import print_row

LIMIT = 0.05


def cpu_s() -> float:
    """CPU seconds of this process and of the jailed readers that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def measure(folder: Path, suite: str, frames: int) -> dict[str, Any]:
    path = folder / f"{suite}.mcap"
    segment(path, frames, 330, 526)
    center = Center.init(folder / suite, "us", keys_dir=folder / f"{suite}-keys", seed=1, crypto=suite)
    spent = 0.0
    real = cipher.encrypt

    def timed(*arguments: Any) -> None:
        nonlocal spent
        began = time.thread_time()
        real(*arguments)
        spent += time.thread_time() - began

    with patch.object(cipher, "encrypt", timed):
        began = cpu_s()
        report = drive.add(center, path, workers=1)
        whole = cpu_s() - began
    sealed = sum(one.stat().st_size for one in (center.root / "blobs").rglob("*") if one.is_file())
    return {
        "suite": suite,
        "frames": report.frames,
        "sealed_bytes": sealed,
        "ingest_cpu_s": round(whole, 3),
        "encryption_cpu_s": round(spent, 5),
        "share": round(spent / whole, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    frames = parser.parse_args().frames
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder), suite, frames) for suite in ("aes", "sm")]
    print_row("encryption share of ingest", limit=LIMIT, within=all(row["share"] <= LIMIT for row in rows), rows=rows)


if __name__ == "__main__":
    main()
