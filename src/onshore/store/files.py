"""Files that survive a kill: written beside their place, flushed, renamed; and locks between processes.

Rule: a reader sees the old bytes or the new ones, never half of them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes, *, scratch: Path, mode: int = 0o644) -> None:
    """Replace `path` by `data`: temporary file in `scratch` (same file system), fsync, rename, fsync of the folder."""
    handle, temporary = tempfile.mkstemp(dir=scratch)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sweep(scratch: Path, *, older_than_s: float = 86_400.0) -> None:
    """Remove what killed processes left in a scratch folder; what is younger may still be in use, what is held is."""
    for path in idle(scratch, older_than_s):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        elif not _is_held(path):
            shutil.rmtree(path, ignore_errors=True)


def idle(scratch: Path, older_than_s: float) -> list[Path]:
    """What nobody has written to for so long: a file by its own time, a folder by the newest of what is in it."""
    found = []
    for path in sorted(scratch.iterdir()):
        with suppress(FileNotFoundError):
            newest = max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
            if time.time() - newest > older_than_s:
                found.append(path)
    return found


@contextmanager
def held_folder(scratch: Path) -> Iterator[Path]:
    """A new folder in `scratch` that no sweep takes while this process lives; it is removed at the end."""
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def _is_held(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among all processes of this machine; a killed holder frees it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
