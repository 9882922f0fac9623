"""The tenant as the broker sees it: start a flow, wait for it, verify who it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from agentvault_tui.clock import Clock
from agentvault_tui.errors import IdentityError, TenantError, TenantUnreachableError
from agentvault_tui.vault.device import (
    GRANT_TYPE,
    SLOWER,
    Cancelled,
    DeviceFlow,
    End,
    Expired,
    Pending,
    Poll,
    SlowDown,
    Unavailable,
    read_poll,
    read_start,
)
from agentvault_tui.vault.discovery import Keys, Metadata, read_keys, read_metadata
from agentvault_tui.vault.identity import Identity, key_id, verify
from agentvault_tui.vault.refreshed import Refreshed
from agentvault_tui.vault.wire import Wire, check_issuer

T = TypeVar("T")

SCOPE: Final = "openid profile email"
"""An assertion of identity, and nothing that could be used against an API."""
_SLOWEST: Final = 30.0


class TenantClient:
    """One tenant, reached over HTTP; which product it is makes no difference."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        clock: Clock,
        *,
        timeout: float = 10.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Name the tenant; nothing is sent yet.

        Raises:
            SettingsError: *issuer* is not one we may talk to.
        """
        self.issuer: Final = check_issuer(issuer)
        self.client_id: Final = client_id
        self._clock = clock
        self._sleep = sleep
        self._wire = Wire(self.issuer, timeout)
        self._metadata = Refreshed(self._fetch_metadata, clock)
        self._keys = Refreshed(self._fetch_keys, clock)

    @property
    def reachable(self) -> bool | None:
        """Whether the last exchange was answered; nothing before the first."""
        return self._wire.reachable

    async def probe(self) -> bool:
        """Ask the tenant for its discovery document; tell whether it is well."""
        try:
            await self._fetch_metadata()
        except TenantError:
            return False
        return True

    async def start_device_flow(
        self,
        scope: str = SCOPE,
        authorization_details: Sequence[dict[str, Any]] | None = None,
        *,
        ttl: int,
    ) -> DeviceFlow:
        """Begin a flow (RFC 8628 section 3.1) whose code lives at most *ttl* seconds.

        Args:
            scope: what is asked for.
            authorization_details: RFC 9396, what the person is to approve.
            ttl: the cap on the tenant's own ``expires_in``.

        Raises:
            TenantError: it is unreachable, refuses, or sent what cannot be shown.
        """
        form = {"client_id": self.client_id, "scope": scope}
        if authorization_details is not None:
            form["authorization_details"] = json.dumps(list(authorization_details))
        metadata = await self._metadata.get()
        reply = await self._wire.post(metadata.device_authorization_endpoint, form)
        if reply.status >= 500:
            raise TenantUnreachableError(
                f"the tenant answered {reply.status}", "try again in a moment"
            )
        return read_start(reply, self.issuer, ttl, self._clock)

    async def poll_once(self, flow: DeviceFlow) -> Poll:
        """Ask the token endpoint once; an outage is an answer, not an error."""
        form = {
            "grant_type": GRANT_TYPE,
            "device_code": flow.device_code,
            "client_id": self.client_id,
        }
        try:
            metadata = await self._metadata.get()
            return read_poll(await self._wire.post(metadata.token_endpoint, form))
        except TenantError as error:
            return Unavailable(error.what)

    async def wait(
        self,
        flow: DeviceFlow,
        cancel: asyncio.Event,
        on_poll: Callable[[Poll], None] | None = None,
    ) -> End:
        """Poll until the person decided, the code ran out, or *cancel* is set.

        The interval counts from the receipt of the last answer; each slow_down makes
        it longer for good, an outage only until it is over.

        Args:
            flow: the started flow.
            cancel: set it to stop at once, also amid a request.
            on_poll: told of every answer, for showing the state of the flow.
        """
        interval = float(flow.interval)
        pause = interval
        while True:
            left = flow.expires.remaining(self._clock)
            await _unless(cancel, self._nap(min(pause, left)))
            if cancel.is_set():
                return Cancelled()
            if flow.expires.passed(self._clock):
                return Expired()
            result = await _unless(cancel, self.poll_once(flow))
            if result is None or cancel.is_set():
                return Cancelled()
            if on_poll is not None:
                on_poll(result)
            match result:
                case Pending():
                    pause = interval
                case SlowDown():
                    interval += SLOWER
                    pause = interval
                case Unavailable():
                    slower = max(min(pause * 2, _SLOWEST), interval)
                    pause = max(result.retry_after or 0.0, slower)
                case _:
                    return result

    async def verify_id_token(self, raw: str, *, not_before: datetime) -> Identity:
        """Verify an ID token fully, and that its second factor is not older.

        Raises:
            IdentityError: it proves less than is needed; `reason` says what.
            TenantError: the tenant's keys cannot be had.
        """
        kid = key_id(raw)
        keys = await self._keys.get()
        if kid not in keys:
            await self._keys.renew()
            keys = await self._keys.get()
        if kid not in keys:
            raise IdentityError(
                "signature",
                "the ID token is signed with a key the tenant does not list",
            )
        return verify(
            raw,
            keys[kid],
            issuer=self.issuer,
            client_id=self.client_id,
            now=self._clock.now(),
            not_before=not_before,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    async def _fetch_metadata(self) -> Metadata:
        url = f"{self.issuer}.well-known/openid-configuration"
        return read_metadata(await self._wire.get(url), self.issuer)

    async def _fetch_keys(self) -> Keys:
        metadata = await self._metadata.get()
        return read_keys(await self._wire.get(metadata.jwks_uri))

    async def _nap(self, seconds: float) -> None:
        await self._sleep(seconds)


async def _unless(cancel: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Await *work*, but drop it as soon as *cancel* is set."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
