"""The jailed child on a machine that forbids namespaces: the kernel itself says no, because none may be made here."""

from __future__ import annotations

import contextlib
import runpy
import struct
import sys
from pathlib import Path

LIMIT = "/proc/sys/user/max_net_namespaces"


def forbid() -> None:
    """In a user namespace of our own, its limit of network namespaces is ours to set to none."""
    import ctypes
    import os

    ids = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) == 0:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {ids[0]} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {ids[1]} 1", encoding="ascii")
        Path(LIMIT).write_text("0", encoding="ascii")
    else:  # no user namespace here anyway (a chroot): without capabilities no other one can be made either
        libc.capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # where not even that may be made, there is nothing to forbid
        forbid()
    child = Path(__file__).resolve().parents[2] / "src/onshore/jail/child.py"
    sys.argv[0] = str(child)
    runpy.run_path(str(child), run_name="__main__")
