"""Cases of a route: a value of a request makes it another action, or refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.call_kit import bearer
from support.gateway_stand import Stand
from support.service_requests import FORM, JSON, action_of, read_request

from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.conditions import has_form, parse_conditions
from agentvault_tui.policy import Policy, shipped_catalogue, shipped_policy

Parse = Callable[[str], Service]
MAIL = """
[[routes]]
method = "POST"
path = "/mail/{id}"
scope = "write:email"
resource = "mail:{id}"
[routes.parameters]
labels = "body:/labels"
[[routes.cases]]
when = { "body:/labels" = ["TRASH", "SPAM"] }
scope = "delete:email"
resource = "bin:{id}"
parameters = { count = 1 }
[[routes.cases]]
when = { "query:notify" = "!none" }
parameters = { recipients = "unclear" }
[[routes.cases]]
when = { "query:raw" = "*", "body:/kind" = "import*" }
scope = "deny"
"""
MOVES = """
[[routes]]
method = "POST"
path = "/days/{day}"
scope = "write:calendar"
resource = ["day:{day}", "day:{query:to}"]
[routes.parameters]
to = "query:to"
"""
FORBIDDEN = """
@id("no-board")
@why("It is the board's.")
forbid (principal, action, resource)
when { context has resource && context.resource like "day:board*" };
"""


@pytest.mark.parametrize(
    ("body", "scope"),
    [
        ('{"labels": ["A", "B"]}', "write:email"),
        ('{"labels": []}', "write:email"),
        ("{}", "write:email"),
        ('{"labels": ["TRASHED"]}', "write:email"),
        ('{"other": ["TRASH"]}', "write:email"),
        ('{"labels": ["A", "TRASH"]}', "delete:email"),
        ('{"labels": "SPAM"}', "delete:email"),
        ('{"labels": [" trash "]}', "delete:email"),
        ('{"labels": ["A,TRASH"]}', "delete:email"),
        # Not readable in one way: it may be any of them.
        ('{"labels": null}', "delete:email"),
        ('{"labels": [["TRASH"]]}', "delete:email"),
        ('{"labels": {"0": "A"}}', "delete:email"),
        ('{"Labels": ["A"]}', "delete:email"),
        ('{"labels": [1.5]}', "delete:email"),
        ('[{"labels": ["TRASH"]}]', "delete:email"),
    ],
)
def test_a_value_in_the_body_makes_a_request_another_action(
    parse: Parse, body: str, scope: str
) -> None:
    """A member with one of the values, or that may have one, takes the case's scope."""
    action = action_of(parse(MAIL), "POST", "/mail/7", JSON, body=body.encode())
    assert action.action == scope
    deletes = scope == "delete:email"
    assert action.resource == ("bin:7" if deletes else "mail:7")
    assert action.parameters.get("count") == (1 if deletes else None)


@pytest.mark.parametrize(
    ("line", "body", "scope"),
    [
        ("/mail/7", "labels=A&labels=TRASH", "delete:email"),
        ("/mail/7", "labels[]=A", "delete:email"),
        ("/mail/7?labels=A", "", "delete:email"),
        ("/mail/7", "labels=A", "write:email"),
    ],
)
def test_a_form_and_the_query_are_read_like_the_body(
    parse: Parse, line: str, body: str, scope: str
) -> None:
    """A service may take the member from the query, or from a field with brackets."""
    action = action_of(parse(MAIL), "POST", line, FORM, body=body.encode())
    assert action.action == scope


@pytest.mark.parametrize(
    ("query", "unclear"),
    [
        ("", False),
        ("?notify=none", False),
        ("?notify=all", True),
        ("?notify=", True),
        ("?notify=none&notify=all", True),
        ("?Notify=none", True),
        ("?notify[]=none", True),
    ],
)
def test_all_values_but_the_named_ones_apply(
    parse: Parse, query: str, unclear: bool
) -> None:
    """`!none` is every stated value but that one; the parameter is then unclear."""
    action = action_of(parse(MAIL), "POST", f"/mail/7{query}")
    assert ("recipients" in action.parameters) is unclear
    assert action.parameters.get("recipients") is None


def test_a_case_refuses_requests_that_meet_all_its_conditions(parse: Parse) -> None:
    """Each condition has to hold; the refusal is that of a request without a route."""
    service = parse(MAIL)
    with pytest.raises(UnreadableRequestError) as refused:
        action_of(service, "POST", "/mail/7?raw=1", JSON, body=b'{"kind":"import2"}')
    assert (refused.value.code, refused.value.status) == ("no_route", 403)
    for line, body in (("/mail/7?raw=1", b"{}"), ("/mail/7", b'{"kind":"import"}')):
        assert action_of(service, "POST", line, JSON, body=body).action == "write:email"


def test_a_route_may_refuse_what_a_later_one_would_take(parse: Parse) -> None:
    """A scope may be `deny`, as `unmatched` may be."""
    service = parse(
        '[[routes]]\nmethod = "GET"\npath = "/hooks/{rest*}"\nscope = "deny"\n'
        '[[routes]]\nmethod = "GET"\npath = "/{rest*}"\nscope = "read:code"\n'
    )
    assert action_of(service, "GET", "/tags/1").action == "read:code"
    with pytest.raises(UnreadableRequestError, match="no route"):
        action_of(service, "GET", "/hooks/1")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ('when = { "body:/a" = "x" }\nscope = "fly:moon"', "case 1: scope names"),
        ('when = {}\nscope = "read:code"', "has no when"),
        ('when = { "body:/a" = [] }', "empty"),
        ('when = { "body:/a" = ["x", "!y"] }', "empty, or some begin"),
        ('when = { "body:/a" = "!*" }', "no value"),
        ('when = { "count:body:/a" = "x" }', "count is no value"),
        ('when = { "path:b" = "x" }', "nowhere"),
        ('when = { "body:/a" = "x" }\nresource = "r:{b}"', "the path has not"),
        ('when = { "body:/a" = "x" }\nresource = []', "resource is empty"),
        ('when = { "body:/a" = "x" }\nmethod = "GET"', "method"),
    ],
)
def test_a_fault_in_a_case_is_named(parse: Parse, key: str, what: str) -> None:
    """A file with a broken case is refused, and the message names the case's fault."""
    with pytest.raises(ServiceError, match=what):
        parse(
            '[[routes]]\nmethod = "POST"\npath = "/x"\nscope = "read:code"\n'
            f"[[routes.cases]]\n{key}\n"
        )


def test_a_case_reads_no_body_that_nothing_reads(parse: Parse) -> None:
    """A condition on an opaque body would never hold."""
    with pytest.raises(ServiceError, match="when is read from the body"):
        parse(
            '[[routes]]\nmethod = "POST"\npath = "/x"\nscope = "read:code"\n'
            'body = "opaque"\ntypes = ["image/*"]\n'
            '[[routes.cases]]\nwhen = { "body:/a" = "x" }\nscope = "deny"\n'
        )


def test_a_thousand_values_are_compared_and_no_more() -> None:
    """More values than that may have any of the listed ones among them."""
    (condition,) = parse_conditions({"query:x": ["a*b"]}, ())
    assert not condition.holds(["ac"] * 1_000)
    assert condition.holds(["ac"] * 1_001)
    assert condition.holds(["a-b"])
    assert condition.holds(None)
    assert str(condition) == "query:x is a*b"


def test_a_pattern_is_its_parts_in_their_order() -> None:
    """A star is any text, an empty one too, and no part is used twice."""
    assert has_form("a--b", ["a", "b"])
    assert not has_form("ab", ["ab", "b"])
    assert not has_form("a-b-c", ["a", "c", "c"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/days/ann?to=bob", None),
        ("/days/ann", None),
        ("/days/board1?to=bob", "policy_forbids"),
        ("/days/ann?to=board1", "policy_forbids"),
        ("/days/ann?to=ann&to=board1", ""),
        ("/days/ann?To=board1", ""),
    ],
)
async def test_each_resource_of_a_request_is_decided(
    stand: Stand, line: str, reason: str | None
) -> None:
    """A rule about one of the resources decides, and an unclear one needs a person."""
    await stand.service(MOVES)
    agent = await stand.agent("write:calendar")
    auth = bearer(await stand.token(agent, "write:calendar"))
    stand.bench.broker.deciding.policy = Policy(
        shipped_policy() + FORBIDDEN, shipped_catalogue()
    )
    auth["Prefer"] = "respond-async"
    reply = await stand.client.post(f"/gw/api{line}", headers=auth)
    if reason is None:
        assert reply.status_code == 200, reply.text
        detail = (await stand.bench.events("gateway.attempt"))[-1].detail
        several = ["day:ann", "day:bob"] if "?" in line else None
        assert detail.get("resources") == several
        return
    assert reply.status_code == 403
    assert stand.upstream.received == []
    if reason:
        assert reply.json()["reason"] == reason
    else:
        assert reply.json()["error"] == "insufficient_user_authentication"


async def test_a_limit_counts_each_resource_of_a_request(stand: Stand) -> None:
    """A window of one resource is used by every request that acts on it."""
    await stand.service(MOVES)
    stand.bench.home.limits_file.write_text(
        '[[limits]]\nid = "one"\nscopes = ["write:calendar"]\nper = "resource"\n'
        'count = 1\nwithin = "1h"\nover = "deny"\n'
    )
    await reload_policy(stand.bench.broker)
    agent = await stand.agent("write:calendar")
    auth = bearer(await stand.token(agent, "write:calendar"))
    answers = [
        (await stand.client.post(f"/gw/api/days/{line}", headers=auth)).status_code
        for line in ("a?to=b", "c?to=b", "b", "c")
    ]
    assert answers == [200, 403, 403, 200]


async def test_a_token_for_one_resource_opens_no_request_on_two(stand: Stand) -> None:
    """The other resource of the request is not the one that the token was for."""
    await stand.service(MOVES)
    agent = await stand.agent("write:calendar")
    token = await stand.token(agent, "write:calendar", resource="day:a")
    auth = bearer(token)
    reply = await stand.client.post("/gw/api/days/a?to=b", headers=auth)
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_token")
    reply = await stand.client.post("/gw/api/days/a?to=a", headers=auth)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("body", "resources"),
    [
        ('{"items": [{"id": "a"}, {"id": "b"}, {"id": "a"}]}', ["day:a", "day:b"]),
        ('{"items": []}', []),
        ("{}", []),
        ('{"items": [{"id": "a", "ID": "b"}]}', None),
        ('{"items": [{"Id": "a"}]}', None),
        ('{"items": ["a"]}', None),
        ('{"items": {"id": "a"}}', None),
        ('{"items": [{"id": 5}]}', None),
        (json.dumps({"items": [{"id": str(n)} for n in range(21)]}), None),
    ],
)
def test_each_member_of_a_list_is_a_resource(
    parse: Parse, body: str, resources: list[str] | None
) -> None:
    """A star in a pointer is each member; one that is unclear makes all so."""
    service = parse(
        '[[routes]]\nmethod = "POST"\npath = "/free"\nscope = "read:calendar"\n'
        'resource = ["all:days", "day:{body:/items/*/id}"]\n'
    )
    request, reading = read_request(service, "POST", "/free", JSON, body=body.encode())
    actions = request.head.actions(reading)
    assert [one.resource for one in actions] == ["all:days", *(resources or [])]
    assert ("resource" in reading.parameters) is (resources is None)


def test_the_resources_of_a_request_are_its_actions(parse: Parse) -> None:
    """One action for each resource that the request states."""
    request, reading = read_request(parse(MOVES), "POST", "/days/a?to=b")
    assert [one.resource for one in request.head.actions(reading)] == ["day:a", "day:b"]
    request, reading = read_request(parse(MOVES), "POST", "/days/a")
    assert [one.resource for one in request.head.actions(reading)] == ["day:a"]
