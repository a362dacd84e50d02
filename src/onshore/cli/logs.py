"""Log lines for people: a line may be lost, and it never says who drove or where.

Rule: whatever a library or a room writes, its message and its exception text pass the mask before anybody reads them.
"""

from __future__ import annotations

import logging
import sys


class Masking(logging.Formatter):
    """Formats a record with its exception, then hides vehicle numbers, plates and precise positions."""

    def format(self, record: logging.LogRecord) -> str:
        from onshore.border.scan import masked

        return masked(super().format(record))


def begin(level: int = logging.WARNING) -> None:
    """Log to stderr through the mask; a second call changes nothing."""
    if any(isinstance(handler.formatter, Masking) for handler in logging.root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Masking("%(levelname)s %(name)s: %(message)s"))
    logging.root.addHandler(handler)
    logging.root.setLevel(level)
