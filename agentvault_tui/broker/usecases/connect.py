"""A person connects an account for an agent: signs in, allows it, and it is recorded.

Two pages of the tenant's, each ending at a loopback address of the operator's: the
first says who the agent's vault user is, the second allows the account. The agent's
own client asks both times, so that what it is given is good for that agent alone.
"""

from __future__ import annotations

import asyncio
import difflib
import hmac
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from agentvault_tui.broker.connecting import Consent, Flow, Wanted
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.account_events import account_draft
from agentvault_tui.broker.usecases.rivals import (
    alone,
    delete_unused,
    latest,
    unless_rivals,
)
from agentvault_tui.broker.vault_users import VaultUser
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
from agentvault_tui.model import Account, Actor, Agent, EventType, new_id
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

_PATIENCE: Final = 30.0
"""Seconds an operator waits for the tenant; their client waits a little longer."""
_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?/callback", re.ASCII
)
_MOST_SCOPES: Final = 100
_LONGEST_SCOPE: Final = 500


async def begin(broker: Broker, wanted: Wanted) -> Flow:
    """Begin, or begin at the second page when the vault user is known already.

    Raises:
        NotFoundError: no such agent, or it has no client at the tenant.
        UsageError: nobody said what the connection stands for, or what was sent makes
            no sense.
        ConflictError: the agent is not served, or too many are under way.
        TenantError: the tenant refuses, or does not answer.
    """
    agent = _checked(broker, wanted)
    async with _patience():
        if broker.access.given is not None:
            # What makes clients is loaded when one is made, not at every start.
            from agentvault_tui.broker.upstream.own_client import (  # noqa: PLC0415
                make_own_client,
            )

            await make_own_client(
                broker.tenant.tenant,
                broker.access.given,
                broker.vault.clients,
                agent,
                wanted.connection,
            )
        user = broker.vault.users.of(agent.id)
        if user is not None:
            try:
                return await _to_consent(broker, wanted, user)
            except TenantRefusedError as error:
                if error.error != "invalid_grant":
                    raise
                broker.vault.users.forget(agent.id)
        credential = broker.vault.credential(agent.id)
        page = await begin_sign_in(
            broker.tenant.tenant, credential.client_id, wanted.redirect_uri
        )
        return broker.flows_to_accounts.put(Flow(new_id("cfl"), wanted, page))


async def proceed(
    broker: Broker, flow_id: str, address: str, operator: Actor
) -> Flow | Account:
    """Take the address at which the browser ended; return what comes next.

    Args:
        broker: the broker.
        flow_id: of the flow `begin` returned.
        address: whole, or its query alone.
        operator: who is recorded to have connected the account.

    Raises:
        NotFoundError: no such flow, or its time is up.
        UsageError: the address is not where this flow's page ended; try again.
        RefusedError: the person, or the tenant, said no.
        ConflictError: someone else than the agent's vault user signed in, or the
            agent was cut off meanwhile.
        TenantError: the tenant refuses, or does not answer.
    """
    flow = broker.flows_to_accounts.take(flow_id)
    answer = _answer(address)
    # RFC 6749 section 10.12: what a browser brings must be from our own request.
    # Anyone can call a loopback address, so what is not ours ends nothing.
    state = answer.get("state", "")
    if not hmac.compare_digest(state.encode(), flow.at.state.encode()):
        broker.flows_to_accounts.put(flow)
        raise UsageError(
            "that is not the address at which this page ended",
            "paste the whole address from the browser",
        )
    if answer.get("iss", broker.tenant.issuer) != broker.tenant.issuer:
        # RFC 9207 section 2.4: an answer of another tenant's is no answer to us.
        raise RefusedError("another tenant than ours answered there", "begin again")
    if error := answer.get("error"):
        said = visible(answer.get("error_description", ""), 200)
        raise RefusedError(f"refused there: {visible(error, 60)} {said}".strip())
    _checked(broker, flow.wanted)
    async with _patience():
        if isinstance(flow.at, SigningIn):
            user = await _signed_in(broker, flow, flow.at, answer)
            return await _to_consent(broker, flow.wanted, user)
        return await _connected(broker, flow.wanted, flow.at, answer, operator)


def my_account(
    broker: Broker, account: Agent | Account, user: VaultUser
) -> MyAccountApi:
    """Return the My Account API of an agent's vault user.

    Raises:
        NotFoundError: the agent has no client at the tenant.
    """
    tenant = broker.tenant.tenant
    agent_id = account.id if isinstance(account, Agent) else account.agent_id

    def rotated(token: Secret) -> None:
        broker.vault.users.keep(agent_id, replace(user, refresh_token=token))

    tokens = RefreshedToken(
        tenant,
        broker.vault.credential(agent_id),
        user.refresh_token,
        audience=audience(tenant),
        scope=" ".join(SCOPES),
        rotated=rotated,
    )
    return MyAccountApi(tenant, tokens)


def _checked(broker: Broker, wanted: Wanted) -> Agent:
    """Refuse what cannot lead anywhere, before anybody is sent to a browser."""
    agent = broker.registry.agent(wanted.agent_id)
    known = broker.settings.connections
    if wanted.connection not in known:
        near = difflib.get_close_matches(wanted.connection, known, n=1)
        hint = f"did you mean {near[0]}; or put" if near else "put"
        raise UsageError(
            f"nobody said what the connection {visible(wanted.connection, 60)} stands "
            "for",
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
    """Spend the code; keep whose refresh token came of it."""
    agent_id, tenant = flow.wanted.agent_id, broker.tenant.tenant
    credential = broker.vault.credential(agent_id)
    code, state = answer.get("code", ""), answer["state"]
    found = await finish_sign_in(tenant, credential, begun, code=code, state=state)
    sub, name = await broker.tenant.verify_login(
        found.id_token, client_id=credential.client_id, nonce=begun.nonce
    )
    others = {
        account.user: account.user_name
        for account in broker.registry.accounts.of(agent_id)
        if account.issuer == broker.vault.issuer
    }
    stranger = bool(others) and sub not in others
    cut = not broker.registry.serves(agent_id)
    if stranger or cut:
        try:
            await revoke_token(tenant, credential, found.refresh_token)
        except TenantError as error:
            log.warning("a refresh token nobody uses stays: %s", error.what)
    if cut:
        raise ConflictError("the agent was cut off meanwhile", "restore it first")
    if stranger:
        known = visible(next(iter(others.values())), 60)
        raise ConflictError(
            f"{visible(name, 60)} signed in, and the agent uses {known}'s accounts",
            f"sign in as {known}, or remove the agent's connections first",
        )
    user = VaultUser(sub, visible(name, 120), found.refresh_token, credential.client_id)
    broker.vault.users.keep(agent_id, user)
    return user


async def _to_consent(broker: Broker, wanted: Wanted, user: VaultUser) -> Flow:
    """Have the page at which the vault user allows the account."""
    agent = broker.registry.agent(wanted.agent_id)
    accounts = my_account(broker, agent, user)
    connecting = await accounts.connect(
        wanted.connection, wanted.redirect_uri, wanted.scopes
    )
    consent = Consent(user, accounts, connecting)
    return broker.flows_to_accounts.put(Flow(new_id("cfl"), wanted, consent))


async def _connected(
    broker: Broker,
    wanted: Wanted,
    consent: Consent,
    answer: dict[str, str],
    operator: Actor,
) -> Account:
    """Complete, record, and only then let the agent use it."""
    registry, agent_id = broker.registry, wanted.agent_id
    epoch = registry.epoch(agent_id)
    if broker.vault.users.sub_of(agent_id) != consent.user.sub:
        # Their refresh token went with the last account: none of theirs could be used
        # any more, nor taken away.
        name = visible(consent.user.name, 60)
        raise ConflictError(f"{name} was signed out meanwhile", "begin again")
    account = Account(
        agent_id=agent_id,
        connection=wanted.connection,
        id="",
        issuer=broker.vault.issuer,
        user=consent.user.sub,
        user_name=consent.user.name,
        scopes=(),
        since=broker.clock.now(),
    )
    async with alone(broker, account):
        found = await _completed(consent, wanted, answer)
        account = replace(account, id=found.id, scopes=found.scopes)
        account = replace(account, provider_user=await _owner(broker, account))
        account = latest(broker, account)
        await unless_rivals(broker, consent, account, operator)
        await broker.record(
            account_draft(EventType.CONNECTION_ADDED, account, operator),
            changes=[account],
        )
        before = registry.accounts.get(agent_id, wanted.connection)
        if registry.epoch(agent_id) != epoch:
            await _taken_back(broker, consent, account, before, operator)
        registry.accounts.put(account)
        # What is on its way was decided about another account, if about any.
        registry.void_decisions(agent_id)
    if before is not None and before.user == account.user and before.id != account.id:
        await delete_unused(broker, consent, before, operator)
    return account


async def _taken_back(
    broker: Broker,
    consent: Consent,
    account: Account,
    before: Account | None,
    operator: Actor,
) -> NoReturn:
    """Let a cut that came meanwhile win.

    Raises:
        ConflictError: always.
    """
    # As memory has it now: who cut the agent may have closed what was before.
    back = before or DropAccount(account.agent_id, account.connection)
    draft = account_draft(
        EventType.CONNECTION_REMOVED, account, operator, at_tenant="pending"
    )
    await broker.record_cut(draft, changes=[back])
    if before is None or before.id != account.id:
        await delete_unused(broker, consent, account, operator)
    raise ConflictError(
        "the agent was cut off meanwhile", "look at it before connecting again"
    )


async def _completed(
    consent: Consent, wanted: Wanted, answer: dict[str, str]
) -> ConnectedAccount:
    """Spend the code; an account that is connected already is as good as a new one."""
    code, state = answer.get("connect_code", ""), answer["state"]
    try:
        return await consent.accounts.complete(
            consent.connecting, code=code, state=state
        )
    except TenantConflictError:
        async for known in consent.accounts.accounts(connection=wanted.connection):
            return known
        raise


async def _owner(broker: Broker, account: Account) -> str:
    """Ask the provider whose the account is; an account nobody tells of is as good.

    Known, it keeps a revocation from cutting off another agent that uses the same
    person's account under another vault user.
    """
    try:
        return await broker.providers.whose(account)
    except AgentVaultError as error:
        log.warning("whose account it is at the provider is unknown: %s", error.what)
        return ""


def _answer(address: str) -> dict[str, str]:
    """Read what a page sent back; a name that stands twice is nobody's answer."""
    text = address.strip().partition("#")[0]
    query = text.rpartition("?")[2]
    try:
        pairs = parse_qsl(query, max_num_fields=32, strict_parsing=True)
    except ValueError:
        return {}
    answer = dict(pairs)
    return answer if len(answer) == len(pairs) else {}


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Wait for the tenant no longer than an operator does.

    Raises:
        TenantUnreachableError: it takes longer.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            yield
    except TimeoutError:
        raise TenantUnreachableError(
            f"the tenant took longer than {_PATIENCE:.0f} s", "begin again"
        ) from None
