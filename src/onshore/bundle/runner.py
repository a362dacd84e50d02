"""Driving from a bundle: ONNX Runtime, one thread, the same code in world, evaluation and car.

Rule: a network sees only what `bundle.inputs` makes of an observation, and it answers with a plan or an error, never
with numbers that are none. ONNX interface: inputs `frames` uint8 (B, T, 3, H, W), one more (`frames_1`, ...) per side
view, and `side` float32 (B, 9); outputs `path` float32 (B, K, 2) in metres and `speed` float32 (B, S) in m/s.

A streaming network looks at each picture once: its picture inputs have T = 1, the newest; `memory` float32
(B, T - 1, F) holds what it made of the earlier ones, oldest first, and the output `feature` (B, F) is what it made of
this one. The runner keeps the features, so the caller sees no difference.

One batch and many single runs agree to float32 rounding (about 1e-6), not to the bit: ONNX Runtime picks its matrix
kernels by batch size. The same calls give the same bits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.format import MODEL, BundleMetadata
from onshore.bundle.inputs import SIDE_INPUTS, camera_for, frame_inputs, side_inputs, view_maps, warp
from onshore.core.digest import sha256_hex
from onshore.core.errors import CorruptError, InputError
from onshore.core.plan import Plan
from onshore.core.policy import Observation
from onshore.core.recording import Camera

#: Frames this much older than the oldest the network wants are forgotten.
KEEP_EXTRA_NS = 600_000_000
SAME_FRAME_NS = 1_000_000


Seen = NDArray[Any]


@dataclass
class _History:
    """What one ego saw by time, oldest first: per moment one array per view, or one feature of a streaming network."""

    t_ns: list[int] = field(default_factory=list)
    seen: list[tuple[Seen, ...]] = field(default_factory=list)

    def add(self, t_ns: int, seen: tuple[Seen, ...]) -> None:
        at = int(np.searchsorted(np.asarray(self.t_ns, np.int64), t_ns)) if self.t_ns else 0
        self.t_ns.insert(at, t_ns)
        self.seen.insert(at, seen)

    def has(self, t_ns: int) -> bool:
        """Ages are floats: the same frame shown twice may differ by nanoseconds."""
        return any(abs(t_ns - known) < SAME_FRAME_NS for known in self.t_ns)

    def nearest(self, t_ns: int) -> tuple[Seen, ...]:
        """What was seen closest in time; of two equally close the older one."""
        return self.seen[int(np.argmin(np.abs(np.asarray(self.t_ns, np.int64) - t_ns)))]

    def forget_before(self, t_ns: int) -> None:
        """Drop what is older, but never the last one: a camera that stands still in time repeats its frame."""
        while len(self.t_ns) > 1 and self.t_ns[0] < t_ns:
            del self.t_ns[0], self.seen[0]


class Network:
    """An exported network in ONNX Runtime: arrays in, arrays out, streaming or not.

    Raises CorruptError `tampered` when the bytes are not those the metadata names, InputError `unknown_format` when
    they are no network of the interface above.
    """

    def __init__(self, onnx_bytes: bytes, metadata: BundleMetadata) -> None:
        if sha256_hex(onnx_bytes) != metadata.onnx_sha256:
            raise CorruptError("tampered", MODEL, "these bytes are not the network the metadata names; fetch it again.")
        self._session = _session(onnx_bytes)
        self.inputs = frame_inputs(len(metadata.views))
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        self.streaming = "memory" in shapes
        _check_interface(self._session, metadata, self.streaming)
        self._memory = tuple(shapes["memory"][1:]) if self.streaming else ()

    def run(self, views: Sequence[Seen], side_B9: Seen) -> tuple[Seen, Seen]:
        """(path (B, K, 2), speed (B, S)) for whole windows: per view (B, T, 3, H, W)."""
        if not self.streaming:
            path, speed = self._answer(views, {"side": side_B9})
            return path, speed
        times = [[view[:, at : at + 1] for view in views] for at in range(views[0].shape[1])]
        memory_BMF = np.stack([self.feature(one) for one in times[:-1]], 1)
        return self.stream(times[-1], side_B9, memory_BMF)[:2]

    def stream(self, views: Sequence[Seen], side_B9: Seen, memory_BMF: Seen) -> tuple[Seen, Seen, Seen]:
        """(path, speed, feature (B, F)) of a streaming network: per view the newest frame (B, 1, 3, H, W)."""
        path, speed, feature = self._answer(views, {"side": side_B9, "memory": memory_BMF}, "feature")
        return path, speed, feature

    def feature(self, views: Sequence[Seen]) -> NDArray[np.float32]:
        """(B, F): what a streaming network makes of one moment's pictures, whatever came before."""
        rows = len(views[0])
        feed = {"side": np.zeros((rows, len(SIDE_INPUTS)), np.float32), "memory": np.zeros((rows, *self._memory))}
        found: NDArray[np.float32] = self._session.run(["feature"], self._feed(views, feed))[0]
        return found

    def _feed(self, views: Sequence[Seen], others: dict[str, Seen]) -> dict[str, Seen]:
        floats = {name: np.asarray(array, np.float32) for name, array in others.items()}
        return {name: np.ascontiguousarray(v) for name, v in zip(self.inputs, views, strict=True)} | floats

    def _answer(self, views: Sequence[Seen], others: dict[str, Seen], *more: str) -> tuple[Seen, ...]:
        found = tuple(self._session.run(["path", "speed", *more], self._feed(views, others)))
        if not all(np.isfinite(array).all() for array in found[:2]):
            raise CorruptError("corrupt", "plan", "the network's numbers are not finite; do not drive from this model.")
        return found


class OnnxPolicy:
    """A Policy that drives from ONNX bytes.

    It keeps the frames it was shown, so an observation may carry one frame or several; for every frame offset of the
    metadata it takes the frame whose age comes nearest (at the start the only one there is, repeated).
    cameras: the rig's; the one that looks where a view does fills it.
    Raises what `Network` raises, and InputError `not_found` when no camera fits a view.
    """

    def __init__(self, onnx_bytes: bytes, metadata: BundleMetadata, cameras: Camera | Sequence[Camera]) -> None:
        self.network, self.metadata = Network(onnx_bytes, metadata), metadata
        rig = (cameras,) if isinstance(cameras, Camera) else tuple(cameras)
        self.cameras = tuple(camera_for(view, rig) for view in metadata.views)
        self._maps = [view_maps(camera, view) for camera, view in zip(self.cameras, metadata.views, strict=True)]
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
        side_B9 = np.stack(
            [side_inputs(o.speed_mps, o.command, o.junction_distance_m, o.in_junction) for o in observations]
        )
        look = self._stream if self.network.streaming else self._whole_windows
        path_BK2, speed_BS = look(list(zip(observations, histories, strict=True)), side_B9)
        return [
            Plan(
                path_xy_m=path.astype(np.float64),
                speed_mps=speed.astype(np.float64),
                arcs_m=self.metadata.arcs_m,
                times_s=self.metadata.times_s,
            )
            for path, speed in zip(path_BK2, speed_BS, strict=True)
        ]

    def _whole_windows(self, egos: list[tuple[Observation, _History]], side_B9: Seen) -> tuple[Seen, Seen]:
        """The network sees every frame of the window each time."""
        shown = []
        for observation, history in egos:
            for t_ns, frames in self._new_frames(observation, history):
                history.add(t_ns, frames)
            if not history.seen:
                raise _never_shown(self.cameras[0], observation)
            self._forget(observation, history)
            chosen = [history.nearest(observation.t_ns - offset) for offset in self._offsets_ns]
            shown.append([np.stack(view) for view in zip(*chosen, strict=True)])
        return self.network.run([np.stack(view) for view in zip(*shown, strict=True)], side_B9)

    def _stream(self, egos: list[tuple[Observation, _History]], side_B9: Seen) -> tuple[Seen, Seen]:
        """The network sees each ego's newest frame and what it made of the earlier ones."""
        newest, memory, stamps = [], [], []
        for observation, history in egos:
            fresh = sorted(self._new_frames(observation, _History()), key=lambda one: one[0])
            if not fresh:
                raise _never_shown(self.cameras[0], observation)
            t_ns, frames = fresh[-1]
            own_memory = self._is_its_own_memory(observation.t_ns, t_ns, history)
            for at_ns, earlier in fresh if own_memory else fresh[:-1]:
                if not history.has(at_ns):
                    history.add(at_ns, (self.network.feature([view[None, None] for view in earlier])[0],))
            self._forget(observation, history)
            memory.append([history.nearest(observation.t_ns - offset)[0] for offset in self._offsets_ns[:-1]])
            newest.append(frames)
            stamps.append(t_ns)
        views = [np.stack(view)[:, None] for view in zip(*newest, strict=True)]
        path_BK2, speed_BS, feature_BF = self.network.stream(views, side_B9, np.array(memory))
        for (_, history), t_ns, feature in zip(egos, stamps, feature_BF, strict=True):
            if not history.has(t_ns):
                history.add(t_ns, (feature,))
        return path_BK2, speed_BS

    def _is_its_own_memory(self, now_ns: int, newest_ns: int, history: _History) -> bool:
        """Whether the newest frame also stands at an earlier offset, because nothing older is nearer to it."""
        known = np.asarray(history.t_ns, np.int64)
        wanted = [now_ns - offset for offset in self._offsets_ns[:-1]]
        return not len(known) or any(np.abs(known - at).min() > abs(newest_ns - at) for at in wanted)

    def _forget(self, observation: Observation, history: _History) -> None:
        history.forget_before(observation.t_ns - self._offsets_ns[0] - KEEP_EXTRA_NS)

    def _new_frames(self, observation: Observation, history: _History) -> Iterator[tuple[int, tuple[Seen, ...]]]:
        """Times and views (3, H, W) of the frames that `history` lacks; side views take the frame nearest in time."""
        main = self.cameras[0]
        ages = [observation.frame_ages_s.get(camera.name, ()) for camera in self.cameras]
        for frame, age_s in zip(observation.frames.get(main.name, ()), ages[0], strict=True):
            t_ns = observation.t_ns - round(age_s * 1e9)
            if history.has(t_ns):
                continue
            views = [warp(frame, self._maps[0])]
            for camera, shown_s, view_map in zip(self.cameras[1:], ages[1:], self._maps[1:], strict=True):
                if not shown_s:
                    raise _never_shown(camera, observation)
                nearest = min(range(len(shown_s)), key=lambda at: abs(shown_s[at] - age_s))
                views.append(warp(observation.frames[camera.name][nearest], view_map))
            yield t_ns, tuple(np.ascontiguousarray(view.transpose(2, 0, 1)) for view in views)


def _never_shown(camera: Camera, observation: Observation) -> InputError:
    have = ", ".join(sorted(observation.frames)) or "none"
    return InputError("not_found", f"camera {camera.name!r}", f"no frame of it was ever shown; have: {have}.")


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


def _check_interface(session: Any, metadata: BundleMetadata, streaming: bool) -> None:
    count = len(metadata.frame_offsets_s)
    shapes = [[1 if streaming else count, 3, view.height_px, view.width_px] for view in metadata.views]
    wanted: dict[str, tuple[str, list[int]]] = {
        name: ("tensor(uint8)", shape) for name, shape in zip(frame_inputs(len(shapes)), shapes, strict=True)
    } | {
        "side": ("tensor(float)", [9]),
        "path": ("tensor(float)", [len(metadata.arcs_m), 2]),
        "speed": ("tensor(float)", [len(metadata.times_s)]),
    }
    if streaming:
        width = next((node.shape[-1] for node in session.get_inputs() if node.name == "memory"), 0)
        wanted |= {"memory": ("tensor(float)", [count - 1, width]), "feature": ("tensor(float)", [width])}
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
