"""What a closed-loop run leaves behind: fixed columns from which alone every score is computed.

Rows are physics steps. Actors are flattened: `actor_row` says to which step an actor row belongs.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.digest import canonical_json

STEP_COLUMNS: tuple[str, ...] = (
    "t_s",
    "x_m",  # rear axle in local
    "y_m",
    "yaw_rad",
    "speed_mps",
    "accel_mps2",
    "steering_rad",
    "action_steering_rad",
    "action_accel_mps2",
    "progress_m",  # along the route
    "lateral_m",  # left of the route's centre line
    "lane_kind",  # LANE_KINDS index under the ego's centre
    "on_road",  # 0 when both centre and front are off every lane and junction
    "oncoming",  # 1 when heading differs by more than 120 degrees from the lane's
    "forbidden",  # 1 on a lane this ego may not use
    "junction",  # 1 inside a junction
    "light",  # LIGHTS index of the light that rules the ego's next stop line
    "light_distance_m",  # to that stop line; NaN without one
    # what the road asks of the ego here; NaN = not known, so a rule that needs it is 'not measurable'
    "clock_h",  # local time of day, 0 to 24
    "speed_limit_mps",
    "lane_index",  # 0 at the kerb
    "lane_turns",  # TURNS bits that the lane's arrows allow; 0 = no arrow, every turn
    "lane_open",  # 1 when a car may use this lane at this time of day
    "line_left",  # LINES index of the marking on the left of the lane
    "line_left_m",  # from the ego's left side to it; negative by how far the ego is over it
    "line_right",
    "line_right_m",
    "stop_line_m",  # front bumper to the next stop line; negative down to -10 once behind
    "stop_rule",  # STOP_RULES index: what rules that line
    "light_shape",  # LIGHT_SHAPES index of the light that rules the ego's movement
    "turn_on_red",  # 1 where this movement may pass a red light after giving way
    "waiting_area",  # 1 inside a left-turn waiting area (ahead of the stop line)
    "waiting_open",  # 1 while that area may be entered
    "crosswalk_m",  # front bumper to the near edge of the next crosswalk; negative while on it
    "crosswalk_used",  # 1 while somebody walks or rides on it or is about to; not who leaves the other half
    "movement",  # TURNS bit of the movement the route makes at the next junction
)
#: From here on a column may be NaN throughout; before it a Rollout of schema version 1 has them all.
FIRST_CONTEXT_COLUMN = STEP_COLUMNS.index("clock_h")
LANE_KINDS: tuple[str, ...] = ("off", "car", "bus", "bike", "junction", "waiting", "shoulder")
LIGHTS: tuple[str, ...] = ("none", "red", "yellow", "green")
LINES: tuple[str, ...] = ("none", "dashed", "solid", "double_solid", "kerb")
STOP_RULES: tuple[str, ...] = ("none", "light", "stop_sign", "give_way")
LIGHT_SHAPES: tuple[str, ...] = ("none", "round", "arrow", "temporary")
#: Bits of `lane_turns` and values of `movement`.
TURNS: dict[str, int] = {"straight": 1, "left": 2, "right": 4, "u_turn": 8}
ACTOR_COLUMNS: tuple[str, ...] = ("x_m", "y_m", "yaw_rad", "speed_mps", "length_m", "width_m")
ACTOR_KINDS: tuple[str, ...] = ("car", "truck", "bus", "ebike", "bicycle", "pedestrian", "tricycle", "static")

#: Events a world writes; scorers give them meaning. `detail` is JSON.
EVENTS: tuple[str, ...] = (
    "collision_vehicle",
    "collision_pedestrian",
    "collision_static",
    "collision_not_at_fault",
    "red_light",
    "stop_sign",
    "off_road",
    "route_complete",
    "route_deviation",
    "blocked",
    "wrong_way",
    "timeout",
    "policy_failed",  # a driver from elsewhere died, stayed silent or answered no plan
    "left_valid_range",  # a replay went beyond what its pixels can show
)


@dataclass(frozen=True, kw_only=True)
class Event:
    t_s: float
    kind: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One ego in one world.

    steps: column name -> (N,) float64. plan_path_NK2 and plan_speed_NT: the plan in force (NaN for the expert).
    actors: column -> (M,) float32; actor_row, actor_id, actor_kind -> (M,) ints. others_known: False where nobody looked
    for other road users, so that none being there says nothing. placed_freely: True where the engine had died of this
    world twice and egos in junctions were put on any lane (docs/world.md). ended: the last event's kind.
    """

    region: str
    suite: str
    scenario: str
    world_seed: int
    ego: int
    policy: str
    route_length_m: float
    steps: dict[str, NDArray[np.float64]]
    plan_path_NK2: NDArray[np.float32]
    plan_speed_NT: NDArray[np.float32]
    actors: dict[str, NDArray[np.float32]]
    actor_row: NDArray[np.int32]
    actor_id: NDArray[np.int32]
    actor_kind: NDArray[np.int8]
    events: tuple[Event, ...]
    frame_digest: str = ""
    synthetic: bool = True
    schema_version: int = 2
    others_known: bool = True
    placed_freely: bool = False

    @property
    def world(self) -> str:
        """The resampling unit: egos of one world share its traffic."""
        return f"{self.region}/{self.scenario}/{self.world_seed}"

    @property
    def ended(self) -> str:
        return self.events[-1].kind if self.events else "timeout"

    @property
    def digest(self) -> str:
        """SHA-256 over states, plans, actors, events and the digest of every frame the policy saw."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """A deterministic zip of .npy columns and one JSON head."""
        head = {
            name: getattr(self, name)
            for name in [
                "region",
                "suite",
                "scenario",
                "world_seed",
                "ego",
                "policy",
                "route_length_m",
                "frame_digest",
                "synthetic",
                "schema_version",
            ]
        }
        if not self.others_known:
            head["others_known"] = False
        if self.placed_freely:
            head["placed_freely"] = True
        head["events"] = [[event.t_s, event.kind, event.detail] for event in self.events]
        arrays: dict[str, NDArray[Any]] = {f"step.{name}": self.steps[name] for name in STEP_COLUMNS}
        arrays |= {f"actor.{name}": self.actors[name] for name in ACTOR_COLUMNS}
        for name in ("plan_path_NK2", "plan_speed_NT", "actor_row", "actor_id", "actor_kind"):
            arrays[name] = getattr(self, name)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            archive.writestr(zipfile.ZipInfo("head.json"), canonical_json(head))
            for name, array in sorted(arrays.items()):
                column = io.BytesIO()
                np.lib.format.write_array(column, np.ascontiguousarray(array), allow_pickle=False)
                info = zipfile.ZipInfo(f"{name}.npy")
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, column.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Rollout:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            head = json.loads(archive.read("head.json"))
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        events = tuple(Event(t_s=t_s, kind=kind, detail=detail) for t_s, kind, detail in head.pop("events"))
        return cls(
            **head,
            events=events,
            steps={name: _step_column(arrays, name) for name in STEP_COLUMNS},
            actors={name: arrays[f"actor.{name}"] for name in ACTOR_COLUMNS},
            plan_path_NK2=arrays["plan_path_NK2"],
            plan_speed_NT=arrays["plan_speed_NT"],
            actor_row=arrays["actor_row"],
            actor_id=arrays["actor_id"],
            actor_kind=arrays["actor_kind"],
        )


def _step_column(arrays: dict[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """A stored column; context columns that an older rollout lacks are not known."""
    if f"step.{name}" not in arrays and STEP_COLUMNS.index(name) >= FIRST_CONTEXT_COLUMN:
        return np.full(len(arrays["step.t_s"]), np.nan)
    return arrays[f"step.{name}"]
