"""Ways to adapt: what stays, what learns, and that weights of the base's own shape come out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.batches import bright_side
from model.test_models import QUICK, learned
from onshore.core.errors import InputError
from onshore.model import Nano, Recipe
from onshore.model.adaptation import Distilled, Frozen, LowRank, average
from onshore.model.collection import Fleet, earned
from onshore.model.models import export_onnx, load_network, train, trainable_of
from onshore.model.trainable import manifest
from onshore.model.training import fit, reproducible, tensors
from onshore.store import Center

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)
WAYS = (Frozen(), LowRank(rank=3), Distilled())


def taught(way: Any, steps: int = 30) -> tuple[Any, Any]:
    """The network before and after learning in one way."""
    with reproducible(3):
        network: Any = SMALL.build()
    before = copy.deepcopy(network).eval()
    recipe = replace(QUICK, trainable=SMALL, steps=steps, batch=16, learning_rate=3e-3, adapt=way)
    return before, fit(recipe, bright_side(steps), network=network).network


def moved(before: Any, after: Any) -> set[str]:
    old = before.state_dict()
    return {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, old[name])}


def test_a_frozen_encoder_does_not_move_and_the_rest_does() -> None:
    changed = moved(*taught(Frozen()))
    assert changed and not {name for name in changed if name.startswith("cnn.")}


def test_low_rank_changes_linear_layers_by_no_more_than_its_rank() -> None:
    before, after = taught(LowRank(rank=3))
    changed = moved(before, after)
    assert changed and all(name.endswith(".weight") and not name.startswith("cnn.") for name in changed)
    for name in changed:
        assert int(torch.linalg.matrix_rank(after.state_dict()[name] - before.state_dict()[name], atol=1e-4)) <= 3


def test_distilling_stays_nearer_to_what_it_began_as() -> None:
    before, held = taught(Distilled(hold=4.0))
    _, free = taught(None)
    batch = tensors(next(bright_side(1, seed=5)))
    with torch.no_grad():
        said, near, far = (net(batch.frames_BTCHW, batch.side_B9)[1] for net in (before, held, free))
    assert (near - said).abs().mean() < (far - said).abs().mean()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_every_way_ends_in_the_bases_shape_and_is_told_by_its_record(way: Any) -> None:
    assert manifest(taught(way, 4)[1]) == manifest(SMALL.build())
    recipe = replace(QUICK, adapt=way)
    assert Recipe.from_record(recipe.as_record()) == recipe


def test_ways_without_meaning_are_refused() -> None:
    for ask in (lambda: LowRank(rank=0), lambda: Distilled(hold=-1.0)):
        with pytest.raises(InputError, match="bad_config"):
            ask()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str, str]:
    center, dataset = learned(tmp_path_factory.mktemp("adapted"))
    return center, dataset, train(center, dataset, QUICK).id


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_what_comes_out_is_exported_like_any_other(place: tuple[Center, str, str], way: Any) -> None:
    center, dataset, base = place
    adapted = train(center, dataset, replace(QUICK, adapt=way), base=base)
    assert adapted.fresh and trainable_of(center.artifact(adapted.id)) == QUICK.trainable
    assert export_onnx(center, adapted.id).meta["difference_m"] <= 1e-4
    assert not train(center, dataset, replace(QUICK, adapt=way), base=base).fresh


@pytest.mark.slow
def test_averages_lie_between_base_and_adaptation(place: tuple[Center, str, str]) -> None:
    center, dataset, base = place
    adapted = train(center, dataset, replace(QUICK, seed=5), base=base).id
    ends = [load_network(center, average(center, base, adapted, share))[1].state_dict() for share in (0.0, 0.5, 1.0)]
    theirs, ours = (load_network(center, one)[1].state_dict() for one in (base, adapted))
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            assert torch.equal(ends[0][name], theirs[name]) and torch.allclose(ends[2][name], tensor)
            assert torch.allclose(ends[1][name], (theirs[name] + tensor) / 2, atol=1e-6)
    with pytest.raises(InputError, match="share"):
        average(center, base, adapted, 1.5)


class Driven:
    """A rollout as far as kilometres go."""

    def __init__(self, metres: float) -> None:
        self.steps = {"progress_m": np.linspace(0, metres, 5)}


def test_samples_are_earned_by_kilometres() -> None:
    rollouts: Any = [[Driven(250), Driven(100)], [Driven(250), Driven(250)]]
    arrays = {"world_N": np.repeat([0, 0, 1, 1], 10), "ego_N": np.repeat([0, 1, 0, 1], 10)}
    counts = [len(earned(arrays, rollouts, km)[0]) for km in (0.1, 0.3, 0.5, 5.0)]
    assert counts == [10, 20, 30, 40]
    assert earned(arrays, rollouts, 0.3)[1] == pytest.approx(0.35)
    assert earned({}, rollouts, 1.0)[0].shape == (0,)


def test_more_cars_drive_more_worlds() -> None:
    sizes = [Fleet(cars=cars, km_per_car=0.25).worlds() for cars in (2, 8, 32)]
    assert sizes == [(1, 2), (1, 8), (4, 8)]
    with pytest.raises(InputError, match="bad_config"):
        Fleet(cars=0, km_per_car=1.0)
