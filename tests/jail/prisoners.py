"""What runs inside the jail in these tests: honest work, and attempts to get out."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
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


def say(message: Any, outside: Any) -> None:
    """What a child that was taken over does: write what it likes to its parent."""
    outside._channel.send(message)
    time.sleep(60)


def environment(_: Any) -> dict[str, Any]:
    return {"names": sorted(os.environ)}


def kernel_misses(folder: str) -> dict[str, int]:
    """How often the loader's kernel was compiled and how often loaded, after one batch as the loader asks for it."""
    from onshore.dataset import kernel
    from onshore.dataset.perturb import compiled_kernel, take_compiled_kernel

    take_compiled_kernel(folder)
    compiled_kernel()
    stats = kernel.cut_views.stats
    return {"compiled": sum(stats.cache_misses.values()), "taken": sum(stats.cache_hits.values())}


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
    tries = {f"outside_write {folder}": folder for folder in ("/tmp", "/var/tmp", "/", "/usr", sys.prefix)}
    found = {name: _outcome(lambda f=folder: (Path(f) / "leak").write_bytes(b"x")) for name, folder in tries.items()}
    return {**found, "outside_write": next((text for text in found.values() if text == "open"), "closed: all")}


def reach(targets: list[list[Any]]) -> dict[str, dict[str, str]]:
    """TCP to each address as routes lead, on a chosen device, and a datagram."""
    return {host: _reached(host, port) for host, port in targets}


def _reached(host: str, port: int) -> dict[str, str]:
    def plain() -> None:
        with socket.create_connection((host, port), timeout=2):
            pass

    def by_device() -> None:
        device = next(name for _, name in socket.if_nameindex() if name != "lo")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as handle:
            handle.settimeout(2)
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            handle.connect((host, port))

    def datagram() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            handle.sendto(b"x", (host, port))

    tries = {"plain": plain, "by device": by_device, "datagram": datagram}
    return {name: _outcome(act).partition(":")[0] for name, act in tries.items()}


def gloo(arguments: dict[str, Any]) -> float:
    """One all-reduce of 1 and 2 over two ranks."""
    import torch
    from torch import distributed

    os.environ["GLOO_SOCKET_IFNAME"] = arguments["device"]
    meeting = f"tcp://{arguments['address']}:4567"
    distributed.init_process_group("gloo", init_method=meeting, rank=arguments["rank"], world_size=2)
    shared = torch.tensor([1.0 + arguments["rank"]])
    distributed.all_reduce(shared)
    distributed.destroy_process_group()
    return float(shared)


def gloo_pair(_: Any) -> list[float]:
    """Two processes in one jail, meeting over its loopback."""
    code = "import json, sys; from jail.prisoners import gloo; print(gloo(json.loads(sys.argv[1])))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps({"rank": rank, "address": "127.0.0.1", "device": "lo"})],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    return [float(process.communicate(timeout=200)[0].split()[-1]) for process in ranks]


def early_thread(_: Any) -> str:
    """A thread that a stand-in for the child started before any fence stood tries to connect now."""
    asked, answered = sys.early  # type: ignore[attr-defined]
    asked.put("go")
    return str(answered.get(timeout=20))


def use_descriptor(number: int) -> str:
    """What an accomplice left open, or made before: send over it."""
    return _outcome(lambda: os.write(number, b"leak"))


def receive_from_accomplice(path: str) -> str:
    """Connect to a socket file of somebody outside who hands out a connected descriptor."""

    def act() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as handle:
            handle.settimeout(5)
            handle.connect(path)
            _, descriptors, _, _ = socket.recv_fds(handle, 1, 1)
            os.write(descriptors[0], b"leak")

    return _outcome(act)


def crash(marker: str) -> None:
    """Hold a marker in memory and die of a signal that dumps core."""
    held = (marker * 1000).encode()
    os.kill(os.getpid(), 11)
    time.sleep(5)
    print(len(held))


def core_limit(_: Any) -> list[int]:
    return list(resource.getrlimit(resource.RLIMIT_CORE))


def leave_behind(marker: str) -> list[str]:
    """Write a marker into every folder that may be written; returns where it was."""
    found = []
    for folder in (os.environ["TMPDIR"], os.getcwd(), "/dev/shm", "/tmp", "/var/tmp"):
        try:
            (Path(folder) / "left-behind").write_text(marker, encoding="utf8")
        except OSError:
            continue
        found.append(folder)
    return found


def ask_twice(names: list[str], outside: Any) -> list[int]:
    outside.progress("asking", 1, 2)
    return [len(outside.ask(name)) for name in names]


def echo(value: Any) -> Any:
    return value


def count(value: int) -> int:
    """Calls of one child share its memory."""
    sys.counted = getattr(sys, "counted", 0) + value  # type: ignore[attr-defined]
    return int(sys.counted)  # type: ignore[attr-defined]


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


def with_device(path: str) -> dict[str, Any]:
    """What a GPU's driver does as it starts: open a device for writing, ask it something, name a thread of its own."""

    def opened() -> None:
        with open(path, "r+b", buffering=0) as device:
            fcntl.ioctl(device, 0x80045200, bytes(4))  # RNDGETENTCNT: how much entropy there is

    def named() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("driver", encoding="utf8")

    def of_another() -> None:
        Path("/proc/1/comm").write_text("driver", encoding="utf8")

    def in_a_thread() -> str:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(_outcome(named)))
        thread.start()
        thread.join()
        return found[0]

    return {
        "device": _outcome(opened),
        "own thread": in_a_thread(),
        "another process": _outcome(of_another),
        "kernel setting": _outcome(lambda: open("/proc/sys/kernel/core_pattern", "r+b").close()),
        "libraries": os.environ.get("LD_LIBRARY_PATH", ""),
        **attempt(None),
    }
