"""The verbs of erasing, retention, fences and signers, as a person types them: exit codes and one JSON document each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from border.shoals import shoal
from onshore import cli


def test_the_verbs_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = shoal(tmp_path, 4)
    made.center.close()

    def asked(*words: str, code: int = 0) -> dict:
        assert cli.run(["--json", "--center", str(made.center.root), *words]) == code, words
        answer: dict = json.loads(capsys.readouterr().out)
        return answer

    model, car = next(iter(made.models)), made.cars[2]
    assert asked("border", "saw", model, car)["answer"] == "yes"
    erased = asked("border", "erase", "car-0002")["erasure"]
    assert erased["subject"] == car and erased["plan"]
    assert asked("model", "show", model)["model"]["contains_deleted"] == [car]
    (listed,) = asked("border", "erasure", "list")["erasures"]
    assert listed["state"] == "erased" and listed["days_left"] == 10 and not listed["alarm"]
    cache = made.center.root / "cache"
    cache.write_bytes(made.drives[2].encode())
    assert asked("border", "erasure", "show", erased["id"])["holding"] == {"dataset cache": ["cache"]}
    assert "still_held" in json.dumps(asked("border", "erasure", "close", erased["id"], code=3))
    cache.unlink()
    assert asked("border", "erasure", "close", erased["id"])["erasure"]["state"] == "closed"
    assert asked("border", "sweep")["destroyed"] == 0
    assert asked("ledger", "accept-clock")["entry"] > 0
    assert asked("border", "explain", "still_held")["rule"]


def test_the_verbs_of_intake_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = shoal(tmp_path, 1)
    made.center.close()
    square = [[[119.9, 29.9], [120.1, 29.9], [120.1, 30.1], [119.9, 29.9]]]
    (tmp_path / "map.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": square}))

    def asked(*words: str, code: int = 0) -> dict:
        assert cli.run(["--json", "--center", str(made.center.root), *words]) == code, words
        answer: dict = json.loads(capsys.readouterr().out)
        return answer

    assert asked("drive", "fence", "check", code=2)
    assert asked("drive", "fence", "set", str(tmp_path / "map.geojson"))["polygons"] == 1
    assert asked("drive", "fence", "check")["unlocated"] == 1
    key = asked("drive", "signer", "enroll", "car-0007", "--key", "11" * 32, "--made", "2024-05-01")["signer"]["id"]
    assert asked("drive", "signer", "revoke", key)["revoked"] == key
    assert [row["state"] for row in asked("drive", "signer", "list")["signers"]] == ["revoked"]
    assert asked("drive", "signer", "enroll", "car-0007", "--key", "xyz", code=2)
