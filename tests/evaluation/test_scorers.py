"""All scores from stored rollouts: EPDMS sub-metrics agree with scenes worked out by hand, success is Bench2Drive's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.epdms_scenes import JUNCTION, SCENES
from evaluation.rollouts import straight
from evaluation.situations import Street, situation
from onshore import cli
from onshore.core.control import VehicleGeometry
from onshore.core.errors import UsageError
from onshore.core.label import Label
from onshore.core.plan import PATH_ARCS_M
from onshore.core.rollout import ACTOR_COLUMNS, ACTOR_KINDS, LIGHTS, Rollout
from onshore.evaluation.closedloop import pack_rollouts
from onshore.evaluation.epdms import FRONT_M, LENGTH_M, REAR_M, WIDTH_M
from onshore.evaluation.epdms_rollout import epdms_windows, window_scores
from onshore.evaluation.scorers import ScoreRow, known_scorers, score_rollouts, succeeded
from onshore.evaluation.scores import driving_score
from onshore.store import Center

PACIFICA = VehicleGeometry(length_m=LENGTH_M, width_m=WIDTH_M, rear_overhang_m=REAR_M)
KINDS = {"vehicle": "car", "bicycle": "bicycle", "pedestrian": "pedestrian", "traffic_cone": "static"}
ALL_ONE = {"NC": 1.0, "DAC": 1.0, "DDC": 1.0, "TLC": 1.0, "TTC": 1.0, "LK": 1.0, "HC": 1.0}


def as_rollout(scene: dict[str, Any]) -> Rollout:
    """The scene as a world would have written it: the same road, told in columns."""
    ego = {name: np.asarray(values, float) for name, values in scene["ego"].items()}
    y, half = ego["y_m"], WIDTH_M / 2
    lane = np.floor((y + 1.75) / 3.5)
    front = ego["x_m"] + FRONT_M
    steps = {
        **{name: ego[name] for name in ("t_s", "x_m", "y_m", "yaw_rad", "speed_mps", "accel_mps2")},
        "lateral_m": y,
        "on_road": ((y - half >= -1.75) & (y + half <= 8.75)).astype(float),
        "oncoming": (lane == 2).astype(float),
        "junction": np.full(41, float(scene.get("road") == JUNCTION)),
        "line_left_m": (lane + 1) * 3.5 - 1.75 - (y + half),
        "line_right_m": (y - half) - (lane * 3.5 - 1.75),
        "stop_line_m": 20.0 - front if scene["red_light_polygons"] else np.full(41, np.nan),
        "light": np.full(41, float(LIGHTS.index("red" if scene["red_light_polygons"] else "none"))),
    }
    agents, rows = scene["agents"], np.repeat(np.arange(41), len(scene["agents"]))
    table = [
        (
            agent["x_m"] + agent["vx_mps"] * t_s,
            agent["y_m"] + agent["vy_mps"] * t_s,
            agent["yaw_rad"],
            float(np.hypot(agent["vx_mps"], agent["vy_mps"])),
            agent["length_m"],
            agent["width_m"],
        )
        for t_s in ego["t_s"]
        for agent in agents
    ]
    actors = np.array(table, np.float32).reshape(-1, len(ACTOR_COLUMNS))
    return replace(
        straight(seconds=4.1, **steps),
        actors={name: actors[:, index] for index, name in enumerate(ACTOR_COLUMNS)},
        actor_row=rows.astype(np.int32),
        actor_id=np.tile(np.arange(len(agents)), 41).astype(np.int32),
        actor_kind=np.tile([ACTOR_KINDS.index(KINDS[agent["type"]]) for agent in agents], 41).astype(np.int8),
    )


@pytest.mark.parametrize(("scene", "differs"), SCENES, ids=lambda part: part.get("name", ""))
def test_a_rollout_has_the_sub_metrics_of_its_scene(scene: dict[str, Any], differs: dict[str, float]) -> None:
    (found,) = epdms_windows(as_rollout(scene), PACIFICA)
    expected = {**ALL_ONE, **{name: value for name, value in differs.items() if name in ALL_ONE}}
    assert {name: found[name].value for name in expected if name != "HC"} == {
        name: value for name, value in expected.items() if name != "HC"
    }
    assert not found["EP"].measured and not found["EC"].measured and not found["HC"].measured


def test_a_side_contact_without_known_lines_is_not_measured() -> None:
    scene = next(record for record, _ in SCENES if record["name"] == "side contact across two lanes")
    rollout = as_rollout(scene)
    unknown = replace(rollout, steps={**rollout.steps, "line_left_m": np.full(41, np.nan)})
    unknown = replace(unknown, steps={**unknown.steps, "line_right_m": np.full(41, np.nan)})
    (found,) = epdms_windows(unknown, PACIFICA)
    assert not found["NC"].measured and "lines" in found["NC"].why and found["DAC"].measured
    (free,) = epdms_windows(replace(unknown, actor_row=unknown.actor_row + 100), PACIFICA)
    assert free["NC"].measured and free["NC"].value == 1.0


def cruising(speed: float = 10.0, *, limit: float = 10.0, swings: float = 0.0, **columns: Any) -> Rollout:
    """Nine seconds straight on with plans to go on so; `swings`: by how much (m/s) every second plan asks for less."""
    made = straight(speed_mps=speed, seconds=9.0, speed_limit_mps=limit, light_distance_m=np.nan, **columns)
    rows = len(made.steps["t_s"])
    wanted = speed - swings * (np.arange(rows) // 4 % 2)
    path = np.stack([np.array(PATH_ARCS_M), np.zeros(len(PATH_ARCS_M))], -1)
    return replace(
        made,
        plan_path_NK2=np.repeat(path[None], rows, 0).astype(np.float32),
        plan_speed_NT=np.repeat(wanted[:, None], 4, 1).astype(np.float32),
    )


def standing_car(rollout: Rollout, x_m: float) -> Rollout:
    rows = len(rollout.steps["t_s"])
    values = dict(zip(ACTOR_COLUMNS, (x_m, 0.0, 0.0, 0.0, 4.6, 1.8), strict=True))
    return replace(
        rollout,
        actors={name: np.full(rows, value, np.float32) for name, value in values.items()},
        actor_row=np.arange(rows, dtype=np.int32),
        actor_id=np.full(rows, 5, np.int32),
        actor_kind=np.zeros(rows, np.int8),
    )


def test_a_town_rollout_has_an_epdms_score_and_progress_is_against_a_lawful_reference() -> None:
    first, second = epdms_windows(cruising(), PACIFICA)
    assert first["EP"].value == pytest.approx(1.0, abs=0.02) and not first["EC"].measured
    assert np.isnan(window_scores(first)[1]) and window_scores(first)[0] == pytest.approx(1.0, abs=0.02)
    assert second["EC"].value == 1.0 and window_scores(second)[1] == pytest.approx(1.0, abs=0.02)
    slow = epdms_windows(cruising(5.0), PACIFICA)[1]
    assert 0.5 < slow["EP"].value < 0.75  # 20 m of what an unhindered driver gets from 5 m/s
    without, whole = window_scores(slow)
    assert without == pytest.approx((5 * slow["EP"].value + 9) / 14)
    assert whole == pytest.approx((5 * slow["EP"].value + 11) / 16)
    fast = epdms_windows(cruising(10.0, limit=5.0), PACIFICA)[1]
    assert fast["EP"].value == 1.0  # beyond the reference is not beyond 1


def test_standing_behind_somebody_or_at_a_red_light_is_no_lost_progress() -> None:
    waiting = cruising(0.0)
    assert epdms_windows(waiting, PACIFICA)[1]["EP"].value == 0.0
    assert epdms_windows(standing_car(waiting, FRONT_M + 4.0), PACIFICA)[1]["EP"].value == 1.0
    red = cruising(0.0, light=float(LIGHTS.index("red")))
    red = replace(red, steps={**red.steps, "light_distance_m": np.full(90, 2.0)})
    assert epdms_windows(red, PACIFICA)[1]["EP"].value == 1.0
    assert epdms_windows(cruising(limit=np.nan), PACIFICA)[1]["EP"].measured is False


def test_plans_that_change_their_mind_lose_extended_comfort() -> None:
    assert epdms_windows(cruising(swings=4.0), PACIFICA)[1]["EC"].value == 0.0
    expert = replace(cruising(), plan_speed_NT=np.full((90, 4), np.nan, np.float32))
    assert not epdms_windows(expert, PACIFICA)[1]["EC"].measured
    found = table([cruising(), cruising(swings=4.0)], "epdms")
    assert found["epdms", "score"].value == pytest.approx((1.0 + 14 / 16) / 2, abs=0.02)


def test_success_is_a_complete_route_without_an_infraction() -> None:
    done = (19.9, "route_complete", {})
    assert succeeded(driving_score(straight(done), "bench2drive"))
    assert not succeeded(driving_score(straight(done, (3.0, "red_light", {})), "bench2drive"))
    assert not succeeded(driving_score(straight(speed_mps=5.0), "bench2drive"))


def table(rollouts: list[Rollout], *scorers: str) -> dict[tuple[str, str], ScoreRow]:
    return {(row.scorer, row.column): row for row in score_rollouts(rollouts, scorers)}


def test_every_scorer_reads_the_same_rollouts_and_names_its_sample() -> None:
    done, hit = (19.9, "route_complete", {}), (5.0, "collision_vehicle", {"id": 4})
    rollouts = [
        straight(done, world_seed=1),
        straight(done, hit, world_seed=2),
        straight(hit, done, world_seed=2, ego=1),
    ]
    found = table(rollouts, "carla20", "carla21", "b2d", "epdms", "comfort", "infractions", "rules-us")
    assert found["carla20", "driving_score"].value == pytest.approx((100 + 60 + 60) / 3)
    assert found["carla21", "driving_score"].value == pytest.approx((100 + 2 * 100 / 1.7) / 3)
    assert found["b2d", "success_rate"].value == pytest.approx(100 / 3)
    assert found["comfort", "comfortable_pct"].value == 100.0 and found["epdms", "NC"].value == 1.0
    assert found["epdms", "score"].value is None and found["epdms", "score"].not_measurable == 3
    assert found["infractions", "collision_vehicle_per_km"].value == pytest.approx(2 / (3 * 0.199))
    assert found["rules-us", "wrong_way"].value == 0.0
    for row in found.values():
        assert (row.worlds, row.egos, row.seeds, row.synthetic) == (2, 3, 2, True) and row.version


def test_comfort_is_lost_by_hard_braking() -> None:
    speed = np.concatenate([np.full(100, 10.0), np.maximum(10.0 - 0.8 * np.arange(100), 0.0)])
    rollout = straight(speed_mps=10.0, accel_mps2=np.gradient(speed, 0.1))
    assert table([rollout], "comfort")["comfort", "comfortable_pct"].value == pytest.approx(80.0, abs=10.0)


def test_a_scorer_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="carla20"):
        score_rollouts([straight()], ["carla99"])
    assert "epdms" in known_scorers()


def test_stored_rollouts_are_scored_anew_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    center = Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=0)
    rollouts = [situation("red", "cn", Street().line(40.0, "light", light="red")).rollout]
    label = Label(region="cn", kind="rollouts", retention="evidence", synthetic=True)
    artifact = center.put(pack_rollouts(rollouts), label, name="cn-core")
    center.close()
    words = ["--center", str(tmp_path / "center"), "evaluation", "rescore", artifact.id, "--json"]
    assert cli.run([*words, "--scorers", "rules-cn,b2d"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    columns = {row["column"]: row for row in result["rows"]}
    assert columns["red_light"]["value"] > 0 and columns["driving_score"]["scorer"] == "b2d"
    assert cli.run([*words, "--scorers", "carla99"]) == 2
    assert cli.run(["--center", str(tmp_path / "center"), "evaluation", "show"]) == 0
