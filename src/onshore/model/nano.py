"""The smallest network that drives: two front frames and nine side inputs in, a path and speeds out; 0.31 M parameters.

Rule: the path head has one output set per route command, chosen by the command input; without a command their mean
speaks. Letters: B batch, T frames, C colours, H rows, W columns, K arc lengths, S speed times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import SIDE_INPUTS, View
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model.trainable import TrainingTensors

COMMANDS = 3
KERNELS = (5, 3, 3, 3, 3)


@dataclass(frozen=True, kw_only=True)
class Nano:
    """Configuration of the network and the Trainable that trains it (see `trainable.Trainable`).

    channels: of the five stride-2 convolutions. hidden: width of the trunk. view, frame_offsets_s: what it sees.
    """

    name: str = "nano"
    channels: tuple[int, ...] = (16, 32, 48, 64, 96)
    hidden: int = 192
    view: View = View()
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0)
    speed_weight: float = 0.5

    def __post_init__(self) -> None:
        shrunk = 2 ** len(KERNELS)
        if len(self.channels) != len(KERNELS) or min(*self.channels, self.hidden) < 1:
            raise InputError(
                "bad_config", "nano.channels", f"give {len(KERNELS)} positive widths and a positive hidden."
            )
        if self.view.width_px % shrunk or self.view.height_px % shrunk:
            raise InputError("bad_config", "nano.view", f"width and height must be multiples of {shrunk}.")
        if not self.frame_offsets_s or self.frame_offsets_s[-1] != 0.0:
            raise InputError(
                "bad_config", "nano.frame_offsets_s", "offsets run from the oldest to 0.0, the frame of now."
            )

    def build(self) -> nn.Module:
        return NanoNetwork(self)

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        """L1 of the path in units of its distance, plus `speed_weight` x L1 of the speeds (m/s), known values only."""
        path_BK2, speed_BS = network(batch.frames_BTCHW, batch.side_B9)
        reach_K = torch.tensor(PATH_ARCS_M) / 4 + 0.5
        off_BK = (path_BK2.float() - batch.path_BK2).abs().sum(2) / reach_K
        path = (off_BK * batch.path_mask_BK).sum() / batch.path_mask_BK.sum().clamp(min=1)
        off_BS = (speed_BS.float() - batch.speed_BS).abs() * batch.speed_mask_BS
        speed = off_BS.sum() / batch.speed_mask_BS.sum().clamp(min=1)
        return {"loss": path + self.speed_weight * speed, "path": path, "speed": speed}

    def as_record(self) -> dict[str, object]:
        return {
            "name": self.name,
            "channels": list(self.channels),
            "hidden": self.hidden,
            "view": self.view.as_record(),
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
        for name in ("channels", "frame_offsets_s"):
            fields[name] = tuple(fields[name])  # type: ignore[arg-type]
        return cls(**fields)  # type: ignore[arg-type]


class NanoNetwork(nn.Module):
    """frames (B, T, 3, H, W) in 0..255 (any dtype), side (B, 9) -> path (B, K, 2) in metres, speed (B, S) in m/s."""

    def __init__(self, config: Nano) -> None:
        super().__init__()
        self.cnn = _convolutions(3 * len(config.frame_offsets_s), config.channels)
        cells = (config.view.width_px // 32) * (config.view.height_px // 32)
        hidden = config.hidden
        self.seen = nn.Linear(config.channels[-1] * cells, hidden)
        self.told = nn.Sequential(nn.Linear(len(SIDE_INPUTS), 64), nn.ReLU(), nn.Linear(64, hidden))
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.path = nn.Linear(hidden, COMMANDS * len(PATH_ARCS_M) * 2)
        self.speed = nn.Linear(hidden, len(SPEED_TIMES_S))
        self.register_buffer("reach_K1", (torch.tensor(PATH_ARCS_M) / 4)[:, None], persistent=False)

    def forward(self, frames_BTCHW: Tensor, side_B9: Tensor) -> tuple[Tensor, Tensor]:
        image = frames_BTCHW.flatten(1, 2).float() * (1 / 127.5) - 1
        seen = self.seen(self.cnn(image.contiguous(memory_format=torch.channels_last)).flatten(1))
        told = self.told(side_B9)
        state = self.trunk(seen + told + seen * torch.tanh(told))
        command_B3 = side_B9[:, 2:5]
        unknown_B1 = 1 - command_B3.sum(1, keepdim=True)
        weight_B3 = command_B3 + unknown_B1 / COMMANDS
        paths = self.path(state).unflatten(1, (COMMANDS, len(PATH_ARCS_M), 2))
        path_BK2 = (paths.float() * weight_B3[:, :, None, None]).sum(1) * self.reach_K1
        return path_BK2, self.speed(state).float() * 10


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
