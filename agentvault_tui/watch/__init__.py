"""Reads the ledger and publishes the events to others."""

from agentvault_tui.watch.watch import LedgerWatch

__all__ = ["LedgerWatch"]
