"""The ONNX runner: what ships is what drives; frames are chosen by age; errors instead of nonsense."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.networks import metadata, network
from onshore.bundle.inputs import View, side_inputs, view_maps, warp
from onshore.bundle.runner import OnnxPolicy
from onshore.core.errors import CorruptError, InputError
from onshore.core.policy import Observation, RouteCommand
from onshore.core.recording import Camera

CAMERA = Camera(name="front", width_px=160, height_px=80, focal_px=70.0, centre_x_px=80.0, centre_y_px=40.0)
NET = network()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (80, 160, 3), dtype=np.uint8)


def observation(t_s: float, frames: dict[float, int], speed: float | None = 5.0) -> Observation:
    """frames: age in seconds -> seed of the picture, oldest first."""
    ages = tuple(sorted(frames, reverse=True))
    shown = {"front": np.stack([picture(frames[age]) for age in ages])} if frames else {}
    return Observation(
        t_ns=round(t_s * 1e9),
        frames=shown,
        frame_ages_s={"front": ages} if frames else {},
        speed_mps=speed,
        command=RouteCommand.LEFT,
    )


def policy() -> OnnxPolicy:
    return OnnxPolicy(NET, metadata(NET), CAMERA)


def test_the_plan_is_what_onnx_runtime_says_about_the_warped_frames() -> None:
    import onnxruntime as ort

    plan = policy().act(observation(10.0, {0.4: 1, 0.0: 2}))
    view_map = view_maps(CAMERA, View())
    frames = np.stack([warp(picture(1), view_map), warp(picture(2), view_map)]).transpose(0, 3, 1, 2)[None]
    side = side_inputs(5.0, RouteCommand.LEFT, None, None)[None]
    session = ort.InferenceSession(NET, providers=["CPUExecutionProvider"])
    path, speed = session.run(["path", "speed"], {"frames": np.ascontiguousarray(frames), "side": side})
    assert plan.path_xy_m == pytest.approx(path[0], abs=1e-6)
    assert plan.speed_mps == pytest.approx(speed[0], abs=1e-6)


def test_frames_remembered_equal_frames_brought_along() -> None:
    one_by_one = policy()
    for step in range(5):
        plan = one_by_one.act(observation(10.0 + step / 10, {0.0: step}))
    together = policy().act(observation(10.4, {0.4: 0, 0.3: 1, 0.2: 2, 0.1: 3, 0.0: 4}))
    assert np.array_equal(plan.path_xy_m, together.path_xy_m)
    one_by_one.reset(None)
    alone = one_by_one.act(observation(20.0, {0.0: 9}))
    assert np.array_equal(alone.path_xy_m, policy().act(observation(20.0, {0.4: 9, 0.0: 9})).path_xy_m)


def test_the_frame_nearest_in_age_is_taken_and_a_late_camera_repeats() -> None:
    near = policy().act(observation(10.0, {0.9: 7, 0.43: 1, 0.02: 2}))
    assert np.array_equal(near.path_xy_m, policy().act(observation(10.0, {0.4: 1, 0.0: 2})).path_xy_m)
    blind = policy()
    first = blind.act(observation(10.0, {0.4: 1, 0.0: 2}))
    later = blind.act(observation(30.0, {}))
    assert not np.array_equal(first.path_xy_m, later.path_xy_m)
    assert np.array_equal(later.path_xy_m, policy().act(observation(30.0, {0.4: 2, 0.0: 2})).path_xy_m)


def test_many_egos_in_one_run_agree_with_each_alone() -> None:
    seen = [observation(10.0, {0.4: seed, 0.0: seed + 1}, speed=seed / 2) for seed in range(6)]
    batch = policy().act_many(seen)
    for plan, one in zip(batch, seen, strict=True):
        alone = policy().act(one)
        assert plan.path_xy_m == pytest.approx(alone.path_xy_m, abs=1e-5)
        assert plan.speed_mps == pytest.approx(alone.speed_mps, abs=1e-5)
    assert policy().act_many([]) == []
    shared = policy()
    shared.act_many([observation(10.0, {0.0: 1}), observation(10.0, {0.0: 2})], egos=["a", "b"])
    second = shared.act_many([observation(10.4, {0.0: 3}), observation(10.4, {0.0: 4})], egos=["a", "b"])
    assert second[1].path_xy_m == pytest.approx(policy().act(observation(10.4, {0.4: 2, 0.0: 4})).path_xy_m, abs=1e-5)


def test_same_calls_same_bits() -> None:
    seen = [observation(10.0, {0.4: seed, 0.0: seed + 1}) for seed in range(4)]
    first, second = policy().act_many(seen), policy().act_many(seen)
    assert all(np.array_equal(a.path_xy_m, b.path_xy_m) for a, b in zip(first, second, strict=True))


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(CorruptError, match="not the network") as problem:
        OnnxPolicy(NET + b"\0", metadata(NET), CAMERA)
    assert problem.value.code == "tampered"
    junk = b"not a network"
    with pytest.raises(InputError, match="cannot read"):
        OnnxPolicy(junk, metadata(junk), CAMERA)
    with pytest.raises(InputError, match="'frames'"):
        OnnxPolicy(NET, metadata(NET, frame_offsets_s=(0.4, 0.2, 0.0)), CAMERA)
    with pytest.raises(InputError, match="'path'"):
        OnnxPolicy(NET, metadata(NET, arcs_m=(1.0, 2.0)), CAMERA)
    with pytest.raises(InputError, match="no frame of it"):
        policy().act(observation(10.0, {}))
    wild = network(bias=float("nan"))
    with pytest.raises(CorruptError, match="not finite"):
        OnnxPolicy(wild, metadata(wild), CAMERA).act(observation(10.0, {0.0: 1}))
