"""The whole way: recorded drives, clips, a dataset, trained models; one car erased; the next version goes on without it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dataset.centers import center_with, fleet
from onshore import clip
from onshore.border.erasure import close, erase, holding
from onshore.core.errors import InputError
from onshore.dataset import freeze, load_windows
from onshore.dataset import manifest as frozen
from onshore.flywheel import training
from onshore.model import Nano, Recipe
from onshore.model.jailed import window_spec
from onshore.model.models import train

QUICK = Recipe(name="quick", trainable=Nano(channels=(8, 8, 16, 16, 16), hidden=32), steps=4, batch=1)


@pytest.mark.slow
def test_one_car_is_erased_from_a_center_that_trained_on_it(tmp_path: Path) -> None:
    center = center_with(tmp_path, fleet(4))
    clip.cut(center)
    row = freeze(center, "first", held_out=0.25)
    models = [train(center, row.id, dataclasses.replace(QUICK, seed=seed)).id for seed in (0, 1, 2, 3)]
    vehicles = {drive["id"]: drive["vehicle"] for drive in center.table("drives").rows()}
    manifest = frozen.show(center, row.id)
    truth = {model: _cars_drawn(center, row.id, seed, vehicles) for seed, model in enumerate(models)}
    car = next(v for v in sorted(vehicles.values()) if {v in seen for seen in truth.values()} == {True, False})
    drive = next(drive for drive, vehicle in vehicles.items() if vehicle == car)
    others = {one.id: center.read(one.id) for one in center.artifacts(kind="proxy") if car not in one.label.subjects}

    done = erase(center, car)
    assert {mark["model"]: mark["answer"] for mark in done.models} == {
        model: "yes" if car in seen else "no" for model, seen in truth.items()
    }
    assert holding(center, done) == {} and {one: center.read(one) for one in others} == others
    for model in models:
        shown = training.show(center, model)
        assert shown["contains_deleted"] == ([car] if car in truth[model] else []) and len(shown["erasures"]) == 1

    checked = frozen.verify(center, row.id)
    gone = {entry["id"] for of in ("clips", "proxies") for entry in manifest[of] if entry["drive"] == drive}
    assert checked["ok"] and {entry["artifact"] for entry in checked["erased"]} == gone
    with pytest.raises(InputError) as caught:
        load_windows(center, row.id, window_spec(QUICK))
    assert caught.value.code == "erased"
    following = freeze(center, "first", held_out=0.25)
    assert following.version == 2 and following.drives == 3
    assert frozen.add(center, row.id, where="speed_mean_mps > 1000").drives == 3, (
        "the old one's next version goes on, too"
    )
    assert car not in center.artifact(following.artifact).label.subjects
    assert train(center, following.id, QUICK).fresh and close(center, done.id).state == "closed"


def _cars_drawn(center, dataset: str, seed: int, vehicles: dict[str, str]) -> set[str]:  # type: ignore[no-untyped-def]
    """The truth by drawing the batches of this seed again."""
    from onshore.dataset import Perturb, batches

    windows = load_windows(center, dataset, window_spec(QUICK), "train")
    drives = dict(zip(windows.segments, windows.drives, strict=True))
    drawn = set()
    for batch in batches(windows, batch=QUICK.batch, steps=QUICK.steps, seed=seed, perturb=Perturb()):
        drawn |= {vehicles[drives[windows.segments[windows.segment_M[index]]]] for index in batch.index_B}
    return drawn
