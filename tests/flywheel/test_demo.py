"""The whole path, tiny: two centers, a border, rounds, a car. One run serves every test here; no claim about scores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onshore import car, cli
from onshore.core.errors import UsageError
from onshore.flywheel import demo, report
from onshore.store import Center

DOCUMENT = {"synthetic", "seconds", "scores", "p_round2_over_base", "open_loop", "digests"}
ROW = {"model", "suite", "score", "low", "high", "routes", "seeds"}


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo.run(out, tiny=True)


def test_the_document_has_the_shape_that_programs_rely_on(turned: tuple[Path, dict[str, Any]]) -> None:
    out, result = turned
    assert set(result) >= DOCUMENT and result["synthetic"] is True
    assert all(set(row) >= ROW for row in result["scores"])
    assert {(row["model"], row["suite"]) for row in result["scores"]} == {
        *((name, suite) for name in ("stop", "constant-speed", "expert", "base") for suite in ("us", "cn")),
        ("round-1", "cn"),
        ("round-2", "cn"),
    }
    assert json.loads((out / "result.json").read_text())["digests"] == result["digests"]


def test_it_makes_nothing_new_when_run_again(
    turned: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Run again by the command, which prints one document."""
    out, first = turned
    assert cli.run(["demo", "--tiny", "--json", "--out", str(out)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in again["stages"] if stage["fresh"]] == []
    assert again["digests"] == first["digests"] and again["scores"] == first["scores"]
    assert any("nothing new" in line for line in demo.summary(again))


def test_a_folder_belongs_to_one_demo(turned: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="another folder"):
        demo.run(turned[0], tiny=True, seed=1)


def test_only_permitted_weights_left_and_the_ledgers_verify(turned: tuple[Path, dict[str, Any]]) -> None:
    out, result = turned
    left = {path.suffix for path in (out / "border").iterdir()} - {".bin"}
    assert left == {".safetensors", ".json"}
    assert [row["what"] for row in result["border"] if row["allowed"]] == ["base weights"]
    assert len([row for row in result["border"] if not row["allowed"]]) == 4
    for region in ("us", "cn"):
        assert Center.open(out / f"{region}-center").ledger.verify().ok


def test_the_car_runs_the_last_round_and_shadow_asked_for_clips_by_it(turned: tuple[Path, dict[str, Any]]) -> None:
    out, result = turned
    assert car.status(out / "cars" / "car-0001").counter == 2
    assert all(row["signed"] and row["road_use"] == "not for the road" for row in result["releases"])
    statuses = {check["status"] for row in result["releases"] for check in row["checks"]}
    assert statuses == {"pass", "not asked"}


def test_the_report_stands_alone(turned: tuple[Path, dict[str, Any]]) -> None:
    page = (turned[0] / "report.html").read_text(encoding="utf8")
    assert "synthetic" in page and page.count("<svg") == 4 and page.count("data:image/") == 4
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "the page loads nothing from elsewhere"


def test_words_follow_from_figures() -> None:
    def row(model: str, suite: str, score: float) -> dict[str, Any]:
        return {"model": model, "suite": suite, "score": score, "routes": 48}

    scores = [row("base", "us", 80), row("base", "cn", 20), row("round-2", "cn", 15)]
    worse = {"scores": scores, "rounds": [{"round": 2}], "p_last_over_base": 0.01}
    assert "chance may explain" in report.verdict(worse)
    scores[2] = row("round-2", "cn", 55)
    assert "chance hardly explains" in report.verdict({**worse, "scores": scores})
    assert "not measurable" in report.verdict({**worse, "p_last_over_base": None})
