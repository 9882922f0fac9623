"""Files of MCP servers are drafted from their lists of tools."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentvault_tui.errors import UsageError
from agentvault_tui.gateway.mcp import parse_server
from agentvault_tui.gateway.mcp.drafting import draft_file, tools_of_url
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.web.service_connection import UpstreamError

HEAD = ['command = ["x"]']
CATALOGUE = shipped_catalogue()


def tool(name: str, *arguments: str, **notes: bool) -> dict[str, Any]:
    schema = {"properties": {one: {} for one in arguments}, "required": [*arguments]}
    return {"name": name, "inputSchema": schema, "annotations": notes}


def drafted(*tools: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return scope and resource of each tool in the drafted file, which is parsed."""
    text = draft_file("srv", HEAD, tools)
    server = parse_server("srv", text, CATALOGUE, Path("/"))
    return {one.pattern: (one.scope, one.resource) for one in server.tools.rules}


@pytest.mark.parametrize("name", ["resources/read", "prompts/get"])
def test_a_tool_called_like_a_method_of_mcp_is_left_out(name: str) -> None:
    """Its entry would permit that method, with any argument."""
    assert drafted(tool(name, readOnlyHint=True), tool("get_x")).keys() == {"get_x"}
    assert name in draft_file("srv", HEAD, [tool(name), tool("get_x")])


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        (tool("list_issues"), "read:records"),
        (tool("getIssue"), "read:records"),
        (tool("create_issue"), "write:records"),
        (tool("delete_issue"), "delete:records"),
        (tool("send_message"), "send:email"),
        (tool("create_payout"), "send:payment"),
        (tool("get_invoice"), "send:payment"),
        (tool("get_invoice", readOnlyHint=True), "read:records"),
        (tool("delete_issue", readOnlyHint=True), "delete:records"),
        (tool("get_and_delete", readOnlyHint=True), "delete:records"),
        (tool("getThenSend", readOnlyHint=True), "send:email"),
        (tool("read_or_create", readOnlyHint=True), "write:records"),
        (tool("update_issue", readOnlyHint=True), "write:records"),
        (tool("list_issues", readOnlyHint=False), "write:records"),
        (tool("frobnicate"), "write:records"),
        (tool("frobnicate", readOnlyHint=True), "read:records"),
        (tool("frobnicate", destructiveHint=True), "delete:records"),
        (tool("read_file", "path"), "read:files"),
        (tool("write_file", "path"), "write:files"),
        (tool("remove_file", "filePath"), "delete:files"),
    ],
)
def test_a_scope_is_guessed_by_name_and_annotations(
    given: dict[str, Any], scope: str
) -> None:
    """The stricter of the two counts; what says nothing writes."""
    ((found, _),) = drafted(given).values()
    assert found == scope


def test_a_tool_that_does_not_say_whether_it_writes_has_a_comment() -> None:
    """The person who checks the file reads why it needs a writing scope."""
    why = "# no readOnlyHint: taken as writing"
    assert f"{why}\n[tools.notes_list]" in draft_file("s", HEAD, [tool("notes_list")])
    for known in (tool("create_x"), tool("list_x"), tool("x", readOnlyHint=False)):
        assert why not in draft_file("s", HEAD, [known])


def test_a_resource_is_what_a_needed_argument_names() -> None:
    """A path first, then an id; an argument that may be left out is none."""
    assert drafted(tool("read_file", "path"))["read_file"][1] == "srv:{path}"
    assert drafted(tool("get_issue", "issue_id"))["get_issue"][1] == "srv:{issue_id}"
    optional = tool("get_issue", "issue_id")
    optional["inputSchema"]["required"] = []
    assert drafted(optional)["get_issue"][1] == ""


@pytest.mark.parametrize(
    ("given", "paths", "recursive"),
    [
        (tool("read_text_file", "path"), ("path",), False),
        (tool("read_multiple_files", "paths"), ("paths",), False),
        (tool("move_file", "source", "destination"), ("source", "destination"), True),
        (tool("search_files", "path", "pattern"), ("path",), True),
        (tool("directoryTree", "dirPath"), ("dirPath",), True),
        (tool("move_ticket", "ticket_id", "source", "destination"), (), False),
        (tool("list_allowed_directories"), (), False),
    ],
)
def test_paths_are_found_by_their_names(
    given: dict[str, Any], paths: tuple[str, ...], recursive: bool
) -> None:
    """All of them, also where one may be left out."""
    given["inputSchema"]["required"] = given["inputSchema"]["required"][:1]
    text = draft_file("srv", HEAD, [given])
    server = parse_server("srv", text, CATALOGUE, Path("/"))
    (rule,) = server.tools.rules
    assert (rule.paths, rule.recursive) == (paths, recursive)
    assert ("# root = " in text) is bool(paths)
    uncommented = text.replace("# root", "root")
    assert parse_server("srv", uncommented, CATALOGUE, Path("/"))


@pytest.mark.parametrize(
    ("schema", "is_path"),
    [
        ({"type": "string"}, True),
        ({"type": ["string", "null"]}, True),
        ({"anyOf": [{"type": "string"}]}, True),
        ({"type": "array", "items": {"type": "string"}}, True),
        ({"type": "array"}, True),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"type": "object"}, False),
        (True, True),
    ],
)
def test_a_path_is_a_text_or_a_list_of_texts(schema: object, is_path: bool) -> None:
    """Files with their contents are none."""
    given = tool("push", "files")
    given["inputSchema"]["properties"]["files"] = schema
    assert ("paths = " in draft_file("srv", HEAD, [given])) is is_path


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_many", {"paths": {"type": "array", "items": {"type": "object"}}}),
        ("push", {"files": [{"path": {"type": "string"}, "content": {}}]}),
        ("push", {"change": {"properties": {"file_name": {}}}}),
        ("read_notes", {"ids": {"type": "array"}}),
        ("read_notes", {"noteIds": {"items": {}}}),
        ("read_notes", {"wanted": [{"note_id": {}}]}),
        ("read_notes", {"items": {"type": ["array", "null"]}}),
        ("copy_note", {"note_id": {}, "to_note_id": {}}),
        ("find", {"note_id": {"type": "string"}}),
        ("get_tag", {"tag_id": {}, "parent_note_id": {}}),
    ],
)
def test_a_tool_whose_resource_would_not_name_all_objects_is_left_out(
    name: str, arguments: dict[str, Any]
) -> None:
    """A forbid on the resource of another tool would not count for it."""
    inner = {
        one: {"type": "array", "items": {"properties": some[0]}}
        if isinstance(some, list)
        else some
        for one, some in arguments.items()
    }
    given = tool(name, *([] if name == "find" else arguments))
    given["inputSchema"]["properties"] = inner
    others = [tool("read_file", "path"), tool("read_note", "note_id")]
    assert drafted(given, *others).keys() == {"read_file", "read_note"}
    text = draft_file("srv", HEAD, [given, *others])
    assert "# Left out, for its resource would not name: " in text
    again = text.replace("\n# [tools", "\n[tools").replace("\n# scope", "\nscope")
    assert name in again.partition("[tools.")[2]
    assert len(parse_server("srv", again, CATALOGUE, Path("/")).tools.rules) == 3


def test_other_arguments_leave_no_tool_out() -> None:
    """Texts, lists of words and names next to an id are no other objects."""
    labels = tool("edit_note", "note_id", "name", "labels")
    labels["inputSchema"]["properties"]["labels"] = {"type": "array"}
    edits = tool("edit_file", "path", "edits")
    inner = {"properties": {"oldText": {}, "newText": {}}}
    edits["inputSchema"]["properties"]["edits"] = {"type": "array", "items": inner}
    found = drafted(labels, edits, tool("create_note", "name"), tool("open", "tags"))
    assert found.keys() == {"edit_note", "edit_file", "create_note", "open"}


def test_tools_of_a_file_server_that_move_have_paths() -> None:
    """So do the words of a tool without paths decide that it reads files."""
    found = drafted(
        tool("rename", "from", "to"),
        tool("read_file", "path"),
        tool("list_allowed_directories", readOnlyHint=True),
    )
    assert found["rename"] == ("write:files", "srv:{path}")
    assert found["list_allowed_directories"] == ("read:files", "")
    assert drafted(tool("rename", "from", "to"))["rename"] == ("write:records", "")


def test_amounts_and_recipients_are_read() -> None:
    """So that policy decides on them."""
    text = draft_file("s", HEAD, [tool("pay", "amount", "currency", "to")])
    assert 'amount = "/amount"' in text
    assert 'recipients = "count:/to"' in text


HOSTILE = '"]\nscope = "read:records"\n[tools.x'


def test_a_server_s_words_write_no_line_of_the_file() -> None:
    """Names that no entry can have are left out, and descriptions are comments."""
    odd = {
        "name": "do",
        "description": f"x\n[tools.evil]\nscope = 'read:files' \x1b[31m{HOSTILE}",
        "inputSchema": {"properties": {HOSTILE: {}}, "required": [HOSTILE]},
    }
    given = [odd, tool(HOSTILE), tool("a*"), tool(""), {"name": 3}, tool("ok]")]
    assert {*drafted(*given)} == {"do", "3", "ok]"}
    assert "\x1b" not in draft_file("srv", HEAD, given)


def test_a_server_without_tools_has_no_draft() -> None:
    """A file that refuses every call is not written."""
    with pytest.raises(UsageError, match="has no tools"):
        draft_file("srv", HEAD, [tool("a*")])


class Peer(BaseHTTPRequestHandler):
    """A server at a URL: two pages of tools, the second as events."""

    token: ClassVar[str] = ""

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        asked = json.loads(self.rfile.read(size))
        if self.token and self.headers["authorization"] != f"Bearer {self.token}":
            return self._say(401, b"", "text/plain")
        if asked["method"] == "initialize":
            result: dict[str, Any] = {"protocolVersion": "2025-11-25"}
        elif "id" not in asked:
            return self._say(202, b"", "text/plain")
        elif self.headers["mcp-session-id"] != "s1":
            return self._say(400, b"", "text/plain")
        elif "cursor" in asked["params"]:
            answer = {"id": asked["id"], "result": {"tools": [{"name": "two"}]}}
            text = f"event: message\ndata: {json.dumps(answer)}\n\n"
            return self._say(200, text.encode(), "text/event-stream")
        else:
            result = {"tools": [{"name": "one"}], "nextCursor": "c"}
        text = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result})
        return self._say(200, text.encode(), "application/json")

    def _say(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("mcp-session-id", "s1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/mcp"
    server.shutdown()
    server.server_close()


async def test_all_pages_of_a_server_at_a_url_are_read(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its session, as JSON and as events; a credential is asked for by name."""
    assert [one["name"] for one in await tools_of_url(url, None)] == ["one", "two"]
    monkeypatch.setattr(Peer, "token", "secret")
    with pytest.raises(UpstreamError, match="--secret NAME"):
        await tools_of_url(url, None)
    assert len(await tools_of_url(url, "secret")) == 2
