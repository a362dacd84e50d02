"""How fast do drives come in, and how far is that from the decoder's limit?

    python benchmarks/ingest_speed.py [--frames 300]

A segment each of 160 x 80 and 526 x 330 pixels goes through `drive.add`: read, decode, look for faces in every frame,
encode, seal, store, catalogue. Prints one JSON line: milliseconds of process time per frame, the share of each part
measured alone, and the ratio to pure decoding in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from face_detection import cpu_ms, scene
from onshore import drive
from onshore.core.recording import Camera, Clock, Recording, Rig, Signals
from onshore.privacy import default_anonymiser
from onshore.store import Center
from onshore.wire import decode, encode, read_mcap, write_mcap
from row import print_row

SIZES = ((80, 160), (330, 526))


def segment(path: Path, count: int, height: int, width: int) -> None:
    times = np.arange(count) * 100_000_000
    camera = Camera(
        name="front", width_px=width, height_px=height, focal_px=width, centre_x_px=width / 2, centre_y_px=height / 2
    )
    recording = Recording(
        vehicle="car-0007",
        drive_key=path.stem,
        clock=Clock(kind="boot"),
        rig=Rig(cameras=(camera,)),
        signals=Signals.build(times, speed_mps=np.full(count, 8.0)),
        videos=(encode("front", zip(times.tolist(), scene(count, height, width), strict=True)),),
        synthetic=True,
    )
    write_mcap(recording, path)


def measure(folder: Path, count: int, height: int, width: int) -> dict[str, object]:
    path = folder / f"{width}x{height}.mcap"
    segment(path, count, height, width)
    center = Center.init(folder / path.stem, "us", keys_dir=folder / f"{path.stem}-keys", seed=1)
    began = time.process_time()
    report = drive.add(center, path)
    whole = (time.process_time() - began) / report.frames * 1e3
    video = read_mcap(path).videos[0]
    frames = np.stack([frame for _, frame in decode(video)])
    anonymiser = default_anonymiser()
    anonymiser.redact(frames[:1])
    decoding = cpu_ms(lambda: list(decode(video)), count)
    return {
        "size": f"{width}x{height}",
        "frames": report.frames,
        "ms": round(whole, 2),
        "decode_ms": round(decoding, 2),
        "faces_ms": round(cpu_ms(lambda: anonymiser.redact(frames), count), 2),
        "encode_ms": round(cpu_ms(lambda: encode("front", enumerate(frames)), count), 2),
        "times_decode": round(whole / decoding, 1),
        "frames_per_s": round(1e3 / whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            measure(Path(scratch), max(20, asked.frames * 80 * 160 // (height * width)), height, width)
            for height, width in SIZES
        ]
    print_row("ingest_speed", per="frame, one core, everything included", rows=rows)


if __name__ == "__main__":
    main()
