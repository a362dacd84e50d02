"""Networks of several frames and views: the streaming export is the same mathematics, and a center can run them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from onshore.bundle.format import BundleMetadata
from onshore.bundle.inputs import View
from onshore.bundle.runner import OnnxPolicy
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.core.policy import Observation, RouteCommand
from onshore.core.recording import Camera
from onshore.model.export import TOLERANCE_M, example_inputs, onnx_difference_m, to_onnx
from onshore.model.nano import Nano
from onshore.model.temporal import Patches, Temporal
from onshore.model.trainable import from_record, record_of
from onshore.model.training import reproducible

VIEW, LEFT = View(), View(width_px=64, height_px=32, focal_px=32.0, yaw_rad=1.2)
ONE = Temporal(
    name="one", channels=(8, 12, 12, 16), feature=24, hidden=32, view=VIEW, frame_offsets_s=(0.6, 0.4, 0.2, 0.0)
)
TWO = replace(ONE, name="two", side_views=(LEFT,), encoder="strided", channels=(8, 12, 16))
POOLED = replace(TWO, name="pooled", side_views=(), encoder="pooled")
NANO_TWO = Nano(name="nano-two", side_views=(View(focal_px=160.0),))


def moved(trainable: Temporal) -> nn.Module:
    """A network whose batch norms have statistics of their own."""
    with reproducible(0):
        network = trainable.build().train()
    views, side = example_inputs(trainable, 8, seed=5)
    with torch.no_grad():
        network(torch.from_numpy(views[0]), torch.from_numpy(side), *map(torch.from_numpy, views[1:]))
    return network.eval()


@pytest.mark.parametrize("trainable", [ONE, TWO, POOLED, Nano(), NANO_TWO], ids=lambda one: one.name)
def test_onnx_equals_pytorch_on_a_thousand_steps(trainable: Temporal) -> None:
    network = moved(trainable)
    assert onnx_difference_m(trainable, network, to_onnx(trainable, network), samples=1000) <= TOLERANCE_M


@pytest.mark.parametrize("trainable", [ONE, TWO, POOLED, Nano(), NANO_TWO], ids=lambda one: one.name)
def test_a_record_builds_the_same_network(trainable: Temporal) -> None:
    assert from_record(record_of(trainable)) == trainable


@pytest.mark.parametrize("trainable", [TWO, POOLED], ids=lambda one: one.name)
def test_a_record_of_before_patches_builds_what_it_did(trainable: Temporal) -> None:
    record = {name: value for name, value in record_of(trainable).items() if name != "encoder"}
    assert from_record({**record, "pooled": trainable.encoder == "pooled"}) == trainable
    assert from_record(record) == replace(trainable, encoder="strided")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"encoder": "cubes"}, "use patches, pooled or strided"),
        ({"channels": (8,)}, "at least one block"),
        ({"view": replace(VIEW, width_px=120)}, "multiples of 32 pixels"),
        ({"encoder": "pooled", "view": replace(VIEW, height_px=48)}, "multiples of 32 pixels"),
    ],
)
def test_a_network_that_cannot_be_built_is_bad_input(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=f"bad_config.*{told}"):
        replace(ONE, **wrong)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_patches_are_the_same_while_it_learns(kind: torch.dtype) -> None:
    patches, pictures = Patches(5), torch.from_numpy(example_inputs(ONE, 2, seed=1)[0][0]).flatten(0, 1).to(kind)
    learning, asked = patches.train()(pictures), patches.eval()(pictures)
    assert torch.allclose(learning, asked, atol=1e-5) and asked.std() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(patches.train()(pictures).float(), asked, atol=0.02)


@pytest.mark.parametrize("named", ["os:system", "onshore.store.center:Center", "onshore.model.nano:Nobody", "json"])
def test_a_record_imports_nothing_that_no_package_declares(named: str) -> None:
    with pytest.raises(InputError, match="bad_config"):
        from_record({**record_of(Nano()), "class": named})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"class": "onshore.model.nope:X"}, "cannot be imported"), ({"arcs_m": 3}, "field"), ({"view": 3}, "field")],
)
def test_a_record_that_cannot_be_built_is_bad_input(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=f"bad_config.*{told}"):
        from_record({**record_of(Nano()), **wrong})


def camera(view: View, name: str) -> Camera:
    return Camera(
        name=name, width_px=view.width_px, height_px=view.height_px, focal_px=view.focal_px,
        centre_x_px=view.width_px / 2, centre_y_px=view.height_px / 2,
        pose_camera_in_rig=(1.5, 0.0, view.height_m, 0.0, 0.0, view.yaw_rad),
    )  # fmt: skip


def driven(steps: int, *, first_shows: int = 1) -> list[Observation]:
    """Observations of two cameras every 0.2 s; some frames are late, one observation shows none that is new."""
    rng = np.random.default_rng(4)
    seen = []
    for step in range(steps):
        count = first_shows if step == 0 else 1
        late_s = 0.05 if step == 5 else 0.2 if step == 7 else 0.0
        frames = {
            name: rng.integers(0, 256, (count, view.height_px, view.width_px, 3), dtype=np.uint8)
            for name, view in (("front", VIEW), ("left", LEFT))
        }
        if step == 7:
            frames = {name: seen[-1].frames[name][-1:] for name in frames}
        ages = tuple(late_s + 0.2 * back for back in range(count - 1, -1, -1))
        seen.append(
            Observation(
                t_ns=round((10 + step * 0.2) * 1e9),
                frames=frames,
                frame_ages_s={name: ages for name in frames},
                speed_mps=5.0,
                command=RouteCommand.LEFT,
            )
        )
    return seen


@pytest.mark.parametrize("trainable", [ONE, TWO], ids=lambda one: one.name)
@pytest.mark.parametrize("first_shows", [1, 4])
def test_streaming_answers_what_whole_windows_would(trainable: Temporal, first_shows: int) -> None:
    network = moved(trainable)
    streaming = to_onnx(trainable, network)
    network.__class__ = type(
        "Whole", (network.__class__,), {"streaming": property()}
    )  # as one without a streaming form
    whole = to_onnx(trainable, network)
    cameras = [camera(LEFT, "left"), camera(VIEW, "front")]

    def policy(onnx: bytes) -> OnnxPolicy:
        facts = BundleMetadata(
            region="us", model_id="m", onnx_sha256=sha256_hex(onnx), view=trainable.view,
            side_views=trainable.side_views, frame_offsets_s=trainable.frame_offsets_s,
        )  # fmt: skip
        return OnnxPolicy(onnx, facts, cameras)

    one, other = policy(streaming), policy(whole)
    assert one.network.streaming and not other.network.streaming
    for observation in driven(12, first_shows=first_shows):
        a, b = one.act(observation), other.act(observation)
        assert np.abs(a.path_xy_m - b.path_xy_m).max() < 1e-4 and np.abs(a.speed_mps - b.speed_mps).max() < 1e-4


def test_a_rig_without_the_camera_that_a_view_wants_is_named() -> None:
    onnx = to_onnx(TWO, moved(TWO))
    facts = BundleMetadata(
        region="us", model_id="m", onnx_sha256=sha256_hex(onnx), view=VIEW, side_views=(LEFT,),
        frame_offsets_s=TWO.frame_offsets_s,
    )  # fmt: skip
    with pytest.raises(InputError, match="69 deg to the left; there are front at 0 deg"):
        OnnxPolicy(onnx, facts, [camera(VIEW, "front")])
    late = replace(driven(1)[0], frames={"front": driven(1)[0].frames["front"]}, frame_ages_s={"front": (0.0,)})
    with pytest.raises(InputError, match="left"):
        OnnxPolicy(onnx, facts, [camera(VIEW, "front"), camera(LEFT, "left")]).act(late)


def test_a_nano_of_one_view_has_the_record_and_the_weights_that_it_always_had() -> None:
    assert "side_views" not in Nano().as_record()
    assert set(Nano().build().state_dict()) < set(NANO_TWO.build().state_dict())
