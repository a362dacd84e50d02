"""Every frame through every detector, solid fill over what they find, and a proof of what was done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onshore.core.digest import record_digest
from onshore.core.errors import InputError, OnshoreError
from onshore.privacy.detector import MOST_GAP, Boxes, Detector, Frames, bridged, dilated, overlap

TARGETS = ("face", "plate")
DILATION = 0.15
CANARY_OVERLAP = 0.3


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was done to how many frames: the facts of an attestation.

    removes: targets a detector stood for. unmeasured: targets nothing looked for; they stay in the label.
    widest_faces: for each frame the widest face as a share of its width; not in the record.
    digest: of detectors, thresholds, dilation, bridged gap and fill; equal digests mean the same treatment.
    """

    digest: str
    frames: int
    boxes: dict[str, int]
    removes: frozenset[str]
    unmeasured: frozenset[str]
    canaries_found: int
    dilation: float = DILATION
    widest_faces: tuple[float, ...] = field(default=(), repr=False)

    def as_record(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "frames": self.frames,
            "boxes": dict(sorted(self.boxes.items())),
            "removes": sorted(self.removes),
            "unmeasured": sorted(self.unmeasured),
            "canaries_found": self.canaries_found,
            "dilation": self.dilation,
            "recall": {target: "not measurable" for target in sorted(self.unmeasured)},
        }


class Anonymiser:
    """Blackens what its detectors find; without a detector nothing may pass, so one is demanded."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        if not detectors:
            raise InputError("bad_config", "detectors", "an anonymiser needs at least one detector.")
        self.detectors = tuple(detectors)

    @property
    def digest(self) -> str:
        return record_digest(
            {
                "detectors": [[d.name, d.target, d.digest] for d in self.detectors],
                "dilation": DILATION,
                "gap": MOST_GAP,
                "fill": 0,
            }
        )

    def describe(self) -> list[dict[str, str]]:
        """What looks for what: target, detector, digest, status; a target without a detector says so."""
        rows = []
        for target in TARGETS:
            found = [detector for detector in self.detectors if detector.target == target]
            status = "in use; recall by `privacy measure`" if found else "no detector: recall not measurable"
            names, digests = (",".join(getattr(d, name) for d in found) for name in ("name", "digest"))
            rows.append({"target": target, "detector": names, "digest": digests, "status": status})
        return rows

    def redact(self, frames_NHWC: Frames) -> tuple[Frames, Proof]:
        """Frames (N, H, W, 3) uint8 RGB with every found box filled, and the proof.

        Raises InputError `bad_config` for another shape or type, OnshoreError `not_measurable` when a detector misses its
        canary or leaves a frame out.
        """
        if frames_NHWC.ndim != 4 or frames_NHWC.shape[3] != 3 or frames_NHWC.dtype != np.uint8:
            raise InputError(
                "bad_config", f"frames {frames_NHWC.shape} {frames_NHWC.dtype}", "expected N x H x W x 3 uint8."
            )
        ((clean, proof),) = self.redact_stream([frames_NHWC])
        return clean, proof

    def redact_stream(self, portions: Iterable[Frames]) -> Iterator[tuple[Frames, Proof]]:
        """As `redact` for the frames of one camera in order of time, in portions of any length; every frame comes out once.

        What a detector finds in two frames and misses in up to `MOST_GAP` between them is filled in those, too, also where
        a portion ends: the last frames of each wait for the next, the one before a whole gap among them.
        """
        frames, found = np.empty(0, np.uint8), [list[Boxes]() for _ in self.detectors]
        for portion, last in _with_last(portions):
            if portion.ndim != 4 or portion.shape[3] != 3 or portion.dtype != np.uint8:
                raise InputError(
                    "bad_config", f"frames {portion.shape} {portion.dtype}", "expected N x H x W x 3 uint8."
                )
            frames = np.concatenate([frames, portion]) if len(frames) else portion
            found = [bridged(b + self._found(d, portion)) for d, b in zip(self.detectors, found, strict=True)]
            ready = len(frames) if last else max(0, len(frames) - MOST_GAP - 1)
            if ready or last:
                yield self._filled(frames[:ready], [boxes[:ready] for boxes in found])
            frames, found = frames[ready:], [boxes[ready:] for boxes in found]

    def _filled(self, frames_NHWC: Frames, found: list[list[Boxes]]) -> tuple[Frames, Proof]:
        count, height, width = frames_NHWC.shape[:3]
        clean = frames_NHWC.copy()
        boxes: dict[str, int] = dict.fromkeys((d.target for d in self.detectors), 0)
        widest = [0.0] * count
        for detector, of_frames in zip(self.detectors, found, strict=True):
            for index, (frame, frame_boxes) in enumerate(zip(clean, of_frames, strict=True)):
                boxes[detector.target] += len(frame_boxes)
                if detector.target == "face" and len(frame_boxes):
                    widest[index] = max(widest[index], float((frame_boxes[:, 2] - frame_boxes[:, 0]).max()) / width)
                for left, top, right, bottom in dilated(frame_boxes, DILATION, height, width):
                    frame[top:bottom, left:right] = 0
        looked_for = frozenset(boxes)
        return clean, Proof(
            digest=self.digest,
            frames=count,
            boxes=boxes,
            removes=looked_for,
            unmeasured=frozenset(TARGETS) - looked_for,
            canaries_found=len(self.detectors),
            widest_faces=tuple(widest),
        )

    def _found(self, detector: Detector, frames: Frames) -> list[Boxes]:
        """Boxes of every frame, after the detector has shown on a drawn picture of this size that it sees at all."""
        picture, expected = detector.canary(*frames.shape[1:3])
        seen = detector.detect(picture)[0]
        if not all(len(seen) and float(overlap(box, seen).max()) >= CANARY_OVERLAP for box in expected):
            raise OnshoreError(
                "not_measurable",
                f"detector {detector.name}",
                "it missed a drawn canary; nothing is stored until it finds it.",
            )
        found = detector.detect(frames)
        if len(found) != len(frames):
            raise OnshoreError("not_measurable", f"detector {detector.name}", "it left frames out; nothing is stored.")
        return found


def _with_last(portions: Iterable[Frames]) -> Iterator[tuple[Frames, bool]]:
    """Each portion with whether it is the last."""
    source = iter(portions)
    held = next(source, None)
    while held is not None:
        following = next(source, None)
        yield held, following is None
        held = following


def default_anonymiser() -> Anonymiser:
    """Faces by CenterFace at threshold 0.2. No plate detector exists yet: plates stay 'unmeasured' in every proof."""
    from onshore.privacy.centerface import CenterFace, weights_path

    return Anonymiser([CenterFace(weights_path().read_bytes())])
