"""Scenarios: parameterised families of small worlds, each with a test of success and a driver who passes and one who fails.

Rule: a family is data and geometry; what it needs of the world is a `Layout`, a start and a script. Which families a region
has, and how much each counts, stands in its pack.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

from onshore.core.errors import NotFoundError
from onshore.world.scenarios.family import Family, Plot, Stage
from onshore.world.scenarios.verdicts import Verdict

__all__ = ["Family", "Plot", "Stage", "Verdict", "families", "family"]


@cache
def families() -> MappingProxyType[str, Family]:
    """Every family by name, in the order of the docs."""
    from onshore.world.scenarios.junctions import JUNCTION_FAMILIES
    from onshore.world.scenarios.streets import STREET_FAMILIES

    return MappingProxyType({found.name: found for found in (*STREET_FAMILIES, *JUNCTION_FAMILIES)})


def family(name: str) -> Family:
    """One family. Errors: NotFoundError."""
    if name not in families():
        raise NotFoundError(f"scenario family {name!r}", f"there are {', '.join(families())}.")
    return families()[name]
