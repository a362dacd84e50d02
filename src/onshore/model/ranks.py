"""Several processes learning one batch together: who takes which part, how they meet, and what they agree on.

Rule: how many processes there are is no setting of the result: a batch's parts are the recipe's (`accumulate`), a process
takes as many of them as its share, and sums over them differ by rounding alone. They meet over loopback inside one jail
(gloo on processors, NCCL on GPUs), or as torchrun started them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onshore.core.errors import InputError, OnshoreError

Answer = TypeVar("Answer")
#: A process that does not answer for so long is taken for dead.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `count`: its number, from 0. The first one speaks for all."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The GPU of this process where there is one, else the processor."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.rank % torch.cuda.device_count())
        return torch.device("cpu")

    @property
    def title(self) -> str:
        """What `device` is, in words."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "processor"

    def part(self, batch: int) -> slice:
        """The samples of a batch that this process takes."""
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def summed(self, values: Tensor) -> Tensor:
        """The sum of every process's values, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def joined(self, network: nn.Module, *, shard: bool) -> nn.Module:
        """The network whose gradients are every process's mean. shard: each process keeps a piece of every tensor (FSDP)."""
        if shard:
            return sharded(network, self)
        if self.count == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, forward_sync_buffers=False)


ALONE = Ranks()


def sharded(network: nn.Module, ranks: Ranks) -> nn.Module:
    """FSDP, in place: each block of the network by itself, so that one block at a time is whole in memory."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    for child in network.children():
        for block in child if isinstance(child, nn.Sequential) else [child]:
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def unsynced(network: nn.Module) -> AbstractContextManager[None]:
    """Within: gradients add up in this process and are not exchanged yet (FSDP exchanges them all the same)."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with every process's piece of it; all of them must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, kept: Tensor) -> Tensor:
    """A whole tensor laid out, placed and cut as `kept` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(kept, DTensor):
        return distribute_tensor(tensor.to(kept.device), kept.device_mesh, kept.placements)
    return torch.empty_like(kept).copy_(tensor)


def together(count: int, work: Callable[[Ranks], Answer]) -> Answer:
    """Run `work` in `count` processes, this one the first of them, and return what it gives here.

    The others are forked, so that they share what is in memory already. Errors: as `work`; InputError `bad_config` when
    they cannot meet; what one of the others raised, or `limit_exceeded` when it ended before its work did.
    """
    if count == 1:
        return work(ALONE)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        others = [
            fork.Process(target=_other, args=(Ranks(rank=rank, count=count), folder, work)) for rank in range(1, count)
        ]
        for process in others:
            process.start()
        try:
            answer = _met(Ranks(count=count), folder, work)
        except RuntimeError as fault:
            for process in others:
                process.join(5.0)
            ended = [process.exitcode for process in others if process.exitcode not in (None, 0)]
            advice = f"one ended early {ended}: {fault}."
            raise _last_words(folder) or InputError("limit_exceeded", f"{count} processes", advice) from fault
        finally:
            for process in others:
                process.join(5.0)
                process.kill()
                process.join()
    return answer


def _last_words(folder: str) -> InputError | None:
    """What the first of the others that broke left behind for this process to raise."""
    for file in sorted(Path(folder).glob("fault-*.json")):
        told = json.loads(file.read_text(encoding="utf8"))
        return InputError(told["code"], told["subject"], told["advice"])
    return None


def torchrun() -> Ranks:
    """Join the processes that torchrun started; its environment says which one this is."""
    ranks = Ranks(rank=int(os.environ["RANK"]), count=int(os.environ["WORLD_SIZE"]))
    dist.init_process_group(backend(), timeout=PATIENCE)
    return ranks


def backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def _met(ranks: Ranks, folder: str, work: Callable[[Ranks], Answer]) -> Answer:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group(
            backend(), init_method=f"file://{folder}/meet", rank=ranks.rank, world_size=ranks.count, timeout=PATIENCE
        )
    except RuntimeError as fault:
        advice = f"they did not meet over loopback ({fault}); see whether one of them ended, or train in one process."
        raise InputError("bad_config", f"{ranks.count} processes", advice) from fault
    try:
        return work(ranks)
    finally:
        dist.destroy_process_group()


def _other(ranks: Ranks, folder: str, work: Callable[[Ranks], object]) -> None:
    """A forked process: its work, and no more of what it was forked from."""
    status = 1
    try:
        _met(ranks, folder, work)
        status = 0
    except Exception as fault:  # the outermost handler of this process: the first one raises it
        told = {
            "code": "limit_exceeded",
            "subject": f"process {ranks.rank}",
            "advice": f"{type(fault).__name__}: {fault}",
        }
        told |= fault.as_record() if isinstance(fault, OnshoreError) else {}
        Path(folder, f"fault-{ranks.rank}.json").write_text(json.dumps(told), encoding="utf8")
    finally:
        sys.stderr.flush()
        os._exit(status)
