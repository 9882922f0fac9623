"""Record changes that commands make of the embedded tenant's people and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agentvault_tui.cli.offline import approver_rows, check_factor, loosened_here
from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import (
    LedgerError,
    SealedError,
    SettingsError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.model import Draft
from agentvault_tui.model.event import (
    LOOSENED,
    gives_rights,
    keys_changed,
    user_changed,
)
from agentvault_tui.model.role import role_of
from agentvault_tui.operator_api import calls, requests

if TYPE_CHECKING:
    from agentvault_tui.ledger import Change
    from agentvault_tui.settings import Settings
    from agentvault_tui.tenant.users import User, UserStore


def check_passkeys(session: CliSession, settings: Settings, *, forget: bool) -> None:
    """Refuse to serve at another host than the passkeys are for, unless *forget*.

    Raises:
        SettingsError: there are such passkeys, which would not work any more (WebAuthn
            section 5.1.2 binds each to the RP id).
    """
    from agentvault_tui.tenant.file_store import is_kept
    from agentvault_tui.tenant.users import UserStore
    from agentvault_tui.web.public import LOCALHOST, PublicAddress

    public = PublicAddress.of(session.home, settings.tenant)
    if public is None or not is_kept(session.home, settings):
        return
    with ExitStack() as opened:
        try:
            users = opened.enter_context(UserStore(session.home, settings))
            held = users.passkeys()
        except (LedgerError, SealedError):
            return  # nobody can sign in until the team's store, or its key, is there
        lost = [one for one in held if one["host"] not in {public.host, LOCALHOST}]
        if lost and not forget:
            raise SettingsError(
                f"passkeys ({len(lost)}) are for {lost[0]['host']}, and "
                f"tenant.url names {public.host}",
                "agentvault serve --forget-passkeys, then add new ones",
            )
        for person in users.all():
            gone = [str(one["id"]) for one in lost if one["sub"] == person.sub]
            if gone:
                record_change(session, users, "passkey_removed", person)
                users.remove_passkeys(gone)


def only_embedded(session: CliSession, what: str) -> None:
    """Refuse *what* at another tenant than the embedded one."""
    if session.settings.tenant.issuer:
        raise UsageError(
            f"{what} are kept by the tenant {session.settings.tenant.issuer}",
            "manage them there; these commands are for the embedded tenant",
        )


def open_users(session: CliSession) -> UserStore:
    """Open the embedded tenant's people."""
    from agentvault_tui.tenant.users import UserStore

    only_embedded(session, "people")
    return UserStore(session.home, session.settings)


def record_change(
    session: CliSession,
    users: UserStore,
    change: str,
    person: User | str,
    roles: Iterable[str] = (),
) -> None:
    """Record a change of people before it is made, if the person has the right.

    One that only takes rights away, such as removing a person, needs no factor. A
    running broker judges and records it. With none running it goes into the ledger
    from here, and if a change needs a role the person cannot be verified.
    """
    name, sub = (person, "") if isinstance(person, str) else (person.name, person.sub)
    held = list(roles)
    try:
        changed = requests.PeopleRequest(
            change=change, user=name, sub=sub, roles=tuple(held)
        )
        session.client.call(calls.PEOPLE, changed)
    except UnreachableError as error:
        settings = session.settings
        approver = any(one.approver and not one.blocked for one in users.all())
        if settings.operators.by_claim and approver:
            who = "changing people takes an approver"
            raise sign_in_needed(error, who) from None
        draft = user_changed(session.operator, change, name, sub, held)
        before = None if isinstance(person, str) else role_of(person.roles)
        if not gives_rights(change, held, before, by_list=settings.approves_by_list):
            asyncio.run(_commit(session, draft, *approver_rows(session)))
            return
        check_factor(session, error, "changing people")
        summary = f"change a person of the tenant: {change} {draft.resource}"
        draft.detail[LOOSENED] = loosened_here(session, "people", summary)
        asyncio.run(_commit(session, draft))


def record_keys(session: CliSession, *, revoke: bool) -> None:
    """Record that the tenant's signing keys are replaced, before they are."""
    try:
        session.client.call(
            calls.TENANT_KEYS, requests.TenantKeysRequest(revoke=revoke)
        )
    except UnreachableError:
        asyncio.run(_commit(session, keys_changed(session.operator, revoked=revoke)))


async def _commit(session: CliSession, draft: Draft, *changes: Change) -> None:
    """Write an event into the ledger of a home without a broker."""
    async with session.ledger() as ledger:
        await ledger.commit(draft, changes=changes)
