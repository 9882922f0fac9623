"""Connect an account for an agent: a person signs in, allows it, and it is recorded.

Two pages of the tenant's, each ending at a loopback address of the operator's: the
first says who the agent's vault user is, the second allows the account. The agent's
own client asks both times.

Of several accounts of one vault user Token Vault gives a token of the one connected
last, whichever agent asks: so agents that share a vault user share an account as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.vault_access import Consent, CrowdedError, Flow, VaultUser
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    RefusedError,
    TenantConflictError,
    TenantError,
    TenantRefusedError,
    TenantUnreachableError,
    UsageError,
)
from agentvault_tui.ledger import DropAccount
from agentvault_tui.model import (
    Account,
    Actor,
    Agent,
    AgentId,
    Draft,
    EventType,
    new_id,
)
from agentvault_tui.operator_api.requests import ConnectRequest
from agentvault_tui.text import visible
from agentvault_tui.vault import (
    ConnectedAccount,
    MyAccountApi,
    RefreshedToken,
    Secret,
    SigningIn,
    begin_sign_in,
    finish_sign_in,
    revoke_token,
)
from agentvault_tui.vault.my_account import SCOPES, audience

log = logging.getLogger("agentvault.connect")

_TENANT_TIMEOUT: Final = 30.0
"""Seconds an operator waits for the tenant; their client waits a little longer."""
_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?/callback", re.ASCII
)
_MOST_SCOPES: Final = 100
_LONGEST_SCOPE: Final = 500


async def begin(broker: Broker, wanted: ConnectRequest) -> Flow:
    """Begin, or begin at the second page when the vault user is known already.

    Args:
        broker: the broker.
        wanted: agent, connection, scopes and loopback address.

    Returns:
        the flow, at its next page.

    Raises:
        NotFoundError: no such agent, or it has no client at the tenant.
        UsageError: the connection is not in the settings, or a value is malformed.
        ConflictError: the agent is not served, or too many are under way.
        TenantError: the tenant refuses, or does not answer.
    """
    reaching = broker.reaching
    agent = _checked(broker, wanted)
    people, rider = reaching.people, riding()
    approvers = [one["sub"] for one in rider.detail["by"]] if rider else []
    before = people.state_of(approvers)
    grant = broker.registry.unless_revoked(agent.id)

    def is_current() -> bool:
        return not grant.revoked and people.state_of(approvers) == before

    # Before a person signs in for a token that it cannot seal.
    reaching.vault.users.seal()
    async with _time_limit():
        if reaching.access.given is not None:
            # What makes clients is loaded when one is made, not at every start.
            from agentvault_tui.broker.upstream.own_client import (  # noqa: PLC0415
                make_own_client,
            )

            await make_own_client(
                reaching.tenant,
                reaching.access.given,
                reaching.vault.clients,
                agent,
                wanted.connection,
            )
        user = reaching.vault.users.of(agent.id)
        if user is not None:
            try:
                return await _to_consent(broker, wanted, is_current, user)
            except TenantRefusedError as error:
                if error.error != "invalid_grant":
                    raise
                reaching.vault.users.forget(agent.id)
        credential = reaching.vault.credential(agent.id)
        page = await begin_sign_in(
            reaching.tenant, credential.client_id, wanted.redirect_uri
        )
        return reaching.flows.put(Flow(new_id("cfl"), wanted, is_current, page))


async def proceed(
    broker: Broker, flow_id: str, address: str, operator: Actor
) -> Flow | Account:
    """Take the address at which the browser ended (RFC 6749 section 10.12).

    Args:
        broker: the broker.
        flow_id: of the flow `begin` returned.
        address: whole, or its query alone.
        operator: who is recorded to have connected the account.

    Returns:
        the flow at its next page, or the connected account.

    Raises:
        NotFoundError: no such flow, or its time is up.
        UsageError: the address is not where this flow's page ended; try again.
        RefusedError: the person, or the tenant, said no.
        ConflictError: someone else than the agent's vault user signed in, or the
            agent, its accounts or an approver of the flow have changed meanwhile.
        TenantError: the tenant refuses, or does not answer.
    """
    reaching = broker.reaching
    flow = reaching.flows.take(flow_id)
    answer = _answer(address)
    # RFC 6749 section 10.12: what a browser brings must be from our own request.
    # Anyone can call a loopback address, so what is not ours ends nothing.
    state = answer.get("state", "")
    if not hmac.compare_digest(state.encode(), flow.at.state.encode()):
        reaching.flows.put(flow)
        raise UsageError(
            "that is not the address at which this page ended",
            "paste the whole address from the browser",
        )
    if answer.get("iss", reaching.tenant.issuer) != reaching.tenant.issuer:
        # RFC 9207 section 2.4: an answer of another tenant's is no answer to us.
        raise RefusedError("another tenant than ours answered there", "begin again")
    if error := answer.get("error"):
        description = visible(answer.get("error_description", ""), 200)
        raise RefusedError(f"refused there: {visible(error, 60)} {description}".strip())
    _checked(broker, flow.wanted)
    if not flow.is_current():
        raise ConflictError(
            "the agent, its accounts or who approved this have changed meanwhile",
            "begin again",
        )
    async with _time_limit():
        if isinstance(flow.at, SigningIn):
            user = await _signed_in(broker, flow, flow.at, answer)
            return await _to_consent(broker, flow.wanted, flow.is_current, user)
        assert flow.consent is not None  # noqa: S101 - it is at the second page
        return await _connected(broker, flow, flow.consent, answer, operator)


def my_account(
    broker: Broker, account: Agent | Account, user: VaultUser
) -> MyAccountApi:
    """Return the My Account API of an agent's vault user."""
    reaching = broker.reaching
    tenant = reaching.tenant
    agent_id = account.id if isinstance(account, Agent) else account.agent_id

    def rotated(token: Secret) -> None:
        reaching.vault.users.keep(agent_id, replace(user, refresh_token=token))

    tokens = RefreshedToken(
        tenant,
        reaching.vault.credential(agent_id),
        user.refresh_token,
        audience=audience(tenant),
        scope=" ".join(SCOPES),
        rotated=rotated,
    )
    return MyAccountApi(tenant, tokens)


def _checked(broker: Broker, wanted: ConnectRequest) -> Agent:
    """Refuse impossible connections, before a person is sent to a browser."""
    agent = broker.registry.agent(wanted.agent_id)
    connections = broker.settings.connections
    if wanted.connection not in connections:
        near = difflib.get_close_matches(wanted.connection, connections, n=1)
        hint = f"did you mean {near[0]}; or put" if near else "put"
        raise UsageError(
            f"the connection {visible(wanted.connection, 60)} is not in the settings",
            f"{hint} [connections.NAME] with its scopes into config.toml, which is "
            "read when the broker starts: then restart it",
        )
    if not broker.registry.serves(agent.id):
        raise ConflictError("the agent is not served", "restore it first")
    if not _REDIRECT.fullmatch(wanted.redirect_uri):
        # RFC 8252 section 7.3: a code is sent to this machine and nowhere else.
        raise UsageError(
            "'redirect_uri' is not a loopback address",
            "for example http://127.0.0.1:7719/callback",
        )
    if len(wanted.scopes) > _MOST_SCOPES or any(
        not 0 < len(scope) <= _LONGEST_SCOPE for scope in wanted.scopes
    ):
        raise UsageError(f"a provider is asked for at most {_MOST_SCOPES} scopes")
    return agent


async def _signed_in(
    broker: Broker, flow: Flow, begun: SigningIn, answer: dict[str, str]
) -> VaultUser:
    """Spend the code; store the refresh token of the person who signed in."""
    reaching = broker.reaching
    agent_id, tenant = AgentId(flow.wanted.agent_id), reaching.tenant
    credential = reaching.vault.credential(agent_id)
    code, state = answer.get("code", ""), answer["state"]
    signed_in = await finish_sign_in(tenant, credential, begun, code=code, state=state)
    sub, name = await reaching.tenant.verify_login(
        signed_in.id_token, client_id=credential.client_id, nonce=begun.nonce
    )
    others = {
        account.user: account.user_name
        for account in broker.registry.accounts.of(agent_id)
        if account.issuer == reaching.vault.issuer
    }
    stranger = bool(others) and sub not in others
    unserved = not (broker.registry.serves(agent_id) and flow.is_current())
    if stranger or unserved:
        try:
            await revoke_token(tenant, credential, signed_in.refresh_token)
        except TenantError as error:
            log.warning("a refresh token nobody uses stays: %s", error.what)
    if unserved:
        raise ConflictError("the agent was cut off meanwhile", "restore it first")
    if stranger:
        connected = visible(next(iter(others.values())), 60)
        raise ConflictError(
            f"{visible(name, 60)} signed in, and the agent uses {connected}'s accounts",
            f"sign in as {connected}, or remove the agent's connections first",
        )
    user = VaultUser(
        sub, visible(name, 120), signed_in.refresh_token, credential.client_id
    )
    reaching.vault.users.keep(agent_id, user)
    return user


async def _to_consent(
    broker: Broker,
    wanted: ConnectRequest,
    is_current: Callable[[], bool],
    user: VaultUser,
) -> Flow:
    agent = broker.registry.agent(wanted.agent_id)
    accounts = my_account(broker, agent, user)
    connecting = await accounts.connect(
        wanted.connection, wanted.redirect_uri, wanted.scopes
    )
    consent = Consent(user, accounts, connecting)
    flow = Flow(new_id("cfl"), wanted, is_current, connecting, consent)
    return broker.reaching.flows.put(flow)


async def _connected(
    broker: Broker,
    flow: Flow,
    consent: Consent,
    answer: dict[str, str],
    operator: Actor,
) -> Account:
    """Complete, record, and only then let the agent use it."""
    registry, wanted = broker.registry, flow.wanted
    agent_id = AgentId(wanted.agent_id)
    if broker.reaching.vault.users.sub_of(agent_id) != consent.user.sub:
        # Their refresh token went with the last account: none of theirs could be used
        # any more, nor taken away.
        name = visible(consent.user.name, 60)
        raise ConflictError(f"{name} was signed out meanwhile", "begin again")
    account = Account(
        agent_id=agent_id,
        connection=wanted.connection,
        id="",
        issuer=broker.reaching.vault.issuer,
        user=consent.user.sub,
        user_name=consent.user.name,
        scopes=(),
        since=broker.clock.now(),
    )
    async with _without_others(broker, account):
        completed = await _completed(consent, wanted, answer)
        account = replace(account, id=completed.id, scopes=completed.scopes)
        account = replace(account, provider_user=await _owner(broker, account))
        rivals = registry.accounts.rivals(account)
        after = [one.since + timedelta(microseconds=1) for one in rivals]
        # The one connected last, also by a clock that was set back.
        account = replace(account, since=max([broker.clock.now(), *after]))
        await _refuse_rivals(broker, consent, account, operator)
        await broker.record(
            account_draft(EventType.CONNECTION_ADDED, account, operator),
            changes=[account],
        )
        before = registry.accounts.get(agent_id, wanted.connection)
        if not flow.is_current():
            await _taken_back(broker, consent, account, before, operator)
        registry.accounts.put(account)
        # What is on its way was decided about another account, if about any.
        registry.void_decisions(agent_id)
    if before is not None and before.user == account.user and before.id != account.id:
        await _delete_unused(broker, consent, before, operator)
    return account


async def _taken_back(
    broker: Broker,
    consent: Consent,
    account: Account,
    before: Account | None,
    operator: Actor,
) -> NoReturn:
    """Let a cut that came meanwhile win: always raises ConflictError."""
    # As memory has it now: who cut the agent may have closed what was before.
    back = before or DropAccount(account.agent_id, account.connection)
    draft = account_draft(
        EventType.CONNECTION_REMOVED, account, operator, at_tenant="pending"
    )
    await broker.record_cut(draft, changes=[back])
    if before is None or before.id != account.id:
        await _delete_unused(broker, consent, account, operator)
    raise ConflictError(
        "the agent was cut off meanwhile", "look at it before connecting again"
    )


async def _completed(
    consent: Consent, wanted: ConnectRequest, answer: dict[str, str]
) -> ConnectedAccount:
    """Spend the code; an account that is connected already is as good as a new one."""
    code, state = answer.get("connect_code", ""), answer["state"]
    try:
        return await consent.accounts.complete(
            consent.connecting, code=code, state=state
        )
    except TenantConflictError:
        async for existing in consent.accounts.accounts(connection=wanted.connection):
            return existing
        raise


async def _owner(broker: Broker, account: Account) -> str:
    """Ask the provider for the account's owner; empty if it does not answer.

    Known, it keeps a revocation from cutting off another agent that uses the same
    person's account under another vault user.
    """
    try:
        return await broker.reaching.providers.whose(account)
    except AgentVaultError as error:
        log.warning("whose account it is at the provider is unknown: %s", error.what)
        return ""


def _answer(address: str) -> dict[str, str]:
    """Parse a page's answer; empty if a name appears twice."""
    text = address.strip().partition("#")[0]
    query = text.rpartition("?")[2]
    try:
        pairs = parse_qsl(query, max_num_fields=32, strict_parsing=True)
    except ValueError:
        return {}
    answer = dict(pairs)
    return answer if len(answer) == len(pairs) else {}


@asynccontextmanager
async def _time_limit() -> AsyncIterator[None]:
    """Wait for the tenant no longer than an operator does."""
    try:
        async with asyncio.timeout(_TENANT_TIMEOUT):
            yield
    except TimeoutError:
        raise TenantUnreachableError(
            f"the tenant took longer than {_TENANT_TIMEOUT:.0f} s", "begin again"
        ) from None


def account_draft(
    kind: EventType, account: Account, actor: Actor, **detail: str
) -> Draft:
    """Return the event about a connected account."""
    return Draft(
        kind,
        actor,
        agent_id=account.agent_id,
        action=None,
        resource=f"connection:{account.connection}",
        detail={
            "connection": account.connection,
            "account": account.id,
            "user": account.user,
            "provider_scopes": list(account.scopes),
            "provider_user": account.provider_user or None,
            **detail,
        },
    )


@asynccontextmanager
async def _without_others(broker: Broker, account: Account) -> AsyncIterator[None]:
    """Let no other agent have a token of *account*'s vault user there in a block."""
    used = _of_others(broker, account)
    async with AsyncExitStack() as stack:
        # In one order, so that two of these do not wait for each other.
        for one in sorted(used, key=lambda one: one.agent_id):
            try:
                await stack.enter_async_context(broker.reaching.vault.turn(one))
            except CrowdedError:
                raise ConflictError(
                    "tokens of this account are being asked for", "begin again"
                ) from None
        yield


async def _refuse_rivals(
    broker: Broker, consent: Consent, account: Account, operator: Actor
) -> None:
    """Take the account back where other agents use another of its vault user's.

    Token Vault would give them tokens of this one from here on.
    """
    registry = broker.registry
    others = _of_others(broker, account)
    if not others:
        return
    closed = replace(account, removing=True)
    try:
        there = consent.accounts.accounts(connection=account.connection)
        ids = {there_already.id async for there_already in there}
        others = [one for one in others if one.id in ids]
        if not others:
            return  # theirs are gone from the vault: they are to connect it anew
        await consent.accounts.disconnect(account.id)
    except TenantError:
        # Known and closed, it keeps the others from its tokens until it is deleted.
        registry.accounts.put(closed)
        for one in (closed, *others):
            registry.void_decisions(one.agent_id)
        draft = account_draft(
            EventType.CONNECTION_REMOVED, closed, operator, at_tenant="pending"
        )
        await broker.record_cut(draft, changes=[closed])
        raise
    names = ", ".join(visible(registry.agent(one.agent_id).name, 60) for one in others)
    raise ConflictError(
        f"{names} would use this account too, in the place of their own: all have one "
        "vault user",
        "sign in as another vault user, or allow the same account",
    )


async def _delete_unused(
    broker: Broker, consent: Consent, account: Account, operator: Actor
) -> None:
    """Delete unused accounts at the tenant: no revocation would find them."""
    if broker.registry.accounts.sharing(account):
        return
    at_tenant = "left"
    with contextlib.suppress(TenantError):
        was_there = await consent.accounts.disconnect(account.id)
        at_tenant = "deleted" if was_there else "gone"
    kind = EventType.CONNECTION_REMOVED
    await broker.record_cut(account_draft(kind, account, operator, at_tenant=at_tenant))


def _of_others(broker: Broker, account: Account) -> list[Account]:
    rivals = broker.registry.accounts.rivals(account)
    return [one for one in rivals if one.agent_id != account.agent_id]
