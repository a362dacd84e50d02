"""Runs a function in a child with no way out, and proves it by trying.

Rule: the child has what it was given and nothing else: closed descriptors, an empty network, its own folders, bounded
resources. A layer this machine cannot give is named in the attestation; `strict` refuses to go on without it.
"""

from onshore.jail.launch import Jail, JailResult, Limits
from onshore.jail.probes import probe

__all__ = ["Jail", "JailResult", "Limits", "probe"]
