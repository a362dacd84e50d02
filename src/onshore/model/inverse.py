"""Public video without signals: how a car moved, read from its pictures by a network that own drives taught.

Rule: an estimate comes with an interval from split-conformal calibration on drives that the network never saw, under the
same planted cameras that it was trained with; what is too wide is rejected and becomes no label. A pseudo-label is never
held out, never replaces a signal that was recorded, and its artifact names the network.

Letters: B batch, T frames, M windows. Sources: inverse dynamics for labelling video (Baker et al. 2022, VPT); split-conformal
intervals of normalised residuals (Lei et al. 2018), scores pooled by drive (Dunn et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError
from onshore.core.label import Artifact
from onshore.core.progress import Progress, silent
from onshore.core.recording import Signals
from onshore.dataset import manifest as frozen
from onshore.dataset.footage import (
    OFFSETS_S,
    Cameras,
    Footage,
    MotionWindows,
    Planted,
    footage,
    motion_batch,
    motion_batches,
    motion_windows,
    shifted,
)
from onshore.dataset.manifest import open_split, segment_proxy
from onshore.dataset.proxy import Proxy
from onshore.dataset.pseudo import PseudoLabels
from onshore.dataset.split import HELD_OUT, TRAIN
from onshore.drive import segments
from onshore.jail import Outside
from onshore.model import samples
from onshore.model.jailed import LIMITS, MOST_S
from onshore.model.recipe import Recipe
from onshore.model.trainable import TrainingTensors, from_record, record_of
from onshore.model.trainable import manifest as tensors_of
from onshore.model.training import fit, made_ahead, reproducible
from onshore.model.weights import load, to_bytes
from onshore.residency import derive
from onshore.store import Center

INVERSE = 1  # raise when the same inputs would give other weights, intervals or labels
SPAN_S = OFFSETS_S[-1] - OFFSETS_S[0]
#: Each held-out drive is looked at through so many planted cameras when intervals are calibrated.
CAMERAS_PER_DRIVE = 6
#: With fewer held-out drives an interval is no more than a guess.
LEAST_DRIVES = 5
#: Units of the two outputs and the least scale an interval is built on.
UNITS, LEAST_SCALE = (10.0, 0.3), (0.02, 0.001)
#: A moment whose interval is wider on either side becomes no label; of speeds also a share may be unsure, as scale is (how high
#: the camera hangs): a limit in m/s alone would keep slow traffic and reject fast.
SPEED_LIMIT_MPS, SPEED_SHARE, YAW_LIMIT_RADPS = 2.5, 0.35, 0.12
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class InverseDynamics:
    """Configuration of the network, and after training its intervals (a `Trainable` for `training.fit`).

    planted: the cameras it is trained and calibrated for. level: of its intervals. speed_factor, yaw_factor: half widths
    over the network's own scales; 0 before calibration. turns_planted: calibrate with planted turns too, for own drives that
    hardly turn; the yaw interval is then as good as planted turns resemble real ones.
    """

    name: str = "inverse-dynamics"
    channels: tuple[int, ...] = (16, 24, 32, 48, 64)
    hidden: int = 128
    view: View = View()
    planted: Planted = Planted()
    level: float = 0.9
    speed_factor: float = 0.0
    yaw_factor: float = 0.0
    turns_planted: bool = False
    side_views: tuple[View, ...] = ()
    frame_offsets_s: tuple[float, ...] = tuple(offset + OFFSETS_S[-1] for offset in reversed(OFFSETS_S))

    def __post_init__(self) -> None:
        if self.view.width_px % 32 or self.view.height_px % 32 or self.side_views or not 0 < self.level < 1:
            raise InputError(
                "bad_config", "inverse dynamics", "one view whose sides are multiples of 32, a level within 0..1."
            )

    def build(self) -> nn.Module:
        return InverseNetwork(self)

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        """Laplace likelihood of speed and yaw rate; `path` shows the yaw rate's error (rad/s), `speed` the speed's (m/s)."""
        value_B2, scale_B2 = network(batch.frames_BTCHW, batch.side_B9)
        off_B2 = (value_B2 - batch.path_BK2[:, 0]).abs()
        unit = torch.tensor(UNITS)
        likelihood = off_B2 / scale_B2 + torch.log(scale_B2 / unit)
        return {"loss": likelihood.sum(1).mean(), "path": off_B2[:, 1].mean(), "speed": off_B2[:, 0].mean()}

    def as_record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "channels": list(self.channels),
            "hidden": self.hidden,
            "view": self.view.as_record(),
            "planted": self.planted.as_record(),
            "level": self.level,
            "speed_factor": self.speed_factor,
            "yaw_factor": self.yaw_factor,
            "turns_planted": self.turns_planted,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> InverseDynamics:
        view, planted = View.from_record(record["view"]), Planted.from_record(record["planted"])
        return cls(**{**record, "view": view, "planted": planted, "channels": tuple(record["channels"])})


class InverseNetwork(nn.Module):
    """frames (B, T, 1, H, W) in 0..255, side (B, 9: times of the frames, s) -> value, scale (B, 2: m/s, rad/s)."""

    def __init__(self, config: InverseDynamics) -> None:
        super().__init__()
        inputs, layers = 2 * len(OFFSETS_S) - 1, list[nn.Module]()
        for kernel, outputs in zip((5, 3, 3, 3, 3), config.channels, strict=True):
            convolution = nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        self.cnn = nn.Sequential(*layers)
        cells = (config.view.width_px // 32) * (config.view.height_px // 32)
        self.seen = nn.Linear(config.channels[-1] * cells, config.hidden)
        self.told = nn.Linear(len(OFFSETS_S), config.hidden)
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(config.hidden, config.hidden), nn.ReLU())
        self.out = nn.Linear(config.hidden, 4)

    def forward(self, frames_BTCHW: Tensor, side_B9: Tensor) -> tuple[Tensor, Tensor]:
        grey = frames_BTCHW.flatten(1, 2).float() * (1 / 64) - 2
        image = torch.cat([grey, grey[:, 1:] - grey[:, :-1]], 1).contiguous(memory_format=torch.channels_last)
        times = side_B9[:, : len(OFFSETS_S)]
        # what is read off is a displacement within the window; a rate is that over the window's true length
        per_second = (SPAN_S / (times[:, -1] - times[:, 0]).clamp(min=0.1))[:, None]
        state = self.trunk(self.seen(self.cnn(image).flatten(1)) + self.told(times * 2.5))
        value_B2, spread_B2 = self.out(state).float().chunk(2, 1)
        unit, least = value_B2.new_tensor(UNITS) * per_second, value_B2.new_tensor(LEAST_SCALE)
        return value_B2 * unit, nn.functional.softplus(spread_B2 - 2) * unit + least


@dataclass(frozen=True, kw_only=True)
class InverseRow:
    """A trained and calibrated network. id: its weights. Figures are of the held-out drives under planted cameras:
    mean absolute errors on the very drives that set its factors."""

    id: str
    dataset: str
    level: float
    speed_factor: float
    yaw_factor: float
    speed_error_mps: float
    yaw_error_radps: float
    windows: int
    held_out_drives: int
    held_out_windows: int
    log: list[list[float]]
    seconds: float
    synthetic: bool
    fresh: bool = field(default=True, compare=False)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Motion of one segment at the moments of its frames (M): values and the half widths of their intervals.

    proxy: the artifact that was looked at.
    """

    segment: str
    drive: str
    proxy: str
    t_ns: NDArray[np.int64]
    speed_mps: Floats
    yaw_rate_radps: Floats
    speed_half_mps: Floats
    yaw_half_radps: Floats


@dataclass(frozen=True, kw_only=True)
class PseudoRow:
    """What `pseudo_label` made. ids: artifacts (kind pseudo_labels), one per segment with any label left: give them to
    `dataset.freeze(pseudo_labels=…)`. kept, rejected: moments; seconds: kept time."""

    ids: list[str]
    model: str
    segments: int
    drives: int
    kept: int
    rejected: int
    seconds: float
    synthetic: bool


def inverse_recipe(name: str = "inverse", **settings: Any) -> Recipe:
    """A recipe for `train_inverse`; settings replace `Recipe`'s own (steps, batch, trainable, seed)."""
    plain: dict[str, Any] = {"steps": 2500, "batch": 64, "learning_rate": 2e-3, "ema": 0.995, "perturb": False}
    return Recipe(name=name, **{**plain, "trainable": InverseDynamics(), "speed_drop": 0.0, **settings})


def train_inverse(
    center: Center, dataset_id: str, recipe: Recipe | None = None, *, progress: Progress = silent
) -> InverseRow:
    """Train on a dataset's training drives and calibrate on its held-out ones, in the jail; run once for equal inputs.

    The dataset is frozen for the network's view. Errors: InputError `empty_input` for a split without known motion,
    `not_measurable` with fewer than LEAST_DRIVES held-out drives, RefusedError as `models.train`.
    """
    chosen, dataset_id = recipe or inverse_recipe(), frozen.row_of(center, dataset_id).id

    def run() -> dict[str, Any]:
        return _train(center, dataset_id, chosen, progress)

    inputs = {"inverse": INVERSE, "dataset": dataset_id, "recipe": chosen.as_record()}
    outputs, fresh = center.stage("model.train_inverse", inputs, run)
    return InverseRow(**outputs, fresh=fresh)


def load_inverse(center: Center, model_id: str) -> tuple[InverseDynamics, nn.Module]:
    """A calibrated network of this center, or an imported one. Errors: InputError `unknown_format` for another model."""
    artifact = center.artifact(model_id)
    config = from_record(artifact.meta["trainable"]) if "trainable" in artifact.meta else None
    if not isinstance(config, InverseDynamics) or config.speed_factor <= 0:
        raise InputError("unknown_format", model_id, "this is no calibrated inverse-dynamics network.")
    return config, load(config.build(), center.read(model_id, purpose="train"), model_id)


def estimate(
    center: Center, model_id: str, segment_ids: Sequence[str], *, progress: Progress = silent
) -> list[Estimate]:
    """How the cars of these segments moved, from pictures alone: one estimate per frame that has a whole window.

    Recorded signals are not looked at. Segments without a window are left out.
    """
    config, network = load_inverse(center, model_id)
    found = []
    for done, segment in enumerate(segment_ids):
        progress("reading motion", done, len(segment_ids))
        made = segment_proxy(center, segment, config.view)
        proxy = Proxy.from_bytes(center.read(made.id, purpose="train"), made.id)
        if len(proxy.t_ns) >= len(OFFSETS_S):
            found += _estimated(config, network, proxy, made.id)
    progress("reading motion", len(segment_ids), len(segment_ids))
    return found


def pseudo_label(
    center: Center,
    model_id: str,
    *,
    drives: Sequence[str] | None = None,
    speed_half_mps: float = SPEED_LIMIT_MPS,
    speed_share: float = SPEED_SHARE,
    yaw_half_radps: float = YAW_LIMIT_RADPS,
    progress: Progress = silent,
) -> PseudoRow:
    """Label the public drives of this center that have video and no speed; `dataset.freeze` takes the row's `ids`.

    drives: only these (ids); by default every public drive without a speed. speed_half_mps, speed_share, yaw_half_radps: a
    moment whose interval is wider on either side, for the speed wider than the larger of both, is rejected. Errors: InputError `empty_input` when there is no such drive, `not_allowed`
    for a drive that is not public or has a speed, RefusedError when a rule forbids reading.
    """
    rows = _unsignalled(center, drives)
    kept: list[tuple[Estimate, PseudoLabels]] = []
    rejected = 0
    for one in estimate(center, model_id, [row["id"] for row in rows], progress=progress):
        sure = sure_enough(
            one.speed_mps, one.speed_half_mps, one.yaw_half_radps, limits=(speed_half_mps, speed_share, yaw_half_radps)
        )
        rejected += int((~sure).sum())
        if sure.sum() > 1:
            kept.append((one, _labels(one, sure)))
    limits = {"speed_half_mps": speed_half_mps, "speed_share": speed_share, "yaw_half_radps": yaw_half_radps}
    made = [_keep_labels(center, model_id, one, labels, limits) for one, labels in kept]
    return PseudoRow(
        ids=sorted(artifact.id for artifact in made),
        model=model_id,
        segments=len(made),
        drives=len({one.drive for one, _ in kept}),
        kept=sum(len(labels.signals.t_ns) for _, labels in kept),
        rejected=rejected,
        seconds=round(sum(labels.seconds for _, labels in kept), 3),
        synthetic=any(artifact.label.synthetic for artifact in made),
    )


def sure_enough(
    speed_mps_M: Floats,
    speed_half_mps_M: Floats,
    yaw_half_radps_M: Floats,
    limits: tuple[float, float, float] = (SPEED_LIMIT_MPS, SPEED_SHARE, YAW_LIMIT_RADPS),
) -> NDArray[np.bool_]:
    """Which moments (M) become labels. limits: half widths of the speed in m/s and as its share, and of the yaw rate in rad/s."""
    most = np.maximum(limits[0], limits[1] * speed_mps_M)
    return np.asarray((speed_half_mps_M <= most) & (yaw_half_radps_M <= limits[2]))


def conformal_factor(scores_M: Floats, drive_M: NDArray[Any], level: float) -> float:
    """The `level` quantile of scores pooled so that every drive counts the same, whatever its length."""
    _, inverse, counts = np.unique(drive_M, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[inverse]
    order = np.argsort(scores_M, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(scores_M[order][min(int(np.searchsorted(share, level)), len(order) - 1)])


def predict(network: nn.Module, seen: Footage, windows: MotionWindows, cameras: Cameras) -> tuple[Floats, Floats]:
    """Values and scales (M, 2: speed m/s, yaw rate rad/s) of windows as these cameras show them."""
    values, scales = [np.empty((0, 2))], [np.empty((0, 2))]
    with reproducible(0), torch.no_grad():
        for first in range(0, len(windows), 256):
            chosen = np.arange(first, min(first + 256, len(windows)))
            batch = motion_batch(seen, windows.take(chosen), cameras.take(chosen))
            value, scale = network(torch.from_numpy(batch.frames_BTCHW), torch.from_numpy(batch.side_B9))
            values.append(value.double().numpy())
            scales.append(scale.double().numpy())
    return np.concatenate(values), np.concatenate(scales)


def _train(center: Center, dataset_id: str, recipe: Recipe, progress: Progress) -> dict[str, Any]:
    config = recipe.trainable
    if not isinstance(config, InverseDynamics):
        raise InputError("bad_config", f"recipe {recipe.name}", "its trainable is no InverseDynamics.")
    manifest, read = open_split(center, dataset_id, TRAIN)
    _, read_held = open_split(center, dataset_id, HELD_OUT)
    split_of = {entry["id"]: entry["split"] for entry in manifest["drives"]}
    members = [[e["id"] for e in manifest["proxies"] if split_of[e["drive"]] == s] for s in (TRAIN, HELD_OUT)]

    def serve(name: str) -> bytes:
        return read_held(name) if name in members[1] else read(name)

    asked = {"recipe": recipe.as_record(), "train": members[0], "held_out": members[1]}
    with center.jail("training", LIMITS).open(f"{__name__}:learn", serve=serve) as cell:
        answer: dict[str, Any] = cell.call(asked, MOST_S, progress=progress)
    calibrated = replace(config, speed_factor=answer["factors"][0], yaw_factor=answer["factors"][1])
    facts = {
        "dataset": dataset_id,
        "level": config.level,
        "speed_factor": calibrated.speed_factor,
        "yaw_factor": calibrated.yaw_factor,
        **answer["figures"],
    }
    shown = frozen.show(center, dataset_id)
    log = samples.keep(center, samples.everything(shown, samples.subjects_of(center, shown), recipe.steps), shown)
    parent = center.artifact(shown["artifact"])
    label = derive([parent.label], kind="weights", retention="model")
    meta = {
        **facts,
        "recipe": recipe.as_record(),
        "trainable": record_of(calibrated),
        "manifest": answer["tensors"],
        "samples": log.id,
    }
    made = center.put(answer["weights"], label, name=recipe.name, parents=[parent.id], meta=meta)
    return {"id": made.id, **facts, "seconds": answer["seconds"], "synthetic": label.synthetic}


def learn(asked: dict[str, Any], outside: Outside) -> dict[str, Any]:
    """What runs in the child: train, then calibrate on drives that training did not see."""
    recipe = Recipe.from_record(asked["recipe"])
    config = recipe.trainable
    if not isinstance(config, InverseDynamics):
        raise InputError("bad_config", recipe.name, "its trainable is no InverseDynamics.")

    def seen_of(split: str) -> Footage:
        return footage([Proxy.from_bytes(outside.ask(one), one) for one in asked[split]], config.view)

    held_out = seen_of("held_out")
    if len(held_out.drives) < LEAST_DRIVES:
        advice = f"{len(held_out.drives)} held-out drives; intervals need {LEAST_DRIVES}, good ones some dozens."
        raise InputError("not_measurable", "intervals", advice)
    seen = seen_of("train")
    drawn = motion_batches(seen, config.planted, batch=recipe.batch, steps=recipe.steps, seed=recipe.seed)
    result = fit(recipe, made_ahead(drawn), progress=outside.progress)
    factors, figures = calibrate(result.network, config, held_out, seed=recipe.seed)
    return {
        "weights": to_bytes(result.network),
        "tensors": tensors_of(result.network),
        "factors": factors,
        "figures": {**figures, "windows": len(motion_windows(seen)), "log": result.log},
        "seconds": result.seconds,
    }


def calibrate(
    network: nn.Module, config: InverseDynamics, held_out: Footage, *, seed: int = 0
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Factors of the two intervals, and the errors they came from. Every drive is seen through CAMERAS_PER_DRIVE planted
    cameras, each of which stays for the whole drive as a stranger's does."""
    plain = motion_windows(held_out)
    if not len(plain):
        raise InputError("empty_input", "held-out drives", "no window knows how the car moved.")
    off, scores, drives = [], [], []
    for number in range(CAMERAS_PER_DRIVE):
        random = np.random.default_rng([seed, 1 << 20, number])
        windows = shifted(held_out, plain, config.planted.shift, random)
        # turns are for learning; drives turn by themselves
        planted = config.planted if config.turns_planted else replace(config.planted, turned=0.0)
        cameras = Cameras.drawn(planted, random, len(held_out.drives)).take(windows.drive_M)
        truth = motion_labels(windows, cameras)
        value, scale = predict(network, held_out, windows, cameras)
        off.append(np.abs(value - truth))
        scores.append(off[-1] / scale)
        drives.append(windows.drive_M)
    apart, score, drive = np.concatenate(off), np.concatenate(scores), np.concatenate(drives)
    factors = tuple(conformal_factor(score[:, column], drive, config.level) for column in (0, 1))
    figures = {
        "speed_error_mps": round(float(apart[:, 0].mean()), 4),
        "yaw_error_radps": round(float(apart[:, 1].mean()), 5),
        "held_out_drives": len(held_out.drives),
        "held_out_windows": len(plain),
    }
    return (factors[0], factors[1]), figures


def motion_labels(windows: MotionWindows, cameras: Cameras) -> Floats:
    """(M, 2) speed and yaw rate as these cameras see them."""
    mirror = np.where(cameras.mirrored_B, -1.0, 1.0)
    return np.stack([windows.speed_mps, (windows.yaw_rate_radps + cameras.turn_B) * mirror], -1)


def _estimated(config: InverseDynamics, network: nn.Module, proxy: Proxy, artifact: str) -> list[Estimate]:
    seen = footage([proxy], config.view)
    seen = replace(seen, stretch_N=np.zeros(len(seen.t_ns), np.int64))  # signals play no part: gaps in time alone count
    windows = motion_windows(seen, labelled=False)
    if not len(windows):
        return []
    value, scale = predict(network, seen, windows, Cameras.own(config.view, len(windows)))
    return [
        Estimate(
            segment=proxy.segment,
            drive=proxy.drive,
            proxy=artifact,
            t_ns=seen.t_ns[windows.index_MT[:, windows.index_MT.shape[1] // 2]],
            speed_mps=value[:, 0],
            yaw_rate_radps=value[:, 1],
            speed_half_mps=scale[:, 0] * config.speed_factor,
            yaw_half_radps=scale[:, 1] * config.yaw_factor,
        )
    ]


def against_signals(config: InverseDynamics, network: nn.Module, seen: Footage) -> dict[str, Floats] | None:
    """Estimates beside what the segments' own signals say, where they have them, for measuring: arrays (M, 2: speed m/s,
    yaw rate rad/s) `value`, `truth`, `off` (absolute) and `half` (of the interval); None without a window of known motion."""
    windows = motion_windows(seen)
    if not len(windows):
        return None
    value, scale = predict(network, seen, windows, Cameras.own(config.view, len(windows)))
    truth = np.stack([windows.speed_mps, windows.yaw_rate_radps], -1)
    half = scale * (config.speed_factor, config.yaw_factor)
    return {"value": value, "truth": truth, "off": np.abs(value - truth), "half": half}


def _unsignalled(center: Center, drives: Sequence[str] | None) -> list[dict[str, Any]]:
    rows = segments(center)
    if drives is not None:
        rows = [row for row in rows if row["drive"] in set(drives)]
        wrong = [row["drive"] for row in rows if not row["public"] or "speed_mps" in row["signals"]]
        if wrong:
            advice = "pseudo-labels are for public video without a speed; what was recorded is never replaced."
            raise InputError("not_allowed", min(wrong), advice)
    rows = [row for row in rows if row["public"] and "speed_mps" not in row["signals"]]
    if not rows:
        advice = "no public drive without a speed; `drive add --public` takes such video in."
        raise InputError("empty_input", "public video", advice)
    return rows


def _labels(one: Estimate, sure: NDArray[np.bool_]) -> PseudoLabels:
    signals = Signals.build(
        one.t_ns[sure], speed_mps=np.maximum(one.speed_mps[sure], 0.0), yaw_rate_radps=one.yaw_rate_radps[sure]
    )
    return PseudoLabels(
        segment=one.segment,
        signals=signals,
        speed_half_mps=one.speed_half_mps[sure],
        yaw_half_radps=one.yaw_half_radps[sure],
    )


def _keep_labels(center: Center, model_id: str, one: Estimate, labels: PseudoLabels, facts: dict[str, Any]) -> Artifact:
    """One segment's labels under its drive's key, with the network and the proxy it looked at as parents."""
    parents = [center.artifact(one.proxy), center.artifact(model_id)]
    meta = {"segment": one.segment, "model": model_id, "moments": len(labels.signals.t_ns), **facts}
    return center.put(
        labels.to_bytes(),
        derive([parent.label for parent in parents], kind="pseudo_labels", retention="clip"),
        name=f"pseudo-{one.segment}",
        parents=[parent.id for parent in parents],
        meta=meta,
        key=one.drive,
    )
