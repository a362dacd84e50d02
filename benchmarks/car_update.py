"""How long does a car take to verify and install a release, and to see that nothing is new?

    python benchmarks/car_update.py [--updates 30] [--megabytes 1.3]

Real repositories in a temporary folder: every update verifies root, timestamp, snapshot, targets and every file, copies
the trusted metadata, writes the slot and switches, each flushed to disk. Prints one JSON document, times in ms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from onshore.bundle.format import VERDICT, BundleMetadata, Payload, pack
from onshore.bundle.tuf import ReleaseKeys, Trust, VerifiedBundle, publish, trusted_root, verify
from onshore.car import provision, update
from onshore.core.digest import canonical_json, sha256_hex
from row import print_row


def offer(repo: Path, keys: ReleaseKeys, counter: int, size: int) -> Payload:
    """Publish a release whose network is random bytes: neither verification nor installation looks inside."""
    network = np.random.default_rng(counter).bytes(size)
    facts = BundleMetadata(region="cn", model_id="bench", onnx_sha256=sha256_hex(network), counter=counter)
    payload = pack(network, facts)
    verdict = canonical_json({"passed": True, "payload_digest": payload.digest})
    index = {
        "region": "cn",
        "counter": counter,
        "release_id": payload.release_id,
        "payload_digest": payload.digest,
        "verdict_digest": sha256_hex(verdict),
    }
    publish(repo, keys, {**payload.files, VERDICT: verdict}, index)
    return payload


def median_ms(spent: list[float]) -> dict[str, float]:
    return {"median_ms": round(float(np.median(spent)) * 1e3, 2), "max_ms": round(max(spent) * 1e3, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--megabytes", type=float, default=1.3)
    asked = parser.parse_args()
    times: dict[str, list[float]] = {"publish": [], "verify only": [], "verify and install": [], "nothing new": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        repo, car, keys = folder / "repo", folder / "car", ReleaseKeys.open(folder / "keys")
        for counter in range(1, asked.updates + 2):
            began = time.perf_counter()
            payload = offer(repo, keys, counter, round(asked.megabytes * 1e6))
            published = time.perf_counter()
            if counter == 1:
                provision(car, name="car-0007", region="cn", root=trusted_root(repo))
            fresh = Trust(root=trusted_root(repo), metadata_dir=folder / f"fresh-{counter}", region="cn")
            checking = time.perf_counter()
            assert isinstance(verify(repo, fresh), VerifiedBundle)
            checked = time.perf_counter()
            assert update(repo, car).running == payload.release_id
            installed = time.perf_counter()
            assert update(repo, car).outcome == "current"
            again = time.perf_counter()
            spent = (published - began, checked - checking, installed - checked, again - installed)
            for kind, seconds in zip(times, spent, strict=True):
                times[kind] += [seconds] if counter > 1 else []
    print_row("car_update", megabytes=asked.megabytes, **{kind: median_ms(spent) for kind, spent in times.items()})


if __name__ == "__main__":
    main()
