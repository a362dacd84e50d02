"""Blobs, tables, operational state, ledger and keys: the only room that opens a center's data files.

Rule: residency is asked before every put, read and open; a label is committed before its bytes are visible; what is
acknowledged survives a kill; and a copied folder decrypts nothing, because the keys live elsewhere.
"""

from onshore.store.center import Center
from onshore.store.ledger import Ledger, LedgerEntry, LedgerReport
from onshore.store.tables import Table

__all__ = ["Center", "Ledger", "LedgerEntry", "LedgerReport", "Table"]
