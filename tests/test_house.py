"""The house keeps its word: glossary, docs, public names, error codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import typer

import onshore
from onshore import cli
from onshore.core.errors import ERROR_CODES
from rooms import ROOMS

SOURCE = Path(onshore.__file__).parent
ROOT = SOURCE.parents[1]
MOST_PUBLIC_NAMES = 14


def modules() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf8"))) for path in sorted(SOURCE.rglob("*.py"))]


def test_no_room_or_noun_is_named_by_a_word_to_avoid() -> None:
    rows = [
        line.split("|")
        for line in (ROOT / "GLOSSARY.md").read_text(encoding="utf8").splitlines()
        if line.startswith("| **")
    ]
    avoided = {word.strip() for row in rows for word in row[3].split(",")}
    nouns = set(typer.main.get_command(cli.build()).commands)  # type: ignore[attr-defined]
    assert len(rows) >= 25 and not avoided & ({*ROOMS} | nouns)


def test_every_room_has_a_page_tests_and_a_rule() -> None:
    for room in ROOMS:
        assert (ROOT / f"docs/{room}.md").exists(), f"docs/{room}.md"
        assert list((ROOT / "tests" / room).glob("test_*.py")), f"tests/{room}"
        doc = ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf8"))) or ""
        assert "Rule:" in doc or "One run" in doc or "exit codes" in doc.lower() or "Version" in doc, room


def test_no_module_is_called_by_what_it_is_not() -> None:
    for path, _ in modules():
        assert not {"utils", "common", "base", "misc", "helpers", "_internal"} & set(path.with_suffix("").parts), path


def test_every_error_code_that_is_raised_is_known_and_every_known_one_is_used() -> None:
    text = "\n".join(path.read_text(encoding="utf8") for path, _ in modules() if path.name != "errors.py")
    used = {code for code in ERROR_CODES if re.search(rf"""["']{code}["']""", text)}
    assert sorted(set(ERROR_CODES) - used - {"not_found", "usage"}) == []
    for match in re.finditer(r"""(?:OnshoreError|InputError|CorruptError)\(\s*["']([a-z_]+)["']""", text):
        assert match.group(1) in ERROR_CODES


def test_a_room_exports_few_names_and_all_of_them_exist() -> None:
    for room in ROOMS:
        module = __import__(f"onshore.{room}", fromlist=["*"])
        names = getattr(module, "__all__", [])
        assert len(names) <= MOST_PUBLIC_NAMES, room
        assert all(hasattr(module, name) for name in names), room


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_nothing_prints_outside_the_command() -> None:
    for path, tree in modules():
        calls = [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
        ]
        assert not calls or "cli" in path.parts, path


def test_functions_are_short() -> None:
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    assert lengths[int(len(lengths) * 0.95)] <= 45


def test_what_the_readme_shows_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf8")
    assert len(text.splitlines()) <= 150 and "```" in "\n".join(text.splitlines()[:35])
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
