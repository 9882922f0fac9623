"""Held calls and decision webhooks, which are called again before a call is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from support.call_kit import paying
from support.gateway_stand import Received, Stand, Upstream

from agentvault_tui.broker.usecases.policy_change import reload_policy


@pytest.fixture
async def webhook(stand: Stand) -> AsyncIterator[Upstream]:
    """Return a webhook of payments; see `decides`."""
    server = Upstream()
    await server.start()
    text = f'[[hooks]]\nid = "freeze"\nurl = "http://127.0.0.1:{server.port}/"\n'
    text += 'scopes = ["payments"]\nbudget_ms = 5000\n'
    stand.bench.home.limits_file.write_text(text)
    await reload_policy(stand.bench.broker)
    assert stand.bench.broker.deciding.state.problem is None
    yield server
    await server.stop()


def decides(webhook: Upstream, *, decision: bool) -> None:
    """Have a webhook answer with a decision from now on."""
    body = json.dumps({"decision": decision}).encode()

    async def answer(_: Received, writer: object) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)  # type: ignore[attr-defined]

    webhook.answer = answer


@pytest.mark.parametrize("answers", [True, False])
async def test_a_freeze_that_begins_while_a_person_decides_stops_the_call(
    stand: Stand, token: str, webhook: Upstream, answers: bool
) -> None:
    """Also if the webhook does not answer any more: sending is a decision."""
    decides(webhook, decision=True)
    call = paying(stand, token, "/gw/api/transfers/acct_1")
    stepup = await stand.pending()
    assert len(webhook.received) == 1
    if answers:
        decides(webhook, decision=False)
    else:
        await webhook.stop()
    await stand.approve(stepup.id)
    reply = await call
    reason = "hook_denied" if answers else "hook_failed"
    assert (reply.status_code, reply.json()["reason"]) == (403, reason)
    assert stand.upstream.received == []
    assert (await stand.records())[-1] == ("refused", reason)


async def test_an_approved_call_leaves_if_the_webhook_still_agrees(
    stand: Stand, token: str, webhook: Upstream
) -> None:
    """It is called twice: when the call is held, and before it is sent."""
    decides(webhook, decision=True)
    call = paying(stand, token, "/gw/api/transfers/acct_1")
    stepup = await stand.pending()
    await stand.approve(stepup.id)
    assert (await call).status_code == 200
    assert (len(webhook.received), len(stand.upstream.received)) == (2, 1)
