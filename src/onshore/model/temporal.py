"""Networks that look at several frames, through one camera or more, and see each frame once: `small` and `base`.

Every frame of every view passes one encoder; its features are kept, so a car encodes only the newest frame. A GRU reads
the features of the window, oldest first. Sizes are the configuration's: `small` is for throughput and cars, `base`
(50 million parameters and more, several cameras) for one data-centre GPU.
Letters: B batch, T frames, V views, C colours, H rows, W columns, F features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model.head import PlanHead, plan_loss
from onshore.model.trainable import TrainingTensors

STEM_STRIDE, PATCH_PX = 4, 8
SMALL_VIEW = View(width_px=256, height_px=128, focal_px=128.0)


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """Configuration and Trainable of the network. encoder: how a picture becomes cells, and what `channels` are.

    patches: of the patches, then of each layer: one as wide as the last is a `Block` of that size, another one a convolution
    that halves. Few values and many products for each of them, which is what a processor is fast at (docs/model.md).
    pooled, strided: of the stem, then of each residual block, which halves after or before it looks.
    feature: width of what is kept of one moment (all views together). hidden: width of the GRU and the head.
    """

    name: str = "small"
    encoder: Literal["patches", "pooled", "strided"] = "patches"
    channels: tuple[int, ...] = (96, 192, 192, 192, 128)
    feature: int = 256
    hidden: int = 256
    view: View = SMALL_VIEW
    side_views: tuple[View, ...] = ()
    frame_offsets_s: tuple[float, ...] = (1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
    speed_weight: float = 0.5

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or min(*self.channels, self.feature, self.hidden) < 1:
            raise InputError("bad_config", f"{self.name}.channels", "give a stem and at least one block, all positive.")
        if self.encoder not in ("patches", "pooled", "strided"):
            raise InputError("bad_config", f"{self.name}.encoder", "use patches, pooled or strided.")
        patches = self.encoder == "patches"
        halvings = sum(not patches or a != b for a, b in itertools.pairwise(self.channels))
        shrunk = (PATCH_PX if patches else STEM_STRIDE) * 2**halvings
        for view in (self.view, *self.side_views):
            if view.width_px % shrunk or view.height_px % shrunk:
                raise InputError("bad_config", f"{self.name}.view", f"sizes must be multiples of {shrunk} pixels.")
        if len(self.frame_offsets_s) < 2 or self.frame_offsets_s[-1] != 0.0:
            raise InputError("bad_config", f"{self.name}.frame_offsets_s", "give two or more, the last one 0.0.")

    def build(self) -> nn.Module:
        return TemporalNetwork(self)

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        return plan_loss(network, batch, self.speed_weight)

    def as_record(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        views = {"view": self.view.as_record(), "side_views": [view.as_record() for view in self.side_views]}
        lists = {name: list(plain[name]) for name in ("channels", "frame_offsets_s")}
        return {**plain, **lists, **views, "arcs_m": list(PATH_ARCS_M), "times_s": list(SPEED_TIMES_S)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Temporal:
        """Read back `as_record`; arcs and times must be those of this version's Plan."""
        values = {"encoder": "pooled" if record.get("pooled") else "strided", **record}
        values.pop("pooled", None)  # how records of earlier versions chose; those of before there was a choice strode
        if values.pop("arcs_m", None) != [*PATH_ARCS_M] or values.pop("times_s", None) != [*SPEED_TIMES_S]:
            raise InputError("bad_config", "network", "the plan's arc lengths or times differ from this version's.")
        lists = {name: tuple(values[name]) for name in ("channels", "frame_offsets_s")}
        beside = tuple(View.from_record(view) for view in values["side_views"])
        return cls(**{**values, **lists, "view": View.from_record(values["view"]), "side_views": beside})


class TemporalNetwork(nn.Module):
    """frames (B, T, 3, H, W), side (B, 9), frames of the side views -> path (B, K, 2) in metres, speed (B, S) in m/s."""

    def __init__(self, config: Temporal) -> None:
        super().__init__()
        channels = config.channels
        self.encoder = nn.Sequential(_stem(config), *(_layer(config, a, b) for a, b in itertools.pairwise(channels)))
        self.seen = nn.Linear(2 * channels[-1] * (1 + len(config.side_views)), config.feature)
        self.memory = nn.GRU(config.feature, config.hidden, batch_first=True)
        self.head = PlanHead(config.hidden)
        self.width = config.feature

    def forward(self, frames_BTCHW: Tensor, side_B9: Tensor, *side_frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.plan(self.features((frames_BTCHW, *side_frames)), side_B9)

    def features(self, views: tuple[Tensor, ...]) -> Tensor:
        """(B, T, F): what is kept of every moment; mean and maximum over the picture, views side by side."""
        pooled = []
        for cells in self._cells(views):
            pooled += [cells.mean((2, 3)), cells.amax((2, 3))]
        kept: Tensor = self.seen(torch.cat(pooled, 1).float())
        batch, times = views[0].shape[:2]
        return kept.reshape(batch, times, self.width)

    def _cells(self, views: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The encoder's last feature map of every view; views of one size pass it together, which fills a GPU better."""
        if len(views) > 1 and len({view.shape for view in views}) == 1:
            return self._encoded(torch.cat(views)).chunk(len(views))
        return tuple(self._encoded(view) for view in views)

    def _encoded(self, frames_BTCHW: Tensor) -> Tensor:
        image = frames_BTCHW.flatten(0, 1)
        if not isinstance(self.encoder[0], Patches):
            image = image.to(memory_format=torch.channels_last).to(torch.float32, copy=True)
            image.mul_(1 / 127.5).sub_(1)  # in place: new memory for either costs as much as a convolution
        cells: Tensor = self.encoder(image)
        return cells

    def plan(self, features_BTF: Tensor, side_B9: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.memory(features_BTF)
        found: tuple[Tensor, Tensor] = self.head(states[:, -1], side_B9)
        return found

    def streaming(self) -> nn.Module:
        """The same network over the newest frame and the features of the earlier ones."""
        return Streaming(self)


class Streaming(nn.Module):
    """(newest frame (B, 1, 3, H, W), side, newest frames of the side views, memory (B, T - 1, F)) -> path, speed, feature."""

    def __init__(self, network: TemporalNetwork) -> None:
        super().__init__()
        self.network, self.width = network, network.width

    def forward(self, frames_B1CHW: Tensor, side_B9: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        *side_frames, memory_BMF = others
        feature_B1F = self.network.features((frames_B1CHW, *side_frames))
        path, speed = self.network.plan(torch.cat([memory_BMF, feature_B1F], 1), side_B9)
        return path, speed, feature_B1F[:, 0]


def _stem(config: Temporal) -> nn.Module:
    if config.encoder == "patches":
        return Patches(config.channels[0])
    return _normed(3, config.channels[0], 7, STEM_STRIDE)


def _layer(config: Temporal, inputs: int, outputs: int) -> nn.Module:
    if config.encoder == "patches":
        return Block(inputs) if inputs == outputs else _normed(inputs, outputs, 3, 2)
    return Residual(inputs, outputs, config.encoder == "pooled")


class Patches(nn.Module):
    """Values 0..255 (N, 3, H, W) -> (N, outputs, H / 8, W / 8): each square of 8x8 pixels by itself, through one layer.

    Values less 128 go in, of which bfloat16 rounds none; the weights are of values in -1..1 and take over the rest. While
    it learns, squares are laid out as the cells of a 1x1 convolution, which a processor multiplies much faster.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.seen = nn.Conv2d(3, outputs, PATCH_PX, PATCH_PX)

    def forward(self, image_NCHW: Tensor) -> Tensor:
        kind = image_NCHW.device.type
        exact = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        values = image_NCHW.to(exact, memory_format=torch.contiguous_format, copy=True).sub_(128)
        weight = self.seen.weight * (1 / 128)
        if self.training:
            values, weight = _squares(values), weight.flatten(1)[:, :, None, None]
        seen = nn.functional.conv2d(values, weight, self.seen.bias, 1 if self.training else PATCH_PX)
        return seen.relu_()


def _squares(values_NCHW: Tensor) -> Tensor:
    """(N, C, H, W), contiguous, -> (N, C x 8 x 8, H / 8, W / 8), channels last."""
    count, colours, height, width = values_NCHW.shape
    rows, columns = height // PATCH_PX, width // PATCH_PX
    words = values_NCHW if torch.compiler.is_compiling() else values_NCHW.view(torch.complex128)  # 16 bytes move as one
    squares = words.view(count, colours, rows, PATCH_PX, columns, -1).permute(0, 2, 4, 1, 3, 5).contiguous()
    return squares.view(values_NCHW.dtype).view(count, rows, columns, -1).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Two convolutions and what came in, summed (He et al. 2016, basic block); normed once, before the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = _normed(channels, channels, 3, 1)[:2]

    def forward(self, image: Tensor) -> Tensor:
        looked: Tensor = self.second(self.first(image).relu_())
        return looked.add_(image).relu_()


class Residual(nn.Module):
    """Halves the picture: two convolutions beside one of 1x1, summed (He et al. 2016, basic block), before or after that."""

    def __init__(self, inputs: int, outputs: int, pooled: bool) -> None:
        super().__init__()
        stride = 1 if pooled else 2
        self.first = _normed(inputs, outputs, 3, stride)
        self.second = _normed(outputs, outputs, 3, 1)[:2]
        self.beside = _normed(inputs, outputs, 1, stride)[:2]
        self.halve = nn.MaxPool2d(2) if pooled else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        halved: Tensor = self.halve(torch.relu(self.second(self.first(image)) + self.beside(image)))
        return halved


def _normed(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
