"""The audit of anonymisation: people look at a sample of what the center calls anonymous, and a bound per bucket decides.

Rule: whoever draws cannot choose. The sample follows from the center's salt and what was there; every sample that was drawn
counts, and one that nobody marked leaves everything unmeasured; among the pictures are drawn faces that a marker who looks
will see. A bucket's figure is the lower end of Wilson's interval; below the pack's `[audit.least]` nothing trained on those
segments leaves or is released, and what was not measured passes nowhere that asks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onshore.border.ancestry import Finder, ancestors
from onshore.border.book import AUDIT_DRAWN, AUDIT_MARKED, read_book
from onshore.border.lineage import attestation_of
from onshore.border.lines import acting
from onshore.core.digest import canonical_json, record_digest, sha256_hex
from onshore.core.errors import InputError, NotFoundError, OnshoreError, Refusal, UsageError
from onshore.core.label import Artifact
from onshore.privacy.canary import drawn_face
from onshore.privacy.marks import COVERED, Mark, overlaps, read_marks, tally, wilson
from onshore.residency import derive

if TYPE_CHECKING:
    from onshore.store import Center

RULE = "anonymisation-audit"
LEAST_PICTURES, MOST_PICTURES = 20, 5000
#: One picture in so many carries a drawn face that nothing covers; a marker has to see this share of them.
CONTROL_EVERY, CONTROLS_SEEN, PLACES = 20, 0.9, 64
#: A box is filled where no channel is brighter: black, as the codec gives it back.
BLACK = 24
Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket of one anonymiser. low, high: Wilson, 95 %; least: what low has to reach, if the pack names the bucket.

    status: holds, short, open (not named, and neither) or 'not measurable'.
    """

    anonymiser: str
    target: str
    name: str
    labelled: int
    covered: int
    low: float
    high: float
    least: float | None
    status: str

    def as_record(self) -> dict[str, Any]:
        return vars(self).copy()


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What audits say of one artifact's recorded segments. short: buckets below their bound. unmeasured: reasons."""

    segments: int
    short: tuple[Bucket, ...] = ()
    unmeasured: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AuditPolicy:
    """`[audit]` of a region pack: whether export asks for it, and the least lower bound for each bucket."""

    required: bool = True
    least: Mapping[str, float] = field(default_factory=lambda: {"all": 0.98})

    @classmethod
    def from_law(cls, law: Mapping[str, Any]) -> AuditPolicy:
        given = law.get("audit", {})
        least = given.get("least", {"all": 0.98})
        if set(given) - {"required", "least"} or "all" not in least or not all(0 < v < 1 for v in least.values()):
            raise InputError("bad_config", "audit", "give required, and least with a share for `all` at least.")
        return cls(required=bool(given.get("required", True)), least=least)


def draw_audit(
    center: Center, out_dir: str | Path, *, pictures: int = 200, anonymiser: str | None = None
) -> dict[str, Any]:
    """Draw pictures from every recorded segment that one anonymiser made, into an in-region folder for people to mark.

    While a sample of this anonymiser waits for its marks there is no other: its pictures are written again, as after a
    process that was killed before it wrote them. anonymiser: its digest, if the segments have several. Errors:
    NotFoundError without recorded segments, RefusedError `not_in_region`, UsageError.
    """
    from onshore.border.gate import write_out

    if not LEAST_PICTURES <= pictures <= MOST_PICTURES:
        raise UsageError(f"pictures {pictures}", f"draw {LEAST_PICTURES} to {MOST_PICTURES}.")
    if not center.in_region(Path(out_dir)):
        write_out(center, {"audit.json": b"{}"}, out_dir, kind="picture")  # refused, with its line
    rows, digest = _population(center, anonymiser)
    book = read_book(center)
    waiting = [body for audit, body in book.audits.items() if audit not in book.marked and body["anonymiser"] == digest]
    if waiting:
        body, drawn = waiting[0], list(_again(center, _still_here(center, _record(center, waiting[0]["audit"]))))
    else:
        body, drawn = _new_sample(center, rows, pictures, digest, len(book.audits))
    written = write_out(center, {entry["name"]: _png(frame) for entry, frame in drawn}, out_dir, kind="picture")
    told = {name: body[name] for name in ("audit", "anonymiser", "segments", "population")}
    return {**told, "files": [str(path) for path in written]}


def _new_sample(
    center: Center, rows: list[dict[str, Any]], pictures: int, digest: str, number: int
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], Frame]]]:
    """Draw, and write down what was drawn before anybody can look at it."""
    held = sorted(row["artifact"] for row in rows)
    lot = hmac.new(center.keys.salt, f"audit|{number}|{record_digest(held)}".encode(), hashlib.sha256).digest()
    drawn = list(_drawn(center, rows, pictures, np.random.default_rng(list(lot)), f"audit-{lot[:6].hex()}"))
    record = {"anonymiser": digest, "number": number, "segments": held, "pictures": [entry for entry, _ in drawn]}
    label = derive([one.label for one in center.many(held)], kind="evidence", retention="evidence")
    kept = center.put(canonical_json(record), label, name=f"audit-{lot[:6].hex()}", parents=held)
    body = {"audit": kept.id, "anonymiser": digest, "segments": len(held), "population": record_digest(held)}
    center.ledger.append(AUDIT_DRAWN, {**body, "pictures": len(drawn), "by": acting(center)})
    return body, drawn


def mark_audit(center: Center, audit: str, marks: str | Path) -> dict[str, Any]:
    """Take what a person marked on the pictures: CSV with file, class, x0, y0, x1, y1, seen, circumstance.

    A face or plate counts as covered when the marker cannot recognise it and 75 % of its box is filled. Errors: InputError
    `conflict` when this audit was marked before, OnshoreError `not_measurable` when the marker overlooked drawn faces.
    """
    book = read_book(center)
    if audit not in book.audits:
        raise NotFoundError(f"audit {audit}", "`onshore border audit show` lists them.")
    if audit in book.marked:
        raise InputError("conflict", audit, "it was marked before; every drawn sample counts once. Draw another.")
    record = _record(center, audit)
    by_name = {entry["name"]: entry for entry in _still_here(center, record)}
    told_of = read_marks(Path(marks), known={entry["name"] for entry in record["pictures"]})
    given = {name: marks_of_one for name, marks_of_one in told_of.items() if name in by_name}
    controls = [entry for entry in by_name.values() if entry["control"]]
    heeded = sum(any(m.seen and overlaps(m.box, e["control"]) for m in given.get(e["name"], ())) for e in controls)
    if heeded < CONTROLS_SEEN * len(controls):
        told = (
            f"{heeded} of {len(controls)} drawn faces were marked; look at every picture and mark all that can be seen."
        )
        raise OnshoreError("not_measurable", Path(marks).name, told)
    buckets = tally(_judged(center, by_name, given))
    lines = [{**vars(mark), "file": name} for name, of_one in sorted(given.items()) for mark in of_one]
    evidence = canonical_json({"audit": audit, "marks": lines})
    kept = center.put(evidence, center.artifact(audit).label, name="audit-marks", parents=[audit])
    body = {"audit": audit, "anonymiser": record["anonymiser"], "marks": kept.id, "buckets": buckets}
    body |= {"controls": len(controls), "controls_seen": heeded, "by": acting(center)}
    center.ledger.append(AUDIT_MARKED, body)
    return {**body, "standing": [one.as_record() for one in buckets_of(center, record["anonymiser"])]}


def buckets_of(center: Center, anonymiser: str) -> list[Bucket]:
    """Every bucket of one anonymiser over all its marked audits, those that the pack names first."""
    policy, pooled = AuditPolicy.from_law(center.pack.law), dict[tuple[str, str], tuple[int, int]]()
    for body in read_book(center).marked.values():
        if body["anonymiser"] == anonymiser:
            for target, name, labelled, covered in body["buckets"]:
                before = pooled.get((target, name), (0, 0))
                pooled[target, name] = (before[0] + labelled, before[1] + covered)
    targets = sorted({target for target, _ in pooled} | {"face"})
    named = [(target, name) for target in targets for name in policy.least]
    return [
        _bucket(anonymiser, key, pooled.get(key, (0, 0)), policy) for key in [*named, *sorted(set(pooled) - set(named))]
    ]


def standing(center: Center, artifact: Artifact, parent_of: Finder | None = None) -> Standing:
    """What the audits say of the recorded segments that `artifact` was made of; synthetic ones show nobody."""
    by_anonymiser: dict[str, set[str]] = {}
    removed: dict[str, frozenset[str]] = {}
    try:
        everything = ancestors(center, artifact, parent_of)
    except (NotFoundError, InputError) as problem:
        return Standing(segments=0, unmeasured=(f"an ancestor cannot be read ({problem.code})",))
    for one in everything:
        attestation = attestation_of(one) if not one.label.synthetic else None
        if attestation is not None:
            digest = attestation.detector_digest
            by_anonymiser.setdefault(digest, set()).add(one.id)
            removed[digest] = removed.get(digest, frozenset()) | attestation.removes
    short, unmeasured = list[Bucket](), list[str]()
    for digest, segments in sorted(by_anonymiser.items()):
        rows = [one for one in buckets_of(center, digest) if one.target in removed[digest]]
        short += [one for one in rows if one.status == "short"]
        unmeasured += _unmeasured(center, digest, segments)
        empty = sorted(f"{one.target} {one.name}" for one in rows if one.status == "not measurable")
        unmeasured += [f"no mark in the buckets {', '.join(empty)}"] if empty else []
    count = sum(len(segments) for segments in by_anonymiser.values())
    return Standing(segments=count, short=tuple(short), unmeasured=tuple(unmeasured))


def objection(center: Center, artifact: Artifact, parent_of: Finder | None = None) -> Refusal | None:
    """Why the gate does not let it pass: a bucket below its bound, or not measured where the pack asks for it."""
    found = standing(center, artifact, parent_of)
    if found.short:
        return refusal_of(artifact.id, found.short)
    if found.unmeasured and AuditPolicy.from_law(center.pack.law).required:
        return _no("not_measurable", artifact.id, found.unmeasured[0])
    return None


def refusal_of(artifact: str, short: Iterable[Bucket]) -> Refusal:
    told = "; ".join(
        f"{one.target} {one.name}: {one.covered} of {one.labelled}, low {one.low:.3f} < {one.least:.2f}"
        if one.least is not None
        else f"{one.target} {one.name}: {one.covered} of {one.labelled}, high {one.high:.3f}"
        for one in short
    )
    return _no("not_cleared", artifact, f"too much was left visible; {told}")


def _no(code: str, artifact: str, clause: str) -> Refusal:
    return Refusal(
        code=code,
        subject=f"export {artifact}",
        rule=RULE,
        clause=f"what was anonymised is looked at, and the bound of each bucket holds (CN-11); {clause}",
        remedy="`onshore border audit draw`, mark the pictures, `onshore border audit mark`; or anonymise better and again.",
    )


def _unmeasured(center: Center, anonymiser: str, segments: set[str]) -> Iterator[str]:
    book = read_book(center)
    mine = [audit for audit, body in book.audits.items() if body["anonymiser"] == anonymiser]
    if not mine:
        yield "nobody drew a sample of what this anonymiser made"
        return
    if set(mine) - set(book.marked):
        yield f"{len(set(mine) - set(book.marked))} samples were drawn and never marked"
    looked_at = {one for audit in set(mine) & set(book.marked) for one in _record(center, audit)["segments"]}
    if segments - looked_at:
        yield f"{len(segments - looked_at)} segments came in after the last sample was drawn"


def _bucket(anonymiser: str, key: tuple[str, str], found: tuple[int, int], policy: AuditPolicy) -> Bucket:
    labelled, covered = found
    low, high = wilson(covered, labelled)
    least = policy.least.get(key[1])
    if not labelled:
        status = "not measurable"
    elif least is not None:
        status = "holds" if low >= least else "short"
    else:
        status = "short" if high < policy.least["all"] else "open"
    return Bucket(
        anonymiser=anonymiser,
        target=key[0],
        name=key[1],
        labelled=labelled,
        covered=covered,
        low=low,
        high=high,
        least=least,
        status=status,
    )


def _population(center: Center, anonymiser: str | None) -> tuple[list[dict[str, Any]], str]:
    from onshore.drive import segments

    rows = [row for row in segments(center) if not row["synthetic"]]
    digests = sorted({row["anonymiser"] for row in rows})
    if not rows or (anonymiser is not None and anonymiser not in digests):
        raise NotFoundError(
            "recorded segments", "an audit needs segments that a camera recorded and this anonymiser made."
        )
    if anonymiser is None and len(digests) > 1:
        raise UsageError("audit draw", f"name one anonymiser: {', '.join(digests)}.")
    digest = anonymiser or digests[0]
    return [row for row in rows if row["anonymiser"] == digest], digest


def _drawn(
    center: Center, rows: list[dict[str, Any]], count: int, draw: np.random.Generator, stem: str
) -> Iterator[tuple[dict[str, Any], Frame]]:
    """Frames in equal chance over all segments, in shuffled order, with what the marker is not told."""
    ends = np.cumsum([row["frames"] for row in rows])
    chosen = np.sort(draw.permutation(int(ends[-1]))[:count])
    order = draw.permutation(len(chosen)).tolist()
    controls = set(order[::CONTROL_EVERY])
    place = np.searchsorted(ends, chosen, side="right")
    for index, row in enumerate(rows):
        mine = {int(at - (ends[index - 1] if index else 0)): n for n, at in enumerate(chosen) if place[n] == index}
        for at, camera, t_ns, frame in _frames(center, row["id"], set(mine)):
            number = order[mine[at]]
            box = _with_face(frame, draw) if number in controls else None
            entry = {"name": f"{stem}-{number:04d}.png", "segment": row["id"], "camera": camera, "frame": at}
            yield {**entry, "t_ns": t_ns, "control": box, "sha256": sha256_hex(frame.tobytes())}, frame


def _frames(center: Center, segment: str, wanted: set[int]) -> Iterator[tuple[int, str, int, Frame]]:
    """(number, camera, t_ns, copy of the picture) of the wanted frames, counted through all cameras of a segment."""
    from onshore.drive import open_segment
    from onshore.wire import decode

    at = -1
    for video in open_segment(center, segment).videos if wanted else ():
        for t_ns, frame in decode(video):
            at += 1
            if at in wanted:
                yield at, video.camera, int(t_ns), frame.copy()


def _record(center: Center, audit: str) -> dict[str, Any]:
    """What was drawn: anonymiser, number, segments (artifacts), pictures."""
    record: dict[str, Any] = json.loads(center.read(audit))
    return record


def _still_here(center: Center, record: dict[str, Any]) -> list[dict[str, Any]]:
    """A sample's pictures, without those of segments that were erased since."""
    from onshore.drive import segments

    known = {row["id"] for row in segments(center)}
    return [entry for entry in record["pictures"] if entry["segment"] in known]


def _again(center: Center, pictures: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Frame]]:
    """The pictures of a sample as they were drawn."""
    for segment in sorted({entry["segment"] for entry in pictures}):
        mine = {entry["frame"]: entry for entry in pictures if entry["segment"] == segment}
        for at, _, _, frame in _frames(center, segment, set(mine)):
            if mine[at]["control"]:
                left, top, right, bottom = (int(value) for value in mine[at]["control"])
                frame[top:bottom, left:right] = _face_for(frame)
            yield mine[at], frame


def _face_for(frame: Frame) -> Frame:
    """The drawn face, small enough for a picture."""
    picture, boxes = drawn_face(96, 96)
    x0, y0, x1, y1 = (int(v) for v in boxes[0, :4])
    step = 1 + max((y1 - y0) // frame.shape[0], (x1 - x0) // frame.shape[1])
    face: Frame = picture[0, y0:y1:step, x0:x1:step][: frame.shape[0], : frame.shape[1]]
    return face


def _with_face(frame: Frame, draw: np.random.Generator) -> list[float]:
    """Draw a face into the picture, uncovered, where chance wants it; returns its box."""
    face = _face_for(frame)
    for _ in range(PLACES):  # where nothing was filled: it must not hide what is to be judged
        top = int(draw.integers(0, frame.shape[0] - face.shape[0] + 1))
        left = int(draw.integers(0, frame.shape[1] - face.shape[1] + 1))
        if not (frame[top : top + face.shape[0], left : left + face.shape[1]] <= BLACK).all(-1).any():
            break
    frame[top : top + face.shape[0], left : left + face.shape[1]] = face
    return [float(left), float(top), float(left + face.shape[1]), float(top + face.shape[0])]


def _judged(
    center: Center, by_name: Mapping[str, dict[str, Any]], given: Mapping[str, list[Mark]]
) -> Iterator[tuple[Mark, bool]]:
    """Each mark on what was recorded (none below a drawn face), and whether it is covered in the stored picture."""
    for segment in sorted({by_name[name]["segment"] for name in given}):
        mine = {by_name[name]["frame"]: name for name in given if by_name[name]["segment"] == segment}
        for at, _, _, frame in _frames(center, segment, set(mine)):
            control = by_name[mine[at]]["control"]
            for mark in given[mine[at]]:
                if not (control and overlaps(mark.box, control, least=0.0)):
                    x0, y0, x1, y1 = (round(value) for value in mark.box)
                    black = (frame[y0:y1, x0:x1] <= BLACK).all(-1)
                    yield mark, not mark.seen and bool(black.size) and float(black.mean()) >= COVERED


def _png(frame: Frame) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", np.ascontiguousarray(frame[..., ::-1]))
    if not done:
        raise InputError("bad_config", "picture", "it could not be encoded as PNG.")
    return bytes(data.tobytes())
