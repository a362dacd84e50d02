"""Write the verb tables of docs/cli.md from the command itself; `make lint` keeps nothing else in step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from onshore import cli

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
START, END = "<!-- verbs -->", "<!-- end of verbs -->"


def rows(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        for name, child in children.items():
            yield from rows(child, (*path, name))
        return
    words = [f"onshore {' '.join(path)}"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            words.append(str(parameter.metavar or parameter.name.upper()))
        else:
            option = parameter.opts[0]
            shown = option if getattr(parameter, "is_flag", False) else f"{option} …"
            words.append(shown if parameter.required else f"[{shown}]")
    yield f"| `{' '.join(words)}` | {(command.help or '').splitlines()[0]} |"


def main() -> None:
    before, _, rest = PAGE.read_text(encoding="utf8").partition(START)
    _, _, after = rest.partition(END)
    table = "\n".join(["| verb | what it does |", "|---|---|", *rows(typer.main.get_command(cli.build()))])
    PAGE.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf8")


if __name__ == "__main__":
    main()
