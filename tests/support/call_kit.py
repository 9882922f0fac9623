"""A service to call through the gateway, and the calls that a person decides."""

from __future__ import annotations

import asyncio
from typing import Any

from httpx import Response
from support.gateway_stand import Stand

BEARER = '[credential]\nkind = "bearer"\nsecret = "key"\n'


ROUTES = """
[[routes]]
method = "GET"
path = "/events/{id}"
scope = "read:calendar"
resource = "calendar:{id}"
[[routes]]
method = "PUT"
path = "/upload/{id}"
scope = "write:calendar"
body = "opaque"
types = ["application/octet-stream"]
[[routes]]
method = "POST"
path = "/transfers/{to}"
scope = "send:payment"
resource = "stripe:{to}"
headers = ["Prefer"]
[routes.parameters]
amount = "body:/amount"
currency = "body:/currency"
"""


OCTETS = {"Content-Type": "application/octet-stream"}
PAY = {"amount": 4200, "currency": "USD"}


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


async def held(stand: Stand, token: str, **more: Any) -> dict[str, Any]:
    """Ask for a payment without waiting, and return the answer's body."""
    headers = bearer(token, Prefer="respond-async", **more.pop("headers", {}))
    options = {"json": PAY, **more}
    reply = await stand.client.post(
        "/gw/api/transfers/acct_1?memo=x", headers=headers, **options
    )
    assert reply.status_code == 403, reply.text
    body: dict[str, Any] = reply.json()
    assert reply.headers["agentvault-error"] == body["error"]
    return body


async def again(stand: Stand, token: str, held: str, **more: Any) -> Any:
    headers = bearer(token, **{"AgentVault-Request": held})
    options = {"json": PAY, **more}
    return await stand.client.post(
        "/gw/api/transfers/acct_1?memo=x", headers=headers, **options
    )


def paying(
    stand: Stand, token: str, path: str = "/gw/api/transfers/a"
) -> asyncio.Task[Response]:
    """Ask for a payment, which waits for a person."""
    asked = stand.client.post(path, headers=bearer(token), json=PAY)
    return asyncio.create_task(asked)
