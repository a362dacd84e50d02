"""Frames in, anonymised frames and a proof out.

Rule: fail closed. Every frame goes through every detector, a drawn canary face goes with every call and must be found,
and what no detector was measured for stays named in the proof. Knows nothing of stores, labels or files of drives.
"""

from onshore.privacy.anonymiser import Anonymiser, Proof, default_anonymiser, detectors
from onshore.privacy.detector import Detector
from onshore.privacy.measure import measure

__all__ = ["Anonymiser", "Detector", "Proof", "default_anonymiser", "detectors", "measure"]
