"""Drivers from elsewhere: a program that speaks the policy protocol, or an ONNX file with a signature map.

Rule: a rival sees Observations only and answers with Plans; what it answers is checked before it drives. A rival that dies,
stays silent or answers nonsense ends its own egos' runs with the event `policy_failed`, and the table shows it.
The protocol is docs/policy-protocol.md: length-prefixed JSON headers and raw frames over stdin and stdout.
"""

from __future__ import annotations

import json
import math
import os
import select
import shlex
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S, Plan
from onshore.core.policy import Observation, RouteCommand
from onshore.core.recording import Camera

VERSION = 1
START_S, ANSWER_S = 30.0, 5.0
HEADER_BYTES = 1 << 20
FARTHEST_M, FASTEST_MPS = 200.0, 100.0


class Program:
    """A rival program, started once and asked for one plan at a time. Errors: InputError naming what it did wrong."""

    def __init__(
        self, command: str, cameras: Sequence[Camera], *, answer_s: float = ANSWER_S, start_s: float = START_S
    ) -> None:
        self.command, self.answer_s = command, answer_s
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the program
        try:
            self._process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except (OSError, ValueError) as problem:
            self._said.close()
            raise InputError("bad_config", f"policy {command!r}", f"it cannot be started: {problem}.") from problem
        hello = {
            "type": "hello",
            "version": VERSION,
            "cameras": [camera.as_record() for camera in cameras],
            "arcs_m": list(PATH_ARCS_M),
            "times_s": list(SPEED_TIMES_S),
        }
        try:
            self._ask(hello, [], "ready", start_s)
        except InputError:
            self.close()
            raise

    def reset(self, ego: int) -> None:
        """A new run of one ego begins."""
        self._ask({"type": "reset", "ego": ego}, [], "ready", self.answer_s)

    def act(self, ego: int, observation: Observation) -> Plan:
        """The rival's plan for one ego."""
        names = sorted(observation.frames)
        frames = [np.ascontiguousarray(observation.frames[name]) for name in names]
        header = {
            "type": "act",
            "ego": ego,
            "t_ns": observation.t_ns,
            "speed_mps": observation.speed_mps,
            "command": RouteCommand(observation.command).name.lower(),
            "junction_distance_m": _known(observation.junction_distance_m),
            "in_junction": observation.in_junction,
            "frames": [
                {"camera": name, "shape": list(frame.shape), "ages_s": list(observation.frame_ages_s[name])}
                for name, frame in zip(names, frames, strict=True)
            ],
        }
        return checked_plan(self._ask(header, frames, "plan", self.answer_s), self.command)

    def close(self) -> None:
        """End the program."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                stream.close()

    def _ask(
        self, header: dict[str, Any], frames: list[NDArray[np.uint8]], expected: str, within_s: float
    ) -> dict[str, Any]:
        text = json.dumps(header, separators=(",", ":")).encode()
        deadline = time.monotonic() + within_s
        try:
            self._write(
                b"".join([len(text).to_bytes(4, "big"), text, *(frame.tobytes() for frame in frames)]), deadline
            )
            size = int.from_bytes(self._read(4, deadline), "big")
            if not 0 < size <= HEADER_BYTES:
                raise self._fault(f"it announced an answer of {size} bytes; stdout may carry the protocol only")
            answer = json.loads(self._read(size, deadline))
        except ValueError as problem:
            raise self._fault(f"its answer is not JSON: {problem}") from problem
        except BrokenPipeError as problem:
            raise self._fault(f"it ended with {self._ended()}") from problem
        if not isinstance(answer, dict) or answer.get("type") != expected:
            raise self._fault(f"expected {expected!r}, it answered {str(answer)[:100]}")
        return answer

    def _write(self, data: bytes, deadline: float) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise BrokenPipeError
        os.set_blocking(pipe.fileno(), False)
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._fault("it takes no input; it ran out of time")
            view = view[os.write(pipe.fileno(), view) :]

    def _read(self, size: int, deadline: float) -> bytes:
        pipe = self._process.stdout
        data = b""
        while pipe is not None and len(data) < size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._fault("no answer in time")
            piece = os.read(pipe.fileno(), size - len(data))
            if not piece:
                raise BrokenPipeError
            data += piece
        return data

    def _ended(self) -> str:
        try:
            return f"status {self._process.wait(timeout=1.0)}"
        except subprocess.TimeoutExpired:
            return "its streams closed"

    def _fault(self, what: str) -> InputError:
        self._said.seek(0)
        words = self._said.read()[-300:].decode(errors="replace").strip()
        return InputError("policy_failed", f"policy {self.command!r}", f"{what}; it said: {words or 'nothing'}.")


def checked_plan(answer: dict[str, Any], subject: str) -> Plan:
    """A plan out of an answer. Raises InputError `policy_failed` for wrong shapes and numbers no car can drive."""
    try:
        path = np.asarray(answer["path_xy_m"], np.float64)
        speed = np.asarray(answer["speed_mps"], np.float64)
    except (KeyError, TypeError, ValueError) as problem:
        raise InputError("policy_failed", f"policy {subject!r}", f"a plan lacks numbers: {problem}.") from problem
    shapes = path.shape == (len(PATH_ARCS_M), 2) and speed.shape == (len(SPEED_TIMES_S),)
    if not shapes or not (np.isfinite(path).all() and np.isfinite(speed).all()):
        wanted = f"{len(PATH_ARCS_M)} x 2 finite metres and {len(SPEED_TIMES_S)} finite speeds"
        raise InputError(
            "policy_failed", f"policy {subject!r}", f"a plan has {wanted}; got {path.shape}, {speed.shape}."
        )
    if np.abs(path).max() > FARTHEST_M or speed.min() < 0 or speed.max() > FASTEST_MPS:
        raise InputError(
            "policy_failed", f"policy {subject!r}", "a plan is out of reach: metres and m/s in the rig frame?"
        )
    return Plan(path_xy_m=path, speed_mps=speed)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How an ONNX file's own names map to ours (TOML). inputs: its name -> one of INPUTS; path, speed: its outputs.

    layout: order of frame axes, e.g. `TCHW`; scale, offset: pixel x scale + offset. waypoints_s: the times at which its
    path stands, where it gives points in time instead of points along the way; speeds then follow from them.
    """

    inputs: dict[str, str]
    path: str
    speed: str = ""
    layout: str = "THWC"
    dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0
    waypoints_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.inputs.values()) - set(INPUTS)
        if unknown or "frames" not in self.inputs.values() or sorted(self.layout) != sorted("THWC"):
            where = f"signature inputs {sorted(unknown)}"
            raise InputError("bad_config", where, f"map to {', '.join(INPUTS)}, frames among them; layout orders THWC.")
        if self.dtype not in ("float32", "float16", "uint8") or bool(self.speed) == bool(self.waypoints_s):
            raise InputError("bad_config", "signature", "dtype float32, float16 or uint8; give speed or waypoints_s.")

    @classmethod
    def from_toml(cls, text: str) -> Signature:
        try:
            record = tomllib.loads(text)
            return cls(**{**record, "waypoints_s": tuple(record.get("waypoints_s", ()))})
        except (tomllib.TOMLDecodeError, TypeError) as problem:
            raise InputError("bad_config", "signature", f"{problem}.") from problem


INPUTS = ("frames", "speed_mps", "command", "command_onehot", "junction_distance_m")


class MappedOnnx:
    """An ONNX file of another project as a Policy, through its signature."""

    def __init__(self, data: bytes, signature: Signature, camera: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # ONNX Runtime raises a dozen unrelated classes for bytes it cannot read
            raise InputError(
                "unknown_format", "onnx", f"ONNX Runtime cannot read it: {str(problem)[:200]}"
            ) from problem
        self.signature, self.camera = signature, camera
        named = {node.name for node in (*self._session.get_inputs(), *self._session.get_outputs())}
        asked = {*signature.inputs, signature.path, signature.speed} - {""}
        if asked - named:
            raise InputError("bad_config", f"signature {sorted(asked - named)}", f"the file has {sorted(named)}.")

    def reset(self, route: object | None) -> None:
        """Nothing is remembered between plans."""

    def act(self, observation: Observation) -> Plan:
        """One plan. Raises InputError `policy_failed` when the network's answer is no plan."""
        feeds = {name: self._input(kind, observation)[None] for name, kind in self.signature.inputs.items()}
        outputs = [self.signature.path, *([self.signature.speed] if self.signature.speed else [])]
        found = [np.asarray(value, np.float64)[0] for value in self._session.run(outputs, feeds)]
        if self.signature.waypoints_s:
            return _from_waypoints(found[0], self.signature.waypoints_s, observation.speed_mps or 0.0)
        return checked_plan({"path_xy_m": found[0], "speed_mps": found[1]}, "onnx")

    def _input(self, kind: str, observation: Observation) -> NDArray[Any]:
        if kind == "frames":
            order = ["THWC".index(axis) for axis in self.signature.layout]
            frames = observation.frames[self.camera].astype(np.float64) * self.signature.scale + self.signature.offset
            ordered: NDArray[Any] = np.ascontiguousarray(frames.transpose(order), dtype=self.signature.dtype)
            return ordered
        if kind == "command":
            return np.asarray(int(observation.command), np.int64)
        if kind == "command_onehot":
            return np.asarray(np.arange(len(RouteCommand)) == int(observation.command), np.float32)
        value = observation.speed_mps if kind == "speed_mps" else observation.junction_distance_m
        return np.asarray([0.0 if value is None or not math.isfinite(value) else value], np.float32)


def _from_waypoints(points_T2: NDArray[np.float64], times_s: tuple[float, ...], speed_mps: float) -> Plan:
    """Points in time as a path along the way and the speeds between them."""
    if points_T2.shape != (len(times_s), 2) or not np.isfinite(points_T2).all():
        raise InputError("policy_failed", "onnx", f"expected {len(times_s)} finite waypoints, got {points_T2.shape}.")
    points, times = np.vstack([[0.0, 0.0], points_T2]), np.array((0.0, *times_s))
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    last = points[-1] - points[-2]
    heading = last / np.hypot(*last) if steps[-1] > 0.05 else np.array([1.0, 0.0])
    arcs = np.append(along, along[-1] + PATH_ARCS_M[-1])
    points = np.vstack([points, points[-1] + heading * PATH_ARCS_M[-1]])
    path = np.stack([np.interp(PATH_ARCS_M, arcs, points[:, axis]) for axis in (0, 1)], -1)
    middles, speeds = (times[1:] + times[:-1]) / 2, steps / np.diff(times)
    wanted = np.interp(SPEED_TIMES_S, np.append(0.0, middles), np.append(speed_mps, speeds))
    return checked_plan({"path_xy_m": path, "speed_mps": wanted}, "onnx")


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
