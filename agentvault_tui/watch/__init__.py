"""Looks at the ledger and tells others what happened."""

from agentvault_tui.watch.watch import Watch

__all__ = ["Watch"]
