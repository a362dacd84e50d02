"""The kernel's fences through ctypes: namespaces, loopback, Landlock, seccomp, resource limits.

Rule: each fence either stands or raises OSError; nothing here decides what to do without one. Called in a fresh,
single-threaded child only: `unshare(CLONE_NEWUSER)` fails once threads run, and a thread started earlier keeps its ways out.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import socket
import stat
import struct
from collections.abc import Iterable, Sequence

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, CAPABILITY_VERSION_3 = 38, 24, 0x20080522
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
# Landlock's system calls have the same numbers on every architecture.
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
#: Landlock rights: execute 1, write_file 2, read_file 4, read_dir 8, then remove/make/refer/truncate/ioctl_dev bits.
READ_FILE, READ_ALL = 0x4, 0x1 | 0x4 | 0x8
FILE_RIGHTS = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000
RIGHTS_BY_ABI = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
RIGHTS_SINCE_5 = 0xFFFF
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
NEW_NAMESPACES = 0x7E020000
#: Landlock since ABI 6: no abstract sockets and no signals to anybody outside.
LANDLOCK_SCOPES, LANDLOCK_SCOPES_ABI = 0x3, 6
X32_BIT = 0x40000000
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
    uid, gid = os.getuid(), os.getgid()
    try:
        _call(_LIBC.unshare, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    except OSError:
        _call(_LIBC.unshare, CLONE_NEWNET | CLONE_NEWIPC)
    else:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(line)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16xh14x", fcntl.ioctl(handle, SIOCGIFFLAGS, asked))[0]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def drop_capabilities() -> None:
    """No capability is left, in force or to be had again; root is then a user that owns files."""
    for capability in range(64):
        if _LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    _call(_LIBC.capset, ctypes.create_string_buffer(header, 8), ctypes.create_string_buffer(24))


def no_new_privileges() -> None:
    _call(_LIBC.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def restrict_files(read: Iterable[str], write: Iterable[str]) -> int:
    """Landlock: read and execute below `read`, everything below `write`, nothing else. Returns the ABI in force."""
    abi = _call(_LIBC.syscall, SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    handled = RIGHTS_BY_ABI.get(abi, RIGHTS_SINCE_5)
    # handled file rights, handled network rights (none: loopback must live), scopes; older kernels take the first only.
    packed = (
        struct.pack("QQQ", handled, 0, LANDLOCK_SCOPES) if abi >= LANDLOCK_SCOPES_ABI else struct.pack("Q", handled)
    )
    attributes = ctypes.create_string_buffer(packed, len(packed))
    ruleset = _call(_LIBC.syscall, SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(packed)), 0)
    try:
        for path, rights in [*((path, READ_ALL) for path in read), *((path, handled) for path in write)]:
            _allow_beneath(ruleset, path, rights & handled)
        _call(_LIBC.syscall, SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def filter_calls(families: Sequence[int] = FAMILIES) -> None:
    """seccomp on every thread: sockets of `families` only; no ptrace, mounts, namespaces, io_uring, foreign ABI."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no system call numbers for {machine}")
    program = socket_filter(machine, families)
    table = (_Filter * len(program))(*(_Filter(*line) for line in program))
    argument = _Program(len(program), table)
    number = MACHINES[machine][1]
    _call(_LIBC.syscall, number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(argument))


def limit(memory_bytes: int, cpu_s: int, file_bytes: int, files: int) -> None:
    """RLIMITs, hard and soft alike; no core dumps."""
    wanted = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: 0,
    }
    for name, value in wanted.items():
        hard = resource.getrlimit(name)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bound, bound))


def socket_filter(machine: str, families: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Classic BPF over seccomp_data: number at 0, architecture at 4, low half of argument 0 at 16."""
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
    lines += [(JUMP_EQUAL, 1, 0, socket_number), (RETURN, 0, 0, RET_ALLOW), (LOAD, 0, 0, 16)]
    for family in families:
        lines += [(JUMP_EQUAL, 0, 1, int(family)), (RETURN, 0, 0, RET_ALLOW)]
    return [*lines, (RETURN, 0, 0, no)]


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
