"""What an artifact was made of, as the catalog holds it: the facts that `lineage`, `leakage` and `audit` judge.

Rule: reads the catalog and judges nothing but one thing: whose data is in it. Nobody's, only when everything it was made of
began as a synthetic recording or world; one beginning that is not, or that cannot be told, and somebody's data counts as in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onshore.border.lineage import ancestors_first
from onshore.core.label import Artifact

if TYPE_CHECKING:
    from onshore.store import Center

#: What data begins as. Anything else without parents has lost sight of where it comes from.
BEGINNINGS = frozenset(["raw_drive", "segment", "takeovers", "rollouts"])
_FEW = 100
Finder = Callable[[str], Artifact]


def finder(center: Center, target: Artifact) -> Finder:
    """Finds ancestors of `target` by id, with few queries; what the catalog raises goes through."""
    known: dict[str, Artifact] = {target.id: target}

    def parent_of(identity: str) -> Artifact:
        if identity not in known and len(known) == _FEW:  # a large dataset: one query instead of one per clip
            known.update((one.id, one) for one in center.artifacts())
        if identity not in known:
            known[identity] = center.artifact(identity)
        return known[identity]

    return parent_of


def ancestors(center: Center, target: Artifact, parent_of: Finder | None = None) -> list[Artifact]:
    """`target` and everything it was made of, parents before children. Errors: NotFoundError, InputError `unlabelled`."""
    return ancestors_first(target, parent_of or finder(center, target))


def is_nobodys(center: Center, target: Artifact, parent_of: Finder | None = None) -> bool:
    """Whether all of it began as synthetic: the label alone will not do, a mixture of real and synthetic says synthetic too.

    A model from outside counts only when its permit's signatures were verified and say synthetic.
    """
    return all(_began_synthetic(one) for one in ancestors(center, target, parent_of) if not one.parents)


def _began_synthetic(one: Artifact) -> bool:
    verified = one.label.kind == "inbound_model" and one.meta.get("origin_trust") == "verified"
    return one.label.synthetic and (verified or one.label.kind in BEGINNINGS)
