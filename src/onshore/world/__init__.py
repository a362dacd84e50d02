"""Closed-loop worlds: region towns with reactive traffic and a camera, recorded as ordinary drives or driven by policies.

Rule: everything that loads the traffic engine or the camera runs in child processes; the same job gives the same bytes.
"""

from onshore.world.fleet import record_fleet
from onshore.world.importing import import_map
from onshore.world.jobs import PolicySpec, RolloutJob, suite, training_jobs
from onshore.world.pictures import birdseye, birdseye_pictures, camera_pictures, contact_sheet
from onshore.world.running import collect_takeovers, run_jobs

__all__ = [
    "PolicySpec",
    "RolloutJob",
    "birdseye",
    "birdseye_pictures",
    "camera_pictures",
    "contact_sheet",
    "collect_takeovers",
    "import_map",
    "record_fleet",
    "run_jobs",
    "suite",
    "training_jobs",
]
