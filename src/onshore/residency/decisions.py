"""Decisions: Cedar with a schema, parsed once, and a raw ban in code that no policy file can lift.

Rule: anything but Allow without errors is a refusal. The code path of the raw ban shares nothing with the policy. The same
question has the same answer: the engine is asked once for everything that it would read, and remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
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
#: Answers that are remembered. Labels repeat from clip to clip; permits are asked about anew every second.
REMEMBERED = 4096
#: Stands for any one artifact or person in rules that name none.
ANYONE = "asked"
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
    """One region's rules, parsed and checked against the schema once; `decide` answers. remembered: so many answers are kept."""

    def __init__(self, *, policy_text: str, schema_text: str, digest: str = "", remembered: int = REMEMBERED) -> None:
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
        policies = json.loads(cedarpy.policies_to_json_str(policy_text))
        self._texts = _annotations(policies)
        self._names_ids = _names_ids(policies)
        self._answer = lru_cache(maxsize=remembered)(self._engine)

    @classmethod
    def from_pack(cls, pack: RegionPack, *, remembered: int = REMEMBERED) -> Rules:
        texts = {"policy_text": pack.policy_text, "schema_text": pack.schema_text}
        return cls(**texts, digest=pack.digest, remembered=remembered)

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
        who, what = (request.actor, request.artifact or ANYONE) if self._names_ids else (ANYONE, ANYONE)
        try:
            allowed, reasons = self._answer(
                who, what, request.action, entities_json(request, label, who, what), context_json(request, label)
            )
        except ValueError:
            return _about(UNKNOWN, request)
        return None if allowed else self._explain(request, reasons)

    def _engine(self, who: str, what: str, action: str, entities: str, context: str) -> tuple[bool, tuple[str, ...]]:
        """(allowed, the forbids that applied) of everything that the engine reads. Errors: ValueError without a clean answer."""
        import cedarpy

        known = cedarpy.Entities.from_json_str(entities, self._schema)
        answer = cedarpy.is_authorized(question(who, what, action, context), self._policies, known, self._schema)
        if answer.diagnostics.errors or answer.decision not in (cedarpy.Decision.Allow, cedarpy.Decision.Deny):
            raise ValueError("no clean answer")
        return answer.decision == cedarpy.Decision.Allow, tuple(answer.diagnostics.reasons)

    def _explain(self, request: Request, reasons: Sequence[str]) -> Refusal:
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


def entities_json(request: Request, label: Label, who: str = ANYONE, what: str = ANYONE) -> str:
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
            {"uid": {"type": "Person", "id": who}, "attrs": person, "parents": []},
            {"uid": {"type": "Artifact", "id": what}, "attrs": attributes, "parents": []},
        ]
    )


def context_json(request: Request, label: Label) -> str:
    """What a policy may know beside who and what. The time belongs to the permit: nothing else depends on it."""
    context: dict[str, Any] = {
        "center": request.region,
        "purpose": request.purpose,
        "recipient": request.recipient_region or request.region,
    }
    if request.permit is not None:
        context["permit"] = _permit(request.permit, request, label)
    return json.dumps(context)


def question(who: str, what: str, action: str, context: str) -> dict[str, Any]:
    return {
        "principal": {"type": "Person", "id": who},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Artifact", "id": what},
        "context": context,
    }


def _permit(permit: PermitFacts, request: Request, label: Label) -> dict[str, Any]:
    return {
        "covers": bool(request.artifact) and request.artifact in permit.artifacts and label.kind in permit.kinds,
        "recipient": permit.recipient_region,
        "purpose": permit.purpose,
        "expires_s": permit.expires_s,
        "now_s": NO_TIME_S if request.now_s is None else request.now_s,
        "approvals": permit.approvals,
        "threshold": permit.threshold,
        "accepts": sorted(permit.accepts),
    }


def _annotations(policies: Mapping[str, Any]) -> Mapping[str, dict[str, str]]:
    found = policies["staticPolicies"]
    return MappingProxyType({name: dict(policy.get("annotations", {})) for name, policy in found.items()})


def _names_ids(part: object) -> bool:
    """Whether a policy names one person or artifact: then, and only then, an answer depends on who or what is asked about."""
    if isinstance(part, dict):
        named = "id" in part and part.get("type") not in (None, "Action")
        return named or any(map(_names_ids, part.values()))
    return isinstance(part, list) and any(map(_names_ids, part))
