"""A network of your own: two cameras, another architecture than onshore's, nothing of onshore's edited.

It offers what `onshore.model.Trainable` names; `pyproject.toml` declares it, so that a center may load it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import SIDE_INPUTS, View
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model import Recipe
from onshore.model.trainable import TrainingTensors


@dataclass(frozen=True, kw_only=True)
class TwoEyes:
    """Ahead and 70 degrees to the left, one frame each; a patch network of a hundred thousand parameters."""

    name: str = "two-eyes"
    width: int = 96
    view: View = View()
    side_views: tuple[View, ...] = (View(yaw_rad=math.radians(70.0)),)
    frame_offsets_s: tuple[float, ...] = (0.0,)

    def build(self) -> nn.Module:
        return TwoEyesNetwork(self.width)

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        """Mean squared distance of path points (m, scaled by their arc) plus that of the speeds: not onshore's loss."""
        path, speed = network(batch.frames_BTCHW, batch.side_B9, *batch.side_frames)
        scale = torch.tensor(PATH_ARCS_M)[:, None] / 8 + 0.5
        off = ((path - batch.path_BK2) / scale).square().sum(2) * batch.path_mask_BK
        path_loss = off.sum() / batch.path_mask_BK.sum().clamp(min=1)
        speed_off = (speed - batch.speed_BS).abs() * batch.speed_mask_BS
        speed_loss = speed_off.sum() / batch.speed_mask_BS.sum().clamp(min=1)
        return {"loss": path_loss + 0.1 * speed_loss, "path": path_loss, "speed": speed_loss}

    def as_record(self) -> dict[str, Any]:
        views = {"view": self.view.as_record(), "side_views": [view.as_record() for view in self.side_views]}
        return {**asdict(self), **views, "frame_offsets_s": list(self.frame_offsets_s)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> TwoEyes:
        views = tuple(View.from_record(view) for view in record["side_views"])
        offsets = tuple(record["frame_offsets_s"])
        given = {"view": View.from_record(record["view"]), "side_views": views, "frame_offsets_s": offsets}
        return cls(**{**record, **given})


class TwoEyesNetwork(nn.Module):
    """frames (B, 1, 3, H, W), side (B, 9), frames of the left camera -> path (B, K, 2) in metres, speed (B, S) in m/s."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.eyes = nn.ModuleList([self._eye(width), self._eye(width)])
        self.told = nn.Linear(len(SIDE_INPUTS), width)
        self.mix = nn.Sequential(nn.Linear(3 * width, width), nn.GELU())
        self.path = nn.Linear(width, len(PATH_ARCS_M) * 2)
        self.speed = nn.Linear(width, len(SPEED_TIMES_S))

    @staticmethod
    def _eye(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, width // 2, 8, 8), nn.GELU(), nn.Conv2d(width // 2, width, 3, 2, 1), nn.GELU(), nn.Flatten(2)
        )

    def forward(self, frames: Tensor, side: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        seen = [eye(view[:, -1].float() / 255 - 0.5).mean(2) for eye, view in zip(self.eyes, (frames, left))]
        state = self.mix(torch.cat([*seen, self.told(side)], 1))
        path = self.path(state).unflatten(1, (len(PATH_ARCS_M), 2)) * torch.tensor(PATH_ARCS_M)[:, None] / 4
        return path, self.speed(state) * 10


def base(*, seed: int = 0, steps: int = 400) -> Recipe:
    """From fresh weights."""
    return Recipe(name="two-eyes-base", trainable=TwoEyes(), steps=steps, batch=32, bf16=False, seed=seed)


def adapt(*, seed: int = 0, steps: int = 200) -> Recipe:
    """Further, on local clips, at a lower rate."""
    return Recipe(
        name="two-eyes-adapt", trainable=TwoEyes(), steps=steps, batch=32, learning_rate=5e-4, bf16=False, seed=seed
    )
