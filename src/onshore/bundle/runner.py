"""Driving from a bundle: ONNX Runtime, one thread, the same code in world, evaluation and car.

Rule: a network sees only what `bundle.inputs` makes of an observation, and it answers with a plan or an error, never
with numbers that are none. ONNX interface: inputs `frames` uint8 (B, T, 3, H, W) and `side` float32 (B, 9); outputs
`path` float32 (B, K, 2) in metres and `speed` float32 (B, T2) in m/s.

One batch and many single runs agree to float32 rounding (about 1e-6), not to the bit: ONNX Runtime picks its matrix
kernels by batch size. The same calls give the same bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.format import MODEL, BundleMetadata
from onshore.bundle.inputs import ViewMap, side_inputs, view_maps, warp
from onshore.core.digest import sha256_hex
from onshore.core.errors import CorruptError, InputError
from onshore.core.plan import Plan
from onshore.core.policy import Observation
from onshore.core.recording import Camera

#: Frames this much older than the oldest the network wants are forgotten.
KEEP_EXTRA_NS = 600_000_000
SAME_FRAME_NS = 1_000_000


@dataclass
class _History:
    """Warped frames of one ego by time, oldest first."""

    t_ns: list[int] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, t_ns: int, frame: NDArray[np.uint8]) -> None:
        at = int(np.searchsorted(np.asarray(self.t_ns, np.int64), t_ns)) if self.t_ns else 0
        self.t_ns.insert(at, t_ns)
        self.frames.insert(at, frame)

    def has(self, t_ns: int) -> bool:
        """Ages are floats: the same frame shown twice may differ by nanoseconds."""
        return any(abs(t_ns - known) < SAME_FRAME_NS for known in self.t_ns)

    def nearest(self, t_ns: int) -> NDArray[np.uint8]:
        """The frame closest in time; of two equally close the older one."""
        return self.frames[int(np.argmin(np.abs(np.asarray(self.t_ns, np.int64) - t_ns)))]

    def forget_before(self, t_ns: int) -> None:
        """Drop older frames, but never the last one: a camera that stands still in time repeats its frame."""
        while len(self.t_ns) > 1 and self.t_ns[0] < t_ns:
            del self.t_ns[0], self.frames[0]


class OnnxPolicy:
    """A Policy that drives from ONNX bytes.

    It keeps the frames it was shown, so an observation may carry one frame or several; for every frame offset of the
    metadata it takes the frame whose age comes nearest (at the start the only one there is, repeated).
    Raises CorruptError `tampered` when the bytes are not those the metadata names, InputError `unknown_format` when
    they are no network of the interface above.
    """

    def __init__(self, onnx_bytes: bytes, metadata: BundleMetadata, camera: Camera) -> None:
        if sha256_hex(onnx_bytes) != metadata.onnx_sha256:
            raise CorruptError("tampered", MODEL, "these bytes are not the network the metadata names; fetch it again.")
        self.metadata, self.camera = metadata, camera
        self._session = _session(onnx_bytes)
        _check_interface(self._session, metadata)
        self._view_map: ViewMap = view_maps(camera, metadata.view)
        self._offsets_ns = [round(offset * 1e9) for offset in metadata.frame_offsets_s]
        self._histories: dict[Hashable, _History] = {}

    def reset(self, route: object | None) -> None:
        """Forget every frame. The route reaches the network only through each observation's command."""
        self._histories.clear()

    def act(self, observation: Observation) -> Plan:
        return self.act_many([observation], egos=[None])[0]

    def act_many(self, observations: Sequence[Observation], egos: Sequence[Hashable] | None = None) -> list[Plan]:
        """One plan per observation in one run of the network.

        `egos` names whose frame history each observation continues; without it every observation stands alone and
        must bring all the frames it wants seen.
        """
        if not observations:
            return []
        histories = [_History() for _ in observations]
        if egos is not None:
            histories = [self._histories.setdefault(ego, _History()) for ego in egos]
        frames_BTCHW = np.stack([self._frames(o, h) for o, h in zip(observations, histories, strict=True)])
        side_B9 = np.stack(
            [side_inputs(o.speed_mps, o.command, o.junction_distance_m, o.in_junction) for o in observations]
        )
        return self.plans(frames_BTCHW, side_B9)

    def plans(self, frames_BTCHW: NDArray[np.uint8], side_B9: NDArray[np.float32]) -> list[Plan]:
        """One plan per row of network inputs that are already made."""
        path_BK2, speed_BT = self._session.run(["path", "speed"], {"frames": frames_BTCHW, "side": side_B9})
        if not (np.isfinite(path_BK2).all() and np.isfinite(speed_BT).all()):
            raise CorruptError("corrupt", "plan", "the network's numbers are not finite; do not drive from this model.")
        return [
            Plan(
                path_xy_m=path.astype(np.float64),
                speed_mps=speed.astype(np.float64),
                arcs_m=self.metadata.arcs_m,
                times_s=self.metadata.times_s,
            )
            for path, speed in zip(path_BK2, speed_BT, strict=True)
        ]

    def _frames(self, observation: Observation, history: _History) -> NDArray[np.uint8]:
        """(T, 3, H, W): frames of this observation are warped once, when first seen."""
        frames = observation.frames.get(self.camera.name)
        if frames is not None:
            ages_s = observation.frame_ages_s[self.camera.name]
            for frame, age_s in zip(frames, ages_s, strict=True):
                t_ns = observation.t_ns - round(age_s * 1e9)
                if not history.has(t_ns):
                    history.add(t_ns, warp(frame, self._view_map))
        if not history.frames:
            have = ", ".join(sorted(observation.frames)) or "none"
            raise InputError(
                "not_found", f"camera {self.camera.name!r}", f"no frame of it was ever shown; have: {have}."
            )
        history.forget_before(observation.t_ns - self._offsets_ns[0] - KEEP_EXTRA_NS)
        chosen_THWC = np.stack([history.nearest(observation.t_ns - offset) for offset in self._offsets_ns])
        return np.ascontiguousarray(chosen_THWC.transpose(0, 3, 1, 2))


def _session(onnx_bytes: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # ONNX Runtime raises a dozen unrelated classes for bytes it cannot read
        raise InputError("unknown_format", MODEL, f"ONNX Runtime cannot read it: {str(problem)[:200]}") from problem


def _check_interface(session: Any, metadata: BundleMetadata) -> None:
    view, count = metadata.view, len(metadata.frame_offsets_s)
    wanted: dict[str, tuple[str, list[int]]] = {
        "frames": ("tensor(uint8)", [count, 3, view.height_px, view.width_px]),
        "side": ("tensor(float)", [9]),
        "path": ("tensor(float)", [len(metadata.arcs_m), 2]),
        "speed": ("tensor(float)", [len(metadata.times_s)]),
    }
    found = {node.name: (node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())}
    for name, (kind, shape) in wanted.items():
        have = found.get(name)
        fits = have is not None and have[0] == kind and _fits(shape, have[1])
        if not fits:
            raise InputError(
                "unknown_format",
                f"{MODEL} {name!r}",
                f"want {kind} (batch, {shape}) as the metadata says, have {have}.",
            )


def _fits(shape: list[int], have: Sequence[object]) -> bool:
    """A batch dimension, then these sizes; a size without a number fits any."""
    same = all(not isinstance(found, int) or found == wanted for wanted, found in zip(shape, have[1:], strict=False))
    return len(have) == len(shape) + 1 and same
