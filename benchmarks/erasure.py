"""How long does it take to erase one subject of a center with a thousand one-clip drives?

    python benchmarks/erasure.py [--drives 1000] [--subjects 5]

One core. Prints one JSON object. `erase_s`: median over subjects of the whole verb in an open center (lineage, marks of two
models with proofs, keys, blobs, rows, table versions, receipts); `erase_most_s`: the slowest; `close_s`: searching every
store before a ticket closes; `build_s`: making the center, for scale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from row import print_row

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from border.shoals import shoal
from onshore.border.erasure import close, erase, holding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drives", type=int, default=1000)
    parser.add_argument("--subjects", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        made = shoal(Path(folder), asked.drives)
        built = time.perf_counter() - started
        erasing, closing = [], []
        for number in range(asked.subjects):
            started = time.perf_counter()
            done = erase(made.center, f"car-{number * 7:04d}")
            erasing.append(time.perf_counter() - started)
            if holding(made.center, done):
                raise SystemExit("something still holds bytes")
            started = time.perf_counter()
            close(made.center, done.id)
            closing.append(time.perf_counter() - started)
        print_row(
            "erasure",
            drives=asked.drives,
            subjects=asked.subjects,
            erase_s=round(float(np.median(erasing)), 3),
            erase_most_s=round(max(erasing), 3),
            close_s=round(float(np.median(closing)), 3),
            build_s=round(built, 1),
        )


if __name__ == "__main__":
    main()
