"""Training learns what can be learned, and gives the same bits for the same seed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batches import ArrayBatch, bright_side
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M
from onshore.model import Nano, Recipe
from onshore.model.training import augment, fit, made_ahead, reproducible, tensors
from onshore.model.weights import to_bytes

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)
QUICK = Recipe(name="quick", trainable=SMALL, steps=120, batch=16, learning_rate=3e-3)


def test_it_learns_path_and_speed() -> None:
    reports: list[tuple[int, int]] = []
    enough = replace(QUICK, steps=300)  # other processors round otherwise: 120 steps are enough for most of them only
    result = fit(enough, bright_side(300), progress=lambda what, done, total: reports.append((done, total)))
    test = tensors(next(bright_side(1, batch=64, seed=9)))
    with torch.no_grad():
        path, speed = result.network(test.frames_BTCHW, test.side_B9)
    assert ((path[:, 5, 1] > 0) == (test.path_BK2[:, 5, 1] > 0)).float().mean() > 0.9
    assert (speed - test.speed_BS).abs().mean() < 1.5
    assert result.log[-1][1] < result.log[0][1] and reports[-1] == (300, 300)
    assert result.samples_per_s > 0


def test_it_tells_how_it_goes_while_it_goes() -> None:
    told: list[dict[str, float]] = []
    result = fit(QUICK, bright_side(120), tell=told.append)
    assert [row["step"] for row in told] == [50, 100, 120]
    assert [[row[name] for name in ("step", "path_loss", "speed_loss_mps")] for row in told] == result.log
    assert all(row["samples_per_s"] > 0 and 0 <= row["loader_share"] <= 1 for row in told)
    assert told[-1]["learning_rate"] < told[0]["learning_rate"] and 0 <= result.loader_share <= 1


def test_the_same_seed_gives_the_same_bits_in_another_process() -> None:
    code = (
        "from model.test_training import QUICK, fit, bright_side, to_bytes, replace; import hashlib; "
        "print(hashlib.sha256(to_bytes(fit(replace(QUICK, steps=8, ema=0.9, jitter=0.2),"
        " bright_side(8)).network)).hexdigest())"
    )
    digests = {subprocess.run([sys.executable, "-c", code], **_here()).stdout for _ in range(2)}  # type: ignore[call-overload]
    assert len(digests) == 1 and len(digests.pop()) == 65


def test_another_seed_gives_other_bits() -> None:
    first, second = (to_bytes(fit(replace(QUICK, steps=4, seed=seed), bright_side(4)).network) for seed in (0, 1))
    assert first != second


def test_training_leaves_torch_as_it_was() -> None:
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with reproducible(1):
        assert torch.get_num_threads() == 1
        torch.rand(3)
    assert torch.equal(before, torch.random.get_rng_state()) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_adaptation_starts_from_its_base() -> None:
    base = fit(QUICK, bright_side(120)).network
    adapted = fit(replace(QUICK, steps=4, learning_rate=1e-5), bright_side(4), network=base)
    fresh = fit(replace(QUICK, steps=4, learning_rate=1e-5), bright_side(4))
    assert adapted.log[-1][1] < fresh.log[-1][1] / 2


def test_unknown_values_teach_nothing() -> None:
    """Where the mask is 0, the number behind it changes nothing."""
    (batch,) = bright_side(1)
    mask = np.ones_like(batch.path_mask_BK)
    mask[:, 4:] = 0
    wild = replace(batch, path_mask_BK=mask, path_BK2=np.where(mask[..., None] > 0, batch.path_BK2, 1e6))
    plain = replace(batch, path_mask_BK=mask)
    with reproducible(0):
        network = SMALL.build()
    assert torch.equal(SMALL.loss(network, tensors(wild))["loss"], SMALL.loss(network, tensors(plain))["loss"])


def test_without_a_command_the_mean_of_the_heads_speaks() -> None:
    with reproducible(0):
        network = SMALL.build().eval()
    frames = tensors(next(bright_side(1))).frames_BTCHW[:1].repeat(4, 1, 1, 1, 1)
    side = torch.zeros(4, 9)
    side[1, 2] = side[2, 3] = side[3, 4] = 1
    with torch.no_grad():
        state = network.head.told(torch.zeros(1, 9))
        path, _ = network(frames, side)
    assert state.shape == (1, 32) and path.shape == (4, len(PATH_ARCS_M), 2)
    network.head.told[0].weight.data[:, 2:5] = 0  # the command now only chooses the head
    with torch.no_grad():
        path, _ = network(frames, side)
    assert torch.allclose(path[0], path[1:].mean(0), atol=1e-5) and not torch.allclose(path[1], path[2])


def test_speed_is_hidden_in_the_share_asked_for() -> None:
    batch = tensors(next(bright_side(1, batch=400)))
    hidden = augment(batch, replace(QUICK, speed_drop=0.3), torch.Generator().manual_seed(0)).side_B9
    share = float((hidden[:, 1] == 0).float().mean())
    assert 0.22 < share < 0.38 and torch.equal(hidden[:, 0] == 0, hidden[:, 1] == 0)
    assert torch.equal(batch.side_B9[:, 1], torch.ones(400))


def test_jitter_keeps_pictures_in_range_and_changes_both_frames_alike() -> None:
    batch = tensors(next(bright_side(1)))
    frames = augment(batch, replace(QUICK, jitter=0.5), torch.Generator().manual_seed(0)).frames_BTCHW
    assert frames.min() >= 0 and frames.max() <= 255
    same = batch.frames_BTCHW[:, :1].repeat(1, 2, 1, 1, 1)
    twice = augment(replace(batch, frames_BTCHW=same), replace(QUICK, jitter=0.5), torch.Generator().manual_seed(0))
    assert torch.equal(twice.frames_BTCHW[:, 0], twice.frames_BTCHW[:, 1])


def test_the_average_of_weights_is_not_the_last_weights() -> None:
    last, mean = (to_bytes(fit(replace(QUICK, steps=8, ema=ema), bright_side(8)).network) for ema in (0.0, 0.9))
    assert last != mean


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    plain, ahead = list(bright_side(7)), list(made_ahead(bright_side(7)))
    assert len(ahead) == 7
    assert all((a.frames_BTCHW == b.frames_BTCHW).all() for a, b in zip(plain, ahead, strict=True))
    assert list(made_ahead(iter(()))) == []


def test_an_error_while_making_a_batch_arrives_and_stopping_early_ends_the_thread() -> None:
    def broken() -> Iterator[ArrayBatch]:
        yield from bright_side(2)
        raise InputError("empty_input", "batch 2", "nothing is left.")

    with pytest.raises(InputError, match="nothing is left"):
        list(made_ahead(broken()))
    threads = threading.active_count()
    started = made_ahead(bright_side(50))
    next(started)
    started.close()
    assert threading.active_count() == threads


def test_too_few_batches_and_a_loss_that_explodes_are_errors() -> None:
    with pytest.raises(InputError, match="batch 2"):
        fit(replace(QUICK, steps=4), bright_side(2))
    (batch,) = bright_side(1)
    with pytest.raises(InputError, match="not finite"):
        fit(replace(QUICK, steps=4), [replace(batch, speed_BT=batch.speed_BT * np.float32(np.nan))] * 4)


@pytest.mark.parametrize(
    "changes",
    [{"steps": 0}, {"batch": 0}, {"speed_drop": 2.0}, {"ema": 1.0}, {"name": "Bad Name"}, {"learning_rate": -1.0}],
)
def test_an_impossible_recipe_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(QUICK, **changes)


def test_a_recipe_digest_follows_every_field() -> None:
    digests = {
        replace(QUICK, **c).digest for c in ({}, {"seed": 1}, {"steps": 61}, {"trainable": Nano()}, {"ema": 0.5})
    }
    assert len(digests) == 5
    assert Nano.from_record(SMALL.as_record()) == SMALL


@pytest.mark.parametrize(
    "changes", [{"channels": (1, 2)}, {"hidden": 0}, {"frame_offsets_s": (0.4,)}, {"frame_offsets_s": ()}]
)
def test_an_impossible_network_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(SMALL, **changes)


def _here() -> dict[str, object]:
    import os

    path = os.pathsep.join(p for p in sys.path if p)
    return {"capture_output": True, "text": True, "check": True, "env": {**os.environ, "PYTHONPATH": path}}
