"""Batches for the training loop: weighted draws, perturbed views, on-policy samples mixed in.

Rule: batch number n of a seed is the same whoever makes it, however many make batches and wherever they begin; labels and
pictures of a sample are seen from the same perturbed pose.

Letters: B batch, T frames or speed times, C colours, H rows, W columns, K path points.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.dataset.perturb import Perturb, earlier_laterals, render, seen_from
from onshore.dataset.windows import Windows, weights_of


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one training step takes. index_B: the window of each sample; takeovers count down from -1.

    frames_BTCHW: the view's; side_frames: the same of every side view. order_W: as index_B, for the whole batch of which
    this may be a part. digest: SHA-256 over order and paths of the whole batch.
    """

    frames_BTCHW: NDArray[np.uint8]
    side_B9: NDArray[np.float32]
    path_BK2: NDArray[np.float32]
    path_mask_BK: NDArray[np.float32]
    speed_BT: NDArray[np.float32]
    speed_mask_BT: NDArray[np.float32]
    index_B: NDArray[np.int64]
    order_W: NDArray[np.int64]
    digest: bytes
    side_frames: tuple[NDArray[np.uint8], ...] = ()

    @property
    def views(self) -> tuple[NDArray[np.uint8], ...]:
        """Per view (B, T, 3, H, W)."""
        return (self.frames_BTCHW, *self.side_frames)


def batches(
    windows: Windows,
    *,
    batch: int,
    steps: int,
    seed: int,
    perturb: Perturb | None = None,
    takeover_share: float | None = None,
    first_step: int = 0,
    prefetch: int = 2,
    makers: int = 1,
    part: slice = slice(None),
) -> Iterator[Batch]:
    """Batches `first_step` to `first_step + steps` of a seed, drawn with replacement by weight.

    part: the samples of every batch that are wanted here; the others are drawn and labelled, but no picture is made.

    takeover_share: the share of draws that takes an on-policy sample where there are any; None draws from windows and
    takeovers together by their weights. prefetch: batches made ahead, by `makers` threads, while the caller computes; they
    change nothing but the time. Raises InputError `empty_input` when there is nothing to draw.
    """
    if batch < 1 or (takeover_share is not None and not 0 <= takeover_share <= 1):
        raise InputError("bad_config", "batches", "a batch holds at least one sample; a share lies in 0..1.")
    if len(windows) + len(windows.takeovers) == 0:
        raise InputError("empty_input", "windows", "this split has no window with a label; add drives or clips.")
    likelihood = np.cumsum(_likelihood(windows, takeover_share))

    def make(step: int) -> Batch:
        random = np.random.default_rng([seed, step])
        drawn = np.searchsorted(likelihood, random.random(batch) * likelihood[-1], side="right")
        drawn = np.minimum(drawn, len(likelihood) - 1)
        lateral, yaw = (perturb or Perturb(share=0.0)).draw(random, batch)
        return take(windows, drawn, lateral_B=lateral, yaw_B=yaw, part=part)

    yield from _ahead(make, range(first_step, first_step + steps), prefetch, makers)


def _ahead(make: Callable[[int], Batch], steps: range, prefetch: int, makers: int) -> Iterator[Batch]:
    """The batches of `steps` in order, up to `prefetch` of them made before they are asked for."""
    if prefetch < 1:
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(makers, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(pool.submit(make, step))
            if len(waiting) > prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_order(windows: Windows, batch: int = 256) -> Iterator[Batch]:
    """Every window once, in order, as driven: for measuring. Takeovers are left out."""
    for first in range(0, len(windows), batch):
        yield take(windows, np.arange(first, min(first + batch, len(windows))))


def take(
    windows: Windows,
    drawn_B: NDArray[np.int64],
    *,
    lateral_B: NDArray[np.float32] | None = None,
    yaw_B: NDArray[np.float32] | None = None,
    part: slice = slice(None),
) -> Batch:
    """Chosen samples; numbers from len(windows) on are takeovers, which are never perturbed. part: as in `batches`."""
    own = drawn_B < len(windows)
    zeros = np.zeros(len(drawn_B), np.float32)
    lateral = np.where(own, zeros if lateral_B is None else lateral_B, 0).astype(np.float32)
    yaw = np.where(own, zeros if yaw_B is None else yaw_B, 0).astype(np.float32)
    mine, others = drawn_B[own], drawn_B[~own] - len(windows)
    back = _back(own)
    labels = {
        name: np.concatenate([of_mine[mine], getattr(windows.takeovers.labels, name)[others]])[back]
        for name, of_mine in vars(windows.labels).items()
    }
    path = seen_from(labels["path_MK2"], lateral, yaw) * labels["path_mask_MK"][..., None]
    order = np.where(own, drawn_B, len(windows) - 1 - drawn_B)
    views = _pictures(windows, drawn_B[part], lateral[part], yaw[part])
    return Batch(
        frames_BTCHW=views[0],
        side_frames=tuple(views[1:]),
        side_B9=labels["side_M9"][part],
        path_BK2=path[part],
        path_mask_BK=labels["path_mask_MK"][part],
        speed_BT=labels["speed_MS"][part],
        speed_mask_BT=labels["speed_mask_MS"][part],
        index_B=order[part],
        order_W=order,
        digest=_digest(order, path),
    )


def _pictures(
    windows: Windows, drawn_B: NDArray[np.int64], lateral_B: NDArray[np.float32], yaw_B: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Per view (B, T, 3, H, W)."""
    own = drawn_B < len(windows)
    mine, others = drawn_B[own], drawn_B[~own] - len(windows)
    back = _back(own)
    earlier = earlier_laterals(lateral_B[own], yaw_B[own], windows.travelled_MT[mine])
    ready = (windows.takeovers.frames_NTHWC, *windows.takeovers.side_frames)
    views = []
    for view, seen, kept in zip(windows.spec.views, windows.by_view, ready, strict=True):
        drawn = render(seen.frames_NHW3, seen.index_MT[mine], earlier, yaw_B[own], seen.mount_M2[mine], view)
        both = np.concatenate([drawn, kept[others].transpose(0, 1, 4, 2, 3)]) if len(others) else drawn
        views.append(both[back])
    return views


def _back(own_B: NDArray[np.bool_]) -> Any:
    """What brings own samples first, the others after, back into the order of the batch."""
    return slice(None) if own_B.all() else np.argsort(np.concatenate([np.flatnonzero(own_B), np.flatnonzero(~own_B)]))


def _digest(order_W: NDArray[np.int64], path_WK2: NDArray[np.float32]) -> bytes:
    return hashlib.sha256(order_W.astype("<i8").tobytes() + path_WK2.astype("<f4").tobytes()).digest()


def _likelihood(windows: Windows, takeover_share: float | None) -> NDArray[np.float64]:
    own, others = windows.weight_M, weights_of(windows.takeovers.labels)
    if takeover_share is not None and len(own) and len(others):
        own = own / own.sum() * (1 - takeover_share)
        others = others / others.sum() * takeover_share
    return np.concatenate([own, others])
