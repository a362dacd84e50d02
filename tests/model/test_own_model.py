"""A network of somebody else, installed as a package, with two cameras: trained, adapted, judged, signed, driven."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.centers import weaving, write_fleet
from dataset.recordings import LEFT, recording, shifted, signals

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command that finds the package, built and installed as pip does it."""
    place = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    source = tmp_path_factory.mktemp("source") / "own_model"
    subprocess.run(["cp", "-r", str(ROOT / "examples" / "own_model"), str(source)], check=True)
    subprocess.run([*pip, "--target", str(place), str(source)], check=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT / "src"), str(ROOT)])}


def onshore(environment: dict[str, str], *words: object, code: int = 0) -> dict[str, object]:
    command = [sys.executable, "-m", "onshore", "--json", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_own_model_goes_all_the_way(installed: dict[str, str], tmp_path: Path) -> None:
    drives = [
        recording(
            vehicle=f"car-{car:04d}",
            drive_key=f"route-{car}",
            hz=5.0,
            beside=(LEFT,),
            moves=shifted(signals(13.0, weaving, start_speed_mps=8.0 + 0.1 * car), car * 10**13),
        )
        for car in range(4)
    ]
    write_fleet(tmp_path / "in", drives)
    center = {**installed, "ONSHORE_CENTER": str(tmp_path / "center")}
    onshore(center, "init", tmp_path / "center", "--region", "us", "--keys", tmp_path / "keys")
    added = onshore(center, "drive", "add", tmp_path / "in")
    assert added["segments"] == 4 and added["quarantined"] == []
    frozen = onshore(center, "dataset", "freeze", "first", "--recipe", "own_model:base", "--held-out", "0.5")
    base = onshore(center, "model", "train", "--recipe", "own_model:base", "--dataset", "first", "--steps", "20")
    words = ("--recipe", "own_model:adapt", "--dataset", "first")
    start = base["model"]["id"]  # type: ignore[index]
    adapted = onshore(center, "model", "adapt", "--base", start, *words)["model"]
    assert adapted["base"] == start and adapted["windows"] > 0  # type: ignore[index]
    model = adapted["id"]  # type: ignore[index]
    table = onshore(center, "evaluation", "run", "--model", model, "--dataset", "first")
    assert {row["planner"] for row in table["open_loop"]} >= {"model", "mean plan"}  # type: ignore[attr-defined]
    driven = onshore(center, "evaluation", "run", "--model", model, "--suite", "us-tiny", "--no-rows")["closed_loop"]
    assert [(row["worlds"], row["routes"]) for row in driven] == [(2, 4)]  # type: ignore[index, attr-defined]
    assert onshore(center, "release", "gate", model, "--gate", "bench", "--dataset", "first")["verdict"]["passed"]  # type: ignore[index]
    onshore(center, "release", "sign", model)
    onshore(center, "car", "update", "--car", tmp_path / "car-0007")
    drive = onshore(center, "drive", "list")["drives"][0]["id"]  # type: ignore[index]
    driven = onshore(center, "car", "run", "--car", tmp_path / "car-0007", "--drive", drive)
    assert driven["runs"][0]["plans"] > 10 and frozen["dataset"]["segments"] == 4, driven  # type: ignore[index, operator]


def test_without_the_package_its_models_are_named_and_not_loaded(installed: dict[str, str], tmp_path: Path) -> None:
    onshore(installed, "init", tmp_path / "center", "--region", "us", "--keys", tmp_path / "keys")
    bare = {**installed, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    words = ("--center", tmp_path / "center", "model", "train", "--recipe", "own_model:base", "--dataset", "first")
    found = onshore(bare, *words, code=1)
    assert "install the package" in found["error"]["advice"]  # type: ignore[index]
