"""Every attempt that a tester will make has a test of its own, named after its number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
NAMED = {
    int(number)
    for path in TESTS.rglob("test_*.py")
    for number in re.findall(r"^def test_(\d\d)_", path.read_text(encoding="utf8"), re.MULTILINE)
}


@pytest.mark.parametrize("number", range(2, 62, 2))
def test_every_attempt_on_ingest_lineage_gate_runtime_logs_and_ledger_has_a_test(number: int) -> None:
    assert number in NAMED
