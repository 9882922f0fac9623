"""``paths`` of an MCP server's tools: each call has the one path that it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.policies import ALLOW_ALL, CATALOGUE, ENVIRONMENT

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.mcp import McpServer, parse_server
from agentvault_tui.gateway.mcp.servers import doubts, other_tool, paths_of, unsaid
from agentvault_tui.gateway.tools import UnmatchedToolError
from agentvault_tui.model import Agent, Outcome
from agentvault_tui.policy import Policy, shipped_catalogue

FILE = """
command = ["mcp-server-filesystem", "/srv/shared"]
root = "/srv/shared"
[tools."read_*"]
scope = "read:files"
paths = ["path", "paths"]
[tools.search_files]
scope = "read:files"
resource = "disk:{path}"
paths = ["path"]
recursive = true
[tools.write_file]
scope = "write:files"
resource = "fs:{file}"
paths = ["file"]
[tools.move_file]
scope = "write:files"
resource = "{drive}:{path}"
paths = ["source", "destination"]
"""
FORBID = (
    '@id("f") @why("w") forbid (principal, action, resource) when {'
    ' context has resource && context.resource like "fs:/srv/shared/secret/*" };'
)


def parse(text: str = FILE) -> McpServer:
    return parse_server("fs", text, shipped_catalogue(), Path("/nowhere"))


def action(server: McpServer, tool: str, arguments: dict[str, Any], **more: Any) -> Any:
    rule = server.rule_of(tool)
    other, _, answered = doubts(paths_of(rule), {}, arguments, **more)
    return server.action_of(rule, tool, arguments, other=other, answered=answered)


@pytest.mark.parametrize(
    ("tool", "arguments", "resource"),
    [
        ("read_file", {"path": "/srv/shared/a"}, "fs:/srv/shared/a"),
        ("read_file", {"path": "secret/key"}, "fs:/srv/shared/secret/key"),
        ("read_file", {"path": "./a"}, "fs:/srv/shared/a"),
        ("read_file", {"path": "~/a"}, "fs:/"),
        ("read_file", {"path": ""}, "fs:/"),
        ("read_file", {"path": "../a"}, "fs:/"),
        ("read_all", {"paths": ["a/x", "a/y"]}, "fs:/srv/shared/a/"),
        ("read_all", {"paths": ["a/x", ""]}, "fs:/"),
        ("read_all", {"paths": ["a/x"], "path": "b"}, "fs:/srv/shared/"),
        ("read_all", {"paths": []}, "fs:/"),
        ("read_all", {}, "fs:/"),
        ("search_files", {"path": "/srv/shared"}, "disk:/srv/shared/"),
        ("search_files", {"path": "."}, "disk:/srv/shared/"),
        ("write_file", {"file": "a"}, "fs:/srv/shared/a"),
        (
            "move_file",
            {"drive": "c", "source": "pub/a", "destination": "secret/a"},
            "c:/srv/shared/",
        ),
    ],
)
def test_a_resource_is_the_absolute_path_of_what_a_call_reaches(
    tool: str, arguments: dict[str, Any], resource: str
) -> None:
    """Also of several paths, and of those below a folder."""
    assert action(parse(), tool, arguments).resource == resource


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("read_file", {"path": 3}),
        ("read_file", {"path": {"a": 1}}),
        ("read_all", {"paths": ["a", 3]}),
        ("read_all", {"paths": ["a", None]}),
        ("read_all", {"paths": [["a"]]}),
        ("read_all", {"paths": '["a", "secret/key"]'}),
        ("read_file", {"Path": "a"}),
        ("read_all", {"paths": ["a"] * 65}),
        ("read_all", {"paths": ["a" * 5_000] * 2}),
        ("write_file", {}),
        ("write_file", {"file": None}),
        ("move_file", {"source": "a", "destination": "b"}),
    ],
)
def test_a_call_with_an_unclear_path_is_none(
    tool: str, arguments: dict[str, Any]
) -> None:
    """A path is a text or in a list of texts; a change has to name one."""
    with pytest.raises(UnmatchedToolError) as caught:
        action(parse(), tool, arguments)
    assert caught.value.reason == "unclear_call"


def test_a_path_that_an_answer_to_the_server_states_too_is_unclear() -> None:
    """Its tool may act on the answer."""
    answers = {"q": {"action": "accept", "content": {"paths": ["secret/key"]}}}
    with pytest.raises(UnmatchedToolError, match="does not say its path or paths"):
        action(parse(), "read_all", {"path": "a"}, answers=answers)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/srv/shared/a", []),
        ("/srv/shared/a/", []),
        ("a", ["arguments/file"]),
        ("/srv/./a", ["arguments/file"]),
        ("~/a", ["arguments/file"]),
        (["/srv/shared/a"], ["arguments/file"]),
    ],
)
def test_an_approved_token_opens_the_path_that_it_states(
    path: object, left: list[str]
) -> None:
    """An action on the absolute path does not say which spelling is sent."""
    rule = parse().rule_of("write_file")
    assert rule is not None
    assert unsaid(rule, {"file": path}) == left
    both = {"drive": "fs", "source": "/a/x", "destination": "/a/y"}
    moved = parse().rule_of("move_file")
    assert moved is not None
    found = sorted(unsaid(moved, both))
    assert found == ["arguments/destination", "arguments/source"]


def test_another_tool_of_the_same_path_is_found() -> None:
    """A token for the one does not open the other."""
    server = parse()
    read = action(server, "read_file", {"path": "a"})
    assert other_tool([server], read, server.rule_of("search_files")) is not None


@pytest.mark.parametrize(
    "keys",
    [
        'paths = ["path"]\nresource = "fs"',
        'paths = ["path"]\nresource = "fs:{file}"',
        'paths = ["path"]\nresource = "fs:{path}/x"',
        'paths = ["path"]\nresource = "fs:{path}:{path}"',
        'paths = ["a", "b"]\nresource = "fs:{a}:{b}"',
    ],
)
def test_a_resource_ends_with_its_path(keys: str) -> None:
    """So that a slash at its end includes what is below."""
    with pytest.raises(ServiceError, match="end with its path"):
        parse(f'command = ["x"]\n[tools.t]\nscope = "read:files"\n{keys}\n')
    with pytest.raises(ServiceError, match="root is"):
        parse('command = ["x"]\nroot = "srv"\n')


SCOPES = ("read:files",)
SPELLINGS = [
    *("/srv/shared/secret/key", "secret/key", "./secret/key", "Secret/KEY", "~/key"),
    *("secret/../secret/key", '"/srv/shared/secret/key"', "", "C:/secret", "secret//k"),
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_passes_a_forbid_on_it(agent: Agent, path: str) -> None:
    """With ``paths`` or without, alone or next to a permitted one, with root or not."""
    policy, agent = Policy(ALLOW_ALL + FORBID, CATALOGUE), replace(agent, scopes=SCOPES)
    plain = '\n[tools.plain]\nscope = "read:files"\nresource = "fs:{path}"\n'
    for text in (FILE + plain, (FILE + plain).replace("root = ", "# ")):
        server = parse(text)
        for tool, arguments in (
            ("read_file", {"path": path}),
            ("read_all", {"paths": ["/srv/shared/pub/a", path]}),
            ("plain", {"path": path}),
        ):
            try:
                asked = action(server, tool, arguments)
            except UnmatchedToolError:
                continue
            verdict = policy.decide(agent, asked, ENVIRONMENT)
            assert verdict.outcome is not Outcome.ALLOWED, (tool, asked.resource)
        asked = action(server, "read_all", {"paths": ["/srv/shared/pub/a"]})
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED
        elsewhere = replace(asked, resource="repo:secret/key")
        assert policy.decide(agent, elsewhere, ENVIRONMENT).outcome is Outcome.ALLOWED
