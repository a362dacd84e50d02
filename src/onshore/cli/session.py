"""One run of the command: its output, its center, and the person it acts for."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from onshore.cli.show import Output
from onshore.core.errors import UsageError

if TYPE_CHECKING:
    from onshore.store import Center

_output = Output()
_center_dir: str | None = None


def begin(*, as_json: bool, center: str | None) -> None:
    """Forget the last run and take this one's global options."""
    global _output, _center_dir
    _output, _center_dir = Output(as_json=as_json), center


def output() -> Output:
    return _output


def center() -> Center:
    """The center named by --center or ONSHORE_CENTER."""
    from onshore.store import Center

    if not _center_dir:
        raise UsageError("--center", "name the center with --center DIR or ONSHORE_CENTER.")
    return Center.open(_center_dir, actor=actor())


def actor() -> str:
    """The person at the keyboard; the store keeps only a salted id of them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def has_center() -> bool:
    return bool(_center_dir)
