"""The smallest network that drives: two front frames and nine side inputs in, a path and speeds out; 0.31 M parameters.

Each side view has convolutions of its own; what the views show is summed.

Letters: B batch, T frames, C colours, H rows, W columns, K arc lengths, S speed times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model.head import PlanHead, plan_loss
from onshore.model.trainable import TrainingTensors

KERNELS = (5, 3, 3, 3, 3)


@dataclass(frozen=True, kw_only=True)
class Nano:
    """Configuration of the network and the Trainable that trains it (see `trainable.Trainable`).

    channels: of the five stride-2 convolutions. hidden: width of the trunk. view, side_views, frame_offsets_s: what it sees.
    """

    name: str = "nano"
    channels: tuple[int, ...] = (16, 32, 48, 64, 96)
    hidden: int = 192
    view: View = View()
    side_views: tuple[View, ...] = ()
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0)
    speed_weight: float = 0.5

    def __post_init__(self) -> None:
        shrunk = 2 ** len(KERNELS)
        if len(self.channels) != len(KERNELS) or min(*self.channels, self.hidden) < 1:
            raise InputError(
                "bad_config", "nano.channels", f"give {len(KERNELS)} positive widths and a positive hidden."
            )
        if any(view.width_px % shrunk or view.height_px % shrunk for view in (self.view, *self.side_views)):
            raise InputError("bad_config", "nano.view", f"width and height must be multiples of {shrunk}.")
        if not self.frame_offsets_s or self.frame_offsets_s[-1] != 0.0:
            raise InputError(
                "bad_config", "nano.frame_offsets_s", "offsets run from the oldest to 0.0, the frame of now."
            )

    def build(self) -> nn.Module:
        return NanoNetwork(self)

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        return plan_loss(network, batch, self.speed_weight)

    def as_record(self) -> dict[str, object]:
        beside = {"side_views": [view.as_record() for view in self.side_views]} if self.side_views else {}
        return {
            "name": self.name,
            "channels": list(self.channels),
            "hidden": self.hidden,
            "view": self.view.as_record(),
            **beside,
            "frame_offsets_s": list(self.frame_offsets_s),
            "speed_weight": self.speed_weight,
            "arcs_m": list(PATH_ARCS_M),
            "times_s": list(SPEED_TIMES_S),
        }

    @classmethod
    def from_record(cls, record: dict[str, object]) -> Nano:
        """Read back `as_record`; arcs and times must be those of this version's Plan."""
        fields = dict(record)
        if [*fields.pop("arcs_m", [])] != [*PATH_ARCS_M] or [*fields.pop("times_s", [])] != [*SPEED_TIMES_S]:  # type: ignore[misc]
            raise InputError("bad_config", "nano", "the plan's arc lengths or times differ from this version's.")
        fields["view"] = View.from_record(fields["view"])  # type: ignore[arg-type]
        fields["side_views"] = tuple(View.from_record(view) for view in fields.get("side_views", ()))  # type: ignore[attr-defined]
        for name in ("channels", "frame_offsets_s"):
            fields[name] = tuple(fields[name])  # type: ignore[arg-type]
        return cls(**fields)  # type: ignore[arg-type]


class NanoNetwork(nn.Module):
    """frames (B, T, 3, H, W) in 0..255 (any dtype), side (B, 9), frames of the side views -> path (B, K, 2) in metres, speed (B, S) in m/s."""

    def __init__(self, config: Nano) -> None:
        super().__init__()
        self.cnn, _, self.seen = _eye(config, config.view)
        self.eyes = nn.ModuleList(_eye(config, view) for view in config.side_views)
        self.head = PlanHead(config.hidden)

    def forward(self, frames_BTCHW: Tensor, side_B9: Tensor, *side_frames: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.seen(self.cnn(_image(frames_BTCHW)).flatten(1))
        for eye, frames in zip(self.eyes, side_frames, strict=True):
            seen = seen + eye(_image(frames))
        found: tuple[Tensor, Tensor] = self.head(seen, side_B9)
        return found


def _eye(config: Nano, view: View) -> nn.Sequential:
    """What looks through one view: convolutions, then every cell of the last one."""
    cells = (view.width_px // 32) * (view.height_px // 32)
    convolutions = _convolutions(3 * len(config.frame_offsets_s), config.channels)
    return nn.Sequential(convolutions, nn.Flatten(1), nn.Linear(config.channels[-1] * cells, config.hidden))


def _image(frames_BTCHW: Tensor) -> Tensor:
    image = frames_BTCHW.flatten(1, 2).to(torch.float32, memory_format=torch.channels_last, copy=True)
    return image.mul_(1 / 127.5).sub_(1)


def _convolutions(inputs: int, channels: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for kernel, outputs in zip(KERNELS, channels, strict=True):
        layers += [
            nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        inputs = outputs
    return nn.Sequential(*layers)
