"""Several cameras of the rig in the town world: each view is filled by its own camera, drives, and teaches."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onshore.bundle.format import BundleMetadata
from onshore.bundle.inputs import View
from onshore.core.digest import sha256_hex
from onshore.dataset.windows import WindowSpec, read_takeovers
from onshore.model.collection import _named, pack_arrays
from onshore.model.export import to_onnx
from onshore.model.temporal import Temporal
from onshore.region import load_pack
from onshore.world import PolicySpec, collect_takeovers, run_jobs
from onshore.world.jobs import SURROUND, WIDE_CAMERA, cameras_of
from onshore.world.roads import Roads
from onshore.world.scenarios import family
from onshore.world.scenarios.sharing import TEACHER
from world.conftest import job

LEFT = View(width_px=64, height_px=32, focal_px=32.0, yaw_rad=math.radians(70.0))
TWO = Temporal(
    name="two", channels=(8, 12), feature=8, hidden=8, view=View(), side_views=(LEFT,), frame_offsets_s=(0.4, 0.0)
)


class LeftEye(nn.Module):
    """Drives straight, as fast as what the left camera shows differs from what the one ahead shows."""

    def forward(self, frames: Tensor, side: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        ahead = torch.tensor([[arc, 0.0] for arc in (2.0, 4.0, 6.0, 8.0, 11.0, 14.0, 18.0, 22.0)])
        brightness = left[:, -1].float().mean((1, 2, 3)) / 20 + 0 * frames[:, -1].float().mean((1, 2, 3))
        return ahead[None] + 0 * side[:, :1, None], brightness[:, None] + 0 * side[:, :4]


@pytest.fixture(scope="module")
def two_eyes() -> PolicySpec:
    onnx = to_onnx(TWO, LeftEye())
    seen = BundleMetadata(
        region="us",
        model_id="two",
        onnx_sha256=sha256_hex(onnx),
        view=TWO.view,
        side_views=TWO.side_views,
        frame_offsets_s=TWO.frame_offsets_s,
    )
    return PolicySpec(kind="onnx", name="two", onnx=onnx, metadata=seen)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world-cache")


@pytest.mark.slow
def test_a_policy_of_two_views_drives_a_town_through_two_cameras(two_eyes: PolicySpec, cache: Path) -> None:
    assert [camera.name for camera in cameras_of(two_eyes)] == ["wide", "left"]
    here = job(policy=two_eyes, max_time_s=3.0)
    far = SURROUND[1]
    jobs = [here, replace(here, cameras=(WIDE_CAMERA, replace(far, pose_camera_in_rig=(1.2, 0.8, 1.1, 0.0, 0.3, 0.8))))]
    (seen, moved), (again, _) = (run_jobs(jobs, workers=count, cache_dir=cache) for count in (1, 2))
    assert [one.digest for one in seen] == [one.digest for one in again]
    assert seen[0].plan_speed_NT.min() > 0.5, "the left camera was black"
    # only the left camera was moved: what it shows reached the network, and the digest of what was seen
    assert np.abs(seen[0].plan_speed_NT[0] - moved[0].plan_speed_NT[0]).max() > 0.05
    assert seen[0].frame_digest != moved[0].frame_digest
    (blind,) = run_jobs([replace(here, policy=replace(two_eyes, blind=True))], workers=1, cache_dir=cache)
    assert blind[0].plan_speed_NT.max() == 0.0, "blind means every camera"


def test_what_two_cameras_saw_becomes_samples_of_two_views(two_eyes: PolicySpec, cache: Path) -> None:
    roads = Roads.from_record("us", load_pack("us").roads)
    taught = replace(family("curves").job(roads, 1, two_eyes), collect=True, teacher=TEACHER, max_time_s=4.0)
    (rollouts,), arrays = collect_takeovers([taught], workers=1, cache_dir=cache)
    assert arrays["frames_NTHWC"].shape[1:] == (2, 64, 128, 3) and arrays["frames_1_NTHWC"].shape[1:] == (2, 32, 64, 3)
    assert len(rollouts) == 1 and arrays["frames_1_NTHWC"].any()
    spec = WindowSpec(view=TWO.view, side_views=TWO.side_views, frame_offsets_s=TWO.frame_offsets_s)
    samples = read_takeovers([pack_arrays(_named(arrays))], spec)
    assert len(samples) == len(arrays["side_N9"]) > 5 and samples.side_frames[0].shape[1:] == (2, 32, 64, 3)
