"""A grammar of MCP messages with members in spellings that some programs ignore."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

MODERN = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_TOOLS = ("read_file", "read_file", "read_file", "delete_file")
_ALIKE = {
    "method": ["Method", "METHOD", "mEthod", "me\\u0074hod", "ｍethod", "me_thod"],
    "params": ["Params", "PARAMS", "param\u017f", "Param\u017f", "par\\u0061ms"],
    "id": ["Id", "ID", "\\u0069d", "i_d"],
    "name": ["Name", "NAME", "na_me", "\\u006eame", "name\\u0000"],
    "arguments": ["Arguments", "argument\u017f", "ARGUMENTS", "argumen\\u0074s"],
    "_meta": ["_Meta", "meta", "_META", "_met\\u0061"],
    "path": ["Path", "PATH", "pa_th", "p\\u0061th", "\u212apath", "path[]"],
}  # fmt: skip
"""Spellings of a name; those with an escape are the name itself, said twice."""
_LEVELS = (("method", "params", "id"), ("name", "arguments", "_meta"), ("path",))


@dataclass(frozen=True)
class McpCase:
    """One message of an agent; what it says by the exact names of its members."""

    text: str
    method: str
    name: str
    arguments: str


@st.composite
def _cases(draw: st.DrawFn) -> McpCase:
    name = draw(st.sampled_from(_TOOLS))
    arguments = json.dumps({"path": draw(st.sampled_from(["/a", "/b/c", ""]))})
    level = draw(st.sampled_from([None, 0, 1, 1, 2]))
    extra = "" if level is None else draw(_member(_LEVELS[level]))
    first = draw(st.booleans())
    inner = _with(arguments, extra if level == 2 else "", first=first)
    params = json.dumps({"name": name, "_meta": _META})
    params = _with(params, f'"arguments":{inner}', first=False)
    params = _with(params, extra if level == 1 else "", first=first)
    top = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call"})
    top = _with(top, f'"params":{params}', first=draw(st.booleans()))
    top = _with(top, extra if level == 0 else "", first=first)
    return McpCase(top, "tools/call", name, inner)


@st.composite
def _member(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """Return a member that a program which ignores case takes for another one."""
    known = draw(st.sampled_from(names))
    spelt = draw(st.sampled_from([*_ALIKE[known], "other"]))
    other: dict[str, Any] = {
        "method": "tools/call",
        "params": {"name": "delete_file", "arguments": {"path": "/"}, "_meta": _META},
        "id": 8,
        "name": "delete_file",
        "arguments": {"path": "/"},
        "_meta": {},
        "path": "/",
    }
    return f'"{spelt}":{json.dumps(other[known])}'


def _with(text: str, member: str, *, first: bool) -> str:
    """Add a member to the text of an object."""
    if not member:
        return text
    inner = text[1:-1]
    return "{" + (f"{member},{inner}" if first else f"{inner},{member}") + "}"


def mcp_corpus(size: int, number: int) -> list[McpCase]:
    """Return *size* messages, the same ones for the same *number*."""
    found: list[McpCase] = []

    @seed(number)
    @settings(
        max_examples=size,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases())
    def collect(case: McpCase) -> None:
        found.append(case)

    collect()
    return list(dict.fromkeys(found))
