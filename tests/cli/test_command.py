"""The command's contract: every verb is documented, options stand anywhere, exit codes mean one thing each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from onshore import cli

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from verbs(child, (*path, name))


ALL = dict(verbs(typer.main.get_command(cli.build())))


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_is_documented_and_says_what_it_does(verb: str) -> None:
    assert f"onshore {verb}" in DOCS.read_text(encoding="utf8")
    assert ALL[verb].help


def test_the_docs_name_no_verb_that_is_not_there() -> None:
    for line in DOCS.read_text(encoding="utf8").splitlines():
        if line.startswith("| `onshore "):
            words = line.split("`")[1].removeprefix("onshore ").split()
            assert any(" ".join(words[:n]) in ALL for n in (1, 2, 3)), line


@pytest.mark.parametrize(
    ("words", "code"),
    [(["bogus"], 2), (["drive", "add"], 2), (["clip", "find", "--nope"], 2), (["drive", "list"], 2), (["--help"], 0)],
)
def test_exit_codes(words: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONSHORE_CENTER", raising=False)
    assert cli.run(words) == code


def test_globals_stand_anywhere() -> None:
    assert cli.take_globals(["drive", "--json", "list", "--center", "x"]) == (["drive", "list"], True, "x")
    assert cli.take_globals(["--center=y", "drive", "list"]) == (["drive", "list"], False, "y")


def test_json_keeps_stdout_to_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert cli.run(["init", str(tmp_path / "center"), "--region", "cn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["region"] == "cn"
    assert cli.run(["drive", "show", "drive-nope", "--json", "--center", str(tmp_path / "nowhere")]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not_found"
    assert cli.run(["drive", "show", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"
