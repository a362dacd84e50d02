"""How many labelled faces and plates the anonymiser covers, per width, with a lower bound; or 'not measurable'."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.progress import Progress, silent
from onshore.privacy.anonymiser import DILATION, TARGETS, Anonymiser, default_anonymiser
from onshore.privacy.detector import Frames, dilated

#: Widths in pixels at which recall is told apart; the last bucket is open.
WIDTHS_PX = (0, 8, 16, 32, 64, 128)
#: A labelled box counts as covered when this share of its area is filled.
COVERED = 0.75
HEADER = ("file", "class", "x0", "y0", "x1", "y1")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One width bucket of one target. recall and low (Wilson, 95 %, lower) are None where not measurable."""

    target: str
    least_width_px: int
    below_width_px: int | None
    labelled: int
    covered: int
    recall: float | None
    low: float | None
    status: str

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def wilson_low(successes: int, trials: int, z: float = 1.959964) -> float:
    """Lower end of Wilson's score interval (Wilson 1927, JASA 22:209) for a share; 0 without trials."""
    if trials == 0:
        return 0.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def measure(
    folder: Path | str, boxes: Path | str, *, anonymiser: Anonymiser | None = None, progress: Progress = silent
) -> list[Measurement]:
    """Recall per target and width bucket on the labelled pictures of a folder.

    `boxes` is a CSV with the header file, class, x0, y0, x1, y1 (class face or plate, pixels). Raises InputError `unknown_format`, `missing_column`, `empty_input`, `unsafe_path`, `damaged_video`.
    """
    anonymiser = anonymiser or default_anonymiser()
    labels = _read_labels(Path(boxes))
    tallies: dict[tuple[str, int], list[bool]] = {}
    for index, (name, targets) in enumerate(sorted(labels.items())):
        frame = _picture(Path(folder), name)
        for target, labelled in sorted(targets.items()):
            _tally(tallies, anonymiser, target, frame, labelled)
        progress("measure", index + 1, len(labels))
    looked_for = {detector.target for detector in anonymiser.detectors}
    return [
        _bucket(target, index, tallies.get((target, index), []), target in looked_for)
        for target in TARGETS
        for index in range(len(WIDTHS_PX))
    ]


def _tally(
    tallies: dict[tuple[str, int], list[bool]],
    anonymiser: Anonymiser,
    target: str,
    frame: Frames,
    labelled: list[NDArray[np.float64]],
) -> None:
    filled = np.zeros(frame.shape[1:3], bool)
    for detector in anonymiser.detectors:
        if detector.target == target:
            for left, top, right, bottom in dilated(detector.detect(frame)[0], DILATION, *frame.shape[1:3]):
                filled[top:bottom, left:right] = True
    for x1, y1, x2, y2 in labelled:
        index = int(np.searchsorted(WIDTHS_PX, x2 - x1, side="right")) - 1
        area = filled[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]
        tallies.setdefault((target, index), []).append(bool(area.size) and float(area.mean()) >= COVERED)


def _bucket(target: str, index: int, hits: list[bool], looked_for: bool) -> Measurement:
    measurable = looked_for and bool(hits)
    status = "measured" if measurable else "not measurable: " + ("no detector" if not looked_for else "no labelled box")
    return Measurement(
        target=target,
        least_width_px=WIDTHS_PX[index],
        below_width_px=WIDTHS_PX[index + 1] if index + 1 < len(WIDTHS_PX) else None,
        labelled=len(hits),
        covered=sum(hits),
        recall=sum(hits) / len(hits) if measurable else None,
        low=wilson_low(sum(hits), len(hits)) if measurable else None,
        status=status,
    )


def _read_labels(path: Path) -> dict[str, dict[str, list[NDArray[np.float64]]]]:
    labels: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    try:
        for _, row in csv_rows(path, HEADER):
            if row["class"] not in TARGETS:
                raise ValueError(f"class {row['class']!r} is not one of {', '.join(TARGETS)}")
            labels.setdefault(row["file"], {}).setdefault(row["class"], []).append(_box(row))
    except (OSError, ValueError, TypeError, csv.Error) as problem:
        raise InputError("unknown_format", path.name, f"a label cannot be read: {problem}.") from problem
    if not labels:
        raise InputError("empty_input", path.name, "the file labels no picture.")
    return labels


def csv_rows(path: Path, header: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV that has these columns, with their line numbers. Raises InputError `missing_column`, csv.Error, OSError."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        missing = set(header) - set(rows.fieldnames or ())
        if missing:
            raise InputError("missing_column", f"{path.name} {sorted(missing)}", f"expected {', '.join(header)}.")
        for row in rows:
            yield rows.line_num, row


def _box(row: dict[str, str]) -> NDArray[np.float64]:
    box = np.array([float(row[name]) for name in HEADER[2:]])
    if not np.isfinite(box).all() or not (box[2] > box[0] >= 0 and box[3] > box[1] >= 0):
        raise ValueError(f"box {box.tolist()} must have 0 <= x0 < x1 and 0 <= y0 < y1")
    return box


def _picture(folder: Path, name: str) -> Frames:
    """The picture as (1, H, W, 3) RGB."""
    import av

    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError("unsafe_path", name, "labelled pictures must lie below the folder.")
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, OSError, StopIteration, IndexError) as problem:
        raise InputError("damaged_video", name, "the picture cannot be read.") from problem
    pixels: Frames = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return pixels[None]
