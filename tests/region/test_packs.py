"""Packs are data that loads whole or not at all."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from onshore.core.errors import InputError, NotFoundError
from onshore.core.label import KINDS, RETENTIONS
from onshore.region import RegionPack, load_pack, regions
from onshore.region.packs import PACKS

DOCS = Path(__file__).parents[2] / "docs/region.md"


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKS, tmp_path / "packs"))


def test_there_are_packs() -> None:
    assert {"cn", "us"} <= set(regions())


@pytest.mark.parametrize("region", regions())
def test_a_pack_is_complete(region: str) -> None:
    pack = load_pack(region)
    assert pack.region == pack.law["region"] == region
    assert set(pack.law["topics"].values()) <= {"keep", "drop", "refuse", "custody"}
    assert pack.law["topics"]["default"] == "drop"
    assert set(pack.law["retention_days"]) == RETENTIONS
    assert set(pack.law["permit"]["kinds"]) <= KINDS
    assert pack.law["product"]["banned"] and pack.law["legal_basis"]


@pytest.mark.parametrize("region", regions())
def test_duties_are_unique_and_clauses_of_the_policy_are_among_them(region: str) -> None:
    pack = load_pack(region)
    ids = [duty["id"] for duty in pack.duties]
    assert len(ids) == len(set(ids)) >= 2
    cited = set(re.findall(r"(?:CN|EU|US)-\d\d", pack.policy_text + str(pack.law)))
    assert cited and cited <= set(ids), cited - set(ids)


def test_duties_of_cn_are_the_table() -> None:
    ids = {duty["id"] for duty in load_pack("cn").duties}
    assert ids == {f"CN-{number:02d}" for number in range(1, 33)} - {"CN-27"}


def test_duties_of_us_and_eu_are_the_table() -> None:
    assert {duty["id"] for duty in load_pack("us").duties} == {"US-01", "US-02"}
    assert {duty["id"] for duty in load_pack("eu").duties} == {f"EU-{number:02d}" for number in range(1, 7)}


def test_the_permit_kinds_of_law_and_policy_agree() -> None:
    for region in regions():
        pack = load_pack(region)
        listed = re.search(r"unless \{ \[([^\]]+)\]\.contains\(resource\.kind\) \};", pack.policy_text)
        assert listed is not None
        assert set(re.findall(r'"(\w+)"', listed[1])) == set(pack.law["permit"]["kinds"])


@pytest.mark.parametrize("region", ["xx", "", "../cn", "CN", "cnn"])
def test_an_unknown_region_is_not_found(region: str) -> None:
    with pytest.raises(NotFoundError, match="cn"):
        load_pack(region)


def test_the_digest_covers_every_file(packs: Path) -> None:
    before = load_pack("cn", packs).digest
    assert before == load_pack("cn").digest
    for path in [*sorted((packs / "cn").iterdir()), packs / "schema.cedarschema"]:
        text = path.read_text(encoding="utf8")
        path.write_text(text + "\n", encoding="utf8")
        assert load_pack("cn", packs).digest != before, path.name
        path.write_text(text, encoding="utf8")


def test_world_files_may_be_absent(packs: Path) -> None:
    for name in ("roads.toml", "rules.toml", "suites.toml"):
        (packs / "cn" / name).unlink(missing_ok=True)
    pack = load_pack("cn", packs)
    assert isinstance(pack, RegionPack) and pack.roads == {} and pack.suites == {}


def test_a_pack_without_policy_does_not_load(packs: Path) -> None:
    (packs / "cn" / "policy.cedar").unlink()
    with pytest.raises(InputError, match="policy"):
        load_pack("cn", packs)


def test_a_broken_file_is_named(packs: Path) -> None:
    (packs / "cn" / "region.toml").write_text("region = ", encoding="utf8")
    with pytest.raises(InputError, match=r"region\.toml"):
        load_pack("cn", packs)


def test_a_duty_without_control_or_with_an_unknown_status_is_named(packs: Path) -> None:
    duties = packs / "us" / "duties.toml"
    text = duties.read_text(encoding="utf8")
    duties.write_text(text.replace('status = "enforced"', 'status = "promised"', 1), encoding="utf8")
    with pytest.raises(InputError, match="US-01"):
        load_pack("us", packs)
    duties.write_text(re.sub("control = .*", 'control = ""', text, count=1), encoding="utf8")
    with pytest.raises(InputError, match="control"):
        load_pack("us", packs)


@pytest.mark.parametrize("status", ["enforced", "attested", "operator"])
def test_the_docs_count_duties_as_the_packs_do(status: str) -> None:
    row = re.search(rf"^\| {status} \|.*\| (\d+) \| (\d+) \| (\d+) \|$", DOCS.read_text(encoding="utf8"), re.MULTILINE)
    assert row is not None
    counts = [sum(duty["status"] == status for duty in load_pack(region).duties) for region in ("cn", "us", "eu")]
    assert [int(count) for count in row.groups()] == counts
