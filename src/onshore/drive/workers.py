"""Many sources to recordings at once: child processes that answer in order, die with their parent, and may crash alone.

Rule: how many there are never changes a result. A source whose decoder takes its process down is tried once more by
itself; if it does so again it is that source's fault, and the others go on.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from typing import Any

from onshore.core.errors import CorruptError, InputError, OnshoreError
from onshore.drive.grouping import Placed
from onshore.drive.prepare import Prepared, prepare
from onshore.privacy import Anonymiser, default_anonymiser

Answer = Prepared | dict[str, str]
Outcome = Prepared | InputError


def prepared(placed: list[Placed], law: Mapping[str, Any], workers: int) -> Iterator[tuple[Placed, Outcome]]:
    """Every source with its recording, or the reason why there is none, in the order given.

    Raises OnshoreError when the fault is not the source's (no detector, a blind one).
    """
    if not placed:
        return
    answers = _here(placed, law) if workers <= 1 or len(placed) == 1 else _in_processes(placed, law, workers)
    for one, answer in answers:
        yield one, _settled(answer)


def _here(placed: list[Placed], law: Mapping[str, Any]) -> Iterator[tuple[Placed, Answer]]:
    anonymiser = default_anonymiser()
    for one in placed:
        yield one, _attempt(one, law, anonymiser)


def _in_processes(placed: list[Placed], law: Mapping[str, Any], workers: int) -> Iterator[tuple[Placed, Answer]]:
    """At most two sources per worker in flight, so that memory does not grow with the fleet."""
    waiting, pending = deque(placed), deque[tuple[Placed, Future[Answer]]]()
    pool = _pool(workers)
    try:
        while waiting or pending:
            _fill(pool, waiting, pending, 2 * workers, law)
            if not pending:  # the pool broke between two sources
                pool = _pool(workers)
                continue
            one, future = pending.popleft()
            try:
                answer = future.result()
            except BrokenProcessPool:
                answer = _alone(one, law)
                waiting.extendleft(other for other, _ in reversed(pending))
                pending.clear()
                pool = _pool(workers)
            yield one, answer
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(
    pool: ProcessPoolExecutor,
    waiting: deque[Placed],
    pending: deque[tuple[Placed, Future[Answer]]],
    most: int,
    law: Mapping[str, Any],
) -> None:
    try:
        while waiting and len(pending) < most:
            pending.append((waiting[0], pool.submit(_attempt, waiting[0], law, None)))
            waiting.popleft()
    except BrokenProcessPool:
        return


def _alone(one: Placed, law: Mapping[str, Any]) -> Answer:
    try:
        with _pool(1) as pool:
            return pool.submit(_attempt, one, law, None).result()
    except BrokenProcessPool:
        advice = "its decoder died twice; the file is damaged or made to do harm."
        return {"code": "damaged_video", "subject": one.source.path.name, "advice": advice, "kind": InputError.__name__}


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_die_with_parent)


def _die_with_parent() -> None:
    """A killed parent closes nothing; without this its workers would wait for it for ever."""
    parent = parent_process()
    if parent is None:
        return

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _attempt(one: Placed, law: Mapping[str, Any], anonymiser: Anonymiser | None) -> Answer:
    """Errors as records: they must travel between processes."""
    try:
        return prepare(one, law, anonymiser or _own_anonymiser())
    except OnshoreError as error:
        return {**error.as_record(), "kind": type(error).__name__}


@cache
def _own_anonymiser() -> Anonymiser:
    """One per worker process: opening the network costs more than many frames."""
    return default_anonymiser()


def _settled(answer: Answer) -> Outcome:
    """A prepared recording or an input's fault; whatever else went wrong stops the intake."""
    if isinstance(answer, Prepared):
        return answer
    if answer["kind"] in (InputError.__name__, CorruptError.__name__):
        return InputError(answer["code"], answer["subject"], answer["advice"])
    raise OnshoreError(answer["code"], answer["subject"], answer["advice"])
