"""Towns from public knowledge alone: a region's signs, lanes and markings, with everything else left to chance.

Rule: what stands in law and standards (lanes, paint, signs, lights) stays the pack's; what only a fleet could tell (colours of
ground, houses and cars, how dense the traffic is and who makes it up, how drivers drive) is drawn from the seed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from onshore.region import RegionPack

#: How far colours move (of 255), by what the number of vehicles and a driver's gaps are multiplied, and how uneven the mix is.
COLOUR_STEP, DENSITY, GAPS, EVENNESS = 55, (0.4, 1.3), (0.7, 1.6), 4.0


def randomised(pack: RegionPack, seed: int) -> RegionPack:
    """The pack with looks and traffic drawn from `seed`."""
    chance, roads = np.random.default_rng(seed), copy.deepcopy(pack.roads)
    looks = roads["looks"]
    for name in ("asphalt", "grass", "side", "sky", "tree"):
        if name in looks:
            looks[name] = _colour(chance, looks[name])
    looks["lane_paint"] = {kind: _colour(chance, colour) for kind, colour in looks.get("lane_paint", {}).items()}
    for house in looks["houses"]:
        house["colours"] = [_colour(chance, colour) for colour in house["colours"]]
    for kind in roads["vehicles"].values():
        kind["colours"] = [_any_colour(chance) for _ in kind["colours"]]
        for figure in {"tau", "minGap"} & set(kind["engine"]):
            kind["engine"][figure] = round(kind["engine"][figure] * float(chance.uniform(*GAPS)), 3)
    traffic = roads["traffic"]
    traffic["vehicles"] = max(20, round(traffic["vehicles"] * float(chance.uniform(*DENSITY))))
    shares = chance.dirichlet([EVENNESS] * len(traffic["mix"]))
    for part, share in zip(traffic["mix"], shares.tolist(), strict=True):
        part["share"] = round(share, 4)
    return replace(pack, roads=roads)


def _colour(chance: np.random.Generator, colour: list[int]) -> list[int]:
    moved: Any = np.array(colour) + chance.integers(-COLOUR_STEP, COLOUR_STEP + 1, 3)
    return [int(value) for value in np.clip(moved, 10, 245)]


def _any_colour(chance: np.random.Generator) -> list[int]:
    return [int(value) for value in chance.integers(20, 236, 3)]
