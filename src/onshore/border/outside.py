"""The one function that writes files outside a center.

Rule: fixed name pattern, fixed mode, fixed time, no links followed; temporary file, fsync, rename, fsync of the folder. A
file's name and times say nothing that its content does not.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from onshore.core.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
#: 1980-01-01, the same for every file that leaves.
FIXED_TIME_S = 315_532_800


def check_name(name: str) -> str:
    """The name, or InputError `unsafe_path` when it could lead out of its folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(
            "unsafe_path", f"file name {name[:80]!r}", "use letters, digits, '.', '_' and '-', no folders."
        )
    return name


def place(folder: Path, name: str, data: bytes) -> Path:
    """Write `data` as `folder/name`, durably, replacing a file of that name but never following a link there."""
    check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError("unsafe_path", name, "something that is no plain file has this name; remove it.")
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".onshore-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.utime(temporary, (FIXED_TIME_S, FIXED_TIME_S))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(folder)
    return path


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
