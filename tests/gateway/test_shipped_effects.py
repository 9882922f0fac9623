"""Shipped service files: members and switches that change the effect of a request."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateway.test_shipped import CALENDAR, GMAIL, REPO, decided
from support.call_kit import bearer
from support.gateway_stand import Received, Stand

from agentvault_tui.gateway.shipped import shipped_file

EVENT = f"{CALENDAR}/events/e1"
TRASH = {"addLabelIds": ["TRASH"]}
SPAM = {"addLabelIds": ["A", "SPAM"]}
CUSTOMER = "/v1/customers/cus_1"


@pytest.mark.parametrize(
    ("name", "line", "body", "scope"),
    [
        ("gmail", f"POST {GMAIL}/messages/1/modify", TRASH, "delete:email"),
        ("gmail", f"POST {GMAIL}/messages/1/modify", SPAM, "delete:email"),
        ("gmail", f"POST {GMAIL}/threads/1/modify", TRASH, "delete:email"),
        (
            "gmail",
            f"POST {GMAIL}/messages/batchModify",
            {"ids": ["1", "2"], **TRASH},
            "delete:email",
        ),
        (
            "gmail",
            f"POST {GMAIL}/messages/1/modify",
            {"add_label_ids": ["TRASH"]},
            "delete:email",
        ),
        ("google-calendar", f"PATCH {EVENT}", {"status": "cancelled"}, "delete:"),
        ("google-calendar", f"PUT {EVENT}", {"status": "cancelled"}, "delete:"),
        ("google-calendar", f"PATCH {EVENT}", {"recurrence": []}, "delete:calendar"),
        ("google-calendar", f"PATCH {EVENT}", {"recurrence": ["RRULE:X"]}, "delete:"),
        # What a PUT leaves out is gone.
        ("google-calendar", f"PUT {EVENT}", {"summary": "1:1"}, "write:calendar"),
        ("google-calendar", f"PATCH {EVENT}?sendUpdates=all", {"summary": "x"}, "w"),
        ("google-calendar", f"PATCH {EVENT}?sendUpdates=externalOnly", {}, "write:"),
        ("google-calendar", f"PATCH {EVENT}?sendNotifications=true", {}, "write:"),
        (
            "google-calendar",
            f"POST {EVENT}/move?destination=b&sendUpdates=all",
            None,
            "write:calendar",
        ),
        (
            "google-calendar",
            f"POST {CALENDAR}/events/quickAdd?text=x&sendUpdates=all",
            None,
            "write:calendar",
        ),
        (
            "google-calendar",
            f"POST {CALENDAR}/events",
            {"eventType": "outOfOffice"},
            "write:calendar",
        ),
        (
            "google-calendar",
            f"PATCH {EVENT}",
            {"focusTimeProperties": {"autoDeclineMode": "declineNone"}},
            "write:calendar",
        ),
        ("github", f"DELETE {REPO}/git/refs/heads/fix", None, "delete:code"),
        ("github", f"DELETE {REPO}/issues/7/labels", None, "delete:code"),
        ("github", f"PUT {REPO}/issues/7/labels", {"labels": []}, "write:code"),
        ("github", f"PATCH {REPO}/issues/7", {"labels": []}, "write:code"),
        ("github", f"PATCH {REPO}/issues/7", {"assignees": []}, "write:code"),
        ("github", f"POST {REPO}/pulls", {"head": "acme:secret:main"}, "write:code"),
        ("github", f"POST {REPO}/pulls", {"head": "a", "head_repo": "b"}, "write:"),
        ("stripe", f"POST {CUSTOMER}/subscriptions", "items[0][price]=p", "send:"),
        ("stripe", f"POST {CUSTOMER}/balance_transactions", "amount=-5", "send:"),
        ("stripe", f"POST {CUSTOMER}/cash_balance", "x=1", "send:payment"),
        ("stripe", f"POST {CUSTOMER}/funding_instructions", "x=1", "send:payment"),
        ("stripe", f"POST {CUSTOMER}", "balance=-100", "send:payment"),
        ("stripe", f"POST {CUSTOMER}?balance=-100", None, "send:payment"),
        ("stripe", "POST /v1/customers", "plan=gold", "send:payment"),
        ("stripe", "POST /v1/customers", "cash_balance[x]=1", "send:payment"),
        ("stripe", f"POST {CUSTOMER}", "name=Ada", "write:records"),
        ("stripe", "DELETE /v1/subscriptions/s?invoice_now=true", None, "send:"),
        ("stripe", "DELETE /v1/subscriptions/s?prorate=true", None, "send:payment"),
        ("stripe", "DELETE /v1/subscriptions/s?prorate=false", None, "delete:"),
        ("stripe", f"DELETE {CUSTOMER}/subscriptions/s?prorate=1", None, "send:"),
        ("stripe", f"DELETE {CUSTOMER}/subscriptions/s", None, "delete:records"),
        ("stripe", "POST /v1/products/p", "default_price=pr_1", "write:records"),
        ("stripe", "POST /v1/prices", "transfer_lookup_key=true", "write:records"),
        ("stripe", "POST /v1/prices/p", "currency_options[eur][x]=1", "write:"),
    ],
)
def test_what_a_member_deletes_pays_or_sends_is_held(
    name: str, line: str, body: object, scope: str
) -> None:
    """A member or switch that deletes, pays or mails many makes a person decide."""
    outcome, action = decided(name, line, body)
    assert action is not None, outcome
    assert action.action.startswith(scope)
    assert outcome == "escalated"


@pytest.mark.parametrize(
    ("name", "line", "body"),
    [
        ("gmail", f"POST {GMAIL}/threads/1/modify", {"removeLabelIds": ["TRASH"]}),
        ("gmail", f"POST {GMAIL}/threads/1/modify", {"addLabelIds": ["Label_1"]}),
        ("google-calendar", f"PATCH {EVENT}", {"status": "confirmed"}),
        ("google-calendar", f"PATCH {EVENT}?sendUpdates=none", {"summary": "x"}),
        ("google-calendar", f"PATCH {EVENT}?sendNotifications=false", {}),
        ("google-calendar", f"POST {EVENT}/move?destination=b", None),
        ("github", f"PATCH {REPO}/issues/7", {"state": "closed"}),
        ("github", f"POST {REPO}/issues/7/labels", {"labels": ["bug"]}),
        ("github", f"GET {REPO}/branches/fix/protected-docs", None),
        ("github", f"GET {REPO}/compare/main...fix", None),
        ("github", f"GET {REPO}/actions/runs/1/jobs", None),
        ("github", f"GET {REPO}/commits/main/status", None),
        ("github", f"GET {REPO}/git/ref/heads/main", None),
        ("stripe", "GET /v1/events?type=charge.refunded", None),
        ("stripe", "GET /v1/prices?expand[]=data.product", None),
        ("stripe", "POST /v1/prices/p", "nickname=Gold"),
    ],
)
def test_the_same_requests_without_that_effect_pass(
    name: str, line: str, body: object
) -> None:
    """A case is for the values that it names, and for no others."""
    assert decided(name, line, body)[0] == "allowed"


@pytest.mark.parametrize(
    "path",
    [
        *("secret-scanning/alerts", "hooks", "keys", "collaborators", "invitations"),
        *("actions/secrets", "actions/variables", "rulesets", "traffic/views"),
        *("branches/main/protection", "branches/a/b/protection/restrictions"),
        *("branches/main/Protection", "dependabot/alerts", "environments", "teams"),
        *(
            "code-scanning/alerts",
            "actions/runners",
            "actions/permissions",
            "autolinks",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_settings_of_a_repository_are_neither_read_nor_deleted(
    method: str, path: str
) -> None:
    """What is no code has no route: secrets, keys, hooks, members, protection."""
    assert decided("github", f"{method} {REPO}/{path}")[0] == "no_route"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("github", f"GET {REPO}/compare/main...acme:secret:main"),
        ("github", f"GET {REPO}/compare/eve:main...main"),
        ("github", f"DELETE {REPO}/keys/1"),
        ("github-git", "GET /acme/shop.wiki/info/refs"),
        ("github-git", "POST /acme/shop.WIKI.git/git-upload-pack"),
        ("github", f"DELETE {REPO}/collaborators/bob"),
        ("stripe", "GET /v1/charges?expand[]=data.customer"),
        ("stripe", "GET /v1/charges/ch_1?expand[0]=balance_transaction"),
        ("stripe", "GET /v1/customers?expand=data.subscriptions"),
        ("stripe", "GET /v1/events/evt_1"),
        ("stripe", "GET /v1/events?type=customer.created"),
        ("stripe", "GET /v1/events?type=*"),
        ("stripe", "GET /v1/events?type=charge.*"),
        ("stripe", "GET /v1/events?type=charge.updated&types[]=customer.created"),
        ("stripe", "GET /v1/customers/cus_1/secrets"),
        ("gmail", f"DELETE {GMAIL}/settings/x"),
        ("gmail", f"POST /upload{GMAIL}/messages/send?uploadType=resumable"),
        ("gmail", f"POST /upload{GMAIL}/messages/send?uploadType=media&uploadType=r"),
        (
            "gmail",
            f"POST /upload{GMAIL}/messages/send?uploadType=media&uploadProtocol=r",
        ),
    ],
)
def test_what_is_of_another_scope_or_repository_is_refused(
    name: str, line: str
) -> None:
    """A read or deletion that its scope does not describe has no route."""
    assert decided(name, line)[0] == "no_route"


@pytest.mark.parametrize(
    ("line", "scope"),
    [
        (f"GET {CUSTOMER}/balance_transactions", "read:finance"),
        (f"GET {CUSTOMER}/subscriptions", "read:finance"),
        (f"GET {CUSTOMER}/tax_ids", "read:records"),
        ("GET /v1/charges/ch_1/dispute", "read:finance"),
    ],
)
def test_a_read_below_a_customer_or_charge_has_its_own_scope(
    line: str, scope: str
) -> None:
    """Balances, subscriptions and disputes are finance, wherever they are read."""
    _, action = decided("stripe", line)
    assert action is not None
    assert action.action == scope


def test_an_event_list_without_a_type_is_refused() -> None:
    """Without one, the answer has customers, invoices and balances in it."""
    assert decided("stripe", "GET /v1/events")[0] == "parameter_required"


def test_an_upload_says_that_its_message_comes_with_it() -> None:
    """Without a type of upload, the service chooses how the message follows."""
    line = f"POST /upload{GMAIL}/messages/send"
    assert decided("gmail", line)[0] == "parameter_required"


async def test_a_person_who_cancels_an_event_is_shown_it(stand: Stand) -> None:
    """A case binds the document too: an event that changes meanwhile is not deleted."""
    event = {"summary": "Standup"}

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(event).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    stand.upstream.answer = answer
    await stand.secret("google")
    head = shipped_file("google-calendar", f"http://127.0.0.1:{stand.upstream.port}")
    head = head.replace('"connection"', '"bearer"', 1)
    head = head.replace('connection = "google-oauth2"', 'secret = "google"')
    await stand.service("", "cal", head=head)
    agent = await stand.agent("write:calendar", "delete:calendar")
    auth = bearer(await stand.token(agent, "write:calendar"))
    for change, answers in (("", 200), ("All hands", 403)):
        call = asyncio.ensure_future(
            stand.client.patch(
                f"/gw/cal{EVENT}", json={"status": "cancelled"}, headers=auth
            )
        )
        stepup = await stand.pending()
        assert stepup.action == "delete:calendar"
        shown = await stand.gateway.held_body(f"{stepup.id}/0")
        assert json.loads(shown or b"") == event
        event["summary"] = change or event["summary"]
        await stand.approve(stepup.id)
        assert (await call).status_code == answers
    methods = [one.method for one in stand.upstream.received]
    assert methods == ["GET", "GET", "PATCH", "GET", "GET"]


@pytest.mark.parametrize("name", ["message", "Message"])
def test_a_draft_is_sent_as_it_is(name: str) -> None:
    """Gmail would send another message that is in the body instead of the draft."""
    line, other = f"POST {GMAIL}/drafts/send", {name: {"raw": "x"}}
    assert decided("gmail", line, {"id": "d1", **other})[0] == "no_route"
