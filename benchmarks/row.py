"""What every benchmark prints: one JSON line with its question's figures, the hardware and the commit."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def print_row(question: str, **figures: Any) -> None:
    """One line on stdout; figures are what was measured in this run, limits and peers among them."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    row = {"benchmark": question, **figures, "hardware": _hardware(), "commit": commit.stdout.strip()}
    sys.stdout.write(json.dumps(row) + "\n")


def _hardware() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
        if line.startswith("model name")
    ]
    name = models[0] if models else platform.processor()
    return f"{name}, {len(models) or 1} cores, Python {platform.python_version()}"
