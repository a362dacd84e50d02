"""How long does one plan take, and how much of that is ours rather than ONNX Runtime's?

    python benchmarks/runner_latency.py [--plans 300]

Both run in this process, on one thread, on the same network (nano's architecture with fresh weights) and the same
inputs: `OnnxPolicy.act` on camera frames (warping, history, side inputs, plan), and a bare session on ready inputs.
Prints one JSON document: medians and 99th percentiles in ms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort

from onshore.bundle.format import BundleMetadata
from onshore.bundle.inputs import view_maps, warp
from onshore.bundle.runner import OnnxPolicy
from onshore.core.digest import sha256_hex
from onshore.core.policy import Observation
from onshore.core.recording import Camera
from row import print_row

CAMERAS = {
    "town 192x96, f 64": Camera(
        name="front", width_px=192, height_px=96, focal_px=64.0, centre_x_px=96.0, centre_y_px=48.0
    ),
    "town 160x80, f 70": Camera(
        name="front", width_px=160, height_px=80, focal_px=70.0, centre_x_px=80.0, centre_y_px=40.0
    ),
    "real 526x330, f 722": Camera(
        name="front",
        width_px=526,
        height_px=330,
        focal_px=722.0,
        centre_x_px=263.0,
        centre_y_px=165.0,
        pose_camera_in_rig=(1.5, 0.0, 1.3, 0.0, 0.02, 0.0),
    ),
}


def nano_onnx() -> bytes:
    import torch

    from onshore.model.export import to_onnx
    from onshore.model.nano import Nano

    torch.manual_seed(0)
    trainable = Nano()
    return to_onnx(trainable, trainable.build().eval())


def timed(work: Callable[[int], object], plans: int) -> dict[str, float]:
    spent = []
    for index in range(plans + 20):
        began = time.perf_counter()
        work(index)
        spent.append((time.perf_counter() - began) * 1e3)
    kept = np.array(spent[20:])
    return {"median_ms": round(float(np.median(kept)), 3), "p99_ms": round(float(np.percentile(kept, 99)), 3)}


def bare(network: bytes, plans: int) -> dict[str, float]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 64, 128), dtype=np.uint8)
    side = np.zeros((1, 9), np.float32)
    return timed(lambda index: session.run(["path", "speed"], {"frames": frames, "side": side}), plans)


def ours(network: bytes, camera: Camera, plans: int) -> dict[str, float]:
    metadata = BundleMetadata(region="cn", model_id="bench", onnx_sha256=sha256_hex(network))
    policy = OnnxPolicy(network, metadata, camera)
    size = (16, 1, camera.height_px, camera.width_px, 3)
    shown = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def act(index: int) -> object:
        frames = {"front": shown[index % len(shown)]}
        return policy.act(
            Observation(t_ns=index * 200_000_000, frames=frames, frame_ages_s={"front": (0.0,)}, speed_mps=5.0)
        )

    return timed(act, plans)


def warps(camera: Camera) -> int:
    view_map = view_maps(camera, BundleMetadata(region="cn", model_id="", onnx_sha256="0" * 64).view)
    shown = np.random.default_rng(0).integers(0, 256, (200, camera.height_px, camera.width_px, 3), dtype=np.uint8)
    warp(shown[:10], view_map)
    began = time.perf_counter()
    warp(shown, view_map)
    return round(len(shown) / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=300)
    plans = parser.parse_args().plans
    network = nano_onnx()
    rows = {name: {**ours(network, camera, plans), "warps_per_s": warps(camera)} for name, camera in CAMERAS.items()}
    print_row("runner_latency", plans=plans, bare_session=bare(network, plans), policy=rows)


if __name__ == "__main__":
    main()
