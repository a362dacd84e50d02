"""Drives made by hand, for planners to be measured against."""

from __future__ import annotations

import numpy as np

from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.evaluation.openloop import Driven, Plans

ARCS = np.array(PATH_ARCS_M)


def straight_at(*speeds_mps: float, drives: tuple[str, ...] = ()) -> Driven:
    now = np.array(speeds_mps)
    path = np.repeat(np.stack([ARCS, np.zeros(len(ARCS))], -1)[None], len(now), 0)
    return Driven(
        plans=Plans(path_NK2=path, speed_NS=np.repeat(now[:, None], len(SPEED_TIMES_S), 1)),
        path_mask_NK=np.ones((len(now), len(ARCS))),
        speed_mask_NS=np.ones((len(now), len(SPEED_TIMES_S))),
        speed_now_N=now,
        drives=drives or tuple(f"drive-{i}" for i in range(len(now))),
    )
