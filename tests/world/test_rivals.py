"""Drivers from elsewhere: a program without onshore, an ONNX file with a signature, and what happens when they fail."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onshore.core.errors import InputError, UsageError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.core.policy import Observation, RouteCommand
from onshore.world import PolicySpec, run_jobs
from onshore.world.jobs import WIDE_CAMERA
from onshore.world.rivals import MappedOnnx, Program, Signature
from world.conftest import job

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
    jobs = [job(policy=policy, max_time_s=4.0, egos=1) for policy in (fine, dies, mapped)]
    (first,), (failed,), (third,) = run_jobs(jobs, workers=1, cache_dir=cache)
    assert len(first.steps["t_s"]) > 5 and first.frame_digest and first.ended != "policy_failed"
    assert failed.ended == "policy_failed" and "status 7" in failed.events[-1].detail["why"]
    assert 0 < len(failed.steps["t_s"]) < len(first.steps["t_s"])
    assert third.ended != "policy_failed" and np.isfinite(third.plan_speed_NT).all()
