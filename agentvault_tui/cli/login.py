"""``agentvault login``, ``logout`` and ``whoami``: the operator's session."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import to_builtins

from agentvault_tui.cli.device import POLL, followed, print_device
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.sessions import MeInfo
from agentvault_tui.operator_api.shapes import PresenceInfo

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import RemoteBroker


@command("login", example="agentvault login")
@pass_session
def login(session: CliSession) -> int:
    """Sign in by device flow: prints a code and waits for the tenant's answer."""
    client, out = session.client, session.out
    if session.remote is not None:
        return _login_elsewhere(session, session.remote)
    started = client.call(calls.LOGIN)
    if session.json:
        out.json(started)
    elif started.device:
        print_device(session, started.device)
    me = followed(session, lambda: client.call(calls.ME), lambda seen: seen.pending)
    if not out.print_json(me):
        _print_me(out, me)
    return 0 if me.user and not me.problem else 1


def _login_elsewhere(session: CliSession, broker: RemoteBroker) -> int:
    """Sign in with a separate key, and store the session for other commands."""
    client, out = session.client, session.out
    broker.begin()
    started = client.call(calls.SIGN_IN)
    broker.begun(started.access_token)
    if session.json:
        out.json({"device": started.device, "origin": started.origin})
    else:
        print_device(session, started.device)
        out.line("This sign-in is from     ", out.cell(started.origin, "strong"))
        out.line("If its page names another, or you began none, cancel there.")
    while (me := client.call(calls.ME)).pending:
        time.sleep(POLL)
    if me.user and not me.problem:
        lasts = parse_iso(me.user.expires_at) - SystemClock().now()
        broker.keep(lasts.total_seconds())
    if not out.print_json(me):
        _print_me(out, me)
    return 0 if me.user and not me.problem else 1


@command("logout", example="agentvault logout")
@pass_session
def logout(session: CliSession) -> None:
    """Sign out, and end a sign-in in progress."""
    try:
        me = session.client.call(calls.LOGOUT)
    finally:
        if session.remote is not None:
            session.remote.forget()
    if not session.out.print_json(me):
        session.out.line("signed out")


@command("whoami", example="agentvault whoami --json")
@pass_session
def whoami(session: CliSession) -> None:
    """Show who is signed in, the local user, and other open consoles."""
    client, out = session.client, session.out
    me = client.call(calls.ME)
    here = client.call(calls.PRESENCE)
    if not out.print_json({**to_builtins(me), "operators": here.operators}):
        _print_me(out, me)
        _print_here(out, here)


def _print_here(out: Output, here: PresenceInfo) -> None:
    """Print each open console and stream, and its screen."""
    rows = []
    for each in here.operators:
        looks = f", looks at {each.looking_at}" if each.looking_at else ""
        line = f"{each.title}, {each.face} since {short_time(each.since)}{looks}"
        rows.append(("connected", out.cell(line)))
    if here.unlisted:
        rows.append(("connected", out.cell(f"and {here.unlisted} more streams")))
    out.fields(rows or [("connected", out.cell("nobody"))])


def _print_me(out: Output, me: MeInfo) -> None:
    user = me.user
    if user:
        out.fields(
            [
                ("signed in", out.cell(user.name, "strong")),
                ("subject", user.sub),
                ("e-mail", user.email),
                ("role", me.role),
                ("roles", ", ".join(user.roles)),
                ("factors", ", ".join(user.amr)),
                ("until", user.expires_at),
                ("locks", f"{user.idle_at}, unless something is decided"),
            ]
        )
    else:
        out.line("not signed in: `agentvault login`; reading, denying and revoking")
        out.line("need only this socket")
    refused = [out.cell(why, "wait", 300) for why in me.refused.values()]
    word = "local user" if me.uid.startswith("uid:") else "address"
    local = (word, me.local or me.uid)
    out.fields([local, *(("may not", why) for why in refused)])
    if me.problem:
        out.fields([("last sign-in", out.cell(me.problem, "wait", 500))])
