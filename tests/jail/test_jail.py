"""The jail holds: each layer does what it says, and says so when it is not there."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jail.layers import without
from onshore.core.errors import InputError, OnshoreError, RefusedError
from onshore.jail import Jail, Limits, child, gpu_files, kernel, launch, probe

JAILED = Jail()


@functools.cache
def layers() -> dict[str, str]:
    JAILED.run("jail.prisoners:double", {"values": []})
    return dict(JAILED.attestation["layers"])


def needs(*names: str) -> pytest.MarkDecorator:
    try:
        missing = sorted(name for name in names if layers()[name] != "in force")
    except OnshoreError as fault:
        missing = [str(fault)]
    return pytest.mark.skipif(bool(missing), reason=f"this machine gives no {', '.join(missing)}")


NAMESPACE = needs("network_namespace")
ALL = needs("network_namespace", "landlock", "seccomp")


def run(function: str, arguments: Any = None, jail: Jail = JAILED, **options: Any) -> Any:
    return jail.run(f"jail.prisoners:{function}", arguments, **options)


def test_work_is_done_and_attested() -> None:
    jail = Jail()
    assert run("double", {"values": [1, 2.5]}, jail) == {"doubled": [2, 5.0]}
    assert set(jail.attestation) == {"layers", "probes", "missing", "open", "peers", "devices"}
    assert set(jail.attestation["probes"]) == set(probe())
    assert jail.attestation["missing"] == sorted(
        name for name, state in jail.attestation["layers"].items() if state != "in force"
    )


@ALL
def test_every_way_out_is_closed() -> None:
    outcome = run("attempt")
    assert {name for name, text in outcome.items() if not text.startswith("closed")} == set()
    assert set(
        Jail(strict=True).run_attested("jail.prisoners:double", {"values": []}).attestation["probes"].values()
    ) == {"closed"}


@NAMESPACE
def test_loopback_works() -> None:
    assert run("loopback") == "hello"


@ALL
def test_a_given_device_is_attested_and_opens_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU needs it; the device here is the kernel's random numbers, which any machine has."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/driver/lib64")
    given, bare = "/dev/random", Jail()
    with bare.open("jail.prisoners:with_device", devices=[given]) as cell:
        found = cell.call(given)
    assert bare.attestation["devices"] == [given] and set(bare.attestation["probes"].values()) == {"closed"}
    assert found.pop("libraries") == "/usr/local/driver/lib64"
    assert {name for name, text in found.items() if not text.startswith("closed")} == {"device", "own thread"}
    without_it = run("with_device", given, bare)
    assert bare.attestation["devices"] == [] and without_it.pop("libraries") == ""
    assert {name for name, text in without_it.items() if not text.startswith("closed")} == set()


def test_this_machines_gpus_are_named_by_their_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "dri/card0", "nvram"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    patterns = [pattern.replace("/dev", str(tmp_path)) for pattern in launch.GPU_FILES]
    monkeypatch.setattr(launch, "GPU_FILES", patterns)
    names = [Path(path).name for path in gpu_files()]
    assert names == ["nvidia-cap1", "nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"]


def test_no_folder_and_no_plain_file_is_given_as_a_device(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("/dev", str(tmp_path / "file"), str(tmp_path / "nothing")):
        with pytest.raises(InputError, match="character device"):
            Jail().open("jail.prisoners:double", devices=[path])


def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONSHORE_SECRET", "x")
    seen = run("environment")
    assert "ONSHORE_SECRET" not in seen["names"] and "PATH" in seen["names"]


def test_inherited_descriptors_are_closed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)
        assert run("send_to", theirs.fileno()).startswith("closed")
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


@needs("landlock")
def test_files_outside_are_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/file").write_text("in", encoding="utf8")
    (tmp_path / "out/file").write_text("out", encoding="utf8")
    (tmp_path / "in/link").symlink_to(tmp_path / "out/file")
    reach = {"read_dirs": [tmp_path / "in"]}
    assert run("read_file", str(tmp_path / "in/file"), **reach) == "in"
    for path in ("out/file", "in/link"):
        with pytest.raises(OnshoreError, match=r"PermissionError|FileNotFoundError"):
            run("read_file", str(tmp_path / path), **reach)
    with pytest.raises(OnshoreError, match="PermissionError"):
        run("write_file", str(tmp_path / "in/new"), **reach)
    assert run("write_file", str(tmp_path / "out/new"), write_dirs=[tmp_path / "out"])
    assert (tmp_path / "out/new").read_text(encoding="utf8") == "written"


@needs("landlock")
def test_files_are_out_of_reach_without_a_root_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("out", encoding="utf8")
    monkeypatch.setattr(child, "__file__", without(tmp_path, "private_root"))
    with pytest.raises(OnshoreError, match="PermissionError"):
        run("read_file", str(tmp_path / "file"), Jail())


def test_a_child_that_runs_too_long_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="limit_exceeded"):
        run("sleep", 60, timeout_s=1.0)
    assert time.monotonic() - started < 10


def test_limits_bite() -> None:
    small = Jail(limits=Limits(memory_bytes=1 << 29, cpu_s=1))
    assert run("allocate", 1 << 20, small) == 1 << 20
    with pytest.raises(OnshoreError, match="MemoryError"):
        run("allocate", 1 << 30, small)
    with pytest.raises(InputError, match="limit_exceeded"):
        run("spin", None, small, timeout_s=30)
    with pytest.raises(InputError, match="memory_bytes"):
        Limits(memory_bytes=0)


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(OnshoreError, match=r"ValueError.*odd"):
        run("raise_value_error", "odd")
    with pytest.raises(RefusedError, match="raw_ban"):
        run("raise_refusal")
    with pytest.raises(InputError, match="damaged_video") as caught:
        run("raise_input_error")
    assert caught.value.as_record() == {
        "code": "damaged_video",
        "subject": "clip.mp4",
        "advice": "it cannot be decoded",
    }


@pytest.mark.parametrize("target", ["jail.prisoners:missing", "no.such.module:f", "nothing"])
def test_what_is_not_there_is_an_error(target: str) -> None:
    with pytest.raises(OnshoreError):
        JAILED.run(target)


def test_a_child_that_dies_or_answers_nonsense_is_an_error() -> None:
    with pytest.raises(InputError, match=r"without an answer.*(status 3|no answer)"):
        run("exit_hard", 3)
    with pytest.raises(InputError, match="without an answer"):
        run("exit_hard", 0)
    with pytest.raises(OnshoreError, match="TypeError"):
        run("not_json")
    assert run("print_much") == "done"


def test_strict_refuses_where_a_layer_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that may not make namespaces any more stands for a machine that forbids them."""
    monkeypatch.setattr(child, "__file__", str(Path(__file__).parent / "without_namespace.py"))
    lax, strict = Jail(), Jail(strict=True)
    assert run("double", {"values": [1]}, lax) == {"doubled": [2]}
    assert lax.attestation["layers"]["network_namespace"].startswith("missing")
    assert "network_namespace" in lax.attestation["missing"]
    with pytest.raises(RefusedError, match=r"jail_unavailable.*network_namespace"):
        run("double", {"values": [1]}, strict)
    assert strict.attestation["missing"], "the refusal says what is missing"


@needs("seccomp")
def test_without_a_namespace_the_filter_closes_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "__file__", str(Path(__file__).parent / "without_namespace.py"))
    outcome = run("attempt")
    assert {
        name for name in ("connect", "datagram", "vsock", "packet") if not outcome[name].startswith("closed")
    } == set()


def test_a_host_without_a_jail_probes_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The probes can fail: a write outside is possible here, so that `closed` in the jail means something."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    code = "import json; from onshore.jail import probe; print(json.dumps(probe()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "x")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert '"outside_write": "open"' in done.stdout


@ALL
def test_nobody_outside_can_be_signalled_and_no_capability_is_left() -> None:
    assert run("kill_outside", os.getpid()).startswith("closed")
    assert run("capabilities") == {"CapEff": 0, "CapPrm": 0, "CapBnd": 0}


def test_the_filter_for_both_machines_jumps_within_itself() -> None:
    for machine in kernel.MACHINES:
        for families in (kernel.FAMILIES, kernel.LOCAL_FAMILIES):
            program = kernel.socket_filter(machine, families)
            for index, (code, yes, no, _) in enumerate(program):
                assert code in {kernel.LOAD, kernel.RETURN} or index + 1 + max(yes, no) < len(program)
            assert program[-1][0] == kernel.RETURN and program[-1][3] != kernel.RET_ALLOW


def test_the_request_names_every_folder_absolutely(tmp_path: Path) -> None:
    request = Jail()._request("m:f", [tmp_path / "a/../b"], [])
    assert str(tmp_path / "b") in request["read"] and all(Path(path).is_absolute() for path in request["read"])
    assert launch.SYSTEM_FOLDERS[0] in request["read"]
