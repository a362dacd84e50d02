"""The exported network with 8-bit convolutions, calibrated on the center's own windows.

Rule: what is quantised is a file of its own: it is measured, judged and signed as the bytes that ship, never by the
float network it came from. Activations are signed 8 bit, weights 7 bit per channel; heads stay float, because a path
reaches 22 m and a percent of that is a lane marking.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.runner import Network
from onshore.core.errors import InputError

Arrays = dict[str, NDArray[Any]]


def to_int8(onnx: bytes, feeds: Iterable[Arrays]) -> bytes:
    """ONNX bytes with quantised convolutions (QDQ form); feeds: the network's inputs, from which ranges are taken.

    Raises InputError `empty_input` without feeds. The same network and feeds give the same bytes.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    given = list(feeds)
    if not given:
        raise InputError(
            "empty_input", "calibration", "there is no window to calibrate on; freeze a dataset with clips."
        )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(given)

        def get_next(self) -> Arrays | None:
            return next(self._left, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(onnx)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,  # 7-bit weights: x86 without VNNI saturates sums of two 8-bit products (2 m of path)
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return target.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises, on the root logger, a preparation that folding batch norm already is."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)


def calibration_feeds(network: Network, views: list[NDArray[np.uint8]], side_B9: NDArray[np.float32]) -> list[Arrays]:
    """Inputs of single moments for `to_int8` from whole windows: per view (B, T, 3, H, W)."""
    newest = [view[:, -1:] if network.streaming else view for view in views]
    memory = {}
    if network.streaming:
        earlier = [network.feature([view[:, at : at + 1] for view in views]) for at in range(views[0].shape[1] - 1)]
        memory = {"memory": np.stack(earlier, 1).astype(np.float32)}
    inputs = dict(zip(network.inputs, newest, strict=True)) | {"side": side_B9.astype(np.float32)} | memory
    return [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(len(side_B9))]
