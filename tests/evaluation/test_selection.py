"""Choosing clips: equal minutes whatever the way, and each way puts first what it promises."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dataset.centers import center_with, fleet
from evaluation.drives import ARCS, straight_at
from onshore.clip import cut
from onshore.core.errors import UsageError
from onshore.dataset import freeze
from onshore.dataset.manifest import show
from onshore.evaluation.selection import (
    HOWS,
    by_disagreement,
    by_novelty,
    choose,
    covering,
    farthest_first,
    moments_of,
    shuffled,
)
from onshore.model import Nano, Recipe
from onshore.model.models import train
from onshore.store import Center

SECOND = 1_000_000_000


def clip(name: str, start_s: int, end_s: int, segment: str = "s") -> dict[str, object]:
    return {"id": name, "segment": segment, "start_ns": start_s * SECOND, "end_ns": end_s * SECOND}


def test_clips_that_share_moments_count_them_once() -> None:
    order = [clip("a", 0, 30), clip("b", 10, 30), clip("c", 30, 60), clip("d", 0, 30, "other")]
    assert covering(order, 0.5) == ["a"]
    assert covering(order, 0.6) == ["a", "b", "c"]
    assert covering(order, 99) == ["a", "b", "c", "d"]


def test_the_shuffle_depends_on_the_seed_and_not_on_the_order_given() -> None:
    clips = [clip(f"c{n}", n, n + 1) for n in range(20)]
    names = [one["id"] for one in shuffled(clips, 0)]
    assert names == [one["id"] for one in shuffled(clips[::-1], 0)] != [one["id"] for one in shuffled(clips, 1)]


def test_moments_lie_inside_their_clip_and_segment() -> None:
    t_ns = np.array([0, 1, 2, 3, 1]) * SECOND
    rows = moments_of(clip("a", 1, 3), np.array(["s", "s", "s", "s", "other"]), t_ns)
    assert rows.tolist() == [1, 2]


def test_where_the_model_would_have_gone_elsewhere_comes_first() -> None:
    driven = straight_at(10.0, 10.0, 10.0, 10.0)
    sideways = driven.plans.path_NK2.copy()
    sideways[2, :, 1] += 0.3 * ARCS  # leaves the road
    sideways[0, :, 1] += 0.01 * ARCS
    plans = replace(driven.plans, path_NK2=sideways)
    clips = [clip(name, n, n + 1) for n, name in enumerate(("a little", "as driven", "elsewhere", "unknown"))]
    unknown = replace(driven, speed_mask_NS=np.where(np.arange(4)[:, None] == 3, 0, driven.speed_mask_NS))
    order = by_disagreement(clips, [np.array([n]) for n in range(4)], plans, unknown)
    assert [one["id"] for one in order] == ["elsewhere", "a little", "as driven", "unknown"]


def test_the_most_ordinary_clip_comes_first_then_what_is_unlike_all_before_it() -> None:
    driven = straight_at(*[8.0] * 6, 30.0)
    turning = driven.plans.path_NK2.copy()
    turning[5, :, 1] += ARCS**2 / 20
    clips = [clip(f"c{n}", n, n + 1) for n in range(8)]
    rows = [np.array([n]) for n in range(7)] + [np.array([], np.int64)]
    order = [one["id"] for one in by_novelty(clips, rows, replace(driven.plans, path_NK2=turning))]
    assert set(order[1:3]) == {"c5", "c6"} and order[-1] == "c7" and sorted(order) == [f"c{n}" for n in range(8)]


def test_farthest_first_names_every_row_once_and_never_comes_closer() -> None:
    points = np.random.default_rng(0).normal(size=(60, 4))
    order = farthest_first(points)
    gaps = [min(float(((points[at] - points[b]) ** 2).sum()) for b in order[:n]) for n, at in enumerate(order) if n]
    assert sorted(order) == list(range(60)) and all(a >= b - 1e-9 for a, b in itertools.pairwise(gaps))
    assert farthest_first(np.zeros((3, 2))) == [0, 1, 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str, str]:
    center = center_with(tmp_path_factory.mktemp("choosing"), fleet(5))
    cut(center)
    dataset = freeze(center, "pool", held_out=0.4).id
    quick = Recipe(name="quick", trainable=Nano(channels=(8, 8, 16, 16, 16), hidden=32), steps=6, batch=8)
    return center, dataset, train(center, dataset, quick).id


@pytest.mark.parametrize("how", HOWS)
def test_a_center_chooses_the_same_minutes_twice_and_none_that_is_held_out(
    place: tuple[Center, str, str], how: str
) -> None:
    center, dataset, model = place
    inside = {entry["id"]: entry for entry in show(center, dataset)["clips"] if entry["split"] == "train"}
    every = choose(center, dataset, how, 1e6, model=model)
    assert sorted(every) == sorted(inside)
    some = choose(center, dataset, how, 0.2, model=model)
    assert some == choose(center, dataset, how, 0.2, model=model) == every[: len(some)] and len(some) < len(every)
    if how == "triggers":
        ordinary = [inside[one]["trigger"] == "ordinary" for one in every]
        assert ordinary == sorted(ordinary)


def test_a_way_that_nobody_knows_and_one_without_its_model_are_told(place: tuple[Center, str, str]) -> None:
    center, dataset, model = place
    with pytest.raises(UsageError, match="disagreement"):
        choose(center, dataset, "best", 1.0, model=model)
    with pytest.raises(UsageError, match="more than 0 minutes"):
        choose(center, dataset, "random", 0.0)
    with pytest.raises(UsageError, match="give the model"):
        choose(center, dataset, "novelty", 1.0)
