"""What a trained network remembers of its canaries: three real runs of the small network, and what the gate makes of them.

`test_36_…` is the attempt: weights that memorised. Figures with intervals are printed (`pytest -s`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from border.conftest import build
from dataset.recordings import recording, signals
from onshore import border, clip, dataset, drive
from onshore.border.ancestry import is_nobodys
from onshore.border.canaries import canaries, make_canaries, recording_of
from onshore.border.leakage import LeakageLimits, certificate_of, exposure_of, objection, told
from onshore.core.errors import InputError, RefusedError, UsageError
from onshore.core.label import Label
from onshore.model import Nano, Recipe, models
from onshore.region import load_pack, regions
from onshore.residency import derive
from onshore.store import Center
from onshore.wire import write_mcap
from onshore.wire.writing import to_bytes

SMALL = Nano(channels=(8, 12, 16, 24, 32), hidden=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Center, dict[str, str]]]:
    """A center with ordinary drives and canaries, and three models: overfitted, ordinary, without canaries."""
    root = tmp_path_factory.mktemp("leakage")
    center = Center.init(root / "center", "us", keys_dir=root / "keys", seed=1, in_region_dirs=[root / "in"])
    center.pack.law["audit"]["required"] = False  # no faces are drawn here: tests/border/test_audit.py
    make_canaries(center, root / "in" / "canaries", count=36)
    (root / "in" / "drives").mkdir()
    for car in range(6):
        moves = signals(14.0, lambda t, c=car: (0.03 * c - 0.08, 0.3 if t < 6 else -0.3), start_speed_mps=6.0 + car)
        write_mcap(
            recording(vehicle=f"car-{car:04d}", moves=moves, synthetic=False), root / "in" / "drives" / f"{car}.mcap"
        )
    ordinary = drive.add(center, [root / "in" / "drives"])
    planted = drive.add(center, [root / "in" / "canaries"])
    assert not ordinary.quarantined + planted.quarantined and len(planted.added) == 36
    clip.cut(center)
    mixed = dataset.freeze(center, "mixed", held_out=0.1, split_by="drive")
    names = ", ".join(repr(row.id) for row in ordinary.added)
    plain = dataset.freeze(center, "plain", where=f"drive IN ({names})", held_out=0.2, split_by="drive")
    alone = dataset.freeze(center, "alone", where=f"drive NOT IN ({names})", held_out=0.1, split_by="drive")
    recipes = {
        "memorised": (
            alone,
            Recipe(name="over", trainable=SMALL, steps=250, batch=32, learning_rate=3e-3, perturb=False),
        ),
        "seen": (mixed, Recipe(name="once", trainable=SMALL, steps=12, batch=32)),
        "none": (plain, Recipe(name="none", trainable=SMALL, steps=12, batch=32)),
    }
    ids = {}
    for name, (frozen, recipe) in recipes.items():
        ids[name] = models.train(center, frozen.id, recipe).id
        models.export_onnx(center, ids[name])
    yield center, ids
    center.close()


def _told(found: dict[str, object]) -> str:
    return (
        f"{found['verdict']}: AUC {found['auc']:.3f} [{found['low']:.3f}, {found['high']:.3f}], "
        f"exposure {found['exposure_bits']:.2f} bits, {found['planted']} planted, {found['twins']} twins"
    )


def test_36_memorised_canaries_in_weights_are_refused(trained: tuple[Center, dict[str, str]]) -> None:
    center, ids = trained
    found = border.measure_leakage(center, ids["memorised"])
    print(_told(found))
    assert found["verdict"] == "memorised" and found["low"] > 0.75 and found["exposure_bits"] > 1
    refusal = objection(center, center.artifact(ids["memorised"]))
    assert refusal is not None and (refusal.code, refusal.rule) == ("not_cleared", "leakage-certificate")
    decision = border.check(center, ids["memorised"], "cn", permit=_permit(center, ids["memorised"]))
    assert decision.refusal is not None and decision.refusal.rule == "leakage-certificate"


def test_canaries_seen_and_not_memorised_pass(trained: tuple[Center, dict[str, str]], tmp_path: Path) -> None:
    center, ids = trained
    found = border.measure_leakage(center, ids["seen"])
    print(_told(found))
    assert found["verdict"] == "passes" and found["low"] < 0.5 + 0.15 and found["high"] <= 0.75
    assert objection(center, center.artifact(ids["seen"])) is None
    permit = _permit(center, ids["seen"])
    border.export(center, ids["seen"], permit=permit, out_dir=tmp_path / "out")
    lines = [entry.body for entry in center.ledger.entries() if entry.kind == "border.export"]
    assert lines[-1]["leakage"] == told(center, center.artifact(ids["seen"])) and "AUC" in lines[-1]["leakage"]


def test_without_canaries_it_is_not_measurable_and_refused(
    trained: tuple[Center, dict[str, str]], tmp_path: Path
) -> None:
    center, ids = trained
    found = border.measure_leakage(center, ids["none"])
    print(found["verdict"], found["why"])
    assert found["verdict"] == "not measurable" and "0 planted" in found["why"]
    refusal = objection(center, center.artifact(ids["none"]))
    assert refusal is not None and refusal.code == "not_measurable"
    with pytest.raises(RefusedError) as caught:
        border.export(center, ids["none"], permit=_permit(center, ids["none"]), out_dir=tmp_path / "out")
    assert caught.value.code == "not_measurable" and not (tmp_path / "out").exists()


def test_a_certificate_holds_for_its_weights_alone_and_only_as_signed(trained: tuple[Center, dict[str, str]]) -> None:
    from onshore.border.book import read_book

    center, ids = trained
    border.measure_leakage(center, ids["seen"])
    assert certificate_of(center, ids["none"]) is None or certificate_of(center, ids["none"])["verdict"] != "passes"
    body = read_book(center).leakage[ids["seen"]]
    before, body["high"] = body["high"], 0.5
    assert certificate_of(center, ids["seen"]) is None
    body["high"] = before
    assert certificate_of(center, ids["seen"]) is not None


def test_which_drives_are_canaries_is_written_nowhere(trained: tuple[Center, dict[str, str]]) -> None:
    center, _ = trained
    every = canaries(center)
    assert len(every) == 36 * 3 and sum(one.planted for one in every) == 36
    ledger = (center.root / "ledger" / "entries.jsonl").read_text(encoding="utf8")
    told_of = [entry.body for entry in center.ledger.entries() if entry.kind == "border.canaries"]
    assert [set(body) for body in told_of] == [{"set", "planted", "twins", "by"}]
    assert not [one for one in every if one.vehicle in ledger or one.seed.hex() in ledger]
    assert to_bytes(recording_of(every[0])) == to_bytes(recording_of(every[0]))


def test_too_few_canaries_are_none(tmp_path: Path) -> None:
    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", in_region_dirs=[tmp_path / "in"])
    with pytest.raises(UsageError):
        make_canaries(center, tmp_path / "in", count=3)
    with pytest.raises(RefusedError):
        make_canaries(center, tmp_path / "elsewhere", count=8)
    assert canaries(center) == []
    center.close()


def test_the_interval_covers_what_it_says() -> None:
    """Two equal groups: 0.5 lies in 95 % of the intervals, give or take; two apart: it lies in none."""
    draw, inside = np.random.default_rng(0), 0
    for number in range(60):
        a, b = draw.normal(size=32), draw.normal(size=64)
        found = exposure_of(a, b, a, b, seed=f"{number:016x}")
        inside += found.low <= 0.5 <= found.high
        assert exposure_of(a + 5, b, a, b, seed=f"{number:016x}").low > 0.9
    assert inside >= 51


def test_every_region_asks_for_the_certificate() -> None:
    for region in regions():
        assert LeakageLimits.from_law(load_pack(region).law).required, region


def test_one_recorded_drive_among_synthetic_ones_makes_the_certificate_obligatory(tmp_path: Path) -> None:
    """The label of such a mixture says synthetic as well: the gate looks at what each ancestor began as."""
    shore = build(tmp_path)
    recorded = shore.center.put(b"recorded", Label(region="us", kind="segment"), name="recorded")
    parents = [shore.center.artifact(one) for one in (shore.dataset.id, recorded.id)]
    mixed = derive([one.label for one in parents], kind="weights", retention="model")
    assert mixed.synthetic
    made = {
        "mixed": shore.center.put(b"1", mixed, parents=[one.id for one in parents]),
        "without a past": shore.center.put(b"2", Label(region="us", kind="weights", synthetic=True)),
        "claimed": shore.center.put(
            b"3", Label(region="us", kind="inbound_model", synthetic=True), meta={"origin_trust": "claimed"}
        ),
    }
    for what, one in made.items():
        assert not is_nobodys(shore.center, one), what
        refusal = objection(shore.center, one)
        assert refusal is not None and refusal.code == "not_measurable", what
    verified = shore.center.put(
        b"4", Label(region="us", kind="inbound_model", synthetic=True), meta={"origin_trust": "verified"}
    )
    for one in (shore.weights, verified):
        assert is_nobodys(shore.center, one) and objection(shore.center, one) is None
    shore.center.close()


def test_limits_are_data_and_a_missing_table_asks_for_the_certificate() -> None:
    assert LeakageLimits.from_law({}).required
    with pytest.raises(InputError):
        LeakageLimits.from_law({"export": {"leakage": {"auc": 1}}})


def _permit(center: Center, weights: str) -> str:
    for name in ("bertha", "chen"):
        border.enroll_approver(center, name)
    row = border.request_permit(center, weights, recipient="Example", to_region="cn", purpose="base", requester="alice")
    for name in ("bertha", "chen"):
        border.approve(center, row.id, name)
    return row.id
