"""Recipes of `nano`, the network of the demo and the ladder."""

from __future__ import annotations

from onshore.bundle.inputs import View
from onshore.model import Nano, Recipe


def nano_us_base(*, seed: int = 0, steps: int = 1200) -> Recipe:
    """A base from one region's fleet clips, from fresh weights; proven on the us town."""
    return Recipe(name="nano-us-base", steps=steps, seed=seed)


def nano_cn_adapt(*, seed: int = 0, steps: int = 600) -> Recipe:
    """A base trained further on another region's clips and takeovers, all so far; proven on the cn town."""
    return Recipe(name="nano-cn-adapt", steps=steps, learning_rate=7e-4, seed=seed)


def nano_real_narrow(*, seed: int = 0, steps: int = 600) -> Recipe:
    """For recorded drives of a camera of about 40 degrees: a view as narrow as that camera, more changes of light."""
    return Recipe(
        name="nano-real-narrow",
        trainable=Nano(view=View(focal_px=176.0)),
        steps=steps,
        jitter=0.3,
        stride_s=0.2,
        seed=seed,
    )


def nano_tiny(*, seed: int = 0) -> Recipe:
    """A few seconds of training that prove the path and nothing about driving."""
    return Recipe(
        name="nano-tiny", trainable=Nano(channels=(8, 12, 16, 24, 32), hidden=64), steps=40, batch=32, seed=seed
    )
