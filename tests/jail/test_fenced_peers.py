"""A job of several nodes talks to its listed peers and to nobody else: two namespaces joined by a veth pair, as root.

Node A has 10.77.0.1, node B 10.77.0.2, and on B's end of the same cable lives a third address, 10.77.0.3, that no node lists.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jail.layers import without
from onshore.core.errors import InputError
from onshore.jail import Jail

IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
A, B, THIRD = "10.77.0.1", "10.77.0.2", "10.77.0.3"
TESTS = Path(__file__).parents[1]
#: Listens on both addresses of node B, tells that it does, and answers with one byte.
SERVER = """
import selectors, socket
waiting = selectors.DefaultSelector()
for address in ("10.77.0.2", "10.77.0.3"):
    waiting.register(socket.create_server((address, 4000)), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b"!")
        connection.close()
"""
#: Runs one function of `prisoners` in a jail with peers and prints what it said, or how it was refused.
NODE = """
import json, sys
from onshore.core.errors import OnshoreError
from onshore.jail import Jail, Limits, child
peers, function, arguments, stand_in = json.loads(sys.argv[1])
child.__file__ = stand_in or child.__file__
jail = Jail(peers=peers, limits=Limits(memory_bytes=1 << 40))
try:
    answer = {"result": jail.run("jail.prisoners:" + function, arguments, timeout_s=240)}
except OnshoreError as fault:
    answer = {"error": fault.as_record() if hasattr(fault, "as_record") else str(fault), "code": getattr(fault, "code", "")}
print(json.dumps({**answer, "attestation": jail.attestation}))
"""


def ip(*words: str) -> None:
    subprocess.run([str(IP), *words], check=True, capture_output=True)


pytestmark = pytest.mark.skipif(os.getuid() != 0 or IP is None, reason="needs root and iproute2")


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """Two namespaces that lead to one another's listed address alone."""
    names = {"a": f"onshore-a-{os.getpid()}", "b": f"onshore-b-{os.getpid()}"}
    if any(subprocess.run([str(IP), "netns", "add", name], capture_output=True).returncode for name in names.values()):
        pytest.skip("this machine gives no named network namespace")
    try:
        ip("link", "add", "to-b", "netns", names["a"], "type", "veth", "peer", "name", "to-a", "netns", names["b"])
        for name, device, own, peer in ((names["a"], "to-b", [A], B), (names["b"], "to-a", [B, THIRD], A)):
            quiet = f"echo 1 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6"
            subprocess.run([str(IP), "netns", "exec", name, "sh", "-c", quiet], check=False, capture_output=True)
            for address in own:
                ip("-n", name, "address", "add", f"{address}/32", "dev", device)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", f"{peer}/32", "dev", device)
        yield names
    finally:
        for name in names.values():
            subprocess.run([str(IP), "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def server(nodes: dict[str, str]) -> Iterator[None]:
    command = [str(IP), "netns", "exec", nodes["b"], sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        yield
        process.kill()


def started(space: str, peers: list[str], function: str, arguments: Any, stand_in: str = "") -> subprocess.Popen[str]:
    path = os.pathsep.join([str(TESTS), *(entry for entry in sys.path if entry)])
    asked = json.dumps([peers, function, arguments, stand_in])
    command = [str(IP), "netns", "exec", space, sys.executable, "-c", NODE, asked]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=280)
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_a_job_reaches_its_peer_and_no_third_address(nodes: dict[str, str], server: None) -> None:
    answer = told(started(nodes["a"], [B], "reach", [[B, 4000], [THIRD, 4000], ["192.0.2.1", 443]]))
    assert answer["attestation"]["layers"]["fenced_network"] == "in force", answer
    assert set(answer["attestation"]["probes"].values()) == {"closed"} and answer["attestation"]["peers"] == [B]
    found = answer["result"]
    assert found[B] == {"plain": "open", "by device": "closed", "datagram": "closed"}
    assert found[THIRD] == found["192.0.2.1"] == {"plain": "closed", "by device": "closed", "datagram": "closed"}


def test_without_the_filter_a_chosen_device_leads_past_the_routes_and_the_job_refuses(
    nodes: dict[str, str], server: None, tmp_path: Path
) -> None:
    """Routes alone are no fence: Linux takes every address to be on a chosen link. The probe finds it."""
    bare = "import json; from jail.prisoners import reach; print(json.dumps(reach([['10.77.0.3', 4000]])))"
    path = os.pathsep.join([str(TESTS), *(entry for entry in sys.path if entry)])
    command = [str(IP), "netns", "exec", nodes["a"], sys.executable, "-c", bare]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    assert json.loads(done.stdout)[THIRD]["by device"] == "open"
    answer = told(started(nodes["a"], [B], "double", {"values": []}, without(tmp_path, "seccomp")))
    assert answer["code"] == "jail_unavailable" and "device" in answer["attestation"]["open"], answer


def test_46_a_network_with_a_route_out_is_no_fence_and_the_job_refuses(nodes: dict[str, str]) -> None:
    for route in (["192.0.2.0/24"], ["default"], ["10.77.0.0/24"], ["198.51.100.0/24", "table", "77"]):
        ip("-n", nodes["a"], "route", "add", *route[:1], "dev", "to-b", *route[1:])
        try:
            answer = told(started(nodes["a"], [B], "double", {"values": []}))
        finally:
            ip("-n", nodes["a"], "route", "delete", *route[:1], "dev", "to-b", *route[1:])
        assert answer["code"] == "jail_unavailable" and "fenced_network" in answer["attestation"]["open"], answer
        assert route[0].split("/")[0] in answer["attestation"]["layers"]["fenced_network"]
    assert told(started(nodes["a"], [B], "double", {"values": [2]}))["result"] == {"doubled": [4]}


def test_46_a_job_in_a_network_without_a_fence_finds_the_way_out_and_refuses(
    nodes: dict[str, str], tmp_path: Path
) -> None:
    """As in a pod on its host's network: no namespace of its own, no filter, and a route that leads out."""
    ip("-n", nodes["a"], "route", "add", "default", "dev", "to-b")
    try:
        answer = told(
            started(nodes["a"], [], "double", {"values": []}, without(tmp_path, "network_namespace", "seccomp"))
        )
    finally:
        ip("-n", nodes["a"], "route", "delete", "default", "dev", "to-b")
    assert answer["code"] == "jail_unavailable" and {"tcp", "udp"} <= set(answer["attestation"]["open"]), answer


def test_two_nodes_train_together_over_the_fence(nodes: dict[str, str]) -> None:
    ranks = [
        started(nodes["a"], [B], "gloo", {"rank": 0, "address": A, "device": "to-b"}),
        started(nodes["b"], [A], "gloo", {"rank": 1, "address": A, "device": "to-a"}),
    ]
    assert [told(process).get("result") for process in ranks] == [3.0, 3.0]


def test_peers_are_addresses_not_names() -> None:
    with pytest.raises(InputError, match="addresses"):
        Jail(peers=["node-b.example"])
