"""Ways to adapt: what stays, what learns, and that weights of the base's own shape come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.batches import bright_side
from model.test_models import QUICK, learned
from onshore.core.errors import InputError
from onshore.model import Nano
from onshore.model.adaptation import Adapting, adapt, average, unwrapped
from onshore.model.collection import Fleet, earned
from onshore.model.models import export_onnx, load_network, train, trainable_of
from onshore.model.trainable import from_record, manifest, record_of
from onshore.model.training import fit, reproducible, tensors
from onshore.model.weights import parse, serialise
from onshore.store import Center

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)


def taught(way: Any, steps: int = 30) -> tuple[dict[str, torch.Tensor], Any]:
    """State before, and the network after learning in one way."""
    how = Adapting(of=SMALL, way=way)
    recipe = replace(QUICK, trainable=how, steps=steps, batch=16, learning_rate=3e-3)
    with reproducible(3):
        network: Any = how.build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return before, fit(recipe, bright_side(steps), network=network).network


def moved(before: dict[str, torch.Tensor], network: Any) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_frozen_encoder_does_not_move_and_the_rest_does() -> None:
    changed = moved(*taught("frozen"))
    assert changed and not {name for name in changed if ".cnn." in name}


def test_low_rank_moves_only_its_own_matrices_and_folds_into_ordinary_layers() -> None:
    before, network = taught("low_rank")
    changed = moved(before, network)
    assert changed and all(name.endswith((".up", ".down")) for name in changed)
    folded = unwrapped(network)
    assert manifest(folded) == manifest(SMALL.build())
    batch = tensors(next(bright_side(1)))
    with torch.no_grad():
        for a, b in zip(
            network(batch.frames_BTCHW, batch.side_B9), folded(batch.frames_BTCHW, batch.side_B9), strict=True
        ):
            assert torch.allclose(a, b, atol=1e-4)


def test_distilling_never_moves_the_teacher_and_stays_nearer_to_it() -> None:
    before, held = taught("distilled")
    assert not {name for name in moved(before, held) if name.startswith("teacher.")}
    free = taught("full")[1]
    batch = tensors(next(bright_side(1, seed=5)))
    with torch.no_grad():
        said, near, far = (
            net(batch.frames_BTCHW, batch.side_B9)[1] for net in (held.teacher, held.learner, free.learner)
        )
    assert (near - said).abs().mean() < (far - said).abs().mean()


def test_a_way_is_told_by_its_record() -> None:
    how = Adapting(of=SMALL, way="low_rank", rank=3)
    assert from_record(record_of(how)) == how
    with pytest.raises(InputError, match="bad_config"):
        Adapting(of=SMALL, way="hoping")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str, str]:
    center, dataset = learned(tmp_path_factory.mktemp("adapted"))
    return center, dataset, train(center, dataset, QUICK).id


@pytest.mark.parametrize("way", ["frozen", "low_rank", "distilled"])
def test_what_comes_out_has_the_bases_shape_and_is_made_once(place: tuple[Center, str, str], way: Any) -> None:
    center, dataset, base = place
    adapted = adapt(center, dataset, QUICK, base=base, way=way)
    assert adapt(center, dataset, QUICK, base=base, way=way) == adapted != base
    artifact = center.artifact(adapted)
    assert trainable_of(artifact) == QUICK.trainable and artifact.label.kind == "weights"
    assert export_onnx(center, adapted).meta["difference_m"] <= 1e-4
    lineage = {parent for one in artifact.parents for parent in center.artifact(one).parents}
    assert any(center.artifact(one).label.kind == "dataset" for one in lineage)


def test_averages_lie_between_base_and_adaptation(place: tuple[Center, str, str]) -> None:
    center, dataset, base = place
    adapted = adapt(center, dataset, replace(QUICK, seed=5), base=base)
    ends = [load_network(center, average(center, base, adapted, share))[1].state_dict() for share in (0.0, 0.5, 1.0)]
    theirs, ours = (load_network(center, one)[1].state_dict() for one in (base, adapted))
    assert serialise(ends[0]).startswith(serialise(theirs)[:8]) and parse(serialise(ends[2]))
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
