"""Endpoints that Auth0 names and that are off in this tenant, with Auth0's refusals."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.client_auth import ClientAuth
from agentvault_tui.tenant.oauth.wire import body_of, refusal, refused, reply

_MFA_OTP = "http://auth0.com/oauth/grant-type/mfa-otp"


class Absent:
    """What answers where the discovery document points and nothing is offered."""

    def __init__(self, auth: ClientAuth) -> None:
        """Refuse clients that are who they say; others are refused for that."""
        self._auth = auth

    async def mfa_challenge(self, request: Request) -> Response:
        """Refuse the MFA API: a second factor is asked for on the pages alone."""
        try:
            form = await body_of(request)
            self._auth.client(form, request.headers.get("authorization", ""))
            raise refused(
                "unauthorized_client",
                f"Grant type '{_MFA_OTP}' not allowed for the client.",
            )
        except TenantRefusedError as error:
            return refusal(error)

    async def register(self, _: Request) -> Response:
        """Refuse dynamic registration (RFC 7591), which is off by default."""
        return reply(
            403,
            {
                "error": "access_denied",
                "error_description": "Dynamic client registration is not enabled.",
            },
        )

    async def global_revocation(self, _: Request) -> Response:
        """Refuse Universal Logout: no connection here has an identity provider."""
        return reply(401, {"error": "invalid_token"})

    async def logout(self, _: Request) -> Response:
        """Say that nobody is signed in: no sign-in outlives its page."""
        return Response(
            "You are signed out.", media_type="text/plain",
            headers={"cache-control": "no-store"},
        )  # fmt: skip
