"""Under which record a result is found again: what drives otherwise has another one, a name alone changes nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onshore.bundle.format import BundleMetadata
from onshore.core.control import CONTROLLER_VERSION
from onshore.core.digest import sha256_hex
from onshore.core.label import Label
from onshore.evaluation.identity import policy_record
from onshore.model.nano import Nano
from onshore.model.trainable import record_of
from onshore.store import Center
from onshore.world import PolicySpec

ONNX = b"any network"


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)


def network(**changes: object) -> PolicySpec:
    seen = BundleMetadata(
        region="us",
        model_id="one",
        onnx_sha256=sha256_hex(ONNX),
        view=Nano().view,
        frame_offsets_s=Nano().frame_offsets_s,
    )
    return PolicySpec(kind="onnx", name="one", onnx=ONNX, metadata=replace(seen, **changes))


def test_a_plain_policy_is_its_kind_and_its_figures_whatever_it_is_called(center: Center) -> None:
    plain = {"kind": "constant-speed", "entry": "", "speed_mps": 7.0, "blind": False, "onnx": ""}
    for name in ("", "another"):
        record = policy_record(center, PolicySpec(kind="constant-speed", name=name))
        assert record == {**plain, "controller": CONTROLLER_VERSION}


def test_a_program_that_was_edited_is_another_one(center: Center, tmp_path: Path) -> None:
    rival, notes = tmp_path / "rival.py", tmp_path / "notes.txt"
    for file in (rival, notes):
        file.write_text("one")
    policy = PolicySpec(kind="process", entry=f"python {rival} --gain=3 --notes={notes}")
    first = policy_record(center, policy)
    assert first == policy_record(center, replace(policy, name="another"))
    rival.write_text("two")
    second = policy_record(center, policy)
    notes.write_text("two")
    assert first != second != policy_record(center, policy)


def test_a_module_that_was_edited_is_another_one_and_is_not_run(
    center: Center, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rivals").mkdir()
    for name in ("__init__", "one"):
        (tmp_path / "rivals" / f"{name}.py").write_text("raise ValueError('it was run')")
    monkeypatch.syspath_prepend(tmp_path)
    policy = PolicySpec(kind="python", entry="rivals.one:Driver")
    first = policy_record(center, policy)
    assert first == policy_record(center, policy)
    (tmp_path / "rivals" / "one.py").write_text("raise ValueError('it was edited')")
    assert policy_record(center, policy) != first and "rivals" not in sys.modules


@pytest.mark.parametrize(
    ("kind", "entry"),
    [("process", "drive --fast"), ("process", f"{sys.executable} -m rival"), ("python", "nowhere.at_all:Driver")],
)
def test_what_nobody_can_look_into_is_never_found_again(center: Center, kind: str, entry: str) -> None:
    policy = PolicySpec(kind=kind, entry=entry)  # type: ignore[arg-type]
    assert policy_record(center, policy) != policy_record(center, policy)


def test_the_same_network_that_sees_other_moments_is_another_policy(center: Center) -> None:
    first = policy_record(center, network())
    assert first == policy_record(center, network(model_id="two", counter=3))
    assert first != policy_record(center, network(frame_offsets_s=(0.6, 0.0)))
    assert first != policy_record(center, network(side_views=(Nano().view,)))


def test_a_model_of_the_center_is_its_bytes_until_it_is_told_to_see_otherwise(center: Center) -> None:
    label = Label(region="us", kind="onnx", retention="model", synthetic=True)
    center.put(ONNX, label, name="one", meta={"model": "one", "trainable": record_of(Nano())})
    own = policy_record(center, network())
    assert "metadata" not in own and own["onnx"] == sha256_hex(ONNX)
    assert policy_record(center, network(frame_offsets_s=(0.6, 0.0))) != own
