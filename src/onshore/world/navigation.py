"""Where a car is on its route: street, distance to the stop line, command, progress; and the lane the route wants.

Rule: reads the map and the car's place, never its future. Distances are those of the front bumper, as the engine counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.frames import path_at_arcs, rear_axle_track, to_frame
from onshore.core.plan import PATH_ARCS_M
from onshore.core.policy import RouteCommand
from onshore.world.town import Line, Town, route_line

#: From this far to this near before a stop line, the lane that the turn needs is the lane to be in.
CHOOSE_LANE_FROM_M, CHOOSE_LANE_TO_M = 45.0, 8.0
WRONG_LANE_M = 50.0
LOST_M = 9.0
#: No further than this from the centre of a lane of its route is a car on that lane for the engine.
ON_LANE_M = 1.8
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fix:
    """What navigation says now. `street` is the index of the street just driven or, inside a junction, left."""

    street: int
    in_junction: bool
    distance_m: float
    command: RouteCommand
    progress_m: float
    lateral_m: float


class Navigation:
    """Follows one car along its route."""

    def __init__(self, town: Town, edges: tuple[str, ...], front_xy: Floats) -> None:
        self.town, self.edges = town, edges
        #: By rank: 0 is the innermost car lane of each street, as far as a street has that many.
        streets = [town.edges[edge] for edge in edges]
        ranks = range(max(len(street.car_lanes) for street in streets))
        self.lines: dict[int, Line] = {
            rank: route_line(town, edges, [street.rank(rank) for street in streets]) for rank in ranks
        }
        self.reference = self.lines[0]
        self._at: dict[int, int] = {}
        for lane, line in self.lines.items():
            first = line.xy_N2[: line.streets[0][1] + 1]
            self._at[lane] = int(np.argmin(np.hypot(*(first - front_xy).T)))
        self.index = self._at[0]
        self._start_m = self.front_along_m = self._along(self.reference, self.index, front_xy)
        most = max(len(street.lanes) for street in streets)
        self._all = [
            route_line(town, edges, [min(lane, len(street.lanes) - 1) for street in streets]) for lane in range(most)
        ]
        self._all_at = [
            int(np.argmin(np.hypot(*(line.xy_N2[: line.streets[0][1] + 1] - front_xy).T))) for line in self._all
        ]
        self.passed: list[int] = []
        self.off_m = 0.0

    def update(self, front_xy: Floats) -> Fix:
        """Advance to where the front bumper now is; `passed` lists the streets whose stop line lies 2 m behind since."""
        low = max(0, self.index - 3)
        window = self.reference.xy_N2[low : self.index + 12]
        apart = np.hypot(*(window - front_xy).T)
        nearest = int(np.argmin(apart))
        before, self.index, self.off_m = self.index, max(self.index, low + nearest), float(apart[nearest])
        streets = self.reference.streets
        self.passed = [i for i, (_, end) in enumerate(streets[:-1]) if before <= end + 2 < self.index]
        for lane, line in self.lines.items():
            low = max(0, self._at[lane] - 5)
            near = np.hypot(*(line.xy_N2[low : self._at[lane] + 20] - front_xy).T)
            self._at[lane] = low + int(np.argmin(near))
        return self._fix(front_xy)

    def on_route(self, front_xy: Floats) -> tuple[float, float]:
        """The same place, or where it is further than ON_LANE_M from every lane of the route, the nearest that is not."""
        best = (math.inf, front_xy)
        for lane, line in enumerate(self._all):
            low = max(0, self._all_at[lane] - 8)
            gaps = line.xy_N2[low : low + 30] - front_xy
            apart = np.hypot(*gaps.T)
            self._all_at[lane] = low + int(np.argmin(apart))
            best = min(best, (float(apart.min()), line.xy_N2[self._all_at[lane]]), key=lambda found: found[0])
        away, centre = best
        kept = front_xy if away <= ON_LANE_M else centre + (front_xy - centre) * (ON_LANE_M / away)
        return float(kept[0]), float(kept[1])

    def _fix(self, front_xy: Floats) -> Fix:
        streets = self.reference.streets
        street = next((i for i, (_, end) in enumerate(streets) if self.index <= end), len(streets) - 1)
        along = self.front_along_m = self._along(self.reference, self.index, front_xy)
        inside = street > 0 and self.index < streets[street][0]
        if inside:
            street -= 1
        distance = 0.0 if inside else max(0.0, float(self.reference.along_N[streets[street][1]]) - along)
        following = self.edges[street + 1] if street + 1 < len(self.edges) else None
        return Fix(
            street=street,
            in_junction=inside,
            distance_m=distance,
            command=self.town.command(self.edges[street], following),
            progress_m=along - self._start_m,
            lateral_m=min((self._offset(lane, front_xy) for lane in self.lines), key=abs),
        )

    def _along(self, line: Line, index: int, xy: Floats) -> float:
        here, tangent = line.xy_N2[index], self._tangent(line, index)
        return float(line.along_N[index]) + min(max(float((xy - here) @ tangent), -1.0), 1.0)

    @staticmethod
    def _tangent(line: Line, index: int) -> Floats:
        low, high = max(0, index - 1), min(len(line.xy_N2) - 1, index + 1)
        step = line.xy_N2[high] - line.xy_N2[low]
        return np.asarray(step / max(float(np.hypot(*step)), 1e-9), np.float64)

    def _offset(self, lane: int, xy: Floats) -> float:
        line, index = self.lines[lane], self._at[lane]
        tangent, gap = self._tangent(line, index), xy - line.xy_N2[index]
        return float(tangent[0] * gap[1] - tangent[1] * gap[0])

    def wanted_lane(self, fix: Fix, front_xy: Floats) -> int:
        """The rank of the nearest car lane; before a turn, one from which the turn can be made."""
        following = self.edges[fix.street + 1] if fix.street + 1 < len(self.edges) else None
        street = self.town.edges[self.edges[fix.street]]
        good = self.town.lanes_for(street.id, following)
        choosing = not fix.in_junction and CHOOSE_LANE_TO_M < fix.distance_m < CHOOSE_LANE_FROM_M

        def cost(lane: int) -> float:
            away = float(np.hypot(*(self.lines[lane].xy_N2[self._at[lane]] - front_xy)))
            return away + (WRONG_LANE_M if choosing and street.rank(lane) not in good else 0.0)

        return min(self.lines, key=cost)

    def answer(self, fix: Fix, state: EgoState, geometry: VehicleGeometry, blend_m: float) -> tuple[Floats, bool]:
        """The way back to and along the wanted lane, in the rig frame: (K, 2) at PATH_ARCS_M, and whether it is usable.

        The front bumper returns to the lane's centre along a cubic over `blend_m` metres, starting with the car's own
        heading, and the rear axle follows it as a trailer does: what a driver who takes over would steer, not a jump.
        """
        front = np.array(front_of(state, geometry))
        lane = self.wanted_lane(fix, front)
        line, index = self.lines[lane], self._at[lane]
        offset, tangent = self._offset(lane, front), self._tangent(line, index)
        turned = math.remainder(state.yaw_rad - math.atan2(tangent[1], tangent[0]), 2 * math.pi)
        ahead = np.arange(0.0, PATH_ARCS_M[-1] + 6.0, 0.5)
        side = _decay(ahead, offset, math.tan(max(-0.7, min(0.7, turned))), max(blend_m, 2.5 * abs(offset)))
        fronts = _beside(line, self._along(line, index, front) + ahead, side)
        rear = rear_axle_track(fronts, state.yaw_rad, geometry.axle_to_front_m)
        path, reached = path_at_arcs(rear[:, :2], PATH_ARCS_M)
        path = to_frame(path, state.x_m, state.y_m, state.yaw_rad)
        known = fix.command is not RouteCommand.UNKNOWN and bool(reached.all())
        return path, known and abs(offset) < LOST_M and bool(path[5, 0] > 0)


def front_of(state: EgoState, geometry: VehicleGeometry) -> tuple[float, float]:
    """The front bumper's place."""
    reach = geometry.axle_to_front_m
    return state.x_m + math.cos(state.yaw_rad) * reach, state.y_m + math.sin(state.yaw_rad) * reach


def _beside(line: Line, along_m: Floats, left_m: Floats) -> Floats:
    """Points `left_m` to the left of the line at arc lengths `along_m`."""
    centre, before, after = (
        np.stack([np.interp(along_m + step, line.along_N, line.xy_N2[:, k]) for k in (0, 1)], -1)
        for step in (0.0, -0.5, 0.5)
    )
    direction = after - before
    direction /= np.maximum(np.hypot(*direction.T), 1e-9)[:, None]
    return np.asarray(centre + np.stack([-direction[:, 1], direction[:, 0]], -1) * left_m[:, None], np.float64)


def _decay(arcs: Floats, offset: float, slope: float, over_m: float) -> Floats:
    """Cubic from (offset, slope) at 0 to (0, 0) at `over_m`, then 0."""
    q = np.clip(arcs / over_m, 0.0, 1.0)
    return np.asarray(offset * (1 - q) ** 2 * (1 + 2 * q) + slope * over_m * q * (1 - q) ** 2, np.float64)
