"""CIBA's two ends for the client: asking for a person, and polling for the answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.ciba import asked as reading
from agentvault_tui.tenant.ciba import details
from agentvault_tui.tenant.ciba.requests import CibaRequest
from agentvault_tui.tenant.clients import CIBA, Client, log_name
from agentvault_tui.tenant.journal import Code
from agentvault_tui.tenant.oauth.grants import Exchange, Outcome
from agentvault_tui.tenant.oauth.pace import Paces
from agentvault_tui.tenant.oauth.wire import (
    LaterError,
    missing,
    peer_of,
    refusal,
    refused,
    reply,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.tokens import Login

PATH: Final = "/bc-authorize"
INTERVAL: Final = 5
"""Seconds between polls (CIBA Core section 7.3)."""
_PUSH: Final = 300
"""Seconds; what may take longer is never sent to a telephone (Auth0)."""
_log = logging.getLogger("agentvault.tenant")


class CibaFlow:
    """Poll mode over one store (CIBA Core section 5).

    Of Auth0's two channels there is the web link, which needs a verified address;
    where Auth0 sends a mail, the person finds the link in the tenant's own inbox.
    """

    def __init__(self, parts: Parts, inbox: str) -> None:
        """Work on a tenant's *parts*; people look into *inbox*."""
        self._parts = parts
        self._inbox = inbox
        self._requests = parts.ciba
        self._paces = Paces(parts.clock)

    async def start(self, request: Request) -> Response:
        """Take a request, and have it wait for its person (CIBA Core section 7)."""
        client: Client | None = None
        user: User | None = None
        try:
            members = await reading.members_of(request)
            authorization = request.headers.get("authorization", "")
            client = self._parts.auth.client(reading.texts(members), authorization)
            if not client.ciba:
                raise _not_allowed()
            said = reading.read(members, self._parts.issuer)
            user = self._person(said.sub)
            token, kept = self._ask(client, user, said)
        except TenantRefusedError as error:
            self._note(request, "ciba_start_failed", client, user, {
                "error": error.error, "failure_reason": error.what})  # fmt: skip
            return refusal(error)
        self._note(request, "ciba_start_succeeded", client, user, _linked(kept))
        _log.info(
            "a request waits for a person", extra={"sub": user.sub, "page": self._inbox}
        )
        return reply(
            200,
            {"auth_req_id": token, "expires_in": said.expiry, "interval": INTERVAL},
        )

    def poll(self, asked: Exchange) -> Outcome:
        """Answer a poll (CIBA Core sections 10.1 and 11).

        Raises:
            TenantRefusedError: not yet, too fast, or never. Auth0 documents 400 here,
                where its device flow has 403.
        """
        if not asked.client.ciba:
            raise _not_allowed()
        token = asked.form.get("auth_req_id")
        if not token:
            raise missing("auth_req_id")
        found = self._requests.by_token(token)
        over = _refused("invalid_grant", "Unknown or invalid auth_req_id.")
        # A foreign client learns nothing: to it the request is unknown.
        if found is None or found.client_id != asked.client.client_id:
            raise over
        if found.state == "spent":
            raise over
        if self._requests.open(found):
            raise self._pending(found)
        self._paces.forget(found.key)
        # Of several polls at once one spends it, and only that one hears how it ended.
        if not self._requests.spend(found):
            raise over
        if found.state != "accepted" or self._requests.over(found):
            raise _refused(
                "access_denied",
                "The end-user denied the authorization request or it has been expired",
            )
        return self._outcome(asked.client, found)

    def _person(self, sub: str) -> User:
        user = self._parts.people.find(sub)
        if user is None:
            raise reading.unknown()
        return self._parts.tokens.able(user.sub)

    def _ask(
        self, client: Client, user: User, said: reading.Asked
    ) -> tuple[str, CibaRequest]:
        """Check what is asked for against what client, API and person may."""
        parts = self._parts
        api = parts.apis.asked(said.audience)
        allowed = parts.apis.for_user(client, api, said.scope)
        if api is not None and api.transactional:
            raise refused("invalid_request", "CIBA is not available for this API.")
        listed = []
        if said.details is not None:
            listed = details.read(said.details, parts.apis.details_types(client, api))
        _check_reachable(client, user, said.expiry)
        return self._requests.start(
            client,
            user.sub,
            scope=parts.tokens.bounded(user, allowed, api),
            audience=None if api is None else api.identifier,
            binding_message=said.binding_message,
            details=listed,
            lifetime=said.expiry,
        )

    def _pending(self, found: CibaRequest) -> TenantRefusedError:
        hasty = self._paces.polled(found.key, INTERVAL)
        if hasty is None:
            text = "The end-user authorization is pending"
            return _refused("authorization_pending", text)
        return LaterError(
            "slow_down",
            f"You are polling faster than allowed. Try again in {hasty.now} seconds.",
            hasty.now,
        )

    def _outcome(self, client: Client, found: CibaRequest) -> Outcome:
        """Make the tokens, if client, API and person still may all of it by now."""
        apis = self._parts.apis
        api = apis.asked(found.audience)
        scope = apis.for_user(client, api, found.scope)
        types = apis.details_types(client, api)
        if any(detail["type"] not in types for detail in found.details):
            raise _refused("access_denied", "The details may not be granted any more.")
        at = found.authenticated_at or 0
        issued = self._parts.tokens.for_login(
            client,
            Login(found.user_id, found.sid or "", at, mfa=True),
            scope,
            api,
            details=found.details,
            # Each request needs an answer of its own: none is remembered.
            remember=False,
        )
        _log.info("a request was accepted and fetched", extra={"sub": found.user_id})
        told = Outcome.of(issued, audience=found.audience)
        return replace(told, details=told.details | _linked(found))

    def _note(
        self,
        request: Request,
        kind: Code,
        client: Client | None,
        user: User | None,
        told: dict[str, Any],
    ) -> None:
        self._parts.journal.write(
            kind,
            description=told.get("failure_reason", ""),
            client=log_name(client),
            user=user,
            peer=peer_of(request),
            details=told,
        )


def _check_reachable(client: Client, user: User, expiry: int) -> None:
    """Go through the client's channels in their order; nobody is enrolled for push."""
    if "email" in client.channels and user.email and user.email_verified:
        return
    if expiry > _PUSH and "email" not in client.channels:
        raise refused("invalid_request", f"requested_expiry must be 1 to {_PUSH}")
    raise refused(
        "invalid_request", "The user has no notification channel that the client uses."
    )


def _linked(found: CibaRequest) -> dict[str, Any]:
    return {
        "notification_channel": "email",
        "transaction_linking_id": found.linking_id,
    }


def _not_allowed() -> TenantRefusedError:
    return refused(
        "unauthorized_client", f"Grant type '{CIBA}' not allowed for the client."
    )


def _refused(error: str, description: str) -> TenantRefusedError:
    return TenantRefusedError(error, description, status=400)
