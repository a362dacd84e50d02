"""When a recording can have been made: not in the future, not before its car was built.

Rule: only what the recording's own clock says about UTC is judged; a boot clock without an offset says nothing. Retention is
counted from intake by the center's clock in any case, so a false date prolongs nothing.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from onshore.core.errors import InputError
from onshore.core.recording import Recording
from onshore.store import Center

#: How far a car's clock may lead the center's.
AHEAD_NS = 3600 * 10**9
EARLIEST = "2005-01-01"


def check_times(recording: Recording, center: Center, made_ns: int | None) -> None:
    """Raises InputError `clock_disorder` for a recording of the future or from before its car (or any such car) was made.

    made_ns: when the vehicle was built, if somebody said so.
    """
    span = utc_span_ns(recording)
    if span is None:
        return
    first, last = span
    if last > center.clock.now_ns() + AHEAD_NS:
        raise InputError("clock_disorder", "recording", "its times lie in the future; set the recorder's clock right.")
    earliest = date.fromisoformat(str(center.pack.law.get("intake", {}).get("earliest", EARLIEST)))
    least = int(datetime.combine(earliest, datetime.min.time(), UTC).timestamp()) * 10**9
    if first < max(least, made_ns or least):
        raise InputError("clock_disorder", "recording", "its times lie before the vehicle was built.")


def utc_span_ns(recording: Recording) -> tuple[int, int] | None:
    """First and last time in UTC (POSIX ns), with the uncertainty in the recording's favour; None where nothing is known."""
    clock = recording.clock
    offset = clock.utc_offset_ns if clock.utc_offset_ns is not None else (0 if clock.kind == "utc" else None)
    if offset is None:
        return None
    doubt = clock.uncertainty_ns or 0
    return recording.start_ns + offset + doubt, recording.end_ns + offset - doubt
