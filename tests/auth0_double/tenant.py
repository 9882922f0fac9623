"""The double: the embedded tenant's own app, and on top what only Auth0 has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agentvault_tui.clock import Clock
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.app import Surface
from agentvault_tui.tenant.clients import Client, management_client
from agentvault_tui.tenant.parts import Parts, Run
from agentvault_tui.tenant.store import Store, TenantSeal
from agentvault_tui.tenant.tokens import RefreshToken, RefreshTokens, read_refresh_token
from agentvault_tui.web import App
from auth0_double.actions import ActionCalls
from auth0_double.client_grants import ClientGrantCalls
from auth0_double.clients import ClientCalls
from auth0_double.connections import ConnectionCalls, offered
from auth0_double.faults import FaultSwitch
from auth0_double.logs import DelayedJournal, LogCalls
from auth0_double.refresh_tokens import RefreshTokenCalls
from auth0_double.resource_servers import SCOPES, ApiCalls, DoubleApis
from auth0_double.roles import RoleCalls
from auth0_double.settings import SettingsCalls, TenantSettings
from auth0_double.users import UserCalls


@dataclass(frozen=True, slots=True)
class DoubleRun(Run):
    """As on a tenant that is new: no console's client if its id is empty."""

    scopes: Iterable[str] = SCOPES

    def clients(self, audience: str) -> tuple[Client, ...]:
        """Return the clients that were not made over the Management API."""
        ours = Run.clients(self, audience)
        managing = management_client(
            self.management_id, self.management_secret, audience, self.scopes
        )
        return (*([ours[0]] if self.client_id else []), managing)


class LaggingRefreshTokens(RefreshTokens):
    """Deletions become true some time after they were answered."""

    def __init__(self, store: Store, clock: Clock, faults: FaultSwitch) -> None:
        super().__init__(store, clock)
        self._faults = faults

    def revoke(self, key: str) -> None:
        at = self._now() + self._faults.now.deletion_lag
        self._store.change(
            "UPDATE refresh_tokens SET gone_at = ? WHERE id = ?"
            " AND (gone_at IS NULL OR gone_at > ?)",
            *(at, key, at),
        )

    def _rows(self, **columns: str) -> list[RefreshToken]:
        rows = self._store.rows("refresh_tokens", **columns)
        now = self._now()
        live = [row for row in rows if row["gone_at"] is None or row["gone_at"] > now]
        return list(map(read_refresh_token, live))


def double(
    store: Store,
    seal: TenantSeal,
    port: int,
    clock: Clock,
    faults: FaultSwitch,
    *,
    settings: StepUpSettings,
    **more: Any,
) -> tuple[Parts, App, App]:
    """Return a tenant with Auth0's further calls: parts, app, and that for phones."""
    refresh = LaggingRefreshTokens(store, clock, faults)
    parts = Parts(store, seal, port, clock, apis=DoubleApis, refresh=refresh, **more)
    journal = DelayedJournal(store, clock, f"127.0.0.1:{port}", faults)
    parts.journal = journal
    configured = TenantSettings(store)
    surface = Surface.of(parts, settings)
    for calls in (
        ActionCalls(store, clock),
        ApiCalls(parts.apis),
        ClientCalls(parts, configured),
        ClientGrantCalls(parts.apis),
        ConnectionCalls(parts),
        LogCalls(journal),
        RefreshTokenCalls(parts),
        RoleCalls(store, parts.people),
        SettingsCalls(configured),
        UserCalls(parts),
    ):
        surface.calls += calls.endpoints()
    surface.routes.insert(0, offered(parts))
    return parts, faults.before(surface.app()), surface.public_app()
