"""What the road asks of an ego where it is: limits, lane, markings, arrows, hours, stop lines, waiting areas, crosswalks.

Rule: fills the columns of a rollout from `clock_h` on, from the map and the clock alone; what the map does not say is NaN.
Sides are geometric: `left` is left whichever side traffic keeps to.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.policy import RouteCommand
from onshore.core.rollout import ACTOR_KINDS, LIGHT_SHAPES, LINES, STOP_RULES
from onshore.world.layout import LaneSpec
from onshore.world.navigation import Fix, Navigation
from onshore.world.town import Crosswalk, Edge, LaneLine, Town

NAN = math.nan
#: A stop line stays the next one until the front bumper is this far beyond it.
BEHIND_LINE_M = 10.0
#: Who is this near a crosswalk, or will be within this time, uses it.
NEAR_WALK_M, SOON_S = 0.6, 1.2
#: Who is slower than this stands.
STROLL_MPS = 0.2
#: Actors are known this far: a crosswalk further away is not known to be free.
WALK_SIGHT_M = 55.0
WALKERS = tuple(ACTOR_KINDS.index(kind) for kind in ("pedestrian", "bicycle", "ebike", "tricycle"))
ON_FOOT = ACTOR_KINDS.index("pedestrian")
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """An ego at one step; neighbours are (M, 5) boxes with their speeds and kinds."""

    state: EgoState
    fix: Fix
    clock_h: float
    neighbours_M5: Floats
    speeds_M: Floats
    kinds_M: NDArray[np.int8]


class _Street:
    """One street of a route, with what does not change while driving it."""

    def __init__(self, town: Town, edge: Edge, following: str | None, clock_h: float) -> None:
        self.edge = edge
        inward = town.roads.inward
        widths = [lane.width_m for lane in edge.lanes]
        innermost = edge.car_lanes[-1]
        # boundaries between lanes, metres from the innermost car lane's centre towards the middle of the road
        first = -sum(widths[:innermost]) - widths[innermost] / 2
        self.bounds = [first + sum(widths[:count]) for count in range(len(widths) + 1)]
        self.inward = inward
        self.rule = edge.stop_rule
        self.outer = town.reverse.get(edge.id) is not None
        self.usual = [self._line(town, lane, -1.0) for lane in edge.lanes]
        self.near = [self._line(town, lane, 0.0) for lane in edge.lanes]
        # as it is painted: where nothing is to be stopped for, no line becomes solid, not even at the very end
        before_m = town.roads.approach.solid_m if self.rule != "none" else -math.inf
        self.solid_m = [lane.spec.solid_end_m or before_m for lane in edge.lanes]
        self.turns = [float(lane.spec.turns_at(clock_h)) for lane in edge.lanes]
        self.movement = float(town.movement(edge.id, following)) if following else NAN
        self.shape = float(LIGHT_SHAPES.index(town.light_shape(edge.id, following))) if following else 0.0
        near_turn = RouteCommand.RIGHT if inward > 0 else RouteCommand.LEFT
        free = (
            town.roads.permissions.near_turn_on_red
            and self.rule == "light"
            and LIGHT_SHAPES[int(self.shape)] != "arrow"
        )
        self.on_red = float(free and following is not None and town.command(edge.id, following) is near_turn)
        lanes = town.lanes_for(edge.id, following)
        self.waiting_m = max((edge.lanes[lane].spec.waiting_m for lane in lanes), default=0.0) if following else 0.0
        self.through = _through_links(town, edge) if self.waiting_m else None

    def _line(self, town: Town, lane: LaneLine, before_stop_m: float) -> int:
        """LINES index of the marking on the middle side of a lane."""
        if lane.index == len(self.edge.lanes) - 1 and not self.outer:
            return LINES.index("kerb")
        spec: LaneSpec = lane.spec
        if spec.line_left:
            return LINES.index("solid" if before_stop_m == 0.0 and spec.solid_end_m else spec.line_left)
        outermost = lane.index == len(self.edge.lanes) - 1
        return LINES.index(town.roads.line_between(lane.kind, before_stop_m=before_stop_m, outermost=outermost).meaning)

    def marking(self, lane: int, to_stop_m: float) -> float:
        """The marking between `lane` and the next one towards the middle; -1 is the kerb's."""
        if lane < 0:
            return float(LINES.index("kerb"))
        return float(self.near[lane] if to_stop_m <= self.solid_m[lane] else self.usual[lane])


def _through_links(town: Town, edge: Edge) -> tuple[str, tuple[int, ...]] | None:
    """The lights of the movement straight on, which open a waiting area."""
    for following in town.net.successors.get(edge.id, ()):
        if town.command(edge.id, following) is RouteCommand.STRAIGHT:
            return town.links_for(edge.id, following)
    return None


class RoadContext:
    """The context columns of one ego along its route."""

    def __init__(self, town: Town, navigation: Navigation, geometry: VehicleGeometry, clock_h: float) -> None:
        self.town, self.navigation, self.geometry = town, navigation, geometry
        edges = navigation.edges
        onward = [*edges[1:], None]
        self.streets = [_Street(town, town.edges[a], b, clock_h) for a, b in zip(edges, onward, strict=True)]
        line = navigation.reference
        self._xy = line.xy_N2.tolist()
        self._along = line.along_N.tolist()
        self._ends = [self._along[end] for _, end in line.streets]
        self._walks = _walks_along(town, line.xy_N2, line.along_N)

    def row(self, place: Place, programs: dict[str, str]) -> tuple[float, ...]:
        """The columns from `clock_h` on, in order."""
        fix, navigation = place.fix, self.navigation
        along = navigation.front_along_m
        street = self.streets[fix.street]
        ahead = self._ends[fix.street] - along
        lane = self._lane(place, street, ahead) if not fix.in_junction else (NAN,) * 7
        stop, ruled = self._stop_line(fix, along)
        waiting, open_ = self._waiting(fix, street, ahead, programs)
        walk_m, used = self._crosswalk(place, along)
        return (
            *(place.clock_h, street.edge.speed_mps, *lane, stop, float(STOP_RULES.index(ruled.rule))),
            *(street.shape, street.on_red, waiting, open_, walk_m, used, street.movement),
        )

    def may_pass_red(self, street: int, programs: dict[str, str]) -> bool:
        """Whether the stop line of a street of the route may be passed on red: a free turn, or an open waiting area."""
        asked = self.streets[street]
        return asked.on_red == 1.0 or (self.area_m(street) > 0.0 and self._through_green(asked, programs))

    def area_m(self, street: int) -> float:
        """Length of the waiting area beyond the stop line of a street of the route; 0 without one."""
        return self.streets[street].waiting_m

    def beyond_line_m(self, street: int) -> float:
        """How far the front bumper is beyond that stop line."""
        return float(self.navigation.front_along_m - self._ends[street])

    def _lane(self, place: Place, street: _Street, ahead_m: float) -> tuple[float, ...]:
        """index, turns, open, left line, metres to it, right line, metres to it: of the lane under the ego's centre."""
        state, geometry = place.state, self.geometry
        cos, sin = math.cos(state.yaw_rad), math.sin(state.yaw_rad)
        x, y = state.x_m + cos * geometry.axle_to_centre_m, state.y_m + sin * geometry.axle_to_centre_m
        at = self._nearest(x, y)
        (ax, ay), (bx, by) = self._xy[max(at - 1, 0)], self._xy[min(at + 1, len(self._xy) - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        tx, ty = (bx - ax) / length, (by - ay) / length
        px, py = self._xy[at]
        left = tx * (y - py) - ty * (x - px)
        lane = bisect_right(street.bounds, left * street.inward) - 1
        if not 0 <= lane < len(street.edge.lanes):
            return (NAN,) * 7
        spec = street.edge.lanes[lane].spec
        across = abs(cos * tx + sin * ty) * geometry.width_m / 2 + abs(tx * sin - ty * cos) * geometry.length_m / 2
        towards_middle = street.bounds[lane + 1] - left * street.inward - across
        towards_kerb = left * street.inward - street.bounds[lane] - across
        inner, outer = street.marking(lane, ahead_m), street.marking(lane - 1, ahead_m)
        sides = (inner, towards_middle, outer, towards_kerb)
        if street.inward < 0:
            sides = (outer, towards_kerb, inner, towards_middle)
        return (float(lane), street.turns[lane], float(spec.open_to_cars(place.clock_h)), *sides)

    def _nearest(self, x: float, y: float) -> int:
        """The reference line's point nearest to a place just behind the front bumper."""
        index = self.navigation.index
        low, nearest, best = max(0, index - 6), math.inf, index
        for at, (px, py) in enumerate(self._xy[low : index + 2], low):
            apart2 = (px - x) * (px - x) + (py - y) * (py - y)
            if apart2 < nearest:
                nearest, best = apart2, at
        return best

    def _stop_line(self, fix: Fix, along: float) -> tuple[float, _Street]:
        """(metres to the next stop line or, just behind it, from the last one; the street it ends)."""
        at = fix.street
        if not fix.in_junction and at > 0 and along - self._ends[at - 1] < BEHIND_LINE_M:
            at -= 1
        elif fix.in_junction and along - self._ends[at] > BEHIND_LINE_M and at + 1 < len(self.streets):
            at += 1
        street = self.streets[at]
        return (self._ends[at] - along if street.rule != "none" else NAN), street

    def _waiting(self, fix: Fix, street: _Street, ahead_m: float, programs: dict[str, str]) -> tuple[float, float]:
        if not street.waiting_m:
            return 0.0, NAN
        inside = float(fix.in_junction and -ahead_m <= street.waiting_m + 0.5)
        if street.through is None:
            return inside, NAN
        return inside, float(self._through_green(street, programs))

    @staticmethod
    def _through_green(street: _Street, programs: dict[str, str]) -> bool:
        if street.through is None:
            return False
        program, links = street.through
        return any(programs[program][link] in "gG" for link in links)

    def _crosswalk(self, place: Place, along: float) -> tuple[float, float]:
        for near, far, walk, other in self._walks:
            if along - self.geometry.length_m < far:
                gap = near - along
                return gap, float(_used(walk, other, place)) if gap < WALK_SIGHT_M else NAN
        return NAN, NAN


def _walks_along(town: Town, xy_N2: Floats, along_N: Floats) -> list[tuple[float, float, Crosswalk, float]]:
    """(near edge, far edge, crosswalk, on which side of its middle the other half lies: 1 left, -1 right) along a line, in order."""
    if not town.crosswalks:
        return []
    fine = np.arange(0.0, along_N[-1], 0.2)
    points = np.stack([np.interp(fine, along_N, xy_N2[:, k]) for k in (0, 1)], -1)
    found = []
    for walk in town.crosswalks:
        inside = np.nonzero(walk.holds(points))[0]
        if len(inside):
            # a route may cross the same crosswalk more than once
            for part in np.split(inside, np.nonzero(np.diff(inside) > 20)[0] + 1):
                way = points[part[-1]] - points[part[0]]
                with_it = way[0] * math.cos(walk.yaw_rad) + way[1] * math.sin(walk.yaw_rad) >= 0.0
                other = town.roads.inward * (1.0 if with_it else -1.0)
                found.append((float(fine[part[0]]), float(fine[part[-1]]), walk, other))
    return sorted(found, key=lambda item: item[0])


def _used(walk: Crosswalk, other: float, place: Place) -> bool:
    """Whether somebody who does not drive along the road is on the crosswalk or about to be.

    Who has left the ego's half of the road and goes on does not count (Uniform Vehicle Code 11-502). other: on which side of
    the middle the other half lies.
    """
    return bool(_anybody(place.neighbours_M5, place.speeds_M, place.kinds_M, *walk.box, walk.middle_m, other))


@numba.njit(cache=True)
def _anybody(
    boxes_M5: Floats,
    speeds_M: Floats,
    kinds_M: NDArray[np.int8],
    x: float,
    y: float,
    yaw: float,
    half_depth: float,
    half_width: float,
    middle: float,
    other: float,
) -> bool:
    depth, width = half_depth + NEAR_WALK_M, half_width + NEAR_WALK_M
    cos, sin = math.cos(yaw), math.sin(yaw)
    for row in range(len(kinds_M)):
        walks = False
        for kind in WALKERS:
            walks |= kinds_M[row] == kind
        heading = boxes_M5[row, 2]
        if not walks or (kinds_M[row] != ON_FOOT and abs(math.cos(heading - yaw)) >= 0.7):
            continue
        across = (boxes_M5[row, 1] - y) * cos - (boxes_M5[row, 0] - x) * sin
        leaves = other * speeds_M[row] * math.sin(heading - yaw) > STROLL_MPS
        if leaves and other * (across - middle) > NEAR_WALK_M:
            continue
        for ahead_s in (0.0, SOON_S) if speeds_M[row] > STROLL_MPS else (0.0, 0.0):
            way = speeds_M[row] * ahead_s
            gap_x = boxes_M5[row, 0] + way * math.cos(heading) - x
            gap_y = boxes_M5[row, 1] + way * math.sin(heading) - y
            if abs(gap_x * cos + gap_y * sin) <= depth and abs(-gap_x * sin + gap_y * cos) <= width:
                return True
    return False
