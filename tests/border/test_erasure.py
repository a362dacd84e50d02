"""Erasing one subject: everything of it, nothing of anybody else, the right models, a clock, and no early closing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

import onshore
from border.shoals import Shoal, shoal
from onshore import cli
from onshore.border import erasure as erasing
from onshore.border.erasure import close, erase, erasures, holding, marks_of
from onshore.border.retention import sweep
from onshore.border.workdays import Calendar
from onshore.core.errors import NotFoundError, OnshoreError, RefusedError
from onshore.core.label import Label
from onshore.region import load_pack
from onshore.residency import derive
from onshore.store import Center, custody
from onshore.store.clock import DAY_NS
from onshore.store.sorted_tree import holds

#: Erases car-0002 and is killed at the n-th flush to disk.
DYING = """
import os, signal, sys
from onshore.border.erasure import erase
from onshore.store import Center
real, left = os.fsync, [int(sys.argv[2])]
def counted(handle):
    left[0] -= 1
    if left[0] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
center = Center.open(sys.argv[1])
os.fsync = counted
erase(center, "car-0002")
"""


@pytest.fixture
def made(tmp_path: Path) -> Shoal:
    return shoal(tmp_path, 12)


def others(made: Shoal, erased: int) -> dict[str, str]:
    """A digest of every file and row of the other drives."""
    center = made.center
    found = {
        identity: hashlib.sha256(center._path(identity).read_bytes()).hexdigest()
        for number, ids in enumerate(made.blobs)
        if number != erased
        for identity in ids
    }
    for name in center.tables():
        for row in center.table(name).rows():
            if made.drives[erased] not in row.values():
                found[f"{name} {row['id']}"] = repr(sorted(row.items()))
    return found


def test_one_of_many_goes_and_the_others_stay_to_the_bit(made: Shoal) -> None:
    center, car = made.center, made.cars[6]
    before = others(made, 6)
    done = erase(center, "car-0006")
    assert done.subject == car and done.state == "erased"
    assert done.receipts == {"blobs": 3, "rows": 3, "runs": 1, "names": 3}
    assert others(made, 6) == before
    for identity in made.blobs[6]:
        assert not center.has_bytes(identity)
        with pytest.raises(OnshoreError, match="erased"):
            center.read(identity)
    assert not center.has_key(made.drives[6]) and not center.has_key(f"{made.drives[6]}-raw")
    assert all(center.table(name).mentions([car, made.drives[6]]) == 0 for name in center.tables())
    assert center.read(made.blobs[5][2]).startswith(b"pro") and center.scrub() == []
    assert holding(center, done) == {} and close(center, done.id).state == "closed"
    assert center.ledger.verify().ok


@pytest.mark.slow
def test_one_of_a_thousand(tmp_path: Path) -> None:
    """As above at the size of the claim; how long it takes is `benchmarks/erasure.py`'s to say."""
    made = shoal(tmp_path, 1000)
    before = others(made, 600)
    done = erase(made.center, "car-0600")
    assert done.receipts == {"blobs": 3, "rows": 3, "runs": 1, "names": 3} and others(made, 600) == before
    assert {mark["model"]: mark["answer"] for mark in done.models} == {
        model: "yes" if made.cars[600] in drawn else "no" for model, drawn in made.models.items()
    }
    living = {one.id.rpartition("-")[2] for one in made.center.artifacts()}
    assert {path.name for path in (made.center.root / "blobs").rglob("*") if path.is_file()} == living
    assert holding(made.center, done) == {} and close(made.center, done.id).state == "closed"


def test_no_orphan_is_left(made: Shoal) -> None:
    center = made.center
    erase(center, "car-0006")
    on_disk = {path.name for path in (center.root / "blobs").rglob("*") if path.is_file()}
    known = {one.id.rpartition("-")[2] for one in center.artifacts()}
    assert on_disk == known
    living = {one.id for one in center.artifacts()}
    parents = {parent for one in center.artifacts() for parent in one.parents}
    assert parents - living == {made.blobs[6][2]} == set(custody.tombstones(center, parents))
    assert custody.artifacts_of(center, made.cars[6]) == [] and custody.subjects_in(center) == 11


def test_the_models_named_are_those_that_drew_it(made: Shoal) -> None:
    for number in (0, 2, 3, 5):
        done = erase(made.center, f"car-{number:04d}")
        truth = {model: "yes" if made.cars[number] in drawn else "no" for model, drawn in made.models.items()}
        assert {mark["model"]: mark["answer"] for mark in done.models} == truth
        for mark in marks_of(made.center, subject=made.cars[number]):
            assert mark["proofs"] and all(holds(proof, proof["root"]) for proof in mark["proofs"])
        bad = [model for model, answer in truth.items() if answer == "yes"]
        assert all(any(model in step for step in done.plan) for model in bad) and bool(bad) == bool(done.plan)


def test_a_model_without_a_log_counts_as_one_that_saw(made: Shoal) -> None:
    center = made.center
    dataset = center.artifact(made.dataset)
    label = center.artifact(next(iter(made.models))).label
    unknown = center.put(b"no log", label, name="old", parents=[dataset.id], meta={"recipe": {"name": "old"}})
    done = erase(center, "car-0001")
    assert {mark["model"]: mark["answer"] for mark in done.models}[unknown.id] == "not measurable"
    assert any(unknown.id in step for step in done.plan)


def test_how_it_moved_by_its_own_video_goes_and_what_was_read_off_others_stays(made: Shoal) -> None:
    """Labels that a network read off a video lie under that drive's key; the network itself may have learned from anybody."""
    center, network = made.center, _network(made)
    labels = [_read_off(made, number, network) for number in (4, 5)]
    done = erase(center, "car-0004")
    assert labels[0] in done.reach.blobs and labels[1] not in done.reach.blobs
    assert not center.has_bytes(labels[0]) and center.read(labels[1]) == b"moved 5"
    assert not center.has_key(made.drives[4]) and holding(center, done) == {}


def _network(made: Shoal) -> str:
    """A model that learned from car-0004, too."""
    return next(model for model, drawn in made.models.items() if made.cars[4] in drawn)


def _read_off(made: Shoal, number: int, network: str) -> str:
    parents = [made.center.artifact(one) for one in (made.blobs[number][2], network)]
    label = derive([parent.label for parent in parents], kind="pseudo_labels", retention="clip")
    meta = {"segment": f"segment-{number:032x}", "model": network}
    ids = [parent.id for parent in parents]
    return made.center.put(
        f"moved {number}".encode(), label, name=f"pseudo-{number}", parents=ids, meta=meta, key=made.drives[number]
    ).id


def test_a_second_run_does_nothing(made: Shoal) -> None:
    done = erase(made.center, "car-0006")
    size = made.center.ledger.head().size
    assert erase(made.center, made.cars[6]) == done and made.center.ledger.head().size == size
    closed = close(made.center, done.id)
    size = made.center.ledger.head().size
    assert close(made.center, done.id) == closed == erase(made.center, "car-0006")
    assert made.center.ledger.head().size == size


def test_the_ledger_tells_it_without_a_name(made: Shoal) -> None:
    done = erase(made.center, "car-0006")
    close(made.center, done.id)
    kinds = [
        entry.kind for entry in made.center.ledger.entries() if "erasure" in entry.kind or entry.kind == "destroyed"
    ]
    assert kinds == [
        "border.erasure.opened",
        *["border.erasure.model"] * 2,
        "destroyed",
        "border.erasure.done",
        "border.erasure.closed",
    ]
    assert b"car-0006" not in (made.center.root / "ledger" / "entries.jsonl").read_bytes()


@pytest.mark.parametrize("told", ["fleet:0007", "vehicle:fleet:0007"])
def test_a_vehicle_whose_name_has_a_colon_is_erased_by_name(tmp_path: Path, told: str) -> None:
    center = Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=1)
    car = center.subject("vehicle", "fleet:0007")
    made = center.put(b"segment", Label(region="cn", kind="segment", subjects=frozenset([car])))
    assert erase(center, told).subject == car and not center.has_bytes(made.id)


def test_nobody_of_this_name(made: Shoal) -> None:
    with pytest.raises(NotFoundError):
        erase(made.center, "car-9999")
    with pytest.raises(NotFoundError):
        close(made.center, "erasure-0")


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    """kill -9 at the n-th flush to disk, again and again; then one run to the end."""
    made = shoal(tmp_path, 5)
    before = others(made, 2)
    made.center.close()
    for at in (1, 3, 5, 7, 9, 12):
        arguments = [sys.executable, "-c", DYING, str(made.center.root), str(at)]
        environment = {**os.environ, "PYTHONPATH": str(Path(onshore.__file__).parents[1])}
        run = subprocess.run(arguments, env=environment, check=False, capture_output=True)
        assert run.returncode in (0, -signal.SIGKILL), run.stderr
    for left in (made.center.root / "scratch").iterdir():  # ten minutes later
        os.utime(left, (time.time() - 600, time.time() - 600))
    center = Center.open(made.center.root)
    done = erase(center, "car-0002")
    assert holding(center, done) == {} and center.ledger.verify().ok
    assert [row["subject"] for row in erasures(center)] == [made.cars[2]], "one ticket, however often it was killed"
    receipts = [id for e in center.ledger.entries() if e.kind == "destroyed" for id in e.body["artifacts"]]
    assert set(receipts) == set(made.blobs[2])
    assert others(made, 2) == before and close(center, done.id).state == "closed"


# -- 60, 54: no early closing, nothing left anywhere ---------------------------------------------------------------------


def _cached(made: Shoal) -> None:
    folder = made.center.root / "cache"
    folder.mkdir()
    (folder / "shard-0").write_bytes(b"windows of " + made.drives[6].encode())


def _row_again(made: Shoal) -> None:
    made.center.table("embeddings").append([{"id": "e-1", "segment": f"segment-{6:032x}", "vector": [0.0]}])


def _unmarked(made: Shoal) -> None:
    label = made.center.artifact(next(iter(made.models))).label
    made.center.put(b"trained meanwhile", label, parents=[made.dataset], name="late")


def _scratch(made: Shoal) -> None:
    _aged(made.center.root / "scratch" / "unpacked", b"x")


def _aged(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.utime(path, (time.time() - 600, time.time() - 600))


def _blob_back(made: Shoal) -> None:
    path = made.center._path(made.blobs[6][1])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a copy from somewhere")


@pytest.mark.parametrize(
    ("store", "spoil"),
    [
        ("dataset cache", _cached),
        ("tables", _row_again),
        ("model list", _unmarked),
        ("scratch", _scratch),
        ("blobs", _blob_back),
    ],
)
def test_60_an_erasure_is_not_closed_while_a_store_holds_it(
    made: Shoal, store: str, spoil: Callable[[Shoal], None]
) -> None:
    done = erase(made.center, "car-0006")
    spoil(made)
    with pytest.raises(RefusedError) as caught:
        close(made.center, done.id)
    assert caught.value.code == "still_held" and store in caught.value.refusal.clause
    assert [row["state"] for row in erasures(made.center)] == ["erased"]
    assert made.center.ledger.head().size and any(e.kind == "border.refused" for e in made.center.ledger.entries())


def test_60_running_it_again_finds_what_came_back(made: Shoal) -> None:
    done = erase(made.center, "car-0006")
    for spoil in (_row_again, _unmarked, _blob_back, _scratch):
        spoil(made)
    assert set(holding(made.center, done)) == {"tables", "model list", "blobs", "scratch"}
    again = erase(made.center, "car-0006")
    assert again.id == done.id and holding(made.center, again) == {} and len(again.models) == 3
    assert close(made.center, again.id).state == "closed"


def test_54_no_marker_of_it_is_left_anywhere(tmp_path: Path) -> None:
    """Scratch, shared memory, temporary folders, tables, old versions, the state file and its log: by bytes, not by rows."""
    marker = b"MARKER-PIXELS-" + os.urandom(8).hex().encode()
    started = time.time()
    made = shoal(tmp_path, 6, marker=marker)
    center, plate = made.center, f"note-{os.urandom(8).hex()}"
    center.table("segments").upsert([{**center.table("segments").rows(f"id = 'segment-{3:032x}'")[0], "place": plate}])
    sealed = [center._path(identity).read_bytes()[:256] for identity in made.blobs[3]]
    wrapped = _wrapped(center, made.drives[3])
    assert _found(tmp_path, started, [plate.encode(), *sealed])
    erase(center, "car-0003")
    assert _found(tmp_path, started, [marker, plate.encode(), *sealed, *wrapped]) == []


def _wrapped(center: Center, drive: str) -> list[bytes]:
    import sqlite3

    with sqlite3.connect(center.keys.folder / "slots.sqlite") as slots:
        rows = slots.execute("select wrapped from slots where id in (?, ?)", (drive, f"{drive}-raw")).fetchall()
    slots.close()
    found = [bytes(value) for (value,) in rows if value]
    assert found
    return found


def _found(root: Path, started: float, words: list[bytes]) -> list[str]:
    """Files below the center, its keys, the temporary folder and shared memory, changed since, that hold a word."""
    hits = []
    for top in {root, Path(tempfile.gettempdir()), Path("/dev/shm")}:
        for folder, _, files in os.walk(top):
            if top != root and ("pytest" in folder and str(root) not in folder):
                continue
            for name in files:
                path = Path(folder) / name
                try:
                    if path.is_file() and path.stat().st_mtime >= started - 1 and path.stat().st_size < 1 << 26:
                        data = path.read_bytes()
                        hits += [str(path) for word in words if word in data]
                except OSError:
                    continue
    return hits


# -- the clock -----------------------------------------------------------------------------------------------------------


def test_ten_working_days_by_the_regions_calendar() -> None:
    cn, us = (Calendar.of(load_pack(region).law) for region in ("cn", "us"))
    assert cn.after(date(2026, 9, 28), 10) == date(2026, 10, 16), "the National Day week and two worked Saturdays"
    assert cn.is_worked(date(2026, 10, 10)) and not cn.is_worked(date(2026, 10, 5))
    assert us.after(date(2026, 11, 20), 10) == date(2026, 12, 7), "Thanksgiving"
    assert Calendar().after(date(2026, 11, 20), 10) == date(2026, 12, 4)
    assert (
        cn.between(date(2026, 9, 28), date(2026, 10, 16)) == 10
        and cn.between(date(2026, 10, 16), date(2026, 9, 28)) == -10
    )


def test_days_begin_where_the_region_lies() -> None:
    late = 1_792_281_600 * 10**9  # 2026-10-18 00:00 UTC
    assert Calendar(utc_offset_h=8).day_of(late) == date(2026, 10, 18)
    assert Calendar(utc_offset_h=-5).day_of(late) == date(2026, 10, 17)


def test_the_alarm_sounds_at_day_seven_and_not_before(made: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    done = erase(made.center, "car-0006")
    now = time.time_ns()
    calendar = Calendar.of(made.center.pack.law)
    opened = calendar.day_of(done.opened_ns)
    assert calendar.between(opened, date.fromisoformat(done.due)) == 10
    assert calendar.between(opened, date.fromisoformat(done.alarm)) == 7
    assert not erasures(made.center)[0]["alarm"]
    days = (date.fromisoformat(done.alarm) - opened).days
    monkeypatch.setattr(time, "time_ns", lambda: now + days * DAY_NS)
    assert erasures(made.center)[0]["alarm"] and erasures(made.center)[0]["days_left"] == 3
    close(made.center, done.id)
    assert not erasures(made.center)[0]["alarm"]


# -- the sweeper ---------------------------------------------------------------------------------------------------------


def test_the_sweeper_destroys_originals_after_their_time(made: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    center, now = made.center, time.time_ns()
    assert sweep(center)["destroyed"] == 0
    monkeypatch.setattr(time, "time_ns", lambda: now + 15 * DAY_NS)
    report = sweep(center)
    assert report["destroyed"] == 12 and report["kinds"] == {"raw_drive": 12}
    assert not center.has_key(f"{made.drives[0]}-raw") and center.has_key(made.drives[0])
    assert center.read(made.blobs[0][1]).startswith(b"seg") and sweep(center)["destroyed"] == 0
    size = center.ledger.head().size
    sweep(center)
    assert center.ledger.head().size == size


@pytest.mark.parametrize("step", ["_receipts", "bury"])
def test_a_sweep_that_was_cut_short_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    made, now = shoal(tmp_path, 2), time.time_ns()
    center = made.center
    monkeypatch.setattr("onshore.border.retention.MOST_FORWARD_NS", 400 * DAY_NS)
    monkeypatch.setattr(time, "time_ns", lambda: now + 370 * DAY_NS)

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(custody, step, cut)
        sweep(center)
    assert not any(center.has_bytes(one) for ids in made.blobs for one in ids[:2])
    report = sweep(center)
    told = [one for one in center.ledger.entries() if one.kind in ("destroyed", "border.sweep")]
    receipts = {one for line in told if line.kind == "destroyed" for one in line.body["artifacts"]}
    assert receipts >= {one for ids in made.blobs for one in ids[:2]} and told[-1].kind == "border.sweep"
    assert {line.body["ticket"] for line in told} >= {stone.ticket for stone in custody.tombstones(center).values()}
    assert report["rows"] == 4 and center.table("segments").count() == center.table("clips").count() == 0
    assert sweep(center)["destroyed"] == 0 and told == [
        one for one in center.ledger.entries() if one.kind in ("destroyed", "border.sweep")
    ]


def test_56_the_sweeper_does_not_believe_a_clock_weeks_ahead(made: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 60 * DAY_NS)
    with pytest.raises(OnshoreError) as caught:
        sweep(made.center)
    assert caught.value.code == "clock_jump" and made.center.has_bytes(made.blobs[0][0])


def test_56_a_refusal_at_a_wrong_time_does_not_vouch_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, now = shoal(tmp_path, 1), time.time_ns()
    center, (raw, segment, _) = made.center, made.blobs[0]

    def turn(days: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: now + round(days * DAY_NS))
        center.clock.forget()

    def jumps(call: Callable[[], object], advice: str) -> None:
        with pytest.raises(OnshoreError, match=advice) as caught:
            call()
        assert caught.value.code == "clock_jump"

    turn(300)
    with pytest.raises(RefusedError, match="expired"):
        center.raw.unseal(raw)
    jumps(lambda: sweep(center), "300 days ahead of the ledger's last line")
    center.clock.forget()  # as any other process: the refusal's line is the last one now
    jumps(lambda: sweep(center), "300 days after the one before it")
    turn(1)
    jumps(lambda: center.read(segment), "the ledger saw a wrong time, and `onshore ledger accept-clock`")
    assert center.has_bytes(raw)
    for opened in (center, Center.open(center.root)):
        assert cli.run(["--json", "--center", str(center.root), "ledger", "accept-clock"]) == 0
        opened.clock._read_s = None  # a second has passed
        assert opened.read(segment).startswith(b"seg") and opened.raw.unseal(raw).startswith(b"raw")
    assert sweep(center)["destroyed"] == 0 and center.ledger.verify().ok
    turn(15)
    assert sweep(center)["kinds"] == {"raw_drive": 1}


def test_a_reach_is_written_down_before_anything_is_destroyed(made: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(erasing, "_destroy", broken)
    with pytest.raises(KeyboardInterrupt):
        erase(made.center, "car-0006")
    row = erasures(made.center)[0]
    assert row["state"] == "open" and set(erasing.erasure(made.center, row["id"]).reach.blobs) == set(made.blobs[6])


def test_eu_erasures_are_due_within_a_month() -> None:
    """GDPR art. 12(3): the due day never lies later than a calendar month after the request, whichever day that is."""
    law = load_pack("eu").law
    calendar, days = Calendar.of(law), law["limits"]["erasure_working_days"]
    for number in range(2 * 366):
        asked = date(2027, 1, 1) + timedelta(days=number)
        month = date(asked.year + asked.month // 12, asked.month % 12 + 1, min(asked.day, 28))
        assert asked < calendar.after(asked, days) <= month, asked
    assert law["limits"]["erasure_alarm_working_days"] < days
