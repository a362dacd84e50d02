"""Weights and ONNX: one form only, equal to the network, and nothing hidden inside."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from torch import nn

from model.batches import bright_side
from model.test_training import QUICK, SMALL
from onshore.core.errors import InputError
from onshore.model.export import TOLERANCE_M, check_equal, to_onnx
from onshore.model.training import fit, reproducible
from onshore.model.weights import load, parse, serialise, to_bytes


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return fit(QUICK, bright_side(120)).network


@pytest.fixture(scope="module")
def onnx(network: nn.Module) -> bytes:
    return to_onnx(SMALL, network)


def test_weights_come_back_bit_for_bit(network: nn.Module) -> None:
    data = to_bytes(network)
    assert to_bytes(load(SMALL.build(), data)) == data
    from safetensors.torch import load as load_safetensors

    theirs = load_safetensors(data)
    assert set(theirs) == set(network.state_dict())
    assert all(torch.equal(theirs[name], tensor) for name, tensor in network.state_dict().items())


def test_memory_layout_does_not_change_the_bytes(network: nn.Module) -> None:
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()}
    assert serialise(state) == to_bytes(network)


def altered(data: bytes, change: str) -> bytes:
    (size,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if change == "hidden bytes":
        body += b"secret"
    elif change == "metadata":
        header["__metadata__"]["note"] = "secret"
    elif change == "order":
        header = dict(reversed(header.items()))
    elif change == "offsets":
        header["head.speed.bias"]["data_offsets"] = [0, 1 << 40]
    elif change == "type":
        header["head.speed.bias"]["dtype"] = "C64"
    head = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(head)) + head + body


@pytest.mark.parametrize("change", ["hidden bytes", "metadata", "order", "offsets", "type"])
def test_weights_that_hide_something_are_refused(network: nn.Module, change: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(altered(to_bytes(network), change))
    assert caught.value.code == "import_refused"


@pytest.mark.parametrize("data", [b"", b"\x80\x04 not weights", b"\xff" * 64, struct.pack("<Q", 4) + b"null"])
def test_what_is_not_weights_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse(data)


def test_weights_of_another_network_are_refused(network: nn.Module) -> None:
    state = dict(network.state_dict())
    extra = {**state, "stowaway": torch.zeros(3)}
    missing = {name: tensor for name, tensor in state.items() if name != "head.speed.bias"}
    wrong = {**state, "head.speed.bias": torch.zeros(5)}
    for bad, name in ((extra, "stowaway"), (missing, "head.speed.bias"), (wrong, "head.speed.bias")):
        with pytest.raises(InputError, match=name):
            load(SMALL.build(), serialise(bad))


def test_onnx_equals_the_network(network: nn.Module, onnx: bytes) -> None:
    assert check_equal(SMALL, network, onnx) <= TOLERANCE_M


def test_onnx_of_other_weights_is_noticed(onnx: bytes) -> None:
    with reproducible(3):
        other = SMALL.build()
    with pytest.raises(InputError, match="differs"):
        check_equal(SMALL, other, onnx)


def test_every_export_has_the_same_bytes(network: nn.Module, onnx: bytes) -> None:
    assert to_onnx(SMALL, load(SMALL.build(), to_bytes(network))) == onnx
    assert b"torch" not in onnx.lower() and b".py" not in onnx


def test_onnx_takes_pictures_as_uint8_and_any_batch(onnx: bytes) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    assert inputs == {"frames": ("tensor(uint8)", ["B", 2, 3, 64, 128]), "side": ("tensor(float)", ["B", 9])}
    assert [o.name for o in session.get_outputs()] == ["path", "speed"]


def test_batch_norm_is_folded_and_the_network_keeps_its_own(network: nn.Module, onnx: bytes) -> None:
    import onnx as onnx_format

    kinds = {node.op_type for node in onnx_format.load_model_from_string(onnx).graph.node}
    assert "BatchNormalization" not in kinds and "Conv" in kinds
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
