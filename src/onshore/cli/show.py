"""How the command speaks: tables and bars for people, one JSON document for programs.

With `--json` stdout carries that one document and nothing else; bars and logs go to stderr, and bars only to a terminal.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from onshore.core import progress as core_progress


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")


@dataclass
class Output:
    """Where the answer goes. `say` is for people only; `answer` is the document or its rendering."""

    as_json: bool = False
    out: Console = field(default_factory=lambda: _console())
    err: Console = field(default_factory=lambda: _console(stderr=True))

    def say(self, text: str) -> None:
        (self.err if self.as_json else self.out).print(text, markup=False)

    def answer(self, document: Mapping[str, Any], *lines: str) -> None:
        """Print `document` as JSON, or `lines` for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain(document), indent=1, ensure_ascii=False) + "\n")
            sys.stdout.flush()
            return
        for line in lines:
            self.out.print(line, markup=False)

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """A table for people; silent with --json."""
        if self.as_json:
            return
        names = list(columns) or (list(rows[0]) if rows else [])
        table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for name in names:
            numeric = any(isinstance(row.get(name), int | float) for row in rows)
            table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(name)) for name in names))
        self.out.print(table)

    @contextmanager
    def progress(self) -> Iterator[core_progress.Progress]:
        """A bar with a rate and an ETA per task; silent with --json or without a terminal."""
        if self.as_json or not self.err.is_terminal:
            yield core_progress.silent
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=self.err, transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total or None)
                bars.update(tasks[what], completed=done, total=total or None)
                if total and done >= total:
                    bars.update(tasks[what], visible=False)

            yield report


def _console(*, stderr: bool = False) -> Console:
    """As wide as the terminal; wide enough for ids and figures where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=None if stream.isatty() else 160)


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return "—" if math.isnan(value) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value))
    return str(value)


def _plain(value: Any) -> Any:
    """JSON without NaN: what is not a number is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        return _plain(value.item())
    return value


def since(start: float) -> str:
    """Seconds since `start` (time.monotonic), for people."""
    return f"{time.monotonic() - start:.1f} s"
