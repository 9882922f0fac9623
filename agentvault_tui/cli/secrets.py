"""``agentvault secrets``: the credentials the gateway attaches, sealed at rest."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.offline import check_factor, loosened_here
from agentvault_tui.cli.output import short_time
from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import UnreachableError, UsageError
from agentvault_tui.model import Actor, Draft
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.gateway import (
    MissingSecretInfo,
    SecretInfo,
    SecretList,
    SecretUserInfo,
)
from agentvault_tui.operator_api.requests import SecretNameRequest, SecretRequest
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from agentvault_tui.broker.secret_uses import SecretUse
    from agentvault_tui.gateway.secret_staging import SecretChange
    from agentvault_tui.gateway.secrets import Secrets
    from agentvault_tui.ledger import Meta

_MOST = 16_384


@group("secrets", example="agentvault secrets set stripe-live")
def secrets() -> None:
    """Store API keys and other secrets, encrypted; no command prints a value."""


@secrets.command("set", example="agentvault secrets set stripe-live < key.txt")
@click.argument("name")
@click.option(
    "--for",
    "listed",
    metavar="ORIGIN",
    multiple=True,
    help="An origin that it may be sent to, such as https://HOST; repeat it; or none."
    " Default: the origins in the files that name it.",
)
@pass_session
def set_secret(session: CliSession, name: str, listed: tuple[str, ...]) -> None:
    """Store a secret: the value is read from standard input, or asked for.

    A running broker encrypts and records it, and uses it from the next call on; if none
    runs, this command does. The secret is sent only to the origins that are listed for
    it, which are encrypted with it: to change them, enter the value again.
    """
    from agentvault_tui.origins import NOWHERE, read_origins

    origins = read_origins(listed) if listed else None
    users = () if listed else _users(session, name)
    value = _value()
    if origins is None:
        origins = _origins_of(name, value, users)

    def ask() -> SecretList:
        given = SecretRequest(name=name, value=value, for_=origins or (NOWHERE,))
        return session.client.call(calls.SET_SECRET, given)

    _change(
        session,
        ask,
        lambda store, who: store.set(name, value, who, origins),
        "set",
        secret=name,
        **{"for": origins or (NOWHERE,)},
    )


def _users(session: CliSession, name: str) -> tuple[SecretUserInfo, ...]:
    """Return who names a secret, and show where that sends it before it is typed.

    Raises:
        UsageError: nothing names it.
    """
    listing = _list(session)
    infos: list[SecretInfo | MissingSecretInfo] = [*listing.secrets, *listing.missing]
    users = {one.name: one.users for one in infos}.get(name, ())
    if not users:
        raise UsageError(
            f"no service and no destination names the secret {visible(name, 80)}",
            "say where it may be sent: --for https://HOST, or --for none",
        )
    for one in users:
        where = "the URL that it is" if one.is_url else ", ".join(one.origins)
        session.out.note(f"{name} is for {where} ({one.kind} {one.name})")
    return users


def _origins_of(
    name: str, value: str, users: tuple[SecretUserInfo, ...]
) -> tuple[str, ...]:
    from agentvault_tui.errors import NotForOriginError
    from agentvault_tui.origins import read_origins

    origins = {origin for one in users for origin in one.origins}
    if any(one.is_url for one in users):
        from agentvault_tui.gateway.secret_rows import url_origin

        try:
            origins.add(str(url_origin(name, value)))
        except NotForOriginError as error:
            raise UsageError(error.what, "give the URL that is posted to") from None
    return read_origins(origins)


def _value() -> str:
    """Read the value: one line, whose end is not part of it."""
    if sys.stdin.isatty():
        return str(
            click.prompt(
                "Value", hide_input=True, confirmation_prompt="Once more", err=True
            )
        )
    raw = sys.stdin.buffer.read(_MOST)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UsageError("the value is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


@secrets.command("list", example="agentvault secrets list")
@pass_session
def list_secrets(session: CliSession) -> None:
    """List names, origins, dates and users of secrets; never a value."""
    listing = _list(session)
    out = session.out
    if out.print_json(listing):
        return
    if not listing.secrets:
        out.line("no secrets: agentvault secrets set NAME")
        return
    rows = [
        [
            out.cell(one.name, "strong"),
            out.cell(", ".join(one.for_), limit=300),
            short_time(one.created_at),
            short_time(one.changed_at),
            out.cell(one.changed_by),
            out.cell(", ".join(map(_shown, one.users)), limit=300),
        ]
        for one in listing.secrets
    ]
    headers = ("NAME", "FOR", "CREATED", "CHANGED", "BY", "USED BY")
    out.table(headers, rows, keep=("FOR", "USED BY"))


def _shown(user: SecretUserInfo) -> str:
    return f"{user.kind} {user.name}" + (" (refused)" if user.refused else "")


@secrets.command("remove", example="agentvault secrets remove stripe-live")
@click.argument("name")
@pass_session
def remove(session: CliSession, name: str) -> None:
    """Delete a secret; calls to services that use it are refused from the next on."""

    def ask() -> SecretList:
        return session.client.call(calls.REMOVE_SECRET, SecretNameRequest(name=name))

    _change(
        session,
        ask,
        lambda store, who: store.remove(name, who),
        "removed",
        secret=name,
    )


@secrets.command("rotate-key", example="agentvault secrets rotate-key")
@pass_session
def rotate_key(session: CliSession) -> None:
    """Encrypt every secret with a new key; the old key becomes useless.

    Earlier copies of the home directory can still decrypt theirs with the key in them:
    if one may have been stolen, replace the secrets themselves at their services.
    """
    _change(
        session,
        lambda: session.client.call(calls.ROTATE_KEY),
        lambda store, who: store.rotate_key(who),
        "key_rotated",
    )


def _change(
    session: CliSession,
    ask: Callable[[], SecretList],
    prepare: Callable[[Secrets, Actor], SecretChange],
    word: str,
    **extra: object,
) -> None:
    """Have a running broker make a change; with none, make it here.

    Raises:
        AgentVaultError: it may not be made, or cannot be recorded.
    """
    try:
        ask()
    except UnreachableError as error:
        if session.remote:
            raise
        if session.settings.operators.by_claim and word != "removed":
            raise sign_in_needed(error, "this takes an operator") from None
        loosened = _loosened(session, word, f"{extra.get('secret')}")
        if loosened:
            check_factor(session, error, "this change of a secret")
        asyncio.run(_change_here(session, prepare, loosened))
    if not session.out.print_json({**extra, word: True}):
        name = extra.get("secret")
        shown = session.out.cell(name) if isinstance(name, str) else ""
        session.out.line(f"{word.replace('_', ' ')} ", shown)


def _loosened(session: CliSession, word: str, name: str) -> dict[str, Any] | None:
    """Describe the loosening of a change here; None if it only tightens."""
    shown = visible(name, 63)
    if word == "set":
        return loosened_here(session, "secrets", f"set the secret {shown}")
    silences = word == "removed" and any(
        one.kind == "sink" and one.secret == name for one in home_uses(session)
    )
    if not silences:
        return None
    summary = f"remove the secret {shown} of alert destinations"
    return loosened_here(session, "alerts", summary)


async def _change_here(
    session: CliSession,
    prepare: Callable[[Secrets, Actor], SecretChange],
    loosened: dict[str, Any] | None,
) -> None:
    """Record and write a change in a home that no broker has.

    Raises:
        HomeInUseError: a broker has it, and does not answer.
        LedgerError: it cannot be recorded.
    """
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.gateway.secrets import Secrets

    shared = bool(session.settings.store.url)
    store = Secrets(session.home, SystemClock(), shared=shared)
    # Whoever has the ledger is the only one who changes the file.
    async with session.ledger() as ledger:
        await store.finish(ledger)

        def record(*drafts: Draft, changes: Sequence[Meta] = ()) -> Awaitable[object]:
            drafts[0].detail |= {LOOSENED: loosened} if loosened else {}
            return ledger.commit(*drafts, changes=changes)

        await store.change(lambda: prepare(store, session.operator), record)


def _list(session: CliSession) -> SecretList:
    try:
        return session.client.call(calls.SECRETS)
    except UnreachableError:
        if session.remote:
            raise
        return _local(session)


def _local(session: CliSession) -> SecretList:
    """Return the list of a home that no broker serves."""
    from agentvault_tui.gateway.secret_origins import secret_list

    return secret_list(home_secrets(session), home_uses(session))


def home_secrets(session: CliSession) -> Secrets:
    """Return the secrets of a home, with the origins that its ledger lists."""
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.gateway.secret_rows import LISTED
    from agentvault_tui.gateway.secrets import Secrets
    from agentvault_tui.ledger.schema import read_home
    from agentvault_tui.ledger.state import read_meta

    home, shared = session.home, bool(session.settings.store.url)
    listed: dict[str, str] = {}
    secrets = Secrets(home, SystemClock(), shared=shared, cached=listed)
    unsealed = [name for name, row in secrets.rows().items() if row.bound is None]
    if unsealed and home.database.exists():
        with read_home(home) as db:
            for key in (f"{LISTED}{name}" for name in unsealed):
                if (text := read_meta(db, key)) is not None:
                    listed[key] = text
    return secrets


def home_uses(session: CliSession) -> list[SecretUse]:
    """Return which secrets the files of a home name.

    Raises:
        AgentVaultError: policy, limits or alerts cannot be read.
    """
    from agentvault_tui.broker.callouts import hook_uses
    from agentvault_tui.broker.policy_files import load_policy, read_text
    from agentvault_tui.gateway.mcp import McpServers
    from agentvault_tui.gateway.secret_origins import service_uses
    from agentvault_tui.gateway.services import Services
    from agentvault_tui.watch.config import parse_alerts, sink_uses

    home = session.home
    policy = load_policy(home)
    services = Services(home, lambda: policy.catalogue)
    servers = McpServers(home, lambda: policy.catalogue)
    services.reload()
    servers.reload()
    alerts = parse_alerts(read_text(home.alerts_file, home.config) or "", home)
    return [
        *service_uses(services, servers),
        *hook_uses(policy.limits.hooks),
        *sink_uses(alerts),
    ]
