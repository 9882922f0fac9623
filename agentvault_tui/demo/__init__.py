"""Example agents and the workspace API they use; they speak public HTTP only."""

from agentvault_tui.demo.stage import run

__all__ = ["run"]
