"""Every frame through every detector, solid fill over what they find, and a proof of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onshore.core.digest import record_digest
from onshore.core.errors import InputError, OnshoreError
from onshore.privacy.detector import Boxes, Detector, Frames, dilated, overlap

TARGETS = ("face", "plate")
DILATION = 0.15
CANARY_OVERLAP = 0.3


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was done to how many frames: the facts of an attestation.

    removes: targets a detector stood for. unmeasured: targets nothing looked for; they stay in the label.
    digest: of detectors, thresholds, dilation and fill; equal digests mean the same treatment.
    """

    digest: str
    frames: int
    boxes: dict[str, int]
    removes: frozenset[str]
    unmeasured: frozenset[str]
    canaries_found: int
    dilation: float = DILATION

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
            {"detectors": [[d.name, d.target, d.digest] for d in self.detectors], "dilation": DILATION, "fill": 0}
        )

    def redact(self, frames_NHWC: Frames) -> tuple[Frames, Proof]:
        """Frames (N, H, W, 3) uint8 RGB with every found box filled, and the proof.

        Raises InputError `bad_config` for another shape or type, OnshoreError `not_measurable` when a detector misses its
        canary or leaves a frame out.
        """
        if frames_NHWC.ndim != 4 or frames_NHWC.shape[3] != 3 or frames_NHWC.dtype != np.uint8:
            raise InputError(
                "bad_config", f"frames {frames_NHWC.shape} {frames_NHWC.dtype}", "expected N x H x W x 3 uint8."
            )
        count, height, width = frames_NHWC.shape[:3]
        clean = frames_NHWC.copy()
        boxes: dict[str, int] = dict.fromkeys((d.target for d in self.detectors), 0)
        for detector in self.detectors:
            found = self._found(detector, frames_NHWC)
            for frame, frame_boxes in zip(clean, found, strict=True):
                boxes[detector.target] += len(frame_boxes)
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


def default_anonymiser() -> Anonymiser:
    """Faces by CenterFace at threshold 0.2. No plate detector exists yet: plates stay 'unmeasured' in every proof."""
    from onshore.privacy.centerface import CenterFace, weights_path

    return Anonymiser([CenterFace(weights_path().read_bytes())])


def detectors() -> list[dict[str, Any]]:
    """What looks for what: target, name, digest, status; a target without a detector says so."""
    by_target = {detector.target: detector for detector in default_anonymiser().detectors}
    rows = []
    for target in TARGETS:
        found = by_target.get(target)  # type: ignore[call-overload]
        status = "in use; recall by `privacy measure`" if found else "no detector: recall not measurable"
        rows.append(
            {
                "target": target,
                "detector": found.name if found else "",
                "digest": found.digest if found else "",
                "status": status,
            }
        )
    return rows
