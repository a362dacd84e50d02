"""A center with an anonymised drive, a dataset and weights made of it, and two people who may approve."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onshore import border
from onshore.core.label import Artifact, Label
from onshore.residency import Attestation, derive
from onshore.store import Center

RAW = Label(
    region="us",
    kind="raw_drive",
    sensitivity=frozenset(["face", "plate", "position"]),
    subjects=frozenset(["vehicle-0000000000000000000007"]),
    retention="raw",
    derived_from_raw=True,
)
ANONYMISED = Attestation(
    declassifier="anonymiser-1",
    removes=frozenset(["face", "plate", "position"]),
    detector_digest="ab" * 32,
    measured={"face": {"recall": 0.99}, "plate": {"recall": 0.98}, "position": {"decimals": 0}},
    adds=frozenset(["unmeasured_plates"]),
)
SHAPES = {"head.bias": [8], "head.weight": [8, 640], "stem.weight": [16, 3, 3, 3]}


def safetensors(
    tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None, pad: int | None = None
) -> bytes:
    """A safetensors file written by hand, so that tests can also write what a decent writer would not."""
    names = {"float32": "F32", "uint8": "U8", "float16": "F16", "int64": "I64"}
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    at, blocks = 0, []
    for name, array in sorted(tensors.items()):
        block = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(block)],
        }
        blocks.append(block)
        at += len(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 if pad is None else pad)
    return struct.pack("<Q", len(text)) + text + b"".join(blocks)


def network(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}


@dataclass(frozen=True)
class Shore:
    """One center and what is in it. `permit` asks for a permit and has it approved by the two."""

    center: Center
    raw: Artifact
    segment: Artifact
    dataset: Artifact
    weights: Artifact
    metrics: Artifact
    outside: Path
    inside: Path

    def permit(
        self, artifact: Artifact | None = None, approvers: tuple[str, ...] = ("bertha", "chen"), **fields: object
    ) -> str:
        asked = {
            "recipient": "Example Cars Inc",
            "to_region": "cn",
            "purpose": "base model",
            "requester": "alice",
            "basis": "assessment 2026-1",
            **fields,
        }
        row = border.request_permit(self.center, (artifact or self.weights).id, **asked)  # type: ignore[arg-type]
        for name in approvers:
            row = border.approve(self.center, row.id, name)
        return row.id

    def lines(self, kind: str) -> list[dict[str, object]]:
        return [entry.body for entry in self.center.ledger.entries() if entry.kind == kind]


def build(root: Path, region: str = "us", *, synthetic: bool = True) -> Shore:
    """synthetic: whether the drive is, so that weights made of it may leave though nobody measured what they remember."""
    center = Center.init(
        root / region, region, keys_dir=root / f"{region}-keys", seed=1, in_region_dirs=[root / "inside"]
    )
    for name in ("bertha", "chen"):
        border.enroll_approver(center, name)
    rng = np.random.default_rng(5)
    raw_label = Label.from_record({**RAW.as_record(), "region": region, "synthetic": synthetic})
    raw = center.raw.seal(rng.bytes(4000), key="drive-1", label=raw_label, name="drive-1")
    cleared = derive([raw.label], kind="segment", retention="clip", declassified=ANONYMISED)
    segment = center.put(
        rng.bytes(3000), cleared, name="segment-1", parents=[raw.id], key="drive-1", declassified=ANONYMISED
    )
    center.table("segments").append([{"id": "segment-1", "drive": "drive-1", "blob": segment.id}])
    center.table("drives").append([{"id": "drive-1", "vehicle": "vehicle-7"}])
    center.table("clips").append([{"id": "clip-1", "segment": "segment-1"}])
    dataset = center.put(b'{"clips":[]}', derive([cleared], kind="dataset"), name="dataset-1", parents=[segment.id])
    weights_label = derive([dataset.label], kind="weights", retention="model")
    meta = {
        "manifest": {name: {"dtype": "float32", "shape": shape} for name, shape in SHAPES.items()},
        "trainable": {"name": "nano", "channels": [16, 8], "view": {"width_px": 128, "focal_px": 64.0}},
    }
    weights = center.put(safetensors(network()), weights_label, name="model-1", parents=[dataset.id], meta=meta)
    figures = json.dumps({"score": 61.23456789012345, "routes": 32, "suite": "cn-core"}).encode()
    metrics = center.put(figures, derive([weights.label], kind="metrics"), name="metrics-1", parents=[weights.id])
    return Shore(
        center=center,
        raw=raw,
        segment=segment,
        dataset=dataset,
        weights=weights,
        metrics=metrics,
        outside=root / "outside",
        inside=root / "inside",
    )


@pytest.fixture
def shore(tmp_path: Path) -> Iterator[Shore]:
    made = build(tmp_path)
    yield made
    made.center.db.dispose()


@pytest.fixture
def other_center(tmp_path: Path) -> Iterator[Callable[[str], Center]]:
    opened: list[Center] = []

    def make(region: str) -> Center:
        opened.append(Center.init(tmp_path / f"to-{region}", region, keys_dir=tmp_path / f"to-{region}-keys", seed=2))
        return opened[-1]

    yield make
    for center in opened:
        center.db.dispose()
