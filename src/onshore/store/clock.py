"""The center's time: the wall clock where it agrees with the ledger, and never earlier than what the ledger has seen.

Rule: retention is counted on this clock, so a clock set back keeps nothing alive and a clock set far forward destroys
nothing: both are refused until a person accepts the time, which is a ledger line. From such a line time goes on, also where
it lies before lines that a wrong clock has left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from onshore.core.errors import OnshoreError
from onshore.store.ledger import CLOCK_ACCEPTED, LONGEST_GAP_NS, Ledger

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
            raise _jumped(
                f"the wall clock is {(latest - wall) / 1e9:.0f} s behind what the ledger has seen",
                "the ledger saw a wrong time, and `onshore ledger accept-clock` writes that down and goes on from this one.",
            )
        if floor and wall > floor + most_forward_ns:
            raise _jumped(f"the wall clock is {(wall - floor) / DAY_NS:.0f} days ahead of the ledger's last line")
        self._latest_ns = max(latest, wall)
        return self._latest_ns

    def refuse_leaps(self, most_forward_ns: int) -> None:
        """For who destroys by the clock. Errors: OnshoreError `clock_jump` when time leapt in the ledger by more than that
        and nobody has accepted the clock since: any line, also that of a refusal, would hide a clock set far forward."""
        leap, before_ns = None, 0
        for entry in self._ledger.entries():
            ahead_ns = entry.time_ns - before_ns
            if entry.kind == CLOCK_ACCEPTED:
                leap = None
            elif entry.index and ahead_ns > most_forward_ns:
                leap = f"entry {entry.index} of the ledger is {ahead_ns / DAY_NS:.0f} days after the one before it"
            before_ns = entry.time_ns
        if leap is not None:
            raise _jumped(leap)

    def _floor(self) -> int:
        read_s = time.monotonic()
        if self._read_s is None or read_s - self._read_s > FRESH_S:
            seen_ns = self._ledger.head().time_ns
            if seen_ns < self._floor_ns:  # a person said that the time before was wrong
                self._latest_ns = 0
            self._floor_ns, self._read_s = seen_ns, read_s
        return self._floor_ns

    def forget(self) -> None:
        """Ask the ledger again at the next question."""
        self._read_s, self._latest_ns = None, 0


def _jumped(what: str, way_out: str = "`onshore ledger accept-clock` writes that down and goes on.") -> OnshoreError:
    return OnshoreError("clock_jump", "clock", f"{what}; set the clock right; if it is right, {way_out}")
