"""Opaque bodies leave with their length, however their agents send them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
from support.call_kit import bearer
from support.gateway_stand import Stand

OCTETS = "application/octet-stream"
CREDENTIAL = '[credential]\nkind = "bearer"\nsecret = "key"\n'
ROUTE = f"""
[[routes]]
method = "PUT"
path = "/{{file}}"
scope = "{{}}"
body = "opaque"
types = ["{OCTETS}"]
"""


async def pieces(*more: bytes) -> AsyncIterator[bytes]:
    """Yield a body that is sent in chunks."""
    yield b"four"
    yield b"five!"
    for piece in more:
        yield piece


async def token_for(stand: Stand, scope: str, *, drains: bool = False) -> str:
    """Put the service in effect, and return a token of an agent."""
    await stand.secret()
    drained = "drains_bodies = true\n" if drains else ""
    await stand.service(CREDENTIAL + ROUTE.replace("{}", scope) + drained)
    agent = await stand.agent("write:calendar", "send:payment")
    return await stand.token(agent, "write:calendar")


async def test_an_approved_body_leaves_with_its_length_however_it_came(
    stand: Stand,
) -> None:
    """Else a service that reads no chunks stores an empty file for the approved one."""
    token = await token_for(stand, "send:payment")
    headers = bearer(token, **{"Content-Type": OCTETS})

    async def put(**more: str) -> Any:
        said = headers | {name.replace("_", "-"): more[name] for name in more}
        return await stand.client.put("/gw/api/file", headers=said, content=pieces())

    asked = (await put(Prefer="respond-async")).json()["auth_req_id"]
    await stand.approve(asked)
    assert (await put(AgentVault_Request=asked)).status_code == 200
    (sent,) = stand.upstream.received
    said = dict(sent.headers)
    assert (said.get("content-length"), sent.body) == ("9", b"fourfive!")
    assert "transfer-encoding" not in said


async def test_an_allowed_body_in_chunks_leaves_with_its_length(stand: Stand) -> None:
    """The event has the size and digest of the body that the service stores."""
    token = await token_for(stand, "write:calendar")
    headers = bearer(token, **{"Content-Type": OCTETS})
    reply = await stand.client.put("/gw/api/file", headers=headers, content=pieces())
    assert reply.status_code == 200
    (sent,) = stand.upstream.received
    said = dict(sent.headers)
    assert (said.get("content-length"), sent.body) == ("9", b"fourfive!")
    assert "transfer-encoding" not in said
    result = await stand.result()
    assert result.detail["body_sha256"] == sha256(b"fourfive!").hexdigest()
    assert (result.detail["body_bytes"], result.detail["ended"]) == (9, "done")


@pytest.mark.parametrize("drains", [False, True])
async def test_a_large_body_in_chunks_leaves_only_to_services_that_read_bodies(
    stand: Stand, drains: bool
) -> None:
    """Without that word of the operator its agent has to state the length."""
    token = await token_for(stand, "write:calendar", drains=drains)
    stand.gateway.forwarder._spools.hold_bytes = 100_000
    headers = bearer(token, **{"Content-Type": OCTETS})
    more = [b"x" * 60_000] * 2
    reply = await stand.client.put(
        "/gw/api/file", headers=headers, content=pieces(*more)
    )
    if not drains:
        assert (reply.status_code, reply.json()["error"]) == (413, "body_too_large")
        assert stand.upstream.received == []
        assert (await stand.result()).detail["ended"] == "failed"
    else:
        assert reply.status_code == 200
        (sent,) = stand.upstream.received
        assert dict(sent.headers)["transfer-encoding"] == "chunked"
        assert len(sent.body) == 120_009
    # With a stated length, a body of any size is passed on as it comes.
    whole = b"x" * 120_000
    reply = await stand.client.put("/gw/api/file", headers=headers, content=whole)
    assert reply.status_code == 200
    assert stand.upstream.received[-1].body == whole
