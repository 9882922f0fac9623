"""Agents act through the gateway: it decides, attaches credentials, records."""

from agentvault_tui.gateway.gateway import Gateway
from agentvault_tui.gateway.routes import RouteMatch, match
from agentvault_tui.gateway.services import Service, Services, UpstreamCredential
from agentvault_tui.gateway.target import Target, parse_target
from agentvault_tui.gateway.templates import ServiceRoute

__all__ = [
    "Gateway",
    "RouteMatch",
    "Service",
    "ServiceRoute",
    "Services",
    "Target",
    "UpstreamCredential",
    "match",
    "parse_target",
]
