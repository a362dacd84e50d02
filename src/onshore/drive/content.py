"""Does a camera show what its name says? A camera that looks out of a moving car sees edges come and go.

Rule: judged only while the car moves and only with enough pictures; below that nothing is claimed. Two signs of a camera
that looks inside: edges that stay where they are although the car moves, and faces that fill a good part of most pictures.
docs/drive.md has the figures, and what passes all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError

LEAST_SPEED_MPS, LEAST_PICTURES = 5.0, 6
#: Road clips reach 0.53 at night, a camera that stands still 0.98.
MOST_STAYING = 0.8
#: A face this wide (share of the picture) is in the car or right before it; in half of the pictures it is inside.
LARGE_FACE, MOST_LARGE = 0.15, 0.5
GRID = (48, 64)
#: Mean squared step between neighbours on that grid (grey levels squared) below which there is nothing to judge.
LEAST_EDGES = 1.0
#: The lowest part of a picture often shows the bonnet, which stays by right.
JUDGED = 0.7


def check_content(camera: str, pictures: Sequence[NDArray[np.uint8]], large_faces: Sequence[bool]) -> None:
    """Raises InputError `content_mismatch` when pictures taken while the car moved are not of the road.

    pictures: (H, W, 3) uint8, about a second apart; large_faces: for each, whether a large face was found in it.
    """
    if len(pictures) < LEAST_PICTURES:
        return
    stays = staying(pictures)
    faces = float(np.mean(large_faces)) if len(large_faces) else 0.0
    if stays > MOST_STAYING or faces > MOST_LARGE:
        why = f"{stays:.0%} of its edges stay while the car moves, large faces in {faces:.0%} of its pictures"
        advice = f"{why}; a camera that looks inside is not kept under another name. Name the topic as what it is."
        raise InputError("content_mismatch", f"camera {camera!r}", advice)


def staying(pictures: Sequence[NDArray[np.uint8]]) -> float:
    """The share of edge energy that the mean picture keeps: 1 for a scene that stands still, about 0 for one that passes.

    A picture without edges shows nothing either way: 0. The mean of N unrelated pictures keeps 1/N of their energy; that much is taken off.
    """
    small = np.array([_shrunk(picture[: round(len(picture) * JUDGED)]) for picture in pictures])
    each, mean, count = _energy(small), _energy(small.mean(0)), len(small)
    if each < LEAST_EDGES or count < 2:
        return 0.0
    return float((mean / each * count - 1) / (count - 1))


def _shrunk(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    rows, columns = (min(side, limit) for side, limit in zip(picture.shape[:2], GRID, strict=True))
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    grey = picture[: rows * height, : columns * width] @ np.array([0.299, 0.587, 0.114])
    small: NDArray[np.float64] = grey.reshape(rows, height, columns, width).mean((1, 3))
    return small


def _energy(pictures: NDArray[np.float64]) -> float:
    across, down = np.diff(pictures, axis=-1), np.diff(pictures, axis=-2)
    return float((across**2).mean() + (down**2).mean())
