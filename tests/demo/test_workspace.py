"""The workspace does what a token names exactly, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.patience import PATIENT
from support.scripted_broker import ScriptedBroker

from agentvault_tui.demo.workspace import (
    OwnersGuard,
    TokenGuard,
    WorkspaceStore,
    application,
    serving,
)

PAY = {"amount": 4200, "currency": "USD", "payee": "Northwind GmbH", "invoice": 1881}


@pytest.fixture
def store() -> WorkspaceStore:
    return WorkspaceStore()


@pytest.fixture
async def desk(
    scripted_url: str, store: WorkspaceStore, http: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    guard = TokenGuard(scripted_url, "agt_ws", "secret", http)
    owners = OwnersGuard(f"{scripted_url}/provider", http)
    async with (
        serving(application(guard, owners, store)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENT) as client,
    ):
        yield client


def active(scope: str, **more: Any) -> dict[str, Any]:
    return {"active": True, "scope": scope, "elevated": False, **more}


def approved(parameters: dict[str, Any], resource: str = "stripe:acct_42") -> Any:
    detail = {
        "type": "agentvault:action",
        "action": "send:payment",
        "resource": resource,
        "parameters": parameters,
        "reason": "any",
    }
    return active("send:payment", elevated=True, authorization_details=[detail])


async def pay(desk: httpx.AsyncClient, token: str, **change: Any) -> httpx.Response:
    return await desk.post(
        "/accounts/acct_42",
        json={**PAY, **change},
        headers={"Authorization": f"Bearer {token}"},
    )


async def test_an_approved_payment_is_made(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """An elevated token that names exactly this payment makes it, in the store."""
    scripted.claims["t"] = approved(PAY)
    reply = await pay(desk, "t")
    assert reply.status_code == 201
    assert [entry["amount"] for entry in store.payments] == [4200]


@pytest.mark.parametrize(
    "change", [{"amount": 4201}, {"payee": "Mallory"}, {"amount": 4200, "note": "x"}]
)
async def test_any_other_payment_is_refused(
    scripted: ScriptedBroker,
    store: WorkspaceStore,
    desk: httpx.AsyncClient,
    change: dict[str, Any],
) -> None:
    """A token approved for one payment makes no other: not a unit more."""
    scripted.claims["t"] = approved(PAY)
    reply = await pay(desk, "t", **change)
    assert reply.status_code == 403
    assert "insufficient_scope" in reply.headers["www-authenticate"]
    assert not store.payments


async def test_parameters_compare_by_json_type(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """Amounts are compared as JSON, where true and 1 differ."""
    scripted.claims["t"] = approved({**PAY, "amount": 1})
    assert (await pay(desk, "t", amount=True)).status_code == 403
    assert not store.payments


async def test_another_account_is_refused(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """The resource counts as well as the parameters."""
    scripted.claims["t"] = approved(PAY, resource="stripe:acct_1")
    assert (await pay(desk, "t")).status_code == 403
    assert not store.payments


async def test_an_elevated_token_without_details_is_refused(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """An elevated token that names no action approves none."""
    scripted.claims["t"] = active("send:payment", elevated=True)
    assert (await pay(desk, "t")).status_code == 403
    assert not store.payments


@pytest.mark.parametrize(
    ("header", "status"),
    [("", 401), ("Basic dDo=", 401), ("Bearer unknown", 401)],
)
async def test_the_workspace_refuses_a_token_that_is_not_active(
    desk: httpx.AsyncClient, header: str, status: int
) -> None:
    """Without a token the broker calls active, nothing is read."""
    reply = await desk.get("/calendar/primary", headers={"Authorization": header})
    assert reply.status_code == status
    assert reply.headers["www-authenticate"].startswith("Bearer ")


async def test_scope_is_enforced(
    scripted: ScriptedBroker, desk: httpx.AsyncClient
) -> None:
    """A token for reading mail does not open the calendar."""
    scripted.claims["t"] = active("read:email")
    headers = {"Authorization": "Bearer t"}
    assert (await desk.get("/calendar/primary", headers=headers)).status_code == 403
    assert (await desk.get("/mail/inbox", headers=headers)).status_code == 200


async def test_a_bad_request_does_not_spend_the_token(
    scripted: ScriptedBroker, desk: httpx.AsyncClient
) -> None:
    """What is refused without the token is refused before the broker is asked."""
    scripted.claims["t"] = approved(PAY)
    for content in (b"{", b"[]", b'{"amount":"4200"}', b"x" * 70_000):
        reply = await desk.post(
            "/accounts/acct_42",
            content=content,
            headers={"Authorization": "Bearer t"},
        )
        assert reply.status_code == 400
    assert scripted.introspected == []


async def test_a_count_of_recipients_must_be_true(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """A bulk mail reaches as many people as the approved count, or is not sent."""
    body = {"recipients": 5, "list": "customers", "subject": "s"}
    detail: dict[str, Any] = {
        "type": "agentvault:action",
        "action": "send:email",
        "resource": "mail:outbox",
        "parameters": body,
    }
    scripted.claims["t"] = active("send:email", authorization_details=[detail])
    headers = {"Authorization": "Bearer t"}
    few = await desk.post("/mail/outbox", json=body, headers=headers)
    assert few.status_code == 422
    body["recipients"] = 500
    assert (
        await desk.post("/mail/outbox", json=body, headers=headers)
    ).status_code == 201
    assert len(store.mails) == 1


async def test_an_approved_deletion_removes_the_record(
    scripted: ScriptedBroker, store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """A deletion removes the record; doing it again finds nothing."""
    detail: dict[str, Any] = {
        "type": "agentvault:action",
        "action": "delete:records",
        "resource": "crm:88",
    }
    detail["parameters"] = {"count": 1}
    claims = active("delete:records", authorization_details=[detail], elevated=True)
    scripted.claims["t"] = claims
    headers = {"Authorization": "Bearer t"}
    assert (await desk.delete("/records/88", headers=headers)).status_code == 200
    assert "88" not in store.records
    assert (await desk.delete("/records/88", headers=headers)).status_code == 404
    assert (await desk.delete("/records/89", headers=headers)).status_code == 403


async def test_the_workspace_answers_503_without_the_broker(
    store: WorkspaceStore, http: httpx.AsyncClient
) -> None:
    """When the broker cannot be asked, nothing is done and the client may retry."""
    guard = TokenGuard("http://127.0.0.1:1", "agt_ws", "secret", http)
    owners = OwnersGuard("http://127.0.0.1:1", http)
    async with serving(application(guard, owners, store)) as url:
        reply = await http.get(
            f"{url}/calendar/primary", headers={"Authorization": "Bearer t"}
        )
        book = await http.get(f"{url}/contacts", headers={"Authorization": "Bearer t"})
    assert reply.status_code == book.status_code == 503
    assert reply.headers["retry-after"] == "1"


async def test_an_address_book_opens_for_its_owners_token(
    scripted: ScriptedBroker, desk: httpx.AsyncClient
) -> None:
    """What the provider says of a token counts: whose it is, and what they allowed."""
    provider = scripted.provider
    provider["alices"] = {"active": True, "sub": "alice", "scope": "contacts.read"}
    provider["narrow"] = {"active": True, "sub": "alice", "scope": "mail.read"}
    replies = [
        await desk.get("/contacts", headers={"Authorization": f"Bearer {token}"})
        for token in ("alices", "narrow", "ended")
    ]
    assert [reply.status_code for reply in replies] == [200, 403, 401]
    assert replies[0].json()["owner"] == "alice"
    assert (await desk.get("/contacts")).status_code == 401
    assert scripted.introspected == []
