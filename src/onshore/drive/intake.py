"""Drives come in: seal the original, anonymise, store, catalogue. One segment at a time, rows last.

Rule: one bad file never stops the others and is told with one reason; a second run finds everything known; a kill leaves
at most sealed bytes without a row, and the next run finishes them under the same ids.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onshore.core.digest import blob_id_of, sha256_hex, short_id
from onshore.core.errors import CorruptError, InputError, UsageError
from onshore.core.label import Label
from onshore.core.progress import Progress, silent
from onshore.core.recording import Recording
from onshore.drive.catalog import SEGMENTS, DriveRow, add_segment, settle_drives
from onshore.drive.columns import load_map, shipped_maps
from onshore.drive.digests import file_digest, source_digest
from onshore.drive.discover import Source, discover, unreadable
from onshore.drive.fence import Fence, fence_record
from onshore.drive.grouping import Placed, group
from onshore.drive.looks import Known
from onshore.drive.positions import keep_positions
from onshore.drive.prepare import FENCE, PSEUDONYM, UNSIGNALLED, Prepared
from onshore.drive.signers import SignerBook
from onshore.drive.times import check_times
from onshore.drive.workers import Desk
from onshore.residency import Attestation, derive
from onshore.store import Center
from onshore.wire.writing import to_bytes

READERS = ("mcap", "table", "video")
#: How the fleet's segments look: rows of bits, nothing personal.
LOOKS = "looks"
DECLASSIFIER = "drive-anonymiser"


@dataclass(frozen=True, kw_only=True)
class AddReport:
    """What `add` did. added: the drives that got new segments, as they are now; known: segments that were here already.

    segments, frames: how many are new. quarantined: path, code, reason of what could not come in. ignored: files that
    are no drives (pictures, notes).
    """

    added: list[DriveRow]
    segments: int
    frames: int
    known: int
    quarantined: list[dict[str, Any]]
    ignored: int

    def as_record(self) -> dict[str, Any]:
        return {**vars(self), "added": [row.as_record() for row in self.added]}


def add(
    center: Center,
    paths: Iterable[Path | str] | Path | str,
    *,
    reader: str | None = None,
    column_map: Path | str | None = None,
    public: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> AddReport:
    """Take in every drive below the paths.

    reader, column_map: in place of recognition. public: the drives come from a published data set, and their rows say so;
    only such may lack a speed, and `reader="video"` takes videos that have nothing but pictures.
    workers: processes that decode and anonymise; the digests do not depend on it. Raises InputError `empty_input` when
    there is nothing below the paths, NotFoundError for a path that does not exist, UsageError, and OnshoreError when
    frames cannot be anonymised at all.
    """
    if reader is not None and reader not in READERS:
        raise UsageError(f"reader {reader!r}", f"use one of {', '.join(READERS)}.")
    if reader == "video" and not public:
        raise UsageError(
            "reader 'video'", "video without signals is taken as public only; the fleet's drives have a speed."
        )
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    maps = [load_map(column_map)] if column_map is not None else shipped_maps()
    found = discover(listed, maps, reader=reader)
    asked = {"reader": reader, "column_map": str(Path(column_map).resolve()) if column_map else None, "public": public}
    settle_drives(center)  # a run that was killed left segments in and their drives as they were
    intake = _Intake(center, asked, progress=progress)
    for one in found.unusable:
        plain = os.path.isfile(one.path) and not os.path.islink(one.path)  # also where the folder lets nobody look
        intake.quarantine([one.path] if plain else [], one.path, one.error)
    if not found.sources and all(one.error.code == "empty_input" for one in found.unusable):
        raise InputError("empty_input", ", ".join(str(path) for path in listed), "nothing below it is a drive.")
    intake.take(found.sources, workers)
    return intake.report(found.ignored)


class _Intake:
    """One run of `add`. asked: its reader, column_map and public, which what stays out is tried again with."""

    def __init__(self, center: Center, asked: dict[str, Any], *, progress: Progress) -> None:
        self.center, self.asked, self.progress = center, asked, progress
        self.public: bool = asked["public"]
        self.here = _Here(center.table(SEGMENTS).rows())
        self.fresh: dict[str, dict[str, Any]] = {}
        self.touched: set[str] = set()
        self.known = 0
        self.looks: Known | None = None
        self.signers = SignerBook(center)
        self.fence = fence_record(center)
        self.judged = self.fenced = self.located = 0
        self.quarantined: list[dict[str, Any]] = []
        self.waiting: dict[str, list[str]] = {}
        for held in center.quarantine_list():
            self.waiting.setdefault(held["path"], []).append(held["id"])

    def take(self, sources: Sequence[Source], workers: int) -> None:
        """The same bytes twice are one source: copies wait until the first of them is in, and are known then."""
        digests = self._digests(sources)
        firsts: dict[str, Source] = {}
        readable = [source for source in sources if source.path in digests]
        for source in readable:
            digest = digests[source.path]
            firsts[digest] = min(firsts.get(digest, source), source, key=_name_length)
        copies = [source for source in readable if firsts[digests[source.path]] is not source]
        for part in filter(None, (list(firsts.values()), copies)):
            with Desk(self.center, part, workers) as desk:
                self._take(part, digests, desk)
        self._count_fence()

    def _digests(self, sources: Sequence[Source]) -> dict[Path, str]:
        """Of every source that can be read; the others go to quarantine."""
        digests: dict[Path, str] = {}
        for source in sources:
            try:
                digests[source.path] = source_digest(source.files)
            except OSError as problem:
                self.quarantine([], source.path, unreadable(source.path, problem))
        return digests

    def _take(self, sources: Sequence[Source], digests: Mapping[Path, str], desk: Desk) -> None:
        placed: list[Placed] = []
        for source in sources:
            try:
                if not self._is_known(digests[source.path]):
                    placed.append(desk.located(source))
            except (InputError, CorruptError) as error:
                self.quarantine(source.files, source.path, InputError(error.code, error.subject, error.advice))
        settled = group([*placed, *self._beside(placed, sources, digests, desk)])
        law = {**self.center.pack.law, FENCE: self.fence, UNSIGNALLED: self.public}
        for done, (one, outcome) in enumerate(desk.prepared(settled, law)):
            self.progress("drive add", done, len(settled))
            try:
                if isinstance(outcome, InputError):
                    raise outcome
                self._commit(one, outcome, digests[one.source.path])
            except InputError as error:
                self._kept_out(one, error)
            except OSError as problem:
                if not _lies_beside(one.source, problem):
                    raise
                self._kept_out(one, unreadable(one.source.path, problem))
        self.judged += len(settled)
        self.progress("drive add", len(settled), len(settled))

    def _kept_out(self, one: Placed, error: InputError) -> None:
        self.fenced += error.code == "geofenced"
        if error.code != "geofenced" or self.fence is None or self.fence["action"] != "drop":
            self.quarantine(one.source.files, one.source.path, error)

    def _count_fence(self) -> None:
        """The map's version and how often it was hit: one line for a run that brought something."""
        if self.fence is not None and self.judged:
            version = Fence.from_record(self.fence).version
            located = self.located + self.fenced
            body = {"fence": version, "checked": located, "unlocated": self.judged - located, "hits": self.fenced}
            self.center.ledger.append("drive.geofence.checked", body)

    def report(self, ignored: int) -> AddReport:
        settled = settle_drives(self.center, self.touched)
        fresh = {row["drive"] for row in self.fresh.values()}
        return AddReport(
            added=[row for row in settled if row.id in fresh],
            segments=len(self.fresh),
            frames=sum(row["frames"] for row in self.fresh.values()),
            known=self.known,
            quarantined=self.quarantined,
            ignored=ignored,
        )

    def quarantine(self, files: Sequence[Path], path: Path, error: InputError) -> None:
        """files: what the file's digest in quarantine is made of; none where they cannot be read any more."""
        try:
            digest = source_digest(files) if files else sha256_hex(b"")
        except OSError:
            digest = sha256_hex(b"")
        identity = self.center.quarantine_add(path, error.code, str(error), digest, asked=self.asked)
        self.quarantined.append({"id": identity, "path": str(path), "code": error.code, "reason": str(error)})

    def _is_known(self, digest: str) -> bool:
        """The very bytes came in before, as an original or as a segment exported from here."""
        row = self._row_of(digest)
        if row is not None and self.public and not (row["public"] or row["synthetic"]):
            raise self._laundered(row["id"], digest, "these very bytes are")
        if row is not None:
            self.known += 1
            self.touched.add(row["drive"])
        return row is not None

    def _row_of(self, digest: str) -> dict[str, Any] | None:
        return self.here.by_bytes.get(digest) or self.here.by_bytes.get(blob_id_of(self.center.region, digest))

    def _beside(
        self, placed: Sequence[Placed], sources: Sequence[Source], digests: Mapping[Path, str], desk: Desk
    ) -> list[Placed]:
        """What came in before and lies in the folders of new sources, as its rows say, so that these go on with it."""
        folders = {one.source.path.parent for one in placed if not one.stated}
        found = []
        for source in sources:
            row = self._row_of(digests[source.path])
            if row is None or source.path.parent not in folders or row["public"] != self.public:
                continue
            try:
                one = desk.located(source)
            except (InputError, CorruptError):  # it came in by another column map
                continue
            if not one.stated and self.center.subject("vehicle", one.vehicle) == row["vehicle"]:
                found.append(replace(one, drive_id=row["drive"], index=row["index"]))
        return found

    def _commit(self, placed: Placed, prepared: Prepared, digest: str) -> None:
        """One segment: seal, put (which leaves the ledger line), row. Each step is idempotent; the row makes it visible."""
        self.located += prepared.located
        recording = self._identified(placed, prepared)
        drive_id, segment_id = str(recording.drive_id), str(recording.segment_id)
        signer = self.signers.judge(placed.source.files, str(recording.vehicle))
        check_times(recording, self.center, self.signers.made_ns(str(recording.vehicle)))
        if self.public or recording.synthetic:
            self._check_not_ours(prepared, digest)
        if self.here.holds(placed, prepared, recording, digest):
            self.known += 1
            self.touched.add(drive_id)
            return
        raw_label, label, attestation = _labels(self.center.region, recording, prepared)
        recording = replace(recording, facts={**recording.facts, "label": label.as_record()})
        data = to_bytes(recording, positions=prepared.position)
        parents = []
        if not (prepared.untouched and file_digest(placed.source.path) == sha256_hex(data)):
            parents = self._seal(placed, raw_label, drive_id, digest)
            if prepared.positions:
                keep_positions(self.center, raw_label, parents, prepared.positions, segment_id, drive_id)
        artifact = self.center.put(
            data,
            label,
            name=segment_id,
            parents=parents,
            meta={"frames": prepared.proof["frames"], "drive": drive_id, "signer": signer},
            key=drive_id,
            declassified=attestation,
        )
        row = _row(recording, prepared, placed, artifact.id, parents, digest, self.public) | {"signer": signer}
        if not (self.public or recording.synthetic):
            self.center.table(LOOKS).upsert([{"id": segment_id, "drive": drive_id, "looks": ",".join(prepared.looks)}])
            self.looks = None
        add_segment(self.center, row)
        for waiting in self.waiting.pop(str(placed.source.path), []):
            self.center.quarantine_remove(waiting)
        self.here.add(row)
        self.fresh[segment_id] = row
        self.touched.add(drive_id)

    def _check_not_ours(self, prepared: Prepared, digest: str) -> None:
        """What calls itself public or synthetic must not be a copy of what the fleet recorded."""
        same = self.here.fleet_video(prepared.video)
        if same is not None:
            raise self._laundered(same, digest, "its pictures are byte for byte")
        if self.looks is None:
            self.looks = Known(self.center.table(LOOKS).rows())
        copied = self.looks.copied(prepared.looks)
        if copied is not None:
            raise self._laundered(copied[0], digest, f"{copied[1]:.0%} of its pictures are copies of")

    def _laundered(self, segment: str, digest: str, what: str) -> InputError:
        self.center.ledger.append("drive.laundering", {"source": digest, "segment": segment})
        advice = f"{what} fleet data; what the fleet recorded does not come back as public or synthetic."
        return InputError("laundered", segment, advice)

    def _identified(self, placed: Placed, prepared: Prepared) -> Recording:
        """Salted vehicle and ids: the file's own where it carries them, else derived from what was recorded."""
        recording = prepared.recording
        pseudonym = recording.segment_id is not None and PSEUDONYM.fullmatch(recording.vehicle)
        vehicle = recording.vehicle if pseudonym else self.center.subject("vehicle", recording.vehicle)
        drive_id = recording.drive_id or placed.drive_id or short_id("drive", [vehicle, recording.drive_key])
        segment_id = recording.segment_id or short_id(
            "segment", [drive_id, recording.segment_index, prepared.signals, prepared.video]
        )
        if not drive_id.startswith("drive-") or not segment_id.startswith("segment-"):
            raise InputError("bad_id", f"{drive_id} {segment_id}", "ids begin with drive- and segment-.")
        return replace(recording, vehicle=vehicle, drive_id=drive_id, segment_id=segment_id, drive_key="")

    def _seal(self, placed: Placed, label: Label, drive_id: str, digest: str) -> list[str]:
        if source_digest(placed.source.files) != digest:
            raise InputError("conflict", placed.source.path.name, "the file changed while it was read; add it again.")
        return [
            self.center.raw.seal(
                path, key=f"{drive_id}-raw", label=label, name=f"original-{position}", meta={"drive": drive_id}
            ).id
            for position, path in enumerate(placed.source.files)
        ]


def _name_length(source: Source) -> int:
    """Copies have longer names than what they were copied from."""
    return len(source.path.name)


def _lies_beside(source: Source, problem: OSError) -> bool:
    """Whether a fault is about a file of the source or its manifest, and not about the center's own store."""
    return problem.filename is not None and Path(problem.filename).parent == source.path.parent


class _Here:
    """The segments that a center holds, by everything that must not come twice."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.by_bytes: dict[str, dict[str, Any]] = {}
        self._by_id: dict[str, dict[str, Any]] = {}
        self._by_place: dict[tuple[str, int], dict[str, Any]] = {}
        self._by_content: dict[tuple[str, str], dict[str, Any]] = {}
        self._by_video: dict[str, dict[str, Any]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        self.by_bytes[row["source_digest"]] = self.by_bytes[row["artifact"]] = row
        self._by_id[row["id"]] = self._by_place[row["drive"], row["index"]] = row
        self._by_content[row["signals_digest"], row["video_digest"]] = self._by_video[row["video_digest"]] = row

    def fleet_video(self, video: str) -> str | None:
        """The segment of the fleet that has these very pictures."""
        row = self._by_video.get(video)
        return str(row["id"]) if row is not None and not (row["public"] or row["synthetic"]) else None

    def holds(self, placed: Placed, prepared: Prepared, recording: Recording, digest: str) -> bool:
        """True when this very segment is here; raises InputError `conflict` when its place is taken by other bytes."""
        subject = placed.source.path.name
        same = self._by_content.get((prepared.signals, prepared.video))
        if same is not None and (prepared.recording.segment_id is not None or same["source_digest"] == digest):
            return True
        if same is not None:  # a file without ids of its own: which of two copies is the original is not ours to guess
            advice = "the same pictures and signals came before from other bytes; the first stay, this copy does not come in."
            raise InputError("conflict", f"{subject} and {same['id']}", advice)
        taken = self._by_id.get(str(recording.segment_id)) or self._by_place.get(
            (str(recording.drive_id), recording.segment_index)
        )
        if taken is not None:
            advice = "other bytes are here under the same ids; the first stay, this copy does not come in."
            raise InputError("conflict", f"{subject} as segment {taken['index']} of {taken['drive']}", advice)
        twin = None if recording.synthetic else self._by_video.get(prepared.video)  # drawn pictures may well repeat
        if twin is not None:
            raise InputError(
                "conflict", f"{subject} and {twin['id']}", "the same pictures came before with other signals."
            )
        return False


def _labels(region: str, recording: Recording, prepared: Prepared) -> tuple[Label, Label, Attestation]:
    """The original's label, the segment's, and the attestation between them."""
    proof = prepared.proof
    positions = frozenset(["position"])
    raw = Label(
        region=region,
        kind="raw_drive",
        sensitivity=frozenset(["face", "vin", "unmeasured_plates"]) | positions,
        subjects=frozenset([recording.vehicle]),
        retention="raw",
        derived_from_raw=True,
        synthetic=recording.synthetic,
    )
    removes = frozenset(proof["removes"]) | {"vin"} | (frozenset() if prepared.position else positions)
    measured: dict[str, Any] = {
        "vin": {"source_text_fields_kept": 0},
        "position": {"positions_written": 0},
        **{
            target: {
                "frames": proof["frames"],
                "boxes_filled": proof["boxes"][target],
                "canaries_found": proof["canaries_found"],
                "recall": "not measured on this center's own pictures; `privacy measure` measures it",
            }
            for target in proof["removes"]
        },
    }
    attestation = Attestation(
        declassifier=DECLASSIFIER,
        removes=removes,
        adds=frozenset(f"unmeasured_{target}s" for target in proof["unmeasured"]),
        detector_digest=proof["digest"],
        measured={name: measured[name] for name in sorted(removes)},
    )
    return raw, derive([raw], kind="segment", retention="clip", declassified=attestation), attestation


def _row(
    recording: Recording,
    prepared: Prepared,
    placed: Placed,
    artifact: str,
    parents: list[str],
    digest: str,
    public: bool,
) -> dict[str, Any]:
    speed = recording.signals.speed_mps[np.isfinite(recording.signals.speed_mps)]
    frame_times = np.concatenate([video.t_ns for video in recording.videos])
    return {
        "id": recording.segment_id,
        "drive": recording.drive_id,
        "vehicle": recording.vehicle,
        "index": recording.segment_index,
        "start_ns": recording.start_ns,
        "end_ns": recording.end_ns,
        "video_start_ns": int(frame_times.min()),
        "video_end_ns": int(frame_times.max()),
        "clock": recording.clock.kind,
        "frames": sum(len(video.packets) for video in recording.videos),
        "cameras": [video.camera for video in recording.videos],
        "signals": recording.signals.known(),
        "dropped_topics": list(recording.dropped_topics),
        "speed_min_mps": min(speed.tolist(), default=np.nan),
        "speed_max_mps": max(speed.tolist(), default=np.nan),
        "place": str(recording.facts.get("place", "")),
        "synthetic": recording.synthetic,
        "public": public,
        "reader": placed.source.column_map.name if placed.source.column_map else placed.source.reader,
        "artifact": artifact,
        "originals": ",".join(parents),
        "source_digest": digest,
        "signals_digest": prepared.signals,
        "video_digest": prepared.video,
        "anonymiser": prepared.proof["digest"],
    }
