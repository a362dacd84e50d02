"""Tables through column maps: names, positions, units, clocks; and which segments are one drive."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drive.conftest import Fleet
from onshore import drive
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.drive.columns import load_map, recognise, shipped_maps
from onshore.drive.discover import Source, discover
from onshore.drive.grouping import Placed, group
from onshore.drive.prepare import check
from onshore.drive.table import read_signals, read_video
from onshore.store import Center

MAP = """
name = "mine"
[recognise]
columns = ["stamp", "v", "wheel"]
[clock]
kind = "boot"
time = {{ position = {position}, unit = "{unit}" }}
utc = {{ column = "utc", unit = "ms" }}
[signals.speed_mps]
column = "v"
unit = "km/h"
required = true
[signals.steering_rad]
column = "wheel"
unit = "deg"
ratio = 15.0
[signals.yaw_rate_radps]
column = "k"
unit = "1/m"
factor = -1.0
times = "v_mps"
[camera]
name = "road"
"""
TABLE = "stamp,v,wheel,k,v_mps,stamp,utc\n1000,36,15,0.1,10,0,5000\n1100,72,-30,,20,9,5110\n1200,na,0,0.2,30,10,5190\n"


def a_map(tmp_path: Path, position: int = 0, unit: str = "ms") -> Path:
    (tmp_path / "mine.toml").write_text(MAP.format(position=position, unit=unit))
    return tmp_path / "mine.toml"


def test_names_positions_units_and_clock(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    signals, clock = read_signals(tmp_path / "t.csv", load_map(a_map(tmp_path)))
    assert signals.t_ns.tolist() == [1_000_000_000, 1_100_000_000, 1_200_000_000]
    np.testing.assert_allclose(signals.speed_mps, [10, 20, np.nan])
    np.testing.assert_allclose(signals.steering_rad, np.radians([1, -2, 0]))
    np.testing.assert_allclose(signals.yaw_rate_radps, [-1, np.nan, -6])
    assert not np.isfinite(signals.accel_mps2).any()
    assert (clock.kind, clock.utc_offset_ns, clock.uncertainty_ns) == ("boot", 4_000_000_000, 10_000_000)
    second, _ = read_signals(tmp_path / "t.csv", load_map(a_map(tmp_path, position=5, unit="s")))
    assert second.t_ns.tolist() == [0, 9_000_000_000, 10_000_000_000]


def test_a_factor_from_a_column_that_the_map_knows_has_its_unit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    path = a_map(tmp_path)
    path.write_text(path.read_text().replace('times = "v_mps"', 'times = "v"'))
    signals, _ = read_signals(tmp_path / "t.csv", load_map(path))
    np.testing.assert_allclose(signals.yaw_rate_radps, [-0.1 * 36 / 3.6, np.nan, np.nan])


@pytest.mark.parametrize(
    ("table", "code", "named"),
    [
        ("stamp,wheel\n1,2\n", "missing_column", "'v'"),
        ("stamp,v,k\n1,2,3\n", "missing_column", "'v_mps'"),
        ("stamp,v\n1,fast\n", "unknown_format", "fast"),
        ("stamp,v\n1,2\n3\n", "unknown_format", "fewer cells"),
        ("stamp,v\n", "empty_file", "no rows"),
        ("\n\n", "empty_file", "no rows"),
        ("stamp,v\n2,1\n1,1\n", "clock_disorder", "times"),
        ("stamp,v\n2,1\n2,1\n", "clock_disorder", "times"),
        ("stamp,v\n1,1\n,1\n", "clock_disorder", "position 0"),
        ("stamp,v\n1e300,1\n", "clock_disorder", "position 0"),
    ],
)
def test_bad_tables_name_the_file_and_the_field(tmp_path: Path, table: str, code: str, named: str) -> None:
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(InputError) as caught:
        read_signals(tmp_path / "t.csv", load_map(a_map(tmp_path)))
    assert caught.value.code == code and "t.csv" in str(caught.value) and named in str(caught.value)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="unknown_format"):
        read_signals(tmp_path / "t.csv", load_map(a_map(tmp_path)))


@pytest.mark.parametrize(
    "change",
    [
        ("km/h", "knots"),
        ("ratio = 15.0", "ratio = 0.0"),
        (', unit = "s"', ""),
        ('unit = "km/h"', 'unit = "s"'),
        ('column = "v"', 'columns = "v"'),
        ("[clock]", "[cloak]"),
        ("name", "="),
    ],
)
def test_bad_maps(tmp_path: Path, change: tuple[str, str]) -> None:
    text = MAP.format(position=0, unit="s").replace(*change, 1)
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match="bad_config"):
        load_map(tmp_path / "bad.toml")


def test_shipped_maps_are_told_apart_by_columns() -> None:
    maps = shipped_maps()
    assert [known.name for known in maps] == ["openlka", "plain"]
    openlka = list(maps[0].recognise)
    assert recognise(openlka, maps) is maps[0]
    assert recognise(openlka[:-2], maps) is maps[0]  # columns differ a little between cars
    assert recognise(["time_s", "speed_mps"], maps) is maps[1]
    assert recognise(["speed_mps"], maps) is None
    assert recognise(["frame", "label"], maps) is None
    assert "camera calibration" in maps[0].assumed


def test_a_given_map_overrides_recognition(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    path = fleet.table("a/x")
    rows = "\n".join(f"{1000 + 100 * i},36,15,0,10,{i},{1_700_000_005_000 + 100 * i}" for i in range(20))
    path.write_text(f"stamp,v,wheel,k,v_mps,stamp,utc\n{rows}")
    assert drive.add(center, fleet.root).quarantined[0]["code"] in ("unknown_format", "missing_column")
    report = drive.add(center, fleet.root, reader="table", column_map=a_map(tmp_path))
    assert (report.segments, report.quarantined) == (1, [])
    [row] = drive.segments(center)
    assert (row["reader"], row["cameras"], row["speed_max_mps"]) == ("mine", ["road"], 10.0)


def test_a_single_file_brings_its_partner(fleet: Fleet) -> None:
    table = fleet.table("a/x [1]")
    for path in (table, table.with_suffix(".mp4")):
        [source] = discover([path], shipped_maps()).sources
        assert source.files == (table, table.with_suffix(".mp4"))


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_a_video_begins_with_its_table_wherever_its_container_begins_to_count(fleet: Fleet, suffix: str) -> None:
    fleet.root.mkdir()
    fleet.video(path := fleet.root / f"x{suffix}", 6)
    video, _, _ = read_video(path, "front", 100_000_000_000)
    assert [round((t - 100_000_000_000) / 1e6) for t in video.t_ns.tolist()] == [0, 50, 100, 150, 200, 250]


def test_pictures_and_signals_share_their_time(fleet: Fleet) -> None:
    recording = fleet.recording(frames=3)
    check(recording, "a")
    for shift_ns in (-1_000_000_000, 1_000_000_000):
        signals = replace(recording.signals, t_ns=recording.signals.t_ns + shift_ns)
        with pytest.raises(InputError, match="share no time") as caught:
            check(replace(recording, signals=signals), "a")
        assert caught.value.code == "clock_disorder"


def test_a_file_that_may_not_be_read_is_one_of_many() -> None:
    with tempfile.TemporaryDirectory() as name:  # below tmp_path nobody else may look
        folder, maps = Path(name), shipped_maps()
        (folder / "theirs.mcap").write_bytes(b"closed")
        (folder / "ours.mcap").write_bytes(b"open")
        (folder / "below").mkdir()
        for closed in ("theirs.mcap", "below"):
            (folder / closed).chmod(0o000)
        folder.chmod(0o755)
        with somebody_else():
            found = discover([folder], maps)
        (folder / "below").chmod(0o700)
    assert [source.path.name for source in found.sources] == ["ours.mcap"]
    told = {one.path.name: one.error.code for one in found.unusable}
    assert told == {"theirs.mcap": "unknown_format", "below": "unknown_format"}


def test_a_second_video_of_one_stem_is_named(fleet: Fleet) -> None:
    table = fleet.table("a/x", frames=2)
    table.with_suffix(".mkv").write_bytes(table.with_suffix(".mp4").read_bytes())
    found = discover([fleet.root], shipped_maps())
    assert [source.files for source in found.sources] == [(table, table.with_suffix(".mp4"))]
    assert [(one.path.name, one.error.code) for one in found.unusable] == [("x.mkv", "conflict")]


def test_a_table_between_tabs(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(TABLE.replace(",", "\t"))
    signals, _ = read_signals(tmp_path / "t.tsv", load_map(a_map(tmp_path)))
    np.testing.assert_allclose(signals.speed_mps, [10, 20, np.nan])


@contextmanager
def somebody_else() -> Iterator[None]:
    """Within: a user whom file modes bind, also where tests run as one whom they do not."""
    mine = os.geteuid()
    os.seteuid(65534 if mine == 0 else mine)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_notes_are_ignored_and_lists_of_labels_too(fleet: Fleet) -> None:
    fleet.table("a/x")
    (fleet.root / "a/labels.csv").write_text("frame,label\n1,car\n")
    (fleet.root / "a/README").write_text("hello")
    (fleet.root / "a/annotation.json").write_text("{}")
    (fleet.root / "a/.hidden").write_text("")
    found = discover([fleet.root], shipped_maps())
    assert (len(found.sources), found.unusable, found.ignored) == (1, [], 3)


def placed(start: int, end: int, key: str, index: int, name: str) -> Placed:
    source = Source(reader="table", files=(Path("/logs/folder") / name,))
    return Placed(
        source=source,
        vehicle="car",
        drive_key=key,
        index=index,
        start_ns=start,
        end_ns=end,
        signals=sha256_hex(name.encode()),
    )


@pytest.mark.parametrize("key", ["", "route-1"])
def test_the_same_signals_in_another_file_part_no_drive(key: str) -> None:
    second = 1_000_000_000
    parts = [placed(6 * i * second, 6 * (i + 1) * second, key, i, f"{i}.csv") for i in range(3)]
    copy = replace(parts[1], source=Source(reader="table", files=(Path("/logs/folder/1 (copy).csv"),)))
    settled = {one.source.path.name: one for one in group([*parts, copy])}
    alone = {one.source.path.name: one for one in group(parts)}
    assert {name: settled[name] for name in alone} == alone
    assert len({one.drive_key for one in alone.values()}) == 1 and settled["1 (copy).csv"].drive_key not in {
        one.drive_key for one in alone.values()
    }


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.sampled_from(["", "route-1"]), st.booleans())
def test_a_drive_that_comes_in_parts_is_the_same_drive(early: list[bool], key: str, numbered: bool) -> None:
    second = 1_000_000_000
    parts = [
        placed(6 * i * second, 6 * (i + 1) * second, key, i + 3 if numbered else 0, f"{'abcd'[i]}.csv")
        for i in range(4)
    ]
    whole = [one.index for one in group(parts)]
    mixed = [
        replace(part, drive_id="drive-1", index=index) if there else part
        for part, index, there in zip(parts, whole, early, strict=True)
    ]
    rest = group(mixed)
    assert [one.index for one in rest] == [index for index, there in zip(whole, early, strict=True) if not there]
    assert {one.drive_id for one in rest} <= ({"drive-1"} if any(early) else {""})


def test_what_overlaps_a_part_that_is_here_does_not_join_it() -> None:
    here = replace(placed(0, 60, "route-1", 0, "a.csv"), drive_id="drive-1")
    [other] = group([here, placed(30, 90, "route-1", 1, "b.csv")])
    assert not other.drive_id and other.drive_key not in ("route-1", here.drive_key)


spans = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=8)


@given(spans, st.sampled_from(["", "route-1"]), st.randoms(use_true_random=False))
def test_drives_never_overlap_and_never_depend_on_order(
    rows: list[tuple[int, int, int]], key: str, random: object
) -> None:
    second = 1_000_000_000
    given_order = [
        placed(start * second, (start + length) * second, key, index, f"{position}.csv")
        for position, (start, length, index) in enumerate(rows)
    ]
    settled = group(given_order)
    assert {one.source.path for one in settled} == {one.source.path for one in given_order}
    drives: dict[str, list[Placed]] = {}
    for one in settled:
        drives.setdefault(one.drive_key, []).append(one)
    for parts in drives.values():
        parts.sort(key=lambda one: one.start_ns)
        for earlier, later in pairwise(parts):
            assert earlier.end_ns <= later.start_ns and earlier.index < later.index
            assert key or later.start_ns - earlier.end_ns <= 2 * second
    shuffled = list(given_order)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert {(o.source.path, o.drive_key, o.index) for o in group(shuffled)} == {
        (o.source.path, o.drive_key, o.index) for o in settled
    }
