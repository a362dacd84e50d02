"""Recorded video that answers back: reprojection against the drawn truth, the valid range, real drives."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onshore.core.errors import InputError, UsageError
from onshore.core.recording import Clock, Recording, Rig, Signals
from onshore.core.rollout import Rollout
from onshore.region import load_pack
from onshore.wire import encode
from onshore.world import PolicySpec
from onshore.world.camera import Scene
from onshore.world.closed_loop import Towns
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.replay import LATERAL_M, Track, replay, reprojected, reprojection
from onshore.world.roads import Roads

HZ = 10


def grey_drive(seconds: float = 8.0, speed: float = 8.0, **signals: np.ndarray) -> Recording:
    """A straight drive at one speed, past a grey picture with a bright spot."""
    t_ns = 10**9 + np.arange(round(seconds * HZ)) * (10**9 // HZ)
    way = (t_ns - t_ns[0]) / 1e9 * speed
    columns = {"speed_mps": np.full(len(t_ns), speed), "yaw_rate_radps": np.zeros(len(t_ns))}
    columns |= {"x_m": way, "y_m": 0 * way, "yaw_rad": 0 * way, **signals}
    picture = np.full((96, 192, 3), 90, np.uint8)
    picture[60:70, 90:100] = 250
    video = encode("wide", ((int(at), picture) for at in t_ns))
    return Recording(
        vehicle="car",
        clock=Clock(kind="boot"),
        rig=Rig(cameras=(WIDE_CAMERA,)),
        signals=Signals.build(t_ns, **columns),
        videos=(video,),
        synthetic=True,
    )


def drive(recording: Recording, kind: str = "oracle", **spec: object) -> Rollout:
    return replay(recording, PolicySpec(kind=kind, **spec), region="us", name="test")  # type: ignore[arg-type]


def test_no_move_is_no_change() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (96, 192, 3)).astype(np.uint8)
    assert np.abs(reprojected(frame, WIDE_CAMERA, (0.0, 0.0, 0.0)).astype(int) - frame).max() <= 1


@pytest.mark.parametrize("pitch_deg", [0.0, 4.0])
def test_a_ground_point_lands_where_geometry_says(pitch_deg: float) -> None:
    """A mark on the ground at (10, 1) of the recorded rig, seen from (1, 0.5) turned left by 5 degrees."""
    pose = (1.6, 0.1, 1.4, 0.0, math.radians(pitch_deg), 0.0)
    camera = replace(WIDE_CAMERA, pose_camera_in_rig=pose)

    def pixel(x: float, y: float) -> tuple[float, float]:
        pitch = math.radians(pitch_deg)
        ahead, up = x - pose[0], -pose[2]
        depth = ahead * math.cos(pitch) - up * math.sin(pitch)
        high = ahead * math.sin(pitch) + up * math.cos(pitch)
        return camera.centre_x_px - camera.focal_px * (
            y - pose[1]
        ) / depth, camera.centre_y_px - camera.focal_px * high / depth

    move = (1.0, 0.5, math.radians(5.0))
    to_x, to_y = 10.0 - move[0], 1.0 - move[1]
    seen = (
        to_x * math.cos(move[2]) + to_y * math.sin(move[2]),
        -to_x * math.sin(move[2]) + to_y * math.cos(move[2]),
    )
    column, row = pixel(*seen)
    map_x, map_y, inside = reprojection(camera, move)
    at = (int(row), int(column))
    expected = pixel(10.0, 1.0)
    slope_x, slope_y = map_x[at[0], at[1] + 1] - map_x[at], map_y[at[0] + 1, at[1]] - map_y[at]
    assert inside[at]
    assert (
        abs(map_x[at] + 0.5 - expected[0]) <= abs(slope_x) + 0.6
        and abs(map_y[at] + 0.5 - expected[1]) <= abs(slope_y) + 0.6
    )


@pytest.mark.timeout(300)
def test_reprojected_town_pictures_are_near_the_drawn_truth(cache: Path) -> None:
    """An empty town drawn from the moved place itself, against the recorded picture moved there: ground pixels."""
    roads = Roads.from_record("us", load_pack("us").roads)
    assets = Towns(cache).get(roads, 3)
    street = next(iter(assets.town.edges.values())).lanes[roads.car_lanes[0]]
    middle = len(street.xy_N2) // 2
    step = street.xy_N2[middle + 1] - street.xy_N2[middle]
    yaw = math.atan2(step[1], step[0])
    base = np.array([*street.xy_N2[middle], yaw])
    scene = Scene(fixed=assets.furniture.standing, vehicles=assets.furniture.standing.boxes[:0])
    recorded = assets.camera.render(scene, base[None])[0]
    moved_errors, still_errors = [], []
    for ahead, left, turn in ((0.5, 0.8, 0.0), (0.0, -0.8, 0.05), (0.3, 0.0, 0.15), (0.4, 0.9, -0.12)):
        x = base[0] + ahead * math.cos(yaw) - left * math.sin(yaw)
        y = base[1] + ahead * math.sin(yaw) + left * math.cos(yaw)
        truth = assets.camera.render(scene, np.array([[x, y, yaw + turn]]))[0].astype(float)
        moved = reprojected(recorded, WIDE_CAMERA, (ahead, left, turn)).astype(float)
        _, _, inside = reprojection(WIDE_CAMERA, (ahead, left, turn))
        ground = inside & (np.arange(96)[:, None] > 56)
        moved_errors.append(float(np.abs(moved - truth)[ground].mean()))
        still_errors.append(float(np.abs(recorded - truth)[ground].mean()))
    print(f"ground pixels, mean absolute error of 255: moved {moved_errors}, not moved {still_errors}")
    assert np.mean(moved_errors) < 0.5 * np.mean(still_errors) and max(moved_errors) < 6.0


def test_the_recorded_way_stays_in_range_and_ends_with_the_recording() -> None:
    found = drive(grey_drive())
    assert found.ended == "route_complete" and found.scenario == "replay-test" and found.synthetic
    assert float(np.abs(found.steps["lateral_m"]).max()) < 0.1
    assert found.digest == drive(grey_drive()).digest
    assert Rollout.from_bytes(found.to_bytes()).digest == found.digest


def test_a_bend_is_followed_by_dead_reckoning_alone() -> None:
    count = 80
    bend = grey_drive(
        speed_mps=np.full(count, 8.0),
        yaw_rate_radps=np.full(count, 0.08),
        x_m=np.full(count, np.nan),
        yaw_rad=np.full(count, np.nan),
    )
    track = Track.of(bend.signals)
    radius = 8.0 / 0.08
    angle = 7.9 * 0.08
    assert track.poses_N3[-1] == pytest.approx(
        [radius * math.sin(angle), radius * (1 - math.cos(angle)), angle], abs=0.05
    )
    assert drive(bend).ended == "route_complete"
    straight_on = drive(bend, "constant-speed", speed_mps=8.0)
    assert straight_on.ended == "left_valid_range"
    lateral = np.abs(straight_on.steps["lateral_m"])
    assert (lateral[:-1] <= LATERAL_M).all() and straight_on.events[-1].detail["lateral_m"] < -0.5
    assert straight_on.steps["progress_m"][-1] < straight_on.route_length_m


def test_standing_where_the_recording_drove_on_leaves_the_range() -> None:
    found = drive(grey_drive(), "stop")
    assert found.ended == "left_valid_range" and abs(found.events[-1].detail["slip_s"]) > 2.9


def test_what_cannot_be_replayed_is_said() -> None:
    nan = np.full(80, np.nan)
    with pytest.raises(InputError, match="not_measurable"):
        drive(grey_drive(speed_mps=nan))
    with pytest.raises(InputError, match="not_measurable"):
        drive(grey_drive(x_m=nan, yaw_rate_radps=nan))
    with pytest.raises(InputError, match="not_found"):
        drive(replace(grey_drive(), videos=()))
    with pytest.raises(UsageError):
        drive(grey_drive(), "expert")


class Watching:
    """Fails unless the picture it is shown is that of the recording's camera."""

    def reset(self, route: object | None) -> None:
        pass

    def act(self, observation):  # type: ignore[no-untyped-def]
        from onshore.core.policy import straight_plan

        frames = observation.frames["wide"]
        if frames.shape != (2, 96, 192, 3) or frames[1].max() < 200 or observation.command != 0:
            raise ValueError(f"shown {frames.shape}")
        return straight_plan(8.0)


def test_a_policy_sees_the_recording_from_where_it_is() -> None:
    found = drive(grey_drive(), "python", entry="world.test_replay:Watching")
    assert found.ended == "route_complete" and found.frame_digest


@pytest.mark.data
@pytest.mark.timeout(300)
def test_real_drives_are_followed_within_the_valid_range(tmp_path: Path) -> None:
    from onshore import drive as drives
    from onshore.store import Center

    root = os.environ.get("ONSHORE_TEST_DATA")
    folder = Path(root or ".", "openlka")
    if not root or not folder.exists():
        pytest.skip("needs ONSHORE_TEST_DATA with openlka")
    files = sorted(folder.rglob("*.csv"))[:3]
    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    for file in files:
        drives.add(center, file.parent, workers=1)
    rows = drives.segments(center)[:3]
    assert rows
    for row in rows:
        recording = drives.open_segment(center, row["id"])
        followed = replay(recording, PolicySpec(kind="oracle"), region="us", name=row["id"])
        away = float(np.abs(followed.steps["lateral_m"]).max())
        print(
            f"{row['id']}: oracle {followed.ended} after {followed.steps['t_s'][-1]:.1f} s, at most {away:.2f} m aside"
        )
        assert followed.ended in ("route_complete", "timeout") and away < 0.5 and not followed.synthetic
