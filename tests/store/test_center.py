"""A center: bytes go in and out only with a label and a decision, and survive a kill."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import BinaryIO

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onshore.core.digest import blob_id, sha256_hex
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, Refusal, RefusedError, UsageError
from onshore.core.label import Artifact, Label
from onshore.residency import Attestation, Rules, derive
from onshore.store import Center, cipher, files, state

SEGMENT = Label(region="cn", kind="segment")
RAW = Label(region="cn", kind="raw_drive", sensitivity=frozenset(["face", "plate"]), retention="raw")
MIB = 1 << 20


def blob_files(center: Center) -> list[Path]:
    return sorted(path for path in (center.root / "blobs").rglob("*") if path.is_file())


def anonymised(removes: tuple[str, ...] = ("face", "plate")) -> Attestation:
    return Attestation(
        declassifier="anonymiser",
        removes=frozenset(removes),
        detector_digest="ab" * 32,
        measured={name: {"recall": 0.97} for name in removes},
    )


# -- a center -----------------------------------------------------------------------------------------------------------


def test_seed_settles_names_but_not_keys(tmp_path: Path) -> None:
    first, second = (Center.init(tmp_path / n, "cn", keys_dir=tmp_path / f"{n}-keys", seed=7) for n in ("a", "b"))
    assert first.id == second.id and first.subject("vehicle", "car-0007") == second.subject("vehicle", "car-0007")
    assert (tmp_path / "a-keys/region-1.key").read_bytes() != (tmp_path / "b-keys/region-1.key").read_bytes()
    other = Center.init(tmp_path / "c", "cn", keys_dir=tmp_path / "c-keys")
    assert other.id != first.id and other.subject("vehicle", "car-0007") != first.subject("vehicle", "car-0007")


def test_init_again_opens_and_never_changes_region(center: Center) -> None:
    again = Center.init(center.root, "cn")
    assert again.id == center.id and again.ledger.verify().size == 1
    with pytest.raises(UsageError, match="region cn"):
        Center.init(center.root, "us")


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("step", ["Keys.create", "Ledger.create", "Ledger.append", "write_durably"])
def test_an_init_that_was_cut_short_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, seed: int | None
) -> None:
    class Cut(Exception):
        pass

    def cut(*args: object, **options: object) -> None:
        if step != "write_durably" or args[0] == tmp_path / "center/center.toml":
            raise Cut
        files.write_durably(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(f"onshore.store.center.{step}", cut)
        with pytest.raises(Cut):
            Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=seed)
    with pytest.raises(NotFoundError):
        Center.open(tmp_path / "center")
    center = Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=seed)
    assert center.ledger.verify().ok and center.ledger.verify().size == 1
    assert center.read(center.put(b"bytes", SEGMENT).id) == b"bytes"


def test_inits_at_once_make_one_center(tmp_path: Path) -> None:
    def init(_: int) -> str:
        return Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys").id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(init, range(4)))) == 1


def test_no_center_here(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="onshore init"):
        Center.open(tmp_path)
    with pytest.raises(NotFoundError):
        Center.init(tmp_path / "x", "xx", keys_dir=tmp_path / "k")
    assert not (tmp_path / "x").exists()


def test_keys_never_lie_inside(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="outside"):
        Center.init(tmp_path / "c", "cn", keys_dir=tmp_path / "c/keys")


def test_key_files_are_private(center: Center) -> None:
    folder = center.config.keys_dir
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert center.keys.salt.hex() not in repr(center.keys)


def test_a_broken_config_is_named(center: Center) -> None:
    (center.root / "center.toml").write_text('region = "cn"', encoding="utf8")
    with pytest.raises(InputError, match=r"center\.toml"):
        Center.open(center.root)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("in_region_dirs", '"/data/out"'),
        ("in_region_dirs", '[""]'),
        ("in_region_dirs", '["out"]'),
        ("in_region_dirs", "[1]"),
        ("jail_strict", '"false"'),
        ("schema_version", "true"),
        ("keys", "5"),
        ("keys_dir", "[]"),
        ("region", "1"),
    ],
)
def test_a_field_of_another_type_opens_no_center(center: Center, tmp_path: Path, field: str, text: str) -> None:
    path = center.root / "center.toml"
    lines = path.read_text(encoding="utf8").splitlines()
    path.write_text("\n".join(f"{field} = {text}" if one.startswith(f"{field} =") else one for one in lines))
    with pytest.raises(InputError, match=field) as caught:
        Center.open(center.root)
    assert caught.value.code == "bad_config"


def test_a_config_that_is_no_utf8_is_named(center: Center) -> None:
    path = center.root / "center.toml"
    path.write_bytes(path.read_bytes() + "# 数据".encode("gbk"))
    with pytest.raises(InputError, match=r"center\.toml") as caught:
        Center.open(center.root)
    assert caught.value.code == "bad_config"


def test_a_copy_of_what_a_custodian_holds_is_held_by_the_custodian(center: Center) -> None:
    precise = Label(region="cn", kind="positions", custodian="custodian", subjects=frozenset(["vehicle-1"]))
    source = center.put(b"fixes", precise)
    for looser in (Label(region="cn", kind="positions"), replace(precise, custodian="center")):
        with pytest.raises(RefusedError) as caught:
            center.put(b"copy", looser, parents=[source.id])
        assert caught.value.refusal.rule == "labels-only-grow"
    assert center.put(b"copy", precise, parents=[source.id]).label == precise


def test_in_region_folders(center: Center, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert center.in_region(tmp_path / "out/report.html") and center.in_region(center.root)
    assert not center.in_region(tmp_path) and not center.in_region(tmp_path / "outside")
    assert not center.in_region(tmp_path / "out/../elsewhere")
    (tmp_path / "out/link").symlink_to(tmp_path)
    assert not center.in_region(tmp_path / "out/link/file")


def test_subjects_are_salted(center: Center) -> None:
    assert center.subject("vehicle", "car-0007").startswith("vehicle-") and "0007" not in center.subject(
        "vehicle", "car-0007"
    )
    assert center.subject("driver", "car-0007").removeprefix("driver-") not in center.subject("vehicle", "car-0007")
    with pytest.raises(UsageError):
        center.subject("person", "alice")


# -- artifacts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("as_file", [False, True])
def test_bytes_come_back(center: Center, tmp_path: Path, size: int, as_file: bool) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    artifact = center.put(tmp_path / "file" if as_file else data, SEGMENT, name="n", meta={"frames": 3})
    assert artifact.id == blob_id("cn", data) and artifact.size_bytes == size
    assert Center.open(center.root).read(artifact.id) == data
    assert center.artifact(artifact.id) == artifact and center.artifact(artifact.id).meta == {"frames": 3}
    assert not list((center.root / "scratch").iterdir())


def test_the_same_bytes_again_are_a_no_op(center: Center) -> None:
    first = center.put(b"bytes", SEGMENT, name="first")
    before = blob_files(center)[0].read_bytes()
    assert center.put(b"bytes", SEGMENT, name="second") == first
    assert blob_files(center)[0].read_bytes() == before and len(center.artifacts()) == 1


def test_one_content_has_one_label(center: Center) -> None:
    center.put(b"bytes", SEGMENT)
    with pytest.raises(InputError, match="conflict"):
        center.put(b"bytes", Label(region="cn", kind="clip"))


def test_lineage(center: Center) -> None:
    parent, other = center.put(b"parent", SEGMENT), center.put(b"other", SEGMENT)
    child = center.put(b"child", derive([SEGMENT], kind="clip"), parents=[parent.id])
    assert [artifact.id for artifact in center.children(parent.id)] == [child.id] and center.children(child.id) == []
    again = center.put(b"child", derive([SEGMENT], kind="clip"), parents=[other.id])
    assert again.parents == (parent.id, other.id) == center.artifact(child.id).parents
    assert [artifact.id for artifact in center.children(other.id)] == [child.id]
    with pytest.raises(NotFoundError):
        center.put(b"orphan", SEGMENT, parents=[blob_id("cn", b"nobody")])


def test_lineage_never_runs_in_a_circle(center: Center) -> None:
    first = center.put(b"first", SEGMENT)
    second = center.put(b"second", SEGMENT, parents=[first.id])
    other = center.put(b"other", SEGMENT)
    for parents in ([first.id], [second.id], [second.id, first.id]):
        assert center.put(b"first", SEGMENT, parents=parents) == first
    assert center.put(b"first", SEGMENT, parents=[second.id, other.id]).parents == (other.id,)
    center._path(first.id).unlink()  # a row without bytes is written anew, and what was made of it is still younger
    assert center.put(b"first", SEGMENT, parents=[second.id]).parents == ()
    assert center.artifact(first.id).parents == () and center.artifact(second.id).parents == (first.id,)


def test_a_run_ends_in_a_center_whose_lineage_has_a_circle(center: Center) -> None:
    one, seen = center.put(b"one", SEGMENT), center.put(b"seen", SEGMENT)
    with center.db.begin() as connection:
        connection.execute(sa.update(state.ARTIFACTS).where(state.ARTIFACTS.c.id == one.id).values(parents=[one.id]))

    def run() -> dict[str, str]:
        center.read(seen.id)
        return {"id": center.put(b"made", SEGMENT, parents=[one.id]).id}

    assert set(center.artifact(center.stage("run", {}, run)[0]["id"]).parents) == {one.id, seen.id}


def test_adoptions_at_once_keep_every_parent(center: Center) -> None:
    parents = [center.put(bytes([number]), SEGMENT).id for number in range(8)]
    same = center.put(b"same", SEGMENT)
    together = Barrier(len(parents))

    def adopt(parent: str) -> None:
        mine = Center.open(center.root)
        adopted = mine._adopted

        def waiting(artifact: Artifact) -> Artifact:
            together.wait(timeout=30)
            return adopted(artifact)

        mine._adopted = waiting  # type: ignore[method-assign]
        mine.put(b"same", SEGMENT, parents=[parent])

    with ThreadPoolExecutor(len(parents)) as pool:
        list(pool.map(adopt, parents))
    assert set(center.artifact(same.id).parents) == set(parents)


def test_listing_is_in_order_of_arrival(center: Center) -> None:
    for index in range(12):
        center.put(
            str(index).encode(), Label(region="cn", kind="clip" if index % 2 else "segment"), name=f"n{index % 3}"
        )
    assert [artifact.size_bytes for artifact in center.artifacts()] == [1] * 10 + [2] * 2
    assert {artifact.label.kind for artifact in center.artifacts(kind="clip")} == {"clip"}
    assert len(center.artifacts(kind="clip", name="n1")) == 2 and center.artifacts(name="none") == []


@pytest.mark.parametrize("identity", ["", "x", "../../etc/passwd", "cn-sha256-" + "0" * 64, "us-sha256-" + "0" * 64])
def test_unknown_ids(center: Center, identity: str) -> None:
    for ask in (center.artifact, center.read, center.raw.unseal, lambda i: center.open_many([i], "train")):
        with pytest.raises(NotFoundError):
            ask(identity)


def test_bad_sources(center: Center, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        center.put(tmp_path / "missing", SEGMENT)
    with pytest.raises(InputError, match="folder"):
        center.put(tmp_path, SEGMENT)
    with pytest.raises(InputError, match="bad_id"):
        center.put(b"x", SEGMENT, key="../key")


def test_one_decision_opens_many(center: Center) -> None:
    ids = [center.put(str(index).encode(), SEGMENT).id for index in range(20)]
    reader = center.open_many(ids[:10], "train")
    assert [reader(identity) for identity in ids[:10]] == [str(index).encode() for index in range(10)]
    with pytest.raises(UsageError):
        reader(ids[10])


# -- nothing leaves unasked (invariant 1) ----------------------------------------------------------------------------------


def test_an_unlabelled_artifact_does_not_exist(center: Center) -> None:
    with pytest.raises(RefusedError, match="unlabelled"):
        center.put(b"bytes", None)  # type: ignore[arg-type]
    planted = center.root / "blobs" / blob_id("cn", b"planted")[10:12] / blob_id("cn", b"planted")[10:]
    planted.parent.mkdir()
    planted.write_bytes(b"planted")
    with pytest.raises(NotFoundError):
        center.read(blob_id("cn", b"planted"))
    assert center.artifacts() == []


def test_a_row_with_half_a_label_is_no_label(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT)
    with center.db.begin() as connection:
        connection.execute(sa.update(state.ARTIFACTS).values(label={"region": "cn", "kind": "segment"}))
    for ask in (center.read, center.artifact, lambda i: center.open_many([i], "train")):
        with pytest.raises(InputError, match="unlabelled"):
            ask(artifact.id)


def test_no_decision_means_no(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT)
    raw = center.raw.seal(b"raw", key="drive-1", label=RAW)
    center.rules = Rules(policy_text="", schema_text=center.pack.schema_text)
    for ask in (
        lambda: center.put(b"more", SEGMENT),
        lambda: center.read(artifact.id),
        lambda: center.open_many([artifact.id], "train"),
        lambda: center.raw.unseal(raw.id),
        lambda: center.raw.seal(b"raw 2", key="drive-1", label=RAW),
    ):
        with pytest.raises(RefusedError, match="no_decision"):
            ask()
    assert len(blob_files(center)) == 2


labels = st.builds(
    Label,
    region=st.sampled_from(["cn", "us"]),
    kind=st.sampled_from(["raw_drive", "segment", "clip", "weights", "report"]),
    sensitivity=st.frozensets(st.sampled_from(["face", "plate", "cabin", "position"])),
    synthetic=st.booleans(),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=labels, data=st.binary(max_size=40), purpose=st.sampled_from(["train", "show", "anonymise", ""]))
def test_every_byte_in_and_out_was_asked_for(center: Center, label: Label, data: bytes, purpose: str) -> None:
    asked: list[tuple[str, str]] = []
    decide = Rules.from_pack(center.pack).decide

    class Watched(Rules):
        def __init__(self) -> None: ...

        def decide(self, request):  # type: ignore[no-untyped-def]
            asked.append((request.action, request.artifact))
            return decide(request)

    center.rules = Watched()
    files = len(blob_files(center))
    try:
        artifact = center.put(data, label)
    except (RefusedError, InputError):
        assert len(blob_files(center)) == files, "what was refused left no bytes"
        return
    assert asked == [("store", artifact.id)] and label.region == "cn" and label.kind != "raw_drive"
    asked.clear()
    assert center.read(artifact.id, purpose=purpose) == data
    assert asked == [("read", artifact.id)]
    assert center.artifact(artifact.id).label == label


def test_refusals_are_in_the_ledger(center: Center) -> None:
    with pytest.raises(RefusedError, match="out_of_region") as caught:
        center.put(b"bytes", Label(region="us", kind="segment"))
    last = list(center.ledger.entries())[-1]
    assert last.kind == "refusal" and last.body["code"] == "out_of_region" == caught.value.refusal.code
    assert "operator" not in str(last.body), "the ledger names people by salted ids only"


def test_the_ledger_holds_no_names_and_no_paths(center: Center) -> None:
    told = Refusal(code="unlabelled", subject="export /home/alice/drive 7.mp4", rule="labelled", clause="c", remedy="r")
    with pytest.raises(RefusedError, match="alice"):
        center.refuse(told)
    text = (center.root / "ledger/entries.jsonl").read_text(encoding="utf8")
    assert "alice" not in text and "operator" not in text and sha256_hex(told.subject.encode()) in text


def test_raw_lies_in_the_sealed_zone_only(center: Center) -> None:
    with pytest.raises(RefusedError, match="sealed"):
        center.put(b"raw", RAW)
    with pytest.raises(UsageError):
        center.raw.seal(b"raw", key="center", label=RAW)
    with pytest.raises(UsageError):
        center.raw.seal(b"raw", key="drive-1", label=SEGMENT)
    raw = center.raw.seal(b"raw", key="drive-1", label=RAW)
    for ask in (lambda: center.read(raw.id), lambda: center.open_many([raw.id], "train")):
        with pytest.raises(RefusedError, match="raw_ban"):
            ask()
    assert center.raw.unseal(raw.id) == b"raw"
    assert list(center.ledger.entries())[-1].kind == "unseal"


def test_labels_only_grow(center: Center) -> None:
    raw = center.raw.seal(b"raw", key="drive-1", label=RAW)
    clean = derive([RAW], kind="segment", declassified=anonymised())
    with pytest.raises(RefusedError, match="labels-only-grow"):
        center.put(b"segment", clean, parents=[raw.id])
    with pytest.raises(RefusedError, match="plate"):
        center.put(b"segment", clean, parents=[raw.id], declassified=anonymised(("face",)))
    with pytest.raises(RefusedError, match="derived_from_raw"):
        center.put(b"segment", SEGMENT, parents=[raw.id], declassified=anonymised())
    made = center.put(b"segment", clean, parents=[raw.id], declassified=anonymised(), key="drive-1")
    assert center.artifact(made.id).meta["declassified"]["removes"] == ["face", "plate"]
    entry = list(center.ledger.entries())[-1]
    assert entry.kind == "declassified" and entry.body["artifact"] == made.id
    center.put(b"clip", derive([clean], kind="clip"), parents=[made.id])


# -- keys and damage ----------------------------------------------------------------------------------------------------


def test_a_copied_center_decrypts_nothing(center: Center, tmp_path: Path) -> None:
    marker = b"marker of the plaintext " * 50
    artifact = center.put(marker, SEGMENT)
    center.raw.seal(marker + b"raw", key="drive-1", label=RAW)
    center.close()
    copy = Path(shutil.copytree(center.root, tmp_path / "copy"))
    secret = [path.read_bytes() for path in center.config.keys_dir.iterdir()]
    for path in (path for path in copy.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert marker[:24] not in data and not any(key in data or key.hex().encode() in data for key in secret), path
    config = (copy / "center.toml").read_text(encoding="utf8")
    (copy / "center.toml").write_text(
        config.replace(str(center.config.keys_dir), str(tmp_path / "none")), encoding="utf8"
    )
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(copy)
    thief = Center.init(tmp_path / "thief", "cn", keys_dir=tmp_path / "none", seed=1)
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(copy)
    assert thief.id == center.id
    public_key = thief.config.ledger_key
    (copy / "center.toml").write_text((thief.root / "center.toml").read_text(encoding="utf8"), encoding="utf8")
    assert public_key != center.config.ledger_key
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(copy).read(artifact.id)


def test_data_keys_do_not_fit_elsewhere(center: Center) -> None:
    for name in ("drive-1", "drive-2"):
        center.put(name.encode(), SEGMENT, key=name)
    with sqlite3.connect(center.keys.folder / "slots.sqlite") as slots:
        slots.execute("update slots set wrapped = (select wrapped from slots where id='drive-1') where id='drive-2'")
    slots.close()
    assert center.keys.data_key("drive-1") is not None
    with pytest.raises(OnshoreError, match="key_missing"):
        center.keys.data_key("drive-2")


def test_a_destroyed_key_reads_nothing(center: Center) -> None:
    artifact, other = center.put(b"bytes", SEGMENT, key="drive-1"), center.put(b"other", SEGMENT, key="drive-2")
    with sqlite3.connect(center.keys.folder / "slots.sqlite") as slots:
        (wrapped,) = slots.execute("select wrapped from slots where id='drive-1'").fetchone()
    slots.close()
    center.shred(["drive-1"])
    for ask in (center, Center.open(center.root)):
        with pytest.raises(NotFoundError, match="destroyed"):
            ask.read(artifact.id)
    assert center.read(other.id) == b"other"
    center.close()
    everything = [*center.root.rglob("*"), *center.keys.folder.rglob("*")]
    assert not any(wrapped in path.read_bytes() for path in everything if path.is_file())
    assert list(center.ledger.entries())[-1].body == {"key": "drive-1"}
    with pytest.raises(InputError, match="Leave this file out") as caught:  # an intake keeps this file out and goes on
        center.put(b"more of it", SEGMENT, key="drive-1")
    assert caught.value.code == "erased"
    for known in ("drive-1", "drive-9"):
        with pytest.raises(NotFoundError):
            center.shred([known])
    assert [entry.kind for entry in center.ledger.entries()].count("key_destroyed") == 1
    with pytest.raises(UsageError):
        center.shred(["center"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_of_a_blob_is_seen(center: Center, data: st.DataObject) -> None:
    artifact = center.put(bytes(range(256)) * 5, SEGMENT)
    path = blob_files(center)[0]
    original = path.read_bytes()
    at, bit = data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(original)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    with pytest.raises(CorruptError):
        center.read(artifact.id)
    path.write_bytes(original)


def test_chunks_cannot_be_cut_moved_or_repeated(center: Center) -> None:
    artifact = center.put(os.urandom(3 * MIB + 5), SEGMENT)
    path = blob_files(center)[0]
    original = path.read_bytes()
    step, start = MIB + 16, 24
    chunks = [original[at : at + step] for at in range(start, len(original), step)]
    head = original[:start]
    for forged in (
        head + b"".join(chunks[:3]),
        head + b"".join(chunks[:2]),
        head + b"".join([chunks[1], chunks[0], *chunks[2:]]),
        head + b"".join([chunks[0], chunks[0], *chunks[2:]]),
        head + b"".join([*chunks, chunks[3]]),
        head,
        b"",
        original[:-1],
        original + b"\0",
    ):
        path.write_bytes(forged)
        with pytest.raises(CorruptError):
            center.read(artifact.id)
    path.write_bytes(original)
    assert len(center.read(artifact.id)) == 3 * MIB + 5


def test_scrubbing_finds_what_is_damaged_or_gone(center: Center) -> None:
    kept, damaged, gone = (center.put(name, SEGMENT) for name in (b"kept", b"damaged", b"gone"))
    assert center.scrub() == []
    files = {path.name: path for path in blob_files(center)}
    files[damaged.id[10:]].write_bytes(files[kept.id[10:]].read_bytes())
    files[gone.id[10:]].unlink()
    seen: list[int] = []
    found = {row["artifact"]: row["code"] for row in center.scrub(lambda what, done, total: seen.append(done))}
    assert found == {damaged.id: "corrupt", gone.id: "not_found"} and seen == [0, 1, 2, 3]


def test_a_file_that_changes_while_it_is_read_is_refused(center: Center, tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"first")
    before = cipher.file_sha256

    def growing(file: BinaryIO) -> tuple[str, int]:
        found = before(file)
        path.write_bytes(b"later")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cipher, "file_sha256", growing)
        with pytest.raises(InputError, match="changed"):
            center.put(path, SEGMENT)
    assert center.artifacts() == [] and not list((center.root / "scratch").iterdir())


def test_files_do_not_open_under_another_name(center: Center) -> None:
    first, second = center.put(b"first", SEGMENT), center.put(b"other", SEGMENT)
    (a,), (b,) = ([path for path in blob_files(center) if path.name == item.id[10:]] for item in (first, second))
    b.write_bytes(a.read_bytes())
    with pytest.raises(CorruptError):
        center.read(second.id)


def test_the_container_format() -> None:
    """Fixed layout: a reader written from the docs opens it."""
    from io import BytesIO

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    sealed, key = BytesIO(), bytes(32)
    cipher.encrypt(cipher.pieces(b"x" * (MIB + 1)), sealed, key, b"cn|center|id")
    stored = sealed.getvalue()
    assert stored[:8] == b"ONSHORE1" and len(stored) == 24 + MIB + 16 + 1 + 16
    file_key = HKDF(algorithm=SHA256(), length=32, salt=stored[8:24], info=b"cn|center|id").derive(key)
    last = AESGCM(file_key).decrypt(bytes(7) + b"\0\0\0\1" + b"\1", stored[24 + MIB + 16 :], stored[:24])
    assert last == b"x"


# -- kills and neighbours --------------------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path[:0] = {path!r}
from onshore.core.label import Label
from onshore.store import Center
center = Center.open({root!r})
for index in range(10**6):
    data = (f"{name} {{index}} ".encode()) * 40000
    print(center.put(data, Label(region="cn", kind="segment"), name=str(index), key="drive-{name}").id, flush=True)
"""


def test_kill_9_loses_nothing_acknowledged_by_two_writers(center: Center) -> None:
    told: list[str] = []
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER.format(path=sys.path, root=str(center.root), name=name)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        told += [writer.stdout.readline().strip() for _ in range(6)]
        os.kill(writer.pid, signal.SIGKILL)
        told += [line for line in writer.stdout.read().split("\n") if line]
        writer.wait()
        writer.stdout.close()
    after = Center.open(center.root)
    for identity in told:
        assert blob_id("cn", after.read(identity)) == identity
    assert {artifact.id for artifact in after.artifacts()} >= set(told)
    assert after.ledger.verify().ok


def test_a_row_without_bytes_does_not_exist_and_heals(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT)
    blob_files(center)[0].unlink()
    assert center.artifacts() == []
    with pytest.raises(NotFoundError):
        center.read(artifact.id)
    assert center.put(b"bytes", SEGMENT) == artifact and center.read(artifact.id) == b"bytes"


def test_a_row_that_a_kill_left_behind_takes_the_new_key(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT, key="drive-1")
    blob_files(center)[0].unlink()
    assert center.put(b"bytes", SEGMENT, name="again", key="drive-2").id == artifact.id
    assert Center.open(center.root).read(artifact.id) == b"bytes" and center.artifact(artifact.id).name == "again"


def test_the_same_content_at_once_under_two_keys_stays_readable(center: Center) -> None:
    data = [os.urandom(2 * MIB) for _ in range(4)]

    def put(worker: int) -> None:
        mine = Center.open(center.root)
        for item in data:
            mine.put(item, SEGMENT, key=f"drive-{worker}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    assert center.scrub() == [] and len(center.artifacts()) == 4


def test_old_scratch_is_swept(center: Center) -> None:
    old, young = center.root / "scratch/old", center.root / "scratch/young"
    for path in (old, young):
        path.write_bytes(b"left behind")
    os.utime(old, (0, 0))
    Center.open(center.root)
    assert not old.exists() and young.exists()


def test_a_folder_is_not_swept_while_who_works_in_it_lives(center: Center) -> None:
    scratch = center.root / "scratch"
    with files.held_folder(scratch) as folder:
        (folder / "kept").write_bytes(b"in use")
        for path in (folder / "kept", folder):
            os.utime(path, (0, 0))
        assert files.idle(scratch, 60) == [folder]  # an erasure still sees it, and does not close meanwhile
        files.sweep(scratch, older_than_s=60)
        assert (folder / "kept").read_bytes() == b"in use"
    (scratch / "left").mkdir()
    os.utime(scratch / "left", (0, 0))
    files.sweep(scratch)
    assert list(scratch.iterdir()) == []


FORKER = """
import os, sys
sys.path[:0] = {path!r}
from onshore.core.label import Label
from onshore.store import Center
label = Label(region="cn", kind="segment")
center = Center.open({root!r})
artifact = center.put(b"bytes", label)
child = os.fork()
if child == 0:
    ok = center.read(artifact.id) == b"bytes" and center.put(b"child", label).size_bytes == 5
    os._exit(0 if ok else 1)
sys.exit(os.waitpid(child, 0)[1] or center.read(artifact.id) != b"bytes")
"""


def test_a_forked_child_opens_its_own_connections(center: Center) -> None:
    """In an interpreter of its own: pytest's may hold libraries that do not fork."""
    code = FORKER.format(path=sys.path, root=str(center.root))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert center.read(blob_id("cn", b"child")) == b"child"


# -- stages and quarantine ------------------------------------------------------------------------------------------------


def test_a_stage_runs_once_for_its_inputs(center: Center) -> None:
    runs: list[int] = []

    def run() -> dict[str, object]:
        runs.append(1)
        return {"n": len(runs)}

    assert center.stage("cut", {"a": 1, "b": 2}, run) == ({"n": 1}, True)
    assert Center.open(center.root).stage("cut", {"b": 2, "a": 1}, run) == ({"n": 1}, False)
    assert center.stage("cut", {"a": 2}, run) == ({"n": 2}, True)
    assert center.stage("other", {"a": 1, "b": 2}, run) == ({"n": 3}, True)


def test_a_stage_that_broke_left_no_record(center: Center) -> None:
    def broken() -> dict[str, object]:
        raise InputError("corrupt", "x", "y")

    with pytest.raises(InputError):
        center.stage("cut", {}, broken)
    assert center.stage("cut", {}, dict) == ({}, True)


def test_quarantine(center: Center) -> None:
    first = center.quarantine_add("b.mp4", "damaged_video", "cannot be decoded", "00")
    assert center.quarantine_add(Path("b.mp4"), "damaged_video", "cannot be decoded", "00") == first
    center.quarantine_add("a.csv", "missing_column", "no speed", "01")
    assert [row["path"] for row in center.quarantine_list()] == ["a.csv", "b.mp4"]
    center.quarantine_remove(first)
    assert len(center.quarantine_list()) == 1
    with pytest.raises(NotFoundError):
        center.quarantine_remove(first)
