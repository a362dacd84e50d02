"""Runs a function in a child with no way out, and proves it by trying.

Rule: the child has what it was given and nothing else: closed descriptors, an empty network, its own folders, bounded
resources. A way out that is found open is a refusal; a layer this machine cannot give is named in the attestation, and
`strict` refuses to go on without it.
"""

from onshore.jail.child import Outside
from onshore.jail.launch import Cell, Jail, JailResult, Limits, gpu_files
from onshore.jail.probes import probe

__all__ = ["Cell", "Jail", "JailResult", "Limits", "Outside", "gpu_files", "probe"]
