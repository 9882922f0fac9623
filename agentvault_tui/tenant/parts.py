"""Puts the parts of one tenant together; nothing here decides anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from argon2 import PasswordHasher

from agentvault_tui.clock import Clock
from agentvault_tui.model import new_id, new_secret
from agentvault_tui.tenant.access import AccessTokens
from agentvault_tui.tenant.apis import Apis
from agentvault_tui.tenant.client_auth import ClientAuth
from agentvault_tui.tenant.clients import Clients, console_client, management_client
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.connections import Connections
from agentvault_tui.tenant.consents import Consents
from agentvault_tui.tenant.credentials import Credentials, Replays
from agentvault_tui.tenant.faults import FaultSwitch
from agentvault_tui.tenant.journal import Journal
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.management.scopes import SCOPES
from agentvault_tui.tenant.objects import rebase
from agentvault_tui.tenant.people import People
from agentvault_tui.tenant.ratelimit import RateLimit
from agentvault_tui.tenant.refresh import RefreshTokens
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.signin import SignIn
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.tenant_settings import TenantSettings
from agentvault_tui.tenant.tokens import TokenService
from agentvault_tui.tenant.vault.accounts import Accounts
from agentvault_tui.tenant.vault.connecting import Connecting
from agentvault_tui.tenant.vault.provider import Provider


@dataclass(frozen=True, slots=True)
class Run:
    """What the broker decides for one run, and no file ever holds.

    The console's id is native and public, as Auth0 has it for the device flow, and
    yet nobody's but the broker's: others cannot start flows and fill the room there
    is for them. The management credential is what an operator would make by hand at
    Auth0.
    """

    client_id: str = field(default_factory=lambda: new_id("app"), repr=False)
    """Empty: no console's client yet, as on an Auth0 tenant that is new."""
    management_id: str = field(default_factory=lambda: new_id("app"), repr=False)
    management_secret: str = field(
        default_factory=lambda: new_secret("av_m"), repr=False
    )
    management_scopes: Iterable[str] = SCOPES
    legacy_tokensets: bool = False
    """Serve the calls on vault entries that Auth0's SDKs have dropped."""


class Parts:
    """Everything the endpoints and pages of one tenant work with."""

    def __init__(
        self,
        store: Store,
        seal: Seal,
        clock: Clock,
        issuer: str,
        *,
        run: Run,
        faults: FaultSwitch,
        hasher: PasswordHasher,
    ) -> None:
        """Open the parts on *store*, as *issuer*."""
        rebase(store, issuer)
        self.store, self.clock, self.issuer, self.run = store, clock, issuer, run
        self.faults, self.hasher = faults, hasher
        self.journal = Journal(store, clock, issuer.split("/")[2], faults)
        self.keys = SigningKeys(store, seal, clock)
        self.settings = TenantSettings(store)
        self.people = People(store, seal, clock)
        self.sign_in = SignIn(store, seal, clock, hasher)
        self.codes = DeviceCodes(store, seal, clock)
        self.apis = Apis(store, issuer, SCOPES)
        self.connections = Connections(store)
        self.clients = Clients(
            store,
            (
                *([console_client(run.client_id)] if run.client_id else []),
                management_client(
                    run.management_id,
                    run.management_secret,
                    self.apis.management,
                    run.management_scopes,
                ),
            ),
        )
        self.credentials = Credentials(store, clock)
        self.replays = Replays(store, clock)
        self.auth = ClientAuth(
            self.clients, self.credentials, self.replays, clock, issuer
        )
        self.consents = Consents(store)
        self.refresh = RefreshTokens(store, clock, faults)
        self.access = AccessTokens(self.keys, clock, issuer)
        self.tokens = TokenService(
            store,
            keys=self.keys,
            clock=clock,
            issuer=issuer,
            apis=self.apis,
            people=self.people,
            refresh=self.refresh,
            consents=self.consents,
        )
        self.provider = Provider(store, clock)
        self.accounts = Accounts(store, seal, clock, self.provider)
        self.connecting = Connecting(store, clock, issuer)
        self.limit = RateLimit(clock, faults, self.journal)
