"""Recipes of `small` (throughput, cars) and `base` (one data-centre GPU, three cameras)."""

from __future__ import annotations

import math

from onshore.bundle.inputs import View
from onshore.model import Recipe
from onshore.model.temporal import SMALL_VIEW, Temporal


def small_from_scratch(*, seed: int = 0, steps: int = 2000) -> Recipe:
    """Eight frames of one camera, 2 million parameters; for throughput and streaming export, not proven in closed loop."""
    return Recipe(name="small-from-scratch", trainable=Temporal(), steps=steps, batch=64, accumulate=4, seed=seed)


def base_three_cameras(*, seed: int = 0, steps: int = 20000) -> Recipe:
    """Front, left and right, eight frames, over 50 million parameters; for one data-centre GPU, not proven in closed loop."""
    turned = tuple(
        View(width_px=256, height_px=128, focal_px=128.0, yaw_rad=math.radians(side)) for side in (60.0, -60.0)
    )
    big = Temporal(
        name="base",
        channels=(128, 256, 512, 1024, 1536),
        encoder="strided",
        feature=1024,
        hidden=1024,
        view=SMALL_VIEW,
        side_views=turned,
    )
    return Recipe(name="base-three-cameras", trainable=big, steps=steps, batch=32, learning_rate=3e-4, seed=seed)
