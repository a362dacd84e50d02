"""One run of the command: its output, its center, and the person it acts for."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.cli.show import Output
from onshore.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from onshore.border.viewing import Viewer
    from onshore.store import Center

_output = Output()
_center_dir: str | None = None
_verb = ""
_acting_as: str | None = None
_certificate: str | None = None
_open: Center | None = None


def begin(
    *, as_json: bool, center: str | None, verb: str = "", acting_as: str | None = None, certificate: str | None = None
) -> None:
    """Forget the last run and take this one's global options. verb: 'border permit approve'."""
    global _output, _center_dir, _verb, _acting_as, _certificate, _open
    _output, _center_dir, _open = Output(as_json=as_json), center, None
    _verb, _acting_as, _certificate = verb, acting_as, certificate


def output() -> Output:
    return _output


def center() -> Center:
    """The center named by --center or ONSHORE_CENTER, for a person whose role allows this verb from where they are."""
    global _open
    from onshore.border import users, viewing
    from onshore.store import Center

    if not _center_dir:
        raise UsageError("--center", "name the center with --center DIR or ONSHORE_CENTER.")
    if _open is None:
        opened = Center.open(_center_dir, actor=actor())
        users.admit(opened, _verb, first=_acting_as is None)
        if _verb not in users.OPEN | users.SHOWING_NOTHING | users.SIFTING:
            viewing.refuse_abroad(opened, _viewer(opened), _verb)
        _open = opened
    return _open


def look(name: str) -> None:
    """May the person at the keyboard see the record called `name`? Asked before it is printed."""
    from onshore.border import viewing

    viewing.view(center(), _viewer(center()), name)


def sift(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that the person at the keyboard may see."""
    from onshore.border import viewing

    return viewing.visible(center(), _viewer(center()), rows)


def _viewer(opened: Center) -> Viewer:
    """From the certificate given, or the one that lies in the key folder for this name; else an account."""
    from onshore.border import viewing

    pem = viewing.kept_certificate(opened, actor())
    if _certificate is not None:
        try:
            pem = Path(_certificate).read_bytes()
        except OSError as fault:
            raise NotFoundError(
                _certificate, "ONSHORE_CERTIFICATE names a PEM file with certificate and key."
            ) from fault
    if pem is not None:
        viewing.prove_possession(pem)
    return viewing.identify(opened, actor(), pem)


def actor() -> str:
    """The person this run acts as: --as or ONSHORE_USER, else the machine's account. The store keeps a salted id only."""
    if _acting_as:
        return _acting_as
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def has_center() -> bool:
    return bool(_center_dir)
