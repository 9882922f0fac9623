"""The workspace does what its key's holder asks, and nothing for anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from support.patience import PATIENT
from support.scripted_broker import ScriptedBroker

from agentvault_tui.demo.workspace import (
    EXPORT,
    OwnersGuard,
    WorkspaceStore,
    application,
    serving,
)

PAY = {"amount": 4200, "currency": "USD", "payee": "Northwind GmbH", "invoice": 1881}
KEY = {"Authorization": "Bearer the-key"}


@pytest.fixture
def store() -> WorkspaceStore:
    return WorkspaceStore()


@pytest.fixture
async def desk(
    scripted_url: str, store: WorkspaceStore, http: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    owners = OwnersGuard(lambda: f"{scripted_url}/provider", http)
    async with (
        serving(application("the-key", owners, store)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENT) as client,
    ):
        yield client


async def test_a_payment_is_made(
    store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """The payment is in the store, once, with every member of its body."""
    reply = await desk.post("/accounts/acct_42", json=PAY, headers=KEY)
    assert reply.status_code == 201
    (entry,) = store.payments
    assert PAY.items() <= entry.items()


@pytest.mark.parametrize("header", ["", "Basic dDo=", "Bearer other", "Bearer the-ke"])
async def test_the_workspace_refuses_whoever_has_not_its_key(
    store: WorkspaceStore, desk: httpx.AsyncClient, header: str
) -> None:
    """Without the key that the gateway attaches nothing is read or done."""
    headers = {"Authorization": header}
    for reply in (
        await desk.get("/calendar/primary", headers=headers),
        await desk.post("/accounts/acct_42", json=PAY, headers=headers),
        await desk.get(EXPORT, headers=headers),
    ):
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"].startswith("Bearer ")
    assert not store.payments


async def test_a_bad_request_does_nothing(
    store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """A body that is not what the operation needs is refused."""
    for content in (b"{", b"[]", b'{"amount":"4200"}', b"x" * 70_000):
        reply = await desk.post("/accounts/acct_42", content=content, headers=KEY)
        assert reply.status_code == 400
    assert not store.payments


async def test_a_count_of_recipients_must_be_true(
    store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """A bulk mail reaches as many people as the approved count, or is not sent."""
    body = {"recipients": 5, "list": "customers", "subject": "s"}
    few = await desk.post("/mail/outbox", json=body, headers=KEY)
    assert few.status_code == 400
    body["recipients"] = 500
    all_of_them = await desk.post("/mail/outbox", json=body, headers=KEY)
    assert all_of_them.status_code == 201
    assert len(store.mails) == 1


async def test_a_deletion_removes_the_record(
    store: WorkspaceStore, desk: httpx.AsyncClient
) -> None:
    """A deletion removes the record; doing it again finds nothing."""
    assert (await desk.delete("/records/88", headers=KEY)).status_code == 200
    assert "88" not in store.records
    assert (await desk.delete("/records/88", headers=KEY)).status_code == 404


async def test_the_export_comes_piece_by_piece(desk: httpx.AsyncClient) -> None:
    """A download takes long enough for somebody to cut it."""
    async with desk.stream("GET", EXPORT, headers=KEY) as reply:
        pieces = reply.aiter_raw()
        assert reply.headers["content-type"] == "application/zip"
        assert "content-length" not in reply.headers
        assert len(await anext(pieces))


async def test_the_workspace_answers_503_without_the_provider(
    store: WorkspaceStore, http: httpx.AsyncClient
) -> None:
    """When the provider cannot be asked, nothing is done and the client may retry."""
    owners = OwnersGuard(lambda: "http://127.0.0.1:1", http)
    async with serving(application("the-key", owners, store)) as url:
        reply = await http.get(f"{url}/contacts", headers=KEY)
    assert reply.status_code == 503
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
