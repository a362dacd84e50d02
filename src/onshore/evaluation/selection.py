"""Which clips of a dataset are worth learning from, when not all of them can be: so many minutes of them, in a stated order.

Rule: only the training split is chosen from; moments that two clips share count once; the same inputs choose the same clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onshore.clip.cutting import ORDINARY
from onshore.core.digest import sha256_hex
from onshore.core.errors import UsageError
from onshore.core.progress import Progress, silent
from onshore.dataset.manifest import show
from onshore.dataset.split import TRAIN
from onshore.evaluation.openloop import Driven, Plans, measurable, plan_distance, planned
from onshore.store import Center

How = Literal["random", "triggers", "disagreement", "novelty"]
HOWS: tuple[str, ...] = get_args(How)
#: Covered time is counted in tenths of a second.
TENTH_NS = 100_000_000
Floats = NDArray[np.float64]
Clip = Mapping[str, Any]


def choose(
    center: Center,
    dataset: str,
    how: str,
    minutes: float,
    *,
    model: str = "",
    seed: int = 0,
    progress: Progress = silent,
) -> list[str]:
    """Ids of clips of a dataset's training split that cover so many minutes, or all of them when it holds fewer.

    how: `random`; `triggers`: those that a trigger asked for first; `disagreement`: those first in which `model`, planning from
    the log, would have gone furthest from where was driven (mean distance over 2 s); `novelty`: each as unlike the ones before as
    can be in what `model` plans there (farthest-first traversal, Gonzalez 1985, as for core-sets, Sener and Savarese 2018).
    seed: decides between equals. Errors: UsageError for an unknown way, one that lacks its model, or minutes not above 0.
    """
    if how not in HOWS or minutes <= 0:
        raise UsageError(f"how {how!r}, minutes {minutes:g}", f"choose of {', '.join(HOWS)}, and more than 0 minutes.")
    if how in ("disagreement", "novelty") and not model:
        raise UsageError(f"how {how!r}", "give the model whose plans are looked at.")
    order = shuffled([clip for clip in show(center, dataset)["clips"] if clip["split"] == TRAIN], seed)
    if how == "triggers":
        order = sorted(order, key=lambda clip: clip["trigger"] == ORDINARY)
    elif how in ("disagreement", "novelty"):
        seen, driven, plans = planned(center, model, dataset, TRAIN, progress)
        segments = np.array(seen.segments)[seen.segment_M]
        rows = [moments_of(clip, segments, seen.t_ns) for clip in order]
        order = by_disagreement(order, rows, plans, driven) if how == "disagreement" else by_novelty(order, rows, plans)
    return covering(order, minutes)


def shuffled(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """In an order that depends on the clips' ids and the seed alone."""
    return sorted(clips, key=lambda clip: sha256_hex(f"{seed}/{clip['id']}".encode()))


def covering(order: Sequence[Clip], minutes: float) -> list[str]:
    """Ids of the first clips that together cover so many minutes."""
    ids: list[str] = []
    seen: set[tuple[str, int]] = set()
    for clip in order:
        if len(seen) * TENTH_NS >= minutes * 60e9:
            break
        tenths = range(clip["start_ns"] // TENTH_NS, clip["end_ns"] // TENTH_NS)
        seen.update((clip["segment"], tenth) for tenth in tenths)
        ids.append(clip["id"])
    return ids


def moments_of(clip: Clip, segment_M: NDArray[np.str_], t_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the moments (their segments and times) that lie inside a clip."""
    return np.flatnonzero((segment_M == clip["segment"]) & (t_ns >= clip["start_ns"]) & (t_ns < clip["end_ns"]))


def by_disagreement(
    clips: Sequence[Clip], rows: Sequence[NDArray[np.int64]], plans: Plans, driven: Driven
) -> list[Clip]:
    """Furthest from what was driven first; clips without a measurable moment last."""
    known = measurable(driven)
    off = np.full(len(known), np.nan)
    for index in np.flatnonzero(known):
        off[index] = plan_distance(plans, driven, int(index)).mean()
    means = [float(np.nanmean(off[mine])) if known[mine].any() else -1.0 for mine in rows]
    return [clips[at] for at in np.argsort(-np.array(means), kind="stable")]


def by_novelty(clips: Sequence[Clip], rows: Sequence[NDArray[np.int64]], plans: Plans) -> list[Clip]:
    """The most ordinary clip first, then always the one farthest from all before it; clips without a moment last."""
    told = np.concatenate([plans.path_NK2[..., 1], plans.speed_NS], 1)
    told = (told - told.mean(0)) / np.maximum(told.std(0), 1e-6)
    here = [at for at, mine in enumerate(rows) if len(mine)]
    if not here:
        return list(clips)
    table = np.stack([np.concatenate([told[rows[at]].mean(0), told[rows[at]].std(0)]) for at in here])
    order = [here[at] for at in farthest_first(table)]
    return [clips[at] for at in [*order, *(at for at in range(len(clips)) if not len(rows[at]))]]


def farthest_first(points_NF: Floats) -> list[int]:
    """All rows: the one nearest the mean, then always the one farthest from all that came before."""

    def distance(at: int) -> Floats:
        return np.asarray(((points_NF - points_NF[at]) ** 2).sum(1))

    first = int(np.argmin(((points_NF - points_NF.mean(0)) ** 2).sum(1)))
    order, nearest = [first], distance(first)
    while len(order) < len(points_NF):
        nearest[order[-1]] = -1.0
        following = int(np.argmax(nearest))
        nearest = np.minimum(nearest, distance(following))
        order.append(following)
    return order
