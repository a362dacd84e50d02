"""Attempt 48: replication to another region, or a lifecycle rule, turned on after the store was attested."""

from __future__ import annotations

from pathlib import Path

import pytest

from border.conftest import Shore
from onshore.border import storage
from onshore.border.storage import attest_store
from onshore.core.errors import InputError, RefusedError

PLAIN = {"kind": '"s3"', "region": '"us"', "replication": "[]", "lifecycle": "[]", "versions": "false"}


def described(tmp_path: Path, **changes: str) -> Path:
    path = tmp_path / "store.toml"
    path.write_text("".join(f"{name} = {text}\n" for name, text in {**PLAIN, **changes}.items()))
    return path


def test_48_replication_turned_on_later_is_refused(shore: Shore, tmp_path: Path) -> None:
    first = attest_store(shore.center, described(tmp_path))
    assert attest_store(shore.center, described(tmp_path)).sha256 == first.sha256
    assert len(shore.lines("border.store")) == 1 and first.facts["mounts"][0][0]
    with pytest.raises(RefusedError) as caught:
        attest_store(shore.center, described(tmp_path, replication='["sg"]'))
    assert caught.value.code == "out_of_region" and "sg" in caught.value.refusal.clause
    with pytest.raises(RefusedError):  # accepting a change does not move data over the border
        attest_store(shore.center, described(tmp_path, replication='["sg"]'), accept=True)
    assert [line["code"] for line in shore.lines("border.refused")] == ["out_of_region"] * 2


@pytest.mark.parametrize(
    "changes", [{"replication": '["us"]'}, {"lifecycle": '["to-archive"]'}, {"versions": "true"}, {"bucket": '"b"'}]
)
def test_48_a_set_up_that_changed_is_an_alarm_until_somebody_accepts_it(
    shore: Shore, tmp_path: Path, changes: dict[str, str]
) -> None:
    attest_store(shore.center, described(tmp_path))
    with pytest.raises(RefusedError) as caught:
        attest_store(shore.center, described(tmp_path, **changes))
    shown = tuple("more" if name == "bucket" else name for name in changes)
    assert caught.value.code == "drifted" and shown[0] in caught.value.refusal.subject
    accepted = attest_store(shore.center, described(tmp_path, **changes), accept=True)
    assert accepted.changed == shown
    assert attest_store(shore.center, described(tmp_path, **changes)).changed == ()


def test_a_store_of_another_region_and_a_file_that_says_too_little_are_refused(shore: Shore, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="out_of_region"):
        attest_store(shore.center, described(tmp_path, region='"cn"'))
    for changes in ({"replication": '"none"'}, {"versions": "1"}):
        with pytest.raises(InputError, match=next(iter(changes))):
            attest_store(shore.center, described(tmp_path, **changes))
    with pytest.raises(InputError, match="TOML"):
        attest_store(shore.center, tmp_path / "nowhere.toml")
    for text in ("2026-01-01", "1e999"):
        with pytest.raises(InputError, match="bad_config"):
            attest_store(shore.center, described(tmp_path, since=text))


@pytest.mark.parametrize("field", ["contact", "more", '"Some One"'])
def test_what_else_the_file_says_is_not_in_the_ledger(shore: Shore, tmp_path: Path, field: str) -> None:
    said = described(tmp_path, **{field: '"Some One 13800138000"'})
    first = attest_store(shore.center, said)
    assert attest_store(shore.center, said).sha256 == first.sha256
    assert len(shore.lines("border.store")) == 1
    ledger = (shore.center.root / "ledger" / "entries.jsonl").read_text(encoding="utf8")
    assert "13800138000" not in ledger and "Some One" not in ledger
    with pytest.raises(RefusedError) as caught:
        attest_store(shore.center, described(tmp_path, **{field: '"Some One 13800138001"'}))
    assert caught.value.code == "drifted"


def test_a_line_of_before_that_holds_every_field_is_no_change(shore: Shore, tmp_path: Path) -> None:
    said = described(tmp_path, bucket='"b"')
    facts = {"kind": "s3", "region": "us", "replication": [], "lifecycle": [], "versions": False, "bucket": "b"}
    mounts = attest_store(shore.center, said).facts["mounts"]
    shore.center.ledger.append("border.store", {"facts": {**facts, "mounts": mounts}})
    assert attest_store(shore.center, said).changed == ()


def test_of_two_file_systems_over_one_folder_the_upper_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{at} 1 0:{at} / {place} rw - {kind}" for at, place, kind in [
        (1, "/", "ext4 /dev/root"), (2, tmp_path, "xfs /dev/lower"), (3, tmp_path, "nfs abroad:/upper"), (4, "/o", "tmpfs o"),
    ]]  # fmt: skip
    mounted(monkeypatch, rows)
    assert storage._mounts([tmp_path / "blobs", Path("/")]) == [["nfs", "abroad:/upper"], ["ext4", "/dev/root"]]


def test_a_mount_with_a_blank_in_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(
        monkeypatch, ["1 1 0:1 / / rw - ext4 /dev/root", rf"2 1 0:2 / {tmp_path}/far\040\134away rw - nfs abroad:/x"]
    )
    assert storage._mounts([tmp_path / "far \\away" / "blobs"]) == [["nfs", "abroad:/x"]]


def mounted(monkeypatch: pytest.MonkeyPatch, rows: list[str]) -> None:
    read_text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda self, **how: "\n".join(rows) if self.name == "mountinfo" else read_text(self, **how)
    )
