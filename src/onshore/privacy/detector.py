"""What a detector is, for faces and plates alike, and the arithmetic over its boxes."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

#: (M, 5) float32: x1, y1, x2, y2 in pixels of the frame, score in 0..1.
Boxes = NDArray[np.float32]
Frames = NDArray[np.uint8]


class Detector(Protocol):
    """Finds one kind of thing that must not be seen. `digest` names its exact weights and settings."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> Literal["face", "plate"]: ...

    @property
    def digest(self) -> str: ...

    def detect(self, frames_NHWC: Frames) -> list[Boxes]:
        """Boxes for each frame of (N, H, W, 3) uint8 RGB; raises OnshoreError rather than leave a frame out."""
        ...

    def canary(self, height_px: int, width_px: int) -> tuple[Frames, Boxes]:
        """A generated picture (1, H, W, 3) of at least that size and the boxes (x1, y1, x2, y2, 1) to be found in it."""
        ...


def overlap(box: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Intersection over union of one box (5,) with others (M, 5)."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    both = np.clip(width, 0, None) * np.clip(height, 0, None)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    own = (box[2] - box[0]) * (box[3] - box[1])
    ratio: NDArray[np.float32] = both / np.maximum(areas + own - both, np.float32(1e-9))
    return ratio


def suppress(boxes: Boxes, most_overlap: float) -> Boxes:
    """Greedy non-maximum suppression: the best box of every group that overlaps more than `most_overlap`."""
    rest = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept = []
    while len(rest):
        kept.append(rest[0])
        rest = rest[1:][overlap(rest[0], rest[1:]) < most_overlap]
    return np.array(kept, np.float32).reshape(-1, 5)


def dilated(boxes: Boxes, share: float, height_px: int, width_px: int) -> NDArray[np.int64]:
    """Boxes grown by `share` of their width and height on every side, rounded outwards, cut at the frame: (M, 4)."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    grown = np.stack(
        [
            np.floor(boxes[:, 0] - share * width),
            np.floor(boxes[:, 1] - share * height),
            np.ceil(boxes[:, 2] + share * width),
            np.ceil(boxes[:, 3] + share * height),
        ],
        -1,
    )
    cut: NDArray[np.int64] = np.clip(grown, 0, [width_px, height_px, width_px, height_px]).astype(np.int64)
    return cut


#: A thing found in two frames and in none of up to so many between them was there all the time.
MOST_GAP = 5


def bridged(boxes_N: list[Boxes]) -> list[Boxes]:
    """The boxes of frames in order of time, with those added that a gap of up to `MOST_GAP` frames left out.

    Two boxes are of one thing when their centres lie within one box width or height of each other and neither is twice as
    wide as the other; what is added lies between them in proportion to the frames.
    """
    added = [list(boxes) for boxes in boxes_N]
    for first, boxes in enumerate(boxes_N):
        for box in boxes:
            for last in range(first + 1, min(first + MOST_GAP + 2, len(boxes_N))):
                match = _same(box, boxes_N[last])
                if match is None:
                    continue
                for between in range(first + 1, last):
                    share = (between - first) / (last - first)
                    added[between].append(((1 - share) * box + share * match).astype(np.float32))
                break
    return [np.array(found, np.float32).reshape(-1, 5) for found in added]


def _same(box: Boxes, others: Boxes) -> Boxes | None:
    """The nearest of `others` that could be the same thing a few frames on."""
    if not len(others):
        return None
    size, sizes = box[2:4] - box[0:2], others[:, 2:4] - others[:, 0:2]
    apart = np.abs((others[:, 0:2] + others[:, 2:4]) / 2 - (box[0:2] + box[2:4]) / 2)
    fits = (apart <= np.maximum(size, sizes)).all(1) & (sizes[:, 0] < 2 * size[0]) & (size[0] < 2 * sizes[:, 0])
    if not fits.any():
        return None
    nearest: Boxes = others[np.argmin(np.where(fits, apart.sum(1), np.inf))]
    return nearest
