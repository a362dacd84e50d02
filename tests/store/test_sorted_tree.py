"""Membership and non-membership: every proof holds, and none holds for anything else."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.store.sorted_tree import holds, prove, sorted_root

IDS = st.sets(st.text("abcdef-0123456789", min_size=1, max_size=6), max_size=20)


@settings(max_examples=200, deadline=None)
@given(ids=IDS, wanted=st.text("abcdef-0123456789", min_size=1, max_size=6))
def test_every_id_is_proven_in_or_out(ids: set[str], wanted: str) -> None:
    proof = prove(ids, wanted)
    assert proof["present"] == (wanted in ids) and holds(proof, sorted_root(ids))


@settings(max_examples=200, deadline=None)
@given(ids=IDS, wanted=st.text("abcdef", min_size=1, max_size=3))
def test_a_proof_turned_round_does_not_hold(ids: set[str], wanted: str) -> None:
    proof = prove(ids, wanted)
    assert not holds({**proof, "present": not proof["present"]}, proof["root"])
    assert not holds(proof, sorted_root(ids ^ {wanted}))


def test_an_id_cannot_be_proven_absent_between_others() -> None:
    ids = {f"clip-{n:02d}" for n in range(10)}
    root = sorted_root(ids)
    outside = prove(ids, "clip-045")
    assert holds(outside, root)
    liar = copy.deepcopy(outside)
    liar["id"] = "clip-07"  # in the set, but not between these neighbours
    assert not holds(liar, root)
    wide = {
        **outside,
        "id": "clip-05",
        "leaves": [prove(ids, "clip-04")["leaves"][0], prove(ids, "clip-06")["leaves"][0]],
    }
    assert not holds(wide, root), "neighbours must stand side by side"


@pytest.mark.parametrize(
    "broken", [{}, {"id": "a"}, {"id": "a", "present": False, "root": "zz", "size": 1, "leaves": [{}]}]
)
def test_what_is_no_proof_does_not_hold(broken: dict) -> None:
    assert not holds(broken, sorted_root({"b"}))
