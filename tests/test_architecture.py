"""The import order of the rooms and the third-party fences, read from every import, function-level ones too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import onshore
from rooms import ORDER

SOURCE = Path(onshore.__file__).parent
DOORS = {"fleet", "cli", "console"}
ALONE = {"car": {"core", "wire", "bundle", "privacy"}}
FENCES = {
    "torch": {"dataset", "model", "evaluation", "flywheel"},
    "libsumo": {"world"},
    "sumo": {"world"},
    "sumolib": {"world"},
    "starlette": {"fleet", "console"},
    "uvicorn": {"fleet", "console"},
    "jinja2": {"fleet", "console", "evaluation", "flywheel"},
    "matplotlib": {"evaluation", "flywheel"},
    "tuf": {"bundle", "release", "fleet", "car"},
    "cryptography": {"store", "wire", "bundle", "border", "fleet", "car"},
}
HEAVY_IN_CAR = "torch pyarrow lance starlette libsumo sumolib av cv2 duckdb sqlalchemy numba".split()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def allowed(room: str) -> set[str]:
    if room == "__main__":
        return {"cli"}
    if room == "__init__":
        return set()
    if room in ALONE:
        return ALONE[room] | {room}
    if room in DOORS:
        return set(ORDER) | {room} | ({"car", "fleet", "console"} if room == "cli" else set())
    return set(ORDER[: ORDER.index(room) + 1])


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "onshore" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed(room), f"{path.name}: {room} may not import {parts[1]}"
        if parts[0] in FENCES:
            assert room in FENCES[parts[0]], f"{path.name}: {room} may not import {parts[0]}"


def test_every_room_is_known() -> None:
    known = {*ORDER, *DOORS, *ALONE, "__init__", "__main__"}
    assert {room_of(path) for path in modules()} <= known


def test_car_loads_nothing_heavy() -> None:
    code = f"import sys, onshore.car; bad = [m for m in {HEAVY_IN_CAR!r} if m in sys.modules]; assert not bad, bad"
    pytest.importorskip("onshore.car")
    assert subprocess.run([sys.executable, "-c", code], check=False, env=_environment()).returncode == 0


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
