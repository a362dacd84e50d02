"""The center's time: the wall clock where it agrees with the ledger, and never earlier than what the ledger has seen.

Rule: retention is counted on this clock, so a clock set back keeps nothing alive and a clock set far forward destroys
nothing: both are refused until a person accepts the time, which is a ledger line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from onshore.core.errors import OnshoreError
from onshore.store.ledger import LONGEST_GAP_NS, Ledger

DAY_NS = 86_400 * 10**9
#: How long the ledger's head is believed without reading it again.
FRESH_S = 1.0


class Clock:
    """law: the pack's `[clock]`: back_s, the seconds a wall clock may lag the ledger (600 without one)."""

    def __init__(self, ledger: Ledger, law: Mapping[str, Any]) -> None:
        self._ledger = ledger
        self._back_ns = int(law.get("back_s", 600)) * 10**9
        self._floor_ns = self._latest_ns = 0
        self._read_s: float | None = None

    def now_ns(self, *, most_forward_ns: int = LONGEST_GAP_NS) -> int:
        """POSIX nanoseconds. Errors: OnshoreError `clock_jump` when the wall clock lags the ledger, or leads it absurdly.

        most_forward_ns: what counts as absurd; who destroys asks for less than who reads.
        """
        floor, wall = self._floor(), time.time_ns()
        latest = max(floor, self._latest_ns)
        if wall < latest - self._back_ns:
            raise _jumped(f"the wall clock is {(latest - wall) / 1e9:.0f} s behind what the ledger has seen")
        if floor and wall > floor + most_forward_ns:
            raise _jumped(f"the wall clock is {(wall - floor) / DAY_NS:.0f} days ahead of the ledger's last line")
        self._latest_ns = max(latest, wall)
        return self._latest_ns

    def _floor(self) -> int:
        read_s = time.monotonic()
        if self._read_s is None or read_s - self._read_s > FRESH_S:
            self._floor_ns = max(self._floor_ns, self._ledger.head().time_ns)
            self._read_s = read_s
        return self._floor_ns

    def forget(self) -> None:
        """Ask the ledger again at the next question."""
        self._read_s, self._latest_ns = None, 0


def _jumped(what: str) -> OnshoreError:
    advice = "set the clock right; if it is right, `onshore ledger accept-clock` writes that down and goes on."
    return OnshoreError("clock_jump", "clock", f"{what}; {advice}")
