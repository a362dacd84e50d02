"""How a picture looks, in 255 bits: the same after re-encoding, scaling, a slight crop or another brightness.

Rule: signs of the 16 x 16 lowest cosine coefficients of the picture's brightness (Zauner 2010, pHash, with four times its
coefficients). It tells that two pictures are one and shows neither face nor plate; it is no identity: see docs/drive.md
for how often it errs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

SIDE, KEPT = 32, 16
BITS = KEPT * KEPT - 1
#: Centre parts that are kept of every picture, so that a copy cut by up to 12 % still meets one of them.
CROPS = (1.0, 0.96, 0.92, 0.88)
#: Two looks are of one picture when at most this share of their bits differs.
MOST_DIFFERENT = 0.22
#: A copy is told when at least this share of its pictures is known from one segment, and at least so many.
LEAST_SHARE, LEAST_PICTURES = 0.5, 2
EVERY_NS = 1_000_000_000

Looks = NDArray[np.uint8]


def look(frame_HWC: NDArray[np.uint8], crop: float = 1.0) -> Looks:
    """32 bytes for the centre part of an RGB picture (H, W, 3)."""
    height, width = frame_HWC.shape[:2]
    top, left = round(height * (1 - crop) / 2), round(width * (1 - crop) / 2)
    part = frame_HWC[top : height - top, left : width - left].astype(np.float64) @ _BRIGHTNESS
    small = _area(_area(part, SIDE).T, SIDE).T
    signs = (_COSINES @ small @ _COSINES.T).ravel()[1:] > 0
    return np.packbits(signs)


def looks_of(frame_HWC: NDArray[np.uint8]) -> str:
    """The looks of one picture at every crop, as hex."""
    return "".join(look(frame_HWC, crop).tobytes().hex() for crop in CROPS)


class Known:
    """The looks of the fleet's segments. rows: `id` and `looks` (hex texts joined by commas) of each segment."""

    def __init__(self, rows: Iterable[dict[str, str]]) -> None:
        self._ids: list[str] = []
        parts: list[Looks] = []
        for row in rows:
            parts.append(parsed(row["looks"].split(",")).reshape(-1, 32))
            self._ids += [row["id"]] * len(parts[-1])
        self._looks = np.concatenate(parts) if parts else np.empty((0, 32), np.uint8)

    def copied(self, looks: Sequence[str]) -> tuple[str, float] | None:
        """The segment of which most of these pictures are copies, and their share; None when there is none."""
        if len(looks) < LEAST_PICTURES or not self._ids:
            return None
        votes: dict[str, int] = {}
        for whole in parsed(looks)[:, 0]:
            different = np.unpackbits(self._looks ^ whole, axis=1).sum(1)
            near = {self._ids[index] for index in np.flatnonzero(different <= MOST_DIFFERENT * BITS)}
            for segment in near:
                votes[segment] = votes.get(segment, 0) + 1
        best = max(sorted(votes), key=lambda segment: votes[segment], default=None)
        share = votes[best] / len(looks) if best is not None else 0.0
        return (best, share) if best is not None and share >= LEAST_SHARE else None


def parsed(looks: Sequence[str]) -> Looks:
    """Hex looks as bytes (N, crops, 32)."""
    rows = [np.frombuffer(bytes.fromhex(text), np.uint8).reshape(len(CROPS), 32) for text in looks if text]
    return np.stack(rows) if rows else np.empty((0, len(CROPS), 32), np.uint8)


def _area(rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Means over `count` equal stretches of the first axis, cells counted by their share."""
    summed = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, 0)])
    edges = np.linspace(0, len(rows), count + 1)
    below = np.minimum(edges.astype(int), len(rows) - 1)
    at = summed[below] + (summed[below + 1] - summed[below]) * (edges - below)[:, None]
    means: NDArray[np.float64] = np.diff(at, axis=0) * count / len(rows)
    return means


def _cosine_rows() -> NDArray[np.float64]:
    k, x = np.arange(KEPT)[:, None], np.arange(SIDE)[None]
    rows: NDArray[np.float64] = np.cos(np.pi * (2 * x + 1) * k / (2 * SIDE))
    return rows


_BRIGHTNESS = np.array([0.299, 0.587, 0.114])
_COSINES = _cosine_rows()
