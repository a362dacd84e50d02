"""Recorded drives through the command, from `init` to a car in shadow mode. Needs ONSHORE_TEST_DATA; skipped without."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onshore import cli

DATA = Path(os.environ.get("ONSHORE_TEST_DATA", "")) / "openlka"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (os.environ.get("ONSHORE_TEST_DATA") and DATA.is_dir()), reason="skipped: no ONSHORE_TEST_DATA"
    ),
]
ROUTES = ("00000058--986050004c", "00000002--e0ac3d0ea6", "0000005b--f51a302d09")
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    for route in ROUTES:
        (source,) = DATA.rglob(route)
        target = folder / route
        target.mkdir()
        for file in (path for path in source.iterdir() if path.is_file()):
            shutil.copy(file, target)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def ask(place: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str, center: str = "one") -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = cli.run([*words, "--json", "--center", str(place / center)])
        return code, json.loads(capsys.readouterr().out or "{}")

    return run


def test_recorded_drives_go_all_the_way(drives: Path, place: Path, ask: Ask) -> None:
    out = str(place / "out")
    for name in ("one", "two"):
        made, _ = ask(
            "init", str(place / name), "--region", "us", "--keys", str(place / f"{name}-keys"), "--in-region", out
        )
        assert made == 0
    code, taken = ask("drive", "add", str(drives))
    assert (code, taken["drives"], taken["segments"], taken["quarantined"]) == (0, 3, 4, [])
    assert taken["clips"] >= 4 and taken["frames"] > 350
    assert ask("drive", "add", str(drives))[1]["known"] == 4

    _, frozen = ask("dataset", "freeze", "real")
    assert frozen["dataset"]["held_out_drives"] >= 1 and frozen["dataset"]["synthetic"] is False
    _, trained = ask("model", "train", "--recipe", "nano-real-narrow", "--dataset", "real", "--steps", "25")
    model = trained["model"]["id"]
    assert (
        ask("model", "train", "--recipe", "nano-real-narrow", "--dataset", "real", "--steps", "25")[1]["model"]["fresh"]
        is False
    )
    _, judged = ask("evaluation", "run", "--model", model, "--dataset", "real")
    assert [row["planner"] for row in judged["open_loop"]] == [
        "model",
        "constant velocity",
        "constant turn",
        "mean plan",
    ]

    assert ask("release", "sign")[0] == 3, "no verdict, no signature"
    code, gate = ask("release", "gate", model, "--gate", "bench", "--dataset", "real")
    assert code == 0 and {check["status"] for check in gate["verdict"]["checks"]} == {"pass", "not asked"}
    _, signed = ask("release", "sign")
    assert signed["release"]["road_use"] == "not for the road"
    assert ask("car", "update")[1]["outcome"] == "installed"

    _, shown = ask("dataset", "show", "real")
    held_out = next(one["id"] for one in shown["dataset"]["drives"] if one["split"] == "held_out")
    code, watched = ask("car", "shadow", "--drive", held_out)
    assert code == 0 and all(report["plans"] > 0 for report in watched["reports"])

    _, exported = ask("drive", "export", held_out, "--out", out)
    assert ask("drive", "export", held_out, "--out", str(place / "elsewhere"))[0] == 3
    assert not (place / "elsewhere").exists()
    code, again = ask("drive", "add", out)
    assert (code, again["segments"], again["known"]) == (0, 0, len(exported["files"]))
    assert ask("drive", "add", out, center="two")[1]["segments"] == len(exported["files"])
    first, second = (
        {row["id"] for row in ask("clip", "find", "-k", "99", center=name)[1]["clips"]} for name in ("one", "two")
    )
    assert second and second <= first, "clips carry the same ids in another center"


def test_the_border_says_no_by_rule_and_clause_and_the_ledger_knows(place: Path, ask: Ask, tmp_path: Path) -> None:
    stranger = tmp_path / "unlabelled.bin"
    stranger.write_bytes(b"nobody labelled this")
    drive = ask("drive", "list")[1]["drives"][0]["id"]
    clip = ask("clip", "find")[1]["clips"][0]["id"]
    model = ask("model", "list")[1]["models"][0]["id"]
    before = len(ask("ledger", "show", "--last", "9999")[1]["entries"])
    codes = []
    for artifact in (drive, clip, model, str(stranger)):
        code, answer = ask("border", "check", artifact, "--to", "cn")
        assert code == 3 and answer["refused"]["rule"] and answer["refused"]["clause"] and answer["refused"]["remedy"]
        codes.append(answer["refused"]["code"])
    assert codes == ["raw_ban", "not_cleared", "permit_invalid", "unlabelled"]
    assert len(ask("ledger", "show", "--last", "9999")[1]["entries"]) >= before + 4
    assert ask("ledger", "verify")[1]["ok"] is True
    files = sorted(path for path in (place / "one" / "ledger").rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
        assert ask("ledger", "verify")[0] == 1, path.name
        path.write_bytes(data)
    assert ask("ledger", "verify")[0] == 0
