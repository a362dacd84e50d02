"""The command: one noun, one verb. Every body parses, calls one public function, prints.

`--center DIR` (ONSHORE_CENTER), `--as NAME` (ONSHORE_USER) and `--json` may stand anywhere on the line; ONSHORE_CERTIFICATE
names a client certificate. The environment is read here only.
Exit codes: 0 done, 1 failed, 2 usage, 3 refused (with rule, clause and what to do).
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Sequence

import typer

from onshore.cli import logs, session
from onshore.core.errors import OnshoreError, RefusedError


def build() -> typer.Typer:
    """The whole command tree; importing a noun's module loads none of its room's heavy parts."""
    from onshore.cli import (
        backup,
        border,
        car,
        clip,
        dataset,
        drive,
        evaluation,
        flywheel,
        ledger,
        model,
        privacy,
        release,
        top,
        world,
    )

    app = typer.Typer(
        name="onshore",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="The training center for assisted driving that stays inside the border.\n\n"
        "--center DIR (or ONSHORE_CENTER) names the center, --as NAME (or ONSHORE_USER) the person; --json prints one JSON "
        "document. All may stand anywhere.",
    )
    top.add_to(app)
    for noun in (
        drive,
        clip,
        dataset,
        privacy,
        model,
        world,
        evaluation,
        border,
        ledger,
        backup,
        release,
        car,
        flywheel,
    ):
        noun.add_to(app)
    return app


def take_globals(arguments: Sequence[str]) -> tuple[list[str], bool, str | None]:
    """Split `--json` and `--center DIR` off a command line, wherever they stand."""
    rest, center = take_option(arguments, "--center")
    return [word for word in rest if word != "--json"], "--json" in rest, center


def take_option(arguments: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Split an option and its value off a command line, wherever they stand; of several the last counts."""
    rest: list[str] = []
    value, words = None, iter(arguments)
    for word in words:
        if word == option:
            value = next(words, None)
        elif word.startswith(f"{option}="):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return rest, value


def verb_of(command: object, words: Sequence[str]) -> str:
    """The noun and verb that a line begins with: 'border permit approve'."""
    found: list[str] = []
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        found.append(word)
    return " ".join(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code. A crash leaves no core file: keys and pictures would be in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. The outermost handler: nothing escapes but what it prints."""
    logs.begin()
    rest, as_json, center = take_globals(arguments)
    rest, person = take_option(rest, "--as")
    command = typer.main.get_command(build())
    session.begin(
        as_json=as_json,
        center=center or os.environ.get("ONSHORE_CENTER"),
        verb=verb_of(command, rest),
        acting_as=person or os.environ.get("ONSHORE_USER"),
        certificate=os.environ.get("ONSHORE_CERTIFICATE"),
    )
    out = session.output()
    try:
        code = command.main(args=rest, prog_name="onshore", standalone_mode=False)
        return int(code or 0)
    except RefusedError as refused:
        out.answer({"refused": refused.as_record()})
        out.err.print(str(refused.refusal), markup=False)
        return refused.exit_code
    except OnshoreError as problem:
        out.answer({"error": problem.as_record()})
        out.err.print(f"failed {problem}", markup=False)
        return problem.exit_code
    except typer.Exit as leaving:
        return leaving.exit_code
    except Exception as problem:
        if hasattr(problem, "format_message") and hasattr(problem, "exit_code"):  # the parser's usage errors
            told = problem.format_message()
            out.answer({"error": {"code": "usage", "subject": "the line", "advice": told}})
            out.err.print(f"usage: {told}", markup=False)
            return 2
        from onshore.border.scan import masked

        logging.getLogger(__name__).debug("unexpected", exc_info=problem)
        told = masked(str(problem))
        out.answer({"error": {"code": "unexpected", "subject": type(problem).__name__, "advice": told}})
        out.err.print(f"failed unexpectedly: {type(problem).__name__}: {told}", markup=False)
        if os.environ.get("ONSHORE_TRACEBACK"):
            raise
        return 1
    except KeyboardInterrupt:
        out.err.print("stopped; what was acknowledged is kept, run the same command again to go on", markup=False)
        return 130
