"""Byte counters beside the ledger: exports explain flows, a leak beside the gate does not hide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from border.conftest import Shore
from onshore import border
from onshore.border.reconcile import Flow, explain_flows, flows_of_counters, read_flows, reconcile
from onshore.core.errors import InputError, NotFoundError

SECOND = 10**9
LATER_S = 4_000_000_000


def row(
    count: int, destination: str = "203.0.113.7", start: object = LATER_S - 9, end: object = LATER_S
) -> dict[str, object]:
    return {"start": start, "end": end, "destination": destination, "bytes_out": count}


def exported(shore: Shore, tmp_path: Path) -> int:
    """One real export; how many bytes left."""
    path = border.export(shore.center, shore.weights.id, permit=shore.permit(), out_dir=tmp_path / "out")
    return path.stat().st_size


def test_an_export_explains_its_flow_and_one_megabyte_beside_it_is_flagged(shore: Shore, tmp_path: Path) -> None:
    size = exported(shore, tmp_path)
    flows = tmp_path / "flows.json"
    flows.write_text(json.dumps([row(size + 900)]))
    found = reconcile(shore.center, flows)
    assert found.adds_up and found.silent == () and found.unexplained_bytes == 0
    flows.write_text(json.dumps([row(size + 900), row(1 << 20, "198.51.100.9", end=LATER_S + 1)]))
    leaked = reconcile(shore.center, flows)
    assert not leaked.adds_up and leaked.unexplained_bytes > (1 << 20) - (1 << 15)
    assert [one["destination"] for one in leaked.flagged] == ["198.51.100.9"]
    lines = shore.lines("border.reconciled")
    assert [line["flagged"] for line in lines] == [0, 1]


def test_an_export_that_no_flow_carried_is_named(shore: Shore, tmp_path: Path) -> None:
    exported(shore, tmp_path)
    flows = tmp_path / "flows.csv"
    flows.write_text("start,end,destination,bytes_out\n1970-01-01T00:00:00Z,1970-01-01T00:00:09+00:00,203.0.113.7,0\n")
    assert len(reconcile(shore.center, flows).silent) == 1


def test_an_export_explains_nothing_that_went_before_it(shore: Shore, tmp_path: Path) -> None:
    size = exported(shore, tmp_path)
    flows = tmp_path / "flows.json"
    flows.write_text(json.dumps([row(size, start=1, end=2)]))
    assert reconcile(shore.center, flows).unexplained_bytes == size


def test_flows_inside_the_region_count_for_nothing_and_names_are_not_inside() -> None:
    flows = [
        Flow(start_ns=0, end_ns=SECOND, destination=where, bytes_out=5000) for where in ("10.1.2.3", "files.example")
    ]
    found = explain_flows(flows, [], ["10.0.0.0/8"])
    assert found.inside == 1 and [one["destination"] for one in found.flagged] == ["files.example"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_input"),
        ("\xff", "unknown_format"),
        ("[{]", "unknown_format"),
        ('[{"start": 1, "end": 2, "destination": "a"}]', "missing_column"),
        ('[{"start": "noon", "end": 2, "destination": "a", "bytes_out": 1}]', "clock_disorder"),
        ('[{"start": "2026-11-25T10:00:00", "end": 2, "destination": "a", "bytes_out": 1}]', "clock_disorder"),
        ('[{"start": 3, "end": 2, "destination": "a", "bytes_out": 1}]', "implausible"),
        ('[{"start": 1, "end": 2, "destination": "a", "bytes_out": "many"}]', "implausible"),
        ('[{"start": 1, "end": 2, "destination": "a", "bytes_out": 1e999}]', "implausible"),
        ('[{"start": 1, "end": "inf", "destination": "a", "bytes_out": 1}]', "clock_disorder"),
        ('[{"start": -1e999, "end": 2, "destination": "a", "bytes_out": 1}]', "clock_disorder"),
        ("[" * 100_000, "unknown_format"),
        ("start,end\n" + "1" * 200_000, "unknown_format"),
    ],
)
def test_flows_that_cannot_be_read_are_named(text: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        read_flows(text.encode("latin-1"), "flows")
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["nowhere.csv", "."])
def test_a_file_of_flows_that_is_none_is_named(shore: Shore, tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError, match="flows"):
        reconcile(shore.center, tmp_path / name)


def namespaces() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and subprocess.run(
        ["unshare", "--net", "true"], check=False, capture_output=True
    ).returncode == 0  # fmt: skip


IDLE = """
import sys, time
sys.path[:0] = {path!r}
import onshore.border, onshore.flywheel, onshore.world, onshore.car, onshore.privacy, onshore.model.models
import torch, lance, pyarrow, duckdb, cedarpy, onnxruntime, numba, av, cv2, matplotlib, sqlalchemy, tuf
from onshore.store import Center
center = Center.open({center!r})
center.table("clips").rows()
time.sleep(2)
"""


@pytest.mark.skipif(not namespaces(), reason="needs root and iproute2 to make a network namespace")
def test_an_idle_center_with_all_extras_sends_nothing(shore: Shore, tmp_path: Path) -> None:
    """In a namespace with a default route to a silent neighbour, so that whoever wants to phone home can try."""
    script = tmp_path / "idle.py"
    script.write_text(IDLE.format(path=sys.path, center=str(shore.center.root)))
    setup = (
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 || true; "
        "ip link set lo up; ip link add out type veth peer name far; ip addr add 10.88.0.1/24 dev out; "
        "ip link set out addrgenmode none; ip link set far addrgenmode none; ip link set far up; ip link set out up; ip neigh add 10.88.0.2 lladdr 02:00:00:00:00:02 dev out; "
        "ip route add default via 10.88.0.2; "
    )
    work = f"cat /proc/net/dev > {tmp_path}/before; {sys.executable} {script} && cat /proc/net/dev > {tmp_path}/after"
    leak = (
        f'; {sys.executable} -c "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);'
        " [s.sendto(bytes(1024), ('203.0.113.9', 9)) for _ in range(1024)]\""
        f" && cat /proc/net/dev > {tmp_path}/leaked"
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", setup + work + leak], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after, leaked = ((tmp_path / name).read_text() for name in ("before", "after", "leaked"))
    quiet = flows_of_counters(before, after, 0, SECOND)
    assert [flow.bytes_out for flow in quiet if flow.destination == "out"] == [0]
    flagged = explain_flows(flows_of_counters(after, leaked, SECOND, 2 * SECOND), [])
    assert not flagged.adds_up and flagged.unexplained_bytes >= 1 << 20
