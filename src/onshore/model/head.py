"""From what a network saw to a plan, and what a plan costs: shared by every network of this room.

Rule: the path head has one output set per route command, chosen by the command input; without a command their mean
speaks. Letters: B batch, H hidden, K arc lengths, S speed times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import SIDE_INPUTS
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.model.trainable import TrainingTensors

COMMANDS = 3


class PlanHead(nn.Module):
    """seen (B, H), side (B, 9) -> path (B, K, 2) in metres, speed (B, S) in m/s; the side inputs also gate what was seen."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.Linear(len(SIDE_INPUTS), 64), nn.ReLU(), nn.Linear(64, hidden))
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.path = nn.Linear(hidden, COMMANDS * len(PATH_ARCS_M) * 2)
        self.speed = nn.Linear(hidden, len(SPEED_TIMES_S))
        self.register_buffer("reach_K1", (torch.tensor(PATH_ARCS_M) / 4)[:, None], persistent=False)

    def forward(self, seen_BH: Tensor, side_B9: Tensor) -> tuple[Tensor, Tensor]:
        told = self.told(side_B9)
        state = self.trunk(seen_BH + told + seen_BH * torch.tanh(told))
        command_B3 = side_B9[:, 2:5]
        unknown_B1 = 1 - command_B3.sum(1, keepdim=True)
        weight_B3 = command_B3 + unknown_B1 / COMMANDS
        paths = self.path(state).unflatten(1, (COMMANDS, len(PATH_ARCS_M), 2))
        path_BK2 = (paths.float() * weight_B3[:, :, None, None]).sum(1) * self.reach_K1
        return path_BK2, self.speed(state).float() * 10


def plan_loss(network: nn.Module, batch: TrainingTensors, speed_weight: float) -> dict[str, Tensor]:
    """L1 of the path in units of its distance, plus `speed_weight` x L1 of the speeds (m/s), known values only."""
    path_BK2, speed_BS = network(batch.frames_BTCHW, batch.side_B9, *batch.side_frames)
    reach_K = torch.tensor(PATH_ARCS_M, device=path_BK2.device) / 4 + 0.5
    off_BK = (path_BK2.float() - batch.path_BK2).abs().sum(2) / reach_K
    path = (off_BK * batch.path_mask_BK).sum() / batch.path_mask_BK.sum().clamp(min=1)
    off_BS = (speed_BS.float() - batch.speed_BS).abs() * batch.speed_mask_BS
    speed = off_BS.sum() / batch.speed_mask_BS.sum().clamp(min=1)
    return {"loss": path + speed_weight * speed, "path": path, "speed": speed}
