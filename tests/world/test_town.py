"""Towns as drawn and driven: nets, lines through junctions, the ground's meaning, the camera."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onshore.core.control import EgoState
from onshore.core.errors import InputError
from onshore.core.policy import RouteCommand
from onshore.core.rollout import ACTOR_KINDS, LANE_KINDS, LINES
from onshore.world.camera import Scene, TownCamera
from onshore.world.closed_loop import TownAssets, Towns
from onshore.world.context import _Street
from onshore.world.furniture import vehicle_boxes
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.navigation import Navigation, front_of
from onshore.world.roads import Roads
from onshore.world.town import route_line
from onshore.world.traffic import demand_xml


@pytest.fixture(scope="module")
def assets(roads: Roads, cache: Path) -> TownAssets:
    return Towns(cache).get(roads, 1)


def longest_route(assets: TownAssets) -> tuple[str, ...]:
    """A walk that takes a left and a right turn."""
    net, walk = assets.town.net, [sorted(assets.town.edges)[0]]
    wanted = [RouteCommand.LEFT, RouteCommand.RIGHT, RouteCommand.STRAIGHT]
    for step in range(8):
        exits = net.successors[walk[-1]]
        fitting = [b for b in exits if net.commands[walk[-1], b] is wanted[step % 3]]
        walk.append((fitting or list(exits))[0])
    return tuple(walk)


def test_a_built_town_is_kept_and_the_same(roads: Roads, cache: Path, tmp_path: Path, assets: TownAssets) -> None:
    again, other = Towns(cache).get(roads, 1), Towns(tmp_path).get(roads, 1)
    assert again.town.net.path == assets.town.net.path
    assert other.town.net.path.read_bytes() == assets.town.net.path.read_bytes()
    assert [p for p in (tmp_path / "towns").iterdir() if p.name.startswith(".")] == []


def test_every_turn_has_lanes_and_lights_have_links(assets: TownAssets) -> None:
    town = assets.town
    assert all(lanes for lanes in town.net.turn_lanes.values())
    assert {command for command in town.net.commands.values()} == set(RouteCommand) - {RouteCommand.UNKNOWN}
    assert len(town.heads) > 8
    assert all(head.links for head in town.heads)


def test_route_lines_are_smooth(assets: TownAssets) -> None:
    edges = longest_route(assets)
    for lane in assets.town.roads.car_lanes:
        line = route_line(assets.town, edges, [lane] * len(edges))
        steps = np.hypot(*np.diff(line.xy_N2, axis=0).T)
        assert steps.max() < 2.5
        assert len(line.streets) == len(edges)


def test_lines_become_solid_before_a_stop_line_alone_as_they_are_painted(assets: TownAssets) -> None:
    town, told = assets.town, dict[bool, set[tuple[str, str]]]()
    for edge in town.edges.values():
        street = _Street(town, edge, None, 8.0)
        told.setdefault(edge.stop_rule != "none", set()).update(
            (LINES[int(street.marking(lane, 60.0))], LINES[int(street.marking(lane, end_m))])
            for lane in edge.car_lanes[:-1]
            for end_m in (5.0, -0.5)
        )
    assert told == {True: {("dashed", "solid")}, False: {("dashed", "dashed")}}


def test_the_ground_means_what_the_lanes_say(assets: TownAssets) -> None:
    for edge in assets.town.edges.values():
        for lane in edge.lanes:
            middle = lane.xy_N2[len(lane.xy_N2) // 2 - 1 : len(lane.xy_N2) // 2 + 1].mean(0)
            kind, degrees = assets.ground.meaning(*middle)
            assert LANE_KINDS[kind] == lane.kind
            assert degrees is not None
    assert assets.ground.meaning(-1e6, 0.0) == (0, None)


def test_navigation_goes_on_and_answers_lead_back(assets: TownAssets) -> None:
    edges, geometry = longest_route(assets), assets.town.roads.ego_geometry
    line = route_line(assets.town, edges, [assets.town.roads.car_lanes[-1]] * len(edges))
    navigation = Navigation(assets.town, edges, tuple(line.xy_N2[4].tolist()))
    progress, commands = -1.0, set()
    for index in range(4, line.streets[4][1], 2):
        along = line.xy_N2[index + 1] - line.xy_N2[index]
        fix = navigation.update(tuple(line.xy_N2[index].tolist()))
        assert fix.progress_m >= progress - 0.5
        progress = fix.progress_m
        commands.add(fix.command)
        yaw = math.atan2(along[1], along[0])
        offset = 0.8 * np.array([-math.sin(yaw), math.cos(yaw)])
        rear = line.xy_N2[index] - geometry.axle_to_front_m * np.array([math.cos(yaw), math.sin(yaw)]) + offset
        state = EgoState(x_m=rear[0], y_m=rear[1], yaw_rad=yaw, speed_mps=5.0)
        navigation.update(front_of(state, geometry))
        path, usable = navigation.answer(fix, state, geometry, 10.0)
        assert usable
        assert abs(path[0, 1]) < 0.6
        assert np.all(np.diff(np.hypot(path[:, 0], path[:, 1])) > 0)
    assert progress > 200
    assert {RouteCommand.LEFT, RouteCommand.RIGHT} <= commands


def test_the_camera_shows_vehicles_but_not_its_own(assets: TownAssets, roads: Roads) -> None:
    lane = assets.town.edges[sorted(assets.town.edges)[0]].lanes[-1].xy_N2
    yaw = math.atan2(*(lane[-1] - lane[0])[::-1])
    pose = np.array([[*lane[0], yaw]])
    ahead = lane[0] + 16.0 * np.array([math.cos(yaw), math.sin(yaw)])
    car = np.array([ACTOR_KINDS.index("car")], np.int8)
    boxes = vehicle_boxes(roads, car, np.array([7], np.int32), np.array([[*ahead, yaw]]), np.array([True]))
    fixed = assets.furniture.lit(np.zeros(len(assets.town.heads), np.int8))
    empty = assets.camera.render(Scene(fixed=fixed, vehicles=boxes[:0]), pose)
    seen = assets.camera.render(Scene(fixed=fixed, vehicles=boxes), pose)
    own = assets.camera.render(Scene(fixed=fixed, vehicles=boxes), pose, np.array([0]))
    assert seen.shape == (1, 96, 192, 3)
    assert np.array_equal(own, empty)
    assert 100 < (seen != empty).any(-1).sum() < 3000
    assert np.array_equal(seen, assets.camera.render(Scene(fixed=fixed, vehicles=boxes), pose))
    upright = replace(WIDE_CAMERA, pose_camera_in_rig=(1.6, 0.0, 1.4, 0.0, 1.2, 0.0))
    with pytest.raises(InputError, match="too far"):
        TownCamera(upright, assets.ground, assets.furniture.atlas, (0, 0, 0))


def test_plates_and_faces_are_drawn_or_covered_only_where_a_look_says_so(assets: TownAssets, roads: Roads) -> None:
    """The covering box hides all of the plate and more, and nobody's plate or face is seen from behind the car or head."""
    lane = assets.town.edges[sorted(assets.town.edges)[0]].lanes[-1].xy_N2
    yaw = math.atan2(*(lane[-1] - lane[0])[::-1])
    ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    pose, names = np.array([[*lane[0], yaw]]), ("car", "pedestrian", "pedestrian")
    kinds = np.array([ACTOR_KINDS.index(name) for name in names], np.int8)
    places = [
        (lane[0] + 10 * ahead, yaw),
        (lane[0] + 6 * ahead + 2 * left, yaw + np.pi),
        (lane[0] + 6 * ahead - 2 * left, yaw),
    ]
    fronts = np.array([(*place, heading) for place, heading in places])
    fixed, sharp = (
        assets.furniture.lit(np.zeros(len(assets.town.heads), np.int8)),
        replace(WIDE_CAMERA, width_px=768, height_px=384, focal_px=384.0, centre_x_px=384.0, centre_y_px=192.0),
    )
    eye = TownCamera(sharp, assets.ground, assets.furniture.atlas, roads.looks.sky)

    def seen(look: str) -> NDArray[np.uint8]:
        boxes = vehicle_boxes(roads, kinds, np.arange(3, dtype=np.int32), fronts, np.zeros(3, np.bool_), look=look)
        return eye.render(Scene(fixed=fixed, vehicles=boxes, look=look), pose)[0]

    plain, shown, redacted = (seen(look) for look in ("day", "identifiable", "redacted"))
    named, covered = ((picture != plain).any(-1) for picture in (shown, redacted))
    assert 50 < named.sum() < covered.sum() and (redacted[covered] == 0).mean() > 0.95
    assert not (named & ~covered).any()
    assert not named[:, 384 + 60 :].any()  # who turns the back to the camera shows no face


def test_demand_is_a_function_of_its_seed(assets: TownAssets) -> None:
    assert demand_xml(assets.town, 5, 60.0) == demand_xml(assets.town, 5, 60.0)
    assert demand_xml(assets.town, 5, 60.0) != demand_xml(assets.town, 6, 60.0)


def test_a_longer_world_begins_with_the_same_traffic(assets: TownAssets) -> None:
    short, long = demand_xml(assets.town, 5, 60.0), demand_xml(assets.town, 5, 200.0)
    assert long.startswith(short.removesuffix("</routes>"))
