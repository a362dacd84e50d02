"""Intake of fleet logs: from files on disk to drives of segments, anonymised, sealed and catalogued.

Rule: outside the sealed raw zone there is no frame that skipped anonymisation; what this room gives out is anonymised by
construction. Files that cannot come in are quarantined with one reason each.
"""

from onshore.drive.catalog import DriveRow, drives, export_mcap, open_segment, segments
from onshore.drive.intake import AddReport, add

__all__ = ["AddReport", "DriveRow", "add", "drives", "export_mcap", "open_segment", "segments"]
