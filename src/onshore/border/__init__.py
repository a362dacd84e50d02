"""What leaves, who allowed it, what comes in: permits, the export gate, the import gate, duties.

Rule: the only code that writes outside the center. Every answer is a ledger line; a file comes after its line. What the
gate cannot prove (root, a copied disk, a stick) docs/border.md says.
"""

from onshore.border.gate import Decision, check, export, open_folder, write_out
from onshore.border.inbound import import_file
from onshore.border.law import duties, explain
from onshore.border.leakage import measure_leakage
from onshore.border.people import enroll_approver
from onshore.border.permitting import PermitRow, approve, permits, request_permit

__all__ = [
    "Decision",
    "PermitRow",
    "approve",
    "check",
    "duties",
    "enroll_approver",
    "explain",
    "export",
    "import_file",
    "measure_leakage",
    "open_folder",
    "permits",
    "request_permit",
    "write_out",
]
