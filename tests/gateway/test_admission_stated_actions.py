"""A token that states an action opens that action alone, through every door."""

from __future__ import annotations

import pytest
from support.call_kit import bearer
from support.gateway_stand import Stand
from support.stepups import details_of

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.model import Action

SERVICE = """
[[routes]]
method = "GET"
path = "/days/{day}"
scope = "read:files"
resource = "day:{day}"
[routes.parameters]
count = "query:n"
"""


async def stated(stand: Stand, resource: str | None, **parameters: object) -> str:
    """Return a token whose request stated a resource and parameters."""
    await stand.service(SERVICE)
    agent = await stand.agent("read:files")
    action = Action(("read:files",), "read:files", resource, parameters)
    granted = await request_token(
        stand.bench.broker, agent, action, resource=None, details=details_of(action)
    )
    assert isinstance(granted, Granted)
    return granted.access_token


@pytest.mark.parametrize(
    ("call", "beyond"),
    [
        ("/days/1?n=3", None),
        ("/days/1?n=2", None),
        ("/days/1?n=4", "parameter count"),
        ("/days/1", "parameter count"),
        ("/days/2?n=3", "resource"),
        ("/days/10?n=3", "resource"),
    ],
)
async def test_a_call_is_within_what_its_own_token_states(
    stand: Stand, call: str, beyond: str | None
) -> None:
    """The agent may have more: whoever has this token may not (RFC 9396)."""
    token = await stated(stand, "day:1", count=3)
    reply = await stand.client.get(f"/gw/api{call}", headers=bearer(token))
    if beyond is None:
        assert reply.status_code == 200, reply.text
        return
    body = reply.json()
    assert (reply.status_code, body["reason"]) == (403, "wider_than_token")
    assert beyond in body["error_description"]
    assert stand.upstream.received == []
    (refused,) = await stand.bench.events("gateway.refused")
    assert refused.reason == "wider_than_token"


async def test_a_token_that_states_no_resource_is_limited_to_none(stand: Stand) -> None:
    """An action alone, or a resource alone, leaves the other open."""
    action_alone = bearer(await stated(stand, None))
    for call in ("/days/1?n=3", "/days/2?n=9"):
        reply = await stand.client.get(f"/gw/api{call}", headers=action_alone)
        assert reply.status_code == 200, reply.text
