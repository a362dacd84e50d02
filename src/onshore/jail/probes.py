"""Tries every way out that the jail should close, and says what happened.

Rule: a probe reports `closed`, `open` or `not measurable`; a jail that cannot be probed has not been shown to hold.
The addresses are documentation ranges (RFC 5737) and a reserved name (RFC 6761): if a packet gets out, it meets nobody.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

PROBE_TIMEOUT_S = 0.5
TCP_TARGET, UDP_TARGET, NAME = ("192.0.2.1", 443), ("198.51.100.1", 53), "probe.invalid"
#: Errors with which the kernel says that there is no way out; anything else (a timeout, too) means a packet left.
NO_WAY_OUT = frozenset([errno.ENETUNREACH, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.ENETDOWN])


def probe(arguments: dict[str, Any] | None = None) -> dict[str, str]:
    """Try TCP, UDP, name lookup, vsock, raw packets and a write outside; each `closed` or `open`.

    With `peers` in the arguments, also their unlisted neighbours and the choosing of a device past the routes.
    """
    found = {
        "tcp": _connects(socket.AF_INET, socket.SOCK_STREAM, TCP_TARGET),
        "udp": _connects(socket.AF_INET, socket.SOCK_DGRAM, UDP_TARGET),
        "dns": _dns(),
        "vsock": _creates(getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM),
        "packet": _creates(getattr(socket, "AF_PACKET", 17), socket.SOCK_RAW),
        "outside_write": _writes_outside(),
    }
    peers = (arguments or {}).get("peers") or []
    return {**found, **({"neighbours": _neighbours(peers), "device": _chooses_device()} if peers else {})}


def nothing(value: Any) -> Any:
    """Hand back what was given: what a child costs when it has nothing to do."""
    return value


def _neighbours(peers: list[str]) -> str:
    """The addresses beside each peer that are neither listed nor our own: nothing may lead there."""
    listed = {ipaddress.ip_address(peer) for peer in peers}
    beside = {peer + step for peer in listed for step in (-1, 1)} - listed
    ways = [
        _connects(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM, (str(address), 443))
        for address in sorted(beside, key=str)
        if not _is_ours(address)
    ]
    return "open" if "open" in ways else "closed"


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM) as handle:
        try:
            handle.bind((str(address), 0))
        except OSError:
            return False
    return True


def _chooses_device() -> str:
    """On a chosen device Linux takes every address to be on the link, whatever the routes say."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as handle:
        try:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        except OSError:
            return "closed"
    return "open"


def _connects(family: int, kind: int, target: tuple[str, int]) -> str:
    try:
        with socket.socket(family, kind) as handle:
            handle.settimeout(PROBE_TIMEOUT_S)
            handle.connect(target)
            handle.send(b"\0")
    except OSError as fault:
        return "closed" if fault.errno in NO_WAY_OUT else "open"
    return "open"


def _dns() -> str:
    """A resolver that answers (even 'no such name') was reached; only a failure to reach one is closed."""
    try:
        socket.getaddrinfo(NAME, 443)
    except socket.gaierror as fault:
        if _connects(socket.AF_INET, socket.SOCK_DGRAM, UDP_TARGET) == "closed" and fault.errno in _UNREACHED:
            return "closed"
        return "open"
    except OSError as fault:
        return "closed" if fault.errno in NO_WAY_OUT else "open"
    return "open"


_UNREACHED = frozenset([socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_FAIL, socket.EAI_NONAME, socket.EAI_NODATA])


def _creates(family: int, kind: int) -> str:
    try:
        socket.socket(family, kind).close()
    except OSError:
        return "closed"
    return "open"


def _writes_outside() -> str:
    """A write where no jail may: beside the temporary folder, in the system's folders, among what is only to be read."""
    beside, own = Path(tempfile.gettempdir()).parent, Path(__file__).resolve().parent
    for folder in (beside, Path("/var/tmp"), Path("/"), Path("/usr"), Path(sys.prefix), own):
        target = folder / f"onshore-probe-{os.getpid()}"
        try:
            target.write_bytes(b"")
        except OSError:
            continue
        target.unlink()
        return "open"
    return "closed"
