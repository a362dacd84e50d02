"""Intake works from wherever it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import onshore
from drive.conftest import Fleet
from onshore import drive
from onshore.store import Center

SCRIPT = """
from onshore import drive
from onshore.store import Center
center = Center.init({root!r}, "us", keys_dir={keys!r}, seed=1)
report = drive.add(center, {logs!r}, workers=2)
print(report.segments, [row["code"] for row in report.quarantined])
"""


def test_a_script_from_standard_input_may_ask_for_workers(fleet: Fleet, tmp_path: Path) -> None:
    """Child processes import the main script again; one that has no file cannot be, and no drive is to blame for that."""
    fleet.mcap("0.mcap")
    fleet.mcap("1.mcap", segment_index=1, start_s=70.0)
    script = SCRIPT.format(root=str(tmp_path / "c"), keys=str(tmp_path / "k"), logs=str(fleet.root))
    environment = {**os.environ, "PYTHONPATH": str(Path(onshore.__file__).parents[1])}
    run = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "2 []", run.stderr


def test_a_relative_path_finds_the_same_drive_and_car(
    center: Center, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = fleet.openlka("CAR/0a1b2c3d4e5f6071/00000002--e0ac3d0ea6/1--1", frames=2).parent
    (route / "bad.mcap").write_bytes(b"no drive")
    monkeypatch.chdir(route)
    report = drive.add(center, ".")
    assert (report.segments, len(report.quarantined)) == (1, 1)
    assert drive.drives(center)[0]["vehicle"] == center.subject("vehicle", "0a1b2c3d4e5f6071")
    assert [row["path"] for row in center.quarantine_list()] == [str(route / "bad.mcap")]
