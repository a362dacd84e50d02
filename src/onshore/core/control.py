"""From plan to action to motion, the same in the world and in the car.

`Controller` (versioned: its version stands in every bundle) turns a Plan into steering and acceleration by pure pursuit
on the rear axle (Coulter 1992, CMU-RI-TR-92-01) and a proportional speed law; `Bicycle` is the kinematic single-track model.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from onshore.core.plan import Plan

CONTROLLER_VERSION = "pursuit-3"


@dataclass(frozen=True, kw_only=True)
class VehicleGeometry:
    """A car's box around its rear axle, in metres."""

    length_m: float = 4.6
    width_m: float = 1.9
    height_m: float = 1.5
    wheelbase_m: float = 2.8
    rear_overhang_m: float = 0.9

    @property
    def axle_to_front_m(self) -> float:
        return self.length_m - self.rear_overhang_m

    @property
    def axle_to_centre_m(self) -> float:
        return self.length_m / 2 - self.rear_overhang_m


@dataclass(frozen=True, kw_only=True)
class Action:
    """What the actuators are asked for: front-wheel angle (rad, left positive) and acceleration (m/s^2)."""

    steering_rad: float
    accel_mps2: float


@dataclass(frozen=True, kw_only=True)
class EgoState:
    """Rear-axle pose in `local`, speed, and the actuators' present position."""

    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    steering_rad: float = 0.0
    accel_mps2: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Plan to action; limits in SI units. brake_gain: how much harder it brakes than a plan asks."""

    lookahead_gain_s: float = 0.6
    lookahead_min_m: float = 5.0
    lookahead_max_m: float = 11.0
    max_steering_rad: float = 0.6
    max_accel_mps2: float = 2.5
    max_brake_mps2: float = 6.0
    hold_speed_mps: float = 0.5
    hold_target_mps: float = 0.35
    brake_gain: float = 1.0
    version: str = CONTROLLER_VERSION

    def act(self, plan: Plan, speed_mps: float, geometry: VehicleGeometry) -> Action:
        """Steer along the arc through the look-ahead point; reach the target speed of 1 s ahead in 1 s.

        Braking goes by the target of 0.5 s ahead where that asks for more: towards a target of zero the 1 s law alone
        slows down ever more gently and rolls past the stop line.
        """
        lookahead = min(
            max(self.lookahead_gain_s * speed_mps + self.lookahead_min_m, self.lookahead_min_m), self.lookahead_max_m
        )
        arcs, points = (0.0, *plan.arcs_m), [(0.0, 0.0), *plan.path_xy_m.tolist()]
        x, y = (_between(lookahead, arcs, axis) for axis in zip(*points, strict=True))
        chord2 = max(x * x + y * y, 1.0)
        steering = math.atan2(2.0 * geometry.wheelbase_m * y, chord2)
        speeds = plan.speed_mps.tolist()
        target = _between(1.0, plan.times_s, speeds)
        accel = target - speed_mps
        soon = _between(0.5, plan.times_s, speeds)
        if soon < speed_mps:
            accel = min(accel, (soon - speed_mps) / 0.5)
        if accel < 0:
            accel *= self.brake_gain
        if speed_mps < self.hold_speed_mps and target < self.hold_target_mps:
            accel = -3.0
        return Action(
            steering_rad=min(max(steering, -self.max_steering_rad), self.max_steering_rad),
            accel_mps2=min(max(accel, -self.max_brake_mps2), self.max_accel_mps2),
        )


def _between(at: float, known: Sequence[float], values: Sequence[float]) -> float:
    """numpy.interp of one number, to the last bit; its calls cost more than the arithmetic."""
    after = bisect_right(known, at)
    if after == 0 or after == len(known):
        return values[max(after - 1, 0)]
    slope = (values[after] - values[after - 1]) / (known[after] - known[after - 1])
    return slope * (at - known[after - 1]) + values[after - 1]


#: For plans that a network estimated: it learns the mean of what drivers do, so each plan brakes a little later than they would.
FOR_ESTIMATES = Controller(brake_gain=1.5)


@dataclass(frozen=True, kw_only=True)
class Actuators:
    """How a car carries out what it is asked: nothing for a dead time, then a first-order lag towards it."""

    dead_time_s: float = 0.1
    steering_lag_s: float = 0.1
    accel_lag_s: float = 0.1

    def delay_steps(self, dt_s: float) -> int:
        return round(self.dead_time_s / dt_s)

    def respond(self, present: Action, asked: Action, dt_s: float) -> Action:
        """Where the actuators are `dt_s` later: present + (asked - present) (1 - exp(-dt / lag)); a lag of 0 obeys at once."""

        def moved(now: float, wanted: float, lag_s: float) -> float:
            return wanted if lag_s <= 0 else now + (wanted - now) * (1.0 - math.exp(-dt_s / lag_s))

        return Action(
            steering_rad=moved(present.steering_rad, asked.steering_rad, self.steering_lag_s),
            accel_mps2=moved(present.accel_mps2, asked.accel_mps2, self.accel_lag_s),
        )


#: Obeys at once.
PROMPT = Actuators(dead_time_s=0.0, steering_lag_s=0.0, accel_lag_s=0.0)


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    """Kinematic single-track model on the rear axle; steering moves at a limited rate."""

    geometry: VehicleGeometry = VehicleGeometry()
    max_steering_rate_radps: float = 1.2

    def step(self, state: EgoState, action: Action, dt_s: float) -> EgoState:
        """The state `dt_s` later: x' = v cos yaw, yaw' = v tan(steering) / wheelbase, v' = a, v >= 0."""
        limit = self.max_steering_rate_radps * dt_s
        steering = state.steering_rad + min(max(action.steering_rad - state.steering_rad, -limit), limit)
        speed = max(0.0, state.speed_mps + action.accel_mps2 * dt_s)
        mean_speed = (state.speed_mps + speed) / 2
        turn = mean_speed * dt_s * math.tan(steering) / self.geometry.wheelbase_m
        middle = state.yaw_rad + turn / 2
        return EgoState(
            x_m=state.x_m + mean_speed * dt_s * math.cos(middle),
            y_m=state.y_m + mean_speed * dt_s * math.sin(middle),
            yaw_rad=math.remainder(state.yaw_rad + turn, 2 * math.pi),
            speed_mps=speed,
            steering_rad=steering,
            accel_mps2=(speed - state.speed_mps) / dt_s,
        )
