"""The stand-in provider's endpoints, under ``/agentvault/workspace``: not Auth0's."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.access import bearer_token
from agentvault_tui.tenant.connections import WORKSPACE
from agentvault_tui.tenant.oauth.wire import body_of, missing, refusal, reply
from agentvault_tui.tenant.vault.provider import Provider

PATH = "/agentvault/workspace"


def where(issuer: str) -> dict[str, dict[str, str]]:
    """Return the stand-in's endpoints by its connection's name, for who starts us.

    A provider at a fixed address is set in the broker's settings; this one's port
    is another in each home.
    """
    base = f"{issuer.rstrip('/')}{PATH}"
    return {
        WORKSPACE: {
            "revocation_endpoint": f"{base}/revoke",
            "userinfo_endpoint": f"{base}/tokeninfo",
        }
    }


class ProviderApi:
    """What a workspace asks of its provider, and what revokes there."""

    def __init__(self, provider: Provider) -> None:
        """Answer for *provider*."""
        self._provider = provider

    async def token_info(self, request: Request) -> Response:
        """Say what the bearer's token is good for; who holds it may know.

        The token has 256 bits, so asking cannot be guessing (RFC 7662 section 4).
        """
        token = bearer_token(request.headers.get("authorization", ""))
        found = None if token is None else self._provider.info(token)
        if found is None:
            answer = reply(401, {"active": False})
            answer.headers["www-authenticate"] = 'Bearer error="invalid_token"'
            return answer
        return reply(200, found)

    async def revoke(self, request: Request) -> Response:
        """End a token; an unknown one gets the same 200 (RFC 7009 section 2.2)."""
        try:
            form = await body_of(request)
            if not form.get("token"):
                raise missing("token")
        except TenantRefusedError as error:
            return refusal(error)
        self._provider.revoke(form["token"])
        return Response(status_code=200, headers={"cache-control": "no-store"})
