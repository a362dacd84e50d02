"""Gate, evidence, signature, recall: how a trained model becomes something a car accepts.

Rule: a release cannot be signed without a recorded verdict that passes, for exactly these bytes; a gate asks what its
file names, and shows everything else as 'not asked'.
"""

from onshore.release.gates import CheckResult, Verdict
from onshore.release.signing import candidate, gate, releases, revoke, root, show, sign, verify

__all__ = ["CheckResult", "Verdict", "candidate", "gate", "releases", "revoke", "root", "show", "sign", "verify"]
