"""`onshore evaluation rules` over files, and over a drive of a center with the map context beside it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.situations import Street, situation
from onshore import cli, drive
from onshore.core.recording import Camera, Rig
from onshore.evaluation.driven import as_log
from onshore.store import Center
from onshore.wire import encode, write_mcap


def answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert cli.run([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def red() -> Street:
    return Street().line(40.0, "light", light="red")


def test_a_rollout_and_its_log_get_the_same_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = situation("red", "cn", red())
    (tmp_path / "run.rollout").write_bytes(one.rollout.to_bytes())
    recording, context = as_log(one.rollout)
    write_mcap(recording, tmp_path / "log.mcap")
    (tmp_path / "log.json").write_bytes(context.to_bytes())
    driven = answer(capsys, "evaluation", "rules", str(tmp_path / "run.rollout"))
    logged = answer(capsys, "evaluation", "rules", str(tmp_path / "log.mcap"), "--context", str(tmp_path / "log.json"))
    assert driven["points"]["value"] > 0 and driven["synthetic"]
    for name in ("violations", "points", "fine", "rules", "km", "complete"):
        assert driven[name] == logged[name]


def test_a_drive_of_a_center_is_judged_with_its_map_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, context = as_log(situation("red", "cn", red()).rollout)
    camera = Camera(name="front", width_px=64, height_px=32, focal_px=40.0, centre_x_px=32.0, centre_y_px=16.0)
    grey = np.full((32, 64, 3), 90, np.uint8)
    video = encode("front", ((int(t_ns), grey) for t_ns in recording.signals.t_ns))
    filmed = replace(recording, rig=Rig(cameras=(camera,), vehicle=recording.rig.vehicle), videos=(video,))
    write_mcap(filmed, tmp_path / "log.mcap")
    (tmp_path / "map.json").write_bytes(context.to_bytes())
    center = Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=0)
    drive.add(center, tmp_path / "log.mcap", workers=1)
    (row,) = drive.drives(center)
    center.close()
    words = ("--center", str(tmp_path / "center"), "evaluation", "rules", row["id"])
    bare = answer(capsys, *words)
    assert not bare["complete"] and not any(rule["violated"] for rule in bare["rules"])
    mapped = answer(capsys, *words, "--context", str(tmp_path / "map.json"))
    assert [rule["rule"] for rule in mapped["rules"] if rule["violated"]] == ["red_light"] and mapped["complete"]
    other = replace(context, t_ns=context.t_ns + 10**15)
    (tmp_path / "map.json").write_bytes(other.to_bytes())
    assert cli.run([*words, "--context", str(tmp_path / "map.json")]) == 1


def test_what_cannot_be_judged_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording, _ = as_log(situation("calm", "us", Street()).rollout)
    write_mcap(recording, tmp_path / "log.mcap")
    assert cli.run(["evaluation", "rules", str(tmp_path / "log.mcap")]) == 2
    assert cli.run(["evaluation", "rules", str(tmp_path / "log.mcap"), "--region", "us"]) == 0
    assert "could not be judged everywhere" in capsys.readouterr().out
    whole = situation("calm", "us", Street()).rollout.to_bytes()
    with zipfile.ZipFile(tmp_path / "list.rollout", "w") as archive:
        archive.writestr("head.json", "[]")
    for name, data in (("junk.rollout", b"no zip"), ("junk.zip", b"no zip"), ("cut.rollout", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(data)
    for name in ("junk.rollout", "junk.zip", "cut.rollout", "list.rollout"):
        found = answer(capsys, "evaluation", "rules", str(tmp_path / name), code=1)
        assert found["error"]["code"] == "unknown_format" and name in found["error"]["subject"]
