"""What a closed-loop run is asked to do: which town and traffic, who drives, how far and how long; and the fixed suites.

Rule: a job says everything; the same job gives the same rollouts in any process. Held-out towns and traffic seeds come
from the region pack and never serve training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from onshore.bundle.inputs import camera_for
from onshore.core.control import FOR_ESTIMATES, PROMPT, Actuators, Controller
from onshore.core.errors import InputError, NotFoundError, UsageError
from onshore.core.recording import Camera, Rig
from onshore.region import RegionPack
from onshore.world.layout import Layout
from onshore.world.looks import look_named
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
#: Cameras to both sides and a narrow one ahead, for rigs that see around; the wide one stays the first.
SURROUND = tuple(
    replace(WIDE_CAMERA, name=name, focal_px=focal, pose_camera_in_rig=(*place, 0.0, pitch, yaw))
    for name, focal, place, pitch, yaw in (
        ("narrow", 160.0, (1.6, 0.0, 1.4), 0.02, 0.0),
        ("left", 80.0, (1.2, 0.8, 1.1), 0.05, 1.2),
        ("right", 80.0, (1.2, -0.8, 1.1), 0.05, -1.2),
    )
)
PolicyKind = Literal[
    "onnx", "expert", "oracle", "rule", "stop", "constant-speed", "python", "process", "mapped", "scripted"
]
POLICY_KINDS = ("onnx", "expert", "oracle", "rule", "stop", "constant-speed", "python", "process", "mapped", "scripted")


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """Who drives, described so that a child process can build it.

    onnx: `onnx` bytes and their `metadata` (bundle.format.BundleMetadata). python: `entry` is "module:callable" without
    arguments that returns a Policy. scripted: `entry` is called with the world and returns a Driver: privileged. expert: the
    traffic engine keeps the car. oracle: the engine's answer through our controller, a privileged row. rule: the map's lane,
    car following and lights, with perfect perception. blind: its camera is black, so what remains is what it knows unseen.
    """

    kind: PolicyKind
    name: str = ""
    onnx: bytes | None = None
    metadata: Any = None
    entry: str = ""
    speed_mps: float = 7.0
    blind: bool = False

    def __post_init__(self) -> None:
        if self.kind not in POLICY_KINDS:
            raise UsageError(f"policy kind {self.kind!r}", f"choose one of {', '.join(POLICY_KINDS)}.")
        if self.kind == "onnx" and (self.onnx is None or self.metadata is None):
            raise UsageError("policy kind 'onnx'", "give the network's bytes and its bundle metadata.")
        if self.kind == "process" and not self.entry:
            raise UsageError(
                "policy kind 'process'", "give entry='command', a program that speaks the policy protocol."
            )
        if self.kind == "mapped" and (self.onnx is None or not self.entry):
            raise UsageError("policy kind 'mapped'", "give the network's bytes and, as entry, its signature as TOML.")
        if self.kind in ("python", "scripted") and ":" not in self.entry:
            raise UsageError(f"policy kind {self.kind!r}", "give entry='module:callable'.")

    @property
    def controller(self) -> Controller:
        """What turns its plans into actions: estimates are braked for harder than the exact wishes of who knows the town."""
        return FOR_ESTIMATES if self.kind in ("onnx", "mapped", "process") else Controller()

    @property
    def title(self) -> str:
        return self.name or (f"{self.kind}-blind" if self.blind else self.kind)


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """How a driver supervises a candidate, and how well that driver answers. Without it every moment is answered exactly.

    when: "wrong" (takes over where the candidate errs) or "always" (keeps the wheel throughout: the candidate never errs
    because it never drives). delay_s: how long an error lasts before the driver acts. hold_s: how long the driver keeps the wheel.
    late_s: how old the driver's wish is that the samples tell (0: what the driver then did was recorded). path_noise_m: spread
    (sd) of how far beside the lane's centre the samples aim; speed_noise_mps: of how much faster; both drawn anew at each
    takeover. path_error_m, speed_error_mps: how far a plan may lie from the driver's answer within `error_arc_m` and 1 s ahead.
    """

    when: Literal["wrong", "always"] = "wrong"
    delay_s: float = 0.6
    hold_s: float = 3.0
    late_s: float = 0.0
    path_noise_m: float = 0.15
    speed_noise_mps: float = 0.3
    path_error_m: float = 0.7
    speed_error_mps: float = 1.5
    error_arc_m: float = 11.0

    def __post_init__(self) -> None:
        figures = {name: value for name, value in vars(self).items() if name != "when"}
        if self.when not in ("wrong", "always") or min(figures.values()) < 0 or self.hold_s <= 0:
            raise UsageError(
                "supervision", "when is 'wrong' or 'always'; figures are not negative, hold_s is positive."
            )


@dataclass(frozen=True, kw_only=True)
class Start:
    """An ego that starts where a job says: front bumper `at_m` along a lane of the first street of its route."""

    route: tuple[str, ...]
    lane: int
    at_m: float
    speed_mps: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RolloutJob:
    """One world: `egos` cars of one town's traffic are driven by one policy for `route_m` metres of their own routes.

    layout: the town, where it is not the generated one of `town_seed`. clock_h: local time of day at the start. vehicles: how
    many fill the town (None: as the pack says; 0: none). warm_s: how long the town fills before the egos are taken over.
    starts: where egos start instead, one each. script: "module:callable", called with `script_facts` as keywords; it returns
    an `onshore.world.actors.Script` that moves further road users. actuators: how late the egos' cars
    obey (at once, unless said). look: one of
    `onshore.world.looks.LOOKS`. packs: the folder of region packs, where it is not the shipped one.
    cameras: of the egos' rig, where they are not those that the policy looks through. teacher: "module:callable" whose
    plans are the answers of a collecting run, where it is not the traffic engine that is asked.
    supervision: collect only what happens while a driver has the wheel.
    """

    region: str
    suite: str
    town_seed: int
    traffic_seed: int
    policy: PolicySpec
    egos: int = 4
    route_m: float = 250.0
    max_time_s: float = 80.0
    collect: bool = False
    layout: Layout | None = None
    clock_h: float = 8.0
    vehicles: int | None = None
    warm_s: float = 45.0
    starts: tuple[Start, ...] = ()
    script: str = ""
    script_facts: dict[str, Any] = field(default_factory=dict)
    actuators: Actuators = PROMPT
    look: str = "day"
    packs: Path | None = None
    supervision: Supervision | None = None
    cameras: tuple[Camera, ...] = ()
    teacher: str = ""

    def __post_init__(self) -> None:
        if self.egos < 1 or self.route_m <= 0 or self.max_time_s <= 0:
            raise UsageError("rollout job", "egos, route_m and max_time_s must be positive.")
        if self.collect and self.policy.kind == "expert":
            raise UsageError("rollout job", "takeovers are collected where a policy drives, not the expert.")
        if self.supervision is not None and not self.collect:
            raise UsageError("rollout job", "a supervised drive collects; say collect=True.")
        if self.starts and len(self.starts) != self.egos:
            raise UsageError("rollout job", "give one start for each ego.")
        for name in ("script", "teacher"):
            if getattr(self, name) and ":" not in getattr(self, name):
                raise UsageError("rollout job", f"give {name}='module:callable'.")
        look_named(self.look)

    @property
    def scenario(self) -> str:
        return self.layout.name if self.layout is not None else f"town-{self.town_seed:03d}"

    @property
    def foreign(self) -> bool:
        """Does it load code that is none of this project's?"""
        entry = self.policy.entry if self.policy.kind in ("python", "scripted") else ""
        return any(name and not name.startswith("onshore.") for name in (entry, self.script, self.teacher))

    @property
    def rig_cameras(self) -> tuple[Camera, ...]:
        """The cameras of the egos' rig."""
        return self.cameras or cameras_of(self.policy)

    @property
    def town(self) -> int | Layout:
        """What `Towns.get` takes."""
        return self.town_seed if self.layout is None else self.layout

    def as_record(self) -> dict[str, Any]:
        """Everything that the run depends on but the policy, as plain data."""
        plain = {name: value for name, value in vars(self).items() if name not in ("policy", "layout")}
        plain |= {"starts": [asdict(start) for start in self.starts], "actuators": asdict(self.actuators)}
        plain["packs"] = None if self.packs is None else str(self.packs)
        del plain["supervision"]
        if self.supervision is not None:
            plain["supervision"] = asdict(self.supervision)
        plain["cameras"] = [camera.as_record() for camera in self.rig_cameras]
        return {**plain, "layout": None if self.layout is None else self.layout.digest}


def fleet_rig(roads: Roads, *, surround: bool = False) -> Rig:
    """The rig of every simulated car of a region: the wide camera ahead, with `surround` three more."""
    cameras = (WIDE_CAMERA, *SURROUND) if surround else (WIDE_CAMERA,)
    return Rig(cameras=cameras, vehicle=roads.ego_geometry)


def cameras_of(policy: PolicySpec) -> tuple[Camera, ...]:
    """The fleet rig's cameras that a policy looks through: the wide one, and those that fill its side views."""
    if policy.metadata is None:
        return (WIDE_CAMERA,)
    seen = [camera_for(view, (WIDE_CAMERA, *SURROUND)) for view in policy.metadata.views]
    return tuple(dict.fromkeys((WIDE_CAMERA, *seen)))


def suite(pack: RegionPack, name: str, policy: PolicySpec | None = None) -> list[RolloutJob]:
    """The jobs of a fixed suite of held-out worlds, e.g. `us-core`; without a policy, for the expert.

    A suite that counts `scenarios` shares them out among the region's families by their weights; `each` gives every one so many.
    """
    suites = pack.suites.get("suites", {})
    if name not in suites:
        raise NotFoundError(f"suite {name!r}", f"region {pack.region} has {', '.join(sorted(suites)) or 'none'}.")
    chosen = suites[name]
    if "scenarios" in chosen or "each" in chosen:
        from onshore.world.scenarios.sharing import scenario_suite

        return scenario_suite(pack, name, policy or PolicySpec(kind="expert"))
    held_out = {*pack.suites["held_out_towns"], *pack.suites.get("fresh_towns", ())}
    stray = [town for town, _ in chosen["worlds"] if town not in held_out]
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


def training_jobs(
    pack: RegionPack,
    policy: PolicySpec,
    *,
    worlds: int,
    egos: int,
    seed: int,
    supervision: Supervision | None = None,
) -> list[RolloutJob]:
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
            supervision=supervision,
        )
        for index in range(worlds)
    ]
