"""Drivers from elsewhere: a program without onshore, an ONNX file with a signature, and what happens when they fail."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onshore.core.errors import InputError, UsageError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.core.policy import Observation, RouteCommand
from onshore.core.recording import Camera
from onshore.evaluation.replayed import row_of
from onshore.evaluation.scores import driving_score
from onshore.world import PolicySpec, run_jobs
from onshore.world.drivers import Rival
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.replay import replay
from onshore.world.rivals import MappedOnnx, Program, Signature
from world.conftest import job
from world.test_replay import grey_drive

EXAMPLE = Path(__file__).parents[2] / "examples" / "rival_policy" / "rival.py"


def seen(grey: int = 200, speed: float = 5.0) -> Observation:
    frames = np.full((2, 96, 192, 3), grey, np.uint8)
    return Observation(
        t_ns=10**9,
        frames={"wide": frames},
        frame_ages_s={"wide": (0.4, 0.0)},
        speed_mps=speed,
        command=RouteCommand.LEFT,
    )


def program(tmp_path: Path, on_act: str, **times: float) -> Program:
    """A rival whose answer to `act` is a line of Python."""
    text = EXAMPLE.read_text().replace("answer = plan(header, pixels, arcs_m, times_s)", on_act)
    (tmp_path / "rival.py").write_text(text)
    return Program(f"{sys.executable} {tmp_path / 'rival.py'}", [WIDE_CAMERA], **times)


def test_the_example_knows_nothing_of_onshore_and_sees_what_it_is_shown() -> None:
    assert "onshore" not in "".join(line for line in EXAMPLE.read_text().splitlines() if "import" in line)
    rival = Program(f"{sys.executable} {EXAMPLE}", [WIDE_CAMERA])
    rival.reset(0)
    bright, dark = rival.act(0, seen(200)), rival.act(0, seen(20))
    rival.close()
    assert bright.speed_mps.tolist() == [6.0] * 4 and dark.speed_mps.tolist() == [2.0] * 4
    assert bright.path_xy_m[:, 0].tolist() == list(PATH_ARCS_M)


@pytest.mark.parametrize(
    ("on_act", "said"),
    [
        ("sys.exit(7)", "status 7"),
        ("import time; time.sleep(60)", "no answer in time"),
        ("answer = {'type': 'plan', 'path_xy_m': [[0, 0]], 'speed_mps': [1, 1, 1, 1]}", "8 x 2"),
        ("answer = {'type': 'plan', 'path_xy_m': [[a, 0] for a in arcs_m], 'speed_mps': [float('nan')] * 4}", "finite"),
        ("answer = {'type': 'plan', 'path_xy_m': [[a, 0] for a in arcs_m], 'speed_mps': [500] * 4}", "out of reach"),
        ("answer = ['no']", "expected 'plan'"),
        ("print('hello', flush=True)", "stdout"),
        ("raise ValueError('my own trouble')", "my own trouble"),
    ],
)
def test_a_rival_that_fails_says_what_it_did(tmp_path: Path, on_act: str, said: str) -> None:
    rival = program(tmp_path, on_act, answer_s=1.0)
    with pytest.raises(InputError, match=r"policy_failed") as caught:
        rival.act(0, seen())
    rival.close()
    assert said in str(caught.value)


@dataclass
class Town:
    """What a rival asks of a world: its cameras and egos, and that the run of one it fails ends."""

    egos: list[SimpleNamespace] = field(default_factory=lambda: [SimpleNamespace(index=index) for index in range(2)])
    cameras: tuple[Camera, ...] = (WIDE_CAMERA,)
    ended: dict[int, str] = field(default_factory=dict)

    @property
    def active(self) -> list[SimpleNamespace]:
        return [ego for ego in self.egos if ego.index not in self.ended]

    def give_up(self, index: int, why: str) -> None:
        self.ended[index] = why


def busy_for(tmp_path: Path, ego: int) -> PolicySpec:
    """A rival that is not ready for the run of one ego."""
    late = f"if (header['type'], header.get('ego')) == ('reset', {ego}): answer = {{'type': 'busy'}}"
    text = EXAMPLE.read_text().replace("        send(sys.stdout", f"        {late}\n        send(sys.stdout")
    (tmp_path / "rival.py").write_text(text)
    return PolicySpec(kind="process", entry=f"{sys.executable} {tmp_path / 'rival.py'}")


def test_a_rival_that_fails_at_the_reset_of_an_ego_ends_that_run_alone(tmp_path: Path) -> None:
    town = Town()
    rival = Rival(busy_for(tmp_path, 1), town)  # type: ignore[arg-type]
    assert list(town.ended) == [1] and "busy" in town.ended[1]
    assert list(rival.plans({0: seen()})) == [0]
    rival.close()


def test_a_rival_that_cannot_be_made_leaves_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Program] = []

    def interrupted(program: Program, ego: int) -> None:
        made.append(program)
        raise KeyboardInterrupt

    monkeypatch.setattr(Program, "reset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Rival(PolicySpec(kind="process", entry=f"{sys.executable} {EXAMPLE}"), Town())  # type: ignore[arg-type]
    assert made[0]._process.poll() is not None


def test_a_program_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(InputError, match="bad_config"):
        Program("/nowhere/rival", [WIDE_CAMERA])
    with pytest.raises(UsageError):
        PolicySpec(kind="process")
    with pytest.raises(UsageError):
        PolicySpec(kind="mapped", entry="path = 'x'")


def network() -> bytes:
    """Waypoints 1, 2, 3, 4 s ahead at the speed it is told, in a network whose names are its own."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["unused"], keepdims=0),
        helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("s", TensorProto.INT64, [3], [1, 1, 1])),
        helper.make_node(
            "Constant",
            [],
            ["times"],
            value=helper.make_tensor("t", TensorProto.FLOAT, [1, 4, 2], [0.5, 0, 1, 0, 1.5, 0, 2, 0]),
        ),
        helper.make_node("Reshape", ["v", "shape"], ["v3"]),
        helper.make_node("Mul", ["v3", "times"], ["points"]),
    ]
    graph = helper.make_graph(
        nodes,
        "rival",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 3, 96, 192]),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 1]),
        ],
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 4, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return data


SIGNATURE = """
inputs = { image = "frames", v = "speed_mps" }
path = "points"
waypoints_s = [0.5, 1.0, 1.5, 2.0]
layout = "TCHW"
scale = 0.00392156862745098
"""


def test_an_onnx_file_drives_through_its_signature() -> None:
    policy = MappedOnnx(network(), Signature.from_toml(SIGNATURE), "wide")
    plan = policy.act(seen(speed=8.0))
    assert plan.speed_mps.tolist() == pytest.approx([8.0] * len(SPEED_TIMES_S))
    assert plan.path_xy_m.tolist() == pytest.approx(np.array([[arc, 0.0] for arc in PATH_ARCS_M]))
    standing = policy.act(seen(speed=0.0))
    assert standing.speed_mps.tolist() == pytest.approx([0.0] * 4) and np.isfinite(standing.path_xy_m).all()


@pytest.mark.parametrize(
    "change", [("points", "nothing"), ("TCHW", "TCH"), ("frames", "pictures"), ("waypoints_s", "times_s"), ("=", "~")]
)
def test_a_signature_that_does_not_fit_is_refused_at_once(change: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="bad_config"):
        MappedOnnx(network(), Signature.from_toml(SIGNATURE.replace(*change)), "wide")


@pytest.mark.timeout(300)
def test_rivals_drive_worlds_and_a_failed_run_is_marked(cache: Path, tmp_path: Path) -> None:
    fine = PolicySpec(kind="process", entry=f"{sys.executable} {EXAMPLE}")
    program(
        tmp_path, "sys.exit(7) if header['t_ns'] > 47e9 else None; answer = plan(header, pixels, arcs_m, times_s)"
    ).close()
    dies = PolicySpec(kind="process", entry=f"{sys.executable} {tmp_path / 'rival.py'}")
    mapped = PolicySpec(kind="mapped", onnx=network(), entry=SIGNATURE)
    (tmp_path / "busy").mkdir()
    jobs = [job(policy=policy, max_time_s=4.0, egos=1) for policy in (fine, dies, mapped)]
    jobs.append(job(policy=busy_for(tmp_path / "busy", 0), max_time_s=4.0, egos=2))
    (first,), (failed,), (third,), (late, ready) = run_jobs(jobs, workers=1, cache_dir=cache)
    assert len(first.steps["t_s"]) > 5 and first.frame_digest and first.ended != "policy_failed"
    assert failed.ended == "policy_failed" and "status 7" in failed.events[-1].detail["why"]
    assert 0 < len(failed.steps["t_s"]) < len(first.steps["t_s"])
    assert third.ended != "policy_failed" and np.isfinite(third.plan_speed_NT).all()
    assert late.ended == "policy_failed" and len(late.steps["t_s"]) == 0 and len(ready.steps["t_s"]) > 5
    assert driving_score(late).route_completion_pct == 0.0


def test_a_rival_that_fails_at_the_start_of_a_replay_ends_it_there(tmp_path: Path) -> None:
    failed = replay(grey_drive(seconds=2.0), busy_for(tmp_path, 0), region="us", name="test")
    assert failed.ended == "policy_failed" and len(failed.steps["t_s"]) == 0
    assert row_of(failed)["metres"] == 0.0 and "busy" in row_of(failed)["why"]


def test_a_policy_that_makes_its_state_at_the_reset_is_replayed() -> None:
    spec = PolicySpec(kind="python", entry="world.policies:MadeAtReset")
    assert replay(grey_drive(seconds=2.0), spec, region="us", name="test").ended == "route_complete"
