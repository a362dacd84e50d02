"""Users of a center: who they are, which roles they have, which region they belong to, and what each role may do.

Rule: enrolling and dismissing are ledger lines and the ledger alone counts; a name nobody enrolled may do nothing, and a
verb that no row names is refused. The first person of a fresh center is whoever runs it. Who stands behind a name on the
command line is only as sure as the key folder is closed; docs/border.md says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from onshore.border.book import PERSON, PERSON_DISMISSED, read_book
from onshore.border.lines import acting, refuse
from onshore.border.people import approver_keys, dismiss_approver, person, pseudonym
from onshore.border.viewing import issue_certificate, keep_certificate
from onshore.core.errors import InputError, NotFoundError, Refusal

if TYPE_CHECKING:
    from onshore.store import Center

ROLES = ("engineer", "custodian", "approver", "compliance", "auditor")
#: What the first person of a fresh center is. Approving takes other people.
OPERATOR = ("engineer", "custodian", "compliance", "auditor")
ANYBODY = frozenset(ROLES)
#: Verbs that only look, whatever the noun.
LOOKING = frozenset(["list", "show", "status", "verify", "diff", "duties", "explain", "check", "detectors", "recipes"])
#: Who may do what: the longest row that a verb begins with counts.
ACTS: dict[str, frozenset[str]] = {
    **{
        noun: frozenset(["engineer"])
        for noun in "car clip console dataset evaluation fleet flywheel model privacy release world".split()
    },
    "drive": frozenset(["engineer", "custodian"]),
    "drive fence": frozenset(["custodian"]),
    "drive fence check": frozenset(["custodian"]),
    "ledger": frozenset(["auditor", "compliance"]),
    "evidence": frozenset(["engineer", "auditor", "compliance"]),
    "border": frozenset(["compliance"]),
    "border audit": frozenset(["compliance", "auditor"]),
    "border import": frozenset(["engineer", "custodian"]),
    "border export": frozenset(["engineer", "custodian", "compliance"]),
    "border prove-jail": frozenset(["engineer", "auditor", "compliance"]),
    "border permit request": frozenset(["engineer", "custodian", "compliance"]),
    "border permit approve": frozenset(["approver"]),
    "backup": frozenset(["custodian"]),
}

#: Verbs of whoever runs the machine: they show nothing, and must answer when the ledger no longer can.
OPEN = frozenset(["doctor", "ledger verify"])
#: Verbs open to people who count as abroad, since they show nothing of the center's data.
SHOWING_NOTHING = frozenset(
    ["border permit approve", "border permit request", "border explain", "border duties", "border check"]
)
#: Verbs that show, from abroad, what has been cleared and nothing else.
SIFTING = frozenset(
    "drive list,drive show,clip find,clip show,dataset list,dataset show,model list,model show,release show".split(",")
)


def enroll_person(center: Center, name: str, roles: Iterable[str], *, region: str | None = None) -> dict[str, Any]:
    """Enroll `name` with these roles; again with others replaces them, the same again is a no-op.

    region: where the person belongs, the center's own unless given. Errors: InputError `bad_config` for a role or region
    that is none.
    """
    name, wanted, region = person(name), sorted(set(roles)), region or center.region
    if not wanted or set(wanted) - set(ROLES):
        raise InputError("bad_config", f"roles {wanted}", f"use one or more of {', '.join(ROLES)}.")
    if len(region) != 2 or not region.isalpha():
        raise InputError("bad_config", f"region {region!r}", "use a two-letter region such as us.")
    known = read_book(center).people.get(pseudonym(center, "person", name))
    if known is None or (sorted(known.roles), known.region) != (wanted, region):
        body = {"person": pseudonym(center, "person", name), "roles": wanted, "region": region}
        center.ledger.append(PERSON, {**body, "by": acting(center)})
    return {"name": name, "roles": wanted, "region": region}


def dismiss_person(center: Center, name: str) -> None:
    """From now on this person may do nothing, and their certificate says nothing. Errors: NotFoundError."""
    who = pseudonym(center, "person", person(name))
    if who not in read_book(center).people:
        raise NotFoundError(f"person {name}", "nobody of this name is enrolled.")
    center.ledger.append(PERSON_DISMISSED, {"person": who, "by": acting(center)})
    if person(name) in approver_keys(center):
        dismiss_approver(center, name)


def roles_of(center: Center, name: str) -> frozenset[str]:
    """The roles a name has now; who holds an enrolled approver's key is an approver."""
    who = read_book(center).people.get(pseudonym(center, "person", person(name)))
    roles = frozenset() if who is None else who.roles
    return roles | {"approver"} if person(name) in approver_keys(center) else roles


def may_act(verb: str, roles: frozenset[str]) -> str | None:
    """The role in which somebody with these roles runs this verb ('border permit approve'); None when none allows it."""
    words = verb.split()
    rows = [row for end in range(len(words), 0, -1) if (row := " ".join(words[:end])) in ACTS]
    looking = bool(words) and words[-1] in LOOKING and verb not in ACTS
    allowed = ANYBODY if looking else ACTS[rows[0]] if rows else frozenset()
    return next((role for role in ROLES if role in allowed & roles), None)


def admit(center: Center, verb: str, *, first: bool = False) -> None:
    """Give the center the role in which the acting person runs this verb, or RefusedError `not_allowed` with its line.

    first: this is who runs the machine; on a center where nobody was ever enrolled they become its operator, with a
    client certificate of the center's own CA.
    """
    if verb in OPEN:
        return
    if first and not read_book(center).ever_enrolled:
        enroll_person(center, center.actor, OPERATOR)
        keep_certificate(center, center.actor, issue_certificate(center, center.actor))
    roles = roles_of(center, center.actor)
    role = may_act(verb, roles)
    if role is None:
        refuse(center, _not_theirs(verb, roles), [])
    center.role = role


def _not_theirs(verb: str, roles: frozenset[str]) -> Refusal:
    held = ", ".join(sorted(roles)) or "none"
    return Refusal(
        code="not_allowed",
        subject=verb,
        rule="roles",
        clause=f"each act belongs to a role (CN-02, CN-22); this person's roles: {held}",
        remedy="Act as somebody whose role it is (--as NAME), or have compliance enroll you: onshore border people enroll.",
    )
