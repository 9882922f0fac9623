"""``agentvault panic`` and ``lift-panic``: stop every agent, and end that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.revoking import print_revoked, restore_agents
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    AgentVaultError,
    HomeInUseError,
    LedgerUnwritableError,
    UnreachableError,
)
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls, requests

_ANSWER_S: Final = 3.0
"""Time for a broker to answer, before the order is left in its home directory."""
_OBEYED_S: Final = 3.0
"""Time for a broker whose socket is busy to obey the order."""
_STORE_S: Final = 5.0
"""Time for a team's store to take the order."""


@command("panic", example="agentvault panic --reason 'credentials leaked'")
@click.option("--reason", default="", help="Why; it is recorded.")
@pass_session
def panic(session: CliSession, reason: str) -> int:
    """Stop every agent at once, also if no broker answers.

    No token is issued, introspected as active or redeemed until `agentvault
    lift-panic`. If no broker answers, the order is left in the home directory: a broker
    that runs obeys it within a second, and the next start obeys it before it serves.

    Exits 1 while a broker that runs has not obeyed the order.
    """
    return stop_all(session, reason)


@command("lift-panic", example="agentvault lift-panic")
@pass_session
def lift_panic(session: CliSession) -> None:
    """End a panic: agents are served again, except those revoked one by one.

    Tokens that the panic revoked stay revoked. Where loosening changes need an
    approver's second factor, this prints a code and waits for it: have your
    authenticator at hand.
    """
    restore_agents(session, None, None)


def stop_all(session: CliSession, reason: str) -> int:
    """Stop every agent; leave the order to do so if no broker answers.

    Returns:
        the exit code: 1 while a broker runs that has not obeyed the order.

    Raises:
        AgentVaultError: the broker refused; no broker of another machine answers.
        OSError: the order cannot be left.
    """
    body = requests.RevokeRequest(all=True, reason=reason)
    try:
        answer = session.client.call(replace(calls.REVOKE, seconds=_ANSWER_S), body)
    except (UnreachableError, LedgerUnwritableError):
        if session.remote or not session.home.database.exists():
            raise
        return _order(session, reason)
    print_revoked(session, answer)
    return 0


def _order(session: CliSession, reason: str) -> int:
    """Leave the order to stop everything in the home directory and the team's store."""
    from agentvault_tui.broker.stop_order import leave_order, withdraw_order

    home, out = session.home, session.out
    leave_order(home, session.operator, reason)
    is_running = _has_broker(home)
    is_obeyed = is_running and _is_obeyed(home)
    missed = None if is_running else _order_team(session, reason)
    if missed == "":
        # By the next start another broker may have ended the panic.
        withdraw_order(home)
    code = int(is_running and not is_obeyed)
    if out.print_json(
        {
            "order": "obeyed" if is_obeyed else "store" if missed == "" else "left",
            "others": None if missed is None else "not_told" if missed else "told",
        }
    ):
        return code
    if is_obeyed:
        out.line("every agent is stopped: the broker obeyed the order")
    elif missed == "":
        out.line("no broker runs here; every other broker of the team is stopped")
    elif is_running:
        out.line("NOT stopped yet: the broker does not answer")
        out.note(
            "it obeys the order as soon as it can; if it is killed, its next start"
        )
    else:
        out.line(
            "no broker runs here: the next start stops everything before it serves"
        )
    if missed:
        out.note(f"the other brokers of the team were not told: {missed}")
    out.line("`agentvault lift-panic` ends it")
    return code


def _has_broker(home: Home) -> bool:
    """Check whether a process has the home directory's lock."""
    from agentvault_tui.ledger.opening import HomeLock

    try:
        HomeLock(home.lock_file).release()
    except HomeInUseError:
        return True
    return False


def _is_obeyed(home: Home) -> bool:
    """Wait for the broker to obey the order, and return whether it did."""
    until = time.monotonic() + _OBEYED_S
    while home.stop_order.exists():
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


def _order_team(session: CliSession, reason: str) -> str | None:
    """Record the panic in the team's store, where every broker follows it.

    Returns:
        None without a team, otherwise why the store did not take it; empty if it did.
    """
    try:
        if not session.settings.store.url:
            return None
        asyncio.run(asyncio.wait_for(_record(session, reason), _STORE_S))
    except TimeoutError:
        return "its store did not answer"
    except AgentVaultError as error:
        return error.what
    return ""


async def _record(session: CliSession, reason: str) -> None:
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.ledger import DropAllTokens, Panic
    from agentvault_tui.model import Draft, EventType

    operator = session.operator
    switch = Panic(True, SystemClock().now(), operator.name, reason)
    draft = Draft(EventType.PANIC_ON, operator, reason=reason, detail={})
    async with session.ledger() as ledger:
        await ledger.commit(draft, changes=[switch, DropAllTokens()])
