"""Symbols drawn from paths: for signs, lamps and paint alike.

Rule: a symbol is data (`glyphs.toml`, or a pack's own `[glyphs]`) in a unit square; text is a row of symbols and Latin
letters. No font file is needed, so the same text has the same pixels everywhere.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("glyphs.toml")
#: Numbers before the points of each kind of path: width, or centre and radii.
LEADING = {"fill": 0, "cut": 0, "line": 1, "cutline": 1, "disc": 3, "ring": 4}
Glyphs = Mapping[str, tuple[str, ...]]
Mask = NDArray[np.uint8]
SHIFT = 4
CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 64)), np.sin(np.linspace(0, 2 * np.pi, 64))], -1)
Box = tuple[float, float, float, float]


@lru_cache(maxsize=1)
def shared_glyphs() -> dict[str, tuple[str, ...]]:
    """The symbols every pack may use."""
    record = tomllib.loads(FILE.read_text(encoding="utf8"))["glyphs"]
    return {name: tuple(paths) for name, paths in record.items()}


def glyph_problems(name: str, paths: tuple[str, ...]) -> list[str]:
    """What is wrong with a symbol's paths, each named."""
    found = []
    for index, path in enumerate(paths):
        kind, *numbers = path.split()
        try:
            count = len([float(number) for number in numbers]) - LEADING[kind]
        except (KeyError, ValueError):
            found.append(f"glyphs.{name}[{index}]: {path!r} is none of {', '.join(LEADING)} with numbers")
            continue
        if count < 0 or count % 2 or (kind in ("disc", "ring")) != (count == 0):
            found.append(f"glyphs.{name}[{index}]: {path!r} has a wrong count of numbers")
    return found


def draw_glyph(mask: Mask, paths: tuple[str, ...], box: Box) -> None:
    """Draw a symbol into a mask (H, W) with 255; box: left, top, width, height in pixels."""
    left, top, width, height = box
    size = min(width, height)
    for path in paths:
        kind, *words = path.split()
        numbers = [float(word) for word in words]
        head, flat = numbers[: LEADING[kind]], numbers[LEADING[kind] :]
        shape = np.array(flat).reshape(-1, 2) if flat else np.array(head[:2]) + CIRCLE * head[2]
        at = [np.round((shape * (width, -height) + (left, top + height)) * 16).astype(np.int32)]
        value = 0 if kind.startswith("cut") else 255
        if kind in ("fill", "cut", "disc"):
            cv2.fillPoly(mask, at, value, cv2.LINE_AA, SHIFT)
        else:
            thick = max(1, round((head[3] if kind == "ring" else head[0]) * size))
            cv2.polylines(mask, at, kind == "ring", value, thick, cv2.LINE_AA, SHIFT)


def draw_text(mask: Mask, text: str, box: Box, glyphs: Glyphs, *, stretch: bool = False) -> None:
    """Words of a text as rows that fill the box; rows of digits are twice as high as others. stretch: as tall as the row."""
    left, top, width, height = box
    rows = text.split()
    weights = [2.0 if row.strip("-:").isdigit() and len(rows) > 1 else 1.0 for row in rows]
    for row, weight in zip(rows, weights, strict=True):
        high = height * weight / sum(weights)
        _draw_row(mask, row, (left, top + high * 0.06, width, high * 0.88), glyphs, stretch)
        top += high


def _draw_row(mask: Mask, row: str, box: Box, glyphs: Glyphs, stretch: bool) -> None:
    left, top, width, height = box
    if all(symbol in glyphs for symbol in row):
        wide = width / len(row) if stretch else min(height, width / len(row))
        tall = height if stretch else wide
        start = left + (width - wide * len(row)) / 2
        for index, symbol in enumerate(row):
            place = (start + (index + 0.04) * wide, top + (height - tall) / 2, wide * 0.92, tall)
            draw_glyph(mask, glyphs[symbol], place)
        return
    _draw_latin(mask, row, box, stretch)


def _draw_latin(mask: Mask, row: str, box: Box, stretch: bool) -> None:
    """Latin letters, not much narrower or wider than they are unless stretched."""
    left, top, width, height = box
    font, scale, thick = cv2.FONT_HERSHEY_SIMPLEX, 4.0, 20
    (wide, high), base = cv2.getTextSize(row, font, scale, thick)
    letters = np.zeros((high + base + thick, wide + thick), np.uint8)
    cv2.putText(letters, row, (thick // 2, high + thick // 2), font, scale, 255, thick, cv2.LINE_AA)
    ys, xs = np.nonzero(letters)
    letters = letters[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    natural = letters.shape[1] / letters.shape[0]
    shown = width / height if stretch else min(max(width / height, natural * 0.6), natural * 1.3)
    high_px = max(2, int(min(height, width / shown)))
    wide_px = max(2, int(min(width, high_px * shown)))
    small = cv2.resize(letters, (wide_px, high_px), interpolation=cv2.INTER_AREA)
    x, y = int(left + (width - wide_px) / 2), int(top + (height - high_px) / 2)
    part = mask[y : y + high_px, x : x + wide_px]
    np.maximum(part, small[: part.shape[0], : part.shape[1]], out=part)
