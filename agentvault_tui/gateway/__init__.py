"""Agents act through the gateway: it decides, attaches credentials, records."""

from agentvault_tui.gateway.gateway import Gateway
from agentvault_tui.gateway.routes import Match, action_of, match
from agentvault_tui.gateway.services import Credential, Service, Services
from agentvault_tui.gateway.target import Target, parse_target
from agentvault_tui.gateway.templates import Route

__all__ = [
    "Credential",
    "Gateway",
    "Match",
    "Route",
    "Service",
    "Services",
    "Target",
    "action_of",
    "match",
    "parse_target",
]
