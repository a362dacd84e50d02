"""What counts as an event, and when a run ends: pure rules over one ego's place, its neighbours and the lights.

Rule: thresholds stand here once, with their source. An at-fault collision, leaving the road for 2.5 s, leaving the route
by 20 m, 4 s against the traffic, 60 s of standing without a reason, or the time limit end a run; passing a red light or a
stop sign does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import ACTOR_KINDS, Event

#: CARLA leaderboard 2.0: an ego slower than this is not at fault.
STANDING_MPS = 0.1
#: Who stood (CARLA leaderboard 2.0: below STANDING_MPS) with the front bumper this near before its line has heeded a stop sign.
STOP_SIGN_M = 8.0
OFF_ROAD_S, WRONG_WAY_S, BLOCKED_S, OFF_ROUTE_M = 2.5, 4.0, 60.0, 20.0
#: A standing car has a reason when a light that is not green is this near, or a vehicle this near ahead in its way.
LIGHT_REASON_M, QUEUE_REASON_M, QUEUE_HALF_WIDTH_M = 40.0, 10.0, 1.8
#: Boxes shrink by this much (m) before they are tested: the engine keeps sub-lane neighbours that close.
TOUCH_LENGTH_M, TOUCH_WIDTH_M = 0.1, 0.1
#: The event of an at-fault collision by what was hit; everything else is a vehicle.
COLLISIONS = {"pedestrian": "collision_pedestrian", "static": "collision_static"}
ENDINGS = frozenset(
    [
        "collision_vehicle",
        *COLLISIONS.values(),
        "off_road",
        "route_complete",
        "route_deviation",
        "blocked",
        "wrong_way",
        "timeout",
    ]
)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle on the ground: centre, yaw and half sizes."""

    x_m: float
    y_m: float
    yaw_rad: float
    half_length_m: float
    half_width_m: float


@dataclass(frozen=True, kw_only=True)
class Sight:
    """All the referee needs to know about one ego at one step. `neighbours` is (M, 5): centre, yaw, length, width."""

    t_s: float
    ego: Box
    speed_mps: float
    progress_m: float
    off_route_m: float
    on_road: bool
    oncoming: bool
    red_passed: str | None
    stop_passed: str | None
    light_holds: bool
    neighbours_M5: Floats
    neighbour_ids: NDArray[np.int32]
    neighbour_kinds: NDArray[np.int8]


@dataclass
class Referee:
    """Judges one ego's run; `events` grow, and `ended` says whether the last one ended it."""

    route_m: float
    max_time_s: float
    step_s: float
    events: list[Event] = field(default_factory=list)
    _hit: set[int] = field(default_factory=set)
    _off_s: float = 0.0
    _oncoming_s: float = 0.0
    _stood_s: float = 0.0

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].kind in ENDINGS

    def judge(self, sight: Sight) -> None:
        """Add the events of one step; at most one of them, the last, ends the run."""
        if sight.red_passed is not None:
            self._add(sight, "red_light", street=sight.red_passed)
        if sight.stop_passed is not None:
            self._add(sight, "stop_sign", street=sight.stop_passed)
        self._collisions(sight)
        if self.ended:
            return
        self._off_s = 0.0 if sight.on_road else self._off_s + self.step_s
        self._oncoming_s = self._oncoming_s + self.step_s if sight.oncoming else 0.0
        self._stand(sight)
        if sight.progress_m >= self.route_m:
            self._add(sight, "route_complete")
        elif self._off_s >= OFF_ROAD_S - 1e-9:
            self._add(sight, "off_road")
        elif sight.off_route_m > OFF_ROUTE_M:
            self._add(sight, "route_deviation")
        elif self._oncoming_s >= WRONG_WAY_S - 1e-9:
            self._add(sight, "wrong_way")
        elif self._stood_s >= BLOCKED_S - 1e-9:
            self._add(sight, "blocked")
        elif sight.t_s >= self.max_time_s - 1e-9:
            self._add(sight, "timeout")

    def lost(self, t_s: float) -> None:
        """The traffic engine no longer knows the ego: its run ends as a deviation, and says so."""
        self.events.append(Event(t_s=t_s, kind="route_deviation", detail={"why": "the engine lost the ego"}))

    def _add(self, sight: Sight, kind: str, **detail: Any) -> None:
        self.events.append(Event(t_s=round(sight.t_s, 3), kind=kind, detail=detail))

    def _stand(self, sight: Sight) -> None:
        if sight.speed_mps >= STANDING_MPS:
            self._stood_s = 0.0
        elif not sight.light_holds and not self._queued(sight):
            self._stood_s += self.step_s

    def _queued(self, sight: Sight) -> bool:
        if not len(sight.neighbours_M5):
            return False
        gap = sight.neighbours_M5[:, :2] - (sight.ego.x_m, sight.ego.y_m)
        cos, sin = math.cos(sight.ego.yaw_rad), math.sin(sight.ego.yaw_rad)
        ahead = gap[:, 0] * cos + gap[:, 1] * sin - sight.ego.half_length_m - sight.neighbours_M5[:, 3] / 2
        left = np.abs(-gap[:, 0] * sin + gap[:, 1] * cos)
        return bool(((ahead > -1.0) & (ahead < QUEUE_REASON_M) & (left < QUEUE_HALF_WIDTH_M)).any())

    def _collisions(self, sight: Sight) -> None:
        ego = sight.ego
        touched = _touched(ego.x_m, ego.y_m, ego.yaw_rad, ego.half_length_m, ego.half_width_m, sight.neighbours_M5)
        if not len(touched):
            return
        fatal: dict[str, Any] | None = None
        for row in touched.tolist():
            x, y, yaw = sight.neighbours_M5[row, :3].tolist()
            identity = int(sight.neighbour_ids[row])
            if identity in self._hit:
                continue
            self._hit.add(identity)
            ahead = (x - ego.x_m) * math.cos(ego.yaw_rad) + (y - ego.y_m) * math.sin(ego.yaw_rad)
            left = -(x - ego.x_m) * math.sin(ego.yaw_rad) + (y - ego.y_m) * math.cos(ego.yaw_rad)
            detail = {
                "with": ACTOR_KINDS[sight.neighbour_kinds[row]],
                "id": identity,
                "speed_mps": round(sight.speed_mps, 2),
                "ahead_m": round(float(ahead), 1),
                "left_m": round(float(left), 1),
                "turned_deg": round(math.degrees(math.remainder(yaw - ego.yaw_rad, 2 * math.pi))),
            }
            if sight.speed_mps < STANDING_MPS or ahead < -0.7 * ego.half_length_m:
                self._add(sight, "collision_not_at_fault", **detail)
            else:
                fatal = detail
        if fatal is not None:
            self._add(sight, COLLISIONS.get(fatal["with"], "collision_vehicle"), **fatal)


@numba.njit(cache=True)
def _touched(
    x: float, y: float, yaw: float, half_length: float, half_width: float, boxes_M5: Floats
) -> NDArray[np.int64]:
    """Rows of the boxes that share a point with the ego's, both shrunk by TOUCH_LENGTH_M and TOUCH_WIDTH_M (separating axes)."""
    found = np.empty(len(boxes_M5), np.int64)
    count = 0
    reach = math.hypot(half_length, half_width)
    mine = (half_length - TOUCH_LENGTH_M, half_width - TOUCH_WIDTH_M)
    for row in range(len(boxes_M5)):
        gap_x, gap_y = boxes_M5[row, 0] - x, boxes_M5[row, 1] - y
        length, width = boxes_M5[row, 3], boxes_M5[row, 4]
        if math.hypot(gap_x, gap_y) > reach + math.hypot(length, width) / 2:
            continue
        theirs = (length / 2 - TOUCH_LENGTH_M, width / 2 - TOUCH_WIDTH_M)
        if _overlap(gap_x, gap_y, yaw, mine, boxes_M5[row, 2], theirs):
            found[count] = row
            count += 1
    return found[:count]


@numba.njit(cache=True)
def _overlap(
    gap_x: float, gap_y: float, yaw: float, mine: tuple[float, float], other_yaw: float, theirs: tuple[float, float]
) -> bool:
    """Whether two rectangles (yaw, half length and half width) with this gap between their centres share a point."""
    for axis in (yaw, yaw + math.pi / 2, other_yaw, other_yaw + math.pi / 2):
        reach = mine[0] * abs(math.cos(yaw - axis)) + mine[1] * abs(math.sin(yaw - axis))
        reach += theirs[0] * abs(math.cos(other_yaw - axis)) + theirs[1] * abs(math.sin(other_yaw - axis))
        if abs(gap_x * math.cos(axis) + gap_y * math.sin(axis)) > reach:
            return False
    return True
