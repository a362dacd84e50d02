"""A region whose world needs no new kind of object is a folder: copied, edited, driven; nothing in the code knows its name."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from onshore.core.errors import InputError
from onshore.core.policy import RouteCommand
from onshore.core.rollout import LANE_KINDS
from onshore.region import load_pack, regions
from onshore.region.packs import PACKS
from onshore.world import PolicySpec, RolloutJob, contact_sheet
from onshore.world.closed_loop import Towns
from onshore.world.drivers import run_job
from onshore.world.roads import Roads
from onshore.world.signs import sign_text


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped packs and a new one, `zz`: keeps left, slower, own lanes, an own sign with an own glyph."""
    folder = Path(shutil.copytree(PACKS, tmp_path_factory.mktemp("regions") / "packs"))
    new = Path(shutil.copytree(folder / "eu", folder / "zz"))
    edit(new / "region.toml", ('region = "eu"', 'region = "zz"'))
    edit(
        new / "roads.toml",
        ('drive_on = "right"', 'drive_on = "left"'),
        ("speed_limit_mps = 13.9", "speed_limit_mps = 8.4"),
        ("grid = 4", "grid = 3"),
        ("vehicles = 105", "vehicles = 25"),
        ("asphalt = [88, 88, 92]", "asphalt = [120, 96, 84]"),
        (
            "[sign_faces]\n",
            '[glyphs]\nkite = ["fill 0.5 1 0.9 0.6 0.5 0 0.1 0.6"]\n\n[sign_faces]\nkites = { shape = "diamond", '
            'fill = [240, 240, 240], border = [20, 20, 160], ink = [160, 20, 20], glyph = "kite" }\n',
        ),
        ('face = "crosswalk"\nwhere = "crosswalk"', 'face = "kites"\nwhere = "street_start"'),
    )
    for name in ("suites.toml", "rules.toml"):
        text = (new / name).read_text(encoding="utf8")
        (new / name).write_text(text.replace("eu-", "zz-"), encoding="utf8")
    return folder


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf8")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text, encoding="utf8")


def test_a_new_folder_is_a_region_that_can_be_driven(packs: Path, cache: Path) -> None:
    assert "zz" in regions(packs) and "zz" not in regions()
    job = RolloutJob(
        region="zz", suite="test", town_seed=1, traffic_seed=5, policy=PolicySpec(kind="expert"),
        egos=2, route_m=70.0, max_time_s=30.0, warm_s=20.0, packs=packs,
    )  # fmt: skip
    rollouts, _ = run_job(job, Towns(cache))
    assert {rollout.region for rollout in rollouts} == {"zz"}
    assert any(rollout.ended == "route_complete" for rollout in rollouts)
    for rollout in rollouts:
        assert np.nanmax(rollout.steps["speed_limit_mps"]) == pytest.approx(8.4)
        assert rollout.steps["speed_mps"].max() < 8.4 * 1.25
        assert rollout.steps["oncoming"].mean() < 0.05


def test_where_traffic_keeps_left_everything_is_on_the_other_side(packs: Path, cache: Path) -> None:
    zz = Roads.from_record("zz", load_pack("zz", packs).roads)
    town = Towns(cache).get(zz, 1)
    for edge in town.town.edges.values():
        kerb, middle = edge.lanes[0].xy_N2[-1], edge.lanes[-1].xy_N2[-1]
        along = edge.lanes[-1].xy_N2[-1] - edge.lanes[-1].xy_N2[-2]
        offset = kerb - middle
        assert along[0] * offset[1] - along[1] * offset[0] > 0  # the kerb is to the left
    # near turns (left here) from the kerb-side car lane, far turns from the innermost
    for (edge_id, _), lanes in town.town.net.turn_lanes.items():
        assert set(lanes) <= set(town.town.edges[edge_id].car_lanes)
    commands = town.town.net.commands
    lefts = [town.town.net.turn_lanes[pair] for pair, command in commands.items() if command is RouteCommand.LEFT]
    assert lefts and all(min(lanes) == zz.car_lanes[0] for lanes in lefts)
    # signs stand at the left of their street, and the map means what the lanes say
    mirrored = [row for row in town.furniture.signs if town.ground.meaning(row[0], row[1])[0] == 0]
    assert len(mirrored) > 0.8 * len(town.furniture.signs) > 0
    lane = next(iter(town.town.edges.values())).lanes[0]
    half = len(lane.xy_N2) // 2
    assert LANE_KINDS[town.ground.meaning(*lane.xy_N2[half - 1 : half + 1].mean(0))[0]] == lane.kind


def test_a_pack_may_bring_its_own_sign_and_glyph(packs: Path) -> None:
    zz = Roads.from_record("zz", load_pack("zz", packs).roads)
    assert zz.sign_faces["kites"].glyph == "kite"
    assert sign_text(zz, "speed_limit") == "30"
    record = load_pack("zz", packs).roads
    record["sign_faces"]["kites"]["glyph"] = "ufo"
    with pytest.raises(InputError, match=r"sign_faces\.kites\.glyph: no glyph 'ufo'"):
        Roads.from_record("zz", record)
    record["sign_faces"]["kites"]["glyph"] = "kite"
    record["glyphs"]["kite"] = ["fil 0 0 1 1"]
    with pytest.raises(InputError, match=r"glyphs\.kite\[0\]"):
        Roads.from_record("zz", record)


def test_no_code_names_a_region() -> None:
    """Nothing in world or evaluation branches on a region's name."""
    source = Path(__file__).parents[2] / "src/onshore"
    names = "|".join(regions())
    for room in ("world", "evaluation", "region"):
        for path in (source / room).rglob("*.py"):
            found = re.findall(rf"""(?:==|!=|in)\s*\(?["'](?:{names})["']""", path.read_text(encoding="utf8"))
            assert not found, f"{path.name}: {found}"


def test_a_look_changes_pictures_and_nothing_else(cache: Path) -> None:
    job = RolloutJob(
        region="us", suite="test", town_seed=3, traffic_seed=1021, policy=PolicySpec(kind="python", entry="policies:Looking"),
        egos=1, route_m=40.0, max_time_s=3.0, warm_s=20.0,
    )  # fmt: skip
    towns = Towns(cache)
    (day,), _ = run_job(job, towns)
    (night,), _ = run_job(replace(job, look="night"), towns)
    assert day.frame_digest and night.frame_digest and day.frame_digest != night.frame_digest
    assert np.array_equal(day.steps["x_m"], night.steps["x_m"])


def test_a_contact_sheet_shows_three_places_in_four_looks(cache: Path) -> None:
    sheet = contact_sheet(load_pack("eu"), town_seed=3, cache_dir=cache)
    picture = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (3 * 216, 4 * 384, 3)
    assert sheet == contact_sheet(load_pack("eu"), town_seed=3, cache_dir=cache)
    views = [picture[y : y + 216, x : x + 384] for y in range(0, 648, 216) for x in range(0, 1536, 384)]
    brightness = np.array([view.mean() for view in views]).reshape(3, 4)
    assert (brightness[:, 0] > 2 * brightness[:, 2]).all()
