"""The loop as a whole: taking in, judging, shipping, rounds, the demo and its report.

Rule: it only calls the rooms above it; every stage is idempotent, so that a killed run goes on where it stood. The demo
lives in `onshore.flywheel.demo`, the command's verbs in the modules named after what they do.
"""

from __future__ import annotations

from typing import Any

from onshore import clip, drive, release
from onshore.dataset import manifest
from onshore.store import Center


def status(center: Center) -> list[dict[str, Any]]:
    """What the center holds at each stop of the path, in path order."""
    drives = drive.drives(center)
    return [
        {"stop": "drive", "count": len(drives), "detail": f"{sum(row['frames'] for row in drives):,} frames"},
        {"stop": "clip", "count": len(clip.find(center, limit=None)), "detail": ""},
        {"stop": "dataset", "count": len(manifest.datasets(center)), "detail": ""},
        {"stop": "model", "count": len(center.artifacts(kind="weights")), "detail": ""},
        {"stop": "evaluation", "count": len(center.artifacts(kind="metrics")), "detail": ""},
        {"stop": "release", "count": len(release.show(center)), "detail": ""},
        {"stop": "quarantine", "count": len(center.quarantine_list()), "detail": ""},
        {"stop": "ledger", "count": center.ledger.head().size, "detail": "entries"},
    ]
