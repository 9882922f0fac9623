"""Connections being made: what the broker must remember while a person is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentvault_tui.broker.vault_users import VaultUser
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import ConflictError, NotFoundError
from agentvault_tui.model import AgentId
from agentvault_tui.vault import MyAccountApi, PendingConnection, SigningIn

_MOST: Final = 32
"""Under way at once; each waits for a person in front of a browser."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an operator asked for."""

    agent_id: AgentId
    connection: str
    scopes: tuple[str, ...]
    """To ask the provider for; none: what the connection is set up with."""
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Consent:
    """The vault user is known, and now allows the account at the provider."""

    user: VaultUser
    accounts: MyAccountApi
    connecting: PendingConnection

    @property
    def page(self) -> str:
        """What to open; on the tenant's own origin."""
        return self.connecting.page

    @property
    def state(self) -> str:
        """What the browser must bring back."""
        return self.connecting.state

    @property
    def expires(self) -> Deadline:
        """Until when the person may take."""
        return self.connecting.expires


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection under way, at one of its two pages."""

    id: str
    wanted: Wanted
    at: SigningIn | Consent


class Flows:
    """Flows by id, in memory: a restart ends them, and nothing is lost but time."""

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        self._flows: dict[str, Flow] = {}

    def put(self, flow: Flow) -> Flow:
        """Remember *flow*.

        Raises:
            ConflictError: too many are under way.
        """
        for key, known in list(self._flows.items()):
            if known.at.expires.passed(self._clock):
                del self._flows[key]
        if len(self._flows) >= _MOST:
            raise ConflictError(
                f"{_MOST} connections are being made already", "wait for one to end"
            )
        self._flows[flow.id] = flow
        return flow

    def take(self, flow_id: str) -> Flow:
        """Return the flow and forget it: each page's answer counts once.

        Raises:
            NotFoundError: there is none, or its time is up.
        """
        flow = self._flows.pop(flow_id, None)
        if flow is None or flow.at.expires.passed(self._clock):
            raise NotFoundError(
                "no connection is being made under that id", "begin again"
            )
        return flow
