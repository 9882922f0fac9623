"""The device flow (RFC 8628): codes given out, and the device's polls."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant import details
from agentvault_tui.tenant.clients import DEVICE_CODE, Client
from agentvault_tui.tenant.codes import StoredDeviceCode
from agentvault_tui.tenant.desk import remember_sign_in
from agentvault_tui.tenant.oauth.grants import GrantResult, TokenRequest
from agentvault_tui.tenant.oauth.wire import (
    DeniedByPersonError,
    refusal,
    refused,
    reply,
    required,
    wide_form,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import Login

LIFETIME: Final = 900
INTERVAL: Final = 5
"""Auth0's answer to every client, in seconds."""
OUR_INTERVAL: Final = 1
"""Seconds between polls of the broker's: both ends are on one machine, and an approval
should be felt at once."""
SLOWER: Final = 5
"""Each slow_down makes the interval that much longer."""
_ORIGIN: Final = 120
"""Characters of where a sign-in comes from."""
_LONGEST: Final = 60
"""Seconds: no interval grows beyond it."""
_EARLY: Final = 0.1
"""Timers fire a little early, and both sides measure a little differently."""
_REMEMBERED: Final = 8192
_log = logging.getLogger("agentvault.tenant")


@dataclass(slots=True)
class _Pace:
    interval: int
    answered: float
    """When it was last answered: the interval counts from there (Auth0)."""


class DeviceGrant:
    """Device codes over one store.

    Those of the broker's own client live *lifetime* seconds and are polled for each
    second; those of other clients are as Auth0's.
    """

    def __init__(self, parts: Parts, lifetime: int) -> None:
        self._parts = parts
        self._lifetime = lifetime
        self._paces: dict[str, _Pace] = {}

    async def start(self, request: Request) -> Response:
        """Give out a pair of codes (RFC 8628 section 3.1)."""
        client: Client | None = None
        try:
            form = await wide_form(request)
            (client_id,) = required(form, "client_id")
            client = self._parts.clients.find(client_id)
            if client is None:
                raise refused("invalid_client", "Unknown client.")
            if not client.device_flow:
                raise refused(
                    "unauthorized_client",
                    f"Grant type '{DEVICE_CODE}' not allowed for the client.",
                )
            audience = form.get("audience", form.get("resource"))
            api = self._parts.apis.requested(audience)
            sent = form.get("authorization_details")
            what = None if sent is None else details.read(sent)
            if what is not None and what.page is not None and not client.of_run:
                # A client's id is public: its code would stand on another's page.
                text = "Only the broker gives a step-up its page."
                raise refused("invalid_authorization_details", text)
            scope = self._parts.apis.for_user(client, api, form.get("scope", ""))
            pair = self._parts.codes.issue(
                client.key,
                scope,
                what,
                self._lifetime_of(client, what),
                audience=None if api is None else api.identifier,
                # Any other client could name another's machine.
                origin=form.get("origin", "")[:_ORIGIN] or None
                if client.of_run
                else None,
            )
        except TenantRefusedError as error:
            self._parts.journal.write(
                "fdeaz",
                request,
                description=error.what,
                client=client,
                details={"error": error.error},
            )
            return refusal(error)
        _log.info("device code issued")
        uri = f"{self._parts.issuer}activate"
        complete = f"{uri}?user_code={pair.user_code}"
        if what is not None and what.page is not None and self._parts.public:
            complete = f"{self._parts.issuer}approve/{what.page.id}"
        return reply(
            200,
            {
                "device_code": pair.device_code,
                "user_code": pair.user_code,
                "verification_uri": uri,
                "verification_uri_complete": complete,
                "expires_in": self._lifetime_of(client, what),
                "interval": _interval(client),
            },
        )

    async def outcome(self, request: Request) -> Response:
        """Take the result of a step-up, for its approval page.

        On loopback alone, and from the holder of the device code: the broker.
        """
        try:
            form = await wide_form(request)
            names = ("client_id", "device_code", "outcome")
            client_id, device_code, outcome = required(form, *names)
            code = self._parts.codes.by_key(sha256_hex(device_code))
            client = self._parts.clients.find(client_id)
            if code is None or client is None or code.client != client.key:
                raise refused("invalid_grant", "Invalid or expired device code.")
        except TenantRefusedError as error:
            return refusal(error)
        self._parts.codes.tell(code, outcome)
        return Response(status_code=204, headers={"cache-control": "no-store"})

    def _lifetime_of(self, client: Client, what: details.StepUpDetails | None) -> int:
        if client.of_run and what is not None and what.page is not None:
            return what.page.expires_in or self._lifetime
        return self._lifetime if client.of_run else LIFETIME

    def poll(self, parts: Parts, request: TokenRequest) -> GrantResult:
        """Answer a poll (RFC 8628 section 3.4).

        Raises:
            TenantRefusedError: not yet, too fast, or never.
        """
        (device_code,) = required(request.form, "device_code")
        code = parts.codes.by_key(sha256_hex(device_code))
        # A foreign client learns nothing: to it the code is unknown.
        if code is None or code.client != request.client.key or code.state == "spent":
            raise refused("invalid_grant", "Invalid or expired device code.")
        if code.state == "pending" and not code.expires.passed(parts.clock):
            raise self._still_pending(code, request.client)
        self._paces.pop(code.key, None)
        # From here on the code is over. Of several polls at once one spends it, and
        # only that one hears how it ended (T-11).
        if not parts.codes.spend(code):
            raise refused("invalid_grant", "Invalid or expired device code.")
        if code.state == "denied" and code.sub is not None:
            no = Login(code.sub, "", 0, mfa=False, stepup=code.answer)
            token = parts.tokens.for_denial(request.client, no, code.scope)
            raise DeniedByPersonError(token)
        if code.state == "denied":
            raise refused("access_denied", _why_denied(parts, code))
        if code.expires.passed(parts.clock):
            raise refused("expired_token", "The device code has expired.")
        api = parts.apis.requested(code.audience)
        issued = parts.tokens.for_login(
            request.client,
            Login(
                *(code.sub or "", code.sid or "", code.authenticated_at or 0),
                mfa=True,
                amr=code.amr,
                stepup=code.answer,
            ),
            # Once more: a client grant may have been taken back since.
            parts.apis.for_user(request.client, api, code.scope),
            api,
        )
        if code.details is None and request.client.of_run:
            at = code.authenticated_at or 0
            remember_sign_in(parts, code.sub or "", code.sid or "", at)
        _log.info("device code redeemed by %s", code.sub)
        return GrantResult(issued.answer, issued.user, audience=code.audience)

    def _still_pending(
        self, code: StoredDeviceCode, client: Client
    ) -> TenantRefusedError:
        """Count a poll; the first may come at once, each later one an interval apart.

        A poll that comes too early makes the interval longer (RFC 8628 section 3.5).
        """
        now = self._parts.clock.boot()
        pace = self._paces.get(code.key)
        if pace is None:
            while len(self._paces) >= _REMEMBERED:
                del self._paces[next(iter(self._paces))]
            self._paces[code.key] = _Pace(_interval(client), now)
        else:
            held, before, pace.answered = pace.interval, pace.answered, now
            if now - before < held - _EARLY:
                pace.interval = min(held + SLOWER, _LONGEST)
                return refused(
                    "slow_down",
                    "You are polling faster than the specified interval of "
                    f"{held} second{'' if held == 1 else 's'}.",
                )
        return refused(
            "authorization_pending", "User has yet to authorize device code."
        )


def _interval(client: Client) -> int:
    return OUR_INTERVAL if client.of_run else INTERVAL


def _why_denied(parts: Parts, code: StoredDeviceCode) -> str:
    """Word the end of a code that no signed-in person answered."""
    if code.exhausted:
        return "Too many failed sign-ins."
    newest = code.page and parts.codes.by_stepup(code.page.id)
    if newest and newest.key != code.key:
        return "Another code was asked for in the place of this one."
    return "User cancelled the confirmation prompt."
