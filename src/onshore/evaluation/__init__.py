"""How well a model drives: open loop beside its baselines, closed loop by score, statistics over worlds.

Rule: every closed-loop figure is computed from stored Rollouts alone and carries its worlds, egos and seeds.
Torch and the world are imported only inside the functions that need them.
"""

from onshore.evaluation.golden import golden
from onshore.evaluation.scores import driving_score
from onshore.evaluation.statistics import compare, interval

__all__ = ["compare", "driving_score", "golden", "interval"]
