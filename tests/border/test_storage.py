"""Attempt 48: replication to another region, or a lifecycle rule, turned on after the store was attested."""

from __future__ import annotations

from pathlib import Path

import pytest

from border.conftest import Shore
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
    assert caught.value.code == "drifted" and next(iter(changes)) in caught.value.refusal.subject
    accepted = attest_store(shore.center, described(tmp_path, **changes), accept=True)
    assert accepted.changed == tuple(changes)
    assert attest_store(shore.center, described(tmp_path, **changes)).changed == ()


def test_a_store_of_another_region_and_a_file_that_says_too_little_are_refused(shore: Shore, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="out_of_region"):
        attest_store(shore.center, described(tmp_path, region='"cn"'))
    for changes in ({"replication": '"none"'}, {"versions": "1"}):
        with pytest.raises(InputError, match=next(iter(changes))):
            attest_store(shore.center, described(tmp_path, **changes))
    with pytest.raises(InputError, match="TOML"):
        attest_store(shore.center, tmp_path / "nowhere.toml")
