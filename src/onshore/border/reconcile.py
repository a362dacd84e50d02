"""Does what the network carried agree with what the ledger says left? Byte counters beside export lines.

Rule: pure arithmetic over flows that somebody outside the center measured (a firewall, a namespace's counters). Every byte
to an address outside must be an export that was written down before the flow ended; what is not is flagged, and so is an
export that no flow carried: a USB stick leaves no flow. Nothing here proves that the counters are true.
"""

from __future__ import annotations

import csv
import io
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border.book import Exported, verified_book
from onshore.border.lines import acting
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from onshore.store import Center

RECONCILED = "border.reconciled"
COLUMNS = ("start", "end", "destination", "bytes_out")
#: Headers, handshakes and repeats on the way: a share of the file, and a fixed amount per export.
OVERHEAD_SHARE, OVERHEAD_BYTES = 0.05, 16 << 10
FILE_LIMIT = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Bytes that went to one destination between two times (POSIX ns)."""

    start_ns: int
    end_ns: int
    destination: str
    bytes_out: int


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """flagged: flows with bytes that no export explains. silent: digests of exports that no flow carried in full."""

    flows: int
    inside: int
    bytes_out: int
    unexplained_bytes: int
    flagged: tuple[dict[str, Any], ...]
    silent: tuple[str, ...]

    @property
    def adds_up(self) -> bool:
        return not self.flagged

    def as_record(self) -> dict[str, Any]:
        return {**vars(self), "adds_up": self.adds_up, "trust": "as far as the counters are"}


def reconcile(center: Center, flows_file: Path, *, inside: Sequence[str] = ()) -> Reconciliation:
    """Compare a file of flows with the center's export lines; the answer is a ledger line.

    inside: networks (CIDR) of the region, to which data may go. Errors: NotFoundError without such a file; InputError
    naming the row and field; CorruptError `ledger_broken` when the ledger does not verify.
    """
    data = _bytes_of(flows_file)
    found = explain_flows(read_flows(data, str(flows_file)), verified_book(center).exports, inside)
    body = {
        "flows": sha256_hex(data),
        "bytes_out": found.bytes_out,
        "unexplained_bytes": found.unexplained_bytes,
        "flagged": len(found.flagged),
        "silent": len(found.silent),
        "by": acting(center),
    }
    center.ledger.append(RECONCILED, body)
    return found


def _bytes_of(flows_file: Path) -> bytes:
    try:
        if flows_file.stat().st_size > FILE_LIMIT:
            raise InputError("limit_exceeded", flows_file, f"at most {FILE_LIMIT} bytes; split it by day.")
        return flows_file.read_bytes()
    except OSError as problem:
        raise NotFoundError(flows_file, "name a file of flows that can be read.") from problem


def explain_flows(flows: Iterable[Flow], exports: Sequence[Exported], inside: Sequence[str] = ()) -> Reconciliation:
    """Draw every outward flow's bytes, in order of time, from the exports written before it ended."""
    networks = [_network(text) for text in inside]
    left = {index: _room(one) for index, one in enumerate(exports)}
    outward, flagged, unexplained = 0, [], 0
    ordered = sorted(flows, key=lambda flow: (flow.end_ns, flow.destination))
    away = [flow for flow in ordered if not _is_inside(flow.destination, networks)]
    for flow in away:
        outward += flow.bytes_out
        rest = flow.bytes_out
        for index, one in enumerate(exports):
            if rest and one.time_ns <= flow.end_ns:
                taken = min(rest, left[index])
                left[index] -= taken
                rest -= taken
        if rest:
            unexplained += rest
            flagged.append({**vars(flow), "unexplained_bytes": rest})
    silent = [one.sha256 for index, one in enumerate(exports) if left[index] > _room(one) - one.bytes]
    return Reconciliation(
        flows=len(ordered),
        inside=len(ordered) - len(away),
        bytes_out=outward,
        unexplained_bytes=unexplained,
        flagged=tuple(flagged),
        silent=tuple(silent),
    )


def read_flows(data: bytes, subject: str) -> list[Flow]:
    """Flows from CSV with the columns start, end, destination, bytes_out (more are ignored) or a JSON list of the same.

    Times are ISO 8601 with an offset, or seconds since 1970. Raises InputError naming the row and field.
    """
    try:
        text = data.decode("utf-8-sig")
        rows = json.loads(text) if text.lstrip().startswith("[") else list(csv.DictReader(io.StringIO(text)))
    except (ValueError, RecursionError, csv.Error) as problem:
        raise InputError("unknown_format", subject, f"give CSV or a JSON list in UTF-8 ({problem}).") from problem
    if not rows:
        raise InputError("empty_input", subject, f"no flow in it; the columns are {', '.join(COLUMNS)}.")
    return [_flow(row, f"{subject} row {number}") for number, row in enumerate(rows, start=1)]


def flows_of_counters(before: str, after: str, start_ns: int, end_ns: int) -> list[Flow]:
    """One flow per interface from two readings of /proc/net/dev; the loopback is left out."""
    first, last = _transmitted(before), _transmitted(after)
    return [
        Flow(start_ns=start_ns, end_ns=end_ns, destination=name, bytes_out=count - first.get(name, 0))
        for name, count in sorted(last.items())
        if name != "lo"
    ]


def _transmitted(text: str) -> dict[str, int]:
    rows = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): int(counters.split()[8]) for name, _, counters in rows}


def _flow(row: Any, subject: str) -> Flow:
    missing = [name for name in COLUMNS if not isinstance(row, dict) or row.get(name) in (None, "")]
    if missing:
        raise InputError("missing_column", subject, f"it lacks {', '.join(missing)}.")
    start_ns, end_ns = (_time_ns(row[name], f"{subject} {name}") for name in ("start", "end"))
    try:
        count = int(row["bytes_out"])
    except (TypeError, ValueError, OverflowError) as problem:
        raise InputError("implausible", f"{subject} bytes_out", "give a whole number of bytes.") from problem
    if count < 0 or end_ns < start_ns:
        raise InputError("implausible", subject, "bytes are not negative and a flow ends after it starts.")
    return Flow(start_ns=start_ns, end_ns=end_ns, destination=str(row["destination"]), bytes_out=count)


def _time_ns(value: Any, subject: str) -> int:
    try:
        return round(float(value) * 1e9)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError as problem:
        raise InputError("clock_disorder", subject, "give ISO 8601 or seconds since 1970.") from problem
    if when.tzinfo is None:
        raise InputError("clock_disorder", subject, "a time needs its offset to UTC, such as +08:00 or Z.")
    return round(when.timestamp() * 1e9)


def _room(one: Exported) -> int:
    return int(one.bytes * (1 + OVERHEAD_SHARE)) + OVERHEAD_BYTES


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise InputError(
            "bad_config", f"inside {text!r}", f"give a network such as 10.0.0.0/8 ({problem})."
        ) from problem


def _is_inside(destination: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(destination)
    except ValueError:
        return False  # a name or an interface: nobody said where it lies
    return any(address in network for network in networks)
