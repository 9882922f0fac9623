"""The device flow: codes asked for, and the polls of the device."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant import details
from agentvault_tui.tenant.clients import DEVICE_CODE, Client
from agentvault_tui.tenant.codes import DeviceCode
from agentvault_tui.tenant.oauth.grants import Exchange, Outcome
from agentvault_tui.tenant.oauth.wire import missing, peer_of, refusal, refused, reply
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import Login
from agentvault_tui.web import read_body

INTERVAL: Final = 1
"""Seconds between polls. Auth0 says 5; here both ends are on one machine, and an
approval should be felt at once."""
SLOWER: Final = 5
"""RFC 8628 section 3.5: each slow_down makes the interval that much longer."""
_EARLY: Final = 0.1
"""Timers fire a little early, and both sides measure a little differently."""
_MAX_INTERVAL: Final = 60
_PACED: Final = 1024
_log = logging.getLogger("agentvault.tenant")


@dataclass(slots=True)
class _Pace:
    """How fast one device may poll."""

    interval: int
    answered: float
    """When it was last answered: the interval counts from there (Auth0)."""


class DeviceFlow:
    """Device codes over one store, that live *lifetime* seconds."""

    def __init__(self, parts: Parts, lifetime: int) -> None:
        """Work on a tenant's *parts*."""
        self._clients = parts.clients
        self._apis = parts.apis
        self._codes = parts.codes
        self._settings = parts.settings
        self._tokens = parts.tokens
        self._journal = parts.journal
        self._clock = parts.clock
        self._issuer = parts.issuer
        self._lifetime = lifetime
        self._paces: dict[str, _Pace] = {}

    async def start(self, request: Request) -> Response:
        """Give out a pair of codes (RFC 8628 section 3.1)."""
        client: Client | None = None
        try:
            form = _form(request, await read_body(request.receive))
            client = self._client(form)
            if not client.device_flow:
                raise refused(
                    "unauthorized_client",
                    f"Grant type '{DEVICE_CODE}' not allowed for the client.",
                )
            audience = form.get("audience", form.get("resource"))
            api = self._apis.asked(audience)
            sent = form.get("authorization_details")
            what = None if sent is None else details.read(sent)
            scope = self._apis.for_user(client, api, form.get("scope", ""))
            pair = self._codes.issue(
                client.key,
                scope,
                what,
                self._lifetime,
                audience=None if api is None else api.identifier,
                form=self._settings.code_format(),
            )
        except TenantRefusedError as error:
            self._journal.write(
                "fdeaz",
                description=error.what,
                client=(None, None) if client is None else client.log_name,
                peer=peer_of(request),
                details={"error": error.error},
            )
            return refusal(error)
        _log.info("device code issued")
        uri = f"{self._issuer}activate"
        return reply(
            200,
            {
                "device_code": pair.device_code,
                "user_code": pair.user_code,
                "verification_uri": uri,
                "verification_uri_complete": f"{uri}?user_code={pair.user_code}",
                "expires_in": self._lifetime,
                "interval": INTERVAL,
            },
        )

    def _client(self, form: dict[str, str]) -> Client:
        client_id = form.get("client_id")
        if not client_id:
            raise missing("client_id")
        client = self._clients.find(client_id)
        if client is None:
            raise refused("invalid_client", "Unknown client.")
        return client

    def poll(self, asked: Exchange) -> Outcome:
        """Answer a poll (RFC 8628 section 3.4).

        Raises:
            TenantRefusedError: not yet, too fast, or never.
        """
        device_code = asked.form.get("device_code")
        if not device_code:
            raise missing("device_code")
        code = self._codes.by_device_code(device_code)
        # A foreign client learns nothing: to it the code is unknown.
        if code is None or code.client != asked.client.key or code.state == "spent":
            raise refused("invalid_grant", "Invalid or expired device code.")
        if code.state == "pending" and not code.expires.passed(self._clock):
            raise self._still_pending(code)
        self._paces.pop(code.key, None)
        # From here on the code is over. Of several polls at once one spends it, and
        # only that one hears how it ended (T-11).
        if not self._codes.spend(code):
            raise refused("invalid_grant", "Invalid or expired device code.")
        if code.state == "denied":
            why = "User cancelled the confirmation prompt."
            raise refused(
                "access_denied", "Too many failed sign-ins." if code.exhausted else why
            )
        if code.expires.passed(self._clock):
            raise refused("expired_token", "The device code has expired.")
        issued = self._tokens.for_login(
            asked.client,
            Login(code.sub or "", code.sid or "", code.authenticated_at or 0, mfa=True),
            code.scope,
            self._apis.asked(code.audience),
        )
        _log.info("device code redeemed", extra={"sub": code.sub})
        return Outcome.of(issued, audience=code.audience)

    def _still_pending(self, code: DeviceCode) -> TenantRefusedError:
        now = self._clock.boot()
        pace = self._paces.get(code.key)
        if pace is None:
            # The first poll may come at once; a forgotten pace is a lenient one.
            while len(self._paces) >= _PACED:
                del self._paces[next(iter(self._paces))]
            self._paces[code.key] = _Pace(INTERVAL, now)
        elif now - pace.answered < pace.interval - _EARLY:
            told = pace.interval
            pace.interval = min(pace.interval + SLOWER, _MAX_INTERVAL)
            pace.answered = now
            return refused(
                "slow_down",
                "You are polling faster than the specified interval of "
                f"{told} second{'' if told == 1 else 's'}.",
            )
        else:
            pace.answered = now
        return refused(
            "authorization_pending", "User has yet to authorize device code."
        )


def _form(request: Request, body: bytes) -> dict[str, str]:
    """Read the device request's form; its details may be as long as the body's cap."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise refused(
            "unsupported_media_type", "send application/x-www-form-urlencoded"
        )
    pairs: list[tuple[str, str]] | None = None
    with contextlib.suppress(ValueError):
        pairs = parse_qsl(
            body.decode(), strict_parsing=True, errors="strict", max_num_fields=16
        )
    if pairs is None or len(dict(pairs)) != len(pairs):
        raise refused("invalid_request", "malformed form, or a parameter stands twice")
    return dict(pairs)
