"""What the law asks, what answers it here, and what a refusal means: texts for people who read no code.

Rule: nothing here decides. A duty that claims to be enforced names the test that shows it; what a person or a site must
do is 'operator', and stays so however much software there is. None of it is legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onshore.core.errors import ERROR_CODES, Refusal, UsageError
from onshore.region import RegionPack

if TYPE_CHECKING:
    from onshore.store import Center

NOT_ADVICE = "onshore is software, not a lawyer: this is no legal advice. Have counsel read the clauses."


@dataclass(frozen=True, kw_only=True)
class _Text:
    clause: str
    remedy: str


#: The gate's own rules by name; a region pack's policy.cedar brings its own.
RULES: dict[str, _Text] = {
    "raw-ban": _Text(
        clause="Raw recordings and whatever still shows faces, plates, voices, cabins or vehicle numbers never leave; no "
        "permit and no policy file lifts this (CN-03, CN-10, CN-21, US-02).",
        remedy="Work with the anonymised segments; only weights and figures made of them may be asked to leave.",
    ),
    "labelled": _Text(
        clause="Every artifact has a label. Bytes that the center never labelled do not exist for it (DSL 21).",
        remedy="Bring the file in through `onshore drive add` or `onshore border import`.",
    ),
    "lineage": _Text(
        clause="A label carries all that its parents carried unless a declassifier attested, with a figure, what it took "
        "out. The gate reckons this again itself and does not believe the label.",
        remedy="Make the artifact again through the stages that derive its label; ask who changed the catalog.",
    ),
    "kinds-that-leave": _Text(
        clause="Only what can be written anew leaves: weights, networks and figures. Everything else would be a copy.",
        remedy="Export the weights, their ONNX or the metrics instead.",
    ),
    "made-anew": _Text(
        clause="Weights and networks are rewritten to their tensor manifest, figures to their schema; anything more refuses.",
        remedy="Make the artifact again so that it holds only what its manifest or schema names.",
    ),
    "content-scan": _Text(
        clause="What leaves is searched for pictures, films, archives, code, vehicle numbers, plates and positions.",
        remedy="Find out how it got there; make the artifact again without it.",
    ),
    "anonymisation-audit": _Text(
        clause="CN-11: people look at a drawn sample of what was anonymised; the lower bound of each bucket that the pack "
        "names reaches its policy value, or nothing trained on it leaves or is released.",
        remedy="`onshore border audit draw`, mark every picture, `onshore border audit mark`; or anonymise better and again.",
    ),
    "leakage-certificate": _Text(
        clause="Weights leave with a measurement of what they remember; one that has memorised its canaries stays.",
        remedy="`onshore border canary make`, train on them, `onshore border leakage MODEL`; or train with less repetition.",
    ),
    "yearly-budget": _Text(
        clause="CN-02: no export beyond the scale assessed; splitting it into parts does not help.",
        remedy="Wait for the next year, or have the assessment and `[export.budget]` in region.toml raised.",
    ),
    "permit-needed": _Text(
        clause="An export needs a permit (CN-02; 28 CFR 202.1001).",
        remedy="`onshore border permit request`, then two other people `onshore border permit approve`.",
    ),
    "permit-artifact": _Text(
        clause="A permit covers the bytes of one digest and no other.", remedy="Request a permit for these bytes."
    ),
    "permit-recipient": _Text(
        clause="A permit covers one recipient in one region.", remedy="Request a permit that names this recipient."
    ),
    "permit-statement": _Text(
        clause="A permit is exactly the statement that was signed; a changed letter makes it another one.",
        remedy="Find out who changed it; request a new one and have it approved.",
    ),
    "permit-expired": _Text(
        clause="A permit ends; setting the clock back does not revive it, the ledger's time counts.",
        remedy="Request a new permit and have it approved again.",
    ),
    "permit-early": _Text(clause="A permit issued in the future counts for nothing.", remedy="Set the clock right."),
    "permit-basis": _Text(
        clause="A permit names the assessment, contract or decision that the transfer rests on (CN-02, CN-20; EU-03).",
        remedy="Request a permit with `--basis`, and have it approved again.",
    ),
    "permit-approvers": _Text(
        clause="Two distinct people with distinct keys approve, and neither is the one who asked.",
        remedy="Have another enrolled person approve.",
    ),
    "retention": _Text(
        clause="What has expired is unreadable from that moment, counted from intake on the center's clock (CN-16).",
        remedy="`onshore border sweep` destroys it with receipts; the days are in `[retention_days]` of region.toml.",
    ),
    "erased-everywhere": _Text(
        clause="CN-17: an erasure is done when no store holds bytes of the subject.",
        remedy="Run `onshore border erase` again for this subject; `onshore border erasure show` names what still holds.",
    ),
    "report-complete": _Text(
        clause="CN-18: the yearly report says all that Art. 13 and, for exporters, Art. 14 ask; an empty field is no answer.",
        remedy="Write the missing fields into the operator's file; 'none' is an answer where nothing happened.",
    ),
    "store-as-attested": _Text(
        clause="CN-01: the store is what was attested; replication or a mount that changed since is an alarm.",
        remedy="Find out who changed it; if it is right, `onshore border attest-store FILE --accept`.",
    ),
    "roles": _Text(
        clause="Each verb belongs to roles; a person acts in one of theirs (CN-02, CN-22).",
        remedy="Act as somebody whose role it is (--as NAME), or have compliance enroll you.",
    ),
    "seeing-is-export": _Text(
        clause="Access from abroad is export; without a certificate of the region a viewer is abroad (CN-22).",
        remedy="Show the client certificate of an enrolled person of this region, or ask for an export permit.",
    ),
    "one-exit": _Text(
        clause="A folder that center.toml does not name as in-region is outside (CN-01, CN-22, US-02).",
        remedy="Write into an in-region folder, or export one artifact under a permit.",
    ),
    "import-gate": _Text(
        clause="Only safetensors comes in, strictly parsed and written anew (CN-28, US-01).",
        remedy="Convert pickles inside the jail; save plain parameters without metadata.",
    ),
    "default-deny": _Text(
        clause="No clean Allow is a no: an empty, broken or silent policy allows nothing.",
        remedy="Check the region pack's policy.cedar.",
    ),
}


#: Which test shows that an enforced duty is; a duty that no test shows is listed as the operator's.
SHOWN_BY: dict[str, str] = {
    "CN-01": "tests/store/test_center.py::test_refusals_are_in_the_ledger",
    "CN-02": "tests/border/test_red_team.py::test_32_approval_replayed_for_another_digest",
    "CN-03": "tests/border/test_red_team.py::test_removing_any_single_control_still_refuses_a_raw_export",
    "CN-04": "tests/drive/test_fences_and_positions.py::test_a_recording_that_touches_a_fence_stays_out",
    "CN-05": "tests/border/test_red_team.py::test_38_metrics_as_a_side_channel",
    "CN-06": "tests/store/test_custody.py::test_30_the_site_counts_subjects_over_all_datasets",
    "CN-10": "tests/residency/test_decisions.py::test_raw_is_read_only_to_anonymise",
    "CN-11": "tests/border/test_audit.py::test_16_a_bound_below_the_policy_blocks_though_nothing_was_missed",
    "CN-14": "tests/residency/test_decisions.py::test_cabin_is_neither_trained_on_nor_shown",
    "CN-16": "tests/store/test_custody.py::test_what_expired_is_unreadable_though_no_sweeper_ran",
    "CN-17": "tests/border/test_erasure.py::test_60_an_erasure_is_not_closed_while_a_store_holds_it",
    "CN-18": "tests/border/test_annual.py::test_a_report_with_an_empty_field_is_refused",
    "CN-21": "tests/residency/test_decisions.py::test_other_kinds_are_not_cleared",
    "CN-22": "tests/border/test_seeing.py::test_50_foreign_engineer_behind_an_in_region_jump_host",
    "CN-24": "tests/drive/test_fences_and_positions.py::test_engineers_see_coarse_positions_and_the_custodian_precise_ones",
    "CN-25": "tests/drive/test_fences_and_positions.py::test_a_licensed_processor_is_plugged_in_and_none_is_ours",
    "CN-30": "tests/release/test_release_signing.py::test_words_the_region_forbids_stop_a_release",
    "EU-01": "tests/border/test_erasure.py::test_60_an_erasure_is_not_closed_while_a_store_holds_it",
    "EU-02": "tests/border/test_lineage.py::test_no_path_from_raw_outside_without_its_declassifier",
    "EU-03": "tests/border/test_permits.py::test_a_region_that_asks_for_a_legal_basis_gets_one_in_every_permit",
    "US-01": "tests/border/test_gate.py::test_us_does_not_take_software_from_a_named_country",
    "US-02": "tests/border/test_gate.py::test_a_yearly_budget_counts_over_all_exports",
}


def explain(refusal: Refusal | Mapping[str, Any] | str, pack: RegionPack | None = None) -> dict[str, str]:
    """Rule, clause and remedy of a refusal: its record, a ledger line's body, a rule's name, or a code.

    pack: adds the names of that region's policy. Errors: UsageError when nobody knows the name.
    """
    known: Mapping[str, Any] = {}
    if isinstance(refusal, str):
        name, code = _RULE_OF.get(refusal, refusal), refusal if refusal in ERROR_CODES else ""
    else:
        known = refusal.as_record() if isinstance(refusal, Refusal) else refusal
        name, code = str(known.get("rule", "")), str(known.get("code", ""))
    texts = _texts(pack)
    text = texts.get(name) or texts.get(_RULE_OF.get(code, ""))
    if text is None and code:
        text = _Text(clause=ERROR_CODES.get(code, code), remedy="The refusal itself names its rule and what to do.")
    if text is None:
        raise UsageError(f"refusal {name!r}", f"known rules are {', '.join(sorted(texts))}.")
    return {
        "rule": name,
        "code": code,
        "clause": str(known.get("clause") or text.clause),
        "remedy": str(known.get("remedy") or text.remedy),
        "meaning": ERROR_CODES.get(code, ""),
        "note": NOT_ADVICE,
    }


#: The rule that usually stands behind a code that somebody types.
_RULE_OF = {
    "raw_ban": "raw-ban",
    "unlabelled": "labelled",
    "permit_invalid": "permit-needed",
    "no_decision": "default-deny",
    "not_in_region": "one-exit",
    "import_refused": "import-gate",
    "limit_exceeded": "yearly-budget",
    "not_cleared": "kinds-that-leave",
    "out_of_region": "in-region",
    "not_allowed": "asked-from-abroad",
    "expired": "retention",
    "still_held": "erased-everywhere",
    "laundered": "import-gate",
    "incomplete": "report-complete",
    "drifted": "store-as-attested",
}


def _texts(pack: RegionPack | None) -> dict[str, _Text]:
    return {**_policy_texts(pack.policy_text if pack else ""), **RULES}


def _policy_texts(policy: str) -> dict[str, _Text]:
    """The @id, @clause and @remedy annotations of a Cedar file, read as text: a broken policy can still be explained."""
    import re

    found: dict[str, _Text] = {}
    for block in re.split(r'(?=@id\(")', policy):
        notes = dict(re.findall(r'@(id|clause|remedy)\("((?:[^"\\]|\\.)*)"\)', block))
        if {"id", "clause", "remedy"} <= notes.keys():
            found[notes["id"]] = _Text(clause=notes["clause"], remedy=notes["remedy"])
    return found


def duties(center: Center) -> list[dict[str, Any]]:
    """The region's duties as the pack lists them, each with what stands behind its status.

    status: 'enforced' (by code; `shown_by` names the test), 'attested' (the center records it and says so) or
    'operator' (people or the site do it). An enforced duty that no test shows is listed as 'operator'. No legal advice.
    """
    listed = []
    for duty in center.pack.duties:
        shown_by = str(duty.get("test", SHOWN_BY.get(duty["id"], "")))
        status = duty["status"] if duty["status"] != "enforced" or shown_by else "operator"
        listed.append({**duty, "status": status, "shown_by": shown_by if status == "enforced" else ""})
    return listed
