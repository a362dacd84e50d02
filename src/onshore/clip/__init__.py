"""A few seconds worth learning from: cut by triggers, kept as references, found by SQL.

Rule: a clip is (segment, start, end) and never a copy of pictures; the same segment and triggers give the same clips.
"""

from onshore.clip.catalog import ClipRow, add_requested, backtest, cut, find, show

__all__ = ["ClipRow", "add_requested", "backtest", "cut", "find", "show"]
