"""A small fleet on disk: one release repository, its keys and its cars, with a knob for every fault tried on them.

Everything is real: keys, signatures, files. `Shop` is what a center's release room does, without the center.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from bundle.networks import metadata, network
from onshore.bundle.format import VERDICT, Payload, pack
from onshore.bundle.tuf import Lifetimes, ReleaseKeys, publish, trusted_root
from onshore.core.digest import canonical_json, sha256_hex

NETWORKS: dict[int, bytes] = {}


def payload(counter: int = 1, *, region: str = "cn", seed: int | None = None, **facts: Any) -> Payload:
    seed = counter if seed is None else seed
    net = NETWORKS.setdefault(seed, network(seed))
    return pack(net, metadata(net, region=region, counter=counter, **facts), notes=f"release {counter}")


class Shop:
    """Signs releases into one repository folder."""

    def __init__(self, folder: Path, region: str = "cn") -> None:
        self.repo, self.region, self.keys = folder / "repo", region, ReleaseKeys.open(folder / "keys")

    def release(
        self, offered: Payload, *, lifetimes: Lifetimes | None = None, revoked_ids: tuple[str, ...] = (), **knobs: Any
    ) -> str:
        """Publish a payload with a passing verdict; `knobs` overwrite fields of the signed index or the verdict."""
        verdict = {"gate": "bench", "passed": True, "payload_digest": offered.digest}
        verdict |= {name: knobs.pop(name) for name in list(knobs) if name in verdict}
        data = canonical_json(verdict)
        index = {
            "schema_version": 1,
            "region": offered.metadata.region,
            "counter": offered.metadata.counter,
            "release_id": offered.release_id,
            "payload_digest": offered.digest,
            "verdict_digest": sha256_hex(data),
            "revoked_ids": list(revoked_ids),
        }
        publish(self.repo, self.keys, {**offered.files, VERDICT: data}, {**index, **knobs}, lifetimes=lifetimes)
        return offered.release_id

    def revoke(self, recalled: Payload, reason: str = "brakes late in rain") -> None:
        index = {
            "schema_version": 1,
            "region": self.region,
            "counter": recalled.metadata.counter,
            "release_id": recalled.release_id,
            "revoked": True,
            "reason": reason,
            "revoked_ids": [recalled.release_id],
        }
        publish(self.repo, self.keys, {}, index)

    def copy(self, name: str) -> Path:
        """The repository as it is now, kept for a replay."""
        target = self.repo.parent / name
        shutil.copytree(self.repo, target)
        return target

    def files(self) -> list[Path]:
        return sorted(path for path in self.repo.rglob("*") if path.is_file())

    def root(self) -> bytes:
        return trusted_root(self.repo)


EXPIRED = Lifetimes(timestamp=timedelta(seconds=-5))


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
