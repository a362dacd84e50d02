"""Child processes for worlds: starts them, feeds them, and runs a task again, identically, when its child dies.

A task that two children died of by themselves, not killed from outside, may go by another name at its last try (`Task.last`).
Up to SPARES idle children outlive their pool and serve the next one of this process: towns and compiled code take seconds.

Where ONSHORE_RAY is set, closed-loop jobs go to actors of that Ray cluster (`ray_pool`).
Rule: results come back in the order of the tasks and do not depend on how many children there are or which one ran what.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Protocol, Self

import onshore
import onshore.core.errors as errors
from onshore.core.progress import Progress, silent

LOG = logging.getLogger(__name__)
MAX_CRASHES = 3
#: Idle children that a process keeps, of some 300 MB each.
SPARES = 4
#: How a child ends that somebody, or a lack of memory, killed.
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
#: "local" for a cluster of this machine alone, "auto" for the one that runs here, else its address.
RAY_VARIABLE = "ONSHORE_RAY"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def default_cache_dir() -> Path:
    """Where towns and compiled code are kept when the caller names no folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onshore" / "world"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One call: a name that `onshore.world.child` knows, its argument, and what a child keeps ready for it (its town).

    last: the name that the last try goes by, when no child that died of the task was killed from outside. foreign: it runs
    code from elsewhere; a child that did serves no other pool.
    """

    name: str
    argument: Any
    affinity: object = None
    last: str = ""
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What a task raised: code and texts of an OnshoreError, or a traceback under `world_crashed`."""

    kind: str
    code: str
    subject: str
    advice: str


class Child(Protocol):
    """What runs one task at a time. affinity: of its last task; task: the index of the one that it has now.

    foreign: it has run code from elsewhere. `receive` raises EOFError or OSError when it died.
    """

    affinity: object
    task: int | None
    foreign: bool

    def send(self, task: Task) -> None: ...

    def receive(self) -> Any: ...

    def last_words(self) -> str: ...

    def kill(self) -> None: ...

    def end(self) -> object: ...


@dataclass
class _Process:
    """A child of this machine. origin: what it was started with."""

    process: subprocess.Popen[bytes]
    connection: Connection
    complaints: IO[bytes]
    origin: tuple[object, ...]
    affinity: object = None
    task: int | None = None
    foreign: bool = False

    def send(self, task: Task) -> None:
        self.connection.send(task)

    def receive(self) -> Any:
        return self.connection.recv()

    def kill(self) -> None:
        self.process.kill()

    def last_words(self) -> str:
        self.complaints.seek(0)
        return self.complaints.read()[-600:].decode(errors="replace").strip()

    def end(self) -> int:
        self.connection.close()
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.complaints.close()
        return code


class _Spares:
    """Idle children of earlier pools, the latest last."""

    def __init__(self) -> None:
        self._lock, self._idle, self._parents = threading.Lock(), list[_Process](), list[_Process]()
        atexit.register(self.end)
        os.register_at_fork(after_in_child=self._let_go)

    def keep(self, child: _Process) -> None:
        """Keep a child; the oldest goes when there are too many."""
        with self._lock:
            self._idle.append(child)
            surplus = [self._idle.pop(0)] if len(self._idle) > SPARES else []
        for one in surplus:
            one.end()

    def take(self, origin: tuple[object, ...]) -> _Process | None:
        """A living child that was started with this, or None."""
        found, dead = None, list[_Process]()
        with self._lock:
            for child in [one for one in reversed(self._idle) if one.origin == origin]:
                self._idle.remove(child)
                if child.process.poll() is None:
                    found = child
                    break
                dead.append(child)
        for one in dead:
            one.end()
        return found

    def end(self) -> list[int]:
        """End them all; how each ended."""
        with self._lock:
            idle, self._idle = self._idle, []
        return [child.end() for child in idle]

    def _let_go(self) -> None:
        """In a forked copy of this process: they are its parent's, and end when that one hangs up."""
        self._lock, self._parents, self._idle = threading.Lock(), self._idle, []
        for child in self._parents:
            child.connection.close()
            child.complaints.close()


SPARE = _Spares()


@dataclass
class Workers:
    """Up to `count` children, started when first needed; idle ones are left for the next pool when the context ends."""

    count: int
    cache_dir: Path
    crashes: list[str] = field(default_factory=list)
    _children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for child in self._children:
            if child.task is None and isinstance(child, _Process) and not child.foreign:
                SPARE.keep(child)
                continue
            if child.task is not None:
                child.kill()
            child.end()
        self._children.clear()

    def map(self, tasks: Sequence[Task], *, what: str, progress: Progress = silent) -> list[Any]:
        """The tasks' results in order. Raises what a task raised, or OnshoreError `world_crashed` after three deaths."""
        tasks, results = list(tasks), [None] * len(tasks)
        waiting = list(range(len(tasks)))
        deaths, killed = [0] * len(tasks), [False] * len(tasks)
        done = 0
        progress(what, 0, len(tasks))
        while done < len(tasks):
            self._feed(tasks, waiting)
            for child in self._ready():
                index = child.task
                if index is None:
                    continue
                try:
                    results[index] = _checked(child.receive())
                except (EOFError, OSError):  # OSError: it died with its result half sent
                    deaths[index] += 1
                    killed[index] |= self._bury(child, tasks[index], deaths[index]) in KILLED
                    if deaths[index] == MAX_CRASHES - 1 and tasks[index].last and not killed[index]:
                        tasks[index] = replace(tasks[index], name=tasks[index].last)
                        LOG.warning("its last try goes by the name of %s", tasks[index].name)
                    waiting.insert(0, index)
                    continue
                child.task = None
                done += 1
                progress(what, done, len(tasks))
        return results

    def _ready(self) -> list[Child]:
        """Those of the busy that have an answer, or died; waits for the first."""
        busy = {
            child.connection: child
            for child in self._children
            if child.task is not None and isinstance(child, _Process)
        }
        return [busy[ready] for ready in wait(list(busy)) if isinstance(ready, Connection)]

    def _feed(self, tasks: Sequence[Task], waiting: list[int]) -> None:
        while len(self._children) < min(self.count, len(waiting) + sum(c.task is not None for c in self._children)):
            self._children.append(self._start())
        for child in self._children:
            if child.task is None and waiting:
                child.task = self._pick(child, tasks, waiting)
                child.affinity = tasks[child.task].affinity
                child.foreign |= tasks[child.task].foreign
                try:
                    child.send(tasks[child.task])
                except ConnectionError:
                    LOG.debug("a child died before it took its task; reading from it will say so")

    def _pick(self, child: Child, tasks: Sequence[Task], waiting: list[int]) -> int:
        """The first task of the child's own town; else of a town nobody has; else the first."""
        taken = {other.affinity for other in self._children if other is not child}
        for fits in (lambda a: a == child.affinity, lambda a: a not in taken, lambda a: True):
            for index in waiting:
                if fits(tasks[index].affinity):
                    waiting.remove(index)
                    return index
        raise IndexError("no task is waiting")

    def _bury(self, child: Child, task: Task, deaths: int) -> object:
        """Tell of a death; returns how the child ended."""
        words = child.last_words()
        code = child.end()
        self._children.remove(child)
        report = f"{task.name} {task.affinity}: child ended with {code}; {words or 'it said nothing'}"
        self.crashes.append(report)
        LOG.warning("a world's process died and its job runs again: %s", report)
        if deaths >= MAX_CRASHES:
            raise errors.OnshoreError(
                "world_crashed", f"{task.name} {task.affinity}", f"it died {deaths} times, last with {code}: {words}"
            )
        return code

    def _start(self) -> Child:
        around = environment(self.cache_dir)
        heeded = {name: value for name, value in os.environ.items() if name.startswith("ONSHORE_")}
        origin = (os.getcwd(), self.cache_dir, tuple(sorted({**heeded, **around}.items())))
        spare = SPARE.take(origin)
        if spare is not None:
            spare.complaints.seek(0)  # the child writes where this stands
            spare.complaints.truncate()
            return spare
        mine, theirs = socket.socketpair()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        process = subprocess.Popen(
            [sys.executable, "-m", "onshore.world.child", str(theirs.fileno()), str(self.cache_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **around},
        )
        theirs.close()
        return _Process(process=process, connection=Connection(mine.detach()), complaints=complaints, origin=origin)


def environment(cache_dir: Path) -> dict[str, str]:
    """What a child must find around it: this source tree, one thread, no random hashes, compiled code in the cache."""
    numba_cache = cache_dir / "numba"
    numba_cache.mkdir(parents=True, exist_ok=True)
    source = str(Path(onshore.__file__).parent.parent)
    paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "PYTHONPATH": os.pathsep.join(paths + [path for path in sys.path if path and path not in paths]),
        "PYTHONHASHSEED": "0",
        "NUMBA_CACHE_DIR": str(numba_cache),
        **dict.fromkeys(THREAD_VARIABLES, "1"),
    }


def workers_for(count: int, cache_dir: Path | None = None) -> Workers:
    """Children of this machine or, where ONSHORE_RAY names a cluster, of that."""
    place = os.environ.get(RAY_VARIABLE, "")
    if not place:
        return Workers(count=count, cache_dir=cache_dir or default_cache_dir())
    from onshore.world.ray_pool import RayWorkers

    return RayWorkers(count=count, cache_dir=cache_dir or default_cache_dir(), address=place)


def _checked(result: Any) -> Any:
    if not isinstance(result, Failed):
        return result
    if result.code == "not_found":
        raise errors.NotFoundError(result.subject, result.advice)
    if result.code == "usage":
        raise errors.UsageError(result.subject, result.advice)
    kind = {"InputError": errors.InputError, "CorruptError": errors.CorruptError}.get(result.kind, errors.OnshoreError)
    raise kind(result.code, result.subject, result.advice)
