"""Until when provider tokens that agents were given can still be used.

They are the provider's: only it can end one before its time. What can be said is when
the last of them ends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from agentvault_tui.clock import Clock
from agentvault_tui.model import Account, AgentId, Given, Lease


class Leases:
    """One lease an agent and connection, in the ledger with the delivery's event.

    Memory goes first and the record follows, so that a revocation which comes
    meanwhile counts the token that is on its way.
    """

    def __init__(self, clock: Clock) -> None:
        """Start with nothing outside."""
        self._clock = clock
        self._of: dict[AgentId, dict[str, Lease]] = defaultdict(dict)

    def take_over(self, leases: Iterable[Lease]) -> None:
        """Know what the last process knew."""
        for lease in leases:
            self._of[lease.agent_id][lease.connection] = lease

    def note(self, account: Account, thumbprint: str, until: datetime) -> Lease:
        """Note that a token of *account*, good until then, is given to its agent.

        Returns:
            what goes into the delivery's transaction: all that is outside there.
        """
        given = [
            one
            for one in self._outside(account.agent_id, account.connection)
            if one.thumbprint != thumbprint
        ]
        given.append(Given(account.id, thumbprint, until))
        return self._put(account.agent_id, account.connection, given)

    def ended(self, account: Account, thumbprint: str, *, all_of_it: bool) -> Lease:
        """Note that the provider has ended a token, or *all_of_it*: of the account.

        Returns:
            what is to be recorded with it: all that is outside there still.
        """
        given = [
            one
            for one in self._outside(account.agent_id, account.connection)
            if one.thumbprint != thumbprint
            and not (all_of_it and one.account_id == account.id)
        ]
        return self._put(account.agent_id, account.connection, given)

    def of(self, agent_id: AgentId, connection: str) -> Lease | None:
        """Return the lease of the agent there, over or not."""
        return self._of.get(agent_id, {}).get(connection)

    def outside_until(self, agent_id: AgentId) -> datetime | None:
        """Return when the last provider token the agent was given ends.

        Nothing when none is outside that can still be used.
        """
        return max(
            (
                one.until
                for connection in self._of.get(agent_id, ())
                for one in self._outside(agent_id, connection)
            ),
            default=None,
        )

    def _outside(self, agent_id: AgentId, connection: str) -> list[Given]:
        lease, now = self.of(agent_id, connection), self._clock.now()
        return [one for one in lease.given if one.until > now] if lease else []

    def _put(self, agent_id: AgentId, connection: str, given: list[Given]) -> Lease:
        lease = Lease(agent_id, connection, tuple(given))
        self._of[agent_id][connection] = lease
        return lease
