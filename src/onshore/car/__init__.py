"""The vehicle side: take what verifies, drive from it, compare in silence.

Rule: a car installs nothing it cannot verify and drives on with what it has; shadow mode never actuates. Imports nothing
heavy: numpy at import, TUF, ONNX Runtime and the video decoder when they are used.
"""

from onshore.car.install import CarStatus, UpdateResult, provision, status, update
from onshore.car.running import PlannedDrive, run
from onshore.car.shadowing import ShadowReport, shadow

__all__ = [
    "CarStatus",
    "PlannedDrive",
    "ShadowReport",
    "UpdateResult",
    "provision",
    "run",
    "shadow",
    "status",
    "update",
]
