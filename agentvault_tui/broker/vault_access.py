"""Reach Token Vault for an agent: as its client, for its vault user.

Exchanges have connections, places and a deadline of their own: a slow tenant delays
nothing else. The refresh tokens of vault users are sealed in one private file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

from agentvault_tui import sealing
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    NotFoundError,
    SealedError,
    ServiceError,
    SettingsError,
    TenantError,
)
from agentvault_tui.home import Home, file_stamp, locked_folder, put_private
from agentvault_tui.model import Account, AgentId
from agentvault_tui.operator_api.requests import ConnectRequest
from agentvault_tui.trusted_files import read_trusted
from agentvault_tui.vault import (
    Cause,
    ClientSecret,
    MyAccountApi,
    NoToken,
    PendingConnection,
    ProviderToken,
    Secret,
    SigningIn,
    Tenant,
    TokenVault,
)
from agentvault_tui.vault.kept_clients import ClientSecretsFile

log = logging.getLogger("agentvault.vault")

_KIND: Final = "refresh token"
_VERSION: Final = 1


class VaultUsersSeal(sealing.Seal):
    """The seal of the file."""

    WHOSE: ClassVar[str] = "vault"
    LOST: ClassVar[str] = "every vault user has to sign in again"


@dataclass(frozen=True, slots=True)
class VaultUser:
    """The person whose accounts an agent uses, as the tenant identifies them."""

    sub: str
    name: str
    """The tenant's name of the person: untrusted."""
    refresh_token: Secret
    """Good for the client it was issued to alone: the agent's own."""
    client_id: str = ""
    """That client; empty if an earlier version stored none."""


class VaultUsers:
    """One vault user an agent; the seal binds the token to both and to the tenant."""

    def __init__(self, home: Home, issuer: str, *, shared: bool = False) -> None:
        """Store the users of the tenant *issuer* in *home*.

        Their tokens are sealed with the team's key where a store is *shared*.
        """
        self._home = home
        self._issuer = issuer
        self.path: Final = home.vault_users
        self.shared: Final = shared
        self._seen: tuple[int, ...] | None = None
        self._cached: dict[str, Any] = {}

    def of(self, agent_id: AgentId) -> VaultUser | None:
        """Return the agent's vault user; None when there is none that opens."""
        one = self._read().get(agent_id) or {}
        match one:
            case {"sub": str(sub), "name": str(name), "token": str(box)}:
                owner = self._owner(agent_id, sub)
                client_id = str(one.get("client", ""))
            case _:
                return None
        try:
            self._open(owner, box)
        except (SealedError, ValueError):
            log.warning("the refresh token kept for %s does not open", agent_id)
            return None
        token = Secret(lambda: self._open(owner, box))
        return VaultUser(sub, name, token, client_id)

    def sub_of(self, agent_id: AgentId) -> str | None:
        """Return who the agent's vault user is, also where the token does not open."""
        return self.subs()(agent_id)

    def subs(self) -> Callable[[AgentId], str | None]:
        """Read the file once; return the function from agent to vault user."""
        users = self._read()

        def sub_of(agent_id: AgentId) -> str | None:
            match users.get(agent_id):
                case {"sub": str(sub)}:
                    return sub
            return None

        return sub_of

    def keep(self, agent_id: AgentId, user: VaultUser) -> None:
        """Store *user* in place of any other; on disk when this returns."""
        box = self.seal().close(
            _KIND,
            self._owner(agent_id, user.sub),
            _VERSION,
            user.refresh_token.reveal().encode(),
        )
        token = base64.b64encode(box).decode()
        one = {"sub": user.sub, "name": user.name, "token": token}
        if user.client_id:
            one["client"] = user.client_id
        with locked_folder(self.path.parent):
            self._write({**self._read(), agent_id: one})

    def holds(self, agent_id: AgentId, user: VaultUser) -> bool:
        """Check whether the agent's stored token is *user*'s, and no later one."""
        held = self.of(agent_id)
        token = user.refresh_token.reveal()
        return held is not None and held.refresh_token.reveal() == token

    def forget(self, agent_id: AgentId) -> None:
        """Delete the agent's user."""
        with locked_folder(self.path.parent):
            users = {**self._read()}
            if users.pop(agent_id, None) is not None:
                self._write(users)

    def check(self, agent_id: str, text: str) -> None:
        """Refuse a member of the file that the team's other brokers could not use.

        Raises:
            ServiceError: it is none.
            SealedError: the team's key does not open it.
        """
        match json.loads(text):
            case {"sub": str(sub), "token": str(box)}:
                with suppress(ValueError):
                    self._open(self._owner(AgentId(agent_id), sub), box)
                    return
        raise ServiceError("it is no vault user", "have them sign in again")

    def seal(self) -> VaultUsersSeal:
        """Return the seal of the tokens; SealedError: its key is not here."""
        return VaultUsersSeal.of(self._home, shared=self.shared)

    async def seal_anew(self) -> None:
        """Encrypt again, with the team's active key, data of another key of this home.

        A token that none of them opens stays as it is: its user signs in again.
        """
        with locked_folder(self.path.parent):
            self._seal_anew()

    def _seal_anew(self) -> None:
        seal, own = self.seal(), self._home.keys / f"{VaultUsersSeal.WHOSE}.key"
        users, left = {**self._read()}, False
        for agent_id, one in users.items():
            try:
                owner = self._owner(AgentId(agent_id), one["sub"])
                box = base64.b64decode(one["token"], validate=True)
                try:
                    renewed = seal.renewed(_KIND, owner, _VERSION, box)
                except SealedError:
                    if not own.exists():
                        raise
                    before = VaultUsersSeal.of(self._home)
                    token = before.open(_KIND, owner, _VERSION, box)
                    renewed = seal.close(_KIND, owner, _VERSION, token)
            except (SealedError, ValueError, TypeError, LookupError):
                left = True
                log.warning("the refresh token kept for %s does not open", agent_id)
                continue
            if renewed is not None:
                users[agent_id] = {**one, "token": base64.b64encode(renewed).decode()}
        if users != self._read():
            self._write(users)
        if not left:
            own.unlink(missing_ok=True)

    def _open(self, owner: str, box: str) -> str:
        sealed = base64.b64decode(box, validate=True)
        return self.seal().open(_KIND, owner, _VERSION, sealed).decode()

    def _owner(self, agent_id: AgentId, sub: str) -> str:
        return json.dumps([self._issuer, agent_id, sub])

    def _read(self) -> dict[str, Any]:
        """Return the file's content, read again when it changed: called often."""
        seen = file_stamp(self.path)
        if seen is not None and seen == self._seen:
            return self._cached
        try:
            content = read_trusted(self.path, self._home.data)
            value = {} if content is None else json.loads(content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise SettingsError(
                f"{self.path} cannot be read",
                "restore it, or move it away: vault users then sign in again",
            )
        self._seen, self._cached = seen, value
        return value

    def _write(self, value: dict[str, object]) -> None:
        path = self.path
        self._seen = None
        try:
            put_private(path, json.dumps(value, indent=1).encode(), replace=True)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written ({error.strerror})",
                "make room, or look at its folder",
            ) from error


_MOST: Final = 32
"""Under way at once; each waits for a person in front of a browser."""


class Consent(NamedTuple):
    """The vault user is known, and now allows the account at the provider."""

    user: VaultUser
    accounts: MyAccountApi
    connecting: PendingConnection


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection under way, at one of its two pages."""

    id: str
    wanted: ConnectRequest
    is_current: Callable[[], bool]
    """Checks that agent, accounts, panic and approver are as they were at its start."""
    at: SigningIn | PendingConnection
    consent: Consent | None = None
    """The state of the second page."""


class Flows:
    """Flows by id, in memory: a restart ends them, and nothing is lost but time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flows: dict[str, Flow] = {}

    def put(self, flow: Flow) -> Flow:
        """Remember *flow*; ConflictError: too many are under way."""
        for key, open_flow in list(self._flows.items()):
            if open_flow.at.expires.passed(self._clock) or not open_flow.is_current():
                del self._flows[key]
        if len(self._flows) >= _MOST:
            raise ConflictError(
                f"{_MOST} connections are being made already", "wait for one to end"
            )
        self._flows[flow.id] = flow
        return flow

    def take(self, flow_id: str) -> Flow:
        """Return the flow and forget it: each page's answer counts once."""
        flow = self._flows.pop(flow_id, None)
        if flow is None or flow.at.expires.passed(self._clock):
            raise NotFoundError(
                "no connection is being made under that id", "begin again"
            )
        return flow


DEADLINE: Final = 4.0
"""Seconds an exchange may take: Auth0's SDKs hang up on us after five."""
_REST: Final = 2.0
_LONGEST_REST: Final = 60.0
"""Seconds in which a no is repeated and the tenant not asked again about an account:
an agent in a loop would spend the rate limit that approvals need as well."""
_PLACES: Final = 8
"""Exchanges at the tenant at once, as many as it is asked over connections."""


SEALED: Final = (
    "what is sealed does not open here: an operator brings the team's key to this"
    " broker (agentvault team key import)"
)
"""The agents' error then; the exact one names files of this machine."""


class CrowdedError(Exception):
    """Too many requests wait for the same account."""


class VaultAccess:
    """Token Vault of one tenant, for every agent that has a vault user there."""

    def __init__(
        self,
        home: Home,
        issuer: str,
        clock: Clock,
        *,
        local: str | None = None,
        deadline: float = DEADLINE,
        shared: bool = False,
    ) -> None:
        """Connect to the tenant *issuer*, see `Wire`, with *home*'s credentials."""
        self._tenant, self._apart = (
            Tenant(issuer, clock, local=local, timeout=deadline) for _ in range(2)
        )
        self.issuer: Final = self._tenant.issuer
        self.users: Final = VaultUsers(home, self.issuer, shared=shared)
        self.clients: Final = ClientSecretsFile(home, self.issuer, shared=shared)
        self._clock = clock
        self._deadline = deadline
        self._resting: dict[Account, tuple[Deadline, NoToken]] = {}
        self._places = asyncio.Semaphore(_PLACES)
        self._turns: dict[tuple[AgentId, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def credential(self, agent_id: AgentId) -> ClientSecret:
        """Return how the agent's own client authenticates at the tenant."""
        key = f"agents/{agent_id}"
        client_id = self.clients.client_id(key)
        if not client_id:
            raise NotFoundError(
                "the agent has no application at the tenant", "agentvault auth0 apply"
            )
        return ClientSecret(client_id, self.clients.secret(key))

    @asynccontextmanager
    async def turn(self, account: Account) -> AsyncIterator[None]:
        """Let one request at a time ask about an account: the next finds its token."""
        lock = self._turns[account.agent_id, account.connection]
        try:
            async with asyncio.timeout(self._deadline):
                await lock.acquire()
        except TimeoutError:
            raise CrowdedError from None
        try:
            yield
        finally:
            lock.release()

    async def exchange(self, account: Account) -> ProviderToken | NoToken:
        """Have the provider's token of *account*, as its agent's own client."""
        until, refusal = self._resting.get(account, (None, None))
        if until and refusal and not until.passed(self._clock):
            return refusal
        exchanged = await self._exchange_with(account, self._tenant, self._places)
        self._rest(account, exchanged)
        return exchanged

    async def exchange_apart(self, account: Account) -> ProviderToken | NoToken:
        """Have a token that no agent gets: to ask the provider, or to revoke there.

        Over connections of its own: no agent that asks for tokens can delay it.
        """
        return await self._exchange_with(account, self._apart, asyncio.Semaphore())

    def _rest(self, account: Account, exchanged: ProviderToken | NoToken) -> None:
        """Repeat a refusal for a moment, and drop expired ones."""
        self._resting = {
            one: until
            for one, until in self._resting.items()
            if one != account and not until[0].passed(self._clock)
        }
        if isinstance(exchanged, NoToken):
            pause = min(max(exchanged.retry_after or 0.0, _REST), _LONGEST_REST)
            self._resting[account] = Deadline.after(self._clock, pause), exchanged

    async def _exchange_with(
        self, account: Account, tenant: Tenant, places: asyncio.Semaphore
    ) -> ProviderToken | NoToken:
        try:
            async with asyncio.timeout(self._deadline), places:
                return await self._exchange(account, tenant)
        except TimeoutError:
            return _unavailable(f"the tenant took longer than {self._deadline:g} s")
        except TenantError as error:
            return _unavailable(error.what)
        except NotFoundError as error:
            return NoToken(Cause.OTHER, "server_error", error.what, error.remedy)
        except SealedError as error:
            log.warning("no token of %s: %s", account.agent_id, error.diagnosis())
            return NoToken(Cause.SEALED, "sealed", SEALED, "ask again later")
        except AgentVaultError as error:
            # Ours to mend: its words may name files of this machine, and agents read
            # what comes of this.
            log.warning("no token of %s: %s", account.agent_id, error.diagnosis())
            return _unavailable("the broker cannot use what it keeps for this account")

    async def _exchange(
        self, account: Account, tenant: Tenant
    ) -> ProviderToken | NoToken:
        user = self.users.of(account.agent_id)
        current_user = self.users.sub_of(account.agent_id) is not None
        if user is None and current_user and self.users.shared:
            raise SealedError("the team's key here does not open its refresh token")
        whose = (account.issuer, account.user)
        if user is None or whose != (self.issuer, user.sub):
            return NoToken(
                Cause.SUBJECT_REFUSED,
                "invalid_grant",
                "the agent's vault user is not signed in at this tenant",
                "agentvault connections add",
            )
        vault = TokenVault(tenant, self.credential(account.agent_id))
        exchanged = await vault.for_refresh_token(
            user.refresh_token, account.connection
        )
        if isinstance(exchanged, ProviderToken) and not exchanged.expires_in:
            # What ends nobody knows when cannot be said to be over after a revocation.
            return _unavailable("the tenant does not say how long the token lives")
        return exchanged

    async def aclose(self) -> None:
        """Close the connections."""
        await self._tenant.aclose()
        await self._apart.aclose()


def _unavailable(what: str) -> NoToken:
    return NoToken(Cause.UNAVAILABLE, "temporarily_unavailable", what, "ask again")
