"""Example agents and the workspace they use: public HTTP only, like anyone's agent."""

from agentvault_tui.demo.stage import run

__all__ = ["run"]
