"""A stand-in for MCP servers that ignore case in names, as Go's ``encoding/json`` does.

Run as ``python lenient_mcp_peer.py LOG``: an MCP server on standard input and output
that notes each line it was given, byte for byte, and reads members by their fold: of
two that fold alike, the last one counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agentvault_tui.gateway.names import fold_name

TOOLS = ["read_file", "format_disk"]


def member(value: Any, name: str) -> Any:
    """Return a member as a lenient program finds it."""
    folded, found = fold_name(name), None
    for known, one in value.items() if isinstance(value, dict) else ():
        if fold_name(known) == folded:
            found = one
    return found


def read(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a lenient server reads in a message."""
    params = member(message, "params")
    meta = member(params, "_meta")
    return {
        "method": member(message, "method"),
        "name": member(params, "name"),
        "arguments": member(params, "arguments"),
        "token": member(meta, "progressToken"),
    }


def main() -> None:
    log = Path(sys.argv[1])
    for line in sys.stdin.buffer:
        with log.open("ab") as notes:
            notes.write(line)
        message = json.loads(line)
        given, result = read(message), {"content": []}
        if given["method"] == "server/discover":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
        elif given["method"] == "initialize":
            result = {"protocolVersion": "2025-11-25", "capabilities": {}}
        elif given["method"] == "tools/list":
            result = {"tools": [{"name": name} for name in TOOLS]}
        if member(message, "id") is not None:
            reply = {"jsonrpc": "2.0", "id": member(message, "id"), "result": result}
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
