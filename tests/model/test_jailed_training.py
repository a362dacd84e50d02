"""Training runs in the jail: the same bits as without, no way out from it or its loaders, and a line before it starts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataset.centers import center_with, fleet
from jail.layers import without
from onshore.clip import cut
from onshore.core.errors import InputError, RefusedError
from onshore.dataset import Perturb, batches, freeze, load_windows
from onshore.flywheel import training
from onshore.jail import child
from onshore.model import Nano, Recipe
from onshore.model.jailed import window_spec
from onshore.model.models import train
from onshore.model.training import fit, made_ahead
from onshore.model.weights import parse, to_bytes
from onshore.store import Center

QUICK = Recipe(
    name="quick", trainable=Nano(channels=(8, 8, 16, 16, 16), hidden=32, frame_offsets_s=(0.4, 0.0)), steps=6, batch=8
)
#: A network of somebody else: when it is built it tries every way out, in its process and in two loader workers.
HOSTILE = """
import json
from dataclasses import dataclass
import torch
from torch.utils.data import DataLoader, Dataset
from jail.prisoners import attempt, outside_write
from onshore.core.errors import InputError
from onshore.model import Nano


class Tries(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return json.dumps([{**attempt(None), **outside_write(None)}, torch.zeros(2).tolist()])


@dataclass(frozen=True, kw_only=True)
class Hostile(Nano):
    def build(self):
        loader = DataLoader(Tries(), batch_size=1, num_workers=2)
        tried = [{**attempt(None), **outside_write(None)}, *(json.loads(row[0])[0] for row in loader)]
        raise InputError("bad_config", "tried", json.dumps(tried))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str]:
    center = center_with(tmp_path_factory.mktemp("jailed"), fleet(3))
    cut(center)
    return center, freeze(center, "first", held_out=0.4).id


def jail_lines(center: Center) -> list[dict[str, Any]]:
    return [entry.body for entry in center.ledger.entries() if entry.kind == "jail"]


def test_the_jailed_weights_are_those_of_the_same_training_without_a_jail(place: tuple[Center, str]) -> None:
    center, dataset = place
    row = train(center, dataset, QUICK)
    windows = load_windows(center, dataset, window_spec(QUICK), "train")
    drawn = batches(windows, batch=QUICK.batch, steps=QUICK.steps, seed=QUICK.seed, perturb=Perturb())
    assert to_bytes(fit(QUICK, made_ahead(drawn)).network) == center.read(row.id)


def test_two_processes_in_the_jail_train_what_one_does(place: tuple[Center, str]) -> None:
    """A batch in two parts, taken by one process or by one each: the same sample log, and weights equal to rounding."""
    center, dataset = place
    one = train(center, dataset, replace(QUICK, accumulate=2))
    two = train(center, dataset, replace(QUICK, accumulate=2, processes=2))
    assert one.sample_log == two.sample_log and one.log == two.log
    states = [parse(center.read(row.id)) for row in (one, two)]
    assert max(float((states[0][n].double() - states[1][n].double()).abs().max()) for n in states[0]) <= 1e-6


def test_live_figures_go_into_a_file_in_region_and_nowhere_else(place: tuple[Center, str], tmp_path: Path) -> None:
    center, dataset = place
    with pytest.raises(RefusedError, match="not_in_region"):
        training.train(center, "nano-tiny", dataset, metrics=tmp_path / "elsewhere" / "live.jsonl")
    path = center.root / "live" / "live.jsonl"
    row = training.train(center, "nano-tiny", dataset, metrics=path)
    told = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    assert [one["step"] for one in told] == [row["steps"]] and told[-1]["path_loss"] == row["path_loss"]
    assert 0 <= told[-1]["loader_share"] <= 1


def test_its_attestation_is_in_the_ledger_before_the_work_starts(place: tuple[Center, str]) -> None:
    center, dataset = place
    before = len(jail_lines(center))

    def stopped(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(center, dataset, Recipe(name="stopped", trainable=QUICK.trainable, steps=60, batch=8), progress=stopped)
    lines = jail_lines(center)
    assert len(lines) == before + 1 and lines[-1]["work"] == "training" and lines[-1]["refused"] is False
    assert lines[-1]["trust"] == "self-attested" and set(lines[-1]["probes"].values()) == {"closed"}


def test_no_way_out_of_training_nor_of_its_loader_workers(
    place: tuple[Center, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network from another package, as a package declares it, run by `train` itself."""
    center, dataset = place
    facts = tmp_path / "hostile_net-1.dist-info"
    facts.mkdir()
    (tmp_path / "hostile_net.py").write_text(HOSTILE, encoding="utf8")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile-net\nVersion: 1\n", encoding="utf8")
    (facts / "entry_points.txt").write_text("[onshore.trainables]\nh = hostile_net:Hostile\n", encoding="utf8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import hostile_net  # type: ignore[import-not-found]

    recipe = Recipe(name="hostile", trainable=hostile_net.Hostile(frame_offsets_s=(0.4, 0.0)), steps=6, batch=8)
    with pytest.raises(InputError) as caught:
        train(center, dataset, recipe)
    assert caught.value.subject == "tried", caught.value
    tried = json.loads(caught.value.advice)
    assert len(tried) == 3  # the process itself and two loader workers
    for found in tried:
        assert {"connect", "datagram", "dns", "vsock", "packet", "outside_write"} <= set(found)
        assert {name: text for name, text in found.items() if not text.startswith("closed")} == {}


def test_46_a_jail_that_finds_a_way_out_refuses_to_train(
    place: tuple[Center, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    center, dataset = place
    if os.getuid() != 0:
        pytest.skip("a fence is taken away by root alone")
    monkeypatch.setattr(child, "__file__", without(tmp_path, "landlock"))
    models = len(center.artifacts(kind="weights"))
    with pytest.raises(RefusedError, match=r"jail_unavailable.*outside_write is open"):
        train(center, dataset, Recipe(name="open", trainable=QUICK.trainable, steps=6, batch=8))
    assert len(center.artifacts(kind="weights")) == models and jail_lines(center)[-1]["refused"] is True
