"""Eight bits: the file that ships is the one that is judged, and one whose plans moved away is stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.test_models import SMALL, learned
from onshore import release
from onshore.bundle.format import Payload
from onshore.bundle.runner import Network
from onshore.core.errors import RefusedError
from onshore.dataset import Perturb, WindowSpec, batches, load_windows
from onshore.flywheel import judging, shipping
from onshore.model import Recipe, models
from onshore.model.export import canonical
from onshore.model.quantise import calibration_feeds, to_int8
from onshore.model.temporal import Temporal
from onshore.release.gates import load_gate
from onshore.store import Center

NANO = Recipe(name="int8", trainable=SMALL, steps=60, batch=32)
STREAM = Temporal(
    name="stream", channels=(8, 12, 16), feature=16, hidden=16, view=SMALL.view, frame_offsets_s=(0.4, 0.2, 0.0)
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    return learned(tmp_path_factory.mktemp("int8"))


@pytest.mark.parametrize(
    "recipe",
    [NANO, pytest.param(replace(NANO, name="stream-int8", trainable=STREAM), marks=pytest.mark.slow)],
    ids=lambda r: r.name,
)
def test_an_8_bit_export_is_judged_as_it_ships(place: tuple[Center, str], recipe: Recipe) -> None:
    center, dataset = place
    weights = models.train(center, dataset, recipe).id
    small = models.export_int8(center, weights, dataset)
    assert small == models.export_int8(center, weights, dataset) and small.meta["precision"] == "int8"
    assert set(small.parents) >= {weights} and models.weights_of(center, small.id) == weights
    spec = models.policy_spec(center, small.id)
    assert spec.onnx == center.read(small.id, purpose="train")
    verdict, payload = judging.judge(center, judging.Asked(model=small.id, gate="bench-int8"))
    assert verdict.passed, [(check.name, check.figure, check.reason) for check in verdict.checks]
    assert payload.files["model.onnx"] == spec.onnx and payload.metadata.model_id == weights
    by_the_float_gate, _ = judging.judge(center, judging.Asked(model=small.id, gate="bench"))
    assert not by_the_float_gate.passed


def _passes(center: Center, asked: judging.Asked, **_: object) -> tuple[release.Verdict, Payload]:
    """A verdict over the real payload without the minutes of measuring."""
    payload = judging.candidate(center, asked)
    evidence = {
        name: release.CheckResult(name=name, status="pass", figure=0.0, evidence=models.weights_of(center, asked.model))
        for name in load_gate(asked.gate).require
    }
    return release.gate(center, payload, evidence), payload


def test_what_was_gated_last_is_signed_and_counters_follow_payloads(
    place: tuple[Center, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    center, dataset = place
    weights = models.train(center, dataset, NANO).id
    small = models.export_int8(center, weights, dataset).id
    monkeypatch.setattr(judging, "judge", _passes)
    shipping.gate_model(center, small, gate="bench-int8")
    first = shipping.sign_model(center, None)
    shipping.gate_model(center, weights, gate="bench")
    shipping.gate_model(center, small, gate="bench-int8")
    assert shipping.sign_model(center, None)["id"] == first["id"], "gated again, it is the newest again"
    shipping.gate_model(center, weights, gate="bench-int8")
    second = shipping.sign_model(center, None)
    assert (first["counter"], second["counter"]) == (1, 2) and second["payload_digest"] != first["payload_digest"]


@pytest.mark.slow
def test_a_planted_8_bit_regression_is_stopped(place: tuple[Center, str], tmp_path: Path) -> None:
    center, dataset = place
    weights = models.train(center, dataset, NANO).id
    trainable, _ = models.load_network(center, weights)
    exported = models.export_onnx(center, weights)
    data = center.read(exported.id, purpose="train")
    windows = load_windows(center, dataset, WindowSpec(view=SMALL.view), "train")
    shown = next(batches(windows, batch=64, steps=1, seed=0, perturb=Perturb()))
    night = np.full_like(shown.frames_BTCHW, 2)  # calibrated on what no car of this center ever saw
    feeds = calibration_feeds(Network(data, models.policy_spec(center, weights).metadata), [night], shown.side_B9)
    planted = canonical(to_int8(data, feeds))
    kept = models.keep_onnx(center, planted, [center.artifact(weights)], trainable, 0.0, "int8")
    verdict = shipping.gate_model(center, kept["id"], gate="bench-int8", dataset=dataset)
    failed = {check["name"] for check in verdict["checks"] if check["status"] == "fail"}
    assert failed == {"shipped_near_trained"} and not verdict["passed"]
    with pytest.raises(RefusedError, match="gate_failed"):
        shipping.sign_model(center, kept["id"], gate="bench-int8")
