"""A training that is killed goes on from its last checkpoint to the same bits: weights, sample log, digests."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dataset.centers import center_with, fleet
from model.batches import bright_side
from onshore.border.erasure import erase
from onshore.clip import cut
from onshore.core.errors import InputError, OnshoreError
from onshore.dataset import freeze
from onshore.model import Nano, Recipe
from onshore.model.checkpoint import Checkpoint, Shelf
from onshore.model.models import train
from onshore.model.temporal import Temporal
from onshore.model.training import Fit, fit
from onshore.model.weights import to_bytes
from onshore.region import load_pack
from onshore.residency import Request, Rules
from onshore.store import Center, custody

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)
QUICK = Recipe(name="quick", trainable=SMALL, steps=60, batch=8, ema=0.9, jitter=0.2)
TWO_FRAMES = Temporal(channels=(8, 8, 8), feature=8, hidden=8, view=SMALL.view, frame_offsets_s=SMALL.frame_offsets_s)
#: Trains in a process of its own, which ends itself with SIGKILL at a named point.
CHILD = """
import os, sys
from model.test_resume import QUICK, replace
from onshore.model import checkpoint, models
from onshore.store import Center
root, dataset, point = sys.argv[1:4]
def end(*_, **__):
    os.kill(os.getpid(), 9)
if point == "between":  # the new checkpoint is there, and the old one still
    put, seen = checkpoint.Shelf.put, []
    def puts(shelf, data, step):
        seen.append(step)
        if len(seen) == 3:
            checkpoint.custody.destroy = end
        put(shelf, data, step)
    checkpoint.Shelf.put = puts
if point == "before any":
    checkpoint.Shelf.put = end
if point == "done":  # the run is recorded, its checkpoint still there
    checkpoint.Shelf.clear = end
def told(what, done, total):
    print(what, done, flush=True)
steps = int(sys.argv[4])
row = models.train(Center.open(root), dataset, QUICK if steps == QUICK.steps else replace(QUICK, steps=steps), checkpoint_steps=5, progress=told)
"""


def whole_and_resumed(recipe: Recipe, steps: int) -> tuple[Fit, Fit]:
    """The same training undisturbed, and gone on with after `steps` from a checkpoint's bytes."""
    kept: list[bytes] = []
    every = {"keep": lambda checkpoint: kept.append(checkpoint.to_bytes()), "every": steps}
    whole = fit(recipe, bright_side(recipe.steps, batch=recipe.batch), **every)  # type: ignore[arg-type]
    since = Checkpoint.from_bytes(kept[0])
    assert since.step == steps and len(kept) == (recipe.steps - 1) // steps
    rest = list(bright_side(recipe.steps, batch=recipe.batch))[steps:]
    return whole, fit(recipe, rest, since=since)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.0, "jitter": 0.0},
        {"accumulate": 4},
        {"trainable": TWO_FRAMES, "accumulate": 2},
        {"steps": 70, "batch": 4},
    ],
)
def test_a_resumed_run_gives_the_same_bits(changes: dict[str, Any]) -> None:
    whole, resumed = whole_and_resumed(replace(QUICK, **{"steps": 30, **changes}), 13)
    assert to_bytes(resumed.network) == to_bytes(whole.network)
    assert resumed.log == whole.log and resumed.probe == whole.probe


def test_what_a_network_draws_by_itself_goes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of somebody else with dropout: torch's own random numbers are part of a checkpoint."""
    build = Nano.build
    monkeypatch.setattr(Nano, "build", lambda self: _with_dropout(build(self)))
    whole, resumed = whole_and_resumed(replace(QUICK, steps=16), 7)
    assert to_bytes(resumed.network) == to_bytes(whole.network)


def _with_dropout(network: Any) -> nn.Module:
    network.cnn.append(nn.Dropout(0.3))
    return network  # type: ignore[no-any-return]


def test_a_checkpoint_of_another_network_is_refused() -> None:
    kept: list[Checkpoint] = []
    fit(replace(QUICK, steps=6), bright_side(6, batch=8), keep=kept.append, every=3)
    other = replace(QUICK, steps=6, trainable=replace(SMALL, hidden=16))
    with pytest.raises(InputError, match="not one of this recipe"):
        fit(other, bright_side(3, batch=8), since=kept[0])
    with pytest.raises(OnshoreError):
        Checkpoint.from_bytes(kept[0].to_bytes()[:-4])


class Still(Nano):
    """nano without batch statistics: what a sample teaches does not depend on which others are beside it."""

    def build(self) -> nn.Module:
        network = super().build()
        for at, layer in enumerate(network.cnn):  # type: ignore[arg-type]
            if isinstance(layer, nn.BatchNorm2d):
                network.cnn[at] = nn.Identity()  # type: ignore[index,operator]
        return network


def test_a_batch_in_parts_teaches_what_the_whole_batch_does() -> None:
    still = Still(channels=SMALL.channels, hidden=SMALL.hidden)
    recipe = replace(QUICK, steps=4, trainable=still, ema=0.0)
    whole, parts = (fit(replace(recipe, accumulate=n), bright_side(4, batch=8)).network for n in (1, 4))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)
    with pytest.raises(InputError, match="divide"):
        replace(QUICK, accumulate=3)


def test_running_statistics_of_parts_are_their_mean() -> None:
    recipe = replace(QUICK, steps=4, ema=0.0, learning_rate=1e-9)
    whole, parts = (fit(replace(recipe, accumulate=n), bright_side(4, batch=8)).network for n in (1, 4))
    first = "cnn.1.running_mean"
    assert torch.allclose(whole.state_dict()[first], parts.state_dict()[first], atol=1e-5)
    counted = "cnn.1.num_batches_tracked"
    assert whole.state_dict()[counted] == parts.state_dict()[counted] == 4


def test_recipes_without_the_newer_settings_keep_their_digest() -> None:
    assert Recipe(name="quick").digest == "3863ea0b140f74cdc33dc30b4c5951e2a26847d3b9cb21a96ff74404009b81dd"
    assert "accumulate" not in QUICK.as_record() and replace(QUICK, accumulate=2).digest != QUICK.digest
    assert Recipe.from_record(replace(QUICK, accumulate=2, compile=True).as_record()).accumulate == 2


# -- in a center -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    center = center_with(tmp_path_factory.mktemp("resume"), fleet(3))
    cut(center)
    return center, freeze(center, "first", held_out=0.4).id


@pytest.fixture(scope="module")
def undisturbed(place: tuple[Center, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    center, dataset = copied(place, tmp_path_factory.mktemp("whole"))
    row = train(center, dataset, QUICK, checkpoint_steps=0)
    return facts_of(center, row.id)


def copied(place: tuple[Center, str], folder: Path) -> tuple[Center, str]:
    """The center and its keys as they were before any training, in a folder of their own."""
    for name in ("center", "keys"):
        shutil.copytree(place[0].root.parent / name, folder / name)
    config = folder / "center" / "center.toml"
    config.write_text(
        config.read_text(encoding="utf8").replace(str(place[0].root.parent), str(folder)), encoding="utf8"
    )
    return Center.open(folder / "center"), place[1]


def facts_of(center: Center, model: str) -> dict[str, Any]:
    """Everything that a model is, but the times that were measured."""
    one = center.artifact(model)
    return {"id": one.id, "parents": one.parents, "meta": one.meta, "label": one.label, "bytes": center.read(one.id)}


def started(root: Path, dataset: str, point: str, steps: int = QUICK.steps) -> subprocess.Popen[str]:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", CHILD, str(root), dataset, point, str(steps)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )


def checkpoints(center: Center) -> list[int]:
    return [one.meta["step"] for one in center.artifacts(kind="checkpoint")]


def test_kill_nine_in_the_middle_and_the_same_train_goes_on(
    place: tuple[Center, str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Killed while one checkpoint replaces another, the newer one damaged since, and killed again before the last word."""
    center, dataset = copied(place, tmp_path)
    for point, left in (("between", [10, 15]), ("done", [55])):
        process = started(center.root, dataset, point)
        process.communicate(timeout=400)
        assert process.returncode == -signal.SIGKILL
        assert checkpoints(center) == left
        damage(center, center.artifacts(kind="checkpoint")[-1].id)
    row = train(center, dataset, QUICK)
    assert not row.fresh and checkpoints(center) == []
    assert facts_of(center, row.id) == undisturbed


def damage(center: Center, artifact: str) -> None:
    path = center._path(artifact)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_is_sealed_labelled_and_never_leaves(place: tuple[Center, str], tmp_path: Path) -> None:
    center, dataset = copied(place, tmp_path)
    seen: list[bytes] = []
    original = Shelf.put

    def stopped(shelf: Shelf, data: bytes, step: int) -> None:
        original(shelf, data, step)
        seen.append(data)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Shelf, "put", stopped)
        train(center, dataset, QUICK, checkpoint_steps=5)
    (one,) = center.artifacts(kind="checkpoint")
    parent = center.artifact(one.parents[0])
    assert one.label.subjects == parent.label.subjects and one.label.derived_from_raw == parent.label.derived_from_raw
    assert center.read(one.id) == seen[0]
    needle = seen[0][-64:]  # the last weights, as they would lie in a file that was not sealed
    assert not any(needle in path.read_bytes() for path in center.root.rglob("*") if path.is_file())
    for region in ("cn", "us", "eu"):
        label = replace(one.label, region=region)
        asked = Request(action="export", label=label, region=region, actor="a", role="engineer", artifact=one.id)
        assert Rules.from_pack(load_pack(region)).decide(asked) is not None
    erase(center, sorted(one.label.subjects)[0])
    assert one.id in custody.tombstones(center) and not center.has_bytes(one.id)


@pytest.mark.slow
def test_kill_nine_at_twenty_random_moments_changes_no_bit(place: tuple[Center, str], tmp_path: Path) -> None:
    """Real kills from outside, by the clock: while it starts, learns, hands a checkpoint over, stores it, ends."""
    steps, kills = 600, 20
    whole, dataset = copied(place, tmp_path / "whole")
    began = time.monotonic()
    process = started(whole.root, dataset, "", steps)
    out, _ = process.communicate(timeout=3000)
    took = time.monotonic() - began
    assert process.returncode == 0 and f"training steps {steps}" in out
    (model,) = whole.artifacts(kind="weights")
    moments, behind, killed = random.Random(7), [], 0
    center, _ = copied(place, tmp_path / "killed-0")
    while killed < kills:
        process = started(center.root, dataset, "", steps)
        try:
            process.communicate(timeout=moments.uniform(0.3, 0.9) * took)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        made = center.artifacts(kind="weights")
        behind.append(steps if made else max(checkpoints(center), default=0))
        if made:  # killed often enough to be through: begin again, elsewhere
            assert facts_of(center, made[0].id) == facts_of(whole, model.id)
            center, _ = copied(place, tmp_path / f"killed-{len(behind)}")
    sys.stdout.write(f"{killed} kills; steps behind after each run: {behind}\n")
    final = started(center.root, dataset, "", steps)
    final.communicate(timeout=3000)
    (again,) = center.artifacts(kind="weights")
    assert facts_of(center, again.id) == facts_of(whole, model.id) and max(behind) > 0
