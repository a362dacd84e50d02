"""A recorded drive that answers back: real video seen from where the policy has driven, as long as that can be trusted.

Rule: pixels come from the recorded frame taken nearest to the ego's place, moved by the ground's homography (below the
horizon) and the rotation alone (above it). Beyond |lateral| 1 m, |yaw| 10 degrees or 3 s ahead of or behind the recording the
run ends with `left_valid_range` and nothing after it exists to be scored. Other road users stay where the pixels have them
and do not react; where the recording brings their boxes, those are of the moment that the picture shows.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, rotation_camera_in_rig, video_for
from onshore.core.control import Action, Bicycle, EgoState
from onshore.core.errors import InputError, UsageError
from onshore.core.frames import path_at_arcs, to_frame
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import ConstantSpeedPolicy, Observation, Policy, RouteCommand, StopPolicy
from onshore.core.recording import Camera, Recording, Signals
from onshore.core.rollout import ACTOR_COLUMNS, STEP_COLUMNS, Event, Rollout
from onshore.wire import decode
from onshore.world.jobs import PolicySpec
from onshore.world.referee import Box, Referee, Sight
from onshore.world.rivals import MappedOnnx, Program, Signature

LATERAL_M, YAW_RAD, SLIP_S = 1.0, math.radians(10.0), 3.0
STEP_S, STEPS_PER_PLAN, FRAME_GAP_S = 0.1, 2, 0.4
#: A picture further from a moment of the log than this says nothing about where the others are.
NEAR_NS = 150_000_000
Floats = NDArray[np.float64]
Frame = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where the recorded car was: times (s), rear-axle poses (N, 3: x, y, yaw) in local, way (m) and speed (m/s).

    reckoned: the poses come from speed and yaw rate, in a frame of their own.
    """

    t_s: Floats
    poses_N3: Floats
    along_m: Floats
    speed_mps: Floats
    reckoned: bool = False

    @classmethod
    def of(cls, signals: Signals) -> Track:
        """Poses as recorded, else dead reckoning from speed and yaw rate. InputError `not_measurable` without either."""
        t_s = (signals.t_ns - signals.t_ns[0]) / 1e9
        speed = _filled(t_s, signals.speed_mps, "speed_mps")
        reckoned = not (np.isfinite(signals.x_m).all() and np.isfinite(signals.yaw_rad).all() and len(t_s) > 1)
        if not reckoned:
            poses = np.stack([signals.x_m, signals.y_m, np.unwrap(signals.yaw_rad)], -1)
        else:
            rate = _filled(t_s, signals.yaw_rate_radps, "yaw_rate_radps")
            dt = np.diff(t_s, prepend=t_s[0])
            yaw = np.cumsum(rate * dt)
            middle = yaw - rate * dt / 2
            poses = np.stack([np.cumsum(speed * dt * np.cos(middle)), np.cumsum(speed * dt * np.sin(middle)), yaw], -1)
        steps = np.hypot(*np.diff(poses[:, :2], axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        return cls(t_s=t_s, poses_N3=poses, along_m=along, speed_mps=speed, reckoned=reckoned)

    def at(self, t_s: float) -> tuple[Floats, float]:
        """Pose and way at a time."""
        pose = np.array([np.interp(t_s, self.t_s, self.poses_N3[:, column]) for column in range(3)])
        return pose, float(np.interp(t_s, self.t_s, self.along_m))

    def nearest(self, x_m: float, y_m: float, along_m: float) -> float:
        """The way (m) of the track's point nearest to a place, not far from `along_m`."""
        window = np.abs(self.along_m - along_m) <= 15.0
        rows = np.flatnonzero(window)
        apart = np.hypot(self.poses_N3[rows, 0] - x_m, self.poses_N3[rows, 1] - y_m)
        row = int(rows[int(np.argmin(apart))])
        yaw = self.poses_N3[row, 2]
        ahead = (x_m - self.poses_N3[row, 0]) * math.cos(yaw) + (y_m - self.poses_N3[row, 1]) * math.sin(yaw)
        return float(np.clip(self.along_m[row] + ahead, 0.0, self.along_m[-1]))

    def pose_at_way(self, along_m: float) -> tuple[Floats, float]:
        """Pose and time where the track had come this far; of a stop, its end."""
        row = int(np.clip(np.searchsorted(self.along_m, along_m, side="right"), 1, len(self.along_m) - 1))
        low, high = self.along_m[row - 1], self.along_m[row]
        share = 0.0 if high - low < 1e-9 else min(max((along_m - low) / (high - low), 0.0), 1.0)
        pose = self.poses_N3[row - 1] * (1 - share) + self.poses_N3[row] * share
        return pose, float(self.t_s[row - 1] * (1 - share) + self.t_s[row] * share)


def reprojection(camera: Camera, pose_in_recorded: tuple[float, float, float]) -> tuple[Any, Any, NDArray[np.bool_]]:
    """Where each pixel of a camera at another rig pose lies in the recorded frame: map_x, map_y (H, W), and which exist.

    pose_in_recorded: x, y, yaw of the new rig in the recorded rig frame. Ground points by the plane z = 0, everything
    above the horizon as if infinitely far.
    """
    columns, rows = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    left, up = (camera.centre_x_px - columns) / camera.focal_px, (camera.centre_y_px - rows) / camera.focal_px
    mount = np.array(camera.pose_camera_in_rig[:3])
    rotation = rotation_camera_in_rig(*camera.pose_camera_in_rig[3:])
    ray = np.stack([np.ones_like(left), left, up], -1) @ rotation.T
    x, y, yaw = pose_in_recorded
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0.0], [math.sin(yaw), math.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    below = ray[..., 2] < -1e-6
    reach = np.where(below, mount[2] / np.maximum(-ray[..., 2], 1e-6), 1.0)
    ground = (mount + ray * reach[..., None]) @ turn.T + (x, y, 0.0) - mount
    seen = np.where(below[..., None], ground, ray @ turn.T) @ rotation
    depth = np.maximum(seen[..., 0], 1e-3)
    map_x = camera.centre_x_px - camera.focal_px * seen[..., 1] / depth - 0.5
    map_y = camera.centre_y_px - camera.focal_px * seen[..., 2] / depth - 0.5
    inside = (seen[..., 0] > 1e-3) & (map_x >= 0) & (map_x <= camera.width_px - 1)
    return map_x.astype(np.float32), map_y.astype(np.float32), inside & (map_y >= 0) & (map_y <= camera.height_px - 1)


def reprojected(frame: Frame, camera: Camera, pose_in_recorded: tuple[float, float, float]) -> Frame:
    """The frame as seen from another rig pose; pixels that it does not show repeat its border."""
    import cv2

    map_x, map_y, _ = reprojection(camera, pose_in_recorded)
    return np.asarray(cv2.remap(frame, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Others:
    """Other road users as a recording has them: moments (N, ns, the recording's clock), and per row (M,) which moment it is of.

    columns: `core.rollout.ACTOR_COLUMNS`, box centres in the recording's local frame.
    """

    t_ns: NDArray[np.int64]
    row: NDArray[np.int64]
    id: NDArray[np.int64]
    kind: NDArray[np.int64]
    columns: dict[str, Floats]

    def at(self, t_ns: float) -> tuple[Floats, NDArray[np.int32], NDArray[np.int8]]:
        """(M, 6) in the order of ACTOR_COLUMNS, ids and kinds at the nearest moment; nobody further than NEAR_NS from one."""
        index = int(np.argmin(np.abs(self.t_ns - t_ns)))
        low, high = np.searchsorted(self.row, [index, index + 1])
        if abs(float(self.t_ns[index]) - t_ns) > NEAR_NS:
            low = high
        boxes = np.stack([self.columns[name][low:high] for name in ACTOR_COLUMNS], -1)
        return boxes, self.id[low:high].astype(np.int32), self.kind[low:high].astype(np.int8)


@dataclass
class Footage:
    """The recorded frames of one camera, decoded once, by time (s since the first signal)."""

    camera: Camera
    t_s: Floats
    frames: list[Frame]

    @classmethod
    def of(cls, recording: Recording, view: View) -> Footage:
        """The frames of the camera that looks where the view does."""
        camera, video = video_for(view, recording)
        start_ns = int(recording.signals.t_ns[0])
        shown = [((t_ns - start_ns) / 1e9, frame) for t_ns, frame in decode(video)]
        return cls(camera=camera, t_s=np.array([t_s for t_s, _ in shown]), frames=[frame for _, frame in shown])

    def nearest(self, t_s: float) -> int:
        return int(np.argmin(np.abs(self.t_s - t_s)))


@dataclass
class _Replay:
    """One run: the ego drives, the recording is seen from where it is."""

    track: Track
    footages: tuple[Footage, ...]
    bicycle: Bicycle
    start_s: float
    state: EgoState
    along_m: float
    referee: Referee
    blind: bool = False
    others: Others | None = None
    start_ns: int = 0
    actors: list[tuple[Floats, NDArray[np.int32], NDArray[np.int8]]] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seen: Any = field(default_factory=hashlib.sha256)
    _views: OrderedDict[float, list[Frame]] = field(default_factory=OrderedDict)

    @property
    def footage(self) -> Footage:
        """Of the camera ahead, which says how far the pictures reach."""
        return self.footages[0]

    def observe(self, now_s: float) -> Observation:
        """The newest view and the one shown 0.4 s before."""
        self._views[now_s] = [self._view(footage) for footage in self.footages]
        while len(self._views) > 4:
            self._views.popitem(last=False)
        before = min(self._views, key=lambda shown: abs(shown - (now_s - FRAME_GAP_S)))
        for frame in self._views[now_s]:
            self.seen.update(frame.tobytes())
        names = [footage.camera.name for footage in self.footages]
        shown = zip(names, self._views[before], self._views[now_s], strict=True)
        return Observation(
            t_ns=round((self.start_s + now_s) * 1e9),
            frames={name: np.stack([earlier, now]) for name, earlier, now in shown},
            frame_ages_s=dict.fromkeys(names, (round(now_s - before, 3), 0.0)),
            speed_mps=self.state.speed_mps,
            command=RouteCommand.UNKNOWN,
        )

    def _view(self, footage: Footage) -> Frame:
        if self.blind:
            return np.zeros_like(footage.frames[0])
        _, there_s = self.track.pose_at_way(self.along_m)
        index = footage.nearest(there_s)
        pose, _ = self.track.at(float(footage.t_s[index]))
        x, y = to_frame([self.state.x_m, self.state.y_m], *(float(value) for value in pose))
        turned = math.remainder(self.state.yaw_rad - float(pose[2]), 2 * math.pi)
        return reprojected(footage.frames[index], footage.camera, (float(x), float(y), turned))

    def drive(self, action: Action, now_s: float) -> None:
        """0.1 s; ends the run at the end of the recording or of what can be trusted."""
        self.state = self.bicycle.step(self.state, action, STEP_S)
        self.along_m = self.track.nearest(self.state.x_m, self.state.y_m, self.along_m)
        pose, there_s = self.track.pose_at_way(self.along_m)
        _, lateral = to_frame([self.state.x_m, self.state.y_m], *(float(value) for value in pose))
        turned = math.remainder(self.state.yaw_rad - float(pose[2]), 2 * math.pi)
        _, log_m = self.track.at(self.start_s + now_s)
        standing = abs(log_m - self.along_m) < 0.5
        slip_s = 0.0 if standing else self.start_s + now_s - there_s
        self.rows.append(
            {
                "t_s": now_s,
                **{name: getattr(self.state, name) for name in ("x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2")},
                "steering_rad": self.state.steering_rad,
                "action_steering_rad": action.steering_rad,
                "action_accel_mps2": action.accel_mps2,
                "progress_m": self.along_m,
                "lateral_m": float(lateral),
            }
        )
        self._judge(now_s, there_s)
        if self.events:
            return
        if abs(lateral) > LATERAL_M or abs(turned) > YAW_RAD or abs(slip_s) > SLIP_S:
            detail = {"lateral_m": float(lateral), "yaw_deg": math.degrees(turned), "slip_s": slip_s}
            rounded = {name: round(value, 2) for name, value in detail.items()}
            self.events.append(Event(t_s=now_s, kind="left_valid_range", detail=rounded))
        elif there_s >= self.footage.t_s[-1] - STEP_S or self.along_m >= self.track.along_m[-1] - 0.1:
            self.events.append(Event(t_s=now_s, kind="route_complete"))

    def _judge(self, now_s: float, there_s: float) -> None:
        """Contacts with others where the picture has them; an at-fault one ends the run as it does in a town."""
        if self.others is None:
            return
        boxes, ids, kinds = self.others.at(self.start_ns + there_s * 1e9)
        self.actors.append((boxes, ids, kinds))
        geometry, state = self.bicycle.geometry, self.state
        ahead = geometry.axle_to_centre_m
        ego = Box(
            x_m=state.x_m + math.cos(state.yaw_rad) * ahead,
            y_m=state.y_m + math.sin(state.yaw_rad) * ahead,
            yaw_rad=state.yaw_rad,
            half_length_m=geometry.length_m / 2,
            half_width_m=geometry.width_m / 2,
        )
        self.referee.judge(
            Sight(
                t_s=now_s,
                ego=ego,
                speed_mps=state.speed_mps,
                progress_m=0.0,
                off_route_m=0.0,
                on_road=True,
                oncoming=False,
                red_passed=None,
                stop_passed=None,
                light_holds=True,
                neighbours_M5=boxes[:, [0, 1, 2, 4, 5]],
                neighbour_ids=ids,
                neighbour_kinds=kinds,
            )
        )
        if self.referee.ended:
            self.events.append(self.referee.events[-1])


def replay(
    recording: Recording,
    spec: PolicySpec,
    *,
    region: str,
    name: str,
    others: Others | None = None,
    max_time_s: float = 60.0,
) -> Rollout:
    """Drive a recorded segment with a policy, closed loop, until its pictures end or can no longer be trusted.

    others: road users that the recording knows; they follow the log, and without them contacts are not known. Errors: InputError `not_measurable` without speed or yaw rate, `not_found` without a camera; UsageError for a policy
    that needs a town. The oracle follows the recorded car through our controller.
    """
    views: Sequence[View] = spec.metadata.views if spec.metadata else (View(),)
    footages, track = tuple(Footage.of(recording, view) for view in views), Track.of(recording.signals)
    if others is not None and track.reckoned:
        raise InputError(
            "not_measurable", "actors", "their boxes stand in a local frame that this drive's signals lack."
        )
    footage = footages[0]
    start_s = float(max(footage.t_s[0], track.t_s[0]))
    pose, along = track.at(start_s)
    end_s = float(min(footage.t_s[-1], track.t_s[-1]))
    route_m = track.at(end_s)[1] - along
    speed = float(np.interp(start_s, track.t_s, track.speed_mps))
    state = EgoState(x_m=float(pose[0]), y_m=float(pose[1]), yaw_rad=float(pose[2]), speed_mps=speed)
    run = _Replay(
        track,
        footages,
        Bicycle(geometry=recording.rig.vehicle),
        start_s,
        state,
        along,
        Referee(route_m=math.inf, max_time_s=math.inf, step_s=STEP_S),
        blind=spec.blind,
        others=others,
        start_ns=int(recording.signals.t_ns[0]),
    )
    driver = _driver(spec, run)
    controller, step = spec.controller, 0
    most = round(min(max_time_s, end_s - start_s + SLIP_S) / STEP_S)
    try:
        driver.reset(None)
        action = Action(steering_rad=0.0, accel_mps2=0.0)
        while not run.events and step < most:
            if step % STEPS_PER_PLAN == 0:
                plan = driver.act(run.observe(step * STEP_S))
                action = controller.act(plan, run.state.speed_mps, recording.rig.vehicle)
            step += 1
            run.plans.append(plan)
            run.drive(action, round(step * STEP_S, 3))
    except InputError as problem:
        if problem.code != "policy_failed":
            raise
        run.events.append(Event(t_s=step * STEP_S, kind="policy_failed", detail={"why": problem.advice}))
    finally:
        if isinstance(driver, _ProgramPolicy):
            driver.program.close()
    return _rollout(run, recording, spec, region=region, name=name, route_m=route_m, begun_m=along)


class _LogPolicy:
    """The recorded way and speeds as plans."""

    def __init__(self, run: _Replay) -> None:
        self.run = run

    def reset(self, route: object | None) -> None:
        """It has no memory."""

    def act(self, observation: Observation) -> Plan:
        run = self.run
        _, there_s = run.track.pose_at_way(run.along_m)
        ahead = np.array([run.track.pose_at_way(run.along_m + way)[0][:2] for way in np.arange(0.0, 30.0, 0.5)])
        points, _ = path_at_arcs(ahead, PATH_ARCS_M)
        path = to_frame(points, run.state.x_m, run.state.y_m, run.state.yaw_rad)
        now_s = observation.t_ns / 1e9
        speeds = np.interp(now_s + np.array(SPEED_TIMES_S), run.track.t_s, run.track.speed_mps)
        return Plan(path_xy_m=path, speed_mps=np.maximum(speeds + 0.3 * (now_s - there_s), 0.0))


@dataclass
class _ProgramPolicy:
    program: Program

    def reset(self, route: object | None) -> None:
        self.program.reset(0)

    def act(self, observation: Observation) -> Plan:
        return self.program.act(0, observation)


def _driver(spec: PolicySpec, run: _Replay) -> Policy:
    cameras = [footage.camera for footage in run.footages]
    if spec.kind == "onnx":
        from onshore.bundle.runner import OnnxPolicy

        return OnnxPolicy(spec.onnx or b"", spec.metadata, cameras)
    if spec.kind == "mapped":
        return MappedOnnx(spec.onnx or b"", Signature.from_toml(spec.entry), cameras[0].name)
    if spec.kind == "process":
        return _ProgramPolicy(Program(spec.entry, cameras))
    if spec.kind == "python":
        module, _, attribute = spec.entry.partition(":")
        made: Policy = getattr(importlib.import_module(module), attribute)()
        return made
    plain: dict[str, Policy] = {
        "stop": StopPolicy(),
        "constant-speed": ConstantSpeedPolicy(spec.speed_mps),
        "oracle": _LogPolicy(run),
    }
    if spec.kind not in plain:
        raise UsageError(f"policy {spec.kind!r}", "a recorded drive can be driven by a model, a rival, stop or oracle.")
    return plain[spec.kind]


def _rollout(
    run: _Replay, recording: Recording, spec: PolicySpec, *, region: str, name: str, route_m: float, begun_m: float
) -> Rollout:
    count = len(run.rows)
    boxes = np.concatenate([np.zeros((0, len(ACTOR_COLUMNS))), *(seen[0] for seen in run.actors)]).astype(np.float32)
    ids, kinds = (np.concatenate([[], *(seen[part] for seen in run.actors)]) for part in (1, 2))
    steps = {column: np.array([row.get(column, math.nan) for row in run.rows]) for column in STEP_COLUMNS}
    steps["progress_m"] = steps["progress_m"] - begun_m
    if not run.events:
        run.events.append(Event(t_s=count * STEP_S, kind="timeout"))
    return Rollout(
        region=region,
        suite="replay",
        scenario=f"replay-{name}",
        world_seed=0,
        ego=0,
        policy=spec.title,
        route_length_m=max(route_m, 1e-3),
        steps=steps,
        plan_path_NK2=np.array([plan.path_xy_m for plan in run.plans], np.float32).reshape(-1, len(PATH_ARCS_M), 2)[
            :count
        ],
        plan_speed_NT=np.array([plan.speed_mps for plan in run.plans], np.float32).reshape(-1, len(SPEED_TIMES_S))[
            :count
        ],
        actors={column: boxes[:, index].copy() for index, column in enumerate(ACTOR_COLUMNS)},
        actor_row=np.repeat(np.arange(len(run.actors)), [len(seen[1]) for seen in run.actors]).astype(np.int32),
        actor_id=ids.astype(np.int32),
        actor_kind=kinds.astype(np.int8),
        events=(*(event for event in run.referee.events if event not in run.events), *run.events),
        others_known=run.others is not None,
        frame_digest=run.seen.hexdigest(),
        synthetic=recording.synthetic,
    )


def _filled(t_s: Floats, values: Floats, name: str) -> Floats:
    known = np.isfinite(values)
    if not known.any():
        raise InputError("not_measurable", f"signals.{name}", "a replay needs speed, and poses or a yaw rate.")
    return np.asarray(np.interp(t_s, t_s[known], values[known]), np.float64)
