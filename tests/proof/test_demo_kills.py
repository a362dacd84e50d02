"""Slow proof: kill -9 at random moments of the tiny demo, run it again each time, and nothing is different."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

KILLS = 5


def _demo(out: Path, *, kill_after_s: float | None = None) -> dict[str, Any] | None:
    """Run the tiny demo in a process group of its own; kill -9 all of it after a while, or return its document."""
    command = [sys.executable, "-m", "onshore", "demo", "--tiny", "--json", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        document, _ = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    assert process.returncode == 0
    return json.loads(document)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_kill_nine_at_five_random_moments_changes_no_digest(tmp_path: Path) -> None:
    began = time.monotonic()
    undisturbed = _demo(tmp_path / "undisturbed")
    took = time.monotonic() - began
    assert undisturbed is not None
    moments = random.Random(11)
    for number in range(KILLS):
        out = tmp_path / f"killed-{number}"
        _demo(out, kill_after_s=moments.uniform(0.05, 0.9) * took)
        again = _demo(out)
        assert again is not None
        assert again["digests"] == undisturbed["digests"], f"kill {number}"
        assert [(r["model"], r["suite"], r["score"]) for r in again["scores"]] == [
            (r["model"], r["suite"], r["score"]) for r in undisturbed["scores"]
        ]
