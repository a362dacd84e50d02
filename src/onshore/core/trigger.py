"""The trigger language: a versioned rule over signals that asks for a clip. Pure: the same in car and center.

    [hard_brake]
    version = 1
    when = "accel_mps2 < -3.0"
    for_s = 0.3          # must hold this long
    before_s = 3.0       # the clip starts this long before the condition began
    after_s = 3.0        # and ends this long after it ended

Expressions know numbers, the columns given, `+ - * /`, comparisons, `and or not`, `abs(x)`, `min_over(x, seconds)` and
`max_over(x, seconds)` (over the past). A value that is unknown (NaN) never makes a condition true: what is compared with it is
unknown, `not` of unknown stays unknown, and `and` and `or` are true only where what is known makes them so (Kleene's logic).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError

Column = NDArray[Any]
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
FUNCTIONS = ("abs", "min_over", "max_over")
#: No rule looks further back.
MOST_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """One named, versioned rule. Raises InputError `bad_trigger` when its expression cannot be read."""

    name: str
    when: str
    version: int = 1
    for_s: float = 0.0
    before_s: float = 3.0
    after_s: float = 3.0

    def __post_init__(self) -> None:
        now = np.zeros(1, np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):  # a dry run: what cannot be evaluated is refused here
            _evaluate(_parse(self.when, self.name), dict.fromkeys(self.columns, np.ones(1)), now)
        if min(self.for_s, self.before_s, self.after_s) < 0:
            raise InputError("bad_trigger", self.name, "for_s, before_s and after_s must not be negative.")

    @property
    def columns(self) -> frozenset[str]:
        """The signal columns the expression reads."""
        tree = _parse(self.when, self.name)
        return frozenset(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in FUNCTIONS)

    def spans(self, t_ns: NDArray[np.int64], columns: Mapping[str, Column]) -> list[tuple[int, int]]:
        """Clip spans (start_ns, end_ns), merged where they overlap and clamped to the times given."""
        if len(t_ns) == 0:
            return []
        missing = self.columns - set(columns)
        if missing:
            return []
        with np.errstate(invalid="ignore", divide="ignore"):
            value = _truth(_evaluate(_parse(self.when, self.name), columns, t_ns))
        held = np.broadcast_to(value == 1.0, t_ns.shape)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], held, [False]]).astype(np.int8)))
        spans: list[tuple[int, int]] = []
        for first, past in zip(edges[::2], edges[1::2], strict=True):
            began, ended = int(t_ns[first]), int(t_ns[past - 1])
            if ended - began < round(self.for_s * 1e9):
                continue
            start = max(int(t_ns[0]), began - round(self.before_s * 1e9))
            end = min(int(t_ns[-1]), ended + round(self.after_s * 1e9))
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return spans

    def as_record(self) -> dict[str, Any]:
        return {**vars(self)}


def _parse(text: str, name: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as problem:
        raise InputError("bad_trigger", name, f"'when' cannot be read: {problem.msg}.") from problem


def _evaluate(node: ast.expr, columns: Mapping[str, Column], t_ns: NDArray[np.int64]) -> Any:
    """Numbers; of a condition 1 where true, 0 where false, NaN where unknown."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name) if name in columns:
            return np.asarray(columns[name], np.float64)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_evaluate(inner, columns, t_ns)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return 1.0 - _truth(_evaluate(inner, columns, t_ns))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_evaluate(left, columns, t_ns), _evaluate(right, columns, t_ns))
        case ast.BoolOp(op=op, values=values):
            parts = np.stack([np.broadcast_to(_truth(_evaluate(v, columns, t_ns)), t_ns.shape) for v in values])
            settles = 0.0 if isinstance(op, ast.And) else 1.0
            unknown = np.where(np.isnan(parts).any(0), np.nan, 1.0 - settles)
            return np.where((parts == settles).any(0), settles, unknown)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            one, other = _evaluate(left, columns, t_ns), _evaluate(right, columns, t_ns)
            return np.where(np.isnan(one) | np.isnan(other), np.nan, _COMPARE[type(op)](one, other))
        case ast.Call(func=ast.Name(id="abs"), args=[inner], keywords=[]):
            return np.abs(_evaluate(inner, columns, t_ns))
        case ast.Call(
            func=ast.Name(id="min_over" | "max_over" as function),
            args=[inner, ast.Constant(value=int() | float() as seconds)],
            keywords=[],
        ) if 0 <= seconds <= MOST_S:
            return _over(function, _evaluate(inner, columns, t_ns), float(seconds), t_ns)
    raise InputError(
        "bad_trigger",
        ast.unparse(node),
        f"use numbers, signals, + - * /, < <= > >=, and, or, not, abs(x), min_over(x, s), max_over(x, s) of 0 to {MOST_S:g} s.",
    )


def _truth(values: Any) -> Column:
    """1 where a number is not zero, 0 where it is, NaN where it is not known."""
    column = np.asarray(values, np.float64)
    return np.where(np.isnan(column), np.nan, (column != 0).astype(np.float64))


def _over(function: str, values: Any, seconds: float, t_ns: NDArray[np.int64]) -> Column:
    column = np.broadcast_to(np.asarray(values, np.float64), t_ns.shape)
    first = np.searchsorted(t_ns, t_ns - round(seconds * 1e9))
    reduce = np.min if function == "min_over" else np.max
    return np.array([reduce(column[a : b + 1]) for b, a in enumerate(first)])
