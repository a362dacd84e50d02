"""Which spans become clips: the packaged triggers on driven manoeuvres, tiling, and files that cannot be read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.recordings import START_NS, recording, signals
from onshore.clip.cutting import clip_record, find_trigger, load_triggers, spans, tiles
from onshore.clip.motion import integrate, motion
from onshore.core.errors import InputError, NotFoundError
from onshore.core.recording import Recording, Signals
from onshore.core.trigger import Trigger


def manoeuvres(t: float) -> tuple[float, float]:
    """Brakes hard at 10 s to a stop, starts again at 16 s, turns sharply from 24 to 27 s."""
    if 10 <= t < 12.0:
        return 0.0, -4.0
    if 16 <= t < 20:
        return 0.0, 2.0
    return (0.15, 0.0) if 24 <= t < 27 else (0.0, 0.0)


@pytest.fixture(scope="module")
def drive() -> Recording:
    return recording(moves=signals(40, manoeuvres), segment_id="segment-a", drive_id="drive-a")


def test_each_trigger_finds_its_manoeuvre_and_the_rest_is_ordinary(drive: Recording) -> None:
    found = {
        span.trigger: ((span.start_ns - START_NS) / 1e9, (span.end_ns - START_NS) / 1e9)
        for span in spans(drive, load_triggers())
    }
    assert found["hard_brake"] == pytest.approx((6.0, 14.9), abs=0.3)
    assert found["stop_and_go"][0] < 10.5 and 20 < found["stop_and_go"][1] < 25
    assert found["sharp_turn"] == pytest.approx((20.0, 29.0), abs=0.4)
    assert "shadow_disagreement" not in found  # its columns come from a car's report alone
    ordinary = [s for s in spans(drive, load_triggers()) if s.trigger == "ordinary"]
    assert [(s.start_ns - START_NS) / 1e9 for s in ordinary] == [0, 10, 20, 30]


def test_a_trigger_works_on_a_log_without_acceleration_and_yaw_rate() -> None:
    moves = signals(40, manoeuvres, drop=("accel_mps2", "yaw_rate_radps", "x_m", "y_m", "yaw_rad"))
    found = {span.trigger for span in spans(recording(moves=moves), load_triggers())}
    assert {"hard_brake", "sharp_turn", "stop_and_go"} <= found


def test_clips_lie_inside_the_pictures() -> None:
    short = recording(moves=signals(40, manoeuvres), video_seconds=5.0)
    found = spans(short, load_triggers())
    assert [(s.trigger, (s.end_ns - START_NS) / 1e9) for s in found] == [("ordinary", 5.0)]
    blind = recording(moves=signals(5))
    assert spans(Recording(**{**vars(blind), "videos": ()}), load_triggers()) == []


def test_a_row_tells_what_happened(drive: Recording) -> None:
    moved = motion(drive.signals, drive.rig.vehicle)
    brake = next(span for span in spans(drive, load_triggers()) if span.trigger == "hard_brake")
    segment = {"id": "segment-a", "drive": "drive-a", "vehicle": "vehicle-1", "place": "town-1"}
    row = clip_record(segment, drive, moved, brake)
    assert row["accel_min_mps2"] == pytest.approx(-4.0) and row["speed_min_mps"] == pytest.approx(0.0, abs=1e-9)
    assert row["speed_max_mps"] == pytest.approx(8.0) and row["frames"] == 88 and row["place"] == "town-1"
    assert np.isnan(row["junction_share"]) and row["trigger_version"] == 1


@given(st.integers(0, 10**12), st.integers(0, 200_000_000_000))
def test_tiles_cover_everything_once(start: int, length: int) -> None:
    found = tiles(start, start + length)
    if length == 0:
        assert found == []
        return
    assert found[0][0] == start and found[-1][1] == start + length
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(0 < last - first < 12_000_000_000 for first, last in found)


def test_the_packaged_triggers_are_the_four_named() -> None:
    names = [trigger.name for trigger in load_triggers()]
    assert names == ["hard_brake", "sharp_turn", "stop_and_go", "shadow_disagreement"]


def test_the_shadow_trigger_reads_the_columns_of_a_report() -> None:
    t_ns = START_NS + np.arange(100, dtype=np.int64) * 100_000_000
    path, speed = np.zeros(100), np.zeros(100)
    path[40:50], speed[80:90] = 1.5, np.nan
    found = find_trigger("shadow_disagreement").spans(
        t_ns, {"shadow_path_diff_m": path, "shadow_speed_diff_mps": speed}
    )
    assert [((a - START_NS) / 1e9, (b - START_NS) / 1e9) for a, b in found] == [(1.0, 7.9)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("not toml [", "TOML"),
        ("[a]\nversion = 1", "when"),
        ('[a]\nwhen = "speed_mps <"', "when"),
        ('[a]\nwhen = "speed_mps < 1"\ncolour = 3', "colour"),
        ('[a]\nwhen = "speed_mps < 1"\nfor_s = "long"', "for_s"),
        ('[a]\nwhen = "speed_mps < 1"\nfor_s = -1', "a"),
        ("a = 3", "a"),
    ],
)
def test_a_file_that_is_no_trigger_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=names) as problem:
        load_triggers(path)
    assert problem.value.code == "bad_trigger"


@pytest.mark.parametrize(
    "when",
    [
        "in_junction",
        "in_junction and speed_mps > 2",
        "not in_junction",
        "not (in_junction > 0.5)",
        "not (in_junction or 0)",
    ],
)
def test_what_is_not_known_makes_no_condition_true(when: str) -> None:
    t_ns = np.arange(30) * 100_000_000
    columns = {"in_junction": np.full(30, np.nan), "speed_mps": np.full(30, 5.0)}
    assert Trigger(name="x", when=when).spans(t_ns, columns) == []
    known = {**columns, "in_junction": np.tile([0.0, 1.0], 15)}
    assert Trigger(name="x", when=when).spans(t_ns, known) != []


def test_what_is_known_may_decide_alone() -> None:
    t_ns = np.arange(30) * 100_000_000
    columns = {"in_junction": np.full(30, np.nan), "speed_mps": np.full(30, 5.0)}
    for when in ("in_junction or speed_mps > 2", "not (in_junction and speed_mps > 9)"):
        assert len(Trigger(name="x", when=when).spans(t_ns, columns)) == 1


@pytest.mark.parametrize(
    "when",
    ["min_over(a, 'x') > 1", "min_over(a, None) > 1", "max_over(a, 1e999) > 1", "max_over(a, -1) > 1", "abs > 3"],
)
def test_an_expression_that_cannot_be_evaluated_is_a_bad_trigger(when: str) -> None:
    with pytest.raises(InputError, match="bad_trigger"):
        Trigger(name="x", when=when)


def test_unknown_triggers_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="hard_brake"):
        find_trigger("soft_brake")
    with pytest.raises(NotFoundError):
        find_trigger(tmp_path / "none.toml")
    two = tmp_path / "two.toml"
    two.write_text('[a]\nwhen = "speed_mps < 1"\n[b]\nwhen = "speed_mps < 1"')
    with pytest.raises(InputError, match="one trigger"):
        find_trigger(two)


def test_signals_without_a_value_ask_for_nothing() -> None:
    t_ns = START_NS + np.arange(200, dtype=np.int64) * 100_000_000
    nothing = recording(moves=Signals.build(t_ns, speed_mps=np.full(200, 5.0)))
    assert {span.trigger for span in spans(nothing, load_triggers())} == {"ordinary"}


def test_a_car_that_reverses_turns_and_one_that_stands_does_not() -> None:
    t_s = np.linspace(0.0, 2.0, 21)
    turning = np.full(21, 0.3)
    assert integrate(t_s, np.full(21, -3.0), turning)[-1, 2] == pytest.approx(0.6)
    assert integrate(t_s, np.zeros(21), turning)[-1, 2] == 0.0
