"""How long do 48 routes of 45 s take with `nano` on two processes? Pictures, network, controller, traffic, referee, columns.

    python benchmarks/nano_suite.py [us|cn]

The network is `nano` with its last layers set so that it always drives slowly straight ahead: it costs what any nano costs, and
its runs last their 45 s instead of ending in the first bend. Runs that end early all the same are told in `ego_seconds`.
"""

from __future__ import annotations

import sys
import time

from onshore.bundle.format import BundleMetadata
from onshore.core.digest import sha256_hex
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, run_jobs
from row import print_row

SPEED_MPS = 0.8


def slow_nano() -> bytes:
    """The exported network; every output is what the last layers' biases say."""
    import torch
    from torch import nn

    from onshore.model.export import to_onnx
    from onshore.model.nano import Nano

    torch.manual_seed(0)
    trainable = Nano()
    network = trainable.build().eval()
    # the head counts paths in quarters of their arc lengths and speeds in tens of m/s
    for layer, value in ((network.head.path, (4.0, 0.0)), (network.head.speed, (SPEED_MPS / 10,))):
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.tensor(value).repeat(layer.out_features // len(value))
    return to_onnx(trainable, network)


def main() -> None:
    region = sys.argv[1] if len(sys.argv) > 1 else "us"
    onnx = slow_nano()
    metadata = BundleMetadata(region=region, model_id="bench", onnx_sha256=sha256_hex(onnx))
    policy = PolicySpec(kind="onnx", name="nano", onnx=onnx, metadata=metadata)
    worlds = load_pack(region).suites["suites"][f"{region}-core"]["worlds"]
    jobs = [
        RolloutJob(
            region=region,
            suite="bench",
            town_seed=town,
            traffic_seed=traffic,
            policy=policy,
            egos=4,
            route_m=1000.0,
            max_time_s=45.0,
        )
        for town, traffic in worlds
    ]
    began = time.perf_counter()
    rollouts = [rollout for world in run_jobs(jobs, workers=2) for rollout in world]
    seconds = time.perf_counter() - began
    print_row(
        "nano_suite",
        region=region,
        routes=len(rollouts),
        seconds=round(seconds, 1),
        ego_seconds=round(sum(len(rollout.steps["t_s"]) for rollout in rollouts) / 10),
        ego_seconds_asked=48 * 45,
        wanted_s=60,
        processes=2,
        note="synthetic; town caches warm from the second run on",
    )


if __name__ == "__main__":
    main()
