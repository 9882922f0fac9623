"""The tenant as the broker uses it: device flows, and ID tokens verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from typing import Final

from joserfc.jwk import RSAKey

from agentvault_tui.clock import Clock, Deadline, span
from agentvault_tui.errors import IdentityError, TenantError, TenantRefusedError
from agentvault_tui.model.claims import CONFIRM_PATH, KEY_PATH, OUTCOME_PATH
from agentvault_tui.text import visible
from agentvault_tui.vault.device import (
    DeviceFlow,
    End,
    Poll,
    poll_once,
    poll_until_ended,
    start_flow,
)
from agentvault_tui.vault.identity import (
    SKEW,
    Identity,
    IdTokenClaims,
    PageAnswer,
    identity_of,
    key_id,
    login_of,
    page_answer_of,
    verify,
)
from agentvault_tui.vault.refreshed import CachedDocument
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import Keys, Sleep, Tenant, read_keys

SCOPE: Final = "openid profile email"
"""An assertion of identity, and nothing that could be used against an API."""
_KEY_FETCHES: Final = 3
"""Fetches of the key set at once, for a key it does not list; then one a minute."""
_FIRST_RETRY, _SLOWEST_RETRY = 1.0, 15.0
"""Seconds between attempts to have the key of an ID token."""


class TenantClient(Tenant):
    """The broker's client at one tenant, Auth0's or the embedded one."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        clock: Clock,
        *,
        mfa_at_required: bool = False,
        amr_required: bool = True,
        local: str | None = None,
        timeout: float = 10.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Name the tenant, and our client there, which may use the device flow.

        Where *mfa_at_required*, its Action stamps the time of the second factor
        (`model.claims.MFA_AT`), and no other claim replaces it. *amr_required*:
        ``amr`` must say that there was a second factor; not where our own Action is
        known to stamp its time.

        Raises:
            SettingsError: *issuer* is not one we may talk to.
        """
        super().__init__(issuer, clock, local=local, timeout=timeout, sleep=sleep)
        self._mfa_at_required = mfa_at_required
        self._amr_required = amr_required
        self.client_id = client_id
        self._keys = CachedDocument(self._fetch_keys, clock, burst=_KEY_FETCHES)

    async def start_device_flow(
        self,
        scope: str = SCOPE,
        authorization_details: Sequence[dict[str, object]] | None = None,
        *,
        ttl: int,
        origin: str = "",
    ) -> DeviceFlow:
        """Begin a device flow (RFC 8628 section 3.1).

        Args:
            scope: the requested scope.
            authorization_details: RFC 9396, the content of the approval; sent if
                `Tenant.details_types` has their types.
            ttl: the most seconds its code lives.
            origin: where a sign-in from another machine comes from; sent to a tenant
                whose page shows it.

        Returns:
            the flow, with the code and the page to show.

        Raises:
            TenantError: it is unreachable, refuses, or sent undisplayable text.
        """
        if not self.client_id:
            raise TenantError(
                "no application of the tenant is known to sign in at",
                "agentvault auth0 apply makes it; then start the broker anew. Where"
                " the issuer is another broker's embedded tenant, sign in and approve"
                " at that broker",
            )
        form = {"scope": scope}
        # RFC 9396 section 10. Auth0 has no details in its device flow, and whether it
        # ignores or refuses what it does not know is not written anywhere.
        types = {one.get("type") for one in authorization_details or ()}
        if types and types <= await self.details_types():
            form["authorization_details"] = json.dumps(authorization_details)
        if origin and await self.details_types():
            form["origin"] = origin
        return await start_flow(self, self.client_id, form, ttl)

    async def poll_once(self, flow: DeviceFlow) -> Poll:
        """Ask the token endpoint once; an outage is an answer, not an error."""
        return await poll_once(self, self.client_id, flow)

    async def wait(
        self,
        flow: DeviceFlow,
        turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> End:
        """Poll until the person decided or the code ran out, each time in a *turn*."""

        async def poll() -> Poll:
            async with turn():
                return await self.poll_once(flow)

        return await poll_until_ended(self, flow, poll)

    async def verify_id_token(
        self, raw: str, *, not_before: datetime, until: Deadline | None = None
    ) -> Identity:
        """Verify an ID token fully, and that its second factor is not older.

        Args:
            raw: the token.
            not_before: the person must have proved their second factor since then.
            until: how long to ask again for a key that cannot be had. The device code
                is spent by then (RFC 8628 section 3.5), so giving up at the first
                failure would make the person start again.

        Returns:
            who it was.

        Raises:
            IdentityError: it proves too little; `reason` has the missing part.
            TenantError: the tenant's keys cannot be had.
        """
        try:
            claims = await self._claims(raw, self.client_id, until)
            return identity_of(
                claims,
                now=self.clock.now(),
                not_before=not_before,
                mfa_at_required=self._mfa_at_required,
                amr_required=self._amr_required,
            )
        except IdentityError as error:
            skew = abs(self.skew or 0.0)
            if error.reason not in {"claims", "stale"} or skew <= SKEW:
                raise
            why = f"the tenant's clock and ours are {span(skew)} apart"
            raise IdentityError(
                error.reason, f"{error.what} ({why})", "set this machine's clock"
            ) from error

    async def verify_page_answer(
        self, raw: str, *, digest: str, until: Deadline
    ) -> PageAnswer:
        """Verify an answer at the approval page other than an approval.

        Raises:
            IdentityError: it is no such answer about *digest*.
            TenantError: the tenant's keys cannot be had.
        """
        claims = await self._claims(raw, self.client_id, until)
        return page_answer_of(claims, digest)

    async def tell_outcome(self, flow: DeviceFlow, outcome: str) -> None:
        """Send a step-up's result to the embedded tenant, for its approval page.

        Raises:
            TenantError: the tenant does not answer.
        """
        form = {
            "client_id": self.client_id,
            "device_code": flow.device_code,
            "outcome": outcome,
        }
        url = f"{self.issuer}{OUTCOME_PATH.removeprefix('/')}"
        await self.send("POST", url, form=form)

    async def confirm(self, flow: DeviceFlow, form: Mapping[str, str]) -> None:
        """Have the embedded tenant approve a flow by a factor that was given here.

        Args:
            flow: the flow; its ID token then proves the approval, as any other's does.
            form: ``sub``, ``session``, and ``otp``, perhaps with ``password``, or
                ``passkey``.

        Raises:
            TenantRefusedError: a factor is missing or wrong; `error` says which.
            TenantError: the tenant does not answer.
        """
        await self._at_desk(CONFIRM_PATH, flow, form)

    async def key_challenge(self, flow: DeviceFlow, sub: str) -> object:
        """Fetch the embedded tenant's challenge for a security key, bound to a flow.

        Args:
            flow: the flow that the key is to approve.
            sub: the key's owner.

        Returns:
            the JSON of an `operator_api.sessions.KeyChallenge`.

        Raises:
            TenantRefusedError: ``no_passkey``, or the flow is over.
            TenantError: the tenant does not answer.
        """
        return (await self._at_desk(KEY_PATH, flow, {"sub": sub})).value

    async def _at_desk(
        self, path: str, flow: DeviceFlow, form: Mapping[str, str]
    ) -> TenantReply:
        fields = {"client_id": self.client_id, "device_code": flow.device_code}
        url = f"{self.issuer}{path.removeprefix('/')}"
        reply = await self.send("POST", url, form={**fields, **form})
        if reply.status in {200, 204}:
            return reply
        code = visible(reply.error or "unavailable", 40)
        what = reply.description or f"the tenant answered {reply.status}"
        raise TenantRefusedError(code, what, status=reply.status)

    async def verify_login(
        self, raw: str, *, client_id: str, nonce: str
    ) -> tuple[str, str]:
        """Verify the ID token of a sign-in at *client_id*; return subject and name.

        Raises:
            IdentityError: it is not that sign-in's.
            TenantError: the tenant's keys cannot be had.
        """
        return login_of(await self._claims(raw, client_id), nonce)

    async def _claims(
        self, raw: str, client_id: str, until: Deadline | None = None
    ) -> IdTokenClaims:
        """Return the claims of an ID token for *client_id*, all but its own verified.

        Raises:
            IdentityError: it is no such token of this tenant's.
            TenantError: the tenant's keys cannot be had.
        """
        key, now = await self._key(raw, until), self.clock.now()
        return verify(raw, key, issuer=self.issuer, client_id=client_id, now=now)

    async def _key(self, raw: str, until: Deadline | None = None) -> RSAKey:
        """Return the tenant's key that *raw* names; one it rotated to is fetched.

        Until *until* a key that is not listed yet, or cannot be fetched, is asked for
        again; `CachedDocument` bounds the requests.
        """
        kid = key_id(raw)
        pause = _FIRST_RETRY
        while True:
            problem: TenantError
            try:
                if (key := (await self._keys.get()).get(kid)) is not None:
                    return key
                await self._keys.renew()
                if (key := (await self._keys.get()).get(kid)) is not None:
                    return key
                problem = IdentityError(
                    "signature",
                    "the ID token is signed with a key the tenant does not list",
                )
            except TenantError as error:
                problem = error
            left = 0.0 if until is None else until.remaining(self.clock)
            if left <= 0.0:
                raise problem
            await self.sleep(min(pause, left))
            pause = min(pause * 2, _SLOWEST_RETRY)

    async def _fetch_keys(self) -> Keys:
        metadata = await self.metadata()
        return read_keys(await self.send("GET", metadata.jwks_uri))
