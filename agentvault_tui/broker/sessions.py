"""Operators' own sign-in: who sits at the socket, kept in memory only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.stepup import problem_of
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model import Actor, ActorKind, Draft, EventType
from agentvault_tui.vault import DeviceFlow, Identity, Tokens

log = logging.getLogger("agentvault.sessions")

_ABSOLUTE: Final = 12 * 3600
"""NIST SP 800-63B-4, AAL3: at most 12 hours."""
_IDLE: Final = 15 * 60
"""Same: at most 15 minutes without use."""


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in operator."""

    identity: Identity
    since: datetime
    ends: Deadline
    idle: Deadline


@dataclass(frozen=True, slots=True)
class _Login:
    flow: DeviceFlow
    task: asyncio.Task[None]


class Sessions:
    """Sessions by the peer's uid; a restart ends them all."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sessions: dict[str, Session] = {}
        self._logins: dict[str, _Login] = {}
        self._problems: dict[str, str] = {}
        self._starting = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None
        """Called when someone signed in or out."""

    def of(self, uid: str) -> Session | None:
        """Return the uid's live session, and count this as use."""
        session = self._sessions.get(uid)
        clock = self._broker.clock
        if session is None or session.ends.passed(clock) or session.idle.passed(clock):
            self._sessions.pop(uid, None)
            return None
        used = replace(session, idle=Deadline.after(clock, _IDLE))
        self._sessions[uid] = used
        return used

    def name_of(self, uid: str) -> str | None:
        """Return the name the uid is signed in under; asking is no use of it."""
        session, clock = self._sessions.get(uid), self._broker.clock
        if session is None or session.ends.passed(clock) or session.idle.passed(clock):
            return None
        return session.identity.name

    def pending(self, uid: str) -> bool:
        """Tell whether a sign-in of this uid waits for the tenant."""
        return uid in self._logins

    def problem(self, uid: str) -> str | None:
        """Return why the last sign-in failed, if it did."""
        return self._problems.get(uid)

    async def login(self, operator: Actor) -> dict[str, Any]:
        """Start a device flow, or return the one under way.

        Raises:
            TenantError: the tenant did not start it.
        """
        async with self._starting:
            login = self._logins.get(operator.id)
            if login is None:
                self._problems.pop(operator.id, None)
                flow = await self._broker.tenant.start_device_flow(
                    ttl=self._broker.settings.stepup.device_code_ttl
                )
                login = _Login(flow, asyncio.create_task(self._wait(operator, flow)))
                self._logins[operator.id] = login
        flow = login.flow
        return {
            "user_code": flow.user_code,
            "verification_uri": flow.verification_uri,
            "verification_uri_complete": flow.verification_uri_complete,
            "expires_in": flow.expires_in,
            "interval": flow.interval,
            "expires_at": iso(flow.expires.wall),
        }

    async def logout(self, operator: Actor) -> None:
        """End the session and any sign-in under way."""
        login = self._logins.pop(operator.id, None)
        if login is not None:
            login.task.cancel()
        session = self._sessions.pop(operator.id, None)
        self.on_change()
        if session is not None:
            await self._broker.record_cut(
                _draft(EventType.OPERATOR_LOGOUT, session.identity, operator)
            )

    async def _wait(self, operator: Actor, flow: DeviceFlow) -> None:
        try:
            end = await self._broker.tenant.wait(flow, asyncio.Event())
            if not isinstance(end, Tokens):
                self._problems[operator.id] = problem_of(end)
                return
            identity = await self._broker.tenant.verify_id_token(
                end.id_token, not_before=flow.started_at
            )
            await self._broker.record(
                _draft(EventType.OPERATOR_LOGIN, identity, operator)
            )
            clock = self._broker.clock
            self._sessions[operator.id] = Session(
                identity,
                clock.now(),
                Deadline.after(clock, _ABSOLUTE),
                Deadline.after(clock, _IDLE),
            )
            self.on_change()
        except AgentVaultError as error:
            log.warning("sign-in failed: %s", error.what)
            self._problems[operator.id] = error.diagnosis()
        finally:
            self._logins.pop(operator.id, None)


def _draft(kind: EventType, identity: Identity, operator: Actor) -> Draft:
    return Draft(
        kind,
        Actor(ActorKind.OPERATOR, identity.sub, identity.name),
        detail={
            "uid": operator.id,
            "amr": list(identity.amr),
            "auth_time": iso(identity.authenticated_at),
        },
    )
