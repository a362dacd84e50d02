"""Exact predicates: shapes that share one point touch, and a point on an edge is not inside."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.evaluation.polygons import box_corners, inside, path_position, segment_touches, touch, turn

SQUARE = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
NOTCHED = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [2.0, 1.0], [0.0, 4.0]])


def test_inside_is_strict_and_ignores_the_winding() -> None:
    points = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [2.0, 2.0], [3.0, 1.0], [-1.0, 0.0], [1.0, 1e-300]])
    for polygon in (SQUARE, SQUARE[::-1]):
        assert inside(points, polygon).tolist() == [True, False, False, False, False, False, True]


def test_inside_of_a_notched_shape() -> None:
    points = np.array([[2.0, 3.0], [2.0, 1.0], [2.0, 0.5], [0.5, 3.0], [3.9, 3.0], [-1.0, 4.0], [5.0, 1.0]])
    assert inside(points, NOTCHED).tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("shift", "meets"),
    [((2, 0), True), ((2, 2), True), ((2.0000001, 0), False), ((0.5, 0.5), True), ((-2, 1), True), ((0, -2.1), False)],
)
def test_squares_touch_along_edges_and_at_corners(shift: tuple[float, float], meets: bool) -> None:
    moved = SQUARE + np.array(shift)
    assert touch(SQUARE, moved) is touch(moved, SQUARE) is meets


def test_one_within_another_touches_and_one_in_a_notch_does_not() -> None:
    small = 0.2 * (SQUARE - 1.0)
    assert touch(SQUARE, small + 1.0) and touch(small + 1.0, SQUARE)
    assert not touch(NOTCHED, small + np.array([2.0, 3.0]))
    assert touch(NOTCHED, small + np.array([2.0, 1.1]))


def test_a_segment_touches_by_its_end_by_crossing_or_from_within() -> None:
    a = np.array([[2.0, 1.0], [3.0, 1.0], [0.5, 0.5], [1.0, -1.0], [2.1, -1.0]])
    b = np.array([[3.0, 1.0], [4.0, 1.0], [1.5, 0.5], [1.0, 3.0], [2.1, 3.0]])
    found = [segment_touches(start, end, SQUARE) for start, end in zip(a, b, strict=True)]
    assert found == [True, False, True, True, False]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(-3, 3), st.integers(-3, 3), st.floats(0.1, 30.0))
def test_turns_are_exact_next_to_a_straight_line(dx: int, dy: int, size: float) -> None:
    """Points a few roundings away from the diagonal, where plain floating point fails."""
    a, b = np.array([0.5, 0.5]), np.array([size, size])
    c = np.array([12.0 + dx * np.spacing(12.0), 12.0 + dy * np.spacing(12.0)])
    ax, ay, bx, by, cx, cy = (Fraction(float(value)) for value in (*a, *b, *c))
    exact = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    assert int(turn(a, b, c)) == (exact > 0) - (exact < 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-4, 4), st.floats(-4, 4), st.floats(0.0, 3.2))
def test_touching_boxes_agree_with_a_dense_grid_of_points(x: float, y: float, yaw: float) -> None:
    """Whatever point lies within both boxes proves that they touch; boxes that do not touch share none."""
    box = box_corners(np.array([x, y]), np.array(yaw), 3.0, 1.5)
    grid = np.stack(np.meshgrid(np.linspace(0, 2, 41), np.linspace(0, 2, 41)), axis=-1).reshape(-1, 2)
    shared = inside(grid, SQUARE) & inside(grid, box)
    assert not shared.any() or touch(SQUARE, box)
    grown = box_corners(np.array([x, y]), np.array(yaw), 3.3, 1.8)
    assert not touch(SQUARE, box) or (inside(grid, grown).any())


def test_a_boxs_corners_go_round_from_the_front_left() -> None:
    corners = box_corners(np.array([1.0, 2.0]), np.array(np.pi / 2), 4.0, 2.0)
    np.testing.assert_allclose(corners, [[0, 4], [0, 0], [2, 0], [2, 4]], atol=1e-12)


def test_positions_along_a_path() -> None:
    path = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 5.0]])
    points = np.array([[-3.0, 4.0], [4.0, -2.0], [13.0, -4.0], [12.0, 3.0], [10.0, 9.0], [8.0, 2.0]])
    along, distance = path_position(points, path)
    np.testing.assert_allclose(along, [0, 4, 10, 13, 15, 8])
    np.testing.assert_allclose(distance, [5, 2, 5, 2, 4, 2])
