"""Work that does not wait: a stage whose inputs are known runs in a child process while this one trains.

Rule: what runs ahead is a stage that the caller runs again in its own time; there it is a no-op, or it is done then. So a
child that dies costs time and nothing else. The child dies with its parent.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


class Ahead:
    """One child process running `function(*arguments)`; `wait` returns when it is done, however it ended."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(os.getpid(), function, arguments), daemon=False)
        self._process.start()

    def wait(self) -> None:
        self._process.join()


def _run(parent: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    function(*arguments)
