"""What people marked on anonymised pictures: faces and plates, whether one can still recognise them, and how they appear."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onshore.core.errors import InputError
from onshore.privacy.anonymiser import TARGETS
from onshore.privacy.measure import COVERED, WIDTHS_PX, csv_rows, wilson_low

__all__ = ["CIRCUMSTANCES", "COVERED", "Mark", "overlaps", "read_marks", "tally", "wilson"]
#: How a face or plate appears, where width alone does not say it.
CIRCUMSTANCES = ("plain", "night", "rotated", "reflection", "screen")
HEADER = ("file", "class", "x0", "y0", "x1", "y1", "seen", "circumstance")
SAME = 0.3


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One face or plate. box: x0, y0, x1, y1 in pixels. seen: whether one can still recognise it."""

    target: str
    box: tuple[float, float, float, float]
    seen: bool
    circumstance: str

    @property
    def buckets(self) -> tuple[str, str, str]:
        """All, by width (`width-32` is 32 px and more, below the next), and by circumstance."""
        index = int(np.searchsorted(WIDTHS_PX, self.box[2] - self.box[0], side="right")) - 1
        return "all", f"width-{WIDTHS_PX[index]}", self.circumstance


def read_marks(path: Path, *, known: Set[str]) -> dict[str, list[Mark]]:
    """Marks by picture. Raises InputError `missing_column`, or `unknown_format` naming the line that cannot be read."""
    marks: dict[str, list[Mark]] = {}
    line = 1
    try:
        for number, row in csv_rows(path, HEADER):
            line = number
            if row["file"] not in known:
                raise ValueError("the file is no picture of this audit")
            marks.setdefault(row["file"], []).append(_mark(row))
    except (OSError, ValueError, TypeError, csv.Error) as problem:
        raise InputError("unknown_format", f"{path.name} line {line}", f"{problem}.") from problem
    return marks


def _mark(row: dict[str, Any]) -> Mark:
    x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    if not (0 <= x0 < x1 < math.inf and 0 <= y0 < y1 < math.inf):
        raise ValueError("a box must have 0 <= x0 < x1 and 0 <= y0 < y1")
    for name, words in (("class", TARGETS), ("seen", ("yes", "no")), ("circumstance", CIRCUMSTANCES)):
        if row[name] not in words:
            raise ValueError(f"{name} is one of {', '.join(words)}")
    return Mark(target=row["class"], box=(x0, y0, x1, y1), seen=row["seen"] == "yes", circumstance=row["circumstance"])


def tally(judged: Iterable[tuple[Mark, bool]]) -> list[list[Any]]:
    """Rows [target, bucket, labelled, covered] of marks and whether each was covered, sorted."""
    counts: dict[tuple[str, str], list[int]] = {}
    for mark, covered in judged:
        for bucket in mark.buckets:
            count = counts.setdefault((mark.target, bucket), [0, 0])
            count[0] += 1
            count[1] += covered
    return [[target, bucket, *count] for (target, bucket), count in sorted(counts.items())]


def overlaps(box: Iterable[float], other: Iterable[float], *, least: float = SAME) -> bool:
    """Whether two boxes share more than `least` of their union: by default, whether they are of one thing."""
    a, b = tuple(box), tuple(other)
    both = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both > least * (areas - both)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Both ends of Wilson's 95 % interval for a share; (0, 1) without trials."""
    return wilson_low(successes, trials), 1.0 - wilson_low(trials - successes, trials)
