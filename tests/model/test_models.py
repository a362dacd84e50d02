"""A center's models: trained once, to the same bits, from what its datasets hold; exported; adapted; refused when foreign."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dataset.centers import center_with, fleet
from onshore.clip import cut
from onshore.core.errors import InputError, NotFoundError
from onshore.dataset import freeze
from onshore.dataset.manifest import drop, show
from onshore.evaluation import open_loop
from onshore.evaluation.openloop import NOTE
from onshore.model import Nano, Recipe
from onshore.model.models import export_onnx, load_network, policy_spec, train, trainable_of
from onshore.model.weights import to_bytes
from onshore.store import Center

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)
QUICK = Recipe(name="quick", trainable=SMALL, steps=6, batch=8)


def learned(folder: Path) -> tuple[Center, str]:
    center = center_with(folder, fleet(5))
    cut(center)
    return center, freeze(center, "first", held_out=0.4).id


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    return learned(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    """A second center with the same drives."""
    return learned(tmp_path_factory.mktemp("second"))


def test_a_model_is_trained_once_and_says_what_it_is_made_of(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    again = train(center, "first", QUICK)
    assert row.fresh and not again.fresh and row == again
    artifact = center.artifact(row.id)
    assert artifact.label.kind == "weights" and artifact.label.region == "us" and artifact.label.retention == "model"
    assert [center.artifact(parent).label.kind for parent in artifact.parents] == ["dataset"]
    assert artifact.label.sensitivity >= center.artifact(artifact.parents[0]).label.sensitivity
    assert artifact.meta["recipe"] == QUICK.as_record() and row.windows > 0 and row.log[-1][0] == QUICK.steps
    assert trainable_of(artifact) == SMALL


def test_two_centers_train_the_same_bits(place: tuple[Center, str], elsewhere: tuple[Center, str]) -> None:
    (center, dataset), (other, same) = place, elsewhere
    assert same == dataset
    assert train(other, same, QUICK).id == train(center, dataset, QUICK).id


def test_a_training_that_is_stopped_leaves_no_weights(place: tuple[Center, str]) -> None:
    """What it leaves, and that it goes on from there: test_resume.py."""
    center, dataset = place
    recipe = dataclasses.replace(QUICK, steps=52)

    def killed(what: str, done: int, total: int) -> None:
        if what == "training steps":
            raise KeyboardInterrupt

    before = len(center.artifacts(kind="weights"))
    with pytest.raises(KeyboardInterrupt):
        train(center, dataset, recipe, progress=killed)
    assert len(center.artifacts(kind="weights")) == before


def test_an_adaptation_has_its_base_as_parent(place: tuple[Center, str]) -> None:
    center, dataset = place
    base = train(center, dataset, QUICK)
    adapted = train(center, dataset, dataclasses.replace(QUICK, name="adapt", steps=4), base=base.id)
    assert adapted.base == base.id and base.id in center.artifact(adapted.id).parents


def test_a_base_of_another_shape_is_refused(place: tuple[Center, str]) -> None:
    center, dataset = place
    base = train(center, dataset, QUICK)
    with pytest.raises(InputError) as caught:
        train(
            center, dataset, dataclasses.replace(QUICK, trainable=dataclasses.replace(SMALL, hidden=16)), base=base.id
        )
    assert caught.value.code == "import_refused"
    with pytest.raises(InputError, match="not weights"):
        train(center, dataset, QUICK, base=center.artifact(base.id).parents[0])


def test_what_is_not_there_is_named(place: tuple[Center, str]) -> None:
    center, _ = place
    with pytest.raises(NotFoundError, match="nowhere"):
        train(center, "nowhere", QUICK)


def test_the_export_is_made_once_and_is_what_worlds_run(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    first, second = export_onnx(center, row.id), export_onnx(center, row.id)
    assert first == second and first.parents == (row.id,) and first.meta["difference_m"] <= 1e-4
    policy = policy_spec(center, row.id)
    assert policy.onnx == center.read(first.id) and policy.name == row.id
    assert policy.metadata.model_id == row.id and policy.metadata.view == SMALL.view
    _, network = load_network(center, row.id)
    assert to_bytes(network) == center.read(row.id)


def test_open_loop_stands_beside_its_baselines(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    table = open_loop(center, row.id, dataset)
    assert [found["planner"] for found in table.rows] == ["model", "constant velocity", "constant turn", "mean plan"]
    assert table.note == NOTE and all(found["note"] == NOTE for found in table.rows)
    assert table.moments > 0 and table.drives == 2
    speed = table.rows[1]
    assert 0 < speed["fde_m"]["mean"] < 20 and speed["ade_m"]["mean"] < speed["fde_m"]["mean"]
    assert not open_loop(center, row.id, dataset).fresh
    assert not open_loop(center, row.id, "first").fresh
    assert center.artifact(table.id).label.kind == "metrics"


def test_a_name_means_the_newest_version_also_when_it_was_asked_before(place: tuple[Center, str]) -> None:
    center, dataset = place
    model = train(center, dataset, QUICK).id
    before = open_loop(center, model, freeze(center, "growing", held_out=0.4).name)
    clip = show(center, before.dataset)["clips"][0]["id"]
    after = open_loop(center, model, drop(center, "growing", where=f"id = '{clip}'").name)
    assert after.fresh and after.dataset != before.dataset and after.id != before.id
