"""``agentvault secrets``: the credentials the gateway attaches, sealed at rest."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import UnreachableError, UsageError
from agentvault_tui.model import Actor
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.gateway import SecretList
from agentvault_tui.operator_api.requests import SecretNameRequest, SecretRequest

if TYPE_CHECKING:
    from agentvault_tui.gateway.secrets import SecretChange, Secrets

_MOST = 16_384


@group("secrets", example="agentvault secrets set stripe-live")
def secrets() -> None:
    """Keep the credentials of services; no command ever prints a value."""


@secrets.command("set", example="agentvault secrets set stripe-live < key.txt")
@click.argument("name")
@pass_session
def set_secret(session: CliSession, name: str) -> None:
    """Seal a secret: its value is read from standard input, or asked for.

    A running broker seals and records it, and uses it from the next call on. With none
    running that is done here.
    """
    value = _value()

    def ask() -> SecretList:
        given = SecretRequest(name=name, value=value)
        return session.client.call(calls.SET_SECRET, given)

    _change(session, ask, lambda store, who: store.set(name, value, who), "set", name)


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
    """List names, dates, who set them and which services use them; never a value."""
    try:
        found = session.client.call(calls.SECRETS)
    except UnreachableError:
        if session.remote:
            raise
        found = _local(session)
    out = session.out
    if out.print_json(found):
        return
    if not found.secrets:
        out.line("no secrets: agentvault secrets set NAME")
        return
    rows = [
        [
            out.cell(one.name, "strong"),
            out.cell(one.created_at[:19]),
            out.cell(one.changed_at[:19]),
            out.cell(one.changed_by),
            out.cell(", ".join(one.used_by)),
        ]
        for one in found.secrets
    ]
    headers = ("NAME", "CREATED", "CHANGED", "BY", "USED BY")
    out.table(headers, rows, keep=("NAME",))


@secrets.command("remove", example="agentvault secrets remove stripe-live")
@click.argument("name")
@pass_session
def remove(session: CliSession, name: str) -> None:
    """Forget a secret; services that use it are refused from the next call on."""

    def ask() -> SecretList:
        return session.client.call(calls.REMOVE_SECRET, SecretNameRequest(name=name))

    _change(session, ask, lambda store, who: store.remove(name, who), "removed", name)


@secrets.command("rotate-key", example="agentvault secrets rotate-key")
@pass_session
def rotate_key(session: CliSession) -> None:
    """Seal every secret anew under a new key; the old key opens nothing any more.

    Copies of the home made before still open with the key in them: if one may have
    been stolen, replace the secrets themselves at their services.
    """
    _change(
        session,
        lambda: session.client.call(calls.ROTATE_KEY),
        lambda store, who: store.rotate_key(who),
        "key_rotated",
        None,
    )


def _change(
    session: CliSession,
    ask: Callable[[], SecretList],
    prepare: Callable[[Secrets, Actor], SecretChange],
    word: str,
    name: str | None,
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
        asyncio.run(_change_here(session, prepare))
    told = {"secret": name, word: True} if name else {word: True}
    if not session.out.print_json(told):
        said = word.replace("_", " ")
        session.out.line(f"{said} ", session.out.cell(name) if name else "")


async def _change_here(
    session: CliSession, prepare: Callable[[Secrets, Actor], SecretChange]
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
        await store.change(lambda: prepare(store, session.operator), ledger.commit)


def _local(session: CliSession) -> SecretList:
    """Return the list of a home that no broker serves."""
    from agentvault_tui.broker.policy_files import load_policy
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.gateway.operators import secret_list
    from agentvault_tui.gateway.secrets import Secrets
    from agentvault_tui.gateway.services import Services

    found = Services(session.home, lambda: load_policy(session.home).catalogue)
    found.reload()
    return secret_list(Secrets(session.home, SystemClock()), found)
