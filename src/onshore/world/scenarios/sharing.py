"""Suites of scenarios: a pack's weights turned into worlds, and the scripted drivers by name.

Rule: worlds are shared out by weight (largest remainder), every family of the region at least one; seeds count up from the
suite's own first seed and serve nothing else. The same pack gives the same jobs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from onshore.core.errors import InputError
from onshore.region import RegionPack, load_pack, regions
from onshore.world.jobs import PolicySpec, RolloutJob, cameras_of
from onshore.world.roads import Roads
from onshore.world.scenarios import families, family

TEACHER = "onshore.world.scenarios.driving:teacher"


def weights(pack: RegionPack) -> dict[str, float]:
    """Families of the region and how much each counts. InputError where the pack names one that does not exist."""
    found: dict[str, float] = pack.suites.get("families", {})
    for name, weight in found.items():
        if name not in families() or not isinstance(weight, int | float) or weight <= 0:
            raise InputError(
                "bad_config",
                f"{pack.region}/suites.toml families.{name}",
                f"give one of {', '.join(families())} a weight above 0.",
            )
    return {name: float(weight) for name, weight in found.items()}


def shares(pack: RegionPack, worlds: int) -> dict[str, int]:
    """How many of `worlds` each family gets."""
    wanted = weights(pack)
    total = sum(wanted.values())
    exact = {name: worlds * weight / total for name, weight in wanted.items()}
    counts = {name: max(1, int(share)) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: int(exact[name]) - exact[name])[: max(0, worlds - sum(counts.values()))]:
        counts[name] += 1
    return counts


def scenario_suite(pack: RegionPack, name: str, policy: PolicySpec) -> list[RolloutJob]:
    """The jobs of a suite that says how many scenario worlds it has (`scenarios` in all, or `each`) and their first seed."""
    chosen = pack.suites["suites"][name]
    counts = dict.fromkeys(weights(pack), int(chosen["each"])) if "each" in chosen else None
    roads = Roads.from_record(pack.region, pack.roads)
    first = int(chosen["seeds_from"])
    return [
        family(kind).job(roads, first + index, policy, suite=name)
        for kind, count in (counts or shares(pack, int(chosen["scenarios"]))).items()
        for index in range(count)
    ]


def training_jobs(pack: RegionPack, policy: PolicySpec, *, each: int, seed: int) -> list[RolloutJob]:
    """Collecting jobs: `each` worlds of every family of the region, of seeds that no suite uses, taught by the careful driver.

    In every second world the careful driver drives itself, so that a scenario is seen to its end while the policy still
    fails early. Another seed shares no world.
    """
    roads, below = Roads.from_record(pack.region, pack.roads), int(pack.suites["traffic_seeds_from"])
    mentor = replace(scripted("careful"), metadata=policy.metadata)
    return [
        replace(
            family(name).job(roads, (seed * each + index) % below, (policy, mentor)[index % 2], suite="training"),
            collect=True,
            teacher=TEACHER,
            cameras=cameras_of(policy),
        )
        for name in weights(pack)
        for index in range(each)
    ]


def scripted(manner: Literal["careful", "careless"]) -> PolicySpec:
    """The privileged driver who passes a scenario, or the one who fails it."""
    return PolicySpec(kind="scripted", name=manner, entry=f"onshore.world.scenarios.driving:{manner}")


def listing(region: str | None = None) -> list[dict[str, Any]]:
    """One row per family: what happens, what the careless driver does, and its weight in each region (None: not there)."""
    packs = [load_pack(name) for name in ([region] if region else regions())]
    by_region = {pack.region: weights(pack) for pack in packs}
    return [
        {
            "family": found.name,
            "tells": found.tells,
            "careless": found.careless,
            "needs_eyes": found.needs_eyes,
            "eyes": found.eyes,
            **{name: table.get(found.name) for name, table in by_region.items()},
        }
        for found in families().values()
        if any(found.name in table for table in by_region.values())
    ]
