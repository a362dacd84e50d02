"""Working days of a region: weekends, holidays and the days that are worked in their stead, all from the pack.

Rule: pure. A year that the calendar does not cover counts weekends alone, which makes a deadline earlier, never later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """weekend: ISO weekdays (Monday is 1). years: those whose holidays are known. utc_offset_h: when its days begin."""

    weekend: frozenset[int] = frozenset([6, 7])
    holidays: frozenset[date] = frozenset()
    worked: frozenset[date] = frozenset()
    years: frozenset[int] = frozenset()
    utc_offset_h: float = 0.0

    @classmethod
    def of(cls, law: Mapping[str, Any]) -> Calendar:
        """The `[calendar]` of a region pack; without one, weekends alone."""
        given = law.get("calendar", {})
        return cls(
            weekend=frozenset(given.get("weekend", [6, 7])),
            holidays=frozenset(day for text in given.get("holidays", []) for day in _days(text)),
            worked=frozenset(day for text in given.get("worked", []) for day in _days(text)),
            years=frozenset(given.get("years", [])),
            utc_offset_h=float(given.get("utc_offset_h", 0)),
        )

    def is_worked(self, day: date) -> bool:
        return day in self.worked or (day.isoweekday() not in self.weekend and day not in self.holidays)

    def day_of(self, time_ns: int) -> date:
        """The day of the region in which a POSIX time lies."""
        return (datetime.fromtimestamp(time_ns / 1e9, UTC) + timedelta(hours=self.utc_offset_h)).date()

    def after(self, day: date, working_days: int) -> date:
        """The last of so many working days that follow `day`; `day` itself does not count."""
        while working_days > 0:
            day += timedelta(days=1)
            working_days -= self.is_worked(day)
        return day

    def between(self, first: date, last: date) -> int:
        """Working days after `first` up to and with `last`; negative when `last` has passed."""
        if last < first:
            return -self.between(last, first)
        return sum(self.is_worked(first + timedelta(days=n)) for n in range(1, (last - first).days + 1))


def _days(text: str) -> list[date]:
    """One day, or `first/last` with both."""
    first, _, last = text.partition("/")
    begin, end = date.fromisoformat(first), date.fromisoformat(last or first)
    return [begin + timedelta(days=n) for n in range((end - begin).days + 1)]
