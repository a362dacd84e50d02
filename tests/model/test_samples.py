"""Which model saw what: the log of the drawn samples against draws made here again, proven in both directions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dataset.centers import center_with, fleet
from onshore.border.seen import read_log, seen
from onshore.clip import cut
from onshore.dataset import Perturb, batches, freeze, load_windows
from onshore.dataset.manifest import show
from onshore.model import Nano, Recipe
from onshore.model.jailed import window_spec
from onshore.model.models import train
from onshore.store import Center
from onshore.store.sorted_tree import holds

QUICK = Recipe(name="quick", trainable=Nano(channels=(8, 8, 16, 16, 16), hidden=32), steps=4, batch=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    center = center_with(tmp_path_factory.mktemp("samples"), fleet(5))
    cut(center)
    return center, freeze(center, "first", held_out=0.4).id


def drawn_clips(center: Center, dataset: str, recipe: Recipe) -> set[str]:
    """The truth, by drawing the same batches again and looking up each moment."""
    windows = load_windows(center, dataset, window_spec(recipe), "train")
    manifest: dict[str, Any] = show(center, dataset)
    found = set()
    for batch in batches(windows, batch=recipe.batch, steps=recipe.steps, seed=recipe.seed, perturb=Perturb()):
        for index in batch.index_B:
            segment, t_ns = windows.segments[windows.segment_M[index]], windows.t_ns[index]
            found |= {
                clip["id"]
                for clip in manifest["clips"]
                if clip["segment"] == segment and clip["start_ns"] <= t_ns <= clip["end_ns"]
            }
    return found


def test_a_model_saw_exactly_the_clips_that_were_drawn(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    truth, clips = drawn_clips(center, dataset, QUICK), show(center, dataset)["clips"]
    assert truth and any(clip["id"] not in truth for clip in clips)
    root = read_log(center, center.artifact(row.id).meta["samples"])["root"]
    for clip in clips:
        answer = seen(center, row.id, clip["id"])
        assert answer.answer == ("yes" if clip["id"] in truth else "no")
        assert all(holds(proof, root) for proof in answer.proofs)


def test_held_out_drives_and_their_cars_were_not_seen(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    vehicles = {drive["id"]: drive["vehicle"] for drive in center.table("drives").rows()}
    held_out = [drive["id"] for drive in show(center, dataset)["drives"] if drive["split"] == "held_out"]
    assert held_out
    for drive in held_out:
        assert seen(center, row.id, drive).answer == seen(center, row.id, vehicles[drive]).answer == "no"


def test_the_log_counts_epochs_and_is_the_same_again(place: tuple[Center, str]) -> None:
    center, dataset = place
    long = dataclasses.replace(QUICK, name="long", steps=40, batch=32)
    one = read_log(center, center.artifact(train(center, dataset, long).id).meta["samples"])
    assert sum(epoch["steps"] for epoch in one["epochs"]) == one["steps"] == 40 and len(one["epochs"]) > 1
    assert [epoch["first_step"] for epoch in one["epochs"]] == sorted(epoch["first_step"] for epoch in one["epochs"])
    assert len({epoch["order"] for epoch in one["epochs"]}) == len(one["epochs"])


def test_what_a_base_saw_its_adaptation_saw(place: tuple[Center, str]) -> None:
    center, dataset = place
    base = train(center, dataset, QUICK)
    adapted = train(center, dataset, dataclasses.replace(QUICK, name="adapted", batch=1, seed=9), base=base.id)
    log = read_log(center, center.artifact(base.id).meta["samples"])
    only_base = next(iter(set(log["ids"]) - set(read_log(center, center.artifact(adapted.id).meta["samples"])["ids"])))
    answer = seen(center, adapted.id, only_base)
    assert answer.answer == "yes" and [proof["present"] for proof in answer.proofs] == [False, True]


def test_a_model_from_elsewhere_is_not_measurable(place: tuple[Center, str], tmp_path: Path) -> None:
    from onshore.core.label import Label

    center, _ = place
    foreign = center.put(b"weights", Label(region="us", kind="inbound_model", retention="model"))
    assert seen(center, foreign.id, "clip-1").answer == "not measurable"
