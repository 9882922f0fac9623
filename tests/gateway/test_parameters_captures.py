"""A capture of the path counts only if no other part of the request states it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from support.policies import ENVIRONMENT
from support.service_requests import FORM, JSON, action_of, read_request

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.model import Action, Agent, AgentId, Outcome
from agentvault_tui.policy import Policy, shipped_catalogue

Parse = Callable[[str], Service]
POSTS = (
    '[[routes]]\nmethod = "*"\npath = "/posts/{id}"\nscope = "write:records"\n'
    'headers = ["X-Id"]\n'
)
RULES = """
@id("all") @why("Any.") @obligation("allow")
permit (principal, action, resource);
@id("no-7") @why("It is locked.") forbid (principal, action, resource)
when { context has resource && context.resource == "post:7" };
"""
MULTIPART = (b"content-type", b"multipart/form-data; boundary=b")
PART = b'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n7\r\n--b--\r\n'
TWICE = [
    ("POST", "", (JSON,), b'{"id": 7}'),
    ("POST", "", (JSON,), b'{"ID": "7"}'),
    ("POST", "", (JSON,), b'{"id": {"id": 5}}'),
    ("POST", "", (FORM,), b"id=7"),
    ("POST", "", (FORM,), b"post%5Bid%5D=7"),
    ("POST", "", (FORM,), b"id=5&id=7"),
    ("GET", "?id=7", (), b""),
    ("DELETE", "?id%5B%5D=7", (), b""),
    ("POST", "?id=5", (JSON,), b'{"id": 7}'),
    ("POST", "", ((b"x-id", b"7"),), b""),
]


def decided(action: Action) -> Outcome:
    catalogue = shipped_catalogue()
    scopes = tuple(scope.name for scope in catalogue)
    at = datetime(2026, 11, 24, tzinfo=UTC)
    agent = Agent(AgentId("agt_1"), "agt_1", "a", "olga", "", scopes, at)
    return Policy(RULES, catalogue).decide(agent, action, ENVIRONMENT).outcome


@pytest.mark.parametrize(("method", "query", "headers", "body"), TWICE)
def test_a_resource_is_unclear_if_its_capture_is_stated_again(
    parse: Parse,
    method: str,
    query: str,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes,
) -> None:
    """WordPress and Laravel read the body and the query before the path."""
    target = f"/posts/5{query}"
    service = parse(f'{POSTS}resource = "post:{{id}}"')
    assert decided(action_of(service, method, "/posts/5")) is Outcome.ALLOWED
    action = action_of(service, method, target, *headers, body=body)
    assert decided(action) is Outcome.ESCALATED
    whole = action_of(parse(POSTS), method, target, *headers, body=body)
    assert "resource" in whole.parameters


def test_a_resource_without_the_capture_stays_clear(parse: Parse) -> None:
    """A mailbox is the same, also if another message is named."""
    service = parse(f'{POSTS}resource = "posts"')
    action = action_of(service, "POST", "/posts/5", JSON, body=b'{"id": 7}')
    assert action.parameters == {}


@pytest.mark.parametrize(
    ("query", "kind", "body"),
    [("", JSON, b'{"id": 5}'), ("?id=5", JSON, b"{}"), ("", FORM, b"id=5&title=a")],
)
def test_a_capture_that_is_stated_again_with_its_value_is_clear(
    parse: Parse, query: str, kind: tuple[bytes, bytes], body: bytes
) -> None:
    """Every reader finds the same value, as in an update of a whole document."""
    service = parse(f'{POSTS}resource = "post:{{id}}"')
    action = action_of(service, "PUT", f"/posts/5{query}", kind, body=body)
    assert decided(action) is Outcome.ALLOWED


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("?id%5B%24ne%5D=5", b""),
        ("?id%5B%5D=5", b""),
        ("?id.gt=5", b""),
        ("", b"id[$ne]=5"),
        ("?id=5&id=5", b""),
        ("?id=5", b"ID=5"),
    ],
)
def test_the_value_of_a_capture_in_a_list_or_an_object_is_unclear(
    parse: Parse, query: str, body: bytes
) -> None:
    """Express reads ``id[$ne]=5`` as a query of MongoDB for all others, and ASP.NET
    joins two values to ``5,5``."""
    service = parse(f'{POSTS}resource = "post:{{id}}"')
    action = action_of(service, "POST", f"/posts/5{query}", FORM, body=body or b"a=1")
    assert decided(action) is Outcome.ESCALATED


@pytest.mark.parametrize(
    ("read", "query", "headers", "body"),
    [
        ("body:/id", "", (JSON,), b'{"id": 7}'),
        ("query:id", "?id=7", (), b""),
        ("header:X-Id", "", ((b"x-id", b"7"),), b""),
    ],
)
def test_a_place_that_the_file_declares_is_another_value(
    parse: Parse,
    read: str,
    query: str,
    headers: tuple[tuple[bytes, bytes], ...],
    body: bytes,
) -> None:
    """The file says that the service reads it as something else, there alone."""
    service = parse(f'{POSTS}resource = "post:{{id}}"\nread = ["{read}"]')
    action = action_of(service, "POST", f"/posts/5{query}", *headers, body=body)
    assert decided(action) is Outcome.ALLOWED
    both = action_of(service, "POST", "/posts/5?Id=7", JSON, body=b'{"Id": 7}')
    assert decided(both) is Outcome.ESCALATED


def test_a_multipart_field_states_a_capture_too(parse: Parse) -> None:
    """A field of each readable body counts."""
    service = parse(f'{POSTS}resource = "post:{{id}}"\nbody = "multipart"')
    action = action_of(service, "POST", "/posts/5", MULTIPART, body=PART)
    assert decided(action) is Outcome.ESCALATED


def test_a_document_whose_capture_is_stated_again_is_not_bound(parse: Parse) -> None:
    """A person would approve one document, and the service act on the other."""
    service = parse(f'{POSTS}binds = [{{ get = "/posts/{{id}}" }}]')
    with pytest.raises(UnreadableRequestError, match="states path:id") as refused:
        read_request(service, "POST", "/posts/5", JSON, body=b'{"id": 7}')
    assert refused.value.code == "parameter_required"
