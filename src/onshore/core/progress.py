"""How long work reports itself: a callable that doors turn into a bar with a rate and an ETA, and tests into nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, how much is done and how much there is (0 when not known)."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """No report."""
