"""A freeze that is killed in the middle and run again gives what an undisturbed one gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import onshore
from dataset.centers import center_with, fleet
from onshore import clip
from onshore.bundle.inputs import View
from onshore.dataset import freeze, manifest
from onshore.store import Center

VIEW = View(margin=0.125)
CHILD = """
import os, sys
from onshore.bundle.inputs import View
from onshore.dataset import freeze
from onshore.store import Center, Table
step, when = 0, int(sys.argv[2])
def count(what, done, total):
    global step
    step += 1
    if step == when: os.kill(os.getpid(), 9)
if when == 0:  # the manifest's blob is there, its row is not
    upsert = Table.upsert
    Table.upsert = lambda self, rows, on="id": os.kill(os.getpid(), 9) if self.name == "datasets" else upsert(self, rows, on)
freeze(Center.open(sys.argv[1]), "killed", view=View(margin=0.125), progress=count)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    center = center_with(tmp_path_factory.mktemp("whole"), fleet(3, seconds=5))
    clip.cut(center)
    return freeze(center, "killed", view=VIEW).digest


def test_a_killed_freeze_is_finished_by_the_next(tmp_path: Path, undisturbed: str) -> None:
    center = center_with(tmp_path, fleet(3, seconds=5))
    clip.cut(center)
    for when in (2, 3, 0):
        child = [sys.executable, "-c", CHILD, str(center.root), str(when)]
        environment = {**os.environ, "PYTHONPATH": str(Path(onshore.__file__).parents[1])}
        assert subprocess.run(child, check=False, env=environment, timeout=100).returncode == -signal.SIGKILL
        assert manifest.datasets(center) == []
    again = Center.open(center.root)
    assert freeze(again, "killed", view=VIEW).digest == undisturbed
    assert manifest.verify(again, "killed")["ok"] and len(manifest.datasets(again)) == 1
