"""The cars of the loop: each is its own process with its own folder, as in the world outside; files are all that passes.

Rule: the loop never imports the vehicle side; it starts the vehicle program and reads what it prints.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.core.errors import OnshoreError
from onshore.store.files import held_folder

if TYPE_CHECKING:
    from onshore.store import Center

#: Recordings that one vehicle process looks at; more would only make the first answer later.
BATCH = 16


def enroll(car_dir: Path, *, name: str, region: str, root: bytes) -> None:
    """Give a car its name, region and the root of trust it starts from; again is a no-op."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(root)
        file.flush()
        _ask("provision", str(car_dir), "--name", name, "--region", region, "--root", file.name)


def update(car_dir: Path, repository: Path) -> dict[str, Any]:
    """Let the car take what the repository offers; returns outcome, what it runs now, and a refusal if there is one."""
    return _ask("update", str(car_dir), "--repository", str(repository))


def shadow(center: Center, car_dir: Path, segments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shadow-mode reports over the center's segments (rows with `id` and `artifact`); frames pass as anonymised MCAP files.

    The files lie in a private folder for as long as the vehicle process runs.
    """
    reports: list[dict[str, Any]] = []
    read = center.open_many([row["artifact"] for row in segments], "show")
    with held_folder(center.root / "scratch") as folder:
        for start in range(0, len(segments), BATCH):
            paths = []
            for row in segments[start : start + BATCH]:
                path = folder / f"{row['id']}.mcap"
                path.write_bytes(read(row["artifact"]))
                paths.append(str(path))
            reports += _ask("shadow", str(car_dir), *paths)["reports"]
            for name in paths:
                Path(name).unlink()
    return reports


def _ask(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "onshore.car", *words], capture_output=True, check=False)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError as problem:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise OnshoreError("world_crashed", f"car {words[0]}", f"the vehicle program died: {last[0]}") from problem
    if "error" in document:
        raise OnshoreError(**document["error"])
    return document
