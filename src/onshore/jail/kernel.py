"""The kernel's fences through ctypes: namespaces, loopback, private memory, Landlock, seccomp, resource limits.

Rule: each fence either stands or raises OSError; nothing here decides what to do without one. Called in a fresh,
single-threaded child only: `unshare(CLONE_NEWUSER)` fails once threads run, and a thread started earlier keeps its ways out.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import ipaddress
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWNS = 0x10000000, 0x40000000, 0x08000000, 0x00020000
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, CAPABILITY_VERSION_3, PR_SET_PDEATHSIG = 38, 24, 0x20080522, 1
MS_NOSUID_NODEV, MS_PRIVATE_REC, MS_BIND_REC, MS_REMOUNT_RDONLY = (
    0x2 | 0x4,
    0x40000 | 0x4000,
    0x1000 | 0x4000,
    0x20 | 0x1,
)
#: Beyond so many single files their folders are shown instead.
MOST_FILES_SHOWN = 256
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
# Landlock's system calls have the same numbers on every architecture.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
#: Landlock rights: execute 1, write_file 2, read_file 4, read_dir 8, then remove/make/refer/truncate/ioctl_dev bits.
READ_FILE, READ_ALL, WRITE_FILE = 0x4, 0x1 | 0x4 | 0x8, 0x2 | 0x4000
OWN_THREADS = "/proc/self/task"
FILE_RIGHTS = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000
RIGHTS_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
RIGHTS_SINCE_5 = 0xFFFF
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, AND, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
NEW_NAMESPACES = 0x7E020000
#: Landlock since ABI 6: no abstract sockets and no signals to anybody outside.
LANDLOCK_SCOPES, LANDLOCK_SCOPES_ABI = 0x3, 6
X32_BIT = 0x40000000
#: With core_pattern a pipe, the limit 0 is not asked; 1 is the value at which the kernel writes no core either way.
NO_CORE = 1
#: Socket types' low bits; options that choose a device or a path past the routes: SO_BINDTODEVICE, SO_BINDTOIFINDEX,
#: IP_OPTIONS (source routes), IP_UNICAST_IF. With a device chosen, Linux takes any address to be on the link.
SOCK_TYPE_MASK, IPPROTO_TCP = 0xF, 6
DEVICE_OPTIONS = ((socket.SOL_SOCKET, 25), (socket.SOL_SOCKET, 62), (socket.IPPROTO_IP, 4), (socket.IPPROTO_IP, 50))
#: Per machine: audit architecture, then system call numbers: seccomp, socket, socketpair, and those denied outright.
MACHINES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    # ptrace, mount, umount2, setns, unshare, pivot_root, chroot, bpf, perf_event_open, kexec_load, init_module,
    # finit_module, process_vm_readv, process_vm_writev, keyctl, add_key, request_key, userfaultfd, open_by_handle_at,
    # pidfd_getfd, io_uring_setup, io_uring_enter, io_uring_register
    "x86_64": (
        0xC000003E,
        317,
        41,
        (
            101,
            165,
            166,
            308,
            272,
            155,
            161,
            321,
            298,
            246,
            175,
            313,
            310,
            311,
            250,
            248,
            249,
            323,
            304,
            438,
            425,
            426,
            427,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        277,
        198,
        (117, 40, 39, 268, 97, 41, 51, 280, 241, 104, 105, 273, 270, 271, 219, 217, 218, 282, 265, 438, 425, 426, 427),
    ),
}
CLONE3 = 435
CLONE = {"x86_64": 56, "aarch64": 220}
SETSOCKOPT = {"x86_64": 54, "aarch64": 208}
#: rtnetlink: list all routes; kinds of routes that lead to another machine; attributes for target and device.
RTM_GETROUTE, NLM_F_DUMP_REQUEST, NLMSG_ERROR, NLMSG_DONE = 26, 0x301, 2, 3
RTN_UNICAST, RTN_ANYCAST, RTA_DST, RTA_OIF = 1, 4, 1, 4
#: Inside a network namespace of its own; and without one, where no internet socket may be made at all.
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
LOCAL_FAMILIES = (socket.AF_UNIX,)

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter))]


def close_descriptors(keep: Iterable[int] = (0, 1, 2)) -> None:
    """Close every inherited descriptor but those in `keep`: a connected socket would still send."""
    kept = sorted(set(keep))
    low = 0
    for number in [*kept, 1 << 20]:
        if low < number:  # an empty range would close everything
            os.closerange(low, number)
        low = number + 1


def isolate_network() -> None:
    """An empty network and IPC namespace, with loopback raised for local rendezvous.

    As an unprivileged user inside a user namespace of its own; where that is forbidden (in a chroot, say), directly,
    which only a privileged process may. Its capabilities go with `drop_capabilities`.
    """
    _unshare(CLONE_NEWNET | CLONE_NEWIPC)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16xh14x", fcntl.ioctl(handle, SIOCGIFFLAGS, asked))[0]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def keep_network(peers: Sequence[str]) -> None:
    """Stay in this network, which must lead to `peers` and nowhere else; only the IPC namespace is new."""
    beyond = routes_beyond(peers)
    if beyond:
        raise OSError(errno.EPERM, f"this network leads elsewhere: {', '.join(beyond[:4])}")
    _unshare(CLONE_NEWIPC)


def private_folders(folders: Iterable[str], size_bytes: int) -> None:
    """Memory of this process tree alone mounted over each folder; it is gone when the last of them is."""
    _alone()
    try:
        _call(_LIBC.unshare, CLONE_NEWNS)
    except OSError:  # no user namespace yet, where the network stayed
        _unshare(CLONE_NEWNS)
    _call(_LIBC.mount, b"none", b"/", None, MS_PRIVATE_REC, None)
    for folder in folders:
        options = f"size={size_bytes},mode=700".encode()
        _call(_LIBC.mount, b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID_NODEV, options)


def private_root(root: str, shown: Iterable[str]) -> None:
    """A file system that holds the shown paths and nothing else: no socket file of anybody outside is in reach.

    Landlock does not judge connecting to a socket file (before ABI 9), and such sockets ignore network namespaces. Needs
    `private_folders` first. root: an empty folder.
    """
    _call(_LIBC.mount, b"tmpfs", root.encode(), b"tmpfs", MS_NOSUID_NODEV, b"size=1m,mode=755")
    for path in _topmost(shown):
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        _call(_LIBC.mount, path.encode(), target.encode(), None, MS_BIND_REC, None)
    _call(_LIBC.mount, None, root.encode(), None, MS_NOSUID_NODEV | MS_REMOUNT_RDONLY, None)
    os.chroot(root)
    os.chdir("/")


def _topmost(paths: Iterable[str]) -> list[str]:
    """The existing paths, those beneath another folder of them left out; very many files become their folders."""
    there = {os.path.abspath(path) for path in paths if os.path.lexists(path)}
    files = {path for path in there if not os.path.isdir(path)}
    if len(files) > MOST_FILES_SHOWN:
        there = (there - files) | {os.path.dirname(path) for path in files}
    folders: list[str] = []
    kept = []
    for path in sorted(there, key=lambda path: path + "/"):
        if not any(path.startswith(folder + "/") for folder in folders[-1:]):
            kept.append(path)
            folders += [path] if os.path.isdir(path) and not os.path.islink(path) else []
    return kept


def _alone() -> None:
    """Namespaces and Landlock bind the calling thread; one that runs already would stay outside."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise OSError(errno.EINVAL, "another thread runs already, and would stay outside")


def die_with(parent: int) -> None:
    """Be killed when the parent ends, whatever ends it. Set after namespaces are made: making them clears it."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def drop_capabilities() -> None:
    """No capability is left, in force or to be had again; root is then a user that owns files."""
    for capability in range(64):
        if _LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    _call(_LIBC.capset, ctypes.create_string_buffer(header, 8), ctypes.create_string_buffer(24))


def no_new_privileges() -> None:
    _call(_LIBC.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def restrict_files(read: Iterable[str], write: Iterable[str], *, named_threads: bool = False) -> int:
    """Landlock: read and execute below `read`, everything below `write`, nothing else. Returns the ABI in force.

    named_threads: this process may write what tells of its own threads; CUDA names its own as it starts, and where it may
    not it calls that error 304 and gives up. A process forked later has no such right.
    """
    _alone()
    abi = _call(_LIBC.syscall, SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    handled = RIGHTS_BY_ABI.get(abi, RIGHTS_SINCE_5)
    # handled file rights, handled network rights (none: loopback must live), scopes; older kernels take the first only.
    packed = (
        struct.pack("QQQ", handled, 0, LANDLOCK_SCOPES) if abi >= LANDLOCK_SCOPES_ABI else struct.pack("Q", handled)
    )
    attributes = ctypes.create_string_buffer(packed, len(packed))
    ruleset = _call(_LIBC.syscall, SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(packed)), 0)
    try:
        own = [(OWN_THREADS, WRITE_FILE)] if named_threads else []
        for path, rights in [*((path, READ_ALL) for path in read), *((path, handled) for path in write), *own]:
            _allow_beneath(ruleset, path, rights & handled)
        _call(_LIBC.syscall, SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def filter_calls(families: Sequence[int] = FAMILIES, *, streams_only: bool = False) -> None:
    """seccomp on every thread: sockets of `families` only; no ptrace, mounts, namespaces, io_uring, foreign ABI.

    streams_only: of the internet families TCP alone, and no choosing of a device. Once it stands, every denied call is
    tried with zeros; a filter that lets one by (wrong numbers for this machine) raises OSError and is not claimed.
    """
    machine = platform.machine()
    if machine not in MACHINES or struct.calcsize("P") != 8 or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no system call numbers for {machine}")
    program = socket_filter(machine, families, streams_only=streams_only)
    table = (_Filter * len(program))(*(_Filter(*line) for line in program))
    argument = _Program(len(program), table)
    number = MACHINES[machine][1]
    _call(_LIBC.syscall, number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(argument))
    for denied in MACHINES[machine][3]:
        if _LIBC.syscall(ctypes.c_long(denied), *[ctypes.c_long(0)] * 6) != -1 or ctypes.get_errno() != errno.EPERM:
            raise OSError(errno.ENOSYS, f"call {denied} passes the filter on {machine}")


def limit(memory_bytes: int, cpu_s: int, file_bytes: int, files: int) -> None:
    """RLIMITs, hard and soft alike; no core dumps, to a file or to a pipe."""
    wanted = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: NO_CORE,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bound, bound))


def socket_filter(
    machine: str, families: Sequence[int], *, streams_only: bool = False
) -> list[tuple[int, int, int, int]]:
    """Classic BPF over seccomp_data: number at 0, architecture at 4, low halves of arguments 0, 1, 2 at 16, 24, 32."""
    audit, _, socket_number, denied = MACHINES[machine]
    no, unknown = RET_ERRNO | errno.EPERM, RET_ERRNO | errno.ENOSYS
    lines = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, audit), (RETURN, 0, 0, RET_KILL), (LOAD, 0, 0, 0)]
    lines += [(JUMP_AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, no)]
    # clone3 passes its flags by pointer, out of the filter's sight; ENOSYS makes libc fall back to clone.
    lines += [(JUMP_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, unknown)]
    for number in denied:
        lines += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, no)]
    lines += [(JUMP_EQUAL, 0, 4, CLONE[machine]), (LOAD, 0, 0, 16), (JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES)]
    lines += [(RETURN, 0, 0, no), (RETURN, 0, 0, RET_ALLOW)]
    if streams_only:
        lines += _no_device(machine, no)
    lines += [(JUMP_EQUAL, 1, 0, socket_number), (RETURN, 0, 0, RET_ALLOW), (LOAD, 0, 0, 16)]
    internet = (socket.AF_INET, socket.AF_INET6) if streams_only else ()
    for family in families:
        if family in internet:
            lines += _tcp_alone(int(family), no)
        else:
            lines += [(JUMP_EQUAL, 0, 1, int(family)), (RETURN, 0, 0, RET_ALLOW)]
    return [*lines, (RETURN, 0, 0, no)]


def _tcp_alone(family: int, no: int) -> list[tuple[int, int, int, int]]:
    """For this family: type SOCK_STREAM (whatever its flags) and protocol 0 or TCP pass, all else does not."""
    body = [(LOAD, 0, 0, 24), (AND, 0, 0, SOCK_TYPE_MASK), (JUMP_EQUAL, 1, 0, int(socket.SOCK_STREAM))]
    body += [(RETURN, 0, 0, no), (LOAD, 0, 0, 32), (JUMP_EQUAL, 1, 0, 0), (JUMP_EQUAL, 0, 1, IPPROTO_TCP)]
    body += [(RETURN, 0, 0, RET_ALLOW), (RETURN, 0, 0, no)]
    return [(JUMP_EQUAL, 0, len(body), family), *body]


def _no_device(machine: str, no: int) -> list[tuple[int, int, int, int]]:
    """setsockopt with one of `DEVICE_OPTIONS` does not pass; every other one does. The number is loaded before and after."""
    body = []
    for level, option in DEVICE_OPTIONS:
        body += [(LOAD, 0, 0, 24), (JUMP_EQUAL, 0, 3, int(level)), (LOAD, 0, 0, 32), (JUMP_EQUAL, 0, 1, option)]
        body += [(RETURN, 0, 0, no)]
    body += [(RETURN, 0, 0, RET_ALLOW)]
    return [(JUMP_EQUAL, 0, len(body), SETSOCKOPT[machine]), *body]


def routes_beyond(peers: Iterable[str]) -> list[str]:
    """Routes of this network namespace, in every table, that lead to more than loopback and the listed addresses."""
    allowed = {ipaddress.ip_address(peer).packed for peer in peers}
    loopback = socket.if_nametoindex("lo")
    found = []
    for route in _routes():
        own = route.device == loopback or route.kind not in (RTN_UNICAST, RTN_ANYCAST)
        if not own and not (route.target in allowed and route.bits == 8 * len(route.target)):
            shown = ipaddress.ip_address(route.target) if route.target else "default"
            found.append(f"{shown}/{route.bits}" if route.target else "default")
    return found


class _Route(NamedTuple):
    kind: int
    bits: int
    target: bytes
    device: int


def _routes() -> Iterator[_Route]:
    """Every route, IPv4 and IPv6, as the kernel lists them (RTM_GETROUTE; rtnetlink(7))."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as handle:
        handle.send(struct.pack("=IHHII", 28, RTM_GETROUTE, NLM_F_DUMP_REQUEST, 1, 0) + bytes(12))
        while True:
            data = handle.recv(1 << 18)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    raise OSError(errno.EIO, "the kernel does not list its routes")
                yield _route(data[16:length])
                data = data[(length + 3) & ~3 :]


def _route(message: bytes) -> _Route:
    """struct rtmsg: family, target bits, source bits, tos, table, protocol, scope, type, flags; then attributes."""
    bits, kind = message[1], message[7]
    target, device, attributes = b"", 0, message[12:]
    while len(attributes) >= 4:
        length, name = struct.unpack_from("=HH", attributes)
        if name == RTA_DST:
            target = attributes[4:length]
        if name == RTA_OIF:
            (device,) = struct.unpack("=I", attributes[4:length])
        attributes = attributes[(length + 3) & ~3 :]
    return _Route(kind=kind, bits=bits, target=target, device=device)


def _unshare(flags: int) -> None:
    """New namespaces, inside a user namespace of our own where that may be had; our ids stay what they are."""
    _alone()
    uid, gid = os.getuid(), os.getgid()
    try:
        _call(_LIBC.unshare, CLONE_NEWUSER | flags)
    except OSError:
        _call(_LIBC.unshare, flags)
        return
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, handle), 12)
        _call(_LIBC.syscall, SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)


def _call(function: object, *arguments: object) -> int:
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(function(*converted))  # type: ignore[operator]
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
