"""AgentVault: the control room for AI agents' authorizations."""

import sys

# httpx loads rich and pygments for a command line of its own, unless it cannot: a
# tenth of what the broker takes to start.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

__version__ = "0.9.0"
