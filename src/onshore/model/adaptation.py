"""Other ways to adapt a base than training all of it, and remedies against forgetting what it knew.

Rule: whatever the way, what comes out is weights of the base's own shape, so that export, gates and cars never know.

Frozen: the convolutions stay the base's. LowRank: every linear layer learns an added product of two thin matrices (Hu et al.
2021, arXiv 2106.09685), the rest stays. Distilled: trained whole, and held to what the weights it began with say of the same
local moments (Li and Hoiem 2016, arXiv 1606.09282): no foreign clip is needed. `average`: between the base's weights and the
adapted ones (Wortsman et al. 2022, arXiv 2109.01903).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onshore.core.errors import InputError
from onshore.model.head import plan_loss
from onshore.model.models import load_network, trainable_of
from onshore.model.trainable import TrainingTensors, manifest, record_of
from onshore.model.weights import to_bytes
from onshore.residency import derive
from onshore.store import Center


class _Way:
    """An `Adaptation` that changes nothing, from which the ways differ."""

    def prepared(self, network: nn.Module) -> nn.Module:
        return network

    def loss(self, network: nn.Module, batch: TrainingTensors, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        return losses

    def finished(self, network: nn.Module) -> nn.Module:
        return network

    def as_record(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Any:
        return cls(**record)


@dataclass(frozen=True)
class Frozen(_Way):
    """What sees stays as it was, its running statistics too; what decides learns."""

    def prepared(self, network: nn.Module) -> nn.Module:
        return _seeing_still(network)


@dataclass(frozen=True, kw_only=True)
class LowRank(_Way):
    """Only added products of rank `rank` learn, one for each linear layer; afterwards they are part of the layers."""

    rank: int = 8

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError("bad_config", f"rank {self.rank}", "a low-rank adaptation has a rank of at least 1.")

    def prepared(self, network: nn.Module) -> nn.Module:
        network = _seeing_still(network).requires_grad_(False)
        _replace(network, nn.Linear, lambda layer: _Thin(layer, self.rank))
        return network

    def finished(self, network: nn.Module) -> nn.Module:
        _replace(network, _Thin, lambda layer: layer.merged())
        return network


@dataclass(frozen=True, kw_only=True)
class Distilled(_Way):
    """All of it learns, and owes `hold` times the plan loss to what the weights it began with say of the same moments."""

    hold: float = 1.0

    def __post_init__(self) -> None:
        if self.hold < 0:
            raise InputError("bad_config", f"hold {self.hold}", "it must not be negative.")

    def prepared(self, network: nn.Module) -> nn.Module:
        return _WithTeacher(network)

    def loss(self, network: nn.Module, batch: TrainingTensors, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        teacher: Any = network.teacher
        with torch.no_grad():
            path, speed = teacher(batch.frames_BTCHW, batch.side_B9, *batch.side_frames)
        said = replace(
            batch,
            path_BK2=path.float(),
            path_mask_BK=torch.ones_like(batch.path_mask_BK),
            speed_BS=speed.float(),
            speed_mask_BS=torch.ones_like(batch.speed_mask_BS),
        )
        return {**losses, "loss": losses["loss"] + self.hold * plan_loss(network, said, 0.5)["loss"]}

    def finished(self, network: nn.Module) -> nn.Module:
        learner: Any = network.learner
        return learner  # type: ignore[no-any-return]


class _WithTeacher(nn.Module):
    """The learner, and beside it what it began as."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner, self.teacher = learner, copy.deepcopy(learner).eval().requires_grad_(False)

    def forward(self, *views: Tensor) -> Any:
        return self.learner(*views)

    def train(self, mode: bool = True) -> _WithTeacher:
        super().train(mode)
        self.teacher.eval()
        return self


class _Thin(nn.Module):
    """A linear layer that stays, and an added product of two thin matrices that learns; it begins at zero."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        rank = min(rank, layer.in_features, layer.out_features)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layer(x) + (x @ self.down.T) @ self.up.T
        return added

    def merged(self) -> nn.Linear:
        """One ordinary layer that does the same."""
        with torch.no_grad():
            self.layer.weight += self.up @ self.down
        return self.layer.requires_grad_(True)


def _seeing_still(network: nn.Module) -> nn.Module:
    """Convolutions and their normalisation do not learn."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return network


def _replace(network: Any, kind: type[nn.Module], make: Any) -> None:
    """Put `make(module)` in the place of every module of a kind."""
    for name, child in list(network.named_children()):
        if isinstance(child, kind):
            setattr(network, name, make(child))
        else:
            _replace(child, kind, make)


def average(center: Center, base: str, adapted: str, share: float) -> str:
    """Weights between a base (share 0) and its adaptation (share 1). Errors: InputError `bad_config`, `import_refused`."""
    if not 0 <= share <= 1:
        raise InputError("bad_config", f"share {share}", "give a share from 0 (the base) to 1 (the adaptation).")

    def run() -> dict[str, Any]:
        (_, kept), (_, learned) = load_network(center, base), load_network(center, adapted)
        ours, theirs = learned.state_dict(), kept.state_dict()
        between = {
            name: torch.lerp(theirs[name], ours[name], share) if ours[name].is_floating_point() else ours[name]
            for name in ours
        }
        learned.load_state_dict(between)
        parents = [center.artifact(one) for one in (base, adapted)]
        meta = {"trainable": record_of(trainable_of(parents[1])), "manifest": manifest(learned), "averaged": share}
        label = derive([one.label for one in parents], kind="weights", retention="model")
        made = center.put(to_bytes(learned), label, name=parents[1].name, parents=[base, adapted], meta=meta)
        return {"id": made.id}

    return str(center.stage("model.average", {"base": base, "adapted": adapted, "share": share}, run)[0]["id"])
