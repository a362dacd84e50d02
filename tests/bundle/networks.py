"""Small real networks with a bundle's interface: pictures and side inputs really reach path and speed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onshore.bundle.format import BundleMetadata
from onshore.core.digest import sha256_hex


def network(seed: int = 0, *, frames: int = 2, height: int = 64, width: int = 128, bias: float = 0.0) -> bytes:
    """ONNX bytes: mean colours of each frame and the nine side inputs, one linear layer each for path and speed."""
    rng = np.random.default_rng(seed)
    features = frames * 3 + 9

    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    straight = np.stack([np.array([2, 4, 6, 8, 11, 14, 18, 22]), np.zeros(8)], -1).ravel()
    weights = [
        constant("scale", np.float32(1 / 255)),
        constant("axes", np.array([3, 4], np.int64)),
        constant("flat", np.array([0, frames * 3], np.int64)),
        constant("points", np.array([0, 8, 2], np.int64)),
        constant("path_w", rng.normal(0, 0.3, (features, 16)).astype(np.float32)),
        constant("path_b", (straight + bias).astype(np.float32)),
        constant("speed_w", rng.normal(0, 0.3, (features, 4)).astype(np.float32)),
        constant("speed_b", np.full(4, 5 + bias, np.float32)),
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["light"]),
        helper.make_node("ReduceMean", ["light", "axes"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "flat"], ["seen"]),
        helper.make_node("Concat", ["seen", "side"], ["all"], axis=1),
        helper.make_node("Gemm", ["all", "path_w", "path_b"], ["path_flat"]),
        helper.make_node("Reshape", ["path_flat", "points"], ["path"]),
        helper.make_node("Gemm", ["all", "speed_w", "speed_b"], ["speed"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            value("frames", TensorProto.UINT8, ["B", frames, 3, height, width]),
            value("side", TensorProto.FLOAT, ["B", 9]),
        ],
        [value("path", TensorProto.FLOAT, ["B", 8, 2]), value("speed", TensorProto.FLOAT, ["B", 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def metadata(onnx_bytes: bytes, **changes: object) -> BundleMetadata:
    facts = {
        "region": "cn",
        "model_id": "weights-a",
        "onnx_sha256": sha256_hex(onnx_bytes),
        "gate": "bench",
        "counter": 1,
    }
    return BundleMetadata(**{**facts, **changes})
