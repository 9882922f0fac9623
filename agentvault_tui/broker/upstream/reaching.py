"""Reach the tenant and the providers: their clients, and the work that waits there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.upstream.access import TenantAccess
from agentvault_tui.broker.upstream.outbox import Outbox, Record
from agentvault_tui.broker.upstream.providers import ProviderAccounts, Providers
from agentvault_tui.broker.vault_access import Flows, VaultAccess
from agentvault_tui.clock import Clock
from agentvault_tui.home import Home
from agentvault_tui.model.event import PERSON_CHANGES
from agentvault_tui.settings import Settings
from agentvault_tui.vault import TenantClient


@dataclass(slots=True)
class PeopleChanges:
    """When people changed at the tenant, since the start of this broker."""

    has_approver: bool = False
    """Whether somebody was found to have the role approver; see `socket_factor`."""
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    """Each ends the sessions of a person, by subject, whom another broker changed."""
    _times: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """When a person's role, password, … changed last, by subject and change."""

    def note(self, sub: str, change: str, at: datetime) -> None:
        """Note that a person changed, by subject."""
        self._times[sub, change] = at

    def changed_since(
        self, sub: str, moment: datetime, changes: Iterable[str] = PERSON_CHANGES
    ) -> bool:
        """Check whether a person was changed at the tenant, at a moment or after it.

        Args:
            sub: the person.
            moment: such as when they showed their factors.
            changes: which changes count.

        Returns:
            whether there was one, since the start of this broker.
        """
        times = (self._times.get((sub, change)) for change in changes)
        return any(when is not None and when >= moment for when in times)

    def state_of(self, subs: Iterable[str]) -> object:
        """Return a value that differs once one of *subs* was changed at the tenant.

        Unlike `changed_since` it compares no clocks: brokers of a team have several.
        """
        return [self._times.get((sub, one)) for sub in subs for one in PERSON_CHANGES]


class Reaching:
    """The tenant and the providers, as this broker reaches them."""

    def __init__(
        self,
        tenant: TenantClient,
        kind: str,
        *,
        home: Home,
        settings: Callable[[], Settings],
        clock: Clock,
        registry: Registry,
        record: Record,
        notify: Callable[[], None],
        shared: bool,
    ) -> None:
        """Connect to nothing yet.

        Args:
            tenant: the client of the operators' tenant.
            kind: ``embedded`` or ``auth0``.
            home: the home with the credentials.
            settings: returns the settings.
            clock: the clock.
            registry: the agents with accounts at providers.
            record: records the steps of a revocation; see `Cuts.record`.
            notify: called once operators received a step in an event.
            shared: whether a team's store has the vault users.
        """
        self.tenant, self.kind = tenant, kind
        self.vault = VaultAccess(
            home, tenant.issuer, clock, local=tenant.local, shared=shared
        )
        rate = settings().tenant.rate
        self.access = TenantAccess(tenant, rate, self.vault, registry)
        self.flows = Flows(clock)
        """Accounts that are being connected."""
        self.outlook = ProviderAccounts(
            registry, self.vault.issuer, lambda: settings().connections
        )
        self.providers = Providers(
            clock, registry, self.outlook, self.vault.exchange_apart
        )
        self.outbox = Outbox(
            *(clock, registry, self.access, self.providers, record), notify=notify
        )
        self.people = PeopleChanges()
        registry.foresee = self.outbox.foresee
        registry.outlook = self.outlook.of

    async def aclose(self) -> None:
        """Close the connections."""
        await self.tenant.aclose()
        await self.vault.aclose()
        await self.providers.aclose()
