"""How things end: expiry when read, a clock that nobody turns, tombstones, keys that go with their last artifact."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from onshore.core.errors import InputError, OnshoreError, RefusedError
from onshore.core.label import Label
from onshore.store import Center, custody, state
from onshore.store.clock import DAY_NS

RAW = Label(region="cn", kind="raw_drive", subjects=frozenset(["vehicle-a"]), retention="raw", derived_from_raw=True)
CLIP = Label(region="cn", kind="segment", subjects=frozenset(["vehicle-a"]), derived_from_raw=True)


@pytest.fixture
def at(center: Center, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the wall clock to so many days from now."""
    now = time.time_ns()

    def turn(days: float) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: now + round(days * DAY_NS))
        center.clock.forget()

    return turn


def test_what_expired_is_unreadable_though_no_sweeper_ran(center: Center, at: Callable[[float], None]) -> None:
    raw = center.raw.seal(b"original", key="drive-1-raw", label=RAW)
    clip = center.put(b"segment", CLIP, parents=[raw.id], key="drive-1")
    at(13.9)
    assert center.raw.unseal(raw.id) == b"original"
    at(14.1)
    for read in (lambda: center.raw.unseal(raw.id), lambda: center.read(raw.id, purpose="anonymise")):
        with pytest.raises(RefusedError) as caught:
            read()
        assert caught.value.code == "expired"
    assert center.has_bytes(raw.id) and center.read(clip.id) == b"segment"
    assert custody.expired(center) == [raw.id]


def test_a_copy_of_a_copy_lives_no_longer_than_the_first(center: Center, at: Callable[[float], None]) -> None:
    first = center.put(b"segment", CLIP)
    at(300)
    second = center.put(b"proxy", Label.from_record({**CLIP.as_record(), "kind": "proxy"}), parents=[first.id])
    at(366)
    with pytest.raises(RefusedError, match="expired"):
        center.open_many([second.id], "train")


def test_56_a_clock_set_back_keeps_nothing_alive(center: Center, at: Callable[[float], None]) -> None:
    raw = center.raw.seal(b"original", key="drive-1-raw", label=RAW)
    at(20)
    center.ledger.append("test", {})  # the ledger has seen day 20
    at(0)
    with pytest.raises(OnshoreError) as caught:
        center.raw.unseal(raw.id)
    assert caught.value.code == "clock_jump"
    at(20 - 300 / 86_400)  # five minutes of drift are no attack, and the ledger's time counts
    with pytest.raises(RefusedError, match="expired"):
        center.raw.unseal(raw.id)


def test_56_a_clock_set_far_forward_destroys_nothing(center: Center, at: Callable[[float], None]) -> None:
    raw = center.raw.seal(b"original", key="drive-1-raw", label=RAW)
    at(10_000)
    for call in (lambda: custody.expired(center), lambda: center.ledger.append("test", {})):
        with pytest.raises(OnshoreError) as caught:
            call()
        assert caught.value.code == "clock_jump"
    at(1)
    assert center.raw.unseal(raw.id) == b"original"
    at(10_000)
    center.ledger.append("clock.accepted", {})  # a person says that the time is right
    center.clock.forget()
    assert custody.expired(center) == [raw.id]


def test_what_is_destroyed_stays_known_and_does_not_come_back(center: Center) -> None:
    raw = center.raw.seal(b"original", key="drive-1-raw", label=RAW)
    clip = center.put(b"segment", CLIP, parents=[raw.id], key="drive-1")
    assert custody.destroy(center, [raw.id], reason="retention", ticket="sweep-1") == [raw.id]
    size = center.ledger.head().size
    assert custody.destroy(center, [raw.id], reason="retention", ticket="sweep-1") == []
    assert center.ledger.head().size == size and not center.has_bytes(raw.id) and not center.has_key("drive-1-raw")
    assert center.artifact(clip.id).parents == (raw.id,) and center.artifact(raw.id).label == RAW
    for call in (lambda: center.raw.unseal(raw.id), lambda: center.raw.seal(b"original", key="drive-2", label=RAW)):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == "erased"
    assert center.read(clip.id) == b"segment" and center.scrub() == []


def test_a_key_stays_while_it_seals_something(center: Center) -> None:
    one, two = (center.put(data, CLIP, key="drive-1") for data in (b"one", b"two"))
    custody.destroy(center, [one.id], reason="retention", ticket="sweep-1")
    assert center.has_key("drive-1") and center.read(two.id) == b"two"
    custody.destroy(center, [two.id], reason="retention", ticket="sweep-2")
    assert not center.has_key("drive-1")


def test_only_what_has_a_tombstone_is_unlinked(center: Center) -> None:
    one = center.put(b"one", CLIP)
    with pytest.raises(OnshoreError, match="usage"):
        center.unlink(one.id)
    assert center.read(one.id) == b"one"


def test_28_an_edge_that_a_job_leaves_out_is_written_by_the_center(center: Center) -> None:
    seen = center.put(b"segment", CLIP)
    plain = Label(region="cn", kind="metrics")

    def job() -> dict[str, str]:
        figures = str(len(center.read(seen.id))).encode()
        honest = Label.from_record({**CLIP.as_record(), "kind": "metrics"})
        return {"artifact": center.put(figures, honest).id}

    outputs, _ = center.stage("count", {}, job)
    assert center.artifact(outputs["artifact"]).parents == (seen.id,)
    assert [one.id for one in center.children(seen.id)] == [outputs["artifact"]]

    def washed() -> dict[str, str]:
        read = center.open_many([seen.id], "train")
        return {"artifact": center.put(read(seen.id)[:1], plain).id}

    with pytest.raises(RefusedError) as caught:
        center.stage("wash", {}, washed)
    assert caught.value.code == "not_allowed" and caught.value.refusal.rule == "labels-only-grow"


def test_28_an_ancestor_that_was_read_needs_no_edge_of_its_own(center: Center) -> None:
    first = center.put(b"first", CLIP)
    second = center.put(b"second", CLIP, parents=[first.id])

    def job() -> dict[str, str]:
        center.read(first.id)
        return {"artifact": center.put(b"third", CLIP, parents=[second.id]).id}

    outputs, _ = center.stage("chain", {}, job)
    assert center.artifact(outputs["artifact"]).parents == (second.id,)


@pytest.mark.parametrize("reason", ["erasure", "geofence"])
def test_work_in_flight_brings_nothing_back_that_was_erased_meanwhile(center: Center, reason: str) -> None:
    raw = center.raw.seal(b"original", key="drive-1-raw", label=RAW)
    segment = center.put(b"segment", CLIP, parents=[raw.id], key="drive-1")
    manifest = center.put(b"manifest", CLIP, parents=[segment.id])
    known = center.put(b"known", CLIP)
    custody.destroy(center, [raw.id], reason="retention", ticket="sweep-1")
    refused = []

    def job() -> dict[str, str]:
        center.read(segment.id)
        custody.destroy(Center.open(center.root), [segment.id], reason=reason, ticket="ticket-1")
        custody.forget_subject(center, "vehicle-a")
        drafts = [(b"picture", [segment.id]), (b"weights", [manifest.id]), (b"known", [segment.id])]
        for data, parents in drafts:
            with pytest.raises(InputError) as caught:
                center.put(data, CLIP, parents=parents)
            refused.append(caught.value.code)
        return {}

    center.stage("train", {}, job)
    assert refused == ["erased"] * 3 and custody.subjects_in(center) == 0
    assert [one.id for one in center.artifacts()] == [manifest.id, known.id] and center.artifact(known.id).parents == ()
    later = center.put(b"later", CLIP, parents=[manifest.id, raw.id])  # what was not erased itself has descendants
    assert later.parents == (manifest.id, raw.id)


def test_30_the_site_counts_subjects_over_all_datasets(center: Center) -> None:
    many = frozenset(f"vehicle-{number:024x}" for number in range(99_999))
    first = center.put(b"first", Label(region="cn", kind="dataset", subjects=many))
    others = Center.open(center.root)  # another process, which has counted before the last ones came in
    for asked in (center, others):
        assert "important" not in asked.effective(first.label).sensitivity  # type: ignore[union-attr]
    two = frozenset(f"vehicle-{number:024x}" for number in (200_001, 200_002))
    second = center.put(b"second", Label(region="cn", kind="dataset", subjects=two))
    assert custody.subjects_in(center) == 100_001
    for one in (first, second):
        for asked in (center, others):
            assert "important" in asked.effective(one.label).sensitivity  # type: ignore[union-attr]
    with pytest.raises(RefusedError) as caught:
        center.check("export", Label(region="cn", kind="weights", subjects=two))
    assert caught.value.code == "raw_ban"
    assert center.effective(Label(region="cn", kind="metrics")) == Label(region="cn", kind="metrics")


def test_a_center_of_an_earlier_version_starts_its_clocks(center: Center, tmp_path: Path) -> None:
    one = center.put(b"one", CLIP)
    center.quarantine_add("b.mp4", "damaged_video", "cannot be decoded", "00", asked={"public": True})
    with center.db.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE artifacts DROP COLUMN born_ns")
        connection.exec_driver_sql("ALTER TABLE quarantine DROP COLUMN asked")
    again = Center.open(center.root)
    assert again.read(one.id) == b"one"
    with again.reader.connect() as connection:
        assert connection.execute(sa.select(state.ARTIFACTS.c.born_ns)).scalar_one() > 0
    assert [row["asked"] for row in again.quarantine_list()] == [{}]
