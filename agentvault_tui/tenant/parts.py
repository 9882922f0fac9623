"""The services of one tenant, shared by its endpoints and pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from argon2 import PasswordHasher

from agentvault_tui.clock import Clock
from agentvault_tui.model import new_id, new_secret
from agentvault_tui.tenant.accounts import Connecting, Provider, VaultAccounts
from agentvault_tui.tenant.apis import MANAGEMENT_SCOPES, Apis, Connections
from agentvault_tui.tenant.clients import (
    Client,
    Clients,
    console_client,
    management_client,
)
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.journal import Journal
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.signin import SignIn
from agentvault_tui.tenant.store import Store, TenantSeal, rebase
from agentvault_tui.tenant.tokens import AccessTokens, RefreshTokens, TokenService
from agentvault_tui.tenant.users import People, strong_hasher
from agentvault_tui.web import LocalSite, PublicAddress

HOST: Final = "127.0.0.1"
PORT_FILE: Final = "port"
"""In the tenant's folder: where on loopback it was served last."""


@dataclass(frozen=True, slots=True)
class Run:
    """The broker's two clients, which no file ever holds.

    The console's is native and public, as Auth0 has it for the device flow; that its id
    is the broker's alone, or its team's, keeps others from starting flows. The
    management credential, which is made for one run, is the same as an operator would
    make by hand at Auth0.
    """

    client_id: str = field(default_factory=lambda: new_id("app"), repr=False)
    management_id: str = field(default_factory=lambda: new_id("app"), repr=False)
    management_secret: str = field(
        default_factory=lambda: new_secret("av_m"), repr=False
    )

    def clients(self, audience: str) -> tuple[Client, ...]:
        """Return both; the second may use the Management API, which is *audience*."""
        return console_client(self.client_id), management_client(
            self.management_id, self.management_secret, audience, MANAGEMENT_SCOPES
        )


def issuer_of(local: str, public: PublicAddress | None) -> str:
    """Return whom tokens are from: where phones reach it, else its loopback address."""
    return local if public is None else public.url


class Parts:
    """The services of one tenant; one may be replaced before the tenant is served."""

    def __init__(
        self,
        store: Store,
        seal: TenantSeal,
        port: int,
        clock: Clock,
        *,
        run: Run,
        public: PublicAddress | None = None,
        localhost: bool = False,
        hasher: PasswordHasher | None = None,
        apis: type[Apis] = Apis,
        refresh: RefreshTokens | None = None,
    ) -> None:
        """Make the services of the tenant in *store*, which the caller closes.

        It is reached on loopback at *port*, and by phones where it is *public*, which
        then is the issuer. *localhost* says that no other process can answer at *port*
        of either loopback: then the approval pages are there if phones have none.

        Raises:
            TenantError: the store cannot be used.
            SealedError: the encrypted value there does not open.
            LedgerUnwritableError: the team's store is away.
        """
        self.local: Final = f"http://{HOST}:{port}/"
        self.public: Final = public
        self.pages: Final = public or (LocalSite(port) if localhost else None)
        """Where people approve in a browser, if they do."""
        self.issuer: Final = issuer_of(self.local, public)
        rebase(store, self.issuer)
        self.store, self.seal, self.clock, self.run = store, seal, clock, run
        self.hasher = hasher or strong_hasher()
        self.journal = Journal(store, clock, self.issuer.split("/")[2])
        self.keys = SigningKeys(store, seal, clock)
        self.keys.public()  # says now what does not open
        self.people = People(store, seal, clock)
        self.sign_in = SignIn(store, seal, clock, self.hasher)
        self.codes = DeviceCodes(store, seal, clock)
        self.apis = apis(store, self.issuer)
        self.connections = Connections(store)
        self.clients = Clients(store, run.clients(self.apis.management))
        self.refresh = refresh or RefreshTokens(store, clock)
        self.access = AccessTokens(self.keys, clock, self.issuer)
        self.tokens = TokenService(
            store, self.keys, clock, self.issuer, self.apis, self.people, self.refresh
        )
        self.provider = Provider(store, clock)
        self.accounts = VaultAccounts(store, seal, clock, self.provider)
        self.connecting = Connecting(store, clock, self.issuer)
