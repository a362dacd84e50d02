"""Real batches of a tiny world that can be learned: the path bends towards the bright side of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S


@dataclass(frozen=True, kw_only=True)
class ArrayBatch:
    frames_BTCHW: NDArray[np.uint8]
    side_B9: NDArray[np.float32]
    path_BK2: NDArray[np.float32]
    path_mask_BK: NDArray[np.float32]
    speed_BT: NDArray[np.float32]
    speed_mask_BT: NDArray[np.float32]
    side_frames: tuple[NDArray[np.uint8], ...] = ()


def bright_side(steps: int, *, batch: int = 16, seed: int = 0, width: int = 128, height: int = 64) -> Iterator[Any]:
    """Half the pictures are bright on the left (curve to the left), half on the right; brighter means faster."""
    rng = np.random.default_rng(seed)
    arcs = np.array(PATH_ARCS_M)
    for _ in range(steps):
        left = rng.random(batch) < 0.5
        speed = rng.uniform(2.0, 12.0, batch)
        frames = rng.integers(0, 20, (batch, 2, 3, height, width))
        for index in range(batch):
            half = slice(0, width // 2) if left[index] else slice(width // 2, width)
            frames[index, :, :, :, half] += int(40 + speed[index] * 14)
        side = np.zeros((batch, 9), np.float32)
        side[:, 0], side[:, 1] = speed / 10, 1.0
        bend = np.where(left, 0.03, -0.03)[:, None] * arcs**2
        yield ArrayBatch(
            frames_BTCHW=frames.astype(np.uint8),
            side_B9=side,
            path_BK2=np.stack([np.broadcast_to(arcs, bend.shape), bend], -1).astype(np.float32),
            path_mask_BK=np.ones((batch, len(arcs)), np.float32),
            speed_BT=np.repeat(speed[:, None], len(SPEED_TIMES_S), 1).astype(np.float32),
            speed_mask_BT=np.ones((batch, len(SPEED_TIMES_S)), np.float32),
        )
