"""What an operator types: composes the rooms, decides nothing."""

from agentvault_tui.cli.app import main

__all__ = ["main"]
