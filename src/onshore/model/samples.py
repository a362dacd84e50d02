"""Which clips a training run drew, in which order, and a proof of it in both directions.

Rule: written by the loop that hands batches to training, inside its jail; kept as an artifact beside the weights; `border` proves from it. A clip is
in the log when a window whose moment lies in it was drawn. Labels reach ahead within the same drive, so its drive, its
segment and its subjects are in the log too: "the model never saw this car" is asked of the subject, not of a clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onshore.core.digest import canonical_json
from onshore.core.label import Artifact
from onshore.dataset import Batch, Windows
from onshore.residency import derive
from onshore.store import Center
from onshore.store.sorted_tree import sorted_ids, sorted_root

SCHEMA_VERSION = 1


class SampleLog:
    """Passes batches on and notes which samples were drawn: a digest over order and labels, one per epoch, and the set.

    An epoch is as many steps as it takes to draw as many samples as there are; draws are with replacement, so an epoch is
    a length and not a pass.
    """

    def __init__(self, source: Iterable[Batch], windows: Windows, batch: int) -> None:
        self.source, self._windows = source, windows
        self.steps_per_epoch = max(1, -(-(len(windows) + len(windows.takeovers)) // batch))
        self._hash, self._epoch = hashlib.sha256(), hashlib.sha256()
        self._drawn = np.zeros(len(windows), np.bool_)
        self._takeovers = False
        self._steps = 0
        self.epochs: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.source:
            order = np.ascontiguousarray(batch.index_B, "<i8")
            for column in (order, np.ascontiguousarray(batch.path_BK2)):
                self._hash.update(column.tobytes())
            self._epoch.update(order.tobytes())
            self._drawn[order[order >= 0]] = True
            self._takeovers |= bool((order < 0).any())
            self._steps += 1
            if self._steps % self.steps_per_epoch == 0:
                self._close_epoch()
            yield batch

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def _close_epoch(self) -> None:
        first = sum(epoch["steps"] for epoch in self.epochs)
        steps = self._steps - first
        self.epochs.append({"first_step": first, "steps": steps, "order": self._epoch.hexdigest()})
        self._epoch = hashlib.sha256()

    def record(self, manifest: Mapping[str, Any], subjects: Mapping[str, Iterable[str]]) -> dict[str, Any]:
        """The log as a record. manifest: of the dataset; subjects: of each segment."""
        if self._steps > sum(epoch["steps"] for epoch in self.epochs):
            self._close_epoch()
        ids = drawn_ids(self._windows, self._drawn, manifest, subjects)
        ids += [entry["id"] for entry in manifest["takeovers"]] if self._takeovers else []
        names = sorted_ids(ids)
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": manifest["digest"],
            "steps": self._steps,
            "steps_per_epoch": self.steps_per_epoch,
            "order": self.digest,
            "epochs": self.epochs,
            "ids": names,
            "root": sorted_root(names),
        }


def drawn_ids(
    windows: Windows, drawn_M: Any, manifest: Mapping[str, Any], subjects: Mapping[str, Iterable[str]]
) -> list[str]:
    """Clips, segments, drives and subjects of the drawn windows (M, bool)."""
    found: set[str] = set()
    clips: dict[str, list[Mapping[str, Any]]] = {}
    for clip in manifest["clips"]:
        clips.setdefault(clip["segment"], []).append(clip)
    for index, segment in enumerate(windows.segments):
        times = windows.t_ns[(windows.segment_M == index) & drawn_M]
        if not len(times):
            continue
        found |= {segment, *subjects.get(segment, ())}
        for clip in clips.get(segment, ()):
            found.add(clip["drive"])
            if bool(((times >= clip["start_ns"]) & (times <= clip["end_ns"])).any()):
                found.add(clip["id"])
    return sorted(found)


def everything(
    manifest: Mapping[str, Any], subjects: Mapping[str, Iterable[str]], steps: int
) -> dict[str, Any]:
    """A log that counts every member of both splits as drawn: for training that draws frames, not windows of clips."""
    found = {entry["id"] for part in ("clips", "drives") for entry in manifest[part]}
    found |= {entry["segment"] for entry in manifest["proxies"]}
    names = sorted_ids(found | {subject for of_segment in subjects.values() for subject in of_segment})
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": manifest["digest"],
        "steps": steps,
        "steps_per_epoch": steps,
        "order": "",
        "epochs": [],
        "ids": names,
        "root": sorted_root(names),
    }


def subjects_of(center: Center, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """Subjects of each segment of a dataset."""
    proxies = {one.id: one.label.subjects for one in center.artifacts(kind="proxy")}
    return {entry["segment"]: sorted(proxies.get(entry["id"], ())) for entry in manifest["proxies"]}


def keep(center: Center, record: Mapping[str, Any], manifest: Mapping[str, Any]) -> Artifact:
    """Store the log of a run on this dataset; the same run again is a no-op."""
    dataset = center.artifact(manifest["artifact"])
    label = derive([dataset.label], kind="log", retention="model")
    data = canonical_json(dict(record))
    return center.put(data, label, name=f"samples-{manifest['name']}", parents=[dataset.id])
