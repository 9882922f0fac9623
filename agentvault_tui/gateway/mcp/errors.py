"""Errors of JSON-RPC and MCP, and the HTTP status that each has."""

from __future__ import annotations

from typing import Final

from agentvault_tui.web.service_connection import UpstreamError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
DENIED: Final = 4030
CANCELLED: Final = 4990
"""Both are ours, outside of the ranges of JSON-RPC and MCP."""
_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    -32021: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}


class McpError(Exception):
    """A message that is answered by a JSON-RPC error."""

    def __init__(self, code: int, text: str, data: object = None) -> None:
        """Store the error's *code*, message and *data*."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.data = data
        self.id: str | int | None = None
        """Of the request, where that is no `Message` but has a readable id."""

    def __reduce__(self) -> tuple[object, ...]:
        """Let a worker process raise it in its caller."""
        state = {"id": self.id}
        return McpError, (self.code, self.text, self.data), state

    @property
    def status(self) -> int:
        """Return the HTTP status of the answer to a request."""
        return status_of(self.code)


class SessionGoneError(Exception):
    """The server does not know the session any more."""


def status_of(code: int) -> int:
    """Return the status of HTTP that the modern era gives an error *code*."""
    return _STATUS.get(code, 200)


def too_long(server: str, most: int) -> UpstreamError:
    """Return the error of an answer of more than *most* bytes, which is not read."""
    text = f"the server's answer has more than {most} bytes"
    more = f"an operator can set max_body in mcp/{server}.toml"
    return UpstreamError(502, "upstream_reset", f"{text}; {more}")
