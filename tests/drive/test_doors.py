"""Intake works from wherever it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onshore
from drive.conftest import Fleet

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
