from __future__ import annotations

import os
from pathlib import Path

import pytest

from onshore.region import RegionPack, load_pack
from onshore.world import PolicySpec, RolloutJob
from onshore.world.pool import default_cache_dir
from onshore.world.roads import Roads


@pytest.fixture(scope="session")
def cache() -> Path:
    """Towns and compiled code, as everything else of this machine uses them: compiling takes a process 16 s."""
    return default_cache_dir()


@pytest.fixture(scope="session", params=["us", "cn"])
def pack(request: pytest.FixtureRequest) -> RegionPack:
    return load_pack(request.param)


@pytest.fixture(scope="session")
def roads(pack: RegionPack) -> Roads:
    return Roads.from_record(pack.region, pack.roads)


def job(kind: str = "constant-speed", **changes: object) -> RolloutJob:
    """A short world of the us town 3."""
    fields = {"region": "us", "suite": "test", "town_seed": 3, "traffic_seed": 1021, "egos": 2, "route_m": 60.0}
    policy = changes.pop("policy", None) or PolicySpec(kind=kind)
    return RolloutJob(**{**fields, "max_time_s": 8.0, "policy": policy, **changes})


def worlds_children() -> list[int]:
    """Process ids of this process's own world children."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                words = (folder / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if int(parent) == os.getpid() and b"onshore.world.child" in words:
                found.append(int(folder.name))
    return sorted(found)
