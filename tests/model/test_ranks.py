"""Several processes learn one batch together in the jail: what one does, the same every time, and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from model.test_resume import QUICK, SMALL
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.jail import Jail, Limits
from onshore.model import Recipe
from onshore.model.adaptation import Frozen
from onshore.model.ranks import Ranks
from onshore.model.temporal import Temporal
from onshore.model.training import fit
from onshore.model.weights import parse

PARTS = replace(QUICK, steps=24, accumulate=2)
#: `base` in the small: three blocks, a GRU, the head.
TINY_BASE = Temporal(
    name="base",
    channels=(8, 8, 8),
    feature=8,
    hidden=8,
    view=SMALL.view,
    frame_offsets_s=SMALL.frame_offsets_s,
)
ROOM = Limits(memory_bytes=1 << 40)


def jailed(function: str, asked: Any) -> Any:
    return Jail(limits=ROOM).run(f"model.prisoners_of_training:{function}", asked, timeout_s=800)


def asked(recipe: Recipe, **more: Any) -> dict[str, Any]:
    return {"recipe": recipe.as_record(), **more}


def apart(one: bytes, other: bytes) -> float:
    """The largest difference between two networks' weights."""
    a, b = parse(one), parse(other)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_two_processes_give_what_one_gives_every_time_and_go_on_after_a_kill() -> None:
    two = replace(PARTS, processes=2)
    four = replace(PARTS, accumulate=4)
    one, both, again, resumed, of_four, both_of_four = jailed(
        "all_of",
        [
            asked(PARTS),
            asked(two, every=10),
            asked(two, every=10),
            asked(two, since_first=True),
            asked(four),
            asked(replace(four, processes=2)),
        ],
    )
    assert apart(one["weights"], both["weights"]) <= 1e-6 and both["log"] == one["log"]
    assert both["weights"] == again["weights"] and both["kept"] != []
    assert resumed["weights"] == both["weights"] and resumed["probe"] == both["probe"]
    assert 0 < apart(of_four["weights"], both_of_four["weights"]) <= 2e-3 or of_four == both_of_four


@pytest.mark.slow
def test_base_in_pieces_on_two_processes_gives_what_it_gives_whole() -> None:
    """FSDP: every process keeps half of every tensor."""
    base = replace(PARTS, trainable=TINY_BASE)
    pieces = replace(base, processes=2, shard=True)
    one, halves, resumed = jailed("all_of", [asked(base), asked(pieces, every=10), asked(pieces, since_first=True)])
    assert apart(one["weights"], halves["weights"]) <= 1e-4
    assert resumed["weights"] == halves["weights"] and resumed["log"] == halves["log"]


@pytest.mark.slow
def test_torchrun_starts_the_same_training_inside_the_fence() -> None:
    two = replace(PARTS, processes=2)
    (together,) = jailed("all_of", [asked(two)])
    told = jailed("by_torchrun", {"recipe": json.dumps(two.as_record())})
    assert f"weights {sha256_hex(together['weights'])}" in told, told


def test_a_process_that_dies_ends_the_training_and_hangs_nothing() -> None:
    with pytest.raises(InputError, match=r"limit_exceeded.*ended early|bad_config.*did not meet"):
        jailed("one_dies", None)


def test_what_breaks_in_another_process_is_what_is_raised() -> None:
    with pytest.raises(InputError, match=r"empty_input.*the second's batches.*they end early"):
        jailed("one_breaks", None)


def test_a_batch_in_too_few_parts_is_refused() -> None:
    with pytest.raises(InputError, match="as many parts"):
        replace(QUICK, processes=2)
    with pytest.raises(InputError, match="without one"):
        replace(QUICK, shard=True, adapt=Frozen())
    with pytest.raises(InputError, match="as many parts"):
        fit(QUICK, [], ranks=Ranks(count=2))
    assert [Ranks(rank=rank, count=4).part(8) for rank in (0, 3)] == [slice(0, 2), slice(6, 8)]
