"""Figures that may leave: JSON records of few, rounded numbers about many, and nothing that could carry a picture.

Rule: metrics are rebuilt, not copied. Every value is a number rounded to a few significant digits, a truth value, or a
word; a list is short (an embedding is a list of numbers); groups smaller than k say nothing about anybody; ids of drives,
segments, clips and vehicles do not occur. The limits are a region pack's `[export.metrics]`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from onshore.border.canonical import strict_json
from onshore.core.digest import canonical_json
from onshore.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FigureLimits:
    """significant_digits: of every number. k: the fewest subjects or samples a figure may be about.

    max_values: numbers and words in one file. max_list: longest list. max_keys: of one table. max_word: characters.
    """

    significant_digits: int = 4
    k: int = 10
    max_values: int = 2000
    max_list: int = 64
    max_keys: int = 200
    max_word: int = 120

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise InputError("bad_config", f"export.metrics.{field.name}", "give a whole number of at least 1.")

    @classmethod
    def from_law(cls, law: Mapping[str, Any]) -> FigureLimits:
        """The limits of a region pack's region.toml; what it does not name keeps its default."""
        given = law.get("export", {}).get("metrics", {})
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown:
            raise InputError(
                "bad_config", f"export.metrics {sorted(unknown)}", "region.toml names a limit nobody knows."
            )
        return cls(**given)


#: Keys that count what a figure is about; a group with fewer than k is too small to tell.
COUNT_KEYS = frozenset(
    ["count", "n", "clips", "drives", "segments", "cars", "vehicles", "drivers", "subjects", "samples"]
)
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.%/ -]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9_.,:;%/()=<>+' -]*")
_SMALL_ID = re.compile(r"(?:drive|segment|clip|vehicle|driver|person)-[0-9a-f]{16,}")


def rewrite_figures(data: bytes, limits: FigureLimits, subject: str = "metrics") -> bytes:
    """The record again in canonical JSON, rounded. Raises InputError `not_allowed` naming the first thing too much."""
    record = strict_json(data, subject)
    if not isinstance(record, dict):
        raise _too_much(subject, "must be a table of named figures")
    return canonical_json(_Rewriter(limits, subject).table(record, ""))


def check_table(record: Any, limits: FigureLimits, subject: str) -> None:
    """Raise InputError `not_allowed` unless the record keeps the limits (rounding apart) and is a plain table."""
    if not isinstance(record, dict):
        raise _too_much(subject, "must be a table of named values")
    _Rewriter(limits, subject).table(record, "")


class _Rewriter:
    def __init__(self, limits: FigureLimits, subject: str) -> None:
        self._limits, self._subject, self._values = limits, subject, 0

    def table(self, record: dict[str, Any], path: str) -> dict[str, Any]:
        if len(record) > self._limits.max_keys:
            raise self._bad(path, f"has {len(record)} keys, at most {self._limits.max_keys} may leave")
        for key, value in record.items():
            if not _KEY.fullmatch(key) or _SMALL_ID.search(key):
                raise self._bad(path, "has a key that is no plain name of a figure")
            if key in COUNT_KEYS and isinstance(value, int | float) and 0 < value < self._limits.k:
                raise self._bad(f"{path}.{key}", f"is about fewer than {self._limits.k}; join it with a larger group")
        return {key: self._value(value, f"{path}.{key}") for key, value in record.items()}

    def _value(self, value: Any, path: str) -> Any:
        if path.count(".") > 8:
            raise self._bad(path, "is nested too deep")
        if isinstance(value, dict):
            return self.table(value, path)
        if isinstance(value, list):
            return self._list(value, path)
        self._values += 1
        if self._values > self._limits.max_values:
            raise self._bad(path, f"is one value more than the {self._limits.max_values} that may leave in a file")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._number(value, path)
        return self._word(value, path)

    def _list(self, values: list[Any], path: str) -> list[Any]:
        if len(values) > self._limits.max_list:
            raise self._bad(
                path, f"is a list of {len(values)}; at most {self._limits.max_list} may leave (no embeddings)"
            )
        return [self._value(value, f"{path}[]") for value in values]

    def _word(self, text: str, path: str) -> str:
        if len(text) > self._limits.max_word or not _WORD.fullmatch(text) or _SMALL_ID.search(text):
            raise self._bad(path, "is not a short plain word, or names a drive, clip or vehicle")
        return text

    def _number(self, value: int | float, path: str) -> int | float:
        """Rounded to significant digits; -0 becomes 0, and a whole number stays one."""
        if not abs(value) <= sys.float_info.max:
            raise self._bad(path, "is no number that can be written: 1e999 is read as infinite")
        digits = self._limits.significant_digits
        if value == 0:
            return 0
        if isinstance(value, int):
            return round(value, digits - len(str(abs(value)))) if len(str(abs(value))) > digits else value
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded

    def _bad(self, path: str, what: str) -> InputError:
        return _too_much(f"{self._subject} {path.lstrip('.') or 'file'}", what)


def _too_much(subject: str, what: str) -> InputError:
    return InputError("not_allowed", subject, f"it {what}.")
