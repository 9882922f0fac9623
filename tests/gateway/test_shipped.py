"""Shipped service files and the default policy: real requests of each service."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from support.gateway_stand import Received, Stand
from support.policies import ENVIRONMENT
from support.service_requests import FORM, JSON, action_of

from agentvault_tui.demo.workspace import OPERATIONS
from agentvault_tui.errors import NotFoundError, UnreadableRequestError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.shipped import shipped_file, shipped_names
from agentvault_tui.model import Action, Agent, AgentId
from agentvault_tui.policy import Effect, Policy, shipped_catalogue, shipped_policy

CATALOGUE = shipped_catalogue()
POLICY = Policy(shipped_policy(), CATALOGUE)
CALENDAR = "/calendar/v3/calendars/primary"
GMAIL = "/gmail/v1/users/me"
REPO = "/repos/acme/shop"
COMMIT = "0123456789abcdef" * 2 + "01234567"
ATTENDEES = [{"email": f"p{n}@acme.test"} for n in range(21)]


@cache
def shipped(name: str) -> Service:
    return parse_service(name, shipped_file(name, None), CATALOGUE, Path("/"))


def agent() -> Agent:
    scopes = tuple(scope.name for scope in CATALOGUE)
    at = datetime(2026, 11, 24, tzinfo=UTC)
    return Agent(AgentId("agt_1"), "agt_1", "a", "olga", "", scopes, at)


def decided(name: str, line: str, body: object = None) -> tuple[str, Action | None]:
    """Return how policy answers a request line, and the action that it is."""
    method, _, target = line.partition(" ")
    kind, content = JSON, json.dumps(body).encode()
    if isinstance(body, str):
        content, kind = body.encode(), FORM
    content = b"" if body is None else content
    try:
        action = action_of(shipped(name), method, target, kind, body=content)
    except UnreadableRequestError as error:
        return error.code, None
    return POLICY.decide(agent(), action, ENVIRONMENT).outcome.value, action


@pytest.mark.parametrize(
    ("name", "line", "body"),
    [
        ("google-calendar", f"GET {CALENDAR}/events?maxResults=10", None),
        ("google-calendar", "GET /calendar/v3/calendars/a%40b.test/events/x", None),
        ("google-calendar", "GET /calendar/v3/users/me/calendarList", None),
        ("google-calendar", "POST /calendar/v3/freeBusy", {"items": [{"id": "a"}]}),
        ("google-calendar", f"POST {CALENDAR}/events", {"summary": "1:1"}),
        (
            "google-calendar",
            f"PATCH {CALENDAR}/events/e1",
            {"attendees": [{"email": "ada@acme.test"}]},
        ),
        ("gmail", f"GET {GMAIL}/messages?q=from:ada", None),
        ("gmail", f"GET {GMAIL}/messages/1/attachments/2", None),
        ("gmail", f"POST {GMAIL}/drafts", {"message": {"raw": "x"}}),
        ("gmail", f"POST {GMAIL}/messages/1/modify", {"addLabelIds": ["A"]}),
        ("gmail", f"POST {GMAIL}/messages/batchModify", {"ids": ["1"] * 100}),
        ("github", "GET /user", None),
        ("github", f"GET {REPO}/contents/src/app.py?ref=main", None),
        ("github", f"GET {REPO}/pulls/7/files", None),
        ("github", "GET /search/code?q=x", None),
        ("github", f"POST {REPO}/issues", {"title": "Bug"}),
        ("github", f"POST {REPO}/issues/7/comments", {"body": "ok"}),
        ("github", f"POST {REPO}/git/refs", {"ref": "refs/heads/fix", "sha": "1"}),
        ("github", f"POST {REPO}/pulls", {"title": "Fix", "head": "a", "base": "main"}),
        ("github-git", "GET /acme/shop.git/info/refs?service=git-upload-pack", None),
        ("github-git", "POST /acme/shop.git/git-upload-pack", None),
        ("slack", "GET /api/conversations.history?channel=C1", None),
        ("slack", "POST /api/conversations.list", "limit=10"),
        ("slack", "POST /api/users.info", {"user": "U1"}),
        ("stripe", "GET /v1/balance", None),
        ("stripe", "GET /v1/charges?limit=3", None),
        ("stripe", "GET /v1/customers/cus_1/sources", None),
        ("stripe", "GET /v1/invoices/in_1/lines", None),
        ("stripe", "POST /v1/products", "name=Gold"),
        ("workspace", "GET /records/7", None),
        ("workspace", "PUT /files/a.md", {"text": "x"}),
        ("workspace", "POST /mail/outbox", {"recipients": ["ada@acme.test"]}),
        ("workspace", "POST /calendar/primary", {"title": "1:1"}),
    ],
)
def test_reads_and_small_changes_pass(name: str, line: str, body: object) -> None:
    """What was granted and can do little damage is allowed without a person."""
    assert decided(name, line, body)[0] == "allowed"


@pytest.mark.parametrize(
    ("name", "line", "body"),
    [
        ("google-calendar", f"DELETE {CALENDAR}/events/e1", None),
        ("google-calendar", f"POST {CALENDAR}/clear", None),
        ("google-calendar", f"DELETE {CALENDAR}", None),
        ("google-calendar", f"POST {CALENDAR}/events", {"attendees": ATTENDEES}),
        ("google-calendar", f"POST {CALENDAR}/events", {"Attendees": ATTENDEES}),
        ("gmail", f"POST {GMAIL}/messages/send", {"raw": "x"}),
        ("gmail", f"POST /upload{GMAIL}/messages/send?uploadType=media", None),
        ("gmail", f"POST {GMAIL}/drafts/send", {"id": "1"}),
        ("gmail", f"POST {GMAIL}/messages/batchModify", {"ids": ["1"] * 101}),
        ("gmail", f"POST {GMAIL}/messages/batchDelete", {"ids": ["1"]}),
        ("gmail", f"POST {GMAIL}/messages/1/trash", None),
        ("gmail", f"DELETE {GMAIL}/threads/1", None),
        ("github", f"PUT {REPO}/pulls/7/merge", {"sha": COMMIT}),
        ("github", f"POST {REPO}/merges", {"base": "main", "head": COMMIT}),
        ("github", f"PATCH {REPO}/git/refs/heads/main", {"sha": COMMIT, "force": True}),
        ("github", f"PUT {REPO}/contents/app.py", {"message": "m", "content": ""}),
        ("github", f"POST {REPO}/pulls/7/reviews", {"event": "X", "commit_id": COMMIT}),
        ("github", f"POST {REPO}/deployments", {"ref": COMMIT}),
        ("github", f"POST {REPO}/actions/workflows/ci.yml/dispatches", {"ref": "m"}),
        ("github", f"POST {REPO}/releases", {"tag_name": "v1"}),
        ("github", f"DELETE {REPO}", None),
        ("github", f"DELETE {REPO}/git/refs/heads/fix", None),
        ("github", f"DELETE {REPO}/contents/app.py", {"sha": "1", "message": "m"}),
        ("github", f"DELETE {REPO}/issues/7/assignees", {"assignees": ["ada"] * 11}),
        ("github-git", "POST /acme/shop.git/git-receive-pack", None),
        ("slack", "POST /api/chat.postMessage", {"channel": "C1", "text": "hi"}),
        ("slack", "GET /api/chat.postMessage?channel=C1&text=hi", None),
        ("slack", "POST /api/chat.delete", "channel=C1&ts=1"),
        ("stripe", "POST /v1/transfers", "amount=400&currency=usd&destination=acct_1"),
        ("stripe", "POST /v1/payouts", "amount=1&currency=usd"),
        ("stripe", "POST /v1/payment_intents/pi_1/confirm", None),
        ("stripe", "POST /v1/charges", "amount=1&currency=usd&source=tok_1"),
        ("stripe", "POST /v1/invoices/in_1/pay", None),
        ("stripe", "POST /v1/subscriptions", "customer=cus_1"),
        ("stripe", "POST /v1/refunds", "charge=ch_1"),
        ("stripe", "POST /v1/customers/cus_1", "balance=-100000"),
        ("stripe", "DELETE /v1/customers/cus_1", None),
        ("workspace", "DELETE /records/7", None),
        ("workspace", "POST /mail/outbox", {"recipients": 500, "list": "customers"}),
        ("workspace", "POST /accounts/acct_42", {"amount": 1, "currency": "USD"}),
    ],
)
def test_what_cannot_be_undone_is_held(name: str, line: str, body: object) -> None:
    """Payments, deletions, merges, deployments and sends to many wait for a person."""
    assert decided(name, line, body)[0] == "escalated"


@pytest.mark.parametrize(
    ("line", "body"),
    [
        (f"PUT {REPO}/pulls/7/merge", None),
        (f"PUT {REPO}/pulls/7/merge", {"merge_method": "squash"}),
        (f"PUT {REPO}/pulls/7/merge", {"sha": COMMIT[:39]}),
        (f"POST {REPO}/merges", {"base": "main", "head": "fix"}),
        (f"PATCH {REPO}/git/refs/heads/main", {"sha": "HEAD"}),
        (f"POST {REPO}/pulls/7/reviews", {"event": "APPROVE"}),
        (f"POST {REPO}/deployments", {"ref": "main"}),
        (f"POST {REPO}/deployments", {"ref": f"{COMMIT}^"}),
        (f"POST {REPO}/deployments", {"ref": "ab" * 32}),
        (f"POST {REPO}/deployments", {"ref": COMMIT.upper()}),
        (f"POST {REPO}/deployments", {"ref": [COMMIT]}),
        (f"POST {REPO}/releases", {"name": "1.0"}),
        (f"DELETE {REPO}/contents/app.py", {"message": "m"}),
    ],
)
def test_what_may_move_is_named_by_its_commit(line: str, body: object) -> None:
    """A branch may be another commit tomorrow: a whole commit id is approved."""
    assert decided("github", line, body)[0] == "parameter_required"


_UNBOUND = {
    # What the request itself says, or what does not change.
    "github": {
        *("merge-upstream", "contents", "pages", "{repo}", "{rest*}", "merges"),
        *("{ref*}", "reviews", "deployments", "assignees", "requested_reviewers"),
    }
}


def test_each_later_step_of_an_object_binds_it() -> None:
    """A step such as ``/confirm`` says nothing of what is confirmed."""
    for name, segments in (("stripe", "{step}"), ("gmail", "send")):
        for route in shipped(name).routes:
            last = route.path.rpartition("/")[2]
            if last == segments and "messages" not in route.path:
                assert route.binds, route.path
    for route in shipped("github").routes:
        if route.scope in {"merge:code", "deploy:code"} and not route.requires:
            last = {*route.path.split("/")}
            assert route.binds or last & _UNBOUND["github"], route.path


async def test_a_pull_request_that_gets_another_base_is_not_merged(
    stand: Stand,
) -> None:
    """Who merges into a branch approved that branch: agents may change it alone."""
    pull = {
        "title": "Fix",
        "base": {"ref": "next"},
        "head": {"label": "acme:fix", "sha": COMMIT},
    }

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.method == "PATCH":
            pull["base"] = {"ref": json.loads(request.body)["base"]}
        body = json.dumps(pull).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    stand.upstream.answer = answer
    await stand.secret("github")
    origin = f"http://127.0.0.1:{stand.upstream.port}"
    await stand.service("", "github", head=shipped_file("github", origin))
    coder = await stand.agent("merge:code", "write:code")
    auth = {"Authorization": f"Bearer {await stand.token(coder, 'write:code')}"}
    path = f"/gw/github{REPO}/pulls/7"
    merge = asyncio.ensure_future(
        stand.client.put(f"{path}/merge", json={"sha": COMMIT}, headers=auth)
    )
    stepup = await stand.pending()
    shown = await stand.gateway.held_body(f"{stepup.id}/0")
    assert json.loads(shown or b"")["base"] == {"ref": "next"}
    moved = await stand.client.patch(path, json={"base": "main"}, headers=auth)
    assert moved.status_code == 200
    await stand.approve(stepup.id)
    assert (await merge).json()["reason"] == "referent_changed"
    assert [one.method for one in stand.upstream.received] == ["GET", "PATCH", "GET"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("google-calendar", f"POST {CALENDAR}/acl"),
        ("google-calendar", "POST /batch/calendar/v3"),
        ("google-calendar", "GET /drive/v3/files"),
        ("gmail", f"POST {GMAIL}/settings/forwardingAddresses"),
        ("gmail", f"GET {GMAIL}/settings/filters"),
        ("gmail", "POST /batch/gmail/v1"),
        ("gmail", f"POST /upload{GMAIL}/drafts/send?uploadType=media"),
        ("github", "POST /graphql"),
        ("github", f"PUT {REPO}/collaborators/eve"),
        ("github", f"POST {REPO}/transfer"),
        ("github", f"PATCH {REPO}"),
        ("github", f"POST {REPO}/hooks"),
        ("github-git", "POST /acme/shop.git/info/lfs/objects/batch"),
        ("github-git", "GET /login"),
        ("slack", "POST /api/admin.users.remove"),
        ("slack", "POST /api/conversations.kick"),
        ("stripe", "POST /v1/accounts"),
        ("stripe", "POST /v1/ephemeral_keys"),
        ("stripe", "POST /V1/transfers"),
        ("workspace", "GET /contacts"),
    ],
)
def test_what_no_file_names_has_no_route(name: str, line: str) -> None:
    """Settings, keys, batches and other spellings are not reached at all."""
    assert decided(name, line)[0] == "no_route"


@pytest.mark.parametrize("name", shipped_names())
def test_only_reads_are_mapped_to_scopes_that_read(name: str) -> None:
    """A route of a method that may change something has no scope of a read.

    The exceptions read by POST, as the services' own documentation says.
    """
    reading = {
        route.path
        for route in shipped(name).routes
        if route.method not in {"GET", "HEAD"}
        and CATALOGUE.effect(route.scope) is Effect.READ
    }
    by_post = {"/calendar/v3/freeBusy", "/{owner}/{repo}/git-upload-pack"}
    assert {path for path in reading - by_post if not path.startswith("/api/")} == set()


def test_a_payment_says_how_much_to_whom() -> None:
    """What an approver of a transfer sees is what Stripe will read."""
    body = "amount=4200&currency=usd&destination=acct_42"
    _, action = decided("stripe", "POST /v1/transfers", body)
    assert action is not None
    assert (action.action, action.resource) == ("send:payment", "stripe:/v1/transfers")
    assert action.parameters == {
        "amount": 4200,
        "currency": "USD",
        "destination": "acct_42",
    }


def test_the_workspace_file_is_the_demos_api() -> None:
    """Each operation of the demo is a route."""
    routes = [(route.method, route.path) for route in shipped("workspace").routes]
    assert routes == [(o.method, o.path) for o in OPERATIONS]


def test_an_unknown_name_lists_what_ships() -> None:
    """A misspelt name is answered with the nearest, and any other with all."""
    with pytest.raises(NotFoundError, match="no service file") as refused:
        shipped_file("strip", None)
    assert refused.value.remedy.startswith("did you mean stripe")
    with pytest.raises(NotFoundError) as refused:
        shipped_file("zzz", None)
    assert "github, github-git, gmail" in refused.value.remedy


def test_another_origin_takes_the_place_of_the_shipped_one() -> None:
    """A copy may be for a server elsewhere, such as GitHub's own at a company."""
    text = shipped_file("github", "https://ghe.acme.test")
    service = parse_service("github", text, CATALOGUE, Path("/"))
    assert str(service.origin) == "https://ghe.acme.test"
    assert not service.allow_private
    text = shipped_file("workspace", "http://127.0.0.1:8080")
    service = parse_service("workspace", text, CATALOGUE, Path("/"))
    assert str(service.origin) == "http://127.0.0.1:8080"
    assert service.allow_private
