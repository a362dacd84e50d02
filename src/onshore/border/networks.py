"""ONNX networks are written anew like weights: built from nothing but what a network needs, node by node.

Rule: what no rule here names is not copied, and what could carry more than a network is refused: subgraphs, functions, external
data, foreign operators, long constants, text, numbers of types that parameters do not have. Names of values between nodes are
ours; the parameters' names, types and shapes are those of the manifest that the permit's approvers signed.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.border.canonical import Tensors
from onshore.core.errors import InputError

LIMIT_BYTES = 2 << 30
MOST_NODES, MOST_ATTRIBUTES, MOST_CONSTANT = 5000, 16, 64
_Types = dict[int, tuple[str, np.dtype[Any]]]
_TYPES: _Types = {1: ("F32", np.dtype("<f4")), 10: ("F16", np.dtype("<f2"))}
#: Types of constants: whole numbers and truth values may be indices and shapes, never parameters.
_CONSTANTS: _Types = {**_TYPES, 6: ("I32", np.dtype("<i4")), 7: ("I64", np.dtype("<i8")), 9: ("BOOL", np.dtype("?"))}
_OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]{1,40}")
_DOOR = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ATTRIBUTE = re.compile(r"[A-Za-z_]{1,32}")
_PARAMETER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,119}")
_WORD = re.compile(rb"[A-Za-z_]{1,32}")
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7


def parameters_of(data: bytes, subject: str = "network") -> dict[str, NDArray[Any]]:
    """The float parameters of a network by name. Raises InputError `import_refused` when it is none that could leave."""
    return {one.name: _values(one, _TYPES, subject) for one in _graph(data, subject).graph.initializer}


def manifest_of_network(data: bytes, subject: str = "network") -> Tensors:
    """The manifest that the network describes itself with."""
    names = {dtype: name for name, dtype in _TYPES.values()}
    return {name: (names[values.dtype], values.shape) for name, values in parameters_of(data, subject).items()}


def rewrite_network(data: bytes, manifest: Tensors, subject: str = "network") -> bytes:
    """The network again, with exactly the manifest's parameters; the same network gives the same bytes.

    Raises InputError `import_refused` naming what is too much.
    """
    import onnx

    held = manifest_of_network(data, subject)
    if held != {name: (dtype, tuple(shape)) for name, (dtype, shape) in manifest.items()}:
        odd = sorted(held.items() ^ manifest.items())[0][0]
        raise _bad(subject, f"has parameter {odd} otherwise than its manifest says")
    source = _graph(data, subject)
    opset = onnx.helper.make_opsetid("", source.opset_import[0].version)
    graph = onnx.GraphProto(name="network")
    names = {name: name for name in held}
    for door in source.graph.input:
        names[door.name] = door.name
        graph.input.append(_door(door, subject))
    for door in source.graph.output:
        names[door.name] = door.name
        graph.output.append(_door(door, subject))
    for node in source.graph.node:
        graph.node.append(_node(node, names, subject))
    for name, values in sorted(parameters_of(data, subject).items()):
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model = onnx.helper.make_model(graph, opset_imports=[opset], producer_name="onshore")
    model.ir_version = source.ir_version
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as problem:
        raise _bad(subject, "does not hold together as a network") from problem
    return bytes(model.SerializeToString(deterministic=True))


def _graph(data: bytes, subject: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if not 0 < len(data) <= LIMIT_BYTES:
        raise _bad(subject, f"has {len(data)} bytes; up to {LIMIT_BYTES} may leave")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as problem:
        raise _bad(subject, "is no ONNX network") from problem
    graph = model.graph
    if [one.domain for one in model.opset_import] not in ([""], ["ai.onnx"]):
        raise _bad(subject, "uses operators other than ONNX's own")
    if model.functions or model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        raise _bad(subject, "carries functions, training or sparse parts")
    if not 0 < len(graph.node) <= MOST_NODES:
        raise _bad(subject, f"has {len(graph.node)} nodes; 1 to {MOST_NODES} may leave")
    named = [one.name for one in graph.initializer]
    if len(set(named)) != len(named) or not all(_PARAMETER.fullmatch(name) for name in named):
        raise _bad(subject, "names a parameter twice or oddly")
    return model


def _door(door: Any, subject: str) -> Any:
    """An input or output: its name, type and shape; a free dimension is called B."""
    import onnx

    kind = door.type.tensor_type
    if not _DOOR.fullmatch(door.name) or not door.type.HasField("tensor_type"):
        raise _bad(subject, "has an input or output that is no plainly named tensor")
    shape = [dim.dim_value if dim.HasField("dim_value") else "B" for dim in kind.shape.dim]
    return onnx.helper.make_tensor_value_info(door.name, kind.elem_type, shape)


def _node(node: Any, names: dict[str, str], subject: str) -> Any:
    """One node, its values renamed in the order in which they appear."""
    import onnx

    if node.domain not in ("", "ai.onnx") or not _OPERATOR.fullmatch(node.op_type):
        raise _bad(subject, "uses an operator that is not ONNX's own")
    if len(node.attribute) > MOST_ATTRIBUTES:
        raise _bad(subject, f"has a node with {len(node.attribute)} attributes")
    unknown = [name for name in node.input if name and name not in names]
    if unknown:
        raise _bad(subject, "has a node that reads what nothing made")
    made = []
    for name in node.output:
        made.append(names.setdefault(name, f"v{len(names)}") if name else "")
    again = onnx.NodeProto(op_type=node.op_type, input=[names.get(name, "") for name in node.input], output=made)
    for attribute in sorted(node.attribute, key=lambda one: one.name):
        again.attribute.append(_attribute(attribute, subject))
    return again


def _attribute(given: Any, subject: str) -> Any:
    import onnx

    if not _ATTRIBUTE.fullmatch(given.name) or given.ref_attr_name:
        raise _bad(subject, "has an attribute that is no plain name")
    if given.type == _TENSOR:
        values = _values(given.t, _CONSTANTS, subject)
        if values.size > MOST_CONSTANT:
            raise _bad(subject, f"has a constant of {values.size} numbers; longer ones are parameters")
        return onnx.helper.make_attribute(given.name, onnx.numpy_helper.from_array(values))
    if given.type == _STRING and _WORD.fullmatch(given.s):
        return onnx.helper.make_attribute(given.name, given.s)
    value: dict[int, Any] = {_FLOAT: given.f, _INT: given.i, _FLOATS: list(given.floats), _INTS: list(given.ints)}
    kept = value.get(given.type)
    if kept is None or (isinstance(kept, list) and len(kept) > MOST_CONSTANT):
        raise _bad(subject, f"has an attribute {given.name} that is no number, short list or word")
    return onnx.helper.make_attribute(given.name, kept, attr_type=given.type)


def _values(tensor: Any, types: _Types, subject: str) -> NDArray[Any]:
    import onnx

    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise _bad(subject, "points to a file beside it")
    if tensor.data_type not in types:
        raise _bad(subject, "holds numbers of a type that no parameter has; export it without quantising")
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as problem:
        raise _bad(subject, "holds a tensor whose bytes do not fit its shape") from problem
    return np.ascontiguousarray(values, types[tensor.data_type][1])


def _bad(subject: str, what: str) -> InputError:
    return InputError("import_refused", subject, f"the network {what}.")
