"""AgentVault: the control room for AI agents' authorizations."""

__version__ = "0.1.0"
