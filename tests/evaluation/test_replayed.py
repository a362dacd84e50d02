"""Closed loop on recorded video from the command: verdict of validity, road users of the log, and no score beyond either."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.recordings import recording, signals
from onshore import cli, drive
from onshore.core.errors import InputError
from onshore.core.rollout import ACTOR_COLUMNS, ACTOR_KINDS
from onshore.evaluation.closedloop import unpack_rollouts
from onshore.evaluation.driven import Actors, MapContext
from onshore.evaluation.recorded import stored_rollouts
from onshore.evaluation.scores import driving_score, unmeasured
from onshore.store import Center
from onshore.wire import write_mcap

START_YAW = 0.3  # as `dataset.recordings.driven` starts


@pytest.fixture
def center(tmp_path: Path) -> Path:
    """A center with one straight synthetic drive of 4.8 seconds at 8 m/s."""
    write_mcap(recording(vehicle="car-0007", moves=signals(4.8)), tmp_path / "log.mcap")
    made = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    assert not drive.add(made, tmp_path / "log.mcap", workers=1).quarantined
    made.close()
    return tmp_path / "center"


def context(center: Path, *, at_m: float | None, left_m: float = 0.0, late_ns: int = 0) -> Path:
    """A map context with one standing car `at_m` along the drive (None: somebody looked, nobody was there)."""
    opened = Center.open(center)
    t_ns = drive.open_segment(opened, drive.segments(opened)[0]["id"]).signals.t_ns
    opened.close()
    count = 0 if at_m is None else len(t_ns)
    x = (at_m or 0.0) * math.cos(START_YAW) - left_m * math.sin(START_YAW)
    y = (at_m or 0.0) * math.sin(START_YAW) + left_m * math.cos(START_YAW)
    values = dict(zip(ACTOR_COLUMNS, (x, y, START_YAW, 0.0, 4.5, 1.8), strict=True))
    others = Actors(
        row=np.arange(count),
        id=np.full(count, 7),
        kind=np.full(count, ACTOR_KINDS.index("car")),
        columns={name: np.full(count, value) for name, value in values.items()},
    )
    made = MapContext(region="us", start_ns=int(t_ns[0]), t_ns=t_ns + late_ns, columns={}, actors=others)
    path = center.parent / "map.json"
    path.write_bytes(made.to_bytes())
    return path


def answer(capsys: pytest.CaptureFixture[str], center: Path, *words: str, code: int = 0) -> dict[str, Any]:
    found = cli.run(["--center", str(center), "--json", "evaluation", *words])
    text = capsys.readouterr().out
    assert found == code, text
    return json.loads(text)


def run(capsys: pytest.CaptureFixture[str], center: Path, model: str, *words: str) -> dict[str, Any]:
    opened = Center.open(center)
    target = drive.drives(opened)[0]["id"]
    opened.close()
    return answer(capsys, center, "run", "--model", model, "--replay", target, "--no-rows", *words)


def test_the_recorded_way_is_valid_to_the_end_and_has_no_driving_score(
    center: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(capsys, center, "oracle")
    (row,) = document["replay"]
    assert row["verdict"] == "valid to the end of the recording" and row["lateral_max_m"] < 0.1 and row["synthetic"]
    assert row["contacts"].startswith("not measurable") and row["comfortable_pct"] == 100.0
    (result,) = document["replay_results"]
    scored = answer(capsys, center, "rescore", result["id"], "--scorers", "carla20,b2d,epdms,comfort")["results"][0]
    by = {(row["scorer"], row["column"]): row for row in scored["rows"]}
    for name in (("carla20", "driving_score"), ("b2d", "success_rate"), ("epdms", "DAC"), ("epdms", "TLC")):
        assert by[name]["value"] is None and "no map" in by[name]["why"], by[name]
    assert by["epdms", "NC"]["value"] is None and "nobody looked" in by["epdms", "NC"]["why"]
    assert by["comfort", "comfortable_pct"]["value"] == 100.0
    shown = answer(capsys, center, "show")
    assert [one["id"] for one in shown["replays"]] == [result["id"]] and shown["results"] == []


def test_what_leaves_the_valid_range_ends_there_and_is_not_scored_beyond(
    center: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(capsys, center, "stop")
    (row,) = document["replay"]
    assert row["ended"] == "left_valid_range" and "nothing is scored" in row["verdict"] and row["valid_s"] < 4.0
    opened = Center.open(center)
    (rollout,) = unpack_rollouts(opened.read(row["rollouts"]))
    assert len(rollout.steps["t_s"]) == round(row["valid_s"] * 10)
    assert unmeasured(rollout).startswith("it left the range")
    with pytest.raises(InputError, match="not_measurable"):
        driving_score(rollout)
    opened.close()


def test_a_car_of_the_log_that_stands_in_the_way_is_hit_and_one_beside_it_is_not(
    center: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = run(capsys, center, "oracle", "--context", str(context(center, at_m=25.0)))["replay"][0]
    assert hit["ended"] == "collision_vehicle" and hit["contacts"] == "collision_vehicle" and hit["metres"] < 25.0
    beside = run(capsys, center, "oracle", "--context", str(context(center, at_m=25.0, left_m=3.5)))
    assert beside["replay"][0]["contacts"] == "none" and beside["replay"][0]["ended"] == "route_complete"
    nobody = run(capsys, center, "oracle", "--context", str(context(center, at_m=None)))["replay"][0]
    assert nobody["contacts"] == "none"
    opened = Center.open(center)
    (seen,) = stored_rollouts(opened, beside["replay_results"][0]["id"])
    assert seen.others_known and set(seen.actor_id.tolist()) == {7} and len(set(seen.actor_row.tolist())) > 30
    opened.close()
    scored = answer(capsys, center, "rescore", beside["replay_results"][0]["id"], "--scorers", "epdms")["results"][0]
    assert {row["column"]: row["value"] for row in scored["rows"]}["NC"] == 1.0


def test_a_context_of_another_clock_is_refused_and_one_without_a_drive_too(
    center: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late = context(center, at_m=25.0, late_ns=10**15)
    opened = Center.open(center)
    target = drive.drives(opened)[0]["id"]
    opened.close()
    words = ("--center", str(center), "evaluation", "run", "--model", "oracle")
    assert cli.run([*words, "--replay", target, "--context", str(late)]) == 1
    assert cli.run([*words, "--suite", "us-tiny", "--context", str(late)]) == 2
    assert cli.run([*words, "--replay", "no-such-drive"]) == 1
    assert cli.run([*words]) == 2


def test_a_second_run_reads_what_was_driven(center: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, center, "oracle")
    opened = Center.open(center)
    before = sorted(one.id for one in opened.artifacts())
    opened.close()
    assert run(capsys, center, "oracle") == first
    opened = Center.open(center)
    assert sorted(one.id for one in opened.artifacts()) == before
    opened.close()


def test_blind_drives_by_a_black_picture(center: Path) -> None:
    from dataclasses import replace

    from onshore.world import PolicySpec
    from onshore.world.replay import replay

    opened = Center.open(center)
    segment = drive.segments(opened)[0]["id"]
    film = drive.open_segment(opened, segment)
    opened.close()
    spec = PolicySpec(kind="python", entry="evaluation.test_replayed:Bright")
    bright = replay(film, spec, region="us", name=segment)
    dark = replay(film, replace(spec, blind=True), region="us", name=segment)
    assert bright.ended == "route_complete" and dark.ended == "left_valid_range"


class Bright:
    """Drives at 8 m/s while it sees anything."""

    def reset(self, route: object | None) -> None:
        pass

    def act(self, observation):  # type: ignore[no-untyped-def]
        from onshore.core.policy import straight_plan

        return straight_plan(8.0 if observation.frames["front"].any() else 0.0)


@pytest.mark.data
@pytest.mark.timeout(300)
def test_a_real_drive_is_replayed_from_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = os.environ.get("ONSHORE_TEST_DATA")
    folder = Path(root or ".", "openlka")
    if not root or not folder.exists():
        pytest.skip("needs ONSHORE_TEST_DATA with openlka")
    made = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    drive.add(made, sorted(folder.rglob("*.csv"))[0].parent, workers=1)
    segments = len(drive.segments(made))
    made.close()
    document = run(capsys, tmp_path / "center", "oracle")
    assert 1 <= len(document["replay"]) <= segments
    assert all(row["verdict"] and not row.get("synthetic", False) for row in document["replay"])
    stopped = run(capsys, tmp_path / "center", "stop")["replay"]
    assert any(row["ended"] == "left_valid_range" for row in stopped)
    print([(row["verdict"], row.get("metres")) for row in (*document["replay"], *stopped)])
