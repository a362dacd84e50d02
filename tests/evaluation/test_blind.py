"""`evaluation blind`: the same worlds with open and with shut eyes; who needs no camera and what has no families is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from onshore import cli
from onshore.flywheel import judging
from onshore.store import Center

BRIGHTEST = "python:world.policies:Brightest"


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)


def test_a_family_is_driven_twice_over_the_same_worlds_and_read_again(center: Center) -> None:
    suites = copy.deepcopy(center.pack.suites)
    suites["suites"]["us-eyes"]["each"] = 2
    center.pack = replace(center.pack, suites=suites)
    found = judging.blind(center, BRIGHTEST, "us-eyes", families=["cut_in", "jaywalker"])
    assert [row["family"] for row in found["families"]] == ["cut_in", "jaywalker"] and found["synthetic"]
    assert all(row["worlds"] == 2 and row["blind"] == 0 for row in found["families"])
    assert found["need_eyes"] == 2 and found["apart"] == 0, "two worlds tell nothing apart"
    assert all("difference" in row and row["eyes"] for row in found["families"])
    before = sorted(one.id for one in center.artifacts())
    assert judging.blind(center, BRIGHTEST, "us-eyes", families=["cut_in", "jaywalker"]) == found
    assert sorted(one.id for one in center.artifacts()) == before


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--model", "stop", "--suite", "us-eyes"), 2),
        (("--model", BRIGHTEST, "--suite", "us-tiny"), 1),
        (("--model", BRIGHTEST, "--suite", "us-eyes", "--family", "bus_lane_by_hour"), 1),
    ],
)
def test_what_cannot_be_told_is_refused(center: Center, words: tuple[str, ...], code: int) -> None:
    center.close()
    assert cli.run(["--center", str(center.root), "evaluation", "blind", *words]) == code
