"""The frozen list of what a model may learn from: clips by reference, split by drive, every byte under a digest.

Rule: the same name and inputs give the same digest and freezing again is a no-op; a dataset is never changed, adding or
dropping makes the next version; its label is the union of everything in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from onshore.bundle.inputs import View, front_video
from onshore.clip import find
from onshore.clip.catalog import with_ids
from onshore.clip.motion import motion
from onshore.core.digest import canonical_json, check_id, record_digest
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, UsageError
from onshore.core.label import Artifact, Label
from onshore.core.progress import Progress, silent
from onshore.core.recording import ClipRef
from onshore.dataset.footage import OFFSETS_S
from onshore.dataset.proxy import CRF, GOP_FRAMES, PROXY_VERSION, RATE_HZ, Proxy, build_proxy, fitting_view
from onshore.dataset.pseudo import PseudoLabels
from onshore.dataset.split import HELD_OUT, TRAIN, split_drives
from onshore.dataset.windows import Windows, WindowSpec, build_windows, read_takeovers
from onshore.drive import open_segment, segments
from onshore.drive.catalog import segment_row
from onshore.residency import derive
from onshore.store import Center
from onshore.store.custody import tombstones
from onshore.store.files import locked

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """A row of the `datasets` table: `id` follows from the digest, `artifact` is the manifest's blob."""

    id: str
    name: str
    version: int
    digest: str
    artifact: str
    region: str
    clips: int
    drives: int
    segments: int
    seconds: float
    train_clips: int
    held_out_clips: int
    train_drives: int
    held_out_drives: int
    takeovers: int
    synthetic: bool

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def freeze(
    center: Center,
    name: str,
    *,
    where: str | None = None,
    takeovers: Sequence[str] = (),
    held_out: float = 0.2,
    seed: int = 0,
    view: View | None = None,
    side_views: Sequence[View] = (),
    split_by: str = "place",
    pseudo_labels: Sequence[str] = (),
    pseudo_weight: float = 1.0,
    progress: Progress = silent,
) -> DatasetRow:
    """Freeze the clips for which `where` (SQL over clips) holds, with on-policy `takeovers` (artifact ids).

    Makes the missing proxies, one per view and segment. split_by: "place" keeps every place in one split, "drive" looks at drives alone.
    pseudo_labels: artifacts of `model.inverse.pseudo_label` for public video without signals among the clips; their drives
    are trained on or, in a held-out place, left out, never held out; their samples are drawn `pseudo_weight` times as often.
    Raises InputError `empty_input` when no clip is found, UsageError for SQL that cannot be read.
    """
    check_id(name, "dataset name")
    clips = find(center, where, limit=None)
    if not clips:
        raise InputError(
            "empty_input", f"dataset {name}", "no clip was found; take drives in with `drive add`, or widen the query."
        )
    settings = {"held_out": held_out, "seed": seed, "split_by": split_by, "view": (view or View()).as_record()}
    if side_views:
        settings["side_views"] = [beside.as_record() for beside in side_views]
    if pseudo_labels:
        if pseudo_weight <= 0:
            raise InputError(
                "bad_config", f"pseudo_weight {pseudo_weight}", "a weight is above 0; else leave the labels out."
            )
        settings |= {"pseudo_labels": sorted(set(pseudo_labels)), "pseudo_weight": pseudo_weight}
    return _freeze(center, name, clips, sorted(set(takeovers)), settings, where or "", progress)


def add(
    center: Center,
    dataset: str,
    *,
    where: str | None = None,
    takeovers: Sequence[str] = (),
    progress: Progress = silent,
) -> DatasetRow:
    """The next version of a dataset: its clips and those for which `where` holds, its takeovers and more."""
    manifest = show(center, dataset)
    more = find(center, where, limit=None) if where or not takeovers else []
    clips = {row["id"]: row for row in [*_clip_rows(center, _remaining(center, _ids(manifest["clips"]))), *more]}
    query = f"({manifest['where']}) + ({where})" if more else manifest["where"]
    kept = sorted({*_remaining(center, _ids(manifest["takeovers"])), *takeovers})
    settings = _settings_left(center, manifest["settings"])
    return _freeze(center, manifest["name"], list(clips.values()), kept, settings, query, progress)


def drop(center: Center, dataset: str, *, where: str, progress: Progress = silent) -> DatasetRow:
    """The next version of a dataset without the clips for which `where` holds."""
    manifest = show(center, dataset)
    gone = {row["id"] for row in find(center, where, limit=None)}
    kept = [identity for identity in _remaining(center, _ids(manifest["clips"])) if identity not in gone]
    if len(kept) == len(manifest["clips"]):
        raise UsageError(f"where {where!r}", "it names no clip of this dataset.")
    if not kept:
        raise InputError("empty_input", f"dataset {manifest['name']}", "nothing would be left of it.")
    query = f"({manifest['where']}) - ({where})"
    takeovers, settings = _remaining(center, _ids(manifest["takeovers"])), _settings_left(center, manifest["settings"])
    return _freeze(center, manifest["name"], _clip_rows(center, kept), takeovers, settings, query, progress)


def fit_view(center: Center, where: str | None = None, base: View | None = None) -> View:
    """The view that the cameras of these clips fill: `base` where they do, else with a longer focal length.

    `freeze` with a view that cameras do not fill repeats their border; `shown_share` of each proxy tells how much is real.
    """
    chosen = sorted({clip["segment"] for clip in find(center, where, limit=None)})
    if not chosen:
        raise InputError(
            "empty_input", f"where {where!r}", "no clip was found; take drives in with `drive add`, or widen the query."
        )
    cameras = {front_video(open_segment(center, segment))[0] for segment in chosen}
    return fitting_view(sorted(cameras, key=lambda camera: record_digest(camera.as_record())), base)


def datasets(center: Center) -> list[dict[str, Any]]:
    """Every frozen dataset, by name and version."""
    rows = center.table("datasets").rows()
    return sorted(rows, key=lambda row: (row["name"], row["version"]))


def row_of(center: Center, dataset: str) -> DatasetRow:
    """A dataset by id, digest, manifest blob or name (its latest version). Raises NotFoundError."""
    rows = datasets(center)
    for row in rows:
        if dataset in (row["id"], row["digest"], row["artifact"]):
            return DatasetRow(**row)
    named = [row for row in rows if row["name"] == dataset]
    if not named:
        raise NotFoundError(f"dataset {dataset}", "see `onshore dataset list`.")
    return DatasetRow(**named[-1])


def show(center: Center, dataset: str) -> dict[str, Any]:
    """The manifest of a dataset, with its digest and version."""
    row = row_of(center, dataset)
    manifest = _manifest(center.read(row.artifact, purpose="train"), row)
    return {**manifest, "digest": row.digest, "version": row.version, "id": row.id, "artifact": row.artifact}


def diff(center: Center, before: str, after: str) -> dict[str, Any]:
    """What changed from one dataset to another: clips, drives, takeovers, settings, drives that changed their split."""
    a, b = show(center, before), show(center, after)

    def changed(of: str) -> dict[str, list[str]]:
        old, new = {entry["id"] for entry in a[of]}, {entry["id"] for entry in b[of]}
        return {"added": sorted(new - old), "removed": sorted(old - new)}

    old, new = ({entry["id"]: entry["split"] for entry in manifest["drives"]} for manifest in (a, b))
    names = sorted(set(a["settings"]) | set(b["settings"]))
    settings = {n: [a["settings"].get(n), b["settings"].get(n)] for n in names}
    return {
        "before": a["digest"],
        "after": b["digest"],
        "same": a["digest"] == b["digest"],
        "clips": changed("clips"),
        "drives": changed("drives"),
        "proxies": changed("proxies"),
        "takeovers": changed("takeovers"),
        "moved_split": {d: [old[d], new[d]] for d in sorted(old.keys() & new.keys()) if old[d] != new[d]},
        "settings": {n: values for n, values in settings.items() if values[0] != values[1]},
        "seconds": [a["counts"]["seconds"], b["counts"]["seconds"]],
    }


def verify(center: Center, dataset: str, *, progress: Progress = silent) -> dict[str, Any]:
    """Read every blob of a dataset again and check its digest and that it fits the manifest.

    Returns {"ok", "checked", "bytes", "problems": [...], "erased": [...]}; a damaged blob is a problem, not an exception.
    erased: members that were destroyed on request or because their time had passed, by their tombstones; the others still
    verify, and the next version goes on without them.
    """
    row = row_of(center, dataset)
    try:
        manifest = _manifest(center.read(row.artifact, purpose="train"), row)
    except OnshoreError as problem:
        return {"ok": False, "checked": 1, "bytes": 0, "problems": [str(problem)], "erased": []}
    problems = _contradictions(manifest)
    erased = tombstones(center, [e["id"] for of in ("clips", "proxies", "takeovers") for e in manifest[of]])
    members = [entry for entry in [*manifest["proxies"], *manifest["takeovers"]] if entry["id"] not in erased]
    size = 0
    for done, entry in enumerate(members):
        progress("verifying", done, len(members))
        try:
            data = center.open_many([entry["id"]], "train")(entry["id"])
            size += len(data)
            if "segment" in entry and Proxy.from_bytes(data, entry["id"]).segment != entry["segment"]:
                problems.append(f"{entry['id']}: it is the proxy of another segment.")
        except OnshoreError as problem:
            problems.append(str(problem))
    progress("verifying", len(members), len(members))
    gone = [erased[identity].as_record() for identity in sorted(erased)]
    return {"ok": not problems, "checked": len(members) + 1, "bytes": size, "problems": problems, "erased": gone}


def load_windows(
    center: Center,
    dataset: str,
    spec: WindowSpec | None = None,
    split: str = TRAIN,
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> Windows:
    """All windows of a split ("train" or "held_out") in memory; on-policy takeovers come with the train split.

    One residency decision for the whole dataset. workers: decoding threads; they change nothing but the time.
    """
    manifest, read = open_split(center, dataset, split)
    return windows_of(manifest, read, spec or views_of(manifest["settings"]), split, workers=workers, progress=progress)


def open_split(center: Center, dataset: str, split: str) -> tuple[dict[str, Any], Callable[[str], bytes]]:
    """A dataset's manifest and a reader for the members of one split alone. One residency decision."""
    if split not in (TRAIN, HELD_OUT):
        raise UsageError(f"split {split!r}", f"use {TRAIN} or {HELD_OUT}.")
    manifest = show(center, dataset)
    wanted = [identity for part in _members(manifest, split) for identity in part]
    erased = tombstones(center, wanted)
    if erased:
        advice = f"{len(erased)} of its members were destroyed; freeze it again, the next version goes on without them."
        raise InputError("erased", f"dataset {manifest['name']}", advice)
    return manifest, center.open_many(wanted, "train")


def windows_of(
    manifest: Mapping[str, Any],
    read: Callable[[str], bytes],
    spec: WindowSpec,
    split: str,
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> Windows:
    """The windows of a split from its manifest and whoever reads its members: needs no center, so a jail can do it."""
    members, extra = _members(manifest, split)
    weights = {entry["segment"]: entry["weight"] for entry in manifest["proxies"] if "weight" in entry}
    spans: dict[str, list[tuple[int, int]]] = {}
    for clip in manifest["clips"]:
        if clip["split"] == split:
            spans.setdefault(clip["segment"], []).append((clip["start_ns"], clip["end_ns"]))
    return build_windows(
        [Proxy.from_bytes(read(member), member) for member in members],
        spans,
        spec,
        takeovers=[read(member) for member in extra],
        weights=weights,
        workers=workers,
        progress=progress,
    )


def _members(manifest: Mapping[str, Any], split: str) -> tuple[list[str], list[str]]:
    """Ids of the proxies and of the takeovers of a split."""
    chosen = {entry["id"] for entry in manifest["drives"] if entry["split"] == split}
    proxies = [entry["id"] for entry in manifest["proxies"] if entry["drive"] in chosen]
    return proxies, [entry["id"] for entry in manifest["takeovers"]] if split == TRAIN else []


def _freeze(
    center: Center,
    name: str,
    clips: Sequence[Mapping[str, Any]],
    takeovers: Sequence[str],
    settings: dict[str, Any],
    where: str,
    progress: Progress,
) -> DatasetRow:
    spec = views_of(settings)
    pseudo = _pseudo_of(center, settings)
    public = {clip["drive"] for clip in clips if clip["segment"] in pseudo}
    places = {clip["drive"]: clip["place"] for clip in clips}
    splits = _splits(center, {drive: place for drive, place in places.items() if drive not in public}, settings)
    kept_out = {places[drive] for drive, split in splits.items() if split == HELD_OUT} - {""}
    splits |= {drive: TRAIN for drive in public if places[drive] not in kept_out}
    clips = [clip for clip in clips if clip["drive"] in splits]
    wanted = {clip["segment"]: clip["drive"] for clip in clips}
    proxies = [_proxies(center, wanted, view, progress, pseudo) for view in spec.views]
    extra = _checked_takeovers(center, takeovers, spec)
    read_off = [pseudo[segment] for segment in sorted(wanted) if segment in pseudo]
    members = [*(artifact for of_view in proxies for artifact in of_view.values()), *extra, *read_off]
    label = _label(center, members)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "region": center.region,
        "where": where,
        "settings": settings,
        "clips": _clip_entries(clips, splits),
        "drives": [{"id": d, "place": places[d], "split": splits[d]} for d in sorted(splits)],
        "proxies": [
            {"id": of_view[s].id, "segment": s, "drive": wanted[s]}
            | {name: of_view[s].meta[name] for name in ("frames", "shown_share", "sources")}
            | ({"weight": settings["pseudo_weight"], "pseudo_labels": pseudo[s].id} if s in pseudo else {})
            for of_view in proxies
            for s in sorted(of_view)
        ],
        "takeovers": [{"id": artifact.id, "bytes": artifact.size_bytes} for artifact in extra],
        "label": label.as_record(),
    }
    manifest["counts"] = _counts(manifest)
    return _keep(center, manifest, members)


def views_of(settings: Mapping[str, Any]) -> WindowSpec:
    """The views that a dataset with these settings was frozen for."""
    beside = tuple(View.from_record(record) for record in settings.get("side_views", ()))
    return WindowSpec(view=View.from_record(settings["view"]), side_views=beside)


def _label(center: Center, parents: Sequence[Artifact]) -> Label:
    """The union of the members' labels; personal data of more subjects than the region allows is important data (CN-06)."""
    label = derive([parent.label for parent in parents], kind="dataset")
    limit = center.pack.law.get("limits", {}).get("subjects_important")
    if not limit or len(label.subjects) <= limit:
        return label
    return replace(label, sensitivity=label.sensitivity | {"important"})


def _splits(center: Center, places: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, str]:
    """The split of every drive: the one it was given before under the same settings, if any, and remembered from now on."""
    table = center.table("splits")
    rule = record_digest([settings["held_out"], settings["seed"], settings["split_by"]])
    with _one_at_a_time(center):
        settled = {row["drive"]: row["split"] for row in table.rows(where=f"rule = '{rule}'")}
        splits = split_drives(
            places, held_out=settings["held_out"], seed=settings["seed"], by=settings["split_by"], settled=settled
        )
        fresh = [drive for drive in sorted(splits) if drive not in settled]
        if len(settled) + len(fresh) > 1:
            # a lone drive is not settled: it would never let itself be held out beside a second one
            table.upsert(
                [{"id": record_digest([rule, d]), "rule": rule, "drive": d, "split": splits[d]} for d in fresh], on="id"
            )
    return splits


def _one_at_a_time(center: Center) -> AbstractContextManager[None]:
    """Within: no other process of this machine settles splits or counts versions of this center."""
    return locked(center.root / "locks" / "dataset.lock")


def _keep(center: Center, manifest: dict[str, Any], parents: list[Artifact]) -> DatasetRow:
    """Store a manifest and its row once; its digest is that of its canonical JSON."""
    digest = record_digest(manifest)

    def run() -> dict[str, Any]:
        label = _label(center, parents)
        artifact = center.put(
            canonical_json(manifest), label, name=manifest["name"], parents=sorted({parent.id for parent in parents})
        )
        counts = manifest["counts"]
        with _one_at_a_time(center):
            earlier = [row for row in datasets(center) if row["name"] == manifest["name"] and row["digest"] != digest]
            row = DatasetRow(
                id=f"dataset-{digest[:32]}",
                name=manifest["name"],
                version=1 + max((row["version"] for row in earlier), default=0),
                digest=digest,
                artifact=artifact.id,
                region=manifest["region"],
                synthetic=label.synthetic,
                **counts,
            )
            center.table("datasets").upsert([row.as_record()], on="id")
        return row.as_record()

    outputs, _ = center.stage("dataset.freeze", {"digest": digest}, run)
    return DatasetRow(**outputs)


def _pseudo_of(center: Center, settings: Mapping[str, Any]) -> dict[str, Artifact]:
    """Segment -> the pseudo-labels that the settings name for it. Raises InputError `bad_config` for another artifact."""
    found: dict[str, Artifact] = {}
    for identity in settings.get("pseudo_labels", ()):
        artifact = center.artifact(identity)
        segment = str(artifact.meta.get("segment", ""))
        if artifact.label.kind != "pseudo_labels" or segment in found:
            advice = "give artifacts of kind pseudo_labels, at most one per segment."
            raise InputError("bad_config", f"{identity} ({artifact.label.kind})", advice)
        found[segment] = artifact
    return found


def _proxies(
    center: Center,
    wanted: Mapping[str, str],
    view: View,
    progress: Progress,
    pseudo: Mapping[str, Artifact] = MappingProxyType({}),
) -> dict[str, Artifact]:
    """The proxy of every segment, made where missing. What cannot be made is raised after the others are done."""
    rows = {row["id"]: row for row in segments(center)}
    made: dict[str, Artifact] = {}
    problems: list[OnshoreError] = []
    for done, segment in enumerate(sorted(wanted)):
        progress("making proxies", done, len(wanted))
        try:
            if segment not in rows:
                raise NotFoundError(f"segment {segment}", "its clips are here but it is gone; drop them first.")
            made[segment] = _proxy(center, rows[segment], view, pseudo.get(segment))
        except OnshoreError as problem:
            problems.append(problem)
    progress("making proxies", len(wanted), len(wanted))
    if problems:
        raise problems[0]
    return made


def _proxy(center: Center, segment: Mapping[str, Any], view: View, pseudo: Artifact | None = None) -> Artifact:
    """pseudo: labels that stand in for signals that were never recorded."""
    source = segment_artifact(center, segment)
    parents = [source] if pseudo is None else [source, pseudo]
    inputs: dict[str, Any] = {
        "segment": source.id,
        "view": view.as_record(),
        "recipe": [PROXY_VERSION, RATE_HZ, GOP_FRAMES, CRF],
    }

    if pseudo is not None:
        inputs |= {"pseudo_labels": pseudo.id, "ahead_s": OFFSETS_S[-1]}

    def run() -> dict[str, Any]:
        proxy = build_proxy(open_segment(center, segment["id"]), view)
        if pseudo is not None:
            proxy = _with_labels(center, proxy, pseudo)
        said = {} if pseudo is None else {"speed": "inverse dynamics", "yaw_rate": "inverse dynamics"}
        artifact = center.put(
            proxy.to_bytes(),
            derive([parent.label for parent in parents], kind="proxy"),
            name=f"proxy-{segment['id']}",
            parents=[parent.id for parent in parents],
            meta={
                "segment": segment["id"],
                "frames": len(proxy.video.packets),
                "shown_share": proxy.shown_share,
                # what the labels rest on: measured poses, or poses integrated from speed and yaw rate
                "sources": motion(proxy.signals, proxy.vehicle).sources | said | {"camera": proxy.camera_source},
            },
            key=segment["drive"],
        )
        return {"artifact": artifact.id}

    outputs, _ = center.stage("dataset.proxy", inputs, run)
    return center.artifact(outputs["artifact"])


def _with_labels(center: Center, proxy: Proxy, pseudo: Artifact) -> Proxy:
    if np.isfinite(proxy.signals.speed_mps).any():
        raise InputError("not_allowed", proxy.segment, "it has a recorded speed; pseudo-labels never replace that.")
    labels = PseudoLabels.from_bytes(center.read(pseudo.id, purpose="train"), pseudo.id)
    return replace(proxy, signals=labels.signals, ahead_s=OFFSETS_S[-1])


def segment_proxy(center: Center, segment_id: str, view: View) -> Artifact:
    """The proxy of one segment in a view, made where missing. Raises NotFoundError."""
    row = segment_row(center, segment_id)
    if row is None:
        raise NotFoundError(f"segment {segment_id}", "`drive list` shows what this center has.")
    return _proxy(center, row, view)


def segment_artifact(center: Center, segment: Mapping[str, Any]) -> Artifact:
    """The anonymised segment's own blob."""
    return center.artifact(segment["artifact"])


def _checked_takeovers(center: Center, ids: Iterable[str], spec: WindowSpec) -> list[Artifact]:
    """The takeover artifacts, each read once so that a wrong one is refused when freezing, not when training."""
    found = [center.artifact(identity) for identity in ids]
    for artifact in found:
        if artifact.label.kind != "takeovers":
            raise InputError(
                "bad_config", f"{artifact.id} ({artifact.label.kind})", "give artifacts of kind takeovers."
            )
        read_takeovers([center.read(artifact.id, purpose="train")], spec)
    return found


def _ids(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    return [entry["id"] for entry in entries]


def _remaining(center: Center, ids: Sequence[str]) -> list[str]:
    """Those that have no tombstone."""
    erased = tombstones(center, ids)
    return [identity for identity in ids if identity not in erased]


def _settings_left(center: Center, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the next version: without pseudo-labels that were destroyed."""
    if "pseudo_labels" not in settings:
        return dict(settings)
    return {**settings, "pseudo_labels": _remaining(center, settings["pseudo_labels"])}


def _clip_rows(center: Center, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Catalog rows of clips by id. Raises NotFoundError when one is gone."""
    rows = with_ids(center, [check_id(identity) for identity in ids])
    missing = set(ids) - {row["id"] for row in rows}
    if missing:
        raise NotFoundError(f"clip {min(missing)}", "it was in the dataset and is gone from the catalog.")
    return rows


def _clip_entries(clips: Sequence[Mapping[str, Any]], splits: Mapping[str, str]) -> list[dict[str, Any]]:
    names = ("id", "segment", "drive", "start_ns", "end_ns", "trigger")
    entries = [{name: clip[name] for name in names} | {"split": splits[clip["drive"]]} for clip in clips]
    return sorted(entries, key=lambda entry: entry["id"])


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    clips, drives = manifest["clips"], manifest["drives"]
    return {
        "clips": len(clips),
        "drives": len(drives),
        "segments": len({proxy["segment"] for proxy in manifest["proxies"]}),
        "seconds": round(_covered_ns(clips) / 1e9, 3),
        "train_clips": sum(clip["split"] == TRAIN for clip in clips),
        "held_out_clips": sum(clip["split"] == HELD_OUT for clip in clips),
        "train_drives": sum(drive["split"] == TRAIN for drive in drives),
        "held_out_drives": sum(drive["split"] == HELD_OUT for drive in drives),
        "takeovers": len(manifest["takeovers"]),
    }


def _covered_ns(clips: Sequence[Mapping[str, Any]]) -> int:
    """Time covered by clips, overlaps counted once."""
    total, segment, until = 0, "", 0
    for clip in sorted(clips, key=lambda clip: (clip["segment"], clip["start_ns"])):
        until = until if clip["segment"] == segment else clip["start_ns"]
        segment = clip["segment"]
        total += max(0, clip["end_ns"] - max(until, clip["start_ns"]))
        until = max(until, clip["end_ns"])
    return total


def _manifest(data: bytes, row: DatasetRow) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(data)
    except ValueError as problem:
        raise CorruptError("corrupt", f"dataset {row.name}", "its manifest is not JSON.") from problem
    if record_digest(manifest) != row.digest:
        raise CorruptError("corrupt", f"dataset {row.name}", "its manifest does not have its digest.")
    return manifest


def _contradictions(manifest: Mapping[str, Any]) -> list[str]:
    """What a manifest must never say: a clip in another split than its drive, a clip without a proxy, wrong counts."""
    splits = {drive["id"]: drive["split"] for drive in manifest["drives"]}
    known = {proxy["segment"] for proxy in manifest["proxies"]}
    problems = [
        f"clip {clip['id']}: its split is not that of its drive."
        for clip in manifest["clips"]
        if splits.get(clip["drive"]) != clip["split"]
    ]
    problems += [
        f"clip {clip['id']}: it is not the digest of its segment and times."
        for clip in manifest["clips"]
        if ClipRef(segment_id=clip["segment"], start_ns=clip["start_ns"], end_ns=clip["end_ns"]).id != clip["id"]
    ]
    problems += [f"clip {c['id']}: its segment has no proxy." for c in manifest["clips"] if c["segment"] not in known]
    if manifest["counts"] != _counts(manifest):
        problems.append("counts: they are not those of the entries.")
    return problems
