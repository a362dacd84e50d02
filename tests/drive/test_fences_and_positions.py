"""Fenced areas keep recordings out; precise positions lie with their custodian; no coordinate processor is ours."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drive.conftest import Fleet
from onshore import drive
from onshore.border.erasure import erase
from onshore.core.errors import InputError, OnshoreError, RefusedError
from onshore.drive.fence import Fence, set_fence
from onshore.drive.positions import positions, process, recheck
from onshore.store import Center

#: A square around 30.0 N 120.0 E with a hole in its middle.
SQUARE = [[[119.9, 29.9], [120.1, 29.9], [120.1, 30.1], [119.9, 30.1], [119.9, 29.9]]]
HOLE = [[119.99, 29.99], [120.01, 29.99], [120.01, 30.01], [119.99, 30.01], [119.99, 29.99]]


@pytest.fixture
def cn(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "cn", "cn", keys_dir=tmp_path / "cn-keys", seed=1)


def geojson(folder: Path, rings: list, name: str = "map.geojson") -> Path:
    path = folder / name
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": rings}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def located(fleet: Fleet, path: str, latitude: float, longitude: float, **fields: object) -> Path:
    from onshore.wire import write_mcap

    target = fleet.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    base = fleet.recording(**fields)  # type: ignore[arg-type]
    fixes = [(int(t), latitude + 1e-4 * i, longitude, 8.0) for i, t in enumerate(base.signals.t_ns[::5])]
    write_mcap(replace(base, private={"gnss": fixes}), target, positions=True)
    return target


def lines(center: Center, kind: str) -> list[dict]:
    return [entry.body for entry in center.ledger.entries() if entry.kind == kind]


@pytest.mark.parametrize("action", ["quarantine", "drop"])
def test_a_recording_that_touches_a_fence_stays_out(cn: Center, fleet: Fleet, tmp_path: Path, action: str) -> None:
    fence = set_fence(cn, geojson(tmp_path, SQUARE), action=action)
    located(fleet, "in.mcap", 29.95, 120.0)
    located(fleet, "out.mcap", 31.0, 120.0, drive_key="tuesday", start_s=90.0)
    fleet.mcap("nowhere.mcap", drive_key="friday", start_s=150.0)
    report = drive.add(cn, fleet.root)
    assert report.segments == 2
    assert [row["code"] for row in report.quarantined] == (["geofenced"] if action == "quarantine" else [])
    assert lines(cn, "drive.geofence.checked") == [{"fence": fence.version, "checked": 2, "unlocated": 1, "hits": 1}]
    assert b"29.95" not in (cn.root / "ledger" / "entries.jsonl").read_bytes()
    assert drive.add(cn, fleet.root).segments == 0


def test_the_map_itself_is_sealed_and_set_once(cn: Center, tmp_path: Path) -> None:
    first = set_fence(cn, geojson(tmp_path, SQUARE))
    assert set_fence(cn, geojson(tmp_path, SQUARE)).version == first.version
    assert set_fence(cn, geojson(tmp_path, [*SQUARE, HOLE])).version != first.version
    assert set_fence(cn, geojson(tmp_path, SQUARE)).version not in ("", first.version), (
        "a map set again is a new version"
    )
    assert len(lines(cn, "drive.geofence")) == 3
    for path in cn.root.rglob("*"):
        assert not path.is_file() or b"119.9" not in path.read_bytes(), path


def test_holes_and_edges() -> None:
    fence = Fence.from_record({"number": 0, "action": "drop", "polygons": [[*SQUARE, HOLE]]})
    rng = np.random.default_rng(0)
    for latitude, longitude in rng.uniform([29.8, 119.8], [30.2, 120.2], (2000, 2)):
        square = 29.9 < latitude < 30.1 and 119.9 < longitude < 120.1
        hole = 29.99 < latitude < 30.01 and 119.99 < longitude < 120.01
        assert fence.hits([(0, latitude, longitude, 0.0)]) == int(square and not hole)
    assert fence.hits([]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "{}",
        '{"type": "Point", "coordinates": [1, 2]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 0], [3, 3]]]}',
        '{"type": "Polygon", "coordinates": [[[170, 0], [-170, 1], [-170, 2], [170, 0]]]}',
        '{"type": "FeatureCollection", "features": []}',
    ],
)
def test_a_map_that_cannot_be_read_is_named(cn: Center, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.geojson").write_text(text)
    with pytest.raises(InputError) as caught:
        set_fence(cn, tmp_path / "bad.geojson")
    assert caught.value.code == "bad_config" and "bad.geojson" in caught.value.subject


def test_engineers_see_coarse_positions_and_the_custodian_precise_ones(cn: Center, fleet: Fleet) -> None:
    located(fleet, "a.mcap", 31.234567, 121.498765)
    drive.add(cn, fleet.root)
    (row,) = drive.segments(cn)
    seen = positions(cn, row["id"])
    assert not seen["precise"] and seen["fixes"][0][1:] == (31.23, 121.5, 0.0)
    kept = cn.table("positions").rows()[0]
    with pytest.raises(RefusedError) as caught:
        cn.read(kept["precise"])
    assert caught.value.code == "not_allowed" and caught.value.refusal.rule == "custodian-holds"
    custodian = Center.open(cn.root, actor="cleo", role="custodian")
    exact = positions(custodian, row["id"])
    assert exact["precise"] and exact["fixes"][0][1:] == (31.234567, 121.498765, 8.0)
    recording = drive.open_segment(cn, row["id"])
    assert "gnss" not in recording.private and "position" not in cn.artifact(row["artifact"]).label.sensitivity
    erase(cn, "car-0007")
    assert cn.table("positions").rows() == [] and not cn.has_bytes(kept["precise"])


def test_a_changed_map_is_held_against_what_is_here(cn: Center, fleet: Fleet, tmp_path: Path) -> None:
    located(fleet, "in.mcap", 29.95, 120.0, frames=5)
    located(fleet, "out.mcap", 31.0, 120.0, start_s=90.0, segment_index=1, frames=5)
    located(fleet, "alone.mcap", 29.95, 120.0, drive_key="tuesday", start_s=120.0, frames=5)
    fleet.mcap("nowhere.mcap", drive_key="friday", start_s=150.0, frames=5)
    drive.add(cn, fleet.root)
    fence = set_fence(cn, geojson(tmp_path, SQUARE))
    with pytest.raises(RefusedError):
        recheck(cn, fence)
    custodian = Center.open(cn.root, actor="cleo", role="custodian")
    found = recheck(custodian, fence)
    assert (found["checked"], found["unlocated"], found["hits"]) == (3, 1, 2)
    recheck(custodian, fence, destroy=True)
    left = drive.segments(cn)
    assert not set(found["segments"]) & {row["id"] for row in left} and len(left) == 2
    assert {row["id"]: row["segments"] for row in drive.drives(cn)} == {row["drive"]: 1 for row in left}
    assert recheck(custodian, fence)["hits"] == 0


def test_positions_whose_time_has_passed_are_not_judged(
    cn: Center, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located(fleet, "in.mcap", 29.95, 120.0, frames=5)
    drive.add(cn, fleet.root)
    fence = set_fence(cn, geojson(tmp_path, SQUARE))
    custodian = Center.open(cn.root, actor="cleo", role="custodian")
    days = int(cn.pack.law["retention_days"]["raw"])
    later = time.time_ns() + (days + 1) * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    found = recheck(custodian, fence)
    assert (found["checked"], found["unlocated"], found["hits"]) == (0, 1, 0)


PROCESSOR = """
class Shift:
    tool, licence = "example-shift-1", "none"
    def process(self, fixes):
        return [(t, lat + 0.001, lon, alt) for t, lat, lon, alt in fixes]
"""


def test_a_licensed_processor_is_plugged_in_and_none_is_ours(
    cn: Center, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located(fleet, "a.mcap", 31.0, 121.0)
    drive.add(cn, fleet.root)
    (row,) = drive.segments(cn)
    custodian = Center.open(cn.root, actor="cleo", role="custodian")
    with pytest.raises(OnshoreError) as caught:
        process(custodian, row["id"], "shift")
    assert caught.value.code == "missing_dependency" and "there are: none" in caught.value.advice
    plugin = tmp_path / "plugin"
    (plugin / "example_shift-1.dist-info").mkdir(parents=True)
    (plugin / "example_shift.py").write_text(PROCESSOR)
    (plugin / "example_shift-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: example-shift\nVersion: 1\n"
    )
    (plugin / "example_shift-1.dist-info" / "entry_points.txt").write_text(
        "[onshore.coordinate_processors]\nshift = example_shift:Shift\n"
    )
    monkeypatch.syspath_prepend(str(plugin))
    made = process(custodian, row["id"], "shift")
    assert made.meta["tool"] == "example-shift-1" and made.label.custodian == "custodian"
    assert "position" in made.label.sensitivity and lines(cn, "drive.coordinates")[0]["tool"] == "example-shift-1"
    with pytest.raises(RefusedError):
        process(cn, row["id"], "shift")
    assert "example_shift" in sys.modules
