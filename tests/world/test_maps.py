"""Maps of others become towns that can be driven: an OpenStreetMap extract and an OpenDRIVE file, both drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onshore.core.errors import InputError
from onshore.core.rollout import STOP_RULES
from onshore.evaluation.driven import Driven
from onshore.evaluation.rules import RuleBook, judge_rule
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, import_map, run_jobs
from onshore.world.roads import Roads
from onshore.world.town import Town

MAPS = Path(__file__).parent / "data"


def test_an_osm_extract_with_six_junctions_keeps_streets_lanes_and_lights(cache: Path) -> None:
    layout = import_map(MAPS / "six-junctions.osm")
    meeting = [node for node in layout.nodes if sum(edge.end == node.id for edge in layout.edges) >= 3]
    assert len(meeting) >= 6
    assert sum(node.kind == "traffic_light" for node in layout.nodes) == 3
    assert {len(edge.lanes) for edge in layout.edges} == {1, 2}
    assert {round(edge.speed_mps * 3.6) for edge in layout.edges} == {40, 50}
    town = Town.of(Roads.from_record("us", load_pack("us").roads), layout, cache)
    assert len(town.heads) == 12
    assert {edge.stop_rule for edge in town.edges.values()} == {"light", "give_way", "none"}
    assert import_map(MAPS / "six-junctions.osm").digest == layout.digest


@pytest.mark.parametrize(
    ("name", "region"), [("six-junctions.osm", "us"), ("six-junctions.osm", "cn"), ("eight.xodr", "us")]
)
def test_the_expert_completes_routes_on_a_map(cache: Path, name: str, region: str) -> None:
    job = RolloutJob(
        region=region,
        suite="map",
        town_seed=0,
        traffic_seed=4,
        policy=PolicySpec(kind="expert"),
        egos=3,
        route_m=180.0,
        max_time_s=120.0,
        vehicles=12 if name.endswith("xodr") else 40,
        layout=import_map(MAPS / name),
    )
    (rollouts,) = run_jobs([job], workers=1, cache_dir=cache)
    assert [rollout.ended for rollout in rollouts] == ["route_complete"] * len(rollouts)
    assert {rollout.scenario for rollout in rollouts} == {f"map-{Path(name).stem}"}
    assert all(rollout.steps["on_road"].all() for rollout in rollouts)


def test_who_passes_a_stop_sign_without_standing_is_noted_and_the_traffic_rule_says_the_same(cache: Path) -> None:
    """The engine's own driver stands at every one; the rule driver knows lights only."""
    found = import_map(MAPS / "six-junctions.osm")
    nodes = (replace(node, kind="allway_stop") if node.kind == "priority" else node for node in found.nodes)
    layout = replace(found, nodes=tuple(nodes))
    rule = next(rule for rule in RuleBook.from_record("us", load_pack("us").rules).rules if rule.id == "stop_sign")
    noted = {}
    for driver in ("expert", "rule"):
        job = RolloutJob(
            region="us",
            suite="map",
            town_seed=0,
            traffic_seed=4,
            policy=PolicySpec(kind=driver),
            egos=4,
            route_m=300.0,
            max_time_s=120.0,
            vehicles=20,
            layout=layout,
        )
        (rollouts,) = run_jobs([job], workers=1, cache_dir=cache)
        assert any((rollout.steps["stop_rule"] == STOP_RULES.index("stop_sign")).any() for rollout in rollouts)
        noted[driver] = [sum(event.kind == "stop_sign" for event in rollout.events) for rollout in rollouts]
        drives = [Driven.from_rollout(rollout) for rollout in rollouts]
        assert [len(judge_rule(driven, rule).violations) for driven in drives] == noted[driver]
    assert sum(noted["expert"]) == 0 and sum(noted["rule"]) >= 2


def test_what_is_no_map_is_refused_by_name(tmp_path: Path) -> None:
    for name, text in {"a.osm": "<osm/>", "b.xodr": "no xml", "c.osm": "<osm><way id='1'/></osm>"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            import_map(tmp_path / name)
    with pytest.raises(InputError, match="xodr"):
        import_map(tmp_path / "d.shp")
