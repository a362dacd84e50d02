"""Open loop: how far a plan made from the log lies from what was then driven. It is not a driving score.

Rule: the figure never stands alone: constant velocity, constant turn and the mean plan of the training split stand beside it, and so
does the sentence that says what it is not. Moments whose future is not known are counted and left out.

Letters: N moments, K arc lengths, S speed times. Sources of the formulas: ADE and FDE as mean and final L2 distance of
the trajectories' positions (nuPlan's definition, here at 10 Hz over 2 s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onshore.clip.motion import motion
from onshore.core.digest import canonical_json
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.progress import Progress, silent
from onshore.dataset import Windows, WindowSpec, in_order, load_windows
from onshore.dataset.manifest import open_split, row_of, show
from onshore.dataset.proxy import Proxy
from onshore.evaluation.statistics import Interval, interval
from onshore.residency import derive
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.world import PolicySpec

EVALUATOR = 2  # raise when the same windows would be scored otherwise
STRIDE_S = 0.5

NOTE = "not a driving score"
HORIZON_S = 2.0
ARCS_SHOWN_M = (6.0, 14.0, 22.0)
#: a car that moves less than this within the horizon needs no path to know where it will be
STANDING_M = 0.3
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plans:
    """N plans as arrays: path (N, K, 2) in metres, speed (N, S) in m/s."""

    path_NK2: Floats
    speed_NS: Floats


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What was driven: labels with masks (1 = known), speed and yaw rate at the moment (NaN: not known; empty: none
    is), each moment's drive.
    """

    plans: Plans
    path_mask_NK: Floats
    speed_mask_NS: Floats
    speed_now_N: Floats
    drives: tuple[str, ...]
    yaw_rate_now_N: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, kw_only=True)
class OpenLoopRow:
    """One planner's errors in metres with 95 % intervals over drives; path_m: sideways path error at arc lengths."""

    planner: str
    ade_m: Interval
    fde_m: Interval
    path_m: dict[str, float]
    note: str = NOTE

    def as_record(self) -> dict[str, Any]:
        return {
            "planner": self.planner,
            "ade_m": self.ade_m.as_record(),
            "fde_m": self.fde_m.as_record(),
            "path_m": self.path_m,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class OpenLoopTable:
    """All planners on one split. left_out: moments without a known future. id: this record's artifact."""

    id: str
    model: str
    dataset: str
    split: str
    rows: tuple[dict[str, Any], ...]
    moments: int
    left_out: int
    drives: int
    synthetic: bool
    note: str = NOTE
    fresh: bool = field(default=True, compare=False)


def score_plans(planner: str, plans: Plans, driven: Driven) -> OpenLoopRow:
    """Score plans against what was driven, over the moments that `measurable` names."""
    kept = np.flatnonzero(measurable(driven))
    if len(kept) == 0:
        raise InputError("not_measurable", "open loop", f"no moment has a known future of {HORIZON_S} s.")
    drives = [driven.drives[index] for index in kept]
    off_NT = np.stack([plan_distance(plans, driven, int(index)) for index in kept])
    return OpenLoopRow(
        planner=planner,
        ade_m=interval(off_NT.mean(1), drives, draws=2000),
        fde_m=interval(off_NT[:, -1], drives, draws=2000),
        path_m=_path_errors(plans, driven),
    )


def measurable(driven: Driven) -> NDArray[np.bool_]:
    """Moments (N) whose speed, speeds to come and path as far as it was driven within the horizon are all known."""
    speed_known = np.isfinite(driven.speed_now_N) & (driven.speed_mask_NS > 0).all(1)
    reach_m = _travelled_m(driven)
    reached_K = np.array(PATH_ARCS_M) < np.minimum(reach_m, PATH_ARCS_M[-1])[:, None]
    # the path must be known to the first arc at or beyond the reach
    needed = np.concatenate([np.ones((len(reach_m), 1), bool), reached_K[:, :-1]], 1)
    path_known = ((driven.path_mask_NK > 0) | ~needed).all(1) | (reach_m < STANDING_M)
    return np.asarray(speed_known & path_known)


def constant_velocity(driven: Driven) -> Plans:
    """Straight on at the present speed (0 where it is not known)."""
    speed = np.nan_to_num(driven.speed_now_N, nan=0.0)
    path = np.stack([np.array(PATH_ARCS_M), np.zeros(len(PATH_ARCS_M))], -1)
    return Plans(
        path_NK2=np.broadcast_to(path, (len(speed), *path.shape)).copy(),
        speed_NS=np.repeat(speed[:, None], len(SPEED_TIMES_S), 1),
    )


def constant_turn(driven: Driven) -> Plans:
    """On along the circle of the present speed and yaw rate; straight on where either is not known or the car stands."""
    plans, arcs = constant_velocity(driven), np.array(PATH_ARCS_M)
    speed = np.nan_to_num(driven.speed_now_N, nan=0.0)
    known = driven.yaw_rate_now_N if len(driven.yaw_rate_now_N) else np.zeros(len(speed))
    rate = np.nan_to_num(known, nan=0.0)
    bend = np.where(speed > STANDING_M, rate / np.maximum(speed, STANDING_M), 0.0)
    angle_NK = bend[:, None] * arcs
    # sin(a) / a and (1 - cos(a)) / a, which is sin(a/2)^2 / (a/2), without a division by nothing
    ahead, left = np.sinc(angle_NK / np.pi), np.sin(angle_NK / 2) * np.sinc(angle_NK / 2 / np.pi)
    return Plans(path_NK2=np.stack([ahead, left], -1) * arcs[:, None], speed_NS=plans.speed_NS)


def mean_plan(training: Driven, moments: int) -> Plans:
    """The mean of every known label of the training split, the same for all `moments`."""
    path = _masked_mean(training.plans.path_NK2, training.path_mask_NK[..., None])
    speed = _masked_mean(training.plans.speed_NS, training.speed_mask_NS)
    straight = np.stack([np.array(PATH_ARCS_M), np.zeros(len(PATH_ARCS_M))], -1)
    path = np.where(np.isfinite(path), path, straight)
    return Plans(path_NK2=np.repeat(path[None], moments, 0), speed_NS=np.repeat(np.nan_to_num(speed)[None], moments, 0))


def plan_distance(plans: Plans, driven: Driven, index: int) -> Floats:
    """Metres between the trajectories planned and driven from one measurable moment, at 10 Hz over the horizon."""
    now = float(driven.speed_now_N[index])
    truth = Plan(path_xy_m=_continued(driven, index), speed_mps=driven.plans.speed_NS[index]).trajectory(now)
    plan = Plan(path_xy_m=plans.path_NK2[index], speed_mps=plans.speed_NS[index]).trajectory(now)
    return np.asarray(np.hypot(plan.x_m - truth.x_m, plan.y_m - truth.y_m)[1:])


def _continued(driven: Driven, index: int) -> Floats:
    """The driven path, going on straight where the log ended (no moment is scored that far)."""
    path, known = driven.plans.path_NK2[index].copy(), driven.path_mask_NK[index] > 0
    last, heading = np.zeros(2), np.array([1.0, 0.0])
    arc = 0.0
    for k, at in enumerate(PATH_ARCS_M):
        if known[k]:
            step = path[k] - last
            heading = step / max(float(np.hypot(*step)), 1e-9)
        else:
            path[k] = last + heading * (at - arc)
        last, arc = path[k], at
    return np.asarray(path, np.float64)


def _travelled_m(driven: Driven) -> Floats:
    """Metres driven within the horizon, from the speeds (0 where unknown)."""
    times = np.array((0.0, *SPEED_TIMES_S))
    speeds = np.nan_to_num(np.concatenate([driven.speed_now_N[:, None], driven.plans.speed_NS], 1), nan=0.0)
    return np.asarray(((speeds[:, 1:] + speeds[:, :-1]) / 2 * np.diff(times)).sum(1))


def _path_errors(plans: Plans, driven: Driven) -> dict[str, float]:
    off_NK = np.hypot(*np.moveaxis(plans.path_NK2 - driven.plans.path_NK2, -1, 0))
    found = {}
    for arc in ARCS_SHOWN_M:
        k = PATH_ARCS_M.index(arc)
        known = driven.path_mask_NK[:, k] > 0
        if known.any():
            found[f"{arc:g}"] = float(off_NK[known, k].mean())
    return found


def _masked_mean(values: Floats, mask: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((values * mask).sum(0) / mask.sum(0))


def as_table(rows: Sequence[OpenLoopRow]) -> list[dict[str, Any]]:
    return [row.as_record() for row in rows]


def open_loop(
    center: Center, model_id: str, dataset_id: str, split: str = "held_out", *, progress: Progress = silent
) -> OpenLoopTable:
    """The model on a dataset's split, beside constant velocity, constant turn and the mean plan of the training split.

    The exported ONNX drives, as it will in the car. Errors: InputError `empty_input` or `not_measurable` when the split
    holds no moment with a known future.
    """
    dataset_id = row_of(center, dataset_id).id  # a name means another version tomorrow

    def run() -> dict[str, Any]:
        from onshore.model.models import policy_spec

        policy = policy_spec(center, model_id)
        _, driven, plans = _planned(center, policy, dataset_id, split, progress)
        _, training = _windows(center, dataset_id, "train", policy, progress) if split != "train" else (None, driven)
        planners = {
            "model": plans,
            "constant velocity": constant_velocity(driven),
            "constant turn": constant_turn(driven),
            "mean plan": mean_plan(training, len(driven.drives)),
        }
        rows = [score_plans(name, plans, driven) for name, plans in planners.items()]
        scored = int(measurable(driven).sum())
        record = {
            "model": model_id,
            "dataset": dataset_id,
            "split": split,
            "rows": as_table(rows),
            "moments": scored,
            "left_out": len(driven.drives) - scored,
            "drives": len(set(driven.drives)),
            "note": NOTE,
        }
        parents = [center.artifact(model_id), center.artifact(row_of(center, dataset_id).artifact)]
        label = derive([parent.label for parent in parents], kind="metrics")
        made = center.put(canonical_json(record), label, name="open-loop", parents=[parent.id for parent in parents])
        return {"id": made.id, **record, "synthetic": label.synthetic}

    inputs = {"evaluator": EVALUATOR, "model": model_id, "dataset": dataset_id, "split": split}
    outputs, fresh = center.stage("evaluation.open_loop", inputs, run)
    return OpenLoopTable(**{**outputs, "rows": tuple(outputs["rows"])}, fresh=fresh)


def planned(
    center: Center, model_id: str, dataset_id: str, split: str, progress: Progress = silent
) -> tuple[Windows, Driven, Plans]:
    """The moments of a split, what was driven there, and what the model as exported would have planned."""
    from onshore.model.models import policy_spec

    return _planned(center, policy_spec(center, model_id), dataset_id, split, progress)


def _planned(
    center: Center, policy: PolicySpec, dataset_id: str, split: str, progress: Progress
) -> tuple[Windows, Driven, Plans]:
    seen, driven = _windows(center, dataset_id, split, policy, progress)
    return seen, driven, _run_onnx(policy, seen)


def _windows(
    center: Center, dataset_id: str, split: str, policy: PolicySpec, progress: Progress
) -> tuple[Windows, Driven]:
    seen = policy.metadata
    spec = WindowSpec(
        view=seen.view, side_views=seen.side_views, frame_offsets_s=seen.frame_offsets_s, stride_s=STRIDE_S
    )
    windows = load_windows(center, dataset_id, spec, split, progress=progress)
    drive_of = {entry["segment"]: entry["drive"] for entry in show(center, dataset_id)["proxies"]}
    side, labels = windows.labels.side_M9, windows.labels
    driven = Driven(
        plans=Plans(path_NK2=labels.path_MK2.astype(np.float64), speed_NS=labels.speed_MS.astype(np.float64)),
        path_mask_NK=labels.path_mask_MK.astype(np.float64),
        speed_mask_NS=labels.speed_mask_MS.astype(np.float64),
        speed_now_N=np.where(side[:, 1] > 0, side[:, 0].astype(np.float64) * 10, np.nan),
        drives=tuple(drive_of[windows.segments[index]] for index in windows.segment_M),
        yaw_rate_now_N=_yaw_rates(center, dataset_id, split, windows),
    )
    return windows, driven


def _yaw_rates(center: Center, dataset_id: str, split: str, windows: Windows) -> Floats:
    """The last yaw rate known at each moment (rad/s), NaN where the log has none."""
    manifest, read = open_split(center, dataset_id, split)
    proxies = {entry["segment"]: entry["id"] for entry in manifest["proxies"]}
    found = np.full(len(windows), np.nan)
    for number, segment in enumerate(windows.segments):
        mine = np.flatnonzero(windows.segment_M == number)
        if len(mine):
            proxy = Proxy.from_bytes(read(proxies[segment]), proxies[segment])
            moved = motion(proxy.signals, proxy.vehicle)
            held = np.searchsorted(moved.t_ns, windows.t_ns[mine], side="right") - 1
            found[mine] = moved.yaw_rate_radps[held]
    return found


def _run_onnx(policy: PolicySpec, windows: Windows) -> Plans:
    from onshore.bundle.runner import Network

    if policy.onnx is None:
        raise InputError("bad_config", "policy", "open loop wants an exported network.")
    network = Network(policy.onnx, policy.metadata)
    found = [network.run(batch.views, batch.side_B9) for batch in in_order(windows)]
    path, speed = (np.concatenate([part[index] for part in found]).astype(np.float64) for index in (0, 1))
    return Plans(path_NK2=path, speed_NS=speed)
