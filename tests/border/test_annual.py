"""The yearly report: refused while a field is empty, counted from the ledger, its digest in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from border.conftest import Shore, build
from onshore import border
from onshore.border.annual import annual_report
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, NotFoundError, RefusedError
from onshore.store import Center

YEAR = datetime.now(UTC).year
WORDS = "officer user_contact purpose necessity protection third_parties incidents complaints".split()
ABROAD = "export_necessity storage_abroad export_complaints".split()


@pytest.fixture
def cn(tmp_path: Path) -> Shore:
    return build(tmp_path / "cn", "cn")


def answers(tmp_path: Path, names: list[str], **other: str) -> Path:
    path = tmp_path / "answers.toml"
    texts = {name: f"what we say of {name}" for name in names} | other
    path.write_text("".join(f'{name} = "{text}"\n' for name, text in texts.items()), encoding="utf8")
    return path


def test_a_report_with_an_empty_field_is_refused(cn: Shore, tmp_path: Path) -> None:
    for path in (None, answers(tmp_path, WORDS[1:]), answers(tmp_path, WORDS[1:], officer="  ")):
        with pytest.raises(RefusedError) as caught:
            annual_report(cn.center, YEAR, path)
        assert caught.value.code == "incomplete" and "officer" in caught.value.refusal.clause
        assert cn.lines("border.refused")[-1]["code"] == "incomplete"
    assert cn.lines("border.report") == []


def test_a_complete_report_stands_in_the_ledger_once(cn: Shore, tmp_path: Path) -> None:
    path = answers(tmp_path, WORDS)
    report = annual_report(cn.center, YEAR, path)
    assert annual_report(cn.center, YEAR, path) == report
    assert [line["report"] for line in cn.lines("border.report")] == [report.sha256]
    assert sha256_hex(cn.center.read(report.id)) == report.sha256 and report.due == f"{YEAR}-12-15"
    counted = report.fields["processed"]["answer"]
    kinds = {kind: len(cn.center.artifacts(kind)) for kind in ("segment", "weights")}
    assert {kind: counted["artifacts"][kind] for kind in kinds} == kinds and counted["subjects"] >= 1
    assert not set(ABROAD) & set(report.fields)


def test_a_year_in_which_something_left_asks_for_more(cn: Shore, tmp_path: Path) -> None:
    border.export(cn.center, cn.weights.id, permit=cn.permit(), out_dir=tmp_path / "out")
    with pytest.raises(RefusedError) as caught:
        annual_report(cn.center, YEAR, answers(tmp_path, WORDS))
    assert all(name in caught.value.refusal.clause for name in ABROAD)
    report = annual_report(cn.center, YEAR, answers(tmp_path, WORDS + ABROAD))
    (row,) = report.fields["exports"]["answer"]
    (line,) = cn.lines("border.export")
    assert (row["recipient"], row["bytes"], row["files"]) == (line["recipient"], line["bytes"], 1)
    other = annual_report(cn.center, YEAR - 1, answers(tmp_path, WORDS))
    assert "exports" not in other.fields and other.sha256 != report.sha256


def test_wrong_answers_are_named(cn: Shore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weather"):
        annual_report(cn.center, YEAR, answers(tmp_path, WORDS, weather="fine"))
    broken = tmp_path / "broken.toml"
    broken.write_text("officer = ")
    for path in (broken, tmp_path / "nowhere.toml"):
        with pytest.raises(InputError, match="TOML"):
            annual_report(cn.center, YEAR, path)


def test_a_region_that_asks_for_no_report_says_so(shore: Shore) -> None:
    with pytest.raises(NotFoundError, match="asks for none"):
        annual_report(shore.center, YEAR)
    assert isinstance(shore.center, Center)
