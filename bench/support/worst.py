"""The requests known that cost the gateway most to read, within its limits.

Each is of an agent with a live token; most are read whole and sent, so that no limit
on refused requests slows them down. Odd names differ from request to request, so that
no cache of names knows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count, islice
from urllib.parse import quote

from support.load import request

_IN_LOOP = 4_096
"""Bytes of a body up to which the gateway reads it in its event loop."""
_MCP = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
_SPELLINGS = 4
Requests = dict[str, list[bytes]]


def _filled(
    size: int, begin: bytes, piece: Callable[[int], bytes], end: bytes
) -> bytes:
    """Return JSON of *size* bytes at most: pieces between commas."""
    pieces, left = [], size - len(begin) - len(end)
    for number in count():
        one = piece(number)
        left -= len(one) + 1
        if left < 0:
            return begin + b",".join(pieces) + end
        pieces.append(one)
    raise AssertionError


def _numbers(size: int) -> bytes:
    return _filled(size, b'{"values":[', lambda _: b"-0", b"]}")


def _lists(size: int) -> bytes:
    return _filled(size, b'{"values":[', lambda _: b"[]", b"]}")


def _names(size: int, spelling: int) -> bytes:
    """Return an object of names that compatibility forms make long (NFKC)."""
    mark = chr(0xFDFA) + chr(0x4E00 + spelling)
    return _filled(size, b"{", lambda n: f'"{mark}{n:x}":0'.encode(), b"}")


def json_bodies() -> Requests:
    """Return JSON objects, by a name for their row."""
    return {
        "numbers, 4 KiB": [_numbers(_IN_LOOP)],
        "numbers, 4 KiB and more": [_numbers(_IN_LOOP + 8)],
        "numbers, 1 MiB": [_numbers(2**20)],
        "empty lists, 4 KiB": [_lists(_IN_LOOP)],
        "empty lists, 1 MiB": [_lists(2**20)],
        "odd names, 1 KiB": [_names(_IN_LOOP // 4, n) for n in range(4 * _SPELLINGS)],
        "odd names, 4 KiB": [_names(_IN_LOOP, n) for n in range(_SPELLINGS)],
        "odd names, 64 KiB": [_names(2**16, 0)],
        "odd names, 1 MiB": [_names(2**20, 0)],
    }


def gateway_requests(token: str, host: str) -> Requests:
    """Return requests to the service ``bench``, by a name for their row."""

    def asked(
        kind: str, body: bytes, path: str = "/events/e1", **headers: str
    ) -> bytes:
        return request(
            "POST",
            f"/gw/bench{path}",
            body,
            kind=kind,
            host=host,
            Authorization=f"Bearer {token}",
            **headers,
        )

    json_kind, form = "application/json", "application/x-www-form-urlencoded"
    found = {
        name: [asked(json_kind, body) for body in bodies]
        for name, bodies in json_bodies().items()
    }
    pairs = [f"{quote(chr(0x4E00 + n))}={n}" for n in range(10_000)]
    found["form, 10,000 fields"] = [asked(form, "&".join(pairs).encode())]
    small = "&".join(islice(pairs, 290)).encode()
    found["form, 4 KiB"] = [asked(form, small[:_IN_LOOP].rpartition(b"&")[0])]
    part = '--b\r\nContent-Disposition: form-data; name="p{}"\r\n\r\n\r\n'
    parts = "".join(part.format(n) for n in range(10_000)) + "--b--\r\n"
    multipart = 'multipart/form-data; boundary="b"'
    found["multipart, 10,000 parts"] = [asked(multipart, parts.encode(), "/parts/e1")]
    for name, queries in _queries().items():
        found[name] = [asked(json_kind, b"{}", f"/events/e1?{one}") for one in queries]
    odd = {f"X_If{n}x_Dry_Ru{n}": "a" for n in range(55)}
    found["headers, 55 odd ones"] = [asked(json_kind, b"{}", **odd)]
    return found


def _queries() -> dict[str, list[str]]:
    odd = [quote(chr(0xFDFA) + chr(0x4E00 + n)) for n in range(_SPELLINGS)]
    return {
        "query, 4,090 pairs": ["&".join(["a"] * 4_090)],
        "query, 2,720 pairs sent": ["&".join(["a="] * 2_720)],
        "query, 350 odd names": [
            "&".join(f"{one}{n:x}=" for n in range(350)) for one in odd
        ],
    }


def mcp_requests(token: str, host: str) -> Requests:
    """Return tool calls at the server ``bench``, by a name for their row."""
    found = {}
    for name, bodies in json_bodies().items():
        found[f"MCP, {name}"] = [_tool_call(token, host, one) for one in bodies]
    return found


def _tool_call(token: str, host: str, arguments: bytes) -> bytes:
    head = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    params = {"name": "echo", "arguments": "ARGUMENTS", "_meta": _MCP}
    body = json.dumps({**head, "params": params}).encode()
    return request(
        "POST",
        "/mcp/bench",
        body.replace(b'"ARGUMENTS"', arguments),
        kind="application/json",
        host=host,
        Accept="application/json, text/event-stream",
        Authorization=f"Bearer {token}",
        MCP_Protocol_Version="2026-07-28",
        Mcp_Method="tools/call",
        Mcp_Name="echo",
    )
