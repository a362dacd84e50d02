"""May these bytes be here, be read, be seen, leave? Label algebra and Cedar decisions, as pure rules.

Rule: no I/O. A label only grows, unless a named declassifier attests what it removed; anything but a clean Allow is a
refusal; and raw recordings never leave, whatever a policy file says.
"""

from onshore.residency.decisions import RAW_SENSITIVITIES, PermitFacts, Request, Rules
from onshore.residency.labels import Attestation, derive, lost

__all__ = ["RAW_SENSITIVITIES", "Attestation", "PermitFacts", "Request", "Rules", "derive", "lost"]
