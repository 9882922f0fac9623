"""``mcp/NAME.toml``: how a server is reached, and its tools as actions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.counting import ArgumentPlace
from agentvault_tui.gateway.mcp import McpServer, McpServers, parse_server
from agentvault_tui.gateway.mcp.servers import doubts, paths_of, spelt_otherwise, unsaid
from agentvault_tui.gateway.tools import UnmatchedToolError
from agentvault_tui.home import Home
from agentvault_tui.policy import shipped_catalogue

CONTRACT = """
command = ["mcp-server-filesystem", "/srv/shared"]
unmatched = "deny"
[tools."read_*"]
scope = "read:files"
resource = "fs:{path}"
[tools.write_file]
scope = "write:files"
resource = "fs:{path}"
parameters = { count = "/files" }
"""
URL = 'url = "https://mcp.test/mcp"\n'
RULE = '[tools."*"]\nscope = "read:files"\n'


def parse(text: str) -> McpServer:
    return parse_server("files", text, shipped_catalogue(), Path("/nowhere"))


def action(server: McpServer, tool: str, arguments: dict[str, Any]) -> Any:
    rule = server.rule_of(tool)
    other = spelt_otherwise(paths_of(rule), arguments)
    return server.action_of(rule, tool, arguments, other=other)


def test_the_contracts_example_is_in_force() -> None:
    """Globs name tools; resources and counts come from the arguments."""
    server = parse(CONTRACT)
    assert server.command == ("mcp-server-filesystem", "/srv/shared")
    read = action(server, "read_text", {"path": "/srv/shared/a"})
    assert (read.action, read.resource) == ("read:files", "fs:/srv/shared/a")
    written = action(server, "write_file", {"path": "/a", "files": [1, 2, 3]})
    assert written.parameters == {"count": 3}
    assert server.rule_of("write_files") is None
    assert server.scopes == ("write:files", "read:files")


def test_what_is_unmatched_has_a_resource_of_its_own() -> None:
    """With a scope for it: NAME:TOOL, and also for other methods."""
    server = parse(URL + 'unmatched = "read:files"\n')
    assert action(server, "anything", {}).resource == "files:anything"
    assert server.rule_of("", "resources/read") is not None


def test_a_pattern_for_tools_is_for_no_other_method() -> None:
    """resources/read needs a rule that names its family."""
    assert parse(URL + RULE).rule_of("", "resources/read") is None
    rule = '[tools."resources/*"]\nscope = "read:files"\n'
    server = parse(URL + rule)
    assert server.rule_of("", "resources/read") is not None
    assert server.rule_of("", "prompts/get") is None


@pytest.mark.parametrize(
    "name", ["read_a/b", "read_a b", "read_a:b", "read_a\n", "read_ä", "read_a\u200b"]
)
def test_a_name_with_other_characters_has_its_exact_entry_alone(name: str) -> None:
    """In a pattern, ``*`` matches letters, digits, ``_``, ``-`` and ``.``."""
    server = parse(URL + '[tools."read_*"]\nscope = "read:files"\n')
    assert server.rule_of(name) is None
    for good in ("read_", "read_a", "read_A-b.C_9"):
        assert server.rule_of(good) is not None
    entry = f'[tools.{json.dumps(name)}]\nscope = "write:files"\n'
    rule = parse(URL + entry + RULE).rule_of(name)
    assert rule is not None
    assert rule.scope == "write:files"


def test_a_name_that_may_be_another_tools_is_denied() -> None:
    """By its fold, for entries of one tool; each has its own entry where both exist."""
    text = URL + '[tools.get_user]\nscope = "delete:files"\n' + RULE
    for name in ("getUser", "get-user", "GET_USER"):
        assert parse(text).rule_of(name) is None
    both = parse(text + '[tools.getUser]\nscope = "write:files"\n')
    found = [both.rule_of(name) for name in ("get_user", "getUser")]
    assert [r.scope for r in found if r] == ["delete:files", "write:files"]


def test_a_name_that_is_read_below_the_top_is_there_in_one_spelling() -> None:
    """Also where the name itself is not there: a lenient server goes by the other."""
    text = URL + '[tools.x]\nscope = "read:files"\nparameters = { n = "/a/0/count" }\n'
    server = parse(text)
    assert action(server, "x", {"a": [{"count": 2}]}).parameters == {"n": 2}
    for arguments in (
        {"a": [{"Count": 2}]},
        {"A": [{"count": 2}]},
        {"a": [{"count": 1, "co_unt": 2}]},
        {"a": [{"\u212aount": 1, "kount": 1, "co-unt": 2}]},
    ):
        with pytest.raises(UnmatchedToolError) as caught:
            action(server, "x", arguments)
        assert caught.value.reason == "unclear_call"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"path": "/a", "n": 2, "to": {"mail": "x"}}, []),
        ({"path": "/a", "n": [1, 2]}, []),
        ({"path": "/a", "count": 2}, []),
        ({"path": "/a", "count": [1, 2]}, ["arguments/count"]),
        ({"path": "/a", "files": ["x"]}, ["arguments/files"]),
        ({"path": "/a", "body": "x"}, ["arguments/body"]),
        ({"path": "/a", "to": {"mail": "x", "bcc": "y"}}, ["arguments/to/bcc"]),
        ({"path": "/a", "to": {}}, ["arguments/to"]),
        ({"path": "/a", **{f"x{n}": n for n in range(9)}}, 5),
    ],
)
def test_what_an_action_does_not_state_of_a_call(
    arguments: dict[str, Any], left: list[str] | int
) -> None:
    """A count says how many, not what; the first few are named."""
    parameters = (
        '{ n = "/n", mail = "/to/mail", files = "count:/files", count = "/count" }'
    )
    text = '[tools.x]\nscope = "read:files"\nresource = "fs:{path}"\nparameters = '
    rule = parse(URL + text + parameters + "\n").rule_of("x")
    assert rule is not None
    found = unsaid(rule, arguments)
    assert len(found) == left if isinstance(left, int) else found == left


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "/a", "PATH": "/b"},
        {"path": "/a", "pa th": "/b"},
        {"Path": "/b"},
        {"path": "/a", "p_ath": "/b"},
        {"path": "/a", "p\u0430th": "/b"},
        {"path": None},
        {"path": True},
        {},
        {str(n): n for n in range(1_001)} | {"path": "/a"},
    ],
)
def test_an_unclear_argument_is_no_action(arguments: dict[str, Any]) -> None:
    """What names the resource must be there once, in one spelling."""
    with pytest.raises(UnmatchedToolError) as caught:
        action(parse(CONTRACT), "read_text", arguments)
    assert caught.value.reason == "unclear_call"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "in no way, or in two"),
        (URL + 'command = ["x"]\n', "in no way, or in two"),
        ('command = "x"\n', "Expected `array`"),
        ('command = [""]\n', "empty part"),
        ('command = ["x"]\nallow_http = true\n', "are of a url"),
        ('command = ["x"]\n[credential]\nkind = "bearer"\nsecret = "k"\n', "of a url"),
        (URL + "per_agent = true\n", "per_agent is of a command"),
        ('url = "http://mcp.test/mcp"\n', "not encrypted"),
        ('url = "https://mcp.test/../x"\n', "url:"),
        ('url = "https://u@mcp.test/"\n', "account"),
        ('command = ["x"]\ncomand = 1\n', "did you mean command"),
        (URL + '[tools.x]\nscop = "read:files"\n', "did you mean scope"),
        (URL + '[tools.x]\nscope = "read:file"\n', "did you mean read:files"),
        (URL + '[tools.x]\nscope = "read:files"\nresource = "{}"\n', "argument"),
        (
            URL + '[tools.x]\nscope = "read:files"\nparameters = { count = "files" }\n',
            "JSON Pointer",
        ),
        (URL + 'unmatched = "all"\n', "unknown scope"),
        (URL + 'ca_file = "none.pem"\n', "does not exist"),
        ("= 1", "not TOML"),
    ],
)
def test_a_broken_file_says_what_is_wrong(text: str, said: str) -> None:
    """The nearest key or scope where there is one."""
    with pytest.raises(ServiceError) as caught:
        parse(text)
    assert said in caught.value.diagnosis()


def test_a_broken_file_leaves_the_one_before_in_force(tmp_path: Path) -> None:
    """With a warning that names it; a file that is gone is in force no more."""
    (tmp_path / "mcp").mkdir()
    path = tmp_path / "mcp" / "files.toml"
    path.write_text(CONTRACT)
    servers = McpServers(Home(tmp_path, tmp_path), shipped_catalogue)
    servers.reload()
    path.write_text("command = []")
    servers.reload()
    assert servers.get("files") is not None
    assert servers.warnings[0].startswith("mcp/files.toml cannot be put in force, the")
    path.unlink()
    servers.reload()
    assert servers.get("files") is None


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"to": ["a@Acme.test", "b@x.test"]}, ["acme.test", "x.test"]),
        ({"to": "a@acme.test"}, ["acme.test"]),
        ({}, False),
        ({"to": "a@acme.test,b@evil.test"}, None),
        ({"to": ["a@acme.test", 3]}, None),
        ({"to": "a@acme.test", "cc": "b@evil.test"}, None),
        ({"to": "a@acme.test", "mail": {"bcc": ["b@evil.test"]}}, None),
    ],
)
def test_destinations_of_a_tool_are_read_as_those_of_a_service(
    arguments: dict[str, Any], found: Any
) -> None:
    """All addresses, or the parameter is unclear; no argument is stated by it."""
    text = '[tools.mail]\nscope = "send:email"\n[tools.mail.parameters]\n'
    server = parse(URL + text + 'destinations = "domains:/to"\n')
    asked = action(server, "mail", arguments)
    assert asked.parameters.get("destinations", False) == found
    if arguments:
        assert "arguments/to" in unsaid(server.tools.rules[0], arguments)
    hooked = parse(URL + text + 'destinations = "hosts:/url"\n')
    stated = action(hooked, "mail", {"url": "https://hooks.acme.test/"}).parameters
    assert stated == {"destinations": ["hooks.acme.test"]}
    for wrong in ('to = "domains:/to"', 'destinations = "/to"', "destinations = 3"):
        with pytest.raises(ServiceError):
            parse(URL + text + wrong)


def test_what_policy_reads_is_unclear_if_an_answer_to_the_server_has_it_too() -> None:
    """The agent writes the answers as well, and a server may act on them."""
    places = {
        "recipients": ArgumentPlace(("to",), addressed=True),
        "amount": ArgumentPlace(("pay", "amount"), addressed=False),
    }
    given = {"to": ["a@x.test"], "pay": {"amount": 7}}
    for answers, unclear in (
        (None, set()),
        ({"q": {"action": "accept", "content": {"note": "to"}}}, set()),
        ({"q": {"action": "accept", "content": {"bcc": ["b"]}}}, {"recipients"}),
        ({"q": {"content": {"Amount": 9, "to": "b"}}}, {"amount", "recipients"}),
    ):
        assert doubts([], places, given, answers) == (None, unclear, frozenset())


@pytest.mark.parametrize(
    "content", [{"path": "/b"}, {"Path": "/b"}, {"path": ""}, {"a": [{"path[0]": 1}]}]
)
def test_an_argument_that_an_answer_to_the_server_states_too_is_unclear(
    content: dict[str, Any],
) -> None:
    """The tool may act on the answer: no resource is read, and no parameter."""
    server = parse(URL + '[tools.read]\nscope = "read:files"\nresource = "f:{path}"\n')
    rule = server.rule_of("read")
    asked: dict[str, Any] = {"q": {"action": "accept", "content": content}}
    given = {"path": "/a"}
    other, unclear, answered = doubts(paths_of(rule), {}, given, asked)
    assert (other, unclear, answered) == (None, set(), {("path",)})
    with pytest.raises(UnmatchedToolError, match="does not say its path"):
        server.action_of(
            rule,
            "read",
            {"path": "/a"},
            other=other,
            unclear=unclear,
            answered=answered,
        )
    named = parse(URL + RULE + 'parameters = { where = "/path" }\n')
    rule = named.rule_of("read")
    found = doubts(paths_of(rule), {}, given, asked)[2]
    action = named.action_of(rule, "read", given, other=None, answered=found)
    assert action.parameters == {"where": None}


@pytest.mark.parametrize(
    "text", ['{"amount": 9}', ' ["/b"]', '{"a": ' + "[" * 3_000 + "]" * 3_000 + "}"]
)
def test_a_value_that_servers_read_as_json_is_unclear(text: str) -> None:
    """The server may act on a member of it, or on another name."""
    server = parse(
        URL
        + '[tools.pay]\nscope = "send:payment"\nresource = "pay:{to}"\n'
        + 'parameters = { amount = "/order/amount" }\n'
    )
    rule = server.rule_of("pay")
    for given, place in (
        ({"order": text, "to": "a"}, ("order", "amount")),
        ({"order": {"amount": text}, "to": "a"}, ("order", "amount")),
        ({"order": {"amount": 1}, "to": text}, ("to",)),
    ):
        assert place in doubts(paths_of(rule), {}, given)[2]
    given = {"order": {"amount": 1}, "to": "[a] {b}"}
    assert doubts(paths_of(rule), {}, given)[2] == frozenset()
