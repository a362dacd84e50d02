"""Where a car is on its route: street, distance to the stop line, command, progress; and the lane the route wants.

Rule: reads the map and the car's place, never its future. Distances are those of the front bumper, as the engine counts.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.frames import path_at_arcs, to_frame
from onshore.core.plan import PATH_ARCS_M
from onshore.core.policy import RouteCommand
from onshore.world.towing import rear_axle_track
from onshore.world.town import Line, Town, route_line

#: From this far to this near before a stop line, the lane that the turn needs is the lane to be in.
CHOOSE_LANE_FROM_M, CHOOSE_LANE_TO_M = 45.0, 8.0
WRONG_LANE_M = 50.0
LOST_M = 9.0
#: No further than this from the centre of a lane of its route is a car on that lane for the engine.
ON_LANE_M = 1.8
#: A car is looked for this many points (about metres) around where it was.
LOOK_POINTS = 3
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


class _Tracks:
    """On each of some lines the point nearest to a car that moves along them; `index`, `apart`, `offset`, `at_m` by line.

    The first `forward` lines are only ever followed onwards. apart: metres from the nearest point; offset: metres to the left of
    the line there; at_m: arc length beside the car.
    """

    def __init__(self, lines: Sequence[Line], at: tuple[float, float], *, forward: int = 0) -> None:
        ends = np.cumsum([len(line.xy_N2) for line in lines])
        self._forward, self._begins, self._ends = forward, np.array([0, *ends[:-1]]), ends
        self._xy = np.concatenate([line.xy_N2 for line in lines])
        self._along = np.concatenate([line.along_N for line in lines])
        self._tangents = np.concatenate([_tangents(line.xy_N2) for line in lines])
        firsts = [line.xy_N2[: line.streets[0][1] + 1] - at for line in lines]
        self.index = np.array([int(np.argmin((first * first).sum(1))) for first in firsts])
        self.apart, self.offset, self.at_m = (np.zeros(len(lines)) for _ in range(3))

    def follow(self, at: tuple[float, float]) -> None:
        """Go on to the nearest points, LOOK_POINTS at a time."""
        lines = (self._xy, self._tangents, self._along, self._begins, self._ends)
        _follow(*lines, at[0], at[1], self._forward, self.index, self.apart, self.offset, self.at_m)

    def point(self, line: int) -> tuple[float, float]:
        x, y = self._xy[self._begins[line] + self.index[line]].tolist()
        return x, y

    def tangent(self, line: int) -> tuple[float, float]:
        x, y = self._tangents[self._begins[line] + self.index[line]].tolist()
        return x, y

    def along(self, line: int, at: tuple[float, float]) -> float:
        """Arc length beside a place near the nearest point."""
        (x, y), (tx, ty) = self.point(line), self.tangent(line)
        begun = float(self._along[self._begins[line] + self.index[line]])
        return begun + min(max((at[0] - x) * tx + (at[1] - y) * ty, -1.0), 1.0)

    def apart_from(self, line: int, at: tuple[float, float]) -> float:
        """How far a place is from the nearest point, without following it."""
        x, y = self.point(line)
        return math.hypot(x - at[0], y - at[1])

    def left_of(self, line: int, at: tuple[float, float]) -> float:
        """Metres to the left of the line, without following it."""
        (x, y), (tx, ty) = self.point(line), self.tangent(line)
        return tx * (at[1] - y) - ty * (at[0] - x)


def _tangents(xy_N2: Floats) -> Floats:
    step = np.diff(xy_N2[[0, *range(len(xy_N2)), -1]], axis=0)
    step = step[1:] + step[:-1]
    return np.asarray(step / np.maximum(np.hypot(*step.T), 1e-9)[:, None], np.float64)


@numba.njit(cache=True)
def _follow(
    xy: Floats,
    tangents: Floats,
    along: Floats,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    at_x: float,
    at_y: float,
    forward: int,
    index: NDArray[np.int64],
    apart: Floats,
    offset: Floats,
    at_m: Floats,
) -> None:
    for line in range(len(begins)):
        begin, end = begins[line], ends[line]
        best = begin + index[line]
        nearest = (xy[best, 0] - at_x) * (xy[best, 0] - at_x) + (xy[best, 1] - at_y) * (xy[best, 1] - at_y)
        moved = True
        while moved:
            moved = False
            low = best + 1 if line < forward else max(best - LOOK_POINTS, begin)
            for point in range(low, min(best + LOOK_POINTS + 1, end)):
                x, y = xy[point, 0], xy[point, 1]
                apart2 = (x - at_x) * (x - at_x) + (y - at_y) * (y - at_y)
                if apart2 < nearest:
                    best, nearest, moved = point, apart2, True
        index[line], apart[line] = best - begin, math.sqrt(nearest)
        ahead = (at_x - xy[best, 0]) * tangents[best, 0] + (at_y - xy[best, 1]) * tangents[best, 1]
        at_m[line] = along[best] + min(max(ahead, -1.0), 1.0)
        offset[line] = tangents[best, 0] * (at_y - xy[best, 1]) - tangents[best, 1] * (at_x - xy[best, 0])


class Navigation:
    """Follows one car along its route."""

    def __init__(self, town: Town, edges: tuple[str, ...], front_xy: tuple[float, float]) -> None:
        self.town, self.edges = town, edges
        #: By rank: 0 is the innermost car lane of each street, as far as a street has that many.
        streets = [town.edges[edge] for edge in edges]
        ranks = range(max(len(street.car_lanes) for street in streets))
        self.lines: dict[int, Line] = {
            rank: route_line(town, edges, [street.rank(rank) for street in streets]) for rank in ranks
        }
        self.reference = self.lines[0]
        at = front_xy
        #: The reference, which goes on only, then every rank.
        self._tracks = _Tracks([self.reference, *self.lines.values()], at, forward=1)
        self.index = int(self._tracks.index[0])
        self._start_m = self.front_along_m = self._tracks.along(0, at)
        most = max(len(street.lanes) for street in streets)
        every = [[min(lane, len(street.lanes) - 1) for street in streets] for lane in range(most)]
        self._all = _Tracks([route_line(town, edges, lanes) for lanes in every], at)
        self._ends = [end for _, end in self.reference.streets]
        self._ends_m: list[float] = self.reference.along_N[self._ends].tolist()
        self._commands = [town.command(edge, onward) for edge, onward in zip(edges, [*edges[1:], None], strict=True)]
        self.passed: tuple[int, ...] = ()
        self.crossed: tuple[int, ...] = ()
        self.off_m = 0.0

    def update(self, front_xy: tuple[float, float]) -> Fix:
        """Advance to where the front bumper now is; `crossed`, `passed`: streets whose stop line lies behind, or 2 m behind, since."""
        before = self.index
        self._tracks.follow(front_xy)
        self.index, self.off_m = int(self._tracks.index[0]), float(self._tracks.apart[0])
        self.crossed = self.passed = ()
        if self.index != before:
            ends = self._ends[:-1]
            self.crossed = tuple(i for i, end in enumerate(ends) if before <= end < self.index)
            self.passed = tuple(i for i, end in enumerate(ends) if before <= end + 2 < self.index)
        return self._fix()

    def on_route(self, front_xy: tuple[float, float]) -> tuple[float, float]:
        """The same place, or where it is further than ON_LANE_M from every lane of the route, the nearest that is not."""
        self._all.follow(front_xy)
        aways = self._all.apart.tolist()
        away = min(aways)
        if away <= ON_LANE_M:
            return front_xy
        (x, y), (centre_x, centre_y) = front_xy, self._all.point(aways.index(away))
        share = ON_LANE_M / away
        return centre_x + (x - centre_x) * share, centre_y + (y - centre_y) * share

    def _fix(self) -> Fix:
        street = min(bisect_left(self._ends, self.index), len(self._ends) - 1)
        along = self.front_along_m = float(self._tracks.at_m[0])
        inside = street > 0 and self.index < self.reference.streets[street][0]
        if inside:
            street -= 1
        return Fix(
            street=street,
            in_junction=inside,
            distance_m=0.0 if inside else max(0.0, self._ends_m[street] - along),
            command=self._commands[street],
            progress_m=along - self._start_m,
            lateral_m=min(self._tracks.offset.tolist()[1:], key=abs),
        )

    def wanted_lane(self, fix: Fix, front_xy: tuple[float, float]) -> int:
        """The rank of the nearest car lane; before a turn, one from which the turn can be made."""
        following = self.edges[fix.street + 1] if fix.street + 1 < len(self.edges) else None
        street = self.town.edges[self.edges[fix.street]]
        good = self.town.lanes_for(street.id, following)
        choosing = not fix.in_junction and CHOOSE_LANE_TO_M < fix.distance_m < CHOOSE_LANE_FROM_M

        def cost(lane: int) -> float:
            return self._tracks.apart_from(1 + lane, front_xy) + (
                WRONG_LANE_M if choosing and street.rank(lane) not in good else 0.0
            )

        return min(self.lines, key=cost)

    def ahead(self, fix: Fix, front_xy: tuple[float, float], way_m: float, step_m: float) -> Floats:
        """The wanted lane's centre line from beside the front bumper on, (N, 2)."""
        lane = self.wanted_lane(fix, front_xy)
        line = self.lines[lane]
        begin = self._tracks.along(1 + lane, front_xy)
        at = begin + np.arange(0.0, way_m, step_m)
        return np.stack([np.interp(at, line.along_N, line.xy_N2[:, k]) for k in (0, 1)], -1)

    def answer(self, fix: Fix, state: EgoState, geometry: VehicleGeometry, blend_m: float) -> tuple[Floats, bool]:
        """The way back to and along the wanted lane, in the rig frame: (K, 2) at PATH_ARCS_M, and whether it is usable.

        The front bumper returns to the lane's centre along a cubic over `blend_m` metres, starting with the car's own
        heading, and the rear axle follows it as a trailer does: what a driver who takes over would steer, not a jump.
        """
        at = front_of(state, geometry)
        lane = self.wanted_lane(fix, at)
        line, tracks = self.lines[lane], self._tracks
        offset, tangent = tracks.left_of(1 + lane, at), tracks.tangent(1 + lane)
        turned = math.remainder(state.yaw_rad - math.atan2(tangent[1], tangent[0]), 2 * math.pi)
        ahead = np.arange(0.0, PATH_ARCS_M[-1] + 6.0, 0.5)
        side = decay(ahead, offset, math.tan(max(-0.7, min(0.7, turned))), max(blend_m, 2.5 * abs(offset)))
        fronts = beside(line.xy_N2, line.along_N, tracks.along(1 + lane, at) + ahead, side)
        rear = rear_axle_track(fronts, state.yaw_rad, geometry.axle_to_front_m)
        path, reached = path_at_arcs(rear[:, :2], PATH_ARCS_M)
        path = to_frame(path, state.x_m, state.y_m, state.yaw_rad)
        known = fix.command is not RouteCommand.UNKNOWN and bool(reached.all())
        return path, known and abs(offset) < LOST_M and bool(path[5, 0] > 0)


def front_of(state: EgoState, geometry: VehicleGeometry) -> tuple[float, float]:
    """The front bumper's place."""
    reach = geometry.axle_to_front_m
    return state.x_m + math.cos(state.yaw_rad) * reach, state.y_m + math.sin(state.yaw_rad) * reach


def beside(xy_N2: Floats, along_N: Floats, along_m: Floats, left_m: Floats) -> Floats:
    """Points `left_m` to the left of a line at its arc lengths `along_m`."""
    centre, before, after = (
        np.stack([np.interp(along_m + step, along_N, xy_N2[:, k]) for k in (0, 1)], -1) for step in (0.0, -0.5, 0.5)
    )
    direction = after - before
    direction /= np.maximum(np.hypot(*direction.T), 1e-9)[:, None]
    return np.asarray(centre + np.stack([-direction[:, 1], direction[:, 0]], -1) * left_m[:, None], np.float64)


def decay(arcs: Floats, offset: float, slope: float, over_m: float) -> Floats:
    """Cubic from (offset, slope) at 0 to (0, 0) at `over_m`, then 0."""
    q = np.clip(arcs / over_m, 0.0, 1.0)
    return np.asarray(offset * (1 - q) ** 2 * (1 + 2 * q) + slope * over_m * q * (1 - q) ** 2, np.float64)
