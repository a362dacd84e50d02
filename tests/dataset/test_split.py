"""The split as a function of names, a seed and what was settled before: nothing leaks, also while the fleet grows."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onshore.core.errors import InputError
from onshore.dataset.split import HELD_OUT, TRAIN, split_drives

FLEET = st.dictionaries(
    st.integers(0, 10**6).map(lambda n: f"drive-{n}"), st.sampled_from(["", "town-1", "town-2", "town-3"]), max_size=25
)


@given(places=FLEET, share=st.floats(0.01, 0.9), seed=st.integers(0, 5))
def test_both_splits_exist_and_no_place_is_cut(places: dict[str, str], share: float, seed: int) -> None:
    splits = split_drives(places, held_out=share, seed=seed)
    assert set(splits) == set(places)
    if len(places) > 1:
        assert set(splits.values()) == {TRAIN, HELD_OUT}
    else:
        assert set(splits.values()) <= {TRAIN}
    known = {place for place in places.values() if place}
    if len({place or drive for drive, place in places.items()}) > 1:
        for place in known:
            assert len({splits[drive] for drive in places if places[drive] == place}) == 1


@given(places=FLEET, more=FLEET, seed=st.integers(0, 5), by=st.sampled_from(["place", "drive"]))
def test_a_drive_keeps_its_split_however_the_fleet_grows(
    places: dict[str, str], more: dict[str, str], seed: int, by: str
) -> None:
    before = split_drives(places, held_out=0.2, seed=seed, by=by)
    after = split_drives({**more, **places}, held_out=0.2, seed=seed, by=by, settled=before)
    assert {drive: after[drive] for drive in places} == before


@given(places=FLEET, more=st.integers(1, 5), seed=st.integers(0, 5))
def test_a_place_settled_beside_others_stays_whole_when_it_is_frozen_alone(
    places: dict[str, str], more: int, seed: int
) -> None:
    before = split_drives(places, held_out=0.34, seed=seed)
    assume(len({place or drive for drive, place in places.items()}) > 1)
    for place in {place for place in places.values() if place}:
        here = {drive: place for drive in places if places[drive] == place} | {f"new-{n}": place for n in range(more)}
        after = split_drives(here, held_out=0.34, seed=seed, settled=before)
        assert len(set(after.values())) == 1


@given(places=FLEET, more=FLEET, share=st.floats(0.05, 0.6))
def test_the_share_is_kept_as_the_fleet_grows(places: dict[str, str], more: dict[str, str], share: float) -> None:
    grown = {**more, **places}
    assume(len(places) > 1)
    before = split_drives(places, held_out=share, seed=0, by="drive")
    after = split_drives(grown, held_out=share, seed=0, by="drive", settled=before)
    held = sum(split == HELD_OUT for split in after.values())
    assert held == max(round(share * len(grown)), 1) or held == sum(split == HELD_OUT for split in before.values())


def test_the_split_is_the_same_every_time_and_moves_with_the_seed() -> None:
    places = {f"drive-{n}": "" for n in range(200)}
    first = split_drives(places, held_out=0.2, seed=0)
    assert first == split_drives(dict(reversed(places.items())), held_out=0.2, seed=0)
    assert first != split_drives(places, held_out=0.2, seed=1)
    assert sum(split == HELD_OUT for split in first.values()) == 40


def test_nothing_is_held_out_when_nothing_is_asked() -> None:
    assert set(split_drives({"a": "", "b": ""}, held_out=0.0, seed=0).values()) == {TRAIN}


@pytest.mark.parametrize("bad", [{"held_out": 1.0}, {"held_out": -0.1}, {"held_out": 0.2, "by": "file"}])
def test_impossible_shares_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match="bad_config"):
        split_drives({"a": ""}, seed=0, **bad)  # type: ignore[arg-type]
