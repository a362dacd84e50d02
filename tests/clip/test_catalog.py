"""The catalog in a real center: cut once, merged, asked in SQL, back-tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.centers import SECOND, center_with, fleet, write_fleet
from onshore import clip, drive
from onshore.core.errors import InputError, NotFoundError, UsageError
from onshore.core.recording import ClipRef
from onshore.store import Center


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Center:
    made = center_with(tmp_path_factory.mktemp("clips"), fleet(2))
    clip.cut(made)
    return made


def test_cutting_again_makes_nothing_and_a_new_drive_makes_only_its_own(tmp_path: Path) -> None:
    cars = fleet(2)
    center = center_with(tmp_path, cars[:1])
    first = clip.cut(center)
    assert {row["trigger"] for row in first} == {"ordinary", "hard_brake", "stop_and_go", "sharp_turn"}
    assert clip.cut(center) == []
    drive.add(center, write_fleet(tmp_path / "more", cars[1:]))
    second = clip.cut(center)
    assert len(second) == len(first) and not {row["id"] for row in first} & {row["id"] for row in second}
    assert center.table("clips").count() == len(first) + len(second)


def test_a_killed_cut_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    center = center_with(tmp_path, fleet(1))
    with monkeypatch.context() as patched:
        # the rows are written, the record that says so is not
        patched.setattr(Center, "stage", lambda self, name, inputs, run: (run(), True))
        before = clip.cut(center)
    assert clip.cut(center) == [] and center.table("clips").count() == len(before)


def test_clips_are_found_by_sql_and_by_trigger(center: Center) -> None:
    braked = clip.find(center, trigger="hard_brake")
    assert len(braked) == 2 and all(row["accel_min_mps2"] < -3 for row in braked)
    assert clip.find(center, where="accel_min_mps2 < -3.0 AND trigger = 'hard_brake'") == braked
    assert len(clip.find(center, limit=3)) == 3
    assert clip.find(center, where="speed_max_mps > 100") == []
    assert clip.find(center, where="junction_share > 0.0") == []  # not known is not large
    starts = [row["start_ns"] for row in clip.find(center)]
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    "where", ["speed_mean_mps >", "colour = 'red'", "1; DROP TABLE clips", "trigger = 'x", "read_csv('/etc/passwd')"]
)
def test_sql_that_cannot_be_read_is_a_usage_error(center: Center, where: str) -> None:
    with pytest.raises(UsageError, match="speed_mean_mps"):
        clip.find(center, where=where)
    assert clip.find(center)


def test_a_trigger_name_is_never_sql(center: Center) -> None:
    assert clip.find(center, trigger="x' OR '1'='1") == []


def test_an_empty_center_has_no_clips(tmp_path: Path) -> None:
    empty = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    assert clip.cut(empty) == [] and clip.find(empty) == []
    with pytest.raises(NotFoundError):
        clip.show(empty, "clip-0")


def test_a_clip_shows_its_rule_and_its_neighbours(center: Center) -> None:
    braked = clip.find(center, trigger="hard_brake")[0]
    shown = clip.show(center, braked["id"])
    assert shown["rule"]["when"].startswith("accel_mps2")
    assert {other["trigger"] for other in shown["overlapping"]} >= {"ordinary", "stop_and_go"}


def test_requested_spans_become_clips_once(center: Center) -> None:
    segment = drive.segments(center)[0]
    start = segment["start_ns"]
    wanted = {"segment": segment["id"], "start_ns": start + SECOND, "end_ns": start + 4 * SECOND}
    added = clip.add_requested(center, [wanted, wanted])
    assert [row["trigger"] for row in added] == ["shadow_disagreement"]
    assert (
        clip.add_requested(
            center, [ClipRef(segment_id=segment["id"], start_ns=start + SECOND, end_ns=start + 4 * SECOND)]
        )
        == []
    )
    assert clip.find(center, trigger="shadow_disagreement")[0]["id"] == added[0]["id"]


def test_a_request_outside_the_pictures_is_named_and_the_others_arrive(center: Center) -> None:
    segment = drive.segments(center)[0]
    start = segment["start_ns"]
    good = {"segment_id": segment["id"], "start_ns": start, "end_ns": start + 5 * SECOND}
    far = {**good, "start_ns": start + 900 * SECOND, "end_ns": start + 905 * SECOND}
    with pytest.raises(InputError, match="no pictures"):
        clip.add_requested(center, [far, good], trigger="takeover")
    assert len(clip.find(center, trigger="takeover")) == 1
    with pytest.raises(NotFoundError, match="segment"):
        clip.add_requested(center, [{**good, "segment_id": "segment-none"}])
    with pytest.raises(InputError, match="start_ns"):
        clip.add_requested(center, [{"segment": segment["id"]}])


def test_a_request_renames_an_ordinary_clip_and_no_other(tmp_path: Path) -> None:
    center = center_with(tmp_path, fleet(1))
    clip.cut(center)
    plain, braked = (clip.find(center, trigger=name)[0] for name in ("ordinary", "hard_brake"))
    clip.add_requested(
        center, [{name: row[name] for name in ("segment", "start_ns", "end_ns")} for row in (plain, braked)]
    )
    assert clip.show(center, plain["id"])["trigger"] == "shadow_disagreement"
    assert clip.show(center, braked["id"])["trigger"] == "hard_brake"


def test_a_backtest_counts_and_never_claims_precision(center: Center, tmp_path: Path) -> None:
    report = clip.backtest(center, "hard_brake")
    assert report["count"] == 2 and report["precision"] == "not measurable" and len(report["drives"]) == 2
    assert report["per_hour"] == pytest.approx(2 / report["hours"]) and 0 < report["time_share"] <= 1
    mine = tmp_path / "mine.toml"
    mine.write_text('[slow]\nwhen = "speed_mps < 0.1"\nfor_s = 1.0\nbefore_s = 0\nafter_s = 0\n')
    assert clip.backtest(center, mine)["count"] == 2
    shadow = clip.backtest(center, "shadow_disagreement")
    assert shadow["columns_missing"] == 2 and shadow["per_hour"] is None
