"""A small MCP server on standard input and output; notes each line it was given.

Run as ``python mcp_peer.py LOG [legacy|modern]``: with one era it refuses the other.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

MODERN = "2026-07-28"
asked: list[tuple[Any, dict[str, Any]]] = []
TOOLS = ["read_file", "write_file", "delete_file", "wait", "crash", "ask", "shout"]


def main() -> None:
    log, eras = sys.argv[1], sys.argv[2:] or ["legacy", "modern"]
    with open(log, "a", encoding="utf-8") as notes:  # noqa: PTH123
        for line in sys.stdin:
            notes.write(f"{os.getpid()} {line}")
            notes.flush()
            take(json.loads(line), eras)


def say(value: dict[str, Any]) -> None:
    # Spaces and an unknown member, so that a relay that models it again is seen.
    print(json.dumps({"jsonrpc": "2.0", **value}, separators=(", ", " : ")), flush=True)


def take(message: dict[str, Any], eras: list[str]) -> None:
    method, id_ = message.get("method"), message.get("id")
    params = message.get("params") or {}
    meta = params.get("_meta") or {}
    modern = "io.modelcontextprotocol/protocolVersion" in meta
    if id_ == "s1":
        answer(*asked.pop())
    if id_ is None or method is None:
        return
    if ("modern" if modern else "legacy") not in eras:
        say({"id": id_, "error": {"code": -32601, "message": "unknown"}})
    elif method == "server/discover":
        result = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}}
        say({"id": id_, "result": {**result, "resultType": "complete"}})
    elif method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {
                "tools": {"listChanged": True},
                "logging": {},
                "resources": {"subscribe": True},
            },
            "serverInfo": {"name": "peer", "version": "1"},
            "unknown": {"kept": 1.50},
        }
        say({"id": id_, "result": result})
    elif method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        say({"id": id_, "result": {"tools": tools}})
    elif method == "tools/call":
        call(id_, params, meta)
    elif method == "resources/read":
        say({"id": id_, "result": {"contents": []}})
    else:
        say({"id": id_, "error": {"code": -32601, "message": "unknown"}})


def call(id_: Any, params: dict[str, Any], meta: dict[str, Any]) -> None:
    name, arguments = params["name"], params.get("arguments") or {}
    token = meta.get("progressToken")
    if token is not None:
        progress = {"progressToken": token, "progress": 0.5, "unknown": True}
        say({"method": "notifications/progress", "params": progress})
    if name == "crash":
        os._exit(3)
    if name == "shout":
        print("\x1b[31mred\u202e " + "x" * 100_000, file=sys.stderr, flush=True)
    if name == "ask" and arguments.get("form"):
        if "inputResponses" in params:
            answer(id_, params["inputResponses"] | {"state": params["requestState"]})
            return
        asks = {"method": "elicitation/create", "params": {"message": "Which?"}}
        result = {"resultType": "input_required", "inputRequests": {"q": asks}}
        say({"id": id_, "result": {**result, "requestState": "theirs"}})
        return
    if name == "ask":
        say({"id": "s" * 20_000, "method": "ping"})
        say({"id": "s1", "method": "sampling/createMessage", "params": {}})
        asked.append((id_, arguments))  # answered once that is
        return
    if name == "wait":
        # Answers when its file is there: a call in flight for as long as a test needs.
        threading.Thread(target=later, args=(id_, arguments), daemon=True).start()
        return
    answer(id_, arguments)


def later(id_: Any, arguments: dict[str, Any]) -> None:
    while not os.path.exists(arguments["until"]):  # noqa: PTH110
        threading.Event().wait(0.005)
    answer(id_, arguments)


def answer(id_: Any, arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments, sort_keys=True)
    content = [{"type": "text", "text": text, "unknown": 1.0}]
    say({"id": id_, "result": {"content": content, "unknown": {"kept": 1.50}}})


if __name__ == "__main__":
    main()
