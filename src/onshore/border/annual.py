"""The yearly report to the authority: what the ledger and the catalog count, and what only the operator can say.

Rule: which fields there are, and by which clause, is the region pack's; a field that nobody filled refuses the whole
report, because an empty field is no answer. The report holds counts, digests and salted ids, and the operator's words;
it is kept as an artifact and its digest is a ledger line.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.border.book import EXPORT, verified_book
from onshore.border.budgets import year_of
from onshore.border.lines import acting, refuse
from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError, NotFoundError, Refusal
from onshore.core.label import Label

if TYPE_CHECKING:
    from onshore.store import Center

REPORTED = "border.report"


@dataclass(frozen=True, kw_only=True)
class AnnualReport:
    """The report of one year: its artifact, the digest that stands in the ledger, the field texts in the pack's order."""

    id: str
    sha256: str
    year: int
    due: str
    fields: dict[str, Any]

    def as_record(self) -> dict[str, Any]:
        return dict(vars(self))


def annual_report(center: Center, year: int, answers: Path | None = None) -> AnnualReport:
    """The report of a calendar year (UTC). answers: a TOML file of the operator with the fields that nothing here counts.

    Errors: RefusedError `incomplete` naming every empty field with what it asks and its clause; NotFoundError where the
    region's pack asks for no report; InputError for a file that is no TOML or answers what nobody asked.
    """
    asked: Mapping[str, Mapping[str, Any]] = center.pack.law.get("report", {}).get("annual", {})
    if not asked:
        raise NotFoundError(f"annual report of {center.region}", "this region's pack asks for none.")
    exports = [one for one in verified_book(center).exports if year_of(one.time_ns) == year]
    wanted = {name: row for name, row in asked.items() if exports or not row.get("exporters")}
    given = _answers(answers, asked)
    counted = {
        "processed": _processed,
        "storage": _storage,
        "erasures": _erasures,
        "refusals": _refusals,
        "exports": _exports,
    }
    found = {name: _field(center, year, row, given.get(name), counted) for name, row in wanted.items()}
    empty = [name for name, row in found.items() if row["answer"] in (None, "")]
    if empty:
        told = "; ".join(f"{name}: {wanted[name]['asks']} ({wanted[name]['clause']})" for name in empty)
        refusal = Refusal(
            code="incomplete",
            subject=f"annual report {year}",
            rule="report-complete",
            clause=f"CN-18; missing are {told}",
            remedy="Write the missing fields into the operator's file; 'none' is an answer where nothing happened.",
        )
        refuse(center, refusal, [])
    return _keep(center, year, found)


def _keep(center: Center, year: int, found: dict[str, Any]) -> AnnualReport:
    due = f"{year}-{center.pack.law['report']['annual_due']}"
    document = {"report": "annual", "region": center.region, "year": year, "due": due, "fields": found}
    data = canonical_json(document)
    made = center.put(data, Label(region=center.region, kind="report", retention="evidence"), name=f"annual-{year}")
    digest = sha256_hex(data)

    def line() -> dict[str, Any]:
        center.ledger.append(REPORTED, {"year": year, "report": digest, "artifact": made.id, "by": acting(center)})
        return {"report": digest}

    center.stage("border.report", {"report": digest}, line)
    return AnnualReport(id=made.id, sha256=digest, year=year, due=due, fields=found)


def _field(
    center: Center, year: int, row: Mapping[str, Any], given: Any, counted: Mapping[str, Callable[[Center, int], Any]]
) -> dict[str, Any]:
    source = str(row.get("from", ""))
    answer = counted[source](center, year) if source in counted else given
    plain = {
        "asks": row["asks"],
        "clause": row["clause"],
        "source": "center" if source else "operator",
        "answer": answer,
    }
    return plain if not source or given is None else {**plain, "remark": given}


def _answers(path: Path | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        record = tomllib.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as problem:
        raise InputError("bad_config", path, f"give a TOML file with one text per field ({problem}).") from problem
    unknown = sorted(set(record) - set(asked))
    if unknown or any(not isinstance(text, str) for text in record.values()):
        wrong = unknown or sorted(name for name, text in record.items() if not isinstance(text, str))
        raise InputError("bad_config", f"{path}: {wrong[0]}", f"fields are texts, named {', '.join(asked)}.")
    return {name: text.strip() for name, text in record.items()}


def _lines(center: Center, year: int, *kinds: str) -> list[dict[str, Any]]:
    return [one.body for one in center.ledger.entries() if one.kind in kinds and year_of(one.time_ns) == year]


def _processed(center: Center, year: int) -> dict[str, Any]:
    """What is here now, by kind of artifact, and how many subjects it is about; reports do not count themselves."""
    artifacts = [one for one in center.artifacts() if one.label.kind != "report"]
    kinds = Counter(one.label.kind for one in artifacts)
    sizes = Counter[str]()
    for one in artifacts:
        sizes[one.label.kind] += one.size_bytes
    return {
        "artifacts": dict(sorted(kinds.items())),
        "bytes": dict(sorted(sizes.items())),
        "subjects": len({subject for one in artifacts for subject in one.label.subjects}),
        "synthetic_artifacts": sum(one.label.synthetic for one in artifacts),
    }


def _storage(center: Center, year: int) -> dict[str, Any]:
    return {"region": center.region, "center": center.id, "retention_days": dict(center.pack.law["retention_days"])}


def _erasures(center: Center, year: int) -> dict[str, int]:
    kinds = ("border.erasure.opened", "border.erasure.done")
    return {kind.rpartition(".")[2]: len(_lines(center, year, kind)) for kind in kinds}


def _refusals(center: Center, year: int) -> dict[str, int]:
    bodies = _lines(center, year, "refusal", "border.refused")
    return dict(sorted(Counter(str(body.get("code", "unknown")) for body in bodies).items()))


def _exports(center: Center, year: int) -> list[dict[str, Any]]:
    """By recipient (salted id): how many files and bytes left, and of which kinds."""
    by: dict[str, dict[str, Any]] = {}
    for body in _lines(center, year, EXPORT):
        row = by.setdefault(
            body["recipient"], {"recipient": body["recipient"], "files": 0, "bytes": 0, "artifacts": []}
        )
        row["files"] += 1
        row["bytes"] += body["bytes"]
        row["artifacts"].append(body["artifact"])
    return [by[recipient] for recipient in sorted(by)]
