"""Reads a region pack: law, duties, policy, roads, rules and suites of one jurisdiction, under one digest.

Rule: data only, read as it lies. A pack without its law files does not load; the world's files may be absent.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onshore.core.digest import record_digest, sha256_hex
from onshore.core.errors import InputError, NotFoundError

PACKS = Path(__file__).parent / "packs"
SCHEMA_FILE = "schema.cedarschema"
DUTY_FIELDS = ("id", "clause", "demand", "control", "evidence", "certainty", "status")
DUTY_STATUSES = frozenset(["enforced", "attested", "operator"])


@dataclass(frozen=True, kw_only=True)
class RegionPack:
    """One jurisdiction as data. digest covers every file of the pack and the shared Cedar schema."""

    region: str
    law: dict[str, Any]
    policy_text: str
    schema_text: str
    digest: str
    duties: list[dict[str, Any]] = field(default_factory=list)
    roads: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    suites: dict[str, Any] = field(default_factory=dict)


def regions(packs: Path = PACKS) -> list[str]:
    """The regions that have a pack, sorted."""
    return sorted(path.parent.name for path in packs.glob("*/region.toml"))


def load_pack(region: str, packs: Path = PACKS) -> RegionPack:
    """Load one region's pack. Errors: NotFoundError for an unknown region, InputError `bad_config` for a bad file."""
    folder = packs / region
    if not re.fullmatch("[a-z]{2}", region) or not (folder / "region.toml").is_file():
        raise NotFoundError(f"region {region!r}", f"there is a pack for {', '.join(regions(packs))}.")
    texts = {path.name: path.read_text(encoding="utf8") for path in sorted(folder.iterdir()) if path.is_file()}
    if "policy.cedar" not in texts:
        raise InputError("bad_config", folder / "policy.cedar", "a pack without a policy allows nothing; add the file.")
    schema = (packs / SCHEMA_FILE).read_text(encoding="utf8")
    return RegionPack(
        region=region,
        law=_toml(texts, "region.toml"),
        policy_text=texts["policy.cedar"],
        schema_text=schema,
        digest=record_digest(
            {name: sha256_hex(text.encode()) for name, text in {**texts, SCHEMA_FILE: schema}.items()}
        ),
        duties=_duties(region, _toml(texts, "duties.toml")),
        roads=_toml(texts, "roads.toml"),
        rules=_toml(texts, "rules.toml"),
        suites=_toml(texts, "suites.toml"),
    )


def _toml(texts: dict[str, str], name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(texts.get(name, ""))
    except tomllib.TOMLDecodeError as fault:
        raise InputError("bad_config", name, f"expected TOML: {fault}.") from fault


def _duties(region: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    duties: list[dict[str, Any]] = document.get("duty", [])
    for duty in duties:
        missing = [name for name in DUTY_FIELDS if not duty.get(name)]
        if missing or duty["status"] not in DUTY_STATUSES:
            where = f"duties.toml of {region}, duty {duty.get('id', '?')}"
            raise InputError("bad_config", where, f"give {missing or 'a status of ' + str(sorted(DUTY_STATUSES))}.")
    return duties
