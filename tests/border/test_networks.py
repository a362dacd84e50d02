"""ONNX networks leave under a permit, built anew; whatever an ONNX file can carry beside a network is refused or not copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from border.conftest import Shore
from onshore import border
from onshore.border.networks import manifest_of_network, rewrite_network
from onshore.core.errors import InputError, RefusedError
from onshore.core.label import Artifact
from onshore.model import Nano
from onshore.model.export import to_onnx
from onshore.residency import derive

NANO = Nano(channels=(8, 8, 16, 16, 16), hidden=32)


@pytest.fixture(scope="module")
def network() -> Iterator[bytes]:
    import torch

    torch.manual_seed(3)
    yield to_onnx(NANO, NANO.build())


def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model)
    return bytes(model.SerializeToString())


def kept(shore: Shore, data: bytes) -> Artifact:
    label = derive([shore.weights.label], kind="onnx", retention="model")
    return shore.center.put(data, label, name="exported", parents=[shore.weights.id])


def _answers(data: bytes) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    given = {}
    for one in session.get_inputs():
        shape = [3 if isinstance(size, str) else size for size in one.shape]
        whole = one.type == "tensor(uint8)"
        given[one.name] = draw.integers(0, 256, shape).astype(np.uint8) if whole else draw.random(shape, np.float32)
    return session.run(None, given)  # type: ignore[no-any-return]


def test_a_network_written_anew_answers_as_before_and_is_always_the_same_bytes(network: bytes) -> None:
    manifest = manifest_of_network(network)
    again = rewrite_network(network, manifest)
    assert rewrite_network(again, manifest) == again
    assert all((a == b).all() for a, b in zip(_answers(network), _answers(again), strict=True))
    loud = changed(network, _talkative)
    assert b"secret" in loud and rewrite_network(loud, manifest) == again


def _talkative(model: Any) -> None:
    """Every place where ONNX takes text or order that no network needs."""
    model.doc_string = model.producer_name = model.producer_version = model.domain = model.graph.name = "secret text"
    model.model_version = 77
    model.metadata_props.add(key="secret", value="secret" * 1000)
    model.graph.doc_string = "secret"
    model.graph.value_info.add(name="secret")
    model.graph.metadata_props.add(key="secret", value="x")
    renamed = {name: f"secret/{n}" for n, name in enumerate(model.graph.node[0].output)}
    for node in model.graph.node:
        node.name = node.doc_string = "secret"
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
    for one in model.graph.initializer:
        one.doc_string = "secret"
    held = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(held))


def _external(model: Any) -> None:
    one = model.graph.initializer[0]
    one.data_location = onnx.TensorProto.EXTERNAL
    one.external_data.add(key="location", value="beside.bin")


def _pixels(model: Any) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((90, 160, 3), np.uint8), "frame"))


def _extra(model: Any) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((90, 160, 3), np.float32), "frame"))


def _long_constant(model: Any) -> None:
    values = onnx.numpy_helper.from_array(np.arange(5000, dtype=np.int64))
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["long"], value=values))


def _long_list(model: Any) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["long"], value_ints=list(range(5000))))


def _text(model: Any) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["text"], value_string="a secret, spelled out"))


def _subgraph(model: Any) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", inner))


def _foreign(model: Any) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("example", 1))
    model.graph.node[0].domain = "example"


def _functions(model: Any) -> None:
    model.functions.append(onnx.FunctionProto(name="f", domain="example"))


def _door(model: Any) -> None:
    model.graph.output[0].name = "A door with a long story"


TOO_MUCH = [_external, _pixels, _extra, _long_constant, _long_list, _text, _subgraph, _foreign, _functions, _door]


@pytest.mark.parametrize("change", TOO_MUCH, ids=lambda change: change.__name__.strip("_"))
def test_what_is_no_network_is_refused(network: bytes, change: Callable[[Any], None]) -> None:
    with pytest.raises(InputError) as caught:
        rewrite_network(changed(network, change), manifest_of_network(network))
    assert caught.value.code == "import_refused"


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"PK\x03\x04" + b"x" * 200, b"\xff" * 500])
def test_bytes_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        rewrite_network(data, {"w": ("F32", (1,))})


def test_an_onnx_export_leaves_with_a_permit_and_only_with_one(shore: Shore, network: bytes) -> None:
    one = kept(shore, changed(network, _talkative))
    decision = border.check(shore.center, one.id, "cn")
    assert decision.refusal is not None and decision.refusal.code == "permit_invalid"
    path = border.export(shore.center, one.id, permit=shore.permit(one), out_dir=shore.outside)
    assert path.name.startswith("onnx-") and path.suffix == ".onnx"
    assert b"secret" not in path.read_bytes()
    assert path.read_bytes() == rewrite_network(network, manifest_of_network(network))
    (line,) = shore.lines("border.export")
    assert (line["kind"], line["tensors"]) == ("onnx", "self-described")


def test_a_pattern_in_the_low_bits_of_an_onnx_is_found(shore: Shore, network: bytes) -> None:
    def hide(model: Any) -> None:
        largest = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        words = np.frombuffer(largest.raw_data, "<u4").copy()
        words = (words & ~np.uint32(0xFF)) | (np.arange(len(words)) // 40 % 8).astype(np.uint32)
        largest.raw_data = words.tobytes()

    one = kept(shore, changed(network, hide))
    with pytest.raises(RefusedError) as caught:
        border.export(shore.center, one.id, permit=shore.permit(one), out_dir=shore.outside)
    assert caught.value.refusal.rule == "content-scan" and not shore.outside.exists()


def test_an_onnx_of_recorded_drives_needs_what_its_weights_need(tmp_path: Path, network: bytes) -> None:
    from border.conftest import build
    from onshore.border.leakage import objection

    shore = build(tmp_path, synthetic=False)
    refusal = objection(shore.center, kept(shore, network))
    assert refusal is not None and refusal.code == "not_measurable"
    shore.center.close()


def test_releases_do_not_leave(shore: Shore) -> None:
    label = derive([shore.weights.label], kind="release", retention="model")
    release = shore.center.put(b"signed", label, name="release-1", parents=[shore.weights.id])
    with pytest.raises(RefusedError) as caught:
        border.export(shore.center, release.id, permit=shore.permit(release), out_dir=shore.outside)
    assert (caught.value.code, caught.value.refusal.rule) == ("not_cleared", "kinds-that-leave")
