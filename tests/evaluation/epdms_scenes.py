"""Scenes on one straight road, each with verdicts worked out by hand from the definition.

Lanes along x, 3.5 m wide: r0 around y = 0 and r1 around y = 3.5 belong to the route, o around y = 7 is the opposite one.
The box reaches 4.049 m ahead of and 1.127 m behind the rear axle and 1.1485 m to either side.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]
FILE = Path(__file__).with_name("epdms_scenes.json")
T = np.arange(41) * 0.1
COLUMNS = ("x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2", "yaw_rate_radps")


def strip(y_low: float, y_high: float, x_low: float = -50.0, x_high: float = 300.0) -> list[list[float]]:
    return [[x_low, y_low], [x_high, y_low], [x_high, y_high], [x_low, y_high]]


def road(**areas: list[list[list[float]]]) -> Record:
    lanes = {"r0": (-1.75, 1.75, True), "r1": (1.75, 5.25, True), "o": (5.25, 8.75, False)}
    return {
        "lanes": [{"id": name, "polygon": strip(a, b), "on_route": on} for name, (a, b, on) in lanes.items()],
        "roadblocks": [{"id": "rb_r", "polygon": strip(-1.75, 5.25)}, {"id": "rb_o", "polygon": strip(5.25, 8.75)}],
        "route_centerline": {"y_m": 0.0, "x_from_m": -50, "x_to_m": 299, "step_m": 1.0},
        **{name: [{"id": name, "polygon": each} for each in each_of] for name, each_of in areas.items()},
    }


def plan(speed: Any = 10.0, y: Any = 0.0, accel: Any = 0.0, yaw: Any = 0.0, start_s: float = 0.0) -> Record:
    """41 rows heading along x unless `yaw` says otherwise; each argument a number or a column."""
    columns = {name: np.broadcast_to(np.asarray(value, dtype=float), 41) for name, value in locals().items()}
    x = np.concatenate([[0.0], np.cumsum(columns["speed"][:-1] * 0.1)]) + start_s * float(columns["speed"][0])
    rows = dict(zip(COLUMNS, (x, columns["y"], columns["yaw"], columns["speed"], columns["accel"], np.zeros(41))))
    return {name: np.round(values, 6).tolist() for name, values in {"t_s": T + start_s, **rows}.items()}


def other(
    x: float, y: float = 0.0, speed: float = 0.0, yaw: float = 0.0, kind: str = "vehicle", **size: float
) -> Record:
    """A car-sized box at t = 0 that moves along its heading."""
    vx, vy = speed * np.cos(yaw), speed * np.sin(yaw)
    place = {"x_m": x, "y_m": y, "yaw_rad": yaw, "vx_mps": float(vx), "vy_mps": float(vy)}
    return {"type": kind, **place, "length_m": 4.5, "width_m": 2.0, **size}


def scene(name: str = "scene", *agents: Record, ego: Record | None = None, red: Any = (), **more: Any) -> Record:
    return {
        "name": name,
        "ego": ego or plan(),
        "agents": list(agents),
        "red_light_polygons": list(red),
        "expected": {},
        **more,
    }


#: a bicycle that drifts into the ego's left side behind its front edge, at the ego's speed
SIDE = other(0.5, 4.0, np.hypot(10, 1), np.arctan2(-1, 10), "bicycle", length_m=1.8, width_m=0.6)
ALL_ONE = {"NC": 1.0, "DAC": 1.0, "DDC": 1.0, "TLC": 1.0, "EP": 1.0, "TTC": 1.0, "LK": 1.0, "HC_noHistory": 1.0}
JUNCTION = road(intersections=[strip(-10.0, 20.0, -40.0, 200.0)])

#: scene -> what differs from all ones; EP is 1 where no plan keeps the rules, 0.5 x 40 m is beaten by 40 m itself
SCENES: list[tuple[Record, dict[str, float]]] = [
    (scene("free"), {}),
    (scene("parked car", other(25.0)), {"NC": 0.0, "TTC": 0.0}),
    (scene("cone", other(25.0, kind="traffic_cone", length_m=0.5, width_m=0.5)), {"NC": 0.5, "TTC": 0.0}),
    (scene("slower car ahead", other(15.0, speed=4.0)), {"NC": 0.0, "TTC": 0.0}),
    (scene("car in the next lane", other(5.0, 3.5, speed=10.0)), {}),
    (scene("hit from behind", other(-15.0, speed=20.0)), {"TTC": 0.0}),
    (scene("hit from behind while standing", other(-15.0, speed=10.0), ego=plan(0.0)), {"EP": 0.0}),
    (scene("side contact within one lane", SIDE), {"TTC": 0.0}),
    (scene("side contact across two lanes", SIDE, ego=plan(y=1.2)), {"NC": 0.0, "TTC": 0.0, "LK": 0.0}),
    (scene("kerb", ego=plan(y=-0.7)), {"DAC": 0.0, "LK": 0.0}),
    (scene("opposite lane, creeping", ego=plan(1.5, y=7.0)), {"EP": 0.15, "LK": 0.0}),
    (scene("opposite lane, slow", ego=plan(4.0, y=7.0)), {"DDC": 0.5, "EP": 0.4, "LK": 0.0}),
    (scene("opposite lane", ego=plan(y=7.0)), {"DDC": 0.0, "LK": 0.0}),
    (scene("opposite side of a junction", ego=plan(y=7.0), road=JUNCTION), {}),
    (scene("red light", red=[strip(-1.75, 1.75, 20.0, 30.0)]), {"TLC": 0.0}),
    (scene("red light beyond the stop", red=[strip(-1.75, 1.75, 20.0, 30.0)], ego=plan(3.0)), {"EP": 1.0}),
    (scene("standing", ego=plan(0.0)), {"EP": 0.0}),
    (scene("nobody gets far", ego=plan(0.0), reference=plan(1.0)), {}),
]


def expected(differs: dict[str, float]) -> Record:
    row = {**ALL_ONE, **differs}
    product = row["NC"] * row["DAC"] * row["DDC"] * row["TLC"]
    mean = (5 * row["EP"] + 5 * row["TTC"] + 2 * row["LK"] + 2 * row["HC_noHistory"]) / 14
    return {**row, "comfort6": [True] * 6, "score_without_EC": round(product * mean, 6)}


def document() -> Record:
    scenes = [{**record, "expected": expected(differs)} for record, differs in SCENES]
    return {"source": "worked out by hand", "road": road(), "reference": plan(), "scenes": scenes}


def written() -> str:
    """The text of `epdms_scenes.json`, one scene a line."""
    record = document()
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in record.pop("scenes"))
    return json.dumps(record, separators=(",", ":"))[:-1] + ',"scenes":[\n' + lines + "\n]}\n"
