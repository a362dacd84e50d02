"""A hand-made crossing and scripts that tests hand to worlds by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onshore.core.rollout import TURNS
from onshore.world.actors import Actor
from onshore.world.layout import ConnectionSpec, CrosswalkSpec, EdgeSpec, LaneSpec, Layout, LightSpec, NodeSpec

CAR = LaneSpec(kind="car", width_m=3.2, allow="passenger truck moped")
BUS = LaneSpec(kind="bus", width_m=3.4, allow="bus", hours=((7.0, 9.0),), others="passenger")
LEFT = LaneSpec(
    kind="car", width_m=3.0, allow="passenger", turns=TURNS["left"], line_left="solid", waiting_m=8.0, solid_end_m=30.0
)
STRAIGHT = LaneSpec(kind="car", width_m=3.2, allow="passenger", turns=TURNS["straight"], line_left="solid")
ARMS = {"w": (-150.0, 0.0), "e": (150.0, 0.0), "s": (0.0, -150.0), "n": (0.0, 150.0)}


def crossing() -> Layout:
    """Four arms of different lanes around a light; from the west: a bus lane by hour, a straight lane, a left-turn lane."""
    lanes: dict[str, tuple[LaneSpec, ...]] = {"w": (BUS, STRAIGHT, LEFT), "e": (CAR, CAR), "s": (CAR,), "n": (CAR,)}
    edges = []
    for arm, (x, y) in ARMS.items():
        edges.append(edge(f"{arm}_in", arm, "c", ((x, y), (0.0, 0.0)), lanes[arm]))
        edges.append(edge(f"{arm}_out", "c", arm, ((0.0, 0.0), (x, y)), (CAR,)))
    ways = [
        ("w_in", "e_out", 1),
        ("w_in", "e_out", 0),
        ("w_in", "n_out", 2),
        ("e_in", "w_out", 1),
        ("s_in", "n_out", 0),
    ]
    ways += [("n_in", "s_out", 0), ("e_in", "n_out", 0), ("s_in", "e_out", 0)]
    return Layout(
        name="crossing",
        nodes=(
            NodeSpec(id="c", x_m=0.0, y_m=0.0, kind="traffic_light", radius_m=9.0),
            *(NodeSpec(id=arm, x_m=x, y_m=y, kind="dead_end") for arm, (x, y) in ARMS.items()),
        ),
        edges=tuple(edges),
        connections=tuple(ConnectionSpec(start=a, end=b, from_lane=lane, to_lane=0) for a, b, lane in ways),
        lights=(
            LightSpec(
                node="c",
                phases=(
                    (20.0, (("w_in", "e_out", "G"), ("e_in", "w_out", "G"))),
                    (8.0, (("w_in", "n_out", "G"),)),
                    (12.0, (("s_in", "n_out", "G"), ("n_in", "s_out", "G"), ("s_in", "e_out", "g"))),
                ),
                shapes=(("w_in", "n_out", "arrow"),),
            ),
        ),
        crosswalks=(CrosswalkSpec(edge="w_in", before_end_m=40.0, depth_m=4.0),),
    )


def edge(name: str, start: str, end: str, shape: Any, lanes: tuple[LaneSpec, ...]) -> EdgeSpec:
    return EdgeSpec(id=name, start=start, end=end, shape=shape, lanes=lanes, speed_mps=11.0)


@dataclass
class Standing:
    """One thing or road user at one place (x, y, yaw) until `until_s`; with a speed it is about to go on."""

    kind: str
    pose: tuple[float, float, float]
    until_s: float = math.inf
    speed_mps: float = 0.0

    def step(self, t_s: float, world: object) -> Sequence[Actor]:
        x, y, yaw = self.pose
        if t_s >= self.until_s:
            return []
        return [Actor(number=1, kind=self.kind, x_m=x, y_m=y, yaw_rad=yaw, speed_mps=self.speed_mps)]
