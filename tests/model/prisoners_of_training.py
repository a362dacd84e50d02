"""What runs inside the jail in the tests of several processes: the same little training, alone and together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from model.batches import bright_side
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.model import Recipe
from onshore.model.checkpoint import Checkpoint
from onshore.model.ranks import Ranks, together, torchrun
from onshore.model.training import fit
from onshore.model.weights import to_bytes


def part_of(batches: Iterator[Any], own: slice) -> Iterator[Any]:
    """The same batches, of each only this process's samples."""
    for batch in batches:
        yield replace(batch, **{name: column[own] for name, column in vars(batch).items() if name != "side_frames"})


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """Train in `processes`; go on from `since` where given, and give every checkpoint back."""
    recipe = Recipe.from_record(asked["recipe"])
    since = Checkpoint.from_bytes(asked["since"]) if asked.get("since") else None

    def work(ranks: Ranks) -> dict[str, Any]:
        return shared(recipe, ranks, since, asked.get("every", 0))

    return together(recipe.processes, work)


def shared(recipe: Recipe, ranks: Ranks, since: Checkpoint | None = None, every: int = 0) -> dict[str, Any]:
    view = recipe.trainable.view
    whole = bright_side(recipe.steps, batch=recipe.batch, width=view.width_px, height=view.height_px)
    for _ in range(since.step if since else 0):
        next(whole)
    kept: list[bytes] = []
    result = fit(
        recipe,
        part_of(whole, ranks.part(recipe.batch)),
        since=since,
        every=every,
        keep=(lambda checkpoint: kept.append(checkpoint.to_bytes())) if ranks.first else None,
        ranks=ranks,
    )
    return {"weights": to_bytes(result.network), "log": result.log, "probe": result.probe, "kept": kept}


def all_of(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several trainings in one child; `since_first` goes on from the first checkpoint of the one before."""
    answers: list[dict[str, Any]] = []
    for one in asked:
        since = answers[-1]["kept"][0] if one.get("since_first") else None
        answers.append(trained({**one, "since": since}))
    return answers


def one_dies(_: Any) -> None:
    together(2, lambda ranks: os._exit(3) if ranks.rank else ranks.summed(torch.ones(1)))


def one_breaks(_: Any) -> None:
    def work(ranks: Ranks) -> None:
        if ranks.rank:
            raise InputError("empty_input", "the second's batches", "they end early.")
        ranks.summed(torch.ones(1))

    together(2, work)


def by_torchrun(asked: dict[str, Any]) -> str:
    """torchrun starts the processes, each of which runs this file; what the first one printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, "--master-port", "29411", __file__, asked["recipe"]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr)[-3000:]


if __name__ == "__main__":
    import json

    ranks = torchrun()
    answer = shared(Recipe.from_record(json.loads(sys.argv[1])), ranks)
    if ranks.first:
        sys.stdout.write(f"weights {sha256_hex(answer['weights'])}\n")
