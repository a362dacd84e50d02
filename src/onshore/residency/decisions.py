"""Decisions: Cedar with a schema, parsed once, and a raw ban in code that no policy file can lift.

Rule: anything but Allow without errors is a refusal. The code path of the raw ban shares nothing with the policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onshore.core.errors import InputError, Refusal
from onshore.core.label import Label

if TYPE_CHECKING:
    from onshore.region import RegionPack

ACTIONS = frozenset(["store", "read", "train", "show", "export", "import"])
#: What identifies people or secrets: nothing that carries one of these leaves.
RAW_SENSITIVITIES = frozenset(["face", "plate", "voice", "cabin", "vin"])
#: Later than any expiry: a question without a time finds every permit expired.
NO_TIME_S = (1 << 63) - 1
#: Of several refusals that apply, the one people read first.
URGENCY = ("unlabelled", "raw_ban", "out_of_region", "import_refused", "not_cleared", "permit_invalid", "not_allowed")
UNKNOWN = Refusal(
    code="no_decision",
    subject="",
    rule="default-deny",
    clause="no policy gave a clean Allow",
    remedy="Check the region pack's policy.cedar; until it answers, the answer is no.",
)


@dataclass(frozen=True, kw_only=True)
class PermitFacts:
    """Facts about a permit, established from its signatures by `border`. approvals: distinct people, requester excluded."""

    id: str
    artifacts: frozenset[str]
    kinds: frozenset[str]
    recipient_region: str
    purpose: str
    expires_s: int
    approvals: int
    threshold: int
    accepts: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question: may `actor` do `action` with the artifact `artifact` that carries `label`, at the center of `region`?

    actor_region: where the person asks from, the center's own unless given. now_s: POSIX seconds; without it no permit
    is in time.
    """

    action: str
    label: Label | None
    region: str
    actor: str
    role: str
    recipient_region: str | None = None
    purpose: str = ""
    permit: PermitFacts | None = None
    artifact: str = ""
    actor_region: str | None = None
    now_s: int | None = None


class Rules:
    """One region's rules, parsed and checked against the schema once; `decide` answers."""

    def __init__(self, *, policy_text: str, schema_text: str, digest: str = "") -> None:
        import cedarpy

        self.digest = digest
        try:
            self._schema = cedarpy.Schema.from_str(schema_text)
            self._policies = cedarpy.PolicySet.from_str(policy_text)
        except ValueError as fault:
            raise InputError("bad_config", "policy.cedar", f"Cedar cannot read it: {fault}.") from fault
        checked = cedarpy.validate_policies(policy_text, schema_text)
        if not checked.validation_passed:
            faults = "; ".join(str(error) for error in checked.errors)
            raise InputError("bad_config", "policy.cedar", f"it does not fit the schema: {faults}.")
        self._texts = _annotations(cedarpy.policies_to_json_str(policy_text))

    @classmethod
    def from_pack(cls, pack: RegionPack) -> Rules:
        return cls(policy_text=pack.policy_text, schema_text=pack.schema_text, digest=pack.digest)

    def decide(self, request: Request) -> Refusal | None:
        """None when it is allowed, else the refusal; an unknown action is refused, too."""
        label = request.label
        if label is None:
            return _unlabelled(request)
        banned = raw_ban(request)
        if banned is not None:
            return banned
        if request.action not in ACTIONS:
            return _about(UNKNOWN, request)
        return self._ask(request, label)

    def _ask(self, request: Request, label: Label) -> Refusal | None:
        import cedarpy

        try:
            entities = cedarpy.Entities.from_json_str(entities_json(request, label), self._schema)
            answer = cedarpy.is_authorized(question(request, label), self._policies, entities, self._schema)
        except ValueError:
            return _about(UNKNOWN, request)
        if answer.decision == cedarpy.Decision.Allow and not answer.diagnostics.errors:
            return None
        if answer.decision != cedarpy.Decision.Deny or answer.diagnostics.errors:
            return _about(UNKNOWN, request)
        return self._explain(request, answer.diagnostics.reasons)

    def _explain(self, request: Request, reasons: list[str]) -> Refusal:
        """The most urgent of the forbids that applied; none at all means that no permit matched."""
        found = [(_urgency(self._texts[name]["code"]), name) for name in reasons if "code" in self._texts.get(name, {})]
        if not found:
            return _about(UNKNOWN, request)
        # Of two forbids with one code, the one written first in the policy file speaks.
        text = self._texts[min(found, key=lambda pair: (pair[0], len(pair[1]), pair[1]))[1]]
        return Refusal(
            code=text["code"],
            subject=_subject(request),
            rule=text.get("id", "policy.cedar"),
            clause=text.get("clause", "policy.cedar"),
            remedy=text.get("remedy", ""),
        )


def _urgency(code: str) -> int:
    return URGENCY.index(code) if code in URGENCY else len(URGENCY)


def raw_ban(request: Request) -> Refusal | None:
    """The ban in code: no export of recordings or of what still identifies people, no use of raw but anonymising."""
    label = request.label
    if label is None:
        return _unlabelled(request)
    leaves = request.action == "export" or (request.recipient_region or request.region) != request.region
    identifying = label.sensitivity & RAW_SENSITIVITIES
    if leaves and (label.kind == "raw_drive" or identifying):
        return _raw_refusal(request, "raw recordings and identifying data never leave (CN-03, CN-21, US-02)")
    if label.kind == "raw_drive" and request.action in {"train", "show"}:
        return _raw_refusal(request, "no raw frame outside the sealed zone (CN-10)")
    if label.kind == "raw_drive" and request.action == "read" and request.purpose != "anonymise":
        return _raw_refusal(request, "no raw frame outside the sealed zone (CN-10)")
    return None


def _raw_refusal(request: Request, clause: str) -> Refusal:
    remedy = "Use the anonymised segments made of it; only weights and figures may be asked to leave."
    return Refusal(code="raw_ban", subject=_subject(request), rule="raw-ban", clause=clause, remedy=remedy)


def _unlabelled(request: Request) -> Refusal:
    remedy = "Bring it in through the center, which labels it; a file without a label does not exist."
    return Refusal(
        code="unlabelled",
        subject=_subject(request),
        rule="labelled",
        clause="every artifact has a label",
        remedy=remedy,
    )


def _subject(request: Request) -> str:
    what = request.artifact or (request.label.kind if request.label else "unlabelled bytes")
    return f"{request.action} {what}"


def _about(refusal: Refusal, request: Request) -> Refusal:
    return Refusal(**{**refusal.as_record(), "subject": _subject(request)})


def entities_json(request: Request, label: Label) -> str:
    person = {"region": request.actor_region or request.region, "role": request.role}
    attributes = {
        "region": label.region,
        "kind": label.kind,
        "sensitivity": sorted(label.sensitivity),
        "retention": label.retention,
        "custodian": label.custodian,
        "derived_from_raw": label.derived_from_raw,
        "synthetic": label.synthetic,
    }
    return json.dumps(
        [
            {"uid": {"type": "Person", "id": request.actor}, "attrs": person, "parents": []},
            {"uid": {"type": "Artifact", "id": request.artifact or "asked"}, "attrs": attributes, "parents": []},
        ]
    )


def question(request: Request, label: Label) -> dict[str, Any]:
    context: dict[str, Any] = {
        "center": request.region,
        "purpose": request.purpose,
        "recipient": request.recipient_region or request.region,
        "now_s": NO_TIME_S if request.now_s is None else request.now_s,
    }
    if request.permit is not None:
        context["permit"] = _permit(request.permit, request, label)
    return {
        "principal": {"type": "Person", "id": request.actor},
        "action": {"type": "Action", "id": request.action},
        "resource": {"type": "Artifact", "id": request.artifact or "asked"},
        "context": context,
    }


def _permit(permit: PermitFacts, request: Request, label: Label) -> dict[str, Any]:
    return {
        "covers": bool(request.artifact) and request.artifact in permit.artifacts and label.kind in permit.kinds,
        "recipient": permit.recipient_region,
        "purpose": permit.purpose,
        "expires_s": permit.expires_s,
        "approvals": permit.approvals,
        "threshold": permit.threshold,
        "accepts": sorted(permit.accepts),
    }


def _annotations(policies_json: str) -> Mapping[str, dict[str, str]]:
    policies = json.loads(policies_json)["staticPolicies"]
    return MappingProxyType({name: dict(policy.get("annotations", {})) for name, policy in policies.items()})
