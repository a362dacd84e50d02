"""What is in a set and what is not, provable to somebody who knows only the set's root: a Merkle tree over sorted ids.

Rule: pure. Leaves are RFC 6962 leaf hashes of the ids in ascending order, each once. An id is in the set by its inclusion
proof; it is not by the inclusion proofs of the two neighbours between which it would stand (or of the first or last).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from onshore.store.merkle import EMPTY_ROOT, inclusion_proof, leaf_hash, root_of, verify_inclusion


def sorted_ids(ids: Iterable[str]) -> list[str]:
    """Each id once, in the order of its UTF-8 bytes."""
    return sorted(set(ids), key=str.encode)


def sorted_root(ids: Iterable[str]) -> str:
    """The root (hex) over the ids in order, each once."""
    return root_of([leaf_hash(one.encode()) for one in sorted_ids(ids)]).hex()


def prove(ids: Iterable[str], wanted: str) -> dict[str, Any]:
    """A proof that `wanted` is in the set, or that it is not: {"id", "present", "root", "size", "leaves"}.

    leaves: id, index and path (hex, nearest first) of the one leaf that is `wanted`, or of its neighbours.
    """
    names = sorted_ids(ids)
    hashes = [leaf_hash(name.encode()) for name in names]
    at = bisect_left([name.encode() for name in names], wanted.encode())
    present = at < len(names) and names[at] == wanted
    shown = [at] if present else [index for index in (at - 1, at) if 0 <= index < len(names)]
    leaves = [
        {"id": names[index], "index": index, "path": [node.hex() for node in inclusion_proof(hashes, index)]}
        for index in shown
    ]
    return {"id": wanted, "present": present, "root": root_of(hashes).hex(), "size": len(names), "leaves": leaves}


def holds(proof: Mapping[str, Any], root: str) -> bool:
    """Whether the proof shows what it says of the set with this root (hex). The set's size is part of what it shows."""
    try:
        wanted, size, leaves = str(proof["id"]), int(proof["size"]), list(proof["leaves"])
        included = all(
            verify_inclusion(
                leaf_hash(str(leaf["id"]).encode()),
                int(leaf["index"]),
                size,
                [bytes.fromhex(node) for node in leaf["path"]],
                bytes.fromhex(root),
            )
            for leaf in leaves
        )
        if not included or proof["root"] != root:
            return False
        if proof["present"]:
            return len(leaves) == 1 and leaves[0]["id"] == wanted
        return _between(
            wanted.encode(), size, [(str(leaf["id"]).encode(), int(leaf["index"])) for leaf in leaves], root
        )
    except (KeyError, TypeError, ValueError):
        return False


def _between(wanted: bytes, size: int, leaves: list[tuple[bytes, int]], root: str) -> bool:
    """Two leaves side by side with `wanted` between them, or the one at the edge that it would stand beyond."""
    if size == 0:
        return not leaves and root == EMPTY_ROOT.hex()
    if len(leaves) == 2:
        (before, first), (after, second) = leaves
        return second == first + 1 and before < wanted < after
    if len(leaves) != 1:
        return False
    name, index = leaves[0]
    return (index == 0 and wanted < name) or (index == size - 1 and name < wanted)
