"""RFC 6962 Merkle trees: roots, inclusion and consistency proofs, and their verification as in RFC 9162.

Rule: hashes only; no files and no keys. A frontier holds the roots of the perfect subtrees of a tree, largest first, one
for each 1 bit of its size: enough to append and to compute the root without the leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

EMPTY_ROOT = hashlib.sha256(b"").digest()
Frontier = tuple[bytes, ...]
BLOCK_LEAVES = 1 << 12


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold_leaf(frontier: Frontier, size: int, leaf: bytes) -> Frontier:
    """The frontier after adding one leaf hash to a tree of `size` leaves."""
    while size & 1:
        leaf = node_hash(frontier[-1], leaf)
        frontier, size = frontier[:-1], size >> 1
    return (*frontier, leaf)


def fold_frontier(frontier: Frontier) -> bytes:
    """The root over subtree roots, largest first."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for node in reversed(frontier[:-1]):
        root = node_hash(node, root)
    return root


def frontier_of(leaves: Iterable[bytes]) -> tuple[Frontier, int]:
    """Frontier and size of a tree over leaf hashes."""
    return frontiers_of(leaves)[:2]


def frontiers_of(leaves: Iterable[bytes], mark: int = 0) -> tuple[Frontier, int, Frontier]:
    """Frontier and size of a tree over leaf hashes, and the frontier that its first `mark` leaves have, in one pass.

    In blocks: a perfect block is hashed level by level.
    """
    frontier: Frontier = ()
    marked: Frontier = ()
    iterator, blocks = iter(leaves), 0
    while True:
        block = list(islice(iterator, BLOCK_LEAVES))
        before = blocks * BLOCK_LEAVES
        if before <= mark <= before + len(block):
            marked = frontier + _tail(block[: mark - before])
        if len(block) < BLOCK_LEAVES:
            return frontier + _tail(block), before + len(block), marked
        frontier, blocks = fold_leaf(frontier, blocks, _perfect_root(block)), blocks + 1


def _tail(leaves: Sequence[bytes]) -> Frontier:
    """Behind whole blocks and shorter than one (or just one): its subtrees never reach the ones before."""
    if len(leaves) == BLOCK_LEAVES:
        return ()  # a mark at a block's end is seen again, at the beginning of the next one
    tail: Frontier = ()
    for index, leaf in enumerate(leaves):
        tail = fold_leaf(tail, index, leaf)
    return tail


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The RFC 6962 root over leaf hashes."""
    return fold_frontier(frontier_of(leaves)[0])


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962 2.1.1: the hashes that lead from leaf `index` to the root, nearest first."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), root_of(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), root_of(leaves[:split])]


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """RFC 6962 2.1.2: the hashes that show that the first `old_size` leaves are unchanged."""
    if not 0 <= old_size <= len(leaves):
        raise IndexError(f"size {old_size} of {len(leaves)}")
    return [] if old_size in {0, len(leaves)} else _subproof(leaves, old_size, whole=True)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 2.1.3.2."""
    if not 0 <= index < size:
        return False
    node, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            value = node_hash(sibling, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and value == root


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162 2.1.4.2; an empty old tree is consistent with everything and needs no proof."""
    if old_size == size:
        return not proof and old_root == root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if not 0 < old_size < size or not proof:
        return False
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old, new = path[0], path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == root


def _subproof(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(leaves):
        return [] if whole else [root_of(leaves)]
    split = _split(len(leaves))
    if old_size <= split:
        return [*_subproof(leaves[:split], old_size, whole=whole), root_of(leaves[split:])]
    return [*_subproof(leaves[split:], old_size - split, whole=False), root_of(leaves[:split])]


def _perfect_root(level: list[bytes]) -> bytes:
    while len(level) > 1:
        pairs = iter(level)
        level = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return level[0]


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)
