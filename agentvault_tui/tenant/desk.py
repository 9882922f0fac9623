"""Approve a device code at a console, by a one-time code or a security key."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.encoder import to_base64url
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import Risk, sha256_hex
from agentvault_tui.model.claims import SIGN_IN_FRESH_S
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.codes import StoredDeviceCode
from agentvault_tui.tenant.details import StepUpDetails
from agentvault_tui.tenant.oauth.wire import (
    refusal,
    refused,
    reply,
    required,
    wide_form,
)
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.passkeys import Passkeys
from agentvault_tui.tenant.row_time import row_time
from agentvault_tui.tenant.signin import GUESSES, Origin
from agentvault_tui.tenant.users import User

_OVER: Final = "This code is not valid any more."
_OWN: Final = Origin(own=True)
"""The broker alone holds its device codes: it asks as the owner of the home."""
_UNCACHED: Final = {"cache-control": "no-store"}
_log = logging.getLogger("agentvault.tenant")


def remember_sign_in(parts: Parts, sub: str, sid: str, authenticated_at: int) -> None:
    """Store that a person signed in at the broker with password and one-time code.

    The row is one of `page_sessions`, so everything that ends a person's page sessions
    ends it: another password, factor or role, and their removal.

    Args:
        parts: the tenant.
        sub: the person.
        sid: of the ID token; the tenant and the broker alone know it.
        authenticated_at: when both factors were verified, in epoch seconds.
    """
    age = parts.clock.now().timestamp() - authenticated_at
    parts.store.insert(
        "page_sessions",
        cookie_hash=_key(sid),
        sub=sub,
        expires_at=row_time(parts.store, parts.clock) - age + SIGN_IN_FRESH_S,
    )


def _key(sid: str) -> str:
    # No cookie of a page has a space: neither session stands for the other.
    return sha256_hex(f"desk {sid}")


class DeskConfirmation:
    """Approvals at a console, on loopback and for the broker's own codes.

    The device code names the request; the broker compared its digest before.
    """

    def __init__(
        self, parts: Parts, settings: StepUpSettings, keys: Passkeys | None
    ) -> None:
        self._parts = parts
        self._passkey_only = settings.passkey_only
        self._keys = keys

    async def confirm(self, request: Request) -> Response:
        """Approve a device code, or say which factor is missing or wrong.

        Either the sign-in proves who the person is, and the fresh one-time code that
        it is them now; or their security key proves both.
        """
        parts, user, code = self._parts, None, None
        try:
            form = await wide_form(request)
            code, client, sub = self._code(form)
            user, what = self._person(sub, code)
            if answer := form.get("passkey"):
                if self._keys is None:
                    raise _no_key()
                amr = self._keys.signed_in(answer, _about(code, user), sub).amr
                now = int(parts.clock.now().timestamp())
            else:
                amr, now = await self._by_code(form, user, what)
            sid = secrets.token_urlsafe(24)
            if not parts.codes.approve(code, sub, sid, now, amr):
                raise refused("code_over", _OVER)
        except TenantRefusedError as error:
            self._failed(request, error, user, code)
            return refusal(error)
        parts.journal.signed_in(request, user, client, mfa=True)
        _log.info("device code confirmed at the desk by %s", sub)
        return Response(status_code=204, headers=_UNCACHED)

    async def challenge(self, request: Request) -> Response:
        """Return the challenge for a security key to sign, bound to a device code.

        A person has five minutes for it, and it approves no other code.
        """
        try:
            code, _, sub = self._code(await wide_form(request))
            user, _ = self._person(sub, code)
            if self._keys is None or not (passkeys := self._keys.of(sub)):
                raise _no_key()
        except TenantRefusedError as error:
            return refusal(error)
        challenge = to_base64url(self._keys.challenge(_about(code, user)))
        wanted = {"rp_id": self._keys.rp_id, "origin": self._keys.origin}
        ids = [one.id for one in passkeys]
        return reply(200, {**wanted, "challenge": challenge, "credentials": ids})

    def _code(self, form: Mapping[str, str]) -> tuple[StoredDeviceCode, Client, str]:
        """Return the device code of a form, its client, and who answers it."""
        names = ("client_id", "device_code", "sub")
        client_id, device_code, sub = required(form, *names)
        code = self._parts.codes.by_key(sha256_hex(device_code))
        client = self._parts.clients.find(client_id)
        if code is None or client is None or code.client != client.key:
            raise refused("invalid_grant", "Invalid or expired device code.")
        return code, client, sub

    def _person(self, sub: str, code: StoredDeviceCode) -> tuple[User, StepUpDetails]:
        """Return the person to confirm, and the details, if this desk can approve."""
        if not self._parts.codes.open(code):
            raise refused("code_over", _OVER)
        what = code.details
        if what is None:
            raise refused("invalid_grant", "A sign-in is not confirmed here.")
        user = self._parts.people.find(sub)
        if user is None or user.blocked:
            raise refused("sign_in_needed", "Sign in at the console again.")
        return user, what

    async def _by_code(
        self, form: Mapping[str, str], user: User, what: StepUpDetails
    ) -> tuple[tuple[str, ...], int]:
        """Verify the one-time code, and before it the first factor.

        Returns:
            how the person proved who they are, in the words of RFC 8176, and when.
        """
        (otp,) = required(form, "otp")
        if self._passkey_only and what.risk is Risk.HIGH:
            text = "This needs a passkey ([stepup] passkey_only)."
            raise refused("passkey_needed", text)
        amr = await self._first_factor(form, user)
        return (*amr, "otp"), self._parts.sign_in.one_time_code(user, otp, _OWN)

    async def _first_factor(
        self, form: Mapping[str, str], user: User
    ) -> tuple[str, ...]:
        """Verify the password, or that both factors were shown within eight hours.

        Returns:
            how the person proved who they are, in the words of RFC 8176.
        """
        if password := form.get("password"):
            await self._parts.sign_in.password(user.name, password, _OWN)
            return ("mfa", "pwd")
        row = self._parts.store.find(
            "page_sessions", cookie_hash=_key(form.get("session", ""))
        )
        now = row_time(self._parts.store, self._parts.clock)
        # Not one that ends later than any can: the clock was set back.
        fresh = row is not None and now < row["expires_at"] <= now + SIGN_IN_FRESH_S
        if not fresh or row is None or row["sub"] != user.sub:
            text = "The sign-in is older than eight hours: type the password too."
            raise refused("password_needed", text)
        return ("mfa",)

    def _failed(
        self,
        request: Request,
        error: TenantRefusedError,
        user: User | None,
        code: StoredDeviceCode | None,
    ) -> None:
        """Count a guess against the code, and note it, as the pages do."""
        if code is None or error.error not in GUESSES | {"locked"}:
            return
        client = self._parts.clients.by_key(code.client)
        self._parts.journal.sign_in_refused(request, error, user, client)
        if error.error in GUESSES:
            self._parts.codes.failed(code)


def _about(code: StoredDeviceCode, user: User) -> str:
    """Return the binding of a challenge for a security key."""
    return f"desk {code.key} {user.sub}"


def _no_key() -> TenantRefusedError:
    return refused("no_passkey", "You have no passkey here.")
