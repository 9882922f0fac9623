"""The operators' HTTP, on a Unix socket: what consoles and the CLI speak."""

from agentvault_tui.broker.operators_api.app import operators_app

__all__ = ["operators_app"]
