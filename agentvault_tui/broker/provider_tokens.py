"""Provider tokens kept for the length of a lease, in memory and nowhere else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.model import Account, AgentId, sha256_hex
from agentvault_tui.vault import ProviderToken, Secret


@dataclass(frozen=True, slots=True)
class Held:
    """A provider's token as Token Vault gave it."""

    account: Account
    token: Secret
    scope: str
    thumbprint: str
    """The beginning of its SHA-256: names it in the audit, and nothing more."""
    until: datetime
    """When it ends at the provider, whatever is done here."""
    lease: Deadline = field(repr=False)
    """When it is forgotten here: the vault is asked again, and may say no."""

    @classmethod
    def of(
        cls, clock: Clock, account: Account, found: ProviderToken, longest: float
    ) -> Held:
        """Return what the vault just gave for *account*, for *longest* seconds."""
        return cls(
            account=account,
            token=found.access_token,
            scope=" ".join(found.scopes),
            thumbprint=sha256_hex(found.access_token.reveal())[:16],
            until=clock.now() + timedelta(seconds=found.expires_in),
            lease=Deadline.after(clock, min(found.expires_in, longest)),
        )


class ProviderTokens:
    """At most one for each agent and connection; cut with the agent's own tokens."""

    def __init__(self, clock: Clock) -> None:
        """Start with none."""
        self._clock = clock
        self._of: dict[AgentId, dict[str, Held]] = defaultdict(dict)

    def get(self, account: Account) -> Held | None:
        """Return what is held of exactly this account, if its lease lasts."""
        held = self._of[account.agent_id].get(account.connection)
        if held is None or held.account != account or held.lease.passed(self._clock):
            self._of[account.agent_id].pop(account.connection, None)
            return None
        return held

    def put(self, held: Held) -> None:
        """Keep *held* for its lease."""
        self._of[held.account.agent_id][held.account.connection] = held

    def of(self, agent_id: AgentId) -> tuple[Held, ...]:
        """Return all of the agent's that are not forgotten yet."""
        return tuple(self._of.get(agent_id, {}).values())

    def drop(self, agent_id: AgentId) -> None:
        """Forget all of the agent's."""
        self._of.pop(agent_id, None)

    def drop_all(self) -> None:
        """Forget every agent's."""
        self._of.clear()

    def sweep(self) -> None:
        """Forget those whose lease is over."""
        for held_by in self._of.values():
            for connection in [
                name for name, held in held_by.items() if held.lease.passed(self._clock)
            ]:
                del held_by[connection]
