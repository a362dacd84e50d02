"""The child process in which worlds run: takes tasks from a pipe, answers with results, dies alone.

Rule: started as `python -m onshore.world.child FD`; imports no torch and no pyarrow; keeps towns and compiled code between
tasks. Whatever the traffic engine prints goes nowhere near the pipe.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from onshore.core.errors import OnshoreError
from onshore.world.closed_loop import Towns
from onshore.world.drivers import run_job
from onshore.world.fleet import film_car, log_traffic
from onshore.world.pictures import draw_pictures, draw_sheet
from onshore.world.pool import Failed, Task
from onshore.world.public import film_public

TASKS: dict[str, Callable[..., Any]] = {
    "rollout": run_job,
    "rollout-freely": partial(run_job, freely=True),
    "log": log_traffic,
    "film": film_car,
    "film-public": film_public,
    "pictures": draw_pictures,
    "sheet": draw_sheet,
}


def serve(connection: Connection, cache_dir: Path) -> None:
    """Answer tasks until the other end closes; between two of them nothing of a task is kept."""
    towns = Towns(cache_dir)
    while True:
        try:
            connection.send(answer(connection.recv(), towns))
        except EOFError:  # of the receiving alone: what a task raises is an answer
            return


def answer(task: Task, towns: Towns) -> Any:
    try:
        return TASKS[task.name](task.argument, towns)
    except OnshoreError as error:
        return Failed(kind=type(error).__name__, code=error.code, subject=error.subject, advice=error.advice)
    except Exception:  # the parent must learn of whatever went wrong; it raises it there
        text = traceback.format_exc(limit=-3)
        return Failed(kind="OnshoreError", code="world_crashed", subject=task.name, advice=text)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))
