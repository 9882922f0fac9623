"""The operators' HTTP, on a Unix socket, for consoles and the CLI."""

from agentvault_tui.broker.operators_api.app import operators_app

__all__ = ["operators_app"]
