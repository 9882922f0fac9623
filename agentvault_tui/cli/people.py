"""Record changes that commands make of the embedded tenant's people and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from agentvault_tui.cli.offline import approver_rows, check_factor, loosened_here
from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import (
    ConflictError,
    LedgerError,
    NotFoundError,
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
    from agentvault_tui.home import Home
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
            for key in gone:
                change_person(session, users, "passkey_removed", person, passkey=key)


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


def change_person(
    session: CliSession,
    users: UserStore,
    change: str,
    person: User | str,
    *,
    roles: Iterable[str] = (),
    passkey: str = "",
) -> Mapping[str, Any]:
    """Change a person, if the caller has the right.

    One that only takes rights away, such as removing a person, needs no factor. A
    running broker judges, records and makes it. With none running it is recorded in the
    ledger and made from here; if a change needs a role the person cannot be verified.

    Args:
        session: the command's session.
        users: the people.
        change: one of `PERSON_CHANGES`.
        person: whom, or the name of a new person.
        roles: those that the person gets.
        passkey: the id of the one to remove.

    Returns:
        what is shown once, as `make_change` returns it.

    Raises:
        AgentVaultError: it was refused, or could not be made.
    """
    name, sub = (person, "") if isinstance(person, str) else (person.name, person.sub)
    held = tuple(roles)
    wanted = requests.PeopleRequest(
        change=change, user=name, sub=sub, roles=held, passkey=passkey
    )
    try:
        return session.client.call(calls.PEOPLE, wanted).made
    except UnreachableError as error:
        make_change(session.home, session.settings, wanted, check=True)
        _record_offline(session, users, wanted, person, error)
    return make_change(session.home, session.settings, wanted)


def make_change(
    home: Home,
    settings: Settings,
    wanted: requests.PeopleRequest,
    *,
    check: bool = False,
) -> dict[str, object]:
    """Make a change of a person that was recorded.

    Args:
        home: the home of the tenant.
        settings: where its store is.
        wanted: the change, one of `PERSON_CHANGES`.
        check: only check that it can be made, before it is recorded.

    Returns:
        what is shown once: ``password``, ``otp_secret`` and ``otpauth_uri``, or the
        ``token`` of a link.

    Raises:
        NotFoundError: there is no such person or passkey.
        ConflictError: the name is taken, or another person's now.
    """
    from agentvault_tui.tenant.users import UserStore

    name = wanted.user
    with UserStore(home, settings) as users:
        person = _person(users, wanted)
        if check:
            return {}
        if person is None:
            added = users.add(name, roles=wanted.roles)
            return {
                "password": added.password,
                "otp_secret": added.otp_secret,
                "otpauth_uri": added.otpauth_uri,
            }
        match wanted.change:
            case "factor":
                secret, uri = users.reset_otp(name)
                return {"otp_secret": secret, "otpauth_uri": uri}
            case "password":
                return {"password": users.reset_password(name)}
            case "passkey":
                return {"token": users.invite_passkey(person)}
            case "passkey_removed":
                users.remove_passkeys([wanted.passkey])
            case "role":
                users.set_roles(name, wanted.roles)
            case "removed":
                users.remove(name)
    return {}


def _person(users: UserStore, wanted: requests.PeopleRequest) -> User | None:
    """Return the person that a change is about; None: it adds one."""
    if wanted.change == "added":
        users.free(wanted.user)
        return None
    person = users.named(wanted.user)
    if person.sub != wanted.sub:
        raise ConflictError("another person has that name now")
    if wanted.change == "passkey_removed" and not users.passkeys(
        id=wanted.passkey, sub=person.sub
    ):
        raise NotFoundError(
            f"{person.name} has no such passkey", "agentvault tenant user list"
        )
    return person


def _record_offline(
    session: CliSession,
    users: UserStore,
    wanted: requests.PeopleRequest,
    person: User | str,
    error: UnreachableError,
) -> None:
    """Record a change of a person where no broker runs."""
    settings, held = session.settings, list(wanted.roles)
    approver = any(one.approver and not one.blocked for one in users.all())
    if settings.operators.by_claim and approver:
        who = "changing people takes an approver"
        raise sign_in_needed(error, who) from None
    draft = user_changed(session.operator, wanted.change, wanted.user, wanted.sub, held)
    before = None if isinstance(person, str) else role_of(person.roles)
    by_list = settings.approves_by_list
    if not gives_rights(wanted.change, held, before, by_list=by_list):
        asyncio.run(_commit(session, draft, *approver_rows(session)))
        return
    check_factor(session, error, "changing people")
    summary = f"change a person of the tenant: {wanted.change} {draft.resource}"
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
