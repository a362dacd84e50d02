"""Updates on real repositories: what verifies is installed, every attack is refused by name, a kill leaves old or new."""

from __future__ import annotations

import json
import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.fleet import EXPIRED, Shop, flip, payload
from bundle.killing import survive
from onshore.bundle.format import LIMITS_BYTES, METADATA, MODEL, VERDICT, Payload
from onshore.bundle.tuf import Lifetimes, ReleaseKeys, rotate
from onshore.car import UpdateResult, provision, status, update
from onshore.car.install import load_running
from onshore.core.digest import canonical_json
from onshore.core.errors import CorruptError, InputError, NotFoundError


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path / "shop")
    made.release(payload(1))
    return made


@pytest.fixture
def car(tmp_path: Path, shop: Shop) -> Path:
    provision(tmp_path / "car-0007", name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, tmp_path / "car-0007").installed
    return tmp_path / "car-0007"


def refused(result: UpdateResult, *codes: str) -> None:
    assert result.outcome == "refused" and result.refusal is not None
    assert result.refusal.code in codes, result.refusal


def drives_on(car: Path, release_id: str) -> None:
    assert status(car).running == release_id
    assert load_running(car).release_id == release_id


def test_a_verified_release_is_installed_and_the_one_before_is_kept(shop: Shop, car: Path) -> None:
    first = payload(1).release_id
    drives_on(car, first)
    written = (car / "state.json").stat().st_mtime_ns
    assert update(shop.repo, car).outcome == "current"
    assert (car / "state.json").stat().st_mtime_ns == written  # asking does not wear the disk
    second = shop.release(payload(2))
    assert update(shop.repo, car) == UpdateResult(
        outcome="installed", running=second, offered=second, road_use="not for the road"
    )
    drives_on(car, second)
    assert status(car).previous == first
    third = shop.release(payload(3))
    assert update(shop.repo, car).running == third
    assert sorted(path.name for path in (car / "slots").iterdir()) == sorted([second, third])


def test_one_flipped_bit_anywhere_in_the_repository_is_refused(shop: Shop, car: Path) -> None:
    shop.release(payload(2))
    rng = random.Random(5)
    for path in shop.files():
        good = path.read_bytes()
        for at in [0, len(good) - 1, *(rng.randrange(len(good)) for _ in range(6))]:
            flip(path, at, rng.randrange(8))
            refused(update(shop.repo, car), "tampered", "bad_signature")
            path.write_bytes(good)
    drives_on(car, payload(1).release_id)
    assert update(shop.repo, car).installed
    for path in shop.files():  # also when the release already runs
        good = path.read_bytes()
        flip(path, rng.randrange(len(good)), rng.randrange(8))
        refused(update(shop.repo, car), "tampered", "bad_signature")
        path.write_bytes(good)
    drives_on(car, payload(2).release_id)


def test_a_flipped_bit_in_a_release_file_is_called_tampered(shop: Shop, car: Path) -> None:
    shop.release(payload(2))
    for path in (shop.repo / "targets").iterdir():
        good = path.read_bytes()
        flip(path, len(good) // 2)
        refused(update(shop.repo, car), "tampered")
        path.write_bytes(good)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 99), at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_single_bit_can_be_flipped_unseen(shop: Shop, car: Path, which: int, at: int, bit: int) -> None:
    path = shop.files()[which % len(shop.files())]
    good = path.read_bytes()
    flip(path, at, bit)
    try:
        refused(update(shop.repo, car), "tampered", "bad_signature")
    finally:
        path.write_bytes(good)


def test_a_missing_file_and_an_empty_folder_are_refused(shop: Shop, car: Path, tmp_path: Path) -> None:
    shop.release(payload(2))
    for path in shop.files():
        if path.name != "1.root.json":  # the car has that one already
            aside = path.rename(tmp_path / "aside")
            refused(update(shop.repo, car), "not_found")
            aside.rename(path)
    refused(update(tmp_path / "nothing", car), "not_found")
    drives_on(car, payload(1).release_id)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_expired_release_is_refused(shop: Shop, car: Path, role: str) -> None:
    shop.release(payload(2), lifetimes=Lifetimes(**{role: timedelta(seconds=-5)}))
    refused(update(shop.repo, car), "expired")
    drives_on(car, payload(1).release_id)
    shop.release(payload(2))
    assert update(shop.repo, car).installed


def test_what_runs_keeps_running_when_its_offer_expires(shop: Shop, car: Path) -> None:
    shop.release(payload(1), lifetimes=EXPIRED)
    refused(update(shop.repo, car), "expired")
    drives_on(car, payload(1).release_id)


def test_a_release_for_another_region_is_refused(shop: Shop, car: Path, tmp_path: Path) -> None:
    refused(update(shop.repo, car, "us"), "wrong_region")
    sister = Shop(tmp_path / "sister", "us")
    sister.keys = shop.keys  # even when the very same keys sign for both
    (sister.keys.folder / "root.json").unlink()
    for counter in (2, 3):
        sister.release(payload(counter, region="us"))
    refused(update(sister.repo, car), "wrong_region")
    other = Shop(tmp_path / "other", "us")
    other.release(payload(9, region="us"))
    refused(update(other.repo, car), "wrong_region")
    drives_on(car, payload(1).release_id)


def test_an_older_release_is_refused(shop: Shop, car: Path) -> None:
    replay = shop.copy("replay")
    second = shop.release(payload(2))
    assert update(shop.repo, car).installed
    refused(update(replay, car), "rollback")
    shop.release(payload(1))  # signed anew, by the right keys
    refused(update(shop.repo, car), "rollback")
    shop.release(payload(2, seed=9))
    refused(update(shop.repo, car), "rollback")
    drives_on(car, second)


def test_another_signer_is_refused(shop: Shop, car: Path, tmp_path: Path) -> None:
    thief = Shop(tmp_path / "thief")
    thief.release(payload(2))
    refused(update(thief.repo, car), "bad_signature")
    drives_on(car, payload(1).release_id)


def test_mixed_metadata_is_refused(shop: Shop, car: Path) -> None:
    old = shop.copy("old")
    shop.release(payload(2))
    for name in ("snapshot", "targets"):
        path = shop.repo / "metadata" / f"2.{name}.json"
        good = path.read_bytes()
        path.write_bytes((old / "metadata" / f"1.{name}.json").read_bytes())
        refused(update(shop.repo, car), "tampered", "rollback")
        path.write_bytes(good)
    assert update(shop.repo, car).installed


def test_a_release_without_a_passing_verdict_is_refused(shop: Shop, car: Path) -> None:
    shop.release(payload(2), passed=False)
    refused(update(shop.repo, car), "gate_failed")
    shop.release(payload(3), payload_digest="0" * 64)
    refused(update(shop.repo, car), "tampered", "gate_failed")
    shop.release(payload(4), counter=7)
    refused(update(shop.repo, car), "tampered")
    drives_on(car, payload(1).release_id)


def test_a_release_for_another_controller_or_a_newer_program_is_refused(shop: Shop, car: Path) -> None:
    shop.release(payload(2, controller="pursuit-99"))
    result = update(shop.repo, car)
    refused(result, "not_allowed")
    assert "pursuit-99" in str(result.refusal)
    made = payload(3)
    newer = canonical_json({**made.metadata.as_record(), "schema_version": 2})
    changed = Payload(files={**made.files, METADATA: newer}, metadata=made.metadata)
    shop.release(changed)
    refused(update(shop.repo, car), "bad_config")
    drives_on(car, payload(1).release_id)


def test_a_file_that_never_ends_is_not_read_to_its_end(shop: Shop, car: Path) -> None:
    shop.release(payload(2))
    for path in (shop.repo / "metadata" / "timestamp.json", next((shop.repo / "targets").glob("*.onnx"))):
        good = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(8 << 30)  # a hole: eight gigabytes that take no room on disk
        refused(update(shop.repo, car), "tampered", "limit_exceeded")
        path.unlink()
        path.write_bytes(good)
    assert update(shop.repo, car).installed


faults = st.sampled_from(["none", "flip", "expired", "another signer", "no verdict", "replay"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 6), faults, st.integers(0, 10**6)), min_size=3, max_size=6))
def test_whatever_is_offered_a_car_never_goes_back_and_always_runs_something_whole(
    tmp_path_factory: pytest.TempPathFactory, offers: list[tuple[int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("story")
    shop, thief, car = Shop(folder / "shop"), Shop(folder / "thief"), folder / "car"
    shop.release(payload(1))
    replays = [shop.copy("replay-0")]
    provision(car, name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, car).installed
    for step, (counter, fault, chance) in enumerate(offers, 1):
        before, repo = status(car), shop.repo
        if fault == "another signer":
            thief.release(payload(counter))
            repo = thief.repo
        elif fault == "replay":
            repo = replays[chance % len(replays)]
        else:
            knobs = {"passed": False} if fault == "no verdict" else {}
            shop.release(payload(counter), lifetimes=EXPIRED if fault == "expired" else None, **knobs)
            if fault == "flip":
                damaged = shop.files()[chance % len(shop.files())]
                good_bytes = damaged.read_bytes()
                flip(damaged, chance)
        result = update(repo, car)
        after = status(car)
        assert after.counter >= before.counter
        assert load_running(car).release_id == after.running == result.running
        good = fault == "none" and counter >= before.counter
        assert result.installed == (good and payload(counter).release_id != before.running) or fault == "replay"
        if fault == "flip":
            damaged.write_bytes(good_bytes)
        replays.append(shop.copy(f"replay-{step}"))


def test_links_and_folders_in_place_of_files_are_not_followed(shop: Shop, car: Path, tmp_path: Path) -> None:
    path = shop.repo / "metadata" / "timestamp.json"
    secret = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(secret)
    refused(update(shop.repo, car), "not_found")
    path.unlink()
    path.mkdir()
    refused(update(shop.repo, car), "not_found")


def test_a_recalled_release_stops_running(shop: Shop, car: Path, tmp_path: Path) -> None:
    first, second = payload(1).release_id, shop.release(payload(2))
    fresh = tmp_path / "car-0008"
    provision(fresh, name="car-0008", region="cn", root=shop.root())
    update(shop.repo, car)
    shop.revoke(payload(2))
    result = update(shop.repo, car)
    refused(result, "not_allowed")
    assert "brakes late" in str(result.refusal)
    drives_on(car, first)
    assert status(car).revoked == (second,)
    refused(update(shop.repo, fresh), "not_allowed")
    assert status(fresh).running is None
    with pytest.raises(NotFoundError, match="no release"):
        load_running(fresh)
    third = shop.release(payload(3), revoked_ids=(first, second))
    assert update(shop.repo, car).running == third
    assert status(car).previous is None


def test_a_recalled_release_is_not_taken_though_it_is_offered_as_one(shop: Shop, car: Path) -> None:
    second = shop.release(payload(2), revoked_ids=(payload(2).release_id,))
    refused(update(shop.repo, car), "not_allowed")
    drives_on(car, payload(1).release_id)
    shop.release(payload(2))  # the repository forgot, the car did not
    refused(update(shop.repo, car), "not_allowed")
    drives_on(car, payload(1).release_id)
    assert status(car).revoked == (second,)


def spoilt(shop: Shop, fault: str, recalled: tuple[str, ...]) -> str:
    """Offer something this car cannot take, and beside it a recall; the code of the refusal."""
    if fault == "bad_config":
        made = payload(3)
        newer = canonical_json({**made.metadata.as_record(), "schema_version": 2})
        shop.release(Payload(files={**made.files, METADATA: newer}, metadata=made.metadata), revoked_ids=recalled)
    elif fault == "rollback":
        shop.release(payload(1), revoked_ids=recalled)
    elif fault == "tampered":
        shop.release(payload(3), revoked_ids=recalled)
        flip(next((shop.repo / "targets").glob("*.onnx")), 100)
    else:
        shop.release(payload(3), revoked_ids=recalled, passed=fault != "gate_failed")
    return fault


@pytest.mark.parametrize("fault", ["gate_failed", "bad_config", "rollback", "tampered", "limit_exceeded"])
def test_a_recall_counts_beside_a_release_that_the_car_cannot_take(
    shop: Shop, car: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = payload(1).release_id, shop.release(payload(2))
    assert update(shop.repo, car).running == second
    code = spoilt(shop, fault, (second,))
    if fault == "limit_exceeded":
        monkeypatch.setitem(LIMITS_BYTES, VERDICT, 10)
    result = update(shop.repo, car)
    refused(result, code)
    assert result.running == first
    drives_on(car, first)
    assert status(car).revoked == (second,)
    written = (car / "state.json").stat().st_mtime_ns
    refused(update(shop.repo, car), code)
    assert (car / "state.json").stat().st_mtime_ns == written


def test_a_recall_counts_beside_a_release_for_another_controller(shop: Shop, car: Path) -> None:
    shop.release(payload(2, controller="pursuit-99"), revoked_ids=(payload(1).release_id,))
    refused(update(shop.repo, car), "not_allowed")
    assert status(car).running is None


def test_a_recall_for_another_region_is_none_here(shop: Shop, car: Path) -> None:
    shop.release(payload(2), revoked_ids=(payload(1).release_id,))
    refused(update(shop.repo, car, "us"), "wrong_region")
    assert status(car).revoked == ()
    drives_on(car, payload(1).release_id)


def test_a_recall_whose_metadata_is_spelt_otherwise_does_not_spoil_what_comes_after(shop: Shop, car: Path) -> None:
    second = shop.release(payload(2), revoked_ids=(payload(1).release_id,))
    path = shop.repo / "metadata" / "timestamp.json"
    good = path.read_bytes()
    signature = json.loads(good)["signatures"][0]["sig"]
    path.write_bytes(good.replace(signature.encode(), signature.upper().encode()))
    refused(update(shop.repo, car), "tampered")
    assert status(car).running is None
    path.write_bytes(good)
    assert update(shop.repo, car).running == second


def test_keys_can_be_rotated_and_old_ones_sign_nothing_any_more(shop: Shop, car: Path, tmp_path: Path) -> None:
    old, shop.keys = shop.keys, ReleaseKeys.open(tmp_path / "new-keys")
    with pytest.raises(CorruptError, match="other keys"):
        shop.release(payload(2))
    assert rotate(shop.repo, old, shop.keys) == 2
    second = shop.release(payload(2))
    assert update(shop.repo, car).running == second
    flip(shop.repo / "metadata" / "2.root.json", 40)
    refused(update(shop.repo, car), "tampered", "bad_signature")


def test_a_root_near_its_end_is_renewed_and_cars_follow(tmp_path: Path) -> None:
    shop, car = Shop(tmp_path / "shop"), tmp_path / "car-0007"
    shop.release(payload(1), lifetimes=Lifetimes(root=timedelta(days=20)))
    provision(car, name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, car).installed
    second = shop.release(payload(2))
    assert (shop.repo / "metadata" / "2.root.json").exists()
    assert update(shop.repo, car).running == second
    third = shop.release(payload(3))
    assert not (shop.repo / "metadata" / "3.root.json").exists()
    assert update(shop.repo, car).running == third


def test_an_expired_root_is_refused(tmp_path: Path) -> None:
    shop, car = Shop(tmp_path / "shop"), tmp_path / "car-0007"
    shop.release(payload(1), lifetimes=Lifetimes(root=timedelta(seconds=-5)))
    provision(car, name="car-0007", region="cn", root=shop.root())
    refused(update(shop.repo, car), "expired")
    assert status(car).running is None


def test_a_second_repository_of_the_same_keys_is_the_same_to_a_car(shop: Shop, car: Path) -> None:
    other = Shop(shop.repo.parent / "branch")
    other.keys = shop.keys
    for counter in (2, 3):
        other.release(payload(counter))
    assert update(other.repo, car).running == payload(3).release_id


def test_a_root_nobody_trusts_is_refused(shop: Shop, car: Path, tmp_path: Path) -> None:
    thief = Shop(tmp_path / "thief")
    thief.release(payload(1))
    shutil.copy(thief.repo / "metadata" / "1.root.json", shop.repo / "metadata" / "2.root.json")
    refused(update(shop.repo, car), "bad_signature", "rollback", "tampered")
    shutil.move(shop.repo / "metadata" / "2.root.json", shop.repo / "metadata" / "7.root.json")
    refused(update(shop.repo, car), "tampered")


def test_installed_files_that_change_are_noticed_and_healed(shop: Shop, car: Path) -> None:
    running = status(car).running
    flip(car / "slots" / str(running) / MODEL, 100)
    with pytest.raises(CorruptError, match="changed after") as problem:
        load_running(car)
    assert problem.value.code == "tampered"
    assert update(shop.repo, car).installed
    drives_on(car, payload(1).release_id)


def test_a_folder_that_is_no_car_and_a_second_enrolment(shop: Shop, car: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="provision"):
        update(shop.repo, tmp_path / "nobody")
    provision(car, name="car-0007", region="cn", root=shop.root())
    with pytest.raises(InputError, match="otherwise"):
        provision(car, name="car-0007", region="us", root=shop.root())
    (car / "state.json").write_bytes(b"{")
    with pytest.raises(CorruptError, match=r"state\.json"):
        update(shop.repo, car)


def test_key_files_are_private(shop: Shop) -> None:
    assert {path.stat().st_mode & 0o777 for path in shop.keys.folder.glob("*.pem")} == {0o600}
    assert "PRIVATE" not in repr(shop.keys)
    (shop.keys.folder / "targets.pem").write_bytes(b"junk")
    with pytest.raises(CorruptError, match="PEM"):
        ReleaseKeys.open(shop.keys.folder)


@pytest.mark.parametrize("moment", ["updating", "publishing"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_release_whole(tmp_path: Path, moment: str) -> None:
    survive(moment, tmp_path)
