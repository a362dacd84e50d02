"""The last look: it brakes for whom the ego would meet, for nobody else, and never asks for more than was wished."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from onshore.core.control import EgoState, VehicleGeometry
from onshore.core.plan import PATH_ARCS_M
from onshore.world.last_look import LastLook

CAR, BIKE = (4.6, 1.9), (1.8, 0.7)
STRAIGHT = np.column_stack([PATH_ARCS_M, np.zeros(len(PATH_ARCS_M))])


def bend(radius_m: float) -> NDArray[np.float64]:
    """A path that turns left, or right with a negative radius."""
    turned = np.array(PATH_ARCS_M) / radius_m
    return np.column_stack([radius_m * np.sin(turned), radius_m * (1 - np.cos(turned))])


def accel(
    speed_mps: float,
    wished_mps2: float,
    *others: tuple[float, float, float, tuple[float, float], float],
    path: NDArray[np.float64] = STRAIGHT,
    yaw_rad: float = 0.0,
) -> float:
    """others: x, y in the ego's frame, heading against it, size, speed."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    boxes = [(5 + x * cos - y * sin, 7 + x * sin + y * cos, yaw_rad + yaw, *size) for x, y, yaw, size, _ in others]
    return LastLook(
        state=EgoState(x_m=5.0, y_m=7.0, yaw_rad=yaw_rad, speed_mps=speed_mps),
        geometry=VehicleGeometry(),
        path_K2=path,
        boxes_M5=np.array(boxes, np.float64).reshape(-1, 5),
        speed_M=np.array([other[-1] for other in others], np.float64),
    ).accel(wished_mps2)


@pytest.mark.parametrize("yaw_rad", [0.0, 2.5])
def test_it_brakes_no_harder_than_it_must(yaw_rad: float) -> None:
    def ahead(x: float, speed: float) -> float:
        return accel(8.0, 1.0, (x, 0.0, 0.0, CAR, speed), yaw_rad=yaw_rad)

    assert accel(8.0, 1.0, yaw_rad=yaw_rad) == ahead(28.0, 0.0) == ahead(9.0, 9.0) == 1.0
    assert [ahead(x, 0.0) for x in (19.5, 16.8, 14.5, 12.0)] == [0.0, -2.0, -4.0, -6.0]


def test_it_lets_who_crosses_its_way_pass() -> None:
    crossing = (11.0, -6.0, math.pi / 2, BIKE, 4.5)
    assert accel(7.0, 2.0, crossing) <= -2.0
    assert accel(7.0, 2.0, (11.0, -6.0, -math.pi / 2, BIKE, 4.5)) == 2.0  # rides away
    # standing at the line it does not start into who comes
    assert accel(0.0, 2.3, (6.0, -5.0, math.pi / 2, BIKE, 4.5)) == 0.0


def test_it_looks_along_its_own_bend() -> None:
    beside = (12.0, 3.2, 0.0, CAR, 0.0)
    assert accel(6.0, 1.0, beside) == 1.0
    assert accel(6.0, 1.0, beside, path=bend(18.0)) < 0.0
    hooked = (2.5, -3.0, 0.0, BIKE, 5.0)  # straight on, right beside a car that turns right
    assert accel(5.0, 1.5, hooked, path=bend(-9.0)) < 0.0
    assert accel(5.0, 1.5, hooked) == 1.5


def test_who_comes_from_behind_or_is_beside_already_is_not_braked_for() -> None:
    assert accel(8.0, 1.0, (-9.0, 0.0, 0.0, CAR, 16.0)) == 1.0
    assert accel(8.0, 1.0, (1.4, 2.1, 0.0, CAR, 8.0)) == 1.0


def test_a_wish_to_brake_stays() -> None:
    assert accel(8.0, -5.0, (28.0, 0.0, 0.0, CAR, 8.0)) == -5.0
    assert accel(8.0, -7.0, (8.0, 0.0, 0.0, CAR, 0.0)) == -7.0
