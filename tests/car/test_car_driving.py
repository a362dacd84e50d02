"""Driving over a recording and comparing in silence, with real video, a real bundle and no way to an actuator."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import onshore.car
from bundle.fleet import Shop, payload
from onshore.bundle.runner import OnnxPolicy
from onshore.car import PlannedDrive, provision, run, shadow, update
from onshore.car.__main__ import main
from onshore.car.running import observations, observe
from onshore.car.shadowing import DISAGREEMENT, compare, driven_track
from onshore.core.errors import InputError, NotFoundError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import RouteCommand, straight_plan
from onshore.core.recording import Camera, Clock, Recording, Rig, Signals
from onshore.core.trigger import Trigger
from onshore.wire import encode, read_mcap, write_mcap

START_NS = 1_700_000_000_000_000_000
CAMERA = Camera(name="front", width_px=160, height_px=80, focal_px=64.0, centre_x_px=80.0, centre_y_px=40.0)


def recording(seconds: float = 4.0, speed: float = 8.0, turn_radps: float = 0.0, **signals: np.ndarray) -> Recording:
    """A car on an arc of constant speed and yaw rate, with ten pictures a second."""
    t_s = np.arange(0.0, seconds, 0.1)
    t_ns = START_NS + np.round(t_s * 1e9).astype(np.int64)
    yaw = turn_radps * t_s
    radius = speed / turn_radps if turn_radps else 0.0
    columns = {
        "speed_mps": np.full(len(t_s), speed),
        "yaw_rate_radps": np.full(len(t_s), turn_radps),
        "x_m": radius * np.sin(yaw) if turn_radps else speed * t_s,
        "y_m": radius * (1 - np.cos(yaw)),
        "yaw_rad": yaw,
    }
    rng = np.random.default_rng(0)
    frames = ((int(t), rng.integers(0, 256, (80, 160, 3), dtype=np.uint8)) for t in t_ns)
    return Recording(
        vehicle="car-0007",
        clock=Clock(kind="utc", utc_offset_ns=0),
        rig=Rig(cameras=(CAMERA,)),
        signals=Signals.build(t_ns, **{**columns, **signals}),
        videos=(encode("front", frames),),
        segment_id="segment-a",
        synthetic=True,
        anonymised=True,
    )


def planned(made: Recording, plan: Plan) -> PlannedDrive:
    t_ns = made.signals.t_ns[::2]
    return PlannedDrive(
        release_id="release-a",
        road_use="not for the road",
        synthetic=True,
        t_ns=t_ns,
        plans=(plan,) * len(t_ns),
        ms_per_plan=np.ones(len(t_ns)),
    )


@pytest.fixture(scope="module")
def car(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    shop = Shop(folder / "shop")
    shop.release(payload(1, synthetic=True))
    provision(folder / "car", name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, folder / "car").installed
    return folder / "car"


def test_a_car_plans_five_times_a_second_from_what_it_saw_so_far(car: Path) -> None:
    made = recording()
    drive = run(car, made)
    assert np.array_equal(drive.t_ns, made.signals.t_ns[::2])
    assert drive.release_id == payload(1, synthetic=True).release_id and drive.synthetic
    policy = OnnxPolicy(payload(1).files["model.onnx"], payload(1).metadata, CAMERA)
    seen = list(observations(made, [CAMERA]))
    again = [policy.act(observation) for observation in seen]
    assert all(np.array_equal(a.path_xy_m, b.path_xy_m) for a, b in zip(drive.plans, again, strict=True))
    assert all(max(ages) < 0.25 and min(ages) == 0.0 for o in seen for ages in o.frame_ages_s.values())


def test_plans_do_not_depend_on_the_future(car: Path) -> None:
    whole, first = run(car, recording(4.0)), run(car, recording(2.0))
    for early, late in zip(first.plans, whole.plans, strict=False):
        assert np.array_equal(early.path_xy_m, late.path_xy_m) and np.array_equal(early.speed_mps, late.speed_mps)


def test_a_recording_may_come_from_a_file(car: Path, tmp_path: Path) -> None:
    write_mcap(recording(), tmp_path / "segment.mcap")
    read = read_mcap(tmp_path / "segment.mcap")
    assert np.array_equal(run(car, read).plans[-1].path_xy_m, run(car, recording()).plans[-1].path_xy_m)
    assert shadow(car, read).segment_id == "segment-a"


def test_what_is_not_known_is_none() -> None:
    t_ns = np.array([0, 100_000_000, 200_000_000], np.int64)
    signals = Signals.build(
        t_ns,
        speed_mps=np.array([3.0, np.nan, 5.0]),
        command=np.array([0, 2, 0]),
        junction_distance_m=np.array([np.nan, 40.0, np.nan]),
        in_junction=np.array([np.nan, 0.0, 1.0]),
    )
    first, second, third = (observe(signals, int(t) + 1_000, {}, {}) for t in t_ns)
    assert (first.speed_mps, first.command, first.in_junction) == (3.0, RouteCommand.UNKNOWN, None)
    assert (second.speed_mps, second.command, second.junction_distance_m) == (None, RouteCommand.LEFT, 40.0)
    assert (third.speed_mps, third.in_junction) == (5.0, True)
    stale = observe(signals, 900_000_000, {}, {})
    assert stale.speed_mps is None and stale.command is RouteCommand.UNKNOWN
    assert observe(signals, -5, {}, {}).speed_mps is None


def test_a_plan_that_is_what_was_driven_differs_by_nothing() -> None:
    made = recording(8.0, 8.0, 0.1)
    angle = np.array(PATH_ARCS_M) / 80.0
    arc = Plan(path_xy_m=np.stack([80 * np.sin(angle), 80 * (1 - np.cos(angle))], -1), speed_mps=np.full(4, 8.0))
    report = compare(planned(made, arc), made)
    assert np.nanmax(report.path_diff_m_NK) < 0.02
    assert np.nanmax(report.speed_diff_mps_NT) == pytest.approx(0.0, abs=1e-9)
    assert report.spans == () and report.requests == []
    assert np.isnan(report.columns["shadow_speed_diff_mps"][-1])


def test_known_differences_are_measured_at_14_m_and_1_s() -> None:
    made = recording(8.0, 8.0, 0.1)
    report = compare(planned(made, straight_plan(5.0)), made)
    expected = np.hypot(80 * np.sin(14 / 80) - 14, 80 * (1 - np.cos(14 / 80)))
    assert report.columns["shadow_path_diff_m"][0] == pytest.approx(expected, rel=0.01)
    assert report.columns["shadow_speed_diff_mps"][0] == pytest.approx(3.0)
    assert report.path_diff_m_NK.shape == (40, len(PATH_ARCS_M))
    assert report.speed_diff_mps_NT.shape == (40, len(SPEED_TIMES_S))
    assert len(report.spans) == 1
    start, end = report.spans[0]
    assert report.requests == [{"segment": "segment-a", "start_ns": start, "end_ns": end}]
    assert start == made.signals.t_ns[0] and end <= made.signals.t_ns[-1]
    record = report.as_record()
    assert record["mean_speed_diff_mps"] == pytest.approx(3.0) and record["synthetic"] is True


def test_a_campaign_may_bring_its_own_trigger() -> None:
    made = recording(8.0)
    strict = Trigger(name="small_speed_gap", when="shadow_speed_diff_mps > 0.5", for_s=0.2, before_s=0.0, after_s=0.0)
    plans = planned(made, straight_plan(7.0))
    assert compare(plans, made).spans == ()
    assert len(compare(plans, made, strict).spans) == 1
    unknown = Trigger(name="other", when="lidar_points > 3")
    assert compare(plans, made, unknown).spans == ()


def test_without_positions_the_track_comes_from_speed_and_yaw_rate() -> None:
    known = recording(6.0, 8.0, 0.2)
    nothing = np.full(len(known.signals.t_ns), np.nan)
    blind = recording(6.0, 8.0, 0.2, x_m=nothing, y_m=nothing, yaw_rad=nothing)
    vehicle = known.rig.vehicle
    assert driven_track(blind.signals, vehicle) == pytest.approx(driven_track(known.signals, vehicle), abs=0.01)
    wheel = np.full(len(nothing), np.arctan(0.2 * vehicle.wheelbase_m / 8.0))
    steered = recording(6.0, 8.0, 0.2, x_m=nothing, y_m=nothing, yaw_rate_radps=nothing, steering_rad=wheel)
    steered.signals.yaw_rad[:] = np.nan
    assert driven_track(steered.signals, vehicle) == pytest.approx(driven_track(known.signals, vehicle), abs=0.01)


def test_a_gap_in_what_is_known_is_not_bridged() -> None:
    gap = np.full(60, 8.0)
    gap[20:30] = np.nan
    nothing = np.full(60, np.nan)
    made = recording(6.0, 8.0, 0.0, x_m=nothing, y_m=nothing, yaw_rad=nothing, speed_mps=gap)
    report = compare(planned(made, straight_plan(8.0)), made)
    before, within = report.path_diff_m_NK[:9], report.path_diff_m_NK[10:15]
    assert np.isnan(within).all() and np.isnan(before[:, -1]).all()
    assert before[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert report.path_diff_m_NK[15, :4] == pytest.approx(np.zeros(4), abs=1e-9)


def test_a_full_turn_of_the_heading_is_no_jump() -> None:
    made = recording(8.0, 8.0, 0.1)
    turned = made.signals.yaw_rad + np.pi - 0.3
    folded = np.arctan2(np.sin(turned), np.cos(turned))
    cos, sin = np.cos(np.pi - 0.3), np.sin(np.pi - 0.3)
    x, y = made.signals.x_m * cos - made.signals.y_m * sin, made.signals.x_m * sin + made.signals.y_m * cos
    same = recording(8.0, 8.0, 0.1, x_m=x, y_m=y, yaw_rad=folded)
    plans = planned(made, straight_plan(8.0))
    assert compare(plans, same).path_diff_m_NK == pytest.approx(
        compare(plans, made).path_diff_m_NK, abs=1e-6, nan_ok=True
    )


def test_what_was_driven_but_not_recorded_is_not_measurable() -> None:
    nothing = np.full(40, np.nan)
    made = recording(4.0, 8.0, 0.0, x_m=nothing, y_m=nothing, yaw_rad=nothing, speed_mps=nothing)
    report = compare(planned(made, straight_plan(5.0)), made)
    assert report.as_record()["mean_path_diff_m"] is None and report.as_record()["mean_speed_diff_mps"] is None
    assert report.spans == ()
    standing = recording(4.0, 0.0)
    parked = compare(planned(standing, straight_plan(0.0)), standing)
    assert np.isnan(parked.columns["shadow_path_diff_m"]).all()
    assert parked.as_record()["mean_speed_diff_mps"] == 0.0


def test_shadow_runs_end_to_end_twice_with_the_same_answer(car: Path) -> None:
    one, two = shadow(car, recording(6.0, 12.0)), shadow(car, recording(6.0, 12.0))
    assert one.spans == two.spans and len(one.spans) >= 1
    assert np.array_equal(one.path_diff_m_NK, two.path_diff_m_NK, equal_nan=True)
    assert one.trigger == DISAGREEMENT


def test_bad_recordings_are_named(car: Path, tmp_path: Path) -> None:
    made = recording(1.0)
    with pytest.raises(InputError, match="'rear'"):
        run(car, made, camera="rear")
    blank = Recording(
        vehicle="car-0007", clock=made.clock, rig=made.rig, signals=made.signals, videos=(), synthetic=True
    )
    with pytest.raises(InputError, match="no frames"):
        run(car, blank)
    bare = Recording(
        vehicle="v", clock=made.clock, rig=Rig(cameras=()), signals=made.signals, videos=(), synthetic=True
    )
    with pytest.raises(InputError, match="no frames of any"):
        run(car, bare)
    with pytest.raises(NotFoundError, match="provision"):
        run(tmp_path / "nobody", made)


def test_shadow_cannot_reach_an_actuator() -> None:
    """Invariant 5: nothing in the car names an action, a controller or a vehicle model, and shadow takes no callable."""
    for path in Path(onshore.car.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not names & {"Action", "Controller", "Bicycle", "CONTROLLER_VERSION", "control"}, path
    accepted = {str(parameter.annotation) for parameter in inspect.signature(shadow).parameters.values()}
    assert accepted == {"Path | str", "Recording", "Trigger", "str | None", "Progress"}
    assert {field for field in onshore.car.ShadowReport.__dataclass_fields__ if "action" in field} == set()


def test_importing_the_car_loads_nothing_heavy() -> None:
    heavy = "torch pyarrow lance starlette libsumo sumolib av cv2 duckdb sqlalchemy numba onnxruntime tuf cryptography"
    code = f"import sys, onshore.car; bad = sorted(set('{heavy}'.split()) & set(sys.modules)); sys.exit(str(bad) if bad else 0)"
    source = str(Path(onshore.car.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def vehicle(*words: object) -> tuple[int, dict[str, object]]:
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "onshore.car", *map(str, words)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_the_vehicle_program_answers_with_one_document(tmp_path: Path) -> None:
    shop, car = Shop(tmp_path / "shop"), tmp_path / "car"
    shop.release(payload(1))
    (tmp_path / "root.json").write_bytes(shop.root())
    write_mcap(recording(6.0, 12.0), tmp_path / "segment.mcap")
    code, document = vehicle("status", car)
    assert code == 1 and document["error"]["code"] == "not_found"  # type: ignore[index]
    assert vehicle("provision", car, "--name", "car-0007", "--region", "cn", "--root", tmp_path / "root.json")[0] == 0
    code, document = vehicle("update", car, "--repository", shop.repo)
    assert code == 0 and document["running"] == payload(1).release_id
    code, document = vehicle("shadow", car, tmp_path / "segment.mcap")
    (report,) = document["reports"]  # type: ignore[misc]
    assert code == 0 and report["requests"] == shadow(car, recording(6.0, 12.0)).requests
    shop.revoke(payload(1))
    code, document = vehicle("update", car, "--repository", shop.repo)
    assert (code, document["running"], document["refusal"]["code"]) == (3, None, "not_allowed")  # type: ignore[index]


@pytest.mark.parametrize(
    "words", ["provision {car} --name c --region cn --root {gone}", "run {car} {gone}", "shadow {car} {gone}"]
)
def test_a_file_that_is_not_there_is_a_document_too(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gone in (tmp_path / "nope.json", tmp_path):
        assert main(words.format(car=tmp_path / "car", gone=gone).split()) == 1
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], error["subject"]) == ("not_found", str(gone))
    assert not (tmp_path / "car").exists()
