"""Traffic rules: hand-stated verdicts, the same from a rollout and from the log and context it was exported as."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.situations import Situation, Street, all_situations
from onshore.core.errors import InputError
from onshore.core.recording import Signals
from onshore.core.rollout import ACTOR_COLUMNS
from onshore.evaluation.driven import Driven, MapContext, as_log
from onshore.evaluation.rules import RuleBook, RuleVerdict, judge, judge_rule, totals
from onshore.region.packs import PACKS
from onshore.wire import read_mcap, write_mcap

BOOKS = {
    region: RuleBook.from_record(region, tomllib.loads((PACKS / region / "rules.toml").read_text(encoding="utf8")))
    for region in ("cn", "us", "eu")
}
SITUATIONS = all_situations()
SOUND = {"schema": "onshore.map-context", "version": 1, "region": "cn", "t_ns": [1, 2], "start_ns": 1, "columns": {}}


def verdicts(driven: Driven, region: str) -> dict[str, RuleVerdict]:
    return {verdict.rule: verdict for verdict in judge(driven, BOOKS[region]).verdicts}


def seen(one: Situation) -> Driven:
    driven = Driven.from_rollout(one.rollout)
    return driven if one.sees_actors else replace(driven, actors=None)


def stated(one: Situation, found: dict[str, RuleVerdict]) -> None:
    assert {rule for rule, verdict in found.items() if verdict.status == "violated"} == one.violated
    assert {rule for rule, verdict in found.items() if verdict.status == "not measurable"} == one.unknown
    if one.offences is not None:
        assert sum(len(verdict.violations) for verdict in found.values()) == one.offences


def test_there_are_two_hundred_situations_with_names_of_their_own() -> None:
    names = [one.name for one in SITUATIONS]
    assert len(names) == len(set(names)) and len(names) >= 200
    broken = {(one.region, rule) for one in SITUATIONS for rule in one.violated}
    assert broken == {(region, rule.id) for region, book in BOOKS.items() for rule in book.rules}


@pytest.mark.parametrize("one", SITUATIONS, ids=lambda one: one.name)
def test_a_situation_has_the_verdicts_stated_by_hand(one: Situation) -> None:
    stated(one, verdicts(seen(one), one.region))


@pytest.mark.parametrize("one", SITUATIONS, ids=lambda one: one.name)
def test_the_same_drive_as_a_log_with_map_context_has_the_same_verdicts(one: Situation, tmp_path: Path) -> None:
    recording, context = as_log(one.rollout)
    if not one.sees_actors:
        context = replace(context, actors=None)
    write_mcap(recording, tmp_path / "drive.mcap")
    (tmp_path / "drive.context.json").write_bytes(context.to_bytes())
    driven = Driven.from_recording(
        read_mcap(tmp_path / "drive.mcap"),
        MapContext.from_bytes((tmp_path / "drive.context.json").read_bytes()),
        name=one.name,
        region=one.region,
    )
    found = verdicts(driven, one.region)
    stated(one, found)
    assert found == verdicts(seen(one), one.region)


def test_a_log_without_map_context_leaves_every_rule_unjudged() -> None:
    recording, _ = as_log(SITUATIONS[0].rollout)
    found = verdicts(Driven.from_recording(recording, None, name="bare", region="cn"), "cn")
    statuses = {rule: verdict.status for rule, verdict in found.items()}
    assert statuses.pop("u_turn") == "ok" and set(statuses.values()) == {"not measurable"}
    assert found["following"].missing == ("actors",) and "lane_kind" in found["bus_lane"].missing


def test_what_is_an_offence_is_never_ok_where_nobody_knows_how_fast_it_was() -> None:
    for one in SITUATIONS:
        driven = seen(one)
        unknown = replace(driven, steps=driven.steps | {"speed_mps": np.full(len(driven), np.nan)})
        broken = [rule for rule in BOOKS[one.region].rules if rule.id in one.violated]
        assert all(judge_rule(unknown, rule).status != "ok" for rule in broken), one.name


@pytest.mark.parametrize("region", ["us", "eu"])
def test_which_way_a_red_light_was_passed_is_not_known_where_one_heading_is_not(region: str) -> None:
    street = Street().line(40.0, "light", light="red", movement=np.nan)
    heading = street.columns["yaw_rad"]
    assert verdicts(Driven.from_rollout(street.rollout(region, "x")), region)["red_light"].status == "violated"
    heading[np.argmax(street.front_m > 50.0)] = np.nan
    found = verdicts(Driven.from_rollout(street.rollout(region, "x")), region)
    for rule in ("red_light", "turn_on_red_forbidden"):
        assert (found[rule].status, found[rule].missing) == ("not measurable", ("movement",))


def test_a_car_that_stands_before_a_red_light_passes_it_not_when_its_distance_is_unknown_once() -> None:
    street = Street(speed=np.where(np.arange(80) < 40, 5.0, 0.0)).line(20.5, "light", light="red")
    street.columns["stop_line_m"][60] = np.nan
    assert verdicts(Driven.from_rollout(street.rollout("cn", "x")), "cn")["red_light"].status == "ok"
    street.columns["speed_mps"][59:61] = np.nan
    found = verdicts(Driven.from_rollout(street.rollout("cn", "x")), "cn")["red_light"]
    assert (found.status, found.missing) == ("not measurable", ("speed_mps",))


def test_a_heading_that_is_unknown_once_is_no_u_turn() -> None:
    street = Street(yaw=3.0).set(line_left=2)
    street.columns["yaw_rad"][40] = np.nan
    assert verdicts(Driven.from_rollout(street.rollout("cn", "x")), "cn")["u_turn"].status == "ok"


def test_who_may_have_stood_at_a_stop_sign_is_not_told_to_have_passed_it() -> None:
    street = Street(speed=5.0).line(20.0, "stop_sign")
    street.columns["speed_mps"][np.argmax(street.front_m > 18.0)] = np.nan
    found = verdicts(Driven.from_rollout(street.rollout("us", "x")), "us")["stop_sign"]
    assert (found.status, found.missing) == ("not measurable", ("speed_mps",))


def test_an_offence_says_when_where_and_by_how_much() -> None:
    street = Street(speed=10.0).set(speed_limit_mps=6.0)
    (offence,) = verdicts(Driven.from_rollout(street.rollout("cn", "fast")), "cn")["speed_50"].violations
    assert (offence.t_s, offence.until_s, offence.x_m) == (0.1, 8.0, 0.0)
    assert offence.figures == {"speed_mps": 10.0, "limit_mps": 6.0}


def test_points_and_fines_per_100_km_carry_exact_intervals() -> None:
    fast = judge(Driven.from_rollout(Street(speed=10.0).set(speed_limit_mps=6.0).rollout("cn", "fast")), BOOKS["cn"])
    calm = judge(Driven.from_rollout(Street(speed=10.0).rollout("cn", "calm")), BOOKS["cn"])
    found = totals([fast, calm, calm], BOOKS["cn"])
    assert found.complete and found.km == pytest.approx(3 * 0.079)
    assert found.violations is not None and found.points is not None and found.fine is not None
    assert found.violations.value == pytest.approx(100 / found.km)
    # Garwood (1936): one event observed, 0.0253 to 5.5716 expected
    assert found.violations.low == pytest.approx(0.025318 * 100 / found.km, rel=1e-4)
    assert found.violations.high == pytest.approx(5.571643 * 100 / found.km, rel=1e-4)
    assert found.points.value == pytest.approx(600 / found.km) and found.fine.value == pytest.approx(1e5 / found.km)


def test_a_rule_that_could_not_be_judged_makes_the_sum_incomplete() -> None:
    street = Street().set(speed_limit_mps=np.nan)
    found = totals([judge(Driven.from_rollout(street.rollout("us", "x")), BOOKS["us"])], BOOKS["us"])
    row = next(row for row in found.rules if row.rule == "speed_1")
    assert not found.complete and row.per_100_km is None and row.missing == ("speed_limit_mps",)


def test_rules_of_a_pack_are_read_strictly() -> None:
    good = {"id": "a", "predicate": "wrong_way", "clause": "x", "certainty": "M", "severity": "minor", "threshold": {}}
    for change in ({"predicate": "guess"}, {"certainty": "sure"}, {"clause": ""}, {"colour": 1}):
        with pytest.raises(InputError, match=r"bad_config.*a"):
            RuleBook.from_record("cn", {"rules": [{**good, **change}]})
    with pytest.raises(InputError, match="repeats"):
        RuleBook.from_record("cn", {"rules": [good, good]})


def somebody(**values: object) -> dict[str, object]:
    """One road user of a map context, at its first moment."""
    record = {"row": 0, "id": 7, "kind": "car", **dict.fromkeys(ACTOR_COLUMNS, 1.0), **values}
    return {name: [value] for name, value in record.items()}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 9}, "schema"),
        ({"t_ns": [2, 1]}, "t_ns"),
        ({"columns": {"colour": [1, 1]}}, "columns.colour"),
        ({"columns": {"lane_kind": ["car", "tram"]}}, r"columns.lane_kind\[1\]"),
        ({"columns": {"junction": [0]}}, "columns.junction"),
        ({"columns": {"junction": [0, True]}}, r"columns.junction\[1\]"),
        ({"actors": {"row": []}}, "actors"),
        ({"t_ns": [1, 2**70]}, "t_ns"),
        ({"start_ns": -(2**70)}, "start_ns"),
        ({"columns": {"junction": [0, 10**400]}}, r"columns.junction\[1\]"),
        ({"actors": somebody(id=2**40)}, "actors id"),
        ({"actors": somebody(x_m=None)}, r"actors.x_m\[0\]"),
        ({"actors": somebody(kind=["car"])}, "actors.kind"),
        ({"actors": somebody() | {"kind": 3}}, "actors.kind"),
        ({"actors": somebody() | {"id": []}}, "actors.id"),
    ],
)
def test_a_map_context_that_is_wrong_names_its_field(change: dict[str, object], field: str) -> None:
    record = {**SOUND, **change}
    with pytest.raises(InputError, match=field):
        MapContext.from_bytes(json.dumps(record).encode())
    assert MapContext.from_bytes(json.dumps({**SOUND, "actors": somebody()}).encode()).actors is not None


def test_a_log_of_another_rate_is_judged_at_the_moments_of_its_context() -> None:
    """Ego state at 25 Hz beside a 10 Hz context: interpolated, the same verdicts."""
    for one in [one for one in SITUATIONS if one.name in ("cn-red-straight", "us-close-behind", "eu-over-solid")]:
        recording, context = as_log(one.rollout)
        t_ns = np.arange(recording.signals.t_ns[0], recording.signals.t_ns[-1] + 1, 40_000_000)
        dense = {
            name: np.interp(t_ns, recording.signals.t_ns, getattr(recording.signals, name))
            for name in ("x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2")
        }
        faster = replace(recording, signals=Signals.build(t_ns, **dense))
        stated(one, verdicts(Driven.from_recording(faster, context, name="log", region=one.region), one.region))
