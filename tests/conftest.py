"""The order of the suite: files that take a minute and more begin first, so that no worker waits for one of them at the end."""

from __future__ import annotations

import pytest

#: The longest first. What a file takes: `make test` with `--durations=0` in PYTEST_ADDOPTS.
LONGEST = (
    "flywheel/test_demo.py",
    "border/test_leakage.py",
    "cli/test_recorded_drives.py",
    "drive/test_intake.py",
    "model/test_resume.py",
    "model/test_convert.py",
    "model/test_jailed_training.py",
    "drive/test_laundering.py",
    "drive/test_ingest_attempts.py",
    "model/test_models.py",
    "world/test_worlds.py",
    "world/test_replay.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0].removeprefix("tests/")
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
