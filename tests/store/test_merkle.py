"""RFC 6962 trees against the known answers of Certificate Transparency, and every small tree exhaustively."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.store import merkle
from onshore.store.merkle import (
    BLOCK_LEAVES,
    EMPTY_ROOT,
    consistency_proof,
    fold_frontier,
    fold_leaf,
    frontier_of,
    frontiers_of,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

CT_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SMALL = 33


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(str(index).encode()) for index in range(count)]


def test_the_empty_tree() -> None:
    assert root_of([]) == EMPTY_ROOT
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_known_roots(size: int) -> None:
    assert root_of([leaf_hash(leaf) for leaf in CT_LEAVES[:size]]).hex() == CT_ROOTS[size - 1]


def test_known_proofs() -> None:
    """RFC 6962 2.1.3 by shape: in a tree of 7, leaf 0 is proved by b, h, l and leaf 6 by i, k."""
    leaves = leaves_of(7)
    node = merkle.node_hash
    h, l = node(leaves[2], leaves[3]), node(node(leaves[4], leaves[5]), leaves[6])
    i, k = node(leaves[4], leaves[5]), root_of(leaves[:4])
    assert inclusion_proof(leaves, 0) == [leaves[1], h, l]
    assert inclusion_proof(leaves, 6) == [i, k]
    assert consistency_proof(leaves, 3) == [leaves[2], leaves[3], node(leaves[0], leaves[1]), l]
    assert consistency_proof(leaves, 4) == [l]
    assert consistency_proof(leaves, 6) == [i, leaves[6], k]


@pytest.mark.parametrize("size", range(1, SMALL))
def test_every_inclusion_proof(size: int) -> None:
    leaves = leaves_of(size)
    root = root_of(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert verify_inclusion(leaves[index], index, size, proof, root)
        assert not verify_inclusion(leaf_hash(b"forged"), index, size, proof, root)
        assert not verify_inclusion(leaves[index], index, size, [*proof, root], root)
        assert not proof or not verify_inclusion(leaves[index], index, size, proof[:-1], root)


@pytest.mark.parametrize("size", range(1, SMALL))
def test_every_consistency_proof(size: int) -> None:
    leaves = leaves_of(size)
    root = root_of(leaves)
    for old in range(size + 1):
        proof, old_root = consistency_proof(leaves, old), root_of(leaves[:old])
        assert verify_consistency(old, size, old_root, root, proof)
        assert not verify_consistency(old, size, leaf_hash(b"forged"), root, proof)
        assert not verify_consistency(old, size, old_root, root, [*proof, root])
        if 0 < old < size:
            assert not verify_consistency(old, size, old_root, leaf_hash(b"forged"), proof)
            assert not verify_consistency(old, size, old_root, root, [])


@settings(deadline=None)
@given(st.integers(0, 200))
def test_the_frontier_is_the_tree(size: int) -> None:
    leaves, frontier = leaves_of(size), ()
    for index, leaf in enumerate(leaves):
        frontier = fold_leaf(frontier, index, leaf)
    assert frontier_of(leaves) == (frontier, size)
    assert len(frontier) == size.bit_count() and fold_frontier(frontier) == root_of(leaves)


@pytest.mark.parametrize("size", [4095, 4096, 4097, 8192, 12289])
def test_blocks_give_the_same_frontier(size: int) -> None:
    leaves, frontier = leaves_of(size), ()
    for index, leaf in enumerate(leaves):
        frontier = fold_leaf(frontier, index, leaf)
    assert frontier_of(iter(leaves)) == (frontier, size)


def test_no_proof_of_what_is_not_there() -> None:
    with pytest.raises(IndexError):
        inclusion_proof(leaves_of(3), 3)
    with pytest.raises(IndexError):
        consistency_proof(leaves_of(3), 4)
    assert not verify_inclusion(leaf_hash(b""), 3, 3, [], EMPTY_ROOT)


def test_the_frontier_at_a_mark_is_that_of_the_shorter_tree() -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(2 * BLOCK_LEAVES + 3)]
    whole = frontiers_of(leaves)[:2]
    for mark in (0, 1, 5, BLOCK_LEAVES - 1, BLOCK_LEAVES, BLOCK_LEAVES + 1, 2 * BLOCK_LEAVES, len(leaves)):
        assert frontiers_of(leaves, mark) == (*whole, frontiers_of(leaves[:mark])[0])
