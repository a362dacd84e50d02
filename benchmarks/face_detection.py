"""What does it cost to look for faces in every frame, at full resolution, on one core?

    python benchmarks/face_detection.py [--frames 64]

Prints one JSON line: milliseconds of process time per frame (median of three passes) at three picture sizes, and beside
it what decoding the same frames from H.264 costs in the same run: no intake can be faster than its decoder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onshore.privacy import default_anonymiser
from onshore.wire import decode, encode
from row import print_row

SIZES = ((80, 160), (128, 256), (330, 526))


def scene(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """A textured road-like picture that moves, without faces."""
    texture = np.random.default_rng(0).integers(0, 60, (height, width + 4 * count, 3)).astype(np.uint8)
    slope = np.linspace(40, 180, height).astype(np.uint8)[:, None, None]
    return np.stack([texture[:, 4 * i : 4 * i + width] + slope for i in range(count)])


def cpu_ms(work: Callable[[], object], frames: int) -> float:
    spent = []
    for _ in range(3):
        began = time.process_time()
        work()
        spent.append((time.process_time() - began) / frames * 1e3)
    return float(np.median(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=64)
    asked = parser.parse_args()
    anonymiser = default_anonymiser()
    rows = []
    for height, width in SIZES:
        count = max(8, asked.frames * 80 * 160 // (height * width))
        frames = scene(count, height, width)
        video = encode("front", ((index, frame) for index, frame in enumerate(frames)))
        anonymiser.redact(frames[:1])  # opens the session for this size
        look = cpu_ms(lambda frames=frames: anonymiser.redact(frames), count)
        limit = cpu_ms(lambda video=video: list(decode(video)), count)
        rows.append({"size": f"{width}x{height}", "ms": round(look, 2), "decode_ms": round(limit, 2)})
        rows[-1]["times_decode"] = round(look / limit, 1)
    print_row("face_detection", per="frame, one core", detector="centerface", rows=rows)


if __name__ == "__main__":
    main()
