"""Other ways to adapt a base than training all of it, and remedies against forgetting what it knew.

Rule: whatever the way, what comes out is weights of the base's own shape, so that export, gates and cars never know. The
training loop is the ordinary one: a way is a Trainable around the network's own, put on before and taken off after.

frozen: the convolutions stay the base's. low_rank: every linear layer learns an added product of two thin matrices (Hu et al.
2021, arXiv 2106.09685), the rest stays. distilled: trained whole, and held to what the base says of the same local
moments (Li and Hoiem 2016, arXiv 1606.09282): no foreign clip is needed. `average`: between the base's weights and the adapted ones
(Wortsman et al. 2022, arXiv 2109.01903).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from onshore.bundle.inputs import View
from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.model.models import ModelRow, load_network, train, trainable_of
from onshore.model.recipe import Recipe
from onshore.model.trainable import Trainable, TrainingTensors, from_record, manifest, record_of
from onshore.model.training import reproducible
from onshore.model.weights import to_bytes
from onshore.residency import derive
from onshore.store import Center

Way = Literal["full", "frozen", "low_rank", "distilled"]
WAYS: tuple[str, ...] = get_args(Way)
ADAPTER = 1  # raise when the same ways would give other weights


@dataclass(frozen=True, kw_only=True)
class Adapting:
    """A Trainable around another: the same views and losses, but `way` decides what of it learns.

    rank: of low_rank's matrices. hold: weight of what distilled owes to the base.
    """

    of: Trainable
    way: Way
    rank: int = 8
    hold: float = 1.0

    def __post_init__(self) -> None:
        if self.way not in WAYS or self.rank < 1 or self.hold < 0:
            raise InputError("bad_config", f"adapting by {self.way!r}", f"use one of {', '.join(WAYS)}; rank >= 1.")

    @property
    def name(self) -> str:
        return f"{self.of.name}-{self.way.replace('_', '-')}"

    @property
    def view(self) -> View:
        return self.of.view

    @property
    def side_views(self) -> tuple[View, ...]:
        return self.of.side_views

    @property
    def frame_offsets_s(self) -> tuple[float, ...]:
        return self.of.frame_offsets_s

    def build(self) -> nn.Module:
        return wrapped(self, self.of.build())

    def loss(self, network: nn.Module, batch: TrainingTensors) -> dict[str, Tensor]:
        losses = self.of.loss(network, batch)
        if self.way == "distilled":
            teacher: Any = network.teacher
            with torch.no_grad():
                said = teacher(batch.frames_BTCHW, batch.side_B9, *batch.side_frames)
            taught = replace(
                batch,
                path_BK2=said[0].float(),
                path_mask_BK=torch.ones_like(batch.path_mask_BK),
                speed_BS=said[1].float(),
                speed_mask_BS=torch.ones_like(batch.speed_mask_BS),
            )
            losses = {**losses, "loss": losses["loss"] + self.hold * self.of.loss(network, taught)["loss"]}
        return losses

    def as_record(self) -> dict[str, Any]:
        return {"of": record_of(self.of), "way": self.way, "rank": self.rank, "hold": self.hold}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Adapting:
        return cls(**{**record, "of": from_record(record["of"])})


class _Wrapped(nn.Module):
    """The learner, and for distilled the base beside it."""

    def __init__(self, learner: nn.Module, teacher: nn.Module | None) -> None:
        super().__init__()
        self.learner, self.teacher = learner, teacher
        self.still: list[nn.Module] = []

    def forward(self, *views: Tensor) -> Any:
        return self.learner(*views)

    def train(self, mode: bool = True) -> _Wrapped:
        """What does not learn keeps its running statistics too."""
        super().train(mode)
        for module in [*self.still, *([self.teacher] if self.teacher is not None else [])]:
            module.eval()
        return self


class LowRank(nn.Module):
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
        layer = copy.deepcopy(self.layer)
        with torch.no_grad():
            layer.weight += self.up @ self.down
        return layer


def wrapped(how: Adapting, network: nn.Module) -> nn.Module:
    """A network ready to learn in one way."""
    teacher = copy.deepcopy(network) if how.way == "distilled" else None
    outer = _Wrapped(network, teacher)
    if teacher is not None:
        teacher.requires_grad_(False)
    if how.way in ("frozen", "low_rank"):
        seeing = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        for module in seeing:
            module.requires_grad_(False)
        outer.still = [m for m in seeing if isinstance(m, nn.BatchNorm2d)]
    if how.way == "low_rank":
        network.requires_grad_(False)
        _replace(network, nn.Linear, lambda layer: LowRank(layer, how.rank))
    return outer


def unwrapped(network: nn.Module) -> nn.Module:
    """The learner in the base's own shape."""
    learner: Any = network.learner
    learner = copy.deepcopy(learner)
    _replace(learner, LowRank, lambda layer: layer.merged())
    return learner  # type: ignore[no-any-return]


def _replace(network: Any, kind: type[nn.Module], make: Any) -> None:
    """Put `make(module)` in the place of every module of a kind."""
    for name, child in list(network.named_children()):
        if isinstance(child, kind):
            setattr(network, name, make(child))
        else:
            _replace(child, kind, make)


def adapt(
    center: Center,
    dataset_id: str,
    recipe: Recipe,
    *,
    base: str,
    start: str | None = None,
    way: Way = "full",
    progress: Progress = silent,
) -> str:
    """Adapt `start` (the base itself, unless said) on a dataset; returns the id of weights of the base's own shape.

    base: what a distilled adaptation is held to. Errors: as `models.train`.
    """
    start = start or base
    if way == "full":
        return train(center, dataset_id, recipe, base=start, progress=progress).id
    how = Adapting(of=recipe.trainable, way=way)
    inputs = {"adapter": ADAPTER, "how": how.as_record(), "start": start, "base": base}
    put_on, _ = center.stage("model.put_on", inputs, lambda: _put_on(center, how, start, base))
    row = train(center, dataset_id, replace(recipe, trainable=how), base=put_on["id"], progress=progress)
    taken_off, _ = center.stage(
        "model.take_off", {"adapter": ADAPTER, "model": row.id}, lambda: _take_off(center, how, row)
    )
    return str(taken_off["id"])


def average(center: Center, base: str, adapted: str, share: float) -> str:
    """Weights between a base (share 0) and its adaptation (share 1). Errors: InputError `bad_config`, `import_refused`."""
    if not 0 <= share <= 1:
        raise InputError("bad_config", f"share {share}", "give a share from 0 (the base) to 1 (the adaptation).")

    def run() -> dict[str, Any]:
        kept, (_, learned) = load_network(center, base)[1], load_network(center, adapted)
        ours, theirs = learned.state_dict(), kept.state_dict()
        between = {
            name: torch.lerp(theirs[name], ours[name], share) if ours[name].is_floating_point() else ours[name]
            for name in ours
        }
        learned.load_state_dict(between)
        return _keep(center, learned, [base, adapted], {"averaged": share})

    return str(center.stage("model.average", {"base": base, "adapted": adapted, "share": share}, run)[0]["id"])


def _put_on(center: Center, how: Adapting, start: str, base: str) -> dict[str, Any]:
    with reproducible(0):
        outer: Any = how.build()
    learner = load_network(center, start)[1]
    target = outer.learner.state_dict()
    renamed = {name.replace(".layer.", "."): name for name in target}
    outer.learner.load_state_dict(
        {**target, **{renamed[name]: tensor for name, tensor in learner.state_dict().items()}}
    )
    if outer.teacher is not None:
        outer.teacher.load_state_dict(load_network(center, base)[1].state_dict())
    parents = sorted({start, base})
    return _keep(center, outer, parents, {"trainable": record_of(how), "way": how.way})


def _take_off(center: Center, how: Adapting, row: ModelRow) -> dict[str, Any]:
    network = unwrapped(load_network(center, row.id)[1])
    return _keep(center, network, [row.id], {"trainable": record_of(how.of), "way": how.way})


def _keep(center: Center, network: nn.Module, parents: list[str], facts: dict[str, Any]) -> dict[str, Any]:
    """Store weights with what export needs to know."""
    found = [center.artifact(parent) for parent in parents]
    meta = {"trainable": record_of(trainable_of(found[-1])), "manifest": manifest(network), **facts}
    label = derive([one.label for one in found], kind="weights", retention="model")
    made = center.put(to_bytes(network), label, name=found[-1].name, parents=parents, meta=meta)
    return {"id": made.id}
