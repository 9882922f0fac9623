"""The agents' HTTP: a thin face over the use-cases, and the broker's hot path."""

from agentvault_tui.broker.agents_api.app import AgentsApi

__all__ = ["AgentsApi"]
