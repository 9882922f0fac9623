"""MCP servers behind the gateway: each ``tools/call`` is decided, recorded and cut."""

from agentvault_tui.gateway.mcp.endpoint import METADATA, McpApp
from agentvault_tui.gateway.mcp.processes import McpProcesses
from agentvault_tui.gateway.mcp.servers import McpServer, McpServers, parse_server

__all__ = [
    "METADATA",
    "McpApp",
    "McpProcesses",
    "McpServer",
    "McpServers",
    "parse_server",
]
