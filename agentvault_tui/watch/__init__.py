"""Looks at the ledger and tells others what happened."""

from agentvault_tui.watch.watch import LedgerWatch

__all__ = ["LedgerWatch"]
