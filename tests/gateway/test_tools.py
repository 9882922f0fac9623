"""Tools of agent hosts become actions: which tool, on what, with which parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentvault_tui.errors import NotFoundError, ServiceError
from agentvault_tui.gateway.mcp.servers import parse_server
from agentvault_tui.gateway.tools import (
    LONGEST,
    SHIPPED,
    ToolActions,
    ToolCall,
    ToolMap,
    ToolMaps,
    UnmatchedToolError,
    parse_tools,
    shipped_tools,
)
from agentvault_tui.home import Home
from agentvault_tui.operator_api.access import HookPlace
from agentvault_tui.policy import shipped_catalogue

FILES = """
[tools."read_*"]
scope = "read:files"
resource = "file:{path}"
[tools.read_secret]
scope = "read:records"
parameters = { count = "count:/ids", who = "/owner/name", first = "/ids/0", n = 3 }
"""


def tools(text: str) -> ToolMap:
    return parse_tools("host", text, shipped_catalogue())


def action(text: str, tool: str, omitted: tuple[str, ...] = (), **given: Any) -> Any:
    call = ToolCall(tool, given, frozenset(omitted))
    (found,) = tools(text).actions_of(call).actions
    return found


def test_an_exact_name_comes_before_a_pattern() -> None:
    """Whatever their order in the file; a pattern has to match the whole name."""
    assert action(FILES, "read_secret").scopes == ("read:records",)
    found = action(FILES, "read_file", path="/srv/a")
    assert (found.action, found.resource) == ("read:files", "file:/srv/a")
    with pytest.raises(UnmatchedToolError, match="x_read_file"):
        action(FILES, "x_read_file", path="/srv/a")


def test_a_pattern_with_many_stars_is_matched_once() -> None:
    """The name is the agent's: matching that tries each split of it takes years."""
    text = f'[tools."{"*a" * 20}*b"]\nscope = "read:files"\n'
    assert action(text, "a" * 60 + "b").scopes == ("read:files",)
    with pytest.raises(UnmatchedToolError):
        action(text, "a" * 120)


def test_parameters_are_read_by_pointer() -> None:
    """What is there is taken, a count counts, a number is itself."""
    found = action(FILES, "read_secret", ids=["a", "b"], owner={"name": "ann"})
    assert found.parameters == {"count": 2, "who": "ann", "first": "a", "n": 3}
    assert found.resource == "host:read_secret"
    assert action(FILES, "read_secret", ids=[]).parameters == {"count": 0, "n": 3}


MANY = ["a@x.test", "b@x.test"]


@pytest.mark.parametrize("place", ["count:/to", "/to", "count:/mail/to"])
@pytest.mark.parametrize(
    "more",
    [
        *({"cc": MANY}, {"bcc": "b@x.test"}, {"Bcc": MANY}, {"BCC[]": MANY}),
        *({one: MANY} for one in ("recipients", "recipient", "emails")),
        *({one: MANY} for one in ("toRecipients", "cc_recipients", "bccRecipients")),
        *({"message": {"cc": MANY}}, {"messages": [{"x": 1}, {"to": MANY}]}),
        {"many": [{"x": 1}] * 60_000},  # more than is searched
    ],
)
def test_recipients_elsewhere_make_them_unclear(
    place: str, more: dict[str, Any]
) -> None:
    """Who is in `cc` is reached as well as who is in `to`, so a person decides."""
    text = f'[tools.x]\nscope = "send:email"\nparameters = {{ recipients = "{place}" }}'
    given: dict[str, Any] = {"to": ["a@x.test"]}
    given = {"mail": given} if "mail" in place else given
    stated = 1 if place.startswith("count:") else ["a@x.test"]
    for harmless in ({}, {"cc": []}, {"bcc": None}, {"body": "to cc", "n": [1, [2]]}):
        assert action(text, "x", **given, **harmless).parameters == {
            "recipients": stated
        }
    assert action(text, "x", **given, **more).parameters == {"recipients": None}
    assert action(text, "x", **more).parameters["recipients"] is None


@pytest.mark.parametrize("name", ["amount", "count", "currency"])
def test_what_policy_reads_is_unclear_if_an_inner_object_has_it_too(name: str) -> None:
    """A server may read it there; other parameters are what they are."""
    text = (
        '[tools.x]\nscope = "send:payment"\n'
        f'parameters = {{ {name} = "/pay/{name}", note = "/note" }}'
    )
    given: dict[str, Any] = {"pay": {name: 7}, "note": "n", "more": {"note": "m"}}
    assert action(text, "x", **given).parameters == {name: 7, "note": "n"}
    for more in ({name: 9}, {"items": [{name.upper(): 9}]}, {"o": {f"{name}[]": 9}}):
        found = action(text, "x", **given, **more)
        assert found.parameters == {name: None, "note": "n"}


@pytest.mark.parametrize("ids", ["abc", 7, None])
def test_what_cannot_be_counted_is_unclear(ids: object) -> None:
    """Unclear is None, for which policy makes a person decide."""
    found = action(FILES, "read_secret", ids=ids)
    assert found.parameters["count"] is None


def test_what_is_too_long_to_be_read_is_unclear() -> None:
    """A person approves what they can read; so does what the hook left out."""
    text = '[tools.Bash]\nscope = "read:files"\nparameters = { command = "/command" }'
    assert action(text, "Bash", command="x" * LONGEST).parameters["command"]
    assert action(text, "Bash", command="x" * (LONGEST + 1)).parameters == {
        "command": None
    }
    assert action(text, "Bash", omitted=("command",)).parameters == {"command": None}


@pytest.mark.parametrize("ids", [[2**60], [[["x" * LONGEST]]], {"a": -(2**53)}])
def test_what_no_digest_covers_is_unclear(ids: object) -> None:
    """Numbers that readers disagree on, and lists too long to be read."""
    text = '[tools.T]\nscope = "read:files"\nparameters = { ids = "/ids" }'
    assert action(text, "T", ids=ids).parameters == {"ids": None}


@pytest.mark.parametrize("path", [None, "", ["a"], {"x": 1}, True])
def test_a_resource_needs_its_argument(path: object) -> None:
    """Absent, empty or no text, it is no action."""
    arguments = {} if path is None else {"path": path}
    with pytest.raises(UnmatchedToolError, match="path") as caught:
        action(FILES, "read_file", **arguments)
    assert caught.value.reason == "unclear_call"


def test_what_no_tool_matches_is_denied_or_of_one_scope() -> None:
    """By the file: deny without a word, or the scope it names."""
    with pytest.raises(UnmatchedToolError) as caught:
        action("", "Launch")
    assert caught.value.reason == "unmatched_tool"
    found = action('unmatched = "read:web"', "Launch", x=1)
    assert (found.action, found.resource, found.parameters) == (
        "read:web",
        "host:Launch",
        {},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tools.Bash]\nscop = 'x'", "did you mean scope"),
        ("[tool.Bash]\nscope = 'x'", "did you mean tools"),
        ("[tools.Bash]\nscope = 'raed:files'", "did you mean read:files"),
        ("unmatched = 'allow'", "unknown scope"),
        ("[tools.Bash]", "scope"),
        ("[tools.'']\nscope = 'read:files'", "empty name"),
        ("[tools.B]\nscope = 'read:files'\nresource = 'a:{b'", "{argument}"),
        ("[tools.B]\nscope = 'read:files'\nresource = 'a:{}'", "{argument}"),
        (
            "[tools.B]\nscope = 'read:files'\nparameters = { count = 'ids' }",
            "no JSON Pointer",
        ),
        ("[tools.B]\nscope = 'read:files'\nparameters = { n = 1.5 }", "parameters"),
        ("x = [", "not TOML"),
    ],
)
def test_a_broken_file_says_what_is_wrong(text: str, said: str) -> None:
    """Each fault is one sentence, with the nearest known word."""
    with pytest.raises(ServiceError) as caught:
        tools(text)
    assert said in caught.value.diagnosis()


PLACED = """
[tools.Patch]
scope = "write:files"
paths = ["written"]
deletes = ["deleted"]
parameters = { count = "count:/files" }
[tools.Search]
scope = "read:files"
paths = ["path"]
patterns = ["glob"]
[tools.Read]
scope = "read:files"
resource = "file:{name}"
"""


def placed(tool: str, where: str = "project", **given: Any) -> ToolActions:
    """Return what a call is whose every text leads somewhere below /p."""
    found = [
        HookPlace(
            *(name, text, glob, f"/p/{text}".rstrip("/"), where),
            configures=text == ".envrc",
            folder=text in {"", "src"},
        )
        for name, value in {"": "", **given}.items()
        for text in (value if isinstance(value, list) else [value])
        for glob in (False, True)
    ]
    return tools(PLACED).actions_of(ToolCall(tool, given, places=found))


def pairs(found: ToolActions) -> list[tuple[str, str | None]]:
    return [(one.action, one.resource) for one in found.actions]


def test_each_path_of_a_call_is_an_action_of_its_own() -> None:
    """Writing, deleting and what has programs run, with all of them in each."""
    found = placed("Patch", written=["a", ".envrc"], deleted=["b", ".envrc"])
    assert pairs(found) == [
        ("write:files", "file:/p/a"),
        ("configure:host", "file:/p/.envrc"),
        ("delete:files", "file:/p/b"),
    ]
    for one in found.actions:
        assert one.parameters["resources"] == [
            "write:files file:/p/a",
            "configure:host file:/p/.envrc",
            "delete:files file:/p/b",
        ]
    assert found.person == ""


def test_a_search_is_about_what_it_states_or_the_folder_it_starts_in() -> None:
    """Paths and globs; reading configures nothing."""
    everything = ("read:files", "file:/p/")
    assert pairs(placed("Search")) == [everything]
    assert pairs(placed("Search", path="", glob=None)) == [everything]
    assert pairs(placed("Search", path=".envrc", glob="*.py")) == [
        ("read:files", "file:/p/.envrc"),
        ("read:files", "file:/p/*.py"),
        everything,
    ]
    assert pairs(placed("Search", glob="src/*.py")) == [
        ("read:files", "file:/p/src/*.py"),
        ("read:files", "file:/p/src/"),
    ]
    # ripgrep matches a name without a slash in every folder.
    assert pairs(placed("Search", glob="a")) == [
        ("read:files", "file:/p/a"),
        everything,
    ]


@pytest.mark.parametrize("where", ["outside", "unknown", "anything"])
def test_what_is_not_in_the_project_is_for_a_person(where: str) -> None:
    """Nor what the hook did not place, or cut."""
    assert placed("Read", where, name="a").person
    call = ToolCall("Read", {"name": "a"})
    assert tools(PLACED).actions_of(call).person
    cut = ToolCall("Read", {"name": {"cut": "a"}}, frozenset({"name"}))
    assert tools(PLACED).actions_of(cut).person
    assert not placed("Read", name="a").person
    with pytest.raises(UnmatchedToolError) as caught:
        placed("Read", "vault", name="a")
    assert caught.value.reason == "agentvault_home"


def test_a_call_names_at_most_256_files() -> None:
    """All of them are in one record, and each is decided while others wait."""
    names = [f"f{number}" for number in range(257)]
    assert len(placed("Patch", written=names[1:], deleted=[]).actions) == 256
    with pytest.raises(UnmatchedToolError, match="256") as caught:
        placed("Patch", written=names, deleted=[])
    assert caught.value.reason == "unclear_call"


@pytest.mark.parametrize(
    "given", [{}, {"written": []}, {"written": [7]}, {"deleted": 7}]
)
def test_a_change_that_names_no_file_is_no_action(given: dict[str, Any]) -> None:
    """Absent, an empty list, or no text."""
    with pytest.raises(UnmatchedToolError):
        tools(PLACED).actions_of(ToolCall("Patch", given))


@pytest.mark.parametrize(
    "keys",
    ["patterns = ['a']", "deletes = ['a']", "urls_in = ['a']", "[[tools.t.commands]]"],
)
def test_a_server_has_no_globs_of_this_machine(keys: str) -> None:
    """They are of hosts; a server's file says so, and a host's has no recursive."""
    more = "program = 'ls'\nscope = 'read:files'" if "commands" in keys else ""
    text = f"command = ['x']\n[tools.t]\nscope = 'read:files'\n{keys}\n{more}"
    with pytest.raises(ServiceError, match=r"hosts/NAME\.toml"):
        parse_server("s", text, shipped_catalogue(), Path("/"))
    own = "[tools.t]\nscope = 'read:files'\nrecursive = true\n"
    with pytest.raises(ServiceError, match=r"mcp/NAME\.toml"):
        parse_tools("codex", own, shipped_catalogue())


@pytest.mark.parametrize("host", SHIPPED)
def test_each_shipped_map_parses(host: str) -> None:
    """It names scopes of the shipped catalogue alone, and denies what it lacks."""
    found = parse_tools(host, shipped_tools(host), shipped_catalogue())
    assert found.unmatched == "deny"
    assert found.rules


def test_a_file_of_the_home_replaces_the_shipped_one(tmp_path: Path) -> None:
    """A broken one leaves the last; one that never held does not bring that back."""
    home = Home(tmp_path, tmp_path)
    maps = ToolMaps(home, shipped_catalogue)
    maps.reload()
    assert maps.of("codex").rules
    (tmp_path / "hosts").mkdir()
    file = tmp_path / "hosts" / "codex.toml"
    file.write_text("x = [")
    maps.reload()
    with pytest.raises(ServiceError, match=r"hosts/codex\.toml cannot be put in force"):
        maps.of("codex")
    file.write_text('unmatched = "read:web"')
    maps.reload()
    file.write_text("broken =")
    maps.reload()
    assert maps.of("codex").unmatched == "read:web"
    assert "hosts/codex.toml" in maps.warnings[0]
    with pytest.raises(NotFoundError, match="nohost"):
        maps.of("nohost")


FETCH = """
[tools.fetch]
scope = "read:web"
resource = "{url}"
urls_in = ["prompt"]
"""


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"url": "https://a.test/x", "prompt": "y"}, ["https://a.test/x"]),
        ({"prompt": "read HTTPS://a.test/x\nnow"}, ["https://a.test/x"]),
        (
            {"url": "https://a.test/", "prompt": "(https://b.test/)"},
            ["https://b.test/)", "https://b.test/", "https://a.test/"],
        ),
        (
            {"prompt": "https://a.test/,http://b.test/", "url": ""},
            ["https://a.test/,http://b.test/", "http://b.test/"],
        ),
    ],
)
def test_each_url_of_a_text_is_a_resource(
    arguments: dict[str, str], wanted: list[str]
) -> None:
    """Next to that of the resource's own argument, if it is stated."""
    does = tools(FETCH).actions_of(ToolCall("fetch", arguments))
    assert [one.resource for one in does.actions] == wanted
    assert not does.person


@pytest.mark.parametrize(
    ("arguments", "omitted"),
    [
        ({"prompt": "read a.test"}, ()),
        ({}, ()),
        ({"prompt": 1, "url": "https://a.test/"}, ()),
        ({"prompt": "https://a.test/", "url": ["https://b.test/"]}, ()),
        ({"prompt": {"cut": "https://a.test/"}}, ("prompt",)),
        ({"prompt": {"cut": "x"}, "url": "https://a.test/"}, ("prompt",)),
        ({"prompt": " ".join(f"https://a.test/{n}" for n in range(300))}, ()),
        ({"prompt": "http:" * 3_000}, ()),
        ({"prompt": "https://a.test/ " * 600 + "x " + "http:y" * 300}, ()),
    ],
)
def test_a_call_whose_urls_are_unclear_is_denied(
    arguments: dict[str, Any], omitted: tuple[str, ...]
) -> None:
    """It names none, or too many, or a text is not whole."""
    call = ToolCall("fetch", arguments, frozenset(omitted))
    with pytest.raises(UnmatchedToolError) as refused:
        tools(FETCH).actions_of(call)
    assert refused.value.reason == "unclear_call"


def test_only_a_host_has_urls_in_texts() -> None:
    """A server's tool has one resource."""
    with pytest.raises(ServiceError, match="only hosts"):
        parse_server(
            "s", 'url = "https://s.test/"' + FETCH, shipped_catalogue(), Path("/")
        )
