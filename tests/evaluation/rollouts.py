"""Rollouts of an ego that drives straight along its route, with whatever events and lanes a test needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from onshore.core.rollout import ACTOR_COLUMNS, STEP_COLUMNS, Event, Rollout


def straight(
    *events: tuple[float, str, dict[str, Any]],
    speed_mps: float = 10.0,
    seconds: float = 20.0,
    route_m: float = 200.0,
    world_seed: int = 1,
    ego: int = 0,
    **columns: ArrayLike,
) -> Rollout:
    """Drives along x for `seconds` at 10 Hz; `columns` overrides whole step columns."""
    times = np.arange(0, seconds, 0.1)
    steps = {name: np.zeros(len(times)) for name in STEP_COLUMNS}
    steps |= {"t_s": times, "x_m": times * speed_mps, "progress_m": times * speed_mps, "on_road": np.ones(len(times))}
    steps["speed_mps"] = np.full(len(times), speed_mps)
    steps["lane_kind"] = np.ones(len(times))
    steps |= {name: np.broadcast_to(np.asarray(value, np.float64), times.shape) for name, value in columns.items()}
    return Rollout(
        region="us",
        suite="us-tiny",
        scenario="town-1",
        world_seed=world_seed,
        ego=ego,
        policy="stop",
        route_length_m=route_m,
        steps=steps,
        plan_path_NK2=np.zeros((len(times), 8, 2), np.float32),
        plan_speed_NT=np.zeros((len(times), 4), np.float32),
        actors={name: np.zeros(0, np.float32) for name in ACTOR_COLUMNS},
        actor_row=np.zeros(0, np.int32),
        actor_id=np.zeros(0, np.int32),
        actor_kind=np.zeros(0, np.int8),
        events=tuple(Event(t_s=t_s, kind=kind, detail=detail) for t_s, kind, detail in events),
    )
