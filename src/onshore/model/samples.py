"""Which clips a training run drew, how often in each epoch, in which order, and a proof of it in both directions.

Rule: written by the loop that hands batches to training, inside its jail; kept as an artifact beside the weights; `border` proves from it. A clip is
in the log when a window whose moment lies in it was drawn. Labels reach ahead within the same drive, so its drive, its
segment and its subjects are in the log too: "the model never saw this car" is asked of the subject, not of a clip.

Letters: M windows, N ids, L pairs of a window and an id, E epochs, S files of takeovers, W samples of a whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onshore.core.digest import canonical_json
from onshore.core.label import Artifact
from onshore.dataset import Batch, Windows
from onshore.model.checkpoint import Checkpoint
from onshore.residency import derive
from onshore.store import Center
from onshore.store.sorted_tree import sorted_ids, sorted_root

SCHEMA_VERSION = 2
COUNTS, DRAWN, READY = "samples.counts", "samples.drawn", "samples.ready"


class SampleLog:
    """Passes batches on and notes which samples were drawn: a digest over order and labels, one per epoch, and counts.

    An epoch is as many steps as it takes to draw as many samples as there are; draws are with replacement, so an epoch is
    a length and not a pass. A digest is a chain, SHA-256 of the last one and of the batch's, so that it can be gone on with.
    since: the checkpoint whose steps are behind.
    """

    def __init__(
        self,
        source: Iterable[Batch],
        windows: Windows,
        batch: int,
        manifest: Mapping[str, Any],
        subjects: Mapping[str, Iterable[str]],
        since: Checkpoint | None = None,
    ) -> None:
        self.source, self._windows, self._dataset = source, windows, str(manifest["digest"])
        self.steps_per_epoch = max(1, -(-(len(windows) + len(windows.takeovers)) // batch))
        self._names, self._window_L, self._name_L = _ids_of(windows, manifest, subjects)
        self._place = {name: at for at, name in enumerate(self._names)}
        self._takeovers = [self._place[entry["id"]] for entry in manifest["takeovers"]]
        facts: dict[str, Any] = (
            since.facts["samples"] if since else {"order": "", "epoch": "", "steps": 0, "epochs": []}
        )
        self.digest, self._epoch, self._steps = facts["order"], facts["epoch"], facts["steps"]
        self.epochs: list[dict[str, Any]] = [dict(epoch) for epoch in facts["epochs"]]
        before = since.tensors if since else {}
        sizes = {COUNTS: (0, len(self._names)), DRAWN: (len(windows),), READY: (len(self._takeovers),)}
        self._counts_EN, self._drawn_M, self._ready_S = (
            before[name].numpy() if name in before else np.zeros(size, np.int64) for name, size in sizes.items()
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.source:
            self.digest = _linked(self.digest, batch.digest)
            self._epoch = _linked(self._epoch, batch.digest)
            order = batch.order_W
            np.add.at(self._drawn_M, order[order >= 0], 1)
            np.add.at(self._ready_S, self._windows.takeovers.source_N[-1 - order[order < 0]], 1)
            self._steps += 1
            if self._steps % self.steps_per_epoch == 0:
                self._close_epoch()
            yield batch

    def noted(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with this log as it is now in it."""
        facts = {"order": self.digest, "epoch": self._epoch, "steps": self._steps, "epochs": self.epochs}
        counts = {COUNTS: self._counts_EN, DRAWN: self._drawn_M, READY: self._ready_S}
        tensors = {name: torch.from_numpy(of_name.copy()) for name, of_name in counts.items()}
        return checkpoint.beside("samples", facts, tensors)

    def _close_epoch(self) -> None:
        first = sum(epoch["steps"] for epoch in self.epochs)
        self.epochs.append({"first_step": first, "steps": self._steps - first, "order": self._epoch})
        counts = np.bincount(self._name_L, weights=self._drawn_M[self._window_L], minlength=len(self._names))
        counts[self._takeovers] += self._ready_S
        self._counts_EN = np.concatenate([self._counts_EN, counts[None].astype(np.int64)])
        self._epoch, self._drawn_M[:], self._ready_S[:] = "", 0, 0

    def record(self) -> dict[str, Any]:
        """The log as a record: the ids that were drawn, and in every epoch how often, in the order of the ids."""
        if self._steps > sum(epoch["steps"] for epoch in self.epochs):
            self._close_epoch()
        drawn_N = self._counts_EN.sum(0) > 0
        names = sorted_ids([name for name, drawn in zip(self._names, drawn_N, strict=True) if drawn])
        at = [self._place[name] for name in names]
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self._dataset,
            "steps": self._steps,
            "steps_per_epoch": self.steps_per_epoch,
            "order": self.digest,
            "epochs": [
                {**epoch, "counts": counts[at].tolist()}
                for epoch, counts in zip(self.epochs, self._counts_EN, strict=True)
            ],
            "ids": names,
            "root": sorted_root(names),
        }


def _linked(before: str, digest: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(before) + digest).hexdigest()


def _ids_of(
    windows: Windows, manifest: Mapping[str, Any], subjects: Mapping[str, Iterable[str]]
) -> tuple[list[str], NDArray[np.intp], NDArray[np.intp]]:
    """Every id that may be drawn, sorted, and which window shows which of them: clips, segments, drives, subjects."""
    clips: dict[str, list[Mapping[str, Any]]] = {}
    for clip in manifest["clips"]:
        clips.setdefault(clip["segment"], []).append(clip)
    shown: dict[str, list[NDArray[np.intp]]] = {entry["id"]: [] for entry in manifest["takeovers"]}
    for index, segment in enumerate(windows.segments):
        own = np.flatnonzero(windows.segment_M == index)
        times = windows.t_ns[own]
        drives = {clip["drive"] for clip in clips.get(segment, ())}
        for name in {segment, *subjects.get(segment, ()), *drives}:
            shown.setdefault(name, []).append(own)
        for clip in clips.get(segment, ()):
            within = own[(times >= clip["start_ns"]) & (times <= clip["end_ns"])]
            shown.setdefault(clip["id"], []).append(within)
    names = sorted(shown)
    none = [np.empty(0, np.intp)]
    window_L = np.concatenate([*none, *(part for name in names for part in shown[name])])
    counts = [sum(map(len, shown[name])) for name in names]
    return names, window_L, np.repeat(np.arange(len(names)), counts)


def everything(manifest: Mapping[str, Any], subjects: Mapping[str, Iterable[str]], steps: int) -> dict[str, Any]:
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
