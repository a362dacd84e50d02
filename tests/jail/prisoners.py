"""What runs inside the jail in these tests: honest work, and attempts to get out."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from onshore.core.errors import InputError, Refusal, RefusedError


def double(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": [2 * value for value in arguments["values"]]}


def environment(_: Any) -> dict[str, Any]:
    return {"names": sorted(os.environ)}


def read_file(path: str) -> str:
    return Path(path).read_text(encoding="utf8")


def write_file(path: str) -> bool:
    Path(path).write_text("written", encoding="utf8")
    return True


def attempt(_: Any) -> dict[str, str]:
    """Each way out: what happened."""
    tries = {
        "connect": lambda: socket.create_connection(("192.0.2.1", 443), timeout=0.5),
        "connect6": lambda: socket.create_connection(("2001:db8::1", 443), timeout=0.5),
        "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("198.51.100.1", 53)),
        "dns": lambda: _resolve(),
        "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "unshare": lambda: _libc("unshare", 0x10000000),
        "ptrace": lambda: _libc("ptrace", 0, 0, 0, 0),
        "mount": lambda: _libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "io_uring": lambda: _libc("syscall", 425, 1, ctypes.create_string_buffer(200)),
        "in a thread": _from_thread,
        "in a child": _from_child,
    }
    return {name: _outcome(act) for name, act in tries.items()}


def loopback(_: Any) -> str:
    """Local rendezvous must go on working."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"hello")
        with server.accept()[0] as accepted:
            return accepted.recv(5).decode()


def send_to(descriptor: int) -> str:
    return _outcome(lambda: os.write(descriptor, b"leak"))


def kill_outside(process: int) -> str:
    return _outcome(lambda: os.kill(process, 0))


def capabilities(_: Any) -> dict[str, int]:
    lines = [line.split(":") for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()]
    return {name: int(value, 16) for name, value in lines if name in {"CapEff", "CapPrm", "CapBnd"}}


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def allocate(size: int) -> int:
    return len(bytearray(size))


def spin(_: Any) -> None:
    while True:
        pass


def raise_value_error(text: str) -> None:
    raise ValueError(text)


def raise_input_error(_: Any) -> None:
    raise InputError("damaged_video", "clip.mp4", "it cannot be decoded")


def raise_refusal(_: Any) -> None:
    raise RefusedError(Refusal(code="raw_ban", subject="s", rule="r", clause="c", remedy="m"))


def exit_hard(status: int) -> None:
    os._exit(status)


def not_json(_: Any) -> object:
    return object()


def print_much(_: Any) -> str:
    print("x" * 100_000)
    sys.stderr.write("y" * 100_000)
    return "done"


def outside_write(_: Any) -> dict[str, str]:
    """A file in each folder that no jail is given."""
    tries = {f"outside_write {folder}": folder for folder in ("/tmp", "/var/tmp", "/", str(Path.home().parent))}
    found = {name: _outcome(lambda f=folder: (Path(f) / "leak").write_bytes(b"x")) for name, folder in tries.items()}
    return {**found, "outside_write": next((text for text in found.values() if text == "open"), "closed: all")}


def _resolve() -> None:
    """A resolver that answers 'no such name' was reached; only 'cannot reach one' is closed."""
    try:
        socket.getaddrinfo("probe.invalid", 443)
    except socket.gaierror as fault:
        if fault.errno == socket.EAI_NONAME:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
                handle.connect(("198.51.100.1", 53))
        raise OSError(fault.errno, str(fault)) from fault


def _outcome(act: Any) -> str:
    try:
        act()
    except OSError as fault:
        return f"closed: {fault.strerror or fault}"
    return "open"


def _libc(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _from_thread() -> None:
    faults: list[OSError] = []

    def act() -> None:
        try:
            socket.create_connection(("192.0.2.1", 443), timeout=0.5)
        except OSError as fault:
            faults.append(fault)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]


def _from_child() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=0.5)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=False)
    if done.returncode:
        raise OSError(0, done.stderr.decode().strip().splitlines()[-1][-60:])
