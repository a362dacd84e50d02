"""Maps of others become towns that can be driven: an OpenStreetMap extract and an OpenDRIVE file, both drawn by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from onshore.core.errors import InputError
from onshore.core.rollout import STOP_RULES
from onshore.evaluation.driven import Driven
from onshore.evaluation.rules import RuleBook, judge_rule
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, import_map, run_jobs
from onshore.world.layout import Layout
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


def with_signs(folder: Path, junctions: dict[str, str], beside: dict[str, str]) -> Layout:
    """The extract with signs: on junctions by node, and beside way 4 (101, 105, 110 and 114 from south to north) by latitude."""
    text = (MAPS / "six-junctions.osm").read_text()
    for node, tags in junctions.items():
        text = re.sub(f'(<node id="{node}"[^>]*?)/?>', rf"\1>{_tags(tags)}" + "</node>", text, count=1)
    signs = "".join(
        f'<node id="{900 + n}" version="1" lat="{lat}" lon="0.01135">{_tags(tags)}</node>'
        for n, (lat, tags) in enumerate(beside.items())
    )
    for n, lat in enumerate(beside):
        after = '<nd ref="105"/><nd ref="110"/>' if float(lat) < 0.01 else '<nd ref="110"/><nd ref="114"/>'
        text = text.replace(after, f'<nd ref="{900 + n}"/>{after}')
    file = folder / "signed.osm"
    file.write_text(text.replace('<way id="1"', f'{signs}<way id="1"', 1))
    return import_map(file)


def _tags(said: str) -> str:
    return "".join('<tag k="{}" v="{}"/>'.format(*one.split("=")) for one in said.split())


def stops(layout: Layout, cache: Path) -> set[str]:
    town = Town.of(Roads.from_record("us", load_pack("us").roads), layout, cache)
    return {edge.id for edge in town.edges.values() if edge.stop_rule == "stop_sign"}


@pytest.mark.parametrize(
    ("junctions", "beside", "stopping"),
    [
        ({"109": "highway=stop"}, {}, {"2#0", "-2#1", "3#1", "-3#2"}),  # on the junction: all of them
        ({"105": "highway=stop stop=minor"}, {}, {"4#0", "-4#1"}),
        ({}, {"0.00980": "highway=stop direction=forward"}, {"4#0", "-4#1"}),  # 105: both minor streets
        ({}, {"0.00980": "highway=stop"}, {"4#0", "-4#1"}),  # its nearer end
        ({}, {"0.00970": "highway=stop direction=backward"}, {"-4#0"}),  # 101: three streets of one priority
        ({}, {"0.00980": "highway=stop stop=all direction=forward"}, {"1#1", "-1#2", "4#0", "-4#1"}),
        ({}, {"0.00980": "highway=give_way direction=forward"}, set()),
        ({}, {"0.01120": "highway=stop direction=forward"}, set()),  # 110 has lights
    ],
)
def test_stop_signs_of_an_extract_rule_the_streets_that_come_past_them(
    cache: Path, tmp_path: Path, junctions: dict[str, str], beside: dict[str, str], stopping: set[str]
) -> None:
    assert stops(with_signs(tmp_path, junctions, beside), cache) == stopping


def test_a_sign_of_a_street_of_equal_rank_makes_it_wait(cache: Path, tmp_path: Path) -> None:
    layout = with_signs(tmp_path, {}, {"0.00870": "highway=give_way direction=backward"})
    town = Town.of(Roads.from_record("us", load_pack("us").roads), layout, cache)
    assert {edge.id: edge.stop_rule for edge in town.edges.values() if edge.end == "101"} == {
        "-4#0": "give_way",
        "9#0": "none",
        "-9#1": "none",
    }
