"""The ladder: what it says follows from its figures; a tiny one is climbed, killed and climbed on. No claim about scores."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onshore import cli
from onshore.bundle.inputs import View
from onshore.core.errors import OnshoreError, UsageError
from onshore.core.progress import silent
from onshore.dataset import manifest
from onshore.flywheel import ladder, ladder_page
from onshore.flywheel.demo import Turn
from onshore.flywheel.ladder import FULL, PLANS, TINY, Ladder, rows_of
from onshore.model import Nano
from onshore.region import load_pack
from onshore.store import Center

SETTINGS = {
    "suites": FULL.suites,
    "steps": 800,
    "levels": list(FULL.levels),
    "km_per_car": 0.25,
    "supervision": asdict(FULL.supervision),
    "sim_minutes": 32.0,
    "home_margin": 10.0,
}
ROWS = [asdict(row) for row in FULL.rows]


def record(name: str, seed: int, cn: float, us: float | None = None, rounds: tuple[float, ...] = ()) -> dict[str, Any]:
    """A row's record whose scores lie around a planted level: worlds and egos differ, the same way for every row."""

    def driven(level: float, suite: str) -> dict[str, Any]:
        chance = np.random.default_rng(7)
        routes = [[f"{suite}-{w}", e, level + chance.normal(0, 3) + seed * 0.5] for w in range(12) for e in range(4)]
        return {
            "suite": suite,
            "evaluation": "x",
            "routes": routes,
            "rates": {"collision_vehicle": (100 - level) / 100},
        }

    parts = [{"round": n, "samples": 100, "takeovers": 10, "km": 2.0} for n in range(1, len(rounds) + 1)]
    for part, level in zip(parts[:-1], rounds, strict=False):
        part |= {key: driven(level, "cn")[key] for key in ("routes", "rates")}
    return {
        "name": name,
        "seed": seed,
        "cn": driven(cn, "cn"),
        "us": None if us is None else driven(us, "us"),
        **({"rounds": parts} if parts else {}),
    }


def planted() -> list[dict[str, Any]]:
    """A law of 10 points for each doubling of the logs, rounds that climb, a home that one way keeps and others lose."""
    made = []
    for seed in (0, 1, 2):
        made += [record("base", seed, 20, 80), record("expert", 0, 95, 98)][: 2 if seed == 0 else 1]
        made += [record(f"fleet-8x{m}", seed, 30 + 5 * np.log(m / 5)) for m in (5, 20, 60, 160)]
        made += [record("fleet-8x20-on", seed, 60, 40, rounds=(35, 45, 52, 60))]
        made += [record("fleet-8x60-on", seed, 85, 45, rounds=(1, 1, 1, 85))]
        made += [
            record("distilled-8x60-on", seed, 80, 75),
            record("fleet-2x20-on", seed, 50),
            record("teacher-8x20", seed, 38),
        ]
    return made


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return ladder_page.document(ROWS, planted(), SETTINGS)


def said(found: dict[str, Any], begins: str) -> str:
    return next(text for text in found["findings"] if text.startswith(begins))


def test_the_document_has_the_shape_that_programs_rely_on(found: dict[str, Any]) -> None:
    asked = {"suite", "kind", "cars", "fleet_minutes", "score", "low", "high", "worlds", "seeds"}
    assert all(asked <= set(row) for row in found["rows"]) and found["synthetic"] is True
    base = next(row for row in found["rows"] if row["name"] == "base" and row["region"] == "cn")
    assert (base["worlds"], base["egos"], base["seeds"]) == (12, 4, 3) and base["low"] < base["score"] < base["high"]
    assert json.loads(ladder_page.files(found)["ladder.json"]) == json.loads(json.dumps(found))


def test_words_follow_from_planted_figures(found: dict[str, Any]) -> None:
    assert "fleet-8x60-on over base +65.0" in said(found, "The whole ladder") and "p = 0.0005" in said(
        found, "The whole ladder"
    )
    assert "fleet-8x20-on over fleet-2x20-on +10.0" in said(found, "More cars")
    assert "34.5, 44.5, 51.5, 59.5: each above the last, 4 of 4" in said(found, "Rounds")
    assert "0.8989 of the expert's score; 0.85 is reached" in said(found, "Final")
    home = said(found, "Home")
    assert "within 10 points: distilled-8x60-on" in home and "fleet-8x20-on -40.0" in home
    assert "+22.0" in said(found, "Takeovers at errors")
    assert said(found, "Public video") == "Public video over the base: not run."
    assert "it learned from 400 samples of 40 takeovers in 8 km against 0 samples" in said(found, "More cars")
    assert "(3 of 3 seeds above; collision vehicle 0.63 against 0.70 a route)" in said(found, "More minutes")
    assert {one["name"] for one in found["causes"]} == {line["name"] for line in found["rows"] if line["worlds"]}


def test_base_below_public_below_fleet_is_said_only_when_both_steps_are_there() -> None:
    both = [record("base", 0, 20), record("public", 0, 30), record("fleet-8x20", 0, 40)]
    found = ladder_page.document(ROWS, both, SETTINGS)
    assert (
        said(found, "Base below") == "Base below public video below the fleet: in this order, both steps with p < 0.05."
    )
    found = ladder_page.document(ROWS, [*both[:1], record("public", 0, 15), both[2]], SETTINGS)
    assert "not in this order, 1 of 2 steps" in said(found, "Base below")
    assert said(ladder_page.document(ROWS, both[:2], SETTINGS), "Base below").endswith("not run.")
    assert "say little about other seeds: base, fleet-8x20, public." in ladder_page.page(found, [])


def test_a_page_of_worse_figures_says_so() -> None:
    made = [record("base", 0, 50, 80), record("expert", 0, 95), record("fleet-8x20", 0, 52)]
    made += [record("fleet-8x20-on", 0, 45, 20, rounds=(55, 40, 50, 45)), record("fleet-2x20-on", 0, 49)]
    found = ladder_page.document(ROWS, made, SETTINGS)
    assert "worse at p < 0.01 (0 of 1 seeds above; collision vehicle 0.55 against 0.50 a route)" in said(
        found, "The whole ladder"
    )
    assert "worse at p < 0.05" in said(found, "More cars")
    assert "not each above the last, 2 of 4 steps with p < 0.05 (round 2 -15.0" in said(found, "Rounds")
    assert ", collision vehicle 0.60 against 0.45 a route; round 4 -5.0" in said(found, "Rounds")
    assert "0.85 is not reached" in said(found, "Final") and "collision vehicle" in said(found, "Final")
    assert "none stays within 10 points" in said(found, "Home")
    assert said(found, "Law") == "Law of score against minutes: not enough rows."


def test_what_is_not_shown_says_what_these_worlds_could_show() -> None:
    few, more = record("fleet-2x20-on", 0, 50), record("fleet-8x20-on", 0, 51)
    for number, route in enumerate(more["cn"]["routes"]):
        route[2] += 20 * (-1) ** (number // 4)  # worlds that disagree
    found = ladder_page.document(ROWS, [few, more], SETTINGS)
    assert "not shown to be better" in said(found, "More cars") and "points four times in five" in said(
        found, "More cars"
    )
    few["name"], more["name"] = more["name"], few["name"]
    turned = said(ladder_page.document(ROWS, [few, more], SETTINGS), "More cars")
    assert "no better" in turned and "points four times in five" in turned
    (one,) = (one for one in found["comparisons"] if one["question"] == "more cars")
    assert one["detectable"] == pytest.approx(2.8 * 20 / np.sqrt(11), rel=0.02)
    sure = ladder_page.document(ROWS, [few, record("fleet-8x20-on", 0, 90)], SETTINGS)
    assert "four times in five" not in said(sure, "More cars")


def test_fleets_are_compared_over_all_minutes_that_both_have() -> None:
    """One level may be above and one below: over both it is their mean, by the seeds that all four rows have."""
    levels = {"fleet-2x5-on": 50, "fleet-8x5-on": 58, "fleet-2x60-on": 61, "fleet-8x60-on": 59, "fleet-8x20-on": 99}
    made = [record(name, seed, level) for name, level in levels.items() for seed in (0, 1)]
    found = ladder_page.document(ROWS, [*made, record("fleet-2x5-on", 2, 10)], SETTINGS)
    (one,) = (one for one in found["comparisons"] if one["question"] == "more cars, all minutes")
    assert (one["a"], one["b"], one["seeds"]) == ("fleet-2x5+60-on", "fleet-8x5+60-on", 2)
    assert one["difference"] == pytest.approx(3.0) and one["p"] < 0.001 and one["routes"] == 48
    asked = said(found, "More minutes of the same cars").splitlines()
    assert asked[0].endswith(": 1 of 2 better at p < 0.05, 1 worse.") and len(asked) == 3, "a line for each comparison"
    assert asked[1].startswith("  * fleet-8x20-on over fleet-8x5-on +41.0")
    assert "+3.0 [3.0, 3.0]" in said(found, "More cars at equal rounds, over all minutes")
    begun = [record(name, 0, 1) for name in ("fleet-2x20-on", "fleet-2x160-on", "fleet-8x160-on")]
    again = ladder_page.document(ROWS, [*made, *begun], SETTINGS)
    (same,) = (one for one in again["comparisons"] if one["question"] == "more cars, all minutes")
    assert same["difference"] == one["difference"], "levels with fewer seeds take none away"
    single = ladder_page.document(ROWS, [record(name, 0, 50) for name in ("fleet-2x5-on", "fleet-8x5-on")], SETTINGS)
    assert said(single, "More cars at equal rounds, over").endswith("not run.")


def test_nothing_run_is_a_page_too() -> None:
    found = ladder_page.document(ROWS, [], SETTINGS)
    page = ladder_page.files(found)["ladder.md"].decode()
    assert set(found["not_run"]) == {row["name"] for row in ROWS} and "not measurable yet" in page
    assert not any("better at" in text for text in found["findings"])


def test_the_law_is_fitted_below_and_checked_above(found: dict[str, Any]) -> None:
    (law,) = (one for one in found["laws"] if not one["on_policy"])
    assert law["inside"] and law["predicted"] == pytest.approx(30 + 5 * np.log(160 / 5), abs=0.7)
    assert ladder_page.hours_to({"kind": "log", "a": 0.0, "b": 10.0}, 10 * np.log(600)) == pytest.approx(10.0)
    assert ladder_page.hours_to({"kind": "log", "a": 50.0, "b": -1.0}, 60) is None
    power = ladder_page.fit([5, 20, 60], [100 - 80 * m**-0.3 for m in (5, 20, 60)])
    assert power["kind"] == "power" and ladder_page.predict(power, 160) == pytest.approx(100 - 80 * 160**-0.3, abs=0.01)


def test_a_law_is_never_fitted_to_the_level_that_checks_it_and_says_how_far_parity_is() -> None:
    logs = [record(f"fleet-8x{m}", 0, 40 + 0.2 * np.log(m)) for m in (5, 20, 60)]
    rounds = [record(f"fleet-8x{m}-on", 0, 60) for m in (20, 60, 160)]
    found = ladder_page.document(ROWS, [record("expert", 0, 95), *logs, *rounds], SETTINGS)
    assert [law["on_policy"] for law in found["laws"]] == [False], "three levels, one of them the last, fit no law"
    assert "not run yet; not within 10,000 h at 0.85 of the expert" in said(found, "Law for logs alone")
    falling = [record(f"fleet-8x{m}", 0, 40 - np.log(m)) for m in (5, 20, 60)]
    assert "never at 0.85" in said(ladder_page.document(ROWS, [record("expert", 0, 95), *falling], SETTINGS), "Law for")


def test_holm_never_lowers_a_p(found: dict[str, Any]) -> None:
    assert all(one["p"] <= one["p_holm"] <= 1 for one in found["comparisons"])


def test_the_plan_asks_everything_once_and_first_what_answers_most() -> None:
    names = [row.name for row in FULL.rows]
    assert len(set(names)) == len(names) and names[:2] == ["expert", "base"]
    assert {f"fleet-{c}x{m}{on}" for c in (2, 8, 32) for m in (5, 20, 60, 160) for on in ("", "-on")} <= set(names)
    assert {row.kind for row in FULL.rows} >= {"public", "simulation", "scratch", "fleet+teacher", "blind", "stop"}
    assert {row.way for row in FULL.rows} == {"full", "frozen", "low_rank", "distilled", "averaged"}


@pytest.mark.parametrize("views", [2, 4])
def test_a_ladder_with_more_views_drives_towns_of_its_own(views: int) -> None:
    plan = PLANS[views]
    assert {row.name for row in plan.rows} >= {"expert", "base", "fleet-8x60", "long-8x60-on", "averaged-long-8x60-on"}
    assert plan.demo.surround and len(plan.demo.base_recipe.trainable.side_views) == views - 1
    for region, name in plan.suites.items():
        suites = load_pack(region).suites
        own = {town for town, _ in suites["suites"][name]["worlds"]}
        others = {
            town for other, suite in suites["suites"].items() if other != name for town, _ in suite.get("worlds", ())
        }
        assert len(suites["suites"][name]["worlds"]) == 12 and own <= set(suites["fresh_towns"])
        assert not own & (others | set(suites["training_towns"]) | set(plan.demo.towns) | set(plan.sim_towns))


def test_the_command_refuses_other_numbers_of_views(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["--views", "3"], ["--views", "2", "--tiny"]):
        assert cli.run(["flywheel", "ladder", *asked]) == 2
        assert "give 1, 2 or 4" in capsys.readouterr().err


def test_a_page_keeps_the_rows_of_folders_that_are_gone(tmp_path: Path) -> None:
    def published(folder: str, plan: ladder.LadderPlan, *records: dict[str, Any]) -> list[str]:
        experiment = Ladder(tmp_path / folder, tmp_path / "results", plan, silent, print)
        experiment.claim()
        for one in records:
            experiment._keep(one)
        return [row["name"] for row in experiment.publish()["rows"] if row["score"] is not None]

    first = published("first", FULL, record("base", 0, 10, 80), record("fleet-8x20", 0, 30))
    assert first == ["base", "base", "fleet-8x20"]
    again = published("second", FULL, record("fleet-8x20", 0, 40), record("fleet-8x60", 0, 50))
    assert again == ["base", "base", "fleet-8x20", "fleet-8x60"]
    kept = json.loads((tmp_path / "results" / "ladder-rows.json").read_text())
    assert kept["rows"][1] == record("fleet-8x20", 0, 40)  # the newer folder's
    assert published("third", replace(FULL, steps=9), record("fleet-8x5", 0, 20)) == ["fleet-8x5"]


def test_earlier_rounds_drive_the_suite_once_their_row_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look back that breaks off loses no row, and the next run takes up what is missing."""
    asked: list[str] = []

    def driven(self: Ladder, center: Center, region: str, policy: str) -> dict[str, Any]:
        asked.append(policy)
        if len(asked) == 2:
            raise OnshoreError("world_crashed", policy, "it died")
        return record("x", 0, 60)["cn"]

    made = record("fleet-8x20-on", 0, 60, 40, rounds=(35, 45, 52, 60))
    for number, part in enumerate(made["rounds"], 1):
        part["weights"] = f"weights-{number}"
        part.pop("routes", None)
        part.pop("rates", None)
    told: list[str] = []
    experiment = Ladder(tmp_path / "run", tmp_path / "results", FULL, silent, told.append)
    experiment.claim()
    monkeypatch.setattr(Ladder, "_make", lambda self, row, seed: made)
    monkeypatch.setattr(Ladder, "_driven", driven)
    monkeypatch.setattr(ladder.models, "policy_spec", lambda center, weights: weights)
    row = experiment.by_name["fleet-8x20-on"]
    experiment.make(row, 0)
    assert "not made" in told[-1] and (tmp_path / "run" / "rows" / "fleet-8x20-on-0.json").exists()
    found = experiment.make(row, 0)
    assert asked == ["weights-1", "weights-2", "weights-2", "weights-3"]
    assert found is not None and ["routes" in part for part in found["rounds"]] == [True, True, True, False]
    assert experiment.make(row, 0) == found and len(asked) == 4


@pytest.mark.parametrize("cars", [2, 8, 32])
def test_a_fleet_drives_all_its_minutes_in_short_drives(cars: int) -> None:
    for level in FULL.levels:
        turns = [turn for turn, reached in ladder.sessions(cars, FULL.levels) if reached <= level]
        assert sum(turn.minutes for turn in turns) == pytest.approx(level)
        assert max(turn.minutes / turn.cars for turn in turns) <= ladder.LONGEST_DRIVE_MIN


# -- a tiny ladder -----------------------------------------------------------------------------------------------------

NARROW = Nano(channels=(8, 12, 16, 24, 32), hidden=64, side_views=(View(focal_px=160.0),))
SMALLEST = replace(
    TINY,
    demo=replace(
        TINY.demo,
        base=Turn(cars=1, minutes=0.2, steps=4, worlds=1),
        base_again_steps=4,
        egos=1,
        surround=True,
        base_recipe=replace(TINY.demo.base_recipe, trainable=NARROW),
        adapt_recipe=replace(TINY.demo.adapt_recipe, trainable=NARROW),
    ),
    rows=tuple(
        replace(row, home=False)
        for row in rows_of((0.2, 0.4, 0.6, 0.8), (1, 2, 3), 2)
        if row.name in ("base", "fleet-1x0.4-on")
    ),
    levels=(0.2, 0.4, 0.6, 0.8),
    steps=12,
    last_rate=0.5,
)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Killed while its last row learns, then run again."""
    out = tmp_path_factory.mktemp("ladder")
    learning = 0

    def kill(what: str, done: int, total: int) -> None:
        nonlocal learning
        learning += what == "training steps" and total == SMALLEST.steps // 2
        if learning == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ladder.run(out / "run", out / "results", plan=SMALLEST, progress=kill)
    assert {path.name for path in (out / "run" / "rows").iterdir()} == {"base-0.json"}
    return out, ladder.run(out / "run", out / "results", plan=SMALLEST)


@pytest.mark.slow
def test_a_killed_ladder_goes_on_and_then_makes_nothing_new(climbed: tuple[Path, dict[str, Any]]) -> None:
    out, document = climbed
    made = {row["name"] for row in document["rows"] if row["score"] is not None}
    assert made == {"base", "fleet-1x0.4-on"} and document["not_run"] == []
    before = {path: path.read_bytes() for path in (out / "run" / "rows").iterdir()}
    center = Center.open(out / "run" / "cn-1-center")
    size = center.ledger.head().size
    assert ladder.run(out / "run", out / "results", plan=SMALLEST) == document
    assert {path: path.read_bytes() for path in before} == before and center.ledger.head().size == size
    assert "**Synthetic.**" in (out / "results" / "ladder.md").read_text()
    with pytest.raises(UsageError, match="another plan"):
        ladder.run(out / "run", out / "results", plan=replace(SMALLEST, steps=16))
    with pytest.raises(UsageError, match="--rows moon"):
        ladder.run(out / "run", out / "results", plan=SMALLEST, rows=["moon"])


@pytest.mark.slow
def test_rounds_learn_from_what_the_fleet_earned(climbed: tuple[Path, dict[str, Any]]) -> None:
    out, _ = climbed
    rounds = json.loads((out / "run" / "rows" / "fleet-1x0.4-on-0.json").read_text())["rounds"]
    center = Center.open(out / "run" / "cn-1-center")
    frozen = manifest.datasets(center)
    assert [one["takeovers"] for one in frozen] == [1, 2] and all(part["samples"] > 0 for part in rounds)
    recipes = [center.artifact(part["weights"]).meta["recipe"]["steps"] for part in rounds]
    assert recipes == [6, 6]
    rates = [center.artifact(part["weights"]).meta["recipe"]["learning_rate"] for part in rounds]
    assert rates == [1e-3, pytest.approx(5e-4)]


@pytest.mark.slow
def test_fewer_minutes_are_the_beginning_of_more(climbed: tuple[Path, dict[str, Any]]) -> None:
    out, _ = climbed
    again = Ladder(out / "run", out / "results", SMALLEST, lambda *_: None, lambda _: None)
    center, row = again._center("cn", 1), SMALLEST.rows[-1]
    few, all_of_it = (again._fleet_drives(center, replace(row, minutes=minutes)) for minutes in (0.2, 0.4))
    assert few == all_of_it[: len(few)] and len(few) == 1 and len(all_of_it) == 2


@pytest.mark.slow
def test_a_row_of_another_process_is_left_to_it(climbed: tuple[Path, dict[str, Any]]) -> None:
    out, _ = climbed
    told: list[str] = []
    one, other = (Ladder(out / "run", out / "results", SMALLEST, lambda *_: None, told.append) for _ in range(2))
    with one._alone("base-0") as mine:
        assert mine and other.make(SMALLEST.rows[0], 0) is None
    assert told == ["base, seed 0: another process makes it"] and other.make(SMALLEST.rows[0], 0) is not None


@pytest.mark.slow
def test_every_kind_of_row_is_climbed(tmp_path: Path) -> None:
    document = ladder.run(tmp_path / "run", tmp_path / "results", plan=TINY)
    assert set(document["not_run"]) <= {"public"}
    assert (tmp_path / "results" / "ladder-home.svg").exists()


@pytest.mark.slow
def test_who_learns_with_boxes_and_who_without_learn_from_the_same_driving_and_nothing_else(tmp_path: Path) -> None:
    """A fleet's logs are its own: what other rows' fleets brought is not learned from, whichever came first."""
    names = ["fleet-2x0.5", "identifiable-2x0.5", "redacted-2x0.5"]
    ladder.run(tmp_path / "run", tmp_path / "results", plan=TINY, rows=names)
    places = ("cn-2-center", "cn-2-identifiable-center", "cn-2-redacted-center")
    rows = [manifest.datasets(Center.open(tmp_path / "run" / place)) for place in places]
    assert [len(of_center) for of_center in rows] == [1, 1, 1]
    told = {(row["drives"], row["seconds"]) for (row,) in rows}
    assert len(told) == 1 and 20 < told.pop()[1] < 31
