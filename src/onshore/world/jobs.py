"""What a closed-loop run is asked to do: which town and traffic, who drives, how far and how long; and the fixed suites.

Rule: a job says everything; the same job gives the same rollouts in any process. Held-out towns and traffic seeds come
from the region pack and never serve training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from onshore.core.errors import InputError, NotFoundError, UsageError
from onshore.core.recording import Camera, Rig
from onshore.region import RegionPack
from onshore.world.roads import Roads

#: The camera of every simulated car: just the widened default view, so that views turned and moved sideways can be cut
#: from real pixels and the stream itself serves as its proxy.
WIDE_CAMERA = Camera(
    name="wide",
    width_px=192,
    height_px=96,
    focal_px=64.0,
    centre_x_px=96.0,
    centre_y_px=48.0,
    pose_camera_in_rig=(1.6, 0.0, 1.4, 0.0, 0.0, 0.0),
    source="measured",
)
PolicyKind = Literal["onnx", "expert", "oracle", "stop", "constant-speed", "python"]
POLICY_KINDS = ("onnx", "expert", "oracle", "stop", "constant-speed", "python")


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """Who drives, described so that a child process can build it.

    onnx: `onnx` bytes and their `metadata` (bundle.format.BundleMetadata). python: `entry` is "module:callable" without
    arguments that returns a Policy. expert: the traffic engine keeps the car. oracle: the engine's answer through our
    controller, a privileged row.
    """

    kind: PolicyKind
    name: str = ""
    onnx: bytes | None = None
    metadata: Any = None
    entry: str = ""
    speed_mps: float = 7.0

    def __post_init__(self) -> None:
        if self.kind not in POLICY_KINDS:
            raise UsageError(f"policy kind {self.kind!r}", f"choose one of {', '.join(POLICY_KINDS)}.")
        if self.kind == "onnx" and (self.onnx is None or self.metadata is None):
            raise UsageError("policy kind 'onnx'", "give the network's bytes and its bundle metadata.")
        if self.kind == "python" and ":" not in self.entry:
            raise UsageError("policy kind 'python'", "give entry='module:callable'.")

    @property
    def title(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True, kw_only=True)
class RolloutJob:
    """One world: `egos` cars of one town's traffic are driven by one policy for `route_m` metres of their own routes."""

    region: str
    suite: str
    town_seed: int
    traffic_seed: int
    policy: PolicySpec
    egos: int = 4
    route_m: float = 250.0
    max_time_s: float = 80.0
    collect: bool = False

    def __post_init__(self) -> None:
        if self.egos < 1 or self.route_m <= 0 or self.max_time_s <= 0:
            raise UsageError("rollout job", "egos, route_m and max_time_s must be positive.")
        if self.collect and self.policy.kind == "expert":
            raise UsageError("rollout job", "takeovers are collected where a policy drives, not the expert.")

    @property
    def scenario(self) -> str:
        return f"town-{self.town_seed:03d}"

    def with_policy(self, policy: PolicySpec) -> RolloutJob:
        return replace(self, policy=policy)


def fleet_rig(roads: Roads) -> Rig:
    """The rig of every simulated car of a region."""
    return Rig(cameras=(WIDE_CAMERA,), vehicle=roads.ego_geometry)


def suite(pack: RegionPack, name: str, policy: PolicySpec | None = None) -> list[RolloutJob]:
    """The jobs of a fixed suite of held-out worlds, e.g. `us-core`; without a policy, for the expert."""
    suites = pack.suites.get("suites", {})
    if name not in suites:
        raise NotFoundError(f"suite {name!r}", f"region {pack.region} has {', '.join(sorted(suites)) or 'none'}.")
    chosen = suites[name]
    stray = [town for town, _ in chosen["worlds"] if town not in pack.suites["held_out_towns"]]
    if stray:
        raise InputError("bad_config", f"{pack.region}/suites.toml {name}", f"towns {stray} are not held out.")
    return [
        RolloutJob(
            region=pack.region,
            suite=name,
            town_seed=town,
            traffic_seed=traffic,
            policy=policy or PolicySpec(kind="expert"),
            egos=chosen["egos"],
            route_m=chosen["route_m"],
            max_time_s=chosen.get("max_time_s", pack.roads["expert"]["max_time_s"]),
        )
        for town, traffic in chosen["worlds"]
    ]


def training_jobs(pack: RegionPack, policy: PolicySpec, *, worlds: int, egos: int, seed: int) -> list[RolloutJob]:
    """Collecting jobs on training towns with traffic seeds that no suite uses."""
    towns, below = pack.suites["training_towns"], pack.suites["traffic_seeds_from"]
    return [
        RolloutJob(
            region=pack.region,
            suite="training",
            town_seed=towns[(seed * worlds + index) % len(towns)],
            traffic_seed=(seed * worlds + index) % below,
            policy=policy,
            egos=egos,
            max_time_s=pack.roads["expert"]["max_time_s"],
            collect=True,
        )
        for index in range(worlds)
    ]
