"""Attempts against the jail by number, one layer taken away at a time, and what is left behind: nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jail.layers import STEPS, without
from onshore.core.errors import InputError, OnshoreError, RefusedError
from onshore.jail import Jail, Limits, child, kernel

WHOLE = not Jail(tolerant=True).run_attested("onshore.jail.probes:probe").attestation["missing"]
needs_all = pytest.mark.skipif(not WHOLE, reason="this machine does not give the whole jail")
#: A thread that starts before any fence stands, waits, and tries to connect when it is asked.
EARLY = """
import queue, socket, threading
asked, answered = queue.Queue(), queue.Queue()
def act():
    asked.get()
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=2)
    except OSError as fault:
        answered.put(f"closed: {fault}" if fault.errno in (1, 101) else f"open: {fault}")
    else:
        answered.put("open")
threading.Thread(target=act, daemon=True).start()
sys.early = asked, answered
"""
#: A socket that is made before the network is left; its number is 9.
MADE_BEFORE = """
import os, socket
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.connect({address!r})
os.dup2(made.fileno(), 9)
"""


def run(function: str, arguments: Any = None, jail: Jail | None = None, **options: Any) -> Any:
    return (jail or Jail()).run(f"jail.prisoners:{function}", arguments, **options)


# -- 44: ways that were open before the fences stood ----------------------------------------------------------------------


@needs_all
def test_44_a_thread_that_started_before_the_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a thread keeps its network namespace; the filter reaches it all the same (TSYNC)."""
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=EARLY))
    jail = Jail(tolerant=True)
    assert run("early_thread", None, jail).startswith("closed: [Errno 1]")
    assert jail.attestation["layers"]["seccomp"] == "in force"
    monkeypatch.setattr(child, "__file__", without(tmp_path, "seccomp", before=EARLY))
    assert run("early_thread", None, Jail(tolerant=True)).startswith("open")  # without it the attempt succeeds


def test_44_an_inherited_connected_descriptor() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)
        assert run("use_descriptor", theirs.fileno()).startswith("closed")


def test_44_a_socket_made_before_the_network_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.5)
        made = MADE_BEFORE.format(address=listening.getsockname())
        monkeypatch.setattr(child, "__file__", without(tmp_path, before=made))
        assert run("use_descriptor", 9).startswith("closed")
        with pytest.raises(TimeoutError):
            listening.recv(9)
        monkeypatch.setattr(child, "__file__", without(tmp_path, "descriptors", before=made))
        assert run("use_descriptor", 9) == "open" and listening.recv(9) == b"leak"  # it would have sent


@needs_all
def test_44_an_accomplice_hands_over_a_descriptor(tmp_path: Path) -> None:
    """SCM_RIGHTS over a socket file: out of reach of the jail, within reach without one."""
    path = str(tmp_path / "accomplice")
    leaks, theirs = socket.socketpair()
    leaks.settimeout(0.5)
    with leaks, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        thread = threading.Thread(target=_hand_over, args=(server, theirs), daemon=True)
        thread.start()
        assert run("receive_from_accomplice", path).startswith("closed")
        with pytest.raises(TimeoutError):
            leaks.recv(9)
        from jail.prisoners import receive_from_accomplice

        assert receive_from_accomplice(path) == "open" and leaks.recv(9) == b"leak"
        thread.join(5)


def _hand_over(server: socket.socket, given: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        socket.send_fds(connection, [b"x"], [given.fileno()])


# -- 54: nothing is left behind -------------------------------------------------------------------------------------------


@needs_all
def test_54_folders_are_memory_of_the_run_and_gone_with_it(tmp_path: Path) -> None:
    marker = "marker-5d1c88f0"
    places = run("leave_behind", marker)
    assert "/dev/shm" in places and "/tmp" not in places and "/var/tmp" not in places
    for folder in ("/dev/shm", "/tmp", "/var/tmp"):
        assert not (Path(folder) / "left-behind").exists()
    assert not any(Path(place).exists() for place in places if place != "/dev/shm")


@needs_all
def test_54_no_core_is_written_and_no_pipe_gets_one(tmp_path: Path) -> None:
    """A dying child that holds a marker leaves no core; its limit is the one that also stops core_pattern pipes."""
    before = {*Path("/tmp").glob("core*"), *Path.cwd().glob("core*")}
    with pytest.raises(InputError, match="limit_exceeded"):
        run("crash", "marker-77aa01", write_dirs=[tmp_path])
    assert {*tmp_path.rglob("*"), *Path("/tmp").glob("core*"), *Path.cwd().glob("core*")} <= before
    assert run("core_limit") == [kernel.NO_CORE, kernel.NO_CORE]


# -- one layer less -------------------------------------------------------------------------------------------------------


@needs_all
@pytest.mark.parametrize("layer", [layer for layer in STEPS if layer not in ("descriptors", "fenced_network")])
def test_with_one_layer_less_no_way_leads_out_or_the_work_is_refused(
    layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "__file__", without(tmp_path, layer))
    jail = Jail()
    try:
        found = {**run("attempt", None, jail), **run("outside_write", None, jail)}
    except RefusedError as fault:
        assert fault.code == "jail_unavailable" and jail.attestation["open"]
    else:
        ways = ("connect", "connect6", "datagram", "dns", "vsock", "packet", "in a thread", "in a child")
        outward = {name: text for name, text in found.items() if name in ways or name.startswith("outside_write")}
        if layer == "seccomp":  # a vsock can be made, and a vsock that can be made is a way out: refused above
            assert "vsock" not in outward or outward["vsock"].startswith("closed")
        assert {name for name, text in outward.items() if not text.startswith("closed")} == set()
    assert layer in jail.attestation["missing"]
    with pytest.raises(RefusedError, match="jail_unavailable"):
        run("double", {"values": []}, Jail(strict=True))


# -- as somebody else, on something else ----------------------------------------------------------------------------------


def _interpreter_for_anybody() -> str | None:
    """A Python of this version or later that an unprivileged user may start."""
    if os.getuid() != 0:
        return sys.executable
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", name, "-c", STARTS_ITSELF],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return name
    return None


STARTS_ITSELF = "import subprocess, sys, tomllib; subprocess.run([sys.executable, '-c', ''], check=True)"
AS_NOBODY = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from onshore.jail import Jail
jail = Jail(tolerant=True)
probes = jail.run("onshore.jail.probes:probe")
print(json.dumps({"uid": os.getuid(), "probes": probes, "missing": jail.attestation["missing"], "open": jail.attestation["open"]}))
"""


def _as_nobody(tmp: Path, *, in_chroot: bool) -> dict[str, Any]:
    """What the jail says when an unprivileged user starts it, also in a chroot (where no user namespace may be made)."""
    interpreter = _interpreter_for_anybody()
    if interpreter is None or not all(shutil.which(name) for name in ("setpriv", "unshare", "chroot")):
        pytest.skip("no Python here that an unprivileged user may start")
    shutil.copytree(Path(child.__file__).parents[1], tmp / "src/onshore", ignore=shutil.ignore_patterns("*.pyc"))
    (tmp / "root").mkdir()
    for folder in (tmp, *tmp.rglob("*")):
        folder.chmod(0o755)
    program = [interpreter, "-c", AS_NOBODY, str(tmp / "src")]
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *program]
    if in_chroot:
        inside = f'mount --rbind / {tmp}/root && exec chroot --userspec=65534:65534 {tmp}/root "$@"'
        command = ["unshare", "-m", "sh", "-c", inside, "sh", *program]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/var/tmp", check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["uid"] == 65534 and set(found["probes"].values()) == {"closed"} and found["open"] == []
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_an_unprivileged_user_gets_the_same_jail() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        found = _as_nobody(Path(name), in_chroot=False)
    if WHOLE:
        assert found["missing"] == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_in_a_chroot_without_privileges_no_way_is_open_and_what_is_missing_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        found = _as_nobody(Path(name), in_chroot=True)
    assert found["missing"] == ["network_namespace", "private_memory", "private_root"]


@pytest.mark.parametrize("machine", ["riscv64", "armv7l", "i686"])
def test_on_another_machine_the_filter_is_not_claimed(
    machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend = f"import platform; platform.machine = lambda: {machine!r}"
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=pretend))
    jail = Jail(tolerant=True)
    run("double", {"values": []}, jail)
    assert jail.attestation["layers"]["seccomp"] == f"missing: no system call numbers for {machine}"


@needs_all
def test_numbers_of_another_machine_are_never_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is wrong for this processor kills the child or lets a call by; neither passes for a filter."""
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    wrong = f"kernel.MACHINES = {{k: kernel.MACHINES[{other!r}] for k in kernel.MACHINES}}"
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=wrong))
    jail = Jail(tolerant=True)
    try:
        run("double", {"values": []}, jail)
    except OnshoreError:
        return
    assert jail.attestation["layers"]["seccomp"].startswith("missing")


@needs_all
def test_a_filter_that_lets_a_call_by_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One denied number left out of the program: the trial of every denied call finds it."""
    hole = (
        "whole = kernel.socket_filter\n"
        "def holed(machine, families, **options):\n"
        "    audit, number, made, denied = kernel.MACHINES[machine]\n"
        "    kept = kernel.MACHINES[machine]\n"
        "    kernel.MACHINES = {**kernel.MACHINES, machine: (audit, number, made, denied[:3] + denied[4:])}\n"
        "    try:\n"
        "        return whole(machine, families, **options)\n"
        "    finally:\n"
        "        kernel.MACHINES = {**kernel.MACHINES, machine: kept}\n"
        "kernel.socket_filter = holed"
    )
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=hole))
    jail = Jail(tolerant=True)
    run("double", {"values": []}, jail)
    assert "passes the filter" in jail.attestation["layers"]["seccomp"]


# -- the pipe ------------------------------------------------------------------------------------------------------------


def test_a_child_answers_many_calls_and_carries_bytes() -> None:
    with Jail().open("jail.prisoners:count") as cell:
        assert [cell.call(n) for n in (1, 2, 3)] == [1, 3, 6]
    value = {"a": b"\x00\xff" * 500_000, "list": [1.5, None, b"", {"deep": b"x"}], "text": "ü"}
    assert run("echo", value) == value


def test_it_gets_by_name_what_its_parent_serves_and_nothing_else() -> None:
    served = {"one": b"1", "two": b"22"}
    told: list[tuple[str, int, int]] = []
    with Jail().open("jail.prisoners:ask_twice", serve=served.__getitem__) as cell:
        assert cell.call(["one", "two"], progress=lambda *at: told.append(at)) == [1, 2]
        with pytest.raises(KeyError):
            cell.call(["three"])
        assert cell.closed
    assert told == [("asking", 1, 2)]
    with pytest.raises(InputError, match="not given"):
        run("ask_twice", ["one"])


@pytest.mark.parametrize(
    "message",
    [
        5,
        [],
        None,
        {"error": 5},
        {"error": {"code": "x"}},
        {"error": {"code": []}},
        {"error": {"code": "corrupt"}},
        {"error": {"code": "corrupt", "rule": "r", "type": "RefusedError"}},
        {"progress": [1]},
        {"progress": ["a", float("inf"), 1]},
        {"progress": 5},
        {"hand": 5},
        {"hand": ["name"]},
        {},
    ],
)
def test_a_child_that_says_what_has_no_sense_is_ended(message: Any) -> None:
    with Jail(probe=False).open("jail.prisoners:say") as cell:
        with pytest.raises(InputError) as caught:
            cell.call(message, take=lambda *_: None)
        assert caught.value.code == "limit_exceeded" and cell.closed


def test_an_answer_beyond_its_limit_ends_the_child() -> None:
    with pytest.raises(InputError, match="limit_exceeded"):
        run("echo", b"x" * 4096, Jail(limits=Limits(answer_bytes=2048)))


@needs_all
def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    code = (
        "import sys; from onshore.jail import Jail\n"
        "cell = Jail().open('jail.prisoners:sleep'); print(cell._process.pid, flush=True); cell.call(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        jailed = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{jailed}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{jailed}/stat").exists() or " Z " in Path(f"/proc/{jailed}/stat").read_text()


@needs_all
def test_two_processes_in_one_jail_train_together() -> None:
    assert run("gloo_pair", None, Jail(limits=Limits(memory_bytes=1 << 40, files=1024)), timeout_s=240) == [3.0, 3.0]
