"""Until when provider tokens that agents were given can still be used.

They are the provider's: no revocation of ours ends one. What can be said is when the
last of them ends by itself, and who else uses the same account.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from agentvault_tui.broker.accounts import Accounts
from agentvault_tui.clock import Clock
from agentvault_tui.model import AgentId, Lease


class Leases:
    """One lease an agent and connection, in the ledger with the delivery's event.

    Memory goes first and the record follows, so that a revocation which comes
    meanwhile counts the token that is on its way.
    """

    def __init__(self, clock: Clock, accounts: Accounts) -> None:
        """Start with nothing outside; *accounts* say who shares what."""
        self._clock = clock
        self._accounts = accounts
        self._of: dict[AgentId, dict[str, Lease]] = defaultdict(dict)

    def take_over(self, leases: Iterable[Lease]) -> None:
        """Know what the last process knew."""
        for lease in leases:
            self._of[lease.agent_id][lease.connection] = lease

    def note(self, agent_id: AgentId, connection: str, until: datetime) -> Lease:
        """Note that a token which works until then is given to the agent.

        Returns:
            what goes into the delivery's transaction: the latest end there is.
        """
        known = self._of[agent_id].get(connection)
        latest = max(until, known.until) if known else until
        lease = Lease(agent_id, connection, latest)
        self._of[agent_id][connection] = lease
        return lease

    def of(self, agent_id: AgentId, connection: str) -> Lease | None:
        """Return the lease of the agent there, over or not."""
        return self._of[agent_id].get(connection)

    def outside_until(self, agent_id: AgentId) -> datetime | None:
        """Return when the last provider token the agent was given ends.

        Nothing when none is outside that can still be used.
        """
        now = self._clock.now()
        ends = (lease.until for lease in self._of[agent_id].values())
        return max((end for end in ends if end > now), default=None)

    def sharing(self, agent_id: AgentId) -> tuple[AgentId, ...]:
        """Return the other agents that use an account this one uses."""
        others = (
            other
            for account in self._accounts.of(agent_id)
            for other in self._accounts.sharing(account)
        )
        return tuple(dict.fromkeys(others))
