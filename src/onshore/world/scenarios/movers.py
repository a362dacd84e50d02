"""Road users that a scenario moves by a script: each follows a line and wishes for a speed and a place beside the line.

Rule: a script is a function of time and of where the egos are, never of who drives them; it holds no randomness. What it
wishes for is reached within the limits of its kind, so nobody jumps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import EgoState

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class View:
    """What a script sees: itself on its line, and the ego (front bumper) measured along the same line."""

    t_s: float
    s_m: float
    left_m: float
    speed_mps: float
    ego_s_m: float
    ego_left_m: float
    ego_speed_mps: float
    ego_xy: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Wish:
    speed_mps: float
    left_m: float


Behaviour = Callable[[View], Wish]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a kind of road user can do."""

    accel_mps2: float
    brake_mps2: float
    sideways_mps: float


REACH: dict[str, Reach] = {
    "pedestrian": Reach(accel_mps2=2.0, brake_mps2=3.0, sideways_mps=0.5),
    "bicycle": Reach(accel_mps2=1.2, brake_mps2=3.0, sideways_mps=0.8),
    "ebike": Reach(accel_mps2=1.8, brake_mps2=3.5, sideways_mps=1.0),
    "tricycle": Reach(accel_mps2=1.5, brake_mps2=3.5, sideways_mps=1.2),
    "static": Reach(accel_mps2=0.0, brake_mps2=0.0, sideways_mps=0.0),
}
ANY_CAR = Reach(accel_mps2=2.5, brake_mps2=7.0, sideways_mps=1.3)


@dataclass
class Mover:
    """One scripted road user: the centre of its box on `line_N2`, `left_m` beside it. Poses are box centres."""

    kind: str
    line_N2: Floats
    behaviour: Behaviour
    s_m: float = 0.0
    left_m: float = 0.0
    speed_mps: float = 0.0
    size_m: tuple[float, float, float] | None = None
    braking: bool = False
    _along_N: Floats = field(init=False, repr=False)
    _slide_mps: float = 0.0

    def __post_init__(self) -> None:
        self._along_N = arc_lengths(self.line_N2)

    @property
    def pose(self) -> tuple[float, float, float]:
        """(x, y, yaw) of the box's centre."""
        (x, y), heading = self._on_line(self.s_m)
        yaw = heading + math.atan2(self._slide_mps, max(self.speed_mps, 1.0)) if self._slide_mps else heading
        return x - math.sin(heading) * self.left_m, y + math.cos(heading) * self.left_m, yaw

    def step(self, t_s: float, ego: EgoState, ego_front_xy: tuple[float, float], dt_s: float) -> None:
        """Move by one step towards what the behaviour wishes for."""
        ego_s, ego_left = project(self.line_N2, self._along_N, np.array(ego_front_xy))
        wish = self.behaviour(
            View(
                t_s=t_s,
                s_m=self.s_m,
                left_m=self.left_m,
                speed_mps=self.speed_mps,
                ego_s_m=ego_s,
                ego_left_m=ego_left,
                ego_speed_mps=ego.speed_mps,
                ego_xy=ego_front_xy,
            )
        )
        reach = REACH.get(self.kind, ANY_CAR)
        change = wish.speed_mps - self.speed_mps
        speed = self.speed_mps + min(max(change, -reach.brake_mps2 * dt_s), reach.accel_mps2 * dt_s)
        self.s_m += (self.speed_mps + speed) / 2 * dt_s
        self.braking = speed < self.speed_mps - 0.03
        self.speed_mps = speed
        slide = min(max((wish.left_m - self.left_m) / dt_s, -reach.sideways_mps), reach.sideways_mps)
        # nobody slides sideways without moving
        self._slide_mps = slide * min(1.0, self.speed_mps / 2.0)
        self.left_m += self._slide_mps * dt_s

    def _on_line(self, s_m: float) -> tuple[tuple[float, float], float]:
        """A point of the line and its direction there; the line goes on straight beyond its ends."""
        last = len(self._along_N) - 1
        index = int(np.clip(np.searchsorted(self._along_N, s_m) - 1, 0, last - 1))
        a, b = self.line_N2[index], self.line_N2[index + 1]
        dx, dy = float(b[0] - a[0]), float(b[1] - a[1])
        length = max(math.hypot(dx, dy), 1e-9)
        along = s_m - float(self._along_N[index])
        return (float(a[0]) + dx / length * along, float(a[1]) + dy / length * along), math.atan2(dy, dx)


def arc_lengths(xy_N2: Floats) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy_N2, axis=0).T))])


def project(xy_N2: Floats, along_N: Floats, point: Floats) -> tuple[float, float]:
    """(arc length, metres to the left) of a point on a polyline, which goes on straight beyond its ends."""
    a, step = xy_N2[:-1], np.diff(xy_N2, axis=0)
    length = np.maximum(np.hypot(*step.T), 1e-9)
    share = ((point - a) * step).sum(1) / length
    low = np.where(np.arange(len(a)) == 0, -math.inf, 0.0)
    high = np.where(np.arange(len(a)) == len(a) - 1, math.inf, length)
    share = np.clip(share, low, high)
    unit = step / length[:, None]
    gap = point - (a + unit * share[:, None])
    best = int(np.argmin((gap**2).sum(1)))
    left = float(unit[best, 0] * gap[best, 1] - unit[best, 1] * gap[best, 0])
    return float(along_N[best] + share[best]), left


# -- behaviours --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Keep:
    """One speed, in one place beside the line."""

    speed_mps: float = 0.0
    left_m: float = 0.0

    def __call__(self, view: View) -> Wish:
        return Wish(speed_mps=self.speed_mps, left_m=self.left_m)


@dataclass
class CutIn:
    """Drives beside the ego, `ahead_m` before its front; at `at_s_m` of its line it slips into the line at `left_to_m`.

    Then it drives at `then_mps`. It never looks at what the ego does about it.
    """

    ahead_m: float
    left_from_m: float
    left_to_m: float
    at_s_m: float
    then_mps: float
    top_mps: float
    _in: bool = False

    def __call__(self, view: View) -> Wish:
        self._in = self._in or view.s_m >= self.at_s_m
        if self._in:
            return Wish(speed_mps=self.then_mps, left_m=self.left_to_m)
        wanted = view.ego_speed_mps + 0.8 * (view.ego_s_m + self.ahead_m - view.s_m)
        return Wish(speed_mps=min(max(wanted, 0.0), self.top_mps), left_m=self.left_from_m)


@dataclass
class HardBrake:
    """Leads the ego by `gap_m`, then brakes to `to_mps` at `at_s_m`, stands `stand_s`, and drives on."""

    cruise_mps: float
    at_s_m: float
    to_mps: float
    stand_s: float
    left_m: float = 0.0
    _until_s: float | None = None
    _done: bool = False

    def __call__(self, view: View) -> Wish:
        if not self._done and view.s_m >= self.at_s_m:
            if self._until_s is None and view.speed_mps <= self.to_mps + 0.05:
                self._until_s = view.t_s + self.stand_s
            self._done = self._until_s is not None and view.t_s >= self._until_s
            return Wish(speed_mps=self.to_mps, left_m=self.left_m)
        return Wish(speed_mps=self.cruise_mps, left_m=self.left_m)


@dataclass(frozen=True, kw_only=True)
class StopAndGo:
    """A queue's wave: goes for `go_s`, stands for `stop_s`, again and again, until `end_s` when it drives away."""

    cruise_mps: float
    go_s: float
    stop_s: float
    end_s: float
    phase_s: float = 0.0

    def __call__(self, view: View) -> Wish:
        phase = (view.t_s + self.phase_s) % (self.go_s + self.stop_s)
        going = phase < self.go_s or view.t_s >= self.end_s
        return Wish(speed_mps=self.cruise_mps if going else 0.0, left_m=0.0)


@dataclass
class Cross:
    """Waits, and sets off when the ego's front is `lead_s` seconds (at least `lead_m`) from `point_xy`."""

    point_xy: tuple[float, float]
    speed_mps: float
    lead_s: float
    lead_m: float = 6.0
    after_s: float = 0.0
    _going: bool = False

    def __call__(self, view: View) -> Wish:
        away = math.hypot(view.ego_xy[0] - self.point_xy[0], view.ego_xy[1] - self.point_xy[1])
        near = away <= max(self.lead_m, view.ego_speed_mps * self.lead_s)
        self._going = self._going or (near and view.t_s >= self.after_s)
        return Wish(speed_mps=self.speed_mps if self._going else 0.0, left_m=0.0)


@dataclass
class AgainstTraffic:
    """Rides towards the ego and keeps its place, until a car near ahead has slowed below `polite_mps`: that it rides around."""

    speed_mps: float
    left_m: float
    dodge_left_m: float
    polite_mps: float = 5.0
    sees_m: float = 32.0
    _around: bool = False

    def __call__(self, view: View) -> Wish:
        gap = view.ego_s_m - view.s_m
        self._around = self._around or (0.0 < gap < self.sees_m and view.ego_speed_mps < self.polite_mps)
        return Wish(speed_mps=self.speed_mps, left_m=self.dodge_left_m if self._around else self.left_m)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One of a stream of riders or cars at one speed that never yields but to what stands in its way ahead."""

    speed_mps: float
    left_m: float = 0.0
    start_s: float = 0.0

    def __call__(self, view: View) -> Wish:
        gap = view.ego_s_m - view.s_m
        blocked = 0.0 < gap < 4.0 + view.speed_mps and abs(view.ego_left_m - self.left_m) < 1.6
        going = view.t_s >= self.start_s and not (blocked and view.ego_speed_mps < 0.3)
        return Wish(speed_mps=self.speed_mps if going else 0.0, left_m=self.left_m)


@dataclass
class SlipIn:
    """Rides at its own speed and moves over to `left_to_m` once the ego's front is within `gap_m` behind it."""

    speed_mps: float
    left_from_m: float
    left_to_m: float
    gap_m: float
    _in: bool = False

    def __call__(self, view: View) -> Wish:
        self._in = self._in or view.s_m - view.ego_s_m < self.gap_m
        return Wish(speed_mps=self.speed_mps, left_m=self.left_to_m if self._in else self.left_from_m)


@dataclass(frozen=True, kw_only=True)
class WaitThenGo:
    """Stands until `until_s`, then drives away."""

    until_s: float
    speed_mps: float

    def __call__(self, view: View) -> Wish:
        return Wish(speed_mps=self.speed_mps if view.t_s >= self.until_s else 0.0, left_m=0.0)
