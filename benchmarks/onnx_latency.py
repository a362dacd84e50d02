"""How long does one core take from a picture to a plan: nano in ONNX Runtime, small streaming, against eager PyTorch?

    python benchmarks/onnx_latency.py [--repeats 300]

Prints one JSON object: milliseconds (wall) at the median and the 99th percentile, batch 1 and 8, fp32, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch

from onshore.model import Nano
from onshore.model.export import example_inputs, to_onnx
from onshore.model.temporal import Temporal
from onshore.model.training import reproducible
from row import print_row


def latency_ms(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    for _ in range(10):
        work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1e3)
    return {"p50_ms": round(float(np.median(taken)), 3), "p99_ms": round(float(np.percentile(taken, 99)), 3)}


def streaming(options: Any, repeats: int) -> dict[str, Any]:
    """small: one new frame and seven kept features against the eager network over the whole window, batch 1."""
    small = Temporal()
    network = small.build().eval()
    session = onnxruntime.InferenceSession(to_onnx(small, network), options, providers=["CPUExecutionProvider"])
    (frames,), side = example_inputs(small, 1, seed=0)
    fed = {"frames": frames[:, -1:], "side": side, "memory": np.zeros((1, 7, small.feature), np.float32)}
    window = torch.from_numpy(frames), torch.from_numpy(side)
    new, old = latency_ms(lambda: session.run(None, fed), repeats), latency_ms(lambda: network(*window), repeats)
    times = round(old["p50_ms"] / new["p50_ms"], 1)
    return {"small_streaming": new, "small_eager_window": old, "small_times_eager": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    nano, options, rows = Nano(), onnxruntime.SessionOptions(), {}
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with reproducible(0), torch.no_grad():
        network = nano.build().eval()
        session = onnxruntime.InferenceSession(to_onnx(nano, network), options, providers=["CPUExecutionProvider"])
        for batch in (1, 8):
            (frames,), side = example_inputs(nano, batch, seed=0)
            tensors = torch.from_numpy(frames), torch.from_numpy(side)
            fed = {"frames": frames, "side": side}
            rows[f"onnx_batch_{batch}"] = latency_ms(lambda fed=fed: session.run(None, fed), repeats)
            rows[f"torch_eager_batch_{batch}"] = latency_ms(lambda tensors=tensors: network(*tensors), repeats)
        rows |= streaming(options, max(20, repeats // 10))
    print_row("onnx_latency", **rows)


if __name__ == "__main__":
    main()
