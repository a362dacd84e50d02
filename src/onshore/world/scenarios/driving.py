"""Scripted drivers for scenarios: a careful one that sees everything, and the same one with a bad habit.

Rule: privileged and honest about it. They read the map, the boxes around the ego and the context columns of the step just
written, never the future; each habit leaves out exactly one thing that the careful driver does. They are the proof that a
scenario can be passed and can be failed, not a model of anybody.

Following: Intelligent Driver Model (Treiber, Hennecke and Helbing 2000, Phys. Rev. E 62). Giving way: a road user whose
constant-velocity future meets the ego's own is given way to before the place where their ways meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.frames import path_at_arcs, to_frame
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import Observation
from onshore.core.rollout import LIGHTS, STEP_COLUMNS
from onshore.world.navigation import beside, decay, front_of
from onshore.world.scenarios.movers import arc_lengths
from onshore.world.towing import rear_axle_track

if TYPE_CHECKING:
    from onshore.world.closed_loop import Ego, TownWorld
    from onshore.world.scenarios.family import Plot

Floats = NDArray[np.float64]
Row = dict[str, float]
Ignored = Literal["lights", "crosswalks", "leaders", "crossing", "curves", "holds"]

MAX_ACCEL_MPS2, EASY_BRAKE_MPS2, MAX_BRAKE_MPS2 = 2.0, 2.2, 6.0
TIME_GAP_S, STANDING_GAP_M = 1.3, 2.5
CURVE_MPS2, SLOW_DOWN_MPS2 = 1.8, 1.5
PLAN_S = 0.2
HORIZON_S, TICK_S = 5.0, 0.25
SIDE_ROOM_M = 0.35
#: Who takes over is back on the line after this; further away than LOST there is no way back worth learning.
BLEND_M, LOST_M, LOST_RAD = 10.0, 5.0, 1.0
#: A conflict is one if the two come to the place within this time of one another.
APART_S = 1.2


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Stop with the front bumper at `s_m` of the line for `stand_s` seconds and, with `green`, until the turn is free."""

    s_m: float
    stand_s: float = 0.0
    green: bool = False


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a scripted driver drives: the line of its front bumper, its speed, what it ignores, and where it holds.

    slow: (from_m, to_m, speed) along the line.
    """

    front_N2: Floats
    cruise_mps: float
    ignores: frozenset[Ignored] = frozenset()
    holds: tuple[Hold, ...] = ()
    slow: tuple[tuple[float, float, float], ...] = ()


class Line:
    """A driven line: where the front bumper and the rear axle go, and how fast the bends may be taken."""

    def __init__(self, manner: Manner, geometry: VehicleGeometry, yaw_rad: float) -> None:
        self.front = _dense(manner.front_N2)
        self.along = arc_lengths(self.front)
        self.rear = rear_axle_track(self.front, yaw_rad, geometry.axle_to_front_m)[:, :2]
        self.top = self._speeds(manner)
        self.at = 0

    def _speeds(self, manner: Manner) -> Floats:
        top = np.full(len(self.front), manner.cruise_mps)
        if "curves" not in manner.ignores:
            step = np.gradient(self.front, axis=0)
            heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
            bend = np.abs(np.gradient(heading, self.along))
            bend = np.convolve(np.pad(bend, 3, mode="edge"), np.ones(7) / 7, mode="valid")
            top = np.minimum(top, np.sqrt(CURVE_MPS2 / np.maximum(bend, 1e-6)))
        for start, end, speed in manner.slow:
            inside = (self.along >= start) & (self.along <= end)
            top[inside] = np.minimum(top[inside], speed)
        for index in range(len(top) - 2, -1, -1):
            gap = float(self.along[index + 1] - self.along[index])
            top[index] = min(top[index], math.sqrt(top[index + 1] ** 2 + 2 * SLOW_DOWN_MPS2 * gap))
        return top

    def advance(self, front_xy: Floats) -> float:
        """Arc length of the front bumper, never backwards."""
        window = self.front[self.at : self.at + 40]
        self.at += int(np.argmin(np.hypot(*(window - front_xy).T)))
        return float(self.along[self.at])

    def way_back(self, state: EgoState, geometry: VehicleGeometry) -> Floats | None:
        """(K, 2) in the rig frame: what who takes over here would steer back to the line; None where that is too far.

        The front bumper returns along a cubic that starts with the car's own heading, the rear axle follows it.
        """
        front = np.array(front_of(state, geometry))
        step = self.front[min(self.at + 1, len(self.front) - 1)] - self.front[max(self.at - 1, 0)]
        tangent = step / max(float(np.hypot(*step)), 1e-9)
        away = front - self.front[self.at]
        offset = float(tangent[0] * away[1] - tangent[1] * away[0])
        turned = math.remainder(state.yaw_rad - math.atan2(tangent[1], tangent[0]), 2 * math.pi)
        if abs(offset) > LOST_M or abs(turned) > LOST_RAD:
            return None
        ahead = np.arange(0.0, PATH_ARCS_M[-1] + 6.0, 0.5)
        side = decay(ahead, offset, math.tan(min(max(turned, -0.7), 0.7)), max(BLEND_M, 2.5 * abs(offset)))
        fronts = beside(self.front, self.along, float(self.along[self.at]) + ahead, side)
        rear = rear_axle_track(fronts, state.yaw_rad, geometry.axle_to_front_m)[:, :2]
        rear = np.vstack([rear, rear[-1] + (rear[-1] - rear[-2]) * 60.0])
        points, _ = path_at_arcs(rear, PATH_ARCS_M)
        return to_frame(points, state.x_m, state.y_m, state.yaw_rad)

    def path(self, state: EgoState) -> Floats:
        """(K, 2) in the rig frame: back to the rear axle's line and along it."""
        low = max(0, self.at - 16)
        near = self.rear[low : self.at + 80]
        here = int(np.argmin(np.hypot(*(near - (state.x_m, state.y_m)).T)))
        ahead = np.vstack([[state.x_m, state.y_m], near[here + 1 :]])
        ahead = np.vstack([ahead, ahead[-1] + (ahead[-1] - ahead[-2]) * 60.0])
        points, _ = path_at_arcs(ahead, PATH_ARCS_M)
        return to_frame(points, state.x_m, state.y_m, state.yaw_rad)


def _dense(xy_N2: Floats) -> Floats:
    """The line at steps of about 0.5 m."""
    xy_N2 = xy_N2[np.concatenate([[True], np.hypot(*np.diff(xy_N2, axis=0).T) > 1e-6])]
    along = arc_lengths(xy_N2)
    at = np.linspace(0.0, along[-1], max(2, round(float(along[-1]) * 2)))
    return np.stack([np.interp(at, along, xy_N2[:, k]) for k in (0, 1)], -1)


@dataclass
class ScriptedDriver:
    """Drives the one ego of a scenario by a Manner."""

    world: TownWorld
    manner: Manner
    _line: Line | None = None
    _held: dict[int, float] = field(default_factory=dict)

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        return {ego.index: self._plan(ego) for ego in self.world.active}

    def _plan(self, ego: Ego) -> Plan:
        geometry = self.world.bicycle.geometry
        if self._line is None:
            self._line = Line(self.manner, geometry, ego.state.yaw_rad)
        state = ego.state
        front = np.array(
            [
                state.x_m + math.cos(state.yaw_rad) * geometry.axle_to_front_m,
                state.y_m + math.sin(state.yaw_rad) * geometry.axle_to_front_m,
            ]
        )
        s_m = self._line.advance(front)
        row = dict(zip(STEP_COLUMNS, ego.rows[-1], strict=True)) if ego.rows else {}
        accel = self._accel(ego, s_m, row)
        speeds = np.clip(state.speed_mps + accel * np.array(SPEED_TIMES_S), 0.0, self.manner.cruise_mps * 1.05)
        return Plan(path_xy_m=self._line.path(state), speed_mps=speeds)

    def _accel(self, ego: Ego, s_m: float, row: Row) -> float:
        assert self._line is not None
        v = ego.state.speed_mps
        top = float(self._line.top[self._line.at])
        ahead = min(len(self._line.top) - 1, self._line.at + 2)
        accels = [following(v, min(top, float(self._line.top[ahead])), math.inf, 0.0)]
        accels += [stopping(v, gap) for gap in self._stops(ego, s_m, row)]
        accels += self._traffic(ego, s_m, v)
        return max(-MAX_BRAKE_MPS2, min(accels))

    # -- places to stop at -------------------------------------------------------------------------------------------

    def _stops(self, ego: Ego, s_m: float, row: Row) -> list[float]:
        """Distances to where the front bumper has to stop now."""
        v = ego.state.speed_mps
        stops: list[float] = []
        light = LIGHTS[int(row["light"])] if row else "none"
        gap = row.get("light_distance_m", math.nan)
        may_pass = row.get("turn_on_red") == 1.0 or row.get("waiting_open") == 1.0
        if "lights" not in self.manner.ignores and light in ("red", "yellow") and gap > 0.0 and not may_pass:
            can_stop = v * v / (2 * max(gap - 0.8, 0.1)) < 4.0
            if light == "red" or can_stop:
                stops.append(gap - 0.8)
        walk = row.get("crosswalk_m", math.nan)
        if "crosswalks" not in self.manner.ignores and row.get("crosswalk_used", 0.0) == 1.0 and walk > 0.0:
            stops.append(walk - 1.2)
        if "holds" not in self.manner.ignores:
            stops += [hold.s_m - s_m for hold in self._holding(ego, s_m)]
        return stops

    def _holding(self, ego: Ego, s_m: float) -> list[Hold]:
        """The holds still in force; one whose stand is over, or that lies behind, is not."""
        holding = []
        for number, hold in enumerate(self.manner.holds):
            if hold.s_m < s_m - 1.0 or self._held.get(number) == math.inf:
                continue
            if ego.state.speed_mps < 0.15 and hold.s_m - s_m < 2.5:
                self._held[number] = self._held.get(number, 0.0) + PLAN_S
            if self._held.get(number, 0.0) >= hold.stand_s and (not hold.green or self._turn_is_green(ego)):
                self._held[number] = math.inf
            else:
                holding.append(hold)
        return holding

    def _turn_is_green(self, ego: Ego) -> bool:
        """Also inside a junction, where the light column says nothing."""
        edges, street = ego.navigation.edges, ego.fix.street
        links = self.world.assets.town.links_for(edges[street], edges[street + 1])
        return links is None or any(self.world.moment.programs[links[0]][link] in "gG" for link in links[1])

    # -- road users ----------------------------------------------------------------------------------------------

    def _traffic(self, ego: Ego, s_m: float, v: float) -> list[float]:
        """Accelerations that leaders and crossing road users allow."""
        assert self._line is not None
        if not ego.actors or not len(ego.actors[-1][0]):
            return []
        boxes, speeds, _, _ = ego.actors[-1]
        geometry = self.world.bicycle.geometry
        line = self._line
        stretch = slice(line.at, line.at + 120)
        meets = Meeting(line.front[stretch], line.along[stretch] - s_m, geometry)
        accels = []
        for box, speed in zip(boxes, speeds, strict=True):
            seen = meets.look(box, float(speed))
            if seen is None:
                continue
            if seen.leads:
                if "leaders" not in self.manner.ignores:
                    accels.append(following(v, self.manner.cruise_mps, seen.gap_m, seen.along_mps))
            elif "crossing" not in self.manner.ignores and seen.conflicts(v, self.manner.cruise_mps, geometry.length_m):
                accels.append(stopping(v, seen.block_m - 1.2))
        return accels


@dataclass
class Teacher(ScriptedDriver):
    """The careful driver asked what it would do from where somebody else has driven; no answer where it has lost its line."""

    def plans(self, observations: dict[int, Observation]) -> dict[int, Plan]:
        answers = {}
        for ego in self.world.active:
            plan = self._plan(ego)
            way = self._line.way_back(ego.state, self.world.bicycle.geometry) if self._line else None
            if way is not None:
                answers[ego.index] = Plan(path_xy_m=way, speed_mps=plan.speed_mps)
        return answers


def following(v: float, wish_mps: float, gap_m: float, lead_mps: float) -> float:
    """IDM acceleration behind a leader `gap_m` ahead (inf: none)."""
    free = MAX_ACCEL_MPS2 * (1.0 - (v / max(wish_mps, 0.1)) ** 4)
    free = max(free, -SLOW_DOWN_MPS2 - 1.0 if wish_mps > 0.5 else -3.0)
    if gap_m == math.inf:
        return free
    wanted = STANDING_GAP_M + max(
        0.0, v * TIME_GAP_S + v * (v - lead_mps) / (2 * math.sqrt(MAX_ACCEL_MPS2 * EASY_BRAKE_MPS2))
    )
    return min(free, MAX_ACCEL_MPS2 * (1.0 - (wanted / max(gap_m, 0.3)) ** 2))


def stopping(v: float, gap_m: float) -> float:
    """Acceleration that brings the car to a stand `gap_m` ahead: nothing yet, then an even braking, then hold."""
    if gap_m < 0.3:
        return -MAX_BRAKE_MPS2 if v > 0.5 else -3.0
    needed = v * v / (2 * gap_m)
    if needed < 0.8:
        # still far: go on gently
        return 0.5 * (math.sqrt(2 * 0.8 * gap_m) - v)
    return -needed * 1.05


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One road user against the ego's line. gap_m: from the front bumper to where it now is in the way.

    block_m: to the first place of the line it will be in the way of; busy: (time, from_m, to_m) while it is.
    """

    leads: bool
    gap_m: float
    along_mps: float
    block_m: float
    busy: tuple[tuple[float, float, float], ...]

    def conflicts(self, v: float, cruise_mps: float, length_m: float) -> bool:
        """Whether the ego, going on as it likes, would be there at nearly the same time."""
        if self.block_m < 0.3 and v > 1.0:
            return False
        for t_s, start, end in self.busy:
            for at in (t_s - APART_S, t_s - APART_S / 2, t_s, t_s + APART_S / 2):
                if at >= 0.0:
                    front = _driven(v, cruise_mps, at)
                    if front > start - 0.8 and front - length_m < end + 0.8:
                        return True
        return False


def _driven(v: float, cruise_mps: float, t_s: float) -> float:
    """How far the ego gets in `t_s` when it accelerates to its cruise speed."""
    to_top = max(0.0, (cruise_mps - v) / MAX_ACCEL_MPS2)
    if t_s <= to_top:
        return v * t_s + MAX_ACCEL_MPS2 * t_s * t_s / 2
    return v * to_top + MAX_ACCEL_MPS2 * to_top * to_top / 2 + max(v, cruise_mps) * (t_s - to_top)


class Meeting:
    """The ego's way ahead, against which road users are held."""

    def __init__(self, front_P2: Floats, ahead_P: Floats, geometry: VehicleGeometry) -> None:
        self.front, self.ahead, self.geometry = front_P2, ahead_P, geometry
        step = np.gradient(front_P2, axis=0)
        self.heading = np.arctan2(step[:, 1], step[:, 0])

    def look(self, box: Floats, speed_mps: float) -> Seen | None:
        """None for who neither is nor comes in the way."""
        ticks = np.arange(0.0, HORIZON_S + 1e-9, TICK_S) if speed_mps > 0.2 else np.zeros(1)
        points = outline(box)[None] + ticks[:, None, None] * speed_mps * np.array([math.cos(box[2]), math.sin(box[2])])
        apart = np.hypot(*(points[:, :, None] - self.front[None, None]).transpose(3, 0, 1, 2))
        inside = (apart < self.geometry.width_m / 2 + SIDE_ROOM_M).any(1)
        # points beside the first metres but behind the bumper are not ahead
        hit = inside.any(1)
        if not hit.any():
            return None
        busy = tuple(
            (float(ticks[row]), float(self.ahead[inside[row]].min()), float(self.ahead[inside[row]].max()))
            for row in np.nonzero(hit)[0]
        )
        first = int(np.nonzero(inside[np.nonzero(hit)[0][0]])[0][0])
        turned = abs(math.remainder(float(box[2]) - float(self.heading[first]), 2 * math.pi))
        along = speed_mps * math.cos(turned)
        now = bool(hit[0])
        gap = busy[0][1] if now else busy[0][1] - along * busy[0][0]
        leads = now and (turned < 0.9 or speed_mps <= 0.2)
        merges = not now and turned < 0.8 and busy[0][0] <= 2.5 and gap > 0.5
        return Seen(
            leads=leads or merges,
            gap_m=gap,
            along_mps=max(along, 0.0),
            block_m=min(start for _, start, _ in busy),
            busy=busy,
        )


def outline(box: Floats) -> Floats:
    """Points around a box (x, y, yaw, length, width), about 1 m apart along its sides, and its centre."""
    x, y, yaw, length, width = (float(value) for value in box)
    count = max(2, math.ceil(length / 1.2) + 1)
    along = np.linspace(-length / 2, length / 2, count)
    local = np.concatenate([np.stack([along, np.full(count, side)], -1) for side in (-width / 2, 0.0, width / 2)])
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.stack([x + local[:, 0] * cos - local[:, 1] * sin, y + local[:, 0] * sin + local[:, 1] * cos], -1)


def careful(world: TownWorld) -> ScriptedDriver:
    """The driver who passes this scenario."""
    return ScriptedDriver(world=world, manner=_plot(world).careful)


def teacher(world: TownWorld) -> Teacher:
    """The careful driver as the expert of a collecting run."""
    return Teacher(world=world, manner=_plot(world).careful)


def careless(world: TownWorld) -> ScriptedDriver:
    """The driver who fails it."""
    return ScriptedDriver(world=world, manner=_plot(world).careless)


def _plot(world: TownWorld) -> Plot:
    from onshore.world.scenarios.family import plot_of

    return plot_of(world)
