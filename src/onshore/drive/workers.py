"""Many sources to recordings at once, in jailed children: they answer in order, die with their parent, and crash alone.

Rule: bytes that come from outside are parsed and decoded in the jail and nowhere else; a child reads the files of this
intake and no other. How many there are never changes a result. A source that takes its child down is tried once more in a
fresh one; if it does so again it is that source's fault, and the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from onshore.core.errors import CorruptError, InputError, OnshoreError
from onshore.drive.discover import Source
from onshore.drive.grouping import Placed, place
from onshore.drive.prepare import Prepared, prepare
from onshore.drive.travel import packed, unpacked
from onshore.jail import Cell, Jail, Limits
from onshore.privacy import Anonymiser, default_anonymiser
from onshore.store import Center

GIB = 1 << 30
#: One source, however long its drive: beyond this it is a trap.
SOURCE_S = 4 * 3600.0
LIMITS = Limits(memory_bytes=16 * GIB, cpu_s=(1 << 31) - 1, files=512)
#: Beyond so many files their folders are opened to the children instead.
MOST_FILES = 4000

Outcome = Prepared | InputError


class Desk:
    """The jailed readers of one intake; none is started before the first source needs one."""

    def __init__(self, center: Center, sources: Sequence[Source], workers: int) -> None:
        files = [file.resolve() for source in sources for file in source.files]
        self._readable = files if len(files) <= MOST_FILES else sorted({file.parent for file in files})
        self._center, self._workers = center, max(1, min(workers, len(sources)))
        self._cells: list[Cell] = []
        self._free: SimpleQueue[Cell] = SimpleQueue()

    def located(self, source: Source) -> Placed:
        """As `grouping.place`, in the jail."""
        self._staff(1)
        placed: Placed = unpacked(self._ask({"do": "place", "one": packed(source)}, source), Placed)
        return placed

    def prepared(self, placed: Sequence[Placed], law: Mapping[str, Any]) -> Iterator[tuple[Placed, Outcome]]:
        """Every source with its recording, or the reason why there is none, in the order given.

        Raises OnshoreError when the fault is not the source's (no detector, a blind one). At most two sources per child
        are in flight, so that memory does not grow with the fleet.
        """
        self._staff(min(self._workers, len(placed)))
        rules, waiting = packed(law), deque(placed)
        flying: deque[tuple[Placed, Future[Outcome]]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                while waiting or flying:
                    while waiting and len(flying) < 2 * self._workers:
                        one = waiting.popleft()
                        flying.append((one, pool.submit(self._prepare, one, rules)))
                    one, future = flying.popleft()
                    yield one, future.result()
            finally:
                for _, future in flying:
                    future.cancel()
                self.close()

    def close(self) -> None:
        for cell in self._cells:
            cell.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _prepare(self, one: Placed, law: Any) -> Outcome:
        try:
            asked = {"do": "prepare", "one": packed(one), "law": law}
            prepared: Prepared = unpacked(self._ask(asked, one.source), Prepared)
        except CorruptError as fault:
            return InputError(fault.code, fault.subject, fault.advice)
        except InputError as fault:
            return fault
        return prepared

    def _ask(self, asked: dict[str, Any], source: Source) -> Any:
        """The answer of whichever child is free. Errors: InputError, whatever kind of fault of the source it was."""
        for _ in range(2):
            cell = self._free.get()
            try:
                return cell.call(asked, SOURCE_S)
            except InputError:
                if not cell.closed:
                    raise
            finally:
                self._free.put(
                    cell if not cell.closed else self._open(Jail(strict=self._center.config.jail_strict, limits=LIMITS))
                )
        advice = "its decoder died twice; the file is damaged or made to do harm."
        raise InputError("damaged_video", source.path.name, advice)

    def _staff(self, count: int) -> None:
        """From the thread of the intake, so that the children live as long as it, each with its line in the ledger."""
        while len(self._cells) < count:
            self._free.put(self._open(self._center.jail("intake", LIMITS)))

    def _open(self, jail: Jail) -> Cell:
        target = f"{__name__}:answer"
        try:
            cell = jail.open(target, self._readable)
        except InputError:  # somebody ended it before it stood
            cell = jail.open(target, self._readable)
        self._cells.append(cell)
        return cell


def answer(asked: dict[str, Any]) -> Any:
    """What a jailed reader does: place a source, or prepare it.

    Errors: InputError for whatever the source broke, so that the others go on; anything else when no source can be read
    or anonymised at all.
    """
    one = unpacked(asked["one"])
    name = (one if isinstance(one, Source) else one.source).path.name
    anonymiser = _own_anonymiser() if asked["do"] == "prepare" else None  # its faults are not the source's
    try:
        return packed(place(one) if anonymiser is None else prepare(one, unpacked(asked["law"]), anonymiser))
    except (OnshoreError, ImportError):
        raise
    except OSError as fault:
        raise InputError("unknown_format", name, f"it cannot be read ({fault.strerror}).") from fault
    except MemoryError as fault:
        raise InputError("limit_exceeded", name, "it takes more memory than a source may.") from fault
    except Exception as fault:  # readers cannot foresee every file; nothing of one that breaks them is kept
        advice = f"it broke its reader ({type(fault).__name__}: {str(fault)[:200]})."
        raise InputError("unknown_format", name, advice) from fault


@cache
def _own_anonymiser() -> Anonymiser:
    """One per child: opening the network costs more than many frames."""
    return default_anonymiser()
