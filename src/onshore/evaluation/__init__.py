"""How well a model drives: open loop beside its baselines, closed loop by score, statistics over worlds.

Rule: every closed-loop figure is computed from stored Rollouts alone and carries its worlds, egos and seeds.
The pure parts (scores, golden files, statistics) load neither torch nor a center; `open_loop` and `closed_loop` do so
when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from onshore.evaluation.golden import golden
from onshore.evaluation.scores import driving_score
from onshore.evaluation.statistics import compare, interval

if TYPE_CHECKING:
    from onshore.evaluation.closedloop import SuiteResult, closed_loop
    from onshore.evaluation.openloop import open_loop

__all__ = ["SuiteResult", "closed_loop", "compare", "driving_score", "golden", "interval", "open_loop"]


def __getattr__(name: str) -> Any:
    if name in ("SuiteResult", "closed_loop"):
        from onshore.evaluation import closedloop

        return getattr(closedloop, name)
    if name == "open_loop":
        from onshore.evaluation.openloop import open_loop

        return open_loop
    raise AttributeError(name)
