"""A center with many small drives, one car each, built through the store's own doors: what erasing must find its way in."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onshore.core.digest import canonical_json
from onshore.core.label import Label
from onshore.residency import Attestation, derive
from onshore.store import Center
from onshore.store.sorted_tree import sorted_ids, sorted_root

DONE = Attestation(
    declassifier="drive-anonymiser", removes=frozenset(["face"]), detector_digest="ab" * 32, measured={"face": {"n": 1}}
)


@dataclass(frozen=True)
class Shoal:
    """cars: salted ids in the order of their drives. models: artifact id -> the cars whose clips it drew (the truth)."""

    center: Center
    cars: list[str]
    drives: list[str]
    blobs: list[list[str]]
    dataset: str
    models: dict[str, list[str]]


def shoal(root: Path, count: int, *, marker: bytes = b"", region: str = "cn") -> Shoal:
    """`count` one-clip drives: original, segment, proxy, table rows; one dataset; two models that drew every 2nd, 3rd."""
    center = Center.init(root / "center", region, keys_dir=root / "keys", seed=1)
    cars = [center.subject("vehicle", f"car-{number:04d}") for number in range(count)]
    drives = [f"drive-{number:032x}" for number in range(count)]
    blobs = [_one_drive(center, number, cars[number], drives[number], marker) for number in range(count)]
    _rows(center, cars, drives, blobs)
    proxies = [center.artifact(ids[2]) for ids in blobs]
    label = derive([proxy.label for proxy in proxies], kind="dataset")
    manifest = canonical_json({"name": "all", "clips": [_clip(number) for number in range(count)]})
    dataset = center.put(manifest, label, name="all", parents=[proxy.id for proxy in proxies])
    models = {}
    for step in (2, 3):
        drawn = list(range(0, count, step))
        models[_model(center, dataset.id, step, drawn, cars, drives)] = [cars[number] for number in drawn]
    return Shoal(center=center, cars=cars, drives=drives, blobs=blobs, dataset=dataset.id, models=models)


def _clip(number: int) -> str:
    return f"clip-{number:032x}"


def _one_drive(center: Center, number: int, car: str, drive: str, marker: bytes) -> list[str]:
    body = marker + f"{number}".encode()
    raw_label = Label(
        region=center.region,
        kind="raw_drive",
        sensitivity=frozenset(["face"]),
        subjects=frozenset([car]),
        retention="raw",
        derived_from_raw=True,
    )
    raw = center.raw.seal(b"raw" + body, key=f"{drive}-raw", label=raw_label, meta={"drive": drive})
    clean = derive([raw_label], kind="segment", retention="clip", declassified=DONE)
    name = f"segment-{number:032x}"
    segment = center.put(
        b"seg" + body, clean, name=name, parents=[raw.id], key=drive, declassified=DONE, meta={"drive": drive}
    )
    label = derive([clean], kind="proxy")

    def run() -> dict[str, Any]:
        return {"artifact": center.put(b"pro" + body, label, name=f"proxy-{name}", parents=[segment.id], key=drive).id}

    outputs, _ = center.stage("dataset.proxy", {"segment": segment.id}, run)
    return [raw.id, segment.id, outputs["artifact"]]


def _rows(center: Center, cars: list[str], drives: list[str], blobs: list[list[str]]) -> None:
    numbers = range(len(cars))
    center.table("drives").append([{"id": drives[n], "vehicle": cars[n], "start_ns": n} for n in numbers])
    center.table("segments").append(
        [
            {"id": f"segment-{n:032x}", "drive": drives[n], "vehicle": cars[n], "artifact": blobs[n][1], "index": 0}
            for n in numbers
        ]
    )
    center.table("clips").append(
        [
            {"id": _clip(n), "segment": f"segment-{n:032x}", "drive": drives[n], "vehicle": cars[n], "start_ns": n}
            for n in numbers
        ]
    )


def _model(center: Center, dataset: str, step: int, drawn: list[int], cars: list[str], drives: list[str]) -> str:
    base = center.artifact(dataset)
    ids = sorted_ids([x for n in drawn for x in (cars[n], drives[n], _clip(n), f"segment-{n:032x}")])
    log = {"schema_version": 1, "ids": ids, "root": sorted_root(ids)}
    log_label = derive([base.label], kind="log", retention="model")
    kept = center.put(json.dumps(log).encode(), log_label, name=f"samples-{step}", parents=[dataset])
    label = replace(log_label, kind="weights")
    meta = {"samples": kept.id, "dataset": "all", "recipe": {"name": f"recipe-{step}"}, "base": None}
    return center.put(f"weights {step}".encode(), label, name=f"model-{step}", parents=[dataset], meta=meta).id
