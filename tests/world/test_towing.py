"""The rear axle behind a front bumper: on a circle it lags as a trailer does, and long steps are cut into pieces."""

from __future__ import annotations

import itertools
import math

import numpy as np

from onshore.world.towing import rear_axle_track


def test_a_trailer_on_a_circle_turns_with_it() -> None:
    angle = np.linspace(0, math.pi, 100)
    front = np.stack([20 * np.sin(angle), 20 - 20 * np.cos(angle)], -1)
    poses = rear_axle_track(front, 0.0, 3.7)
    lag = angle[-1] - poses[-1, 2]
    assert math.isclose(math.sin(lag), 3.7 / 20, rel_tol=0.02)  # a trailer's angle to the circle's tangent


def test_long_steps_lead_where_short_ones_do() -> None:
    long = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    short = np.concatenate([np.linspace(a, b, 41)[1:] for a, b in itertools.pairwise(long)])
    ends = [rear_axle_track(points, 0.3, 2.5)[-1] for points in (long, np.concatenate([long[:1], short]))]
    assert np.allclose(*ends, atol=0.03)
    assert np.allclose(rear_axle_track(long[:1], 0.3, 2.5)[0, 2], 0.3)
