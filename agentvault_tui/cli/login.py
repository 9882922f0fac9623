"""``agentvault login``, ``logout`` and ``whoami``: the operator's own identity."""

from __future__ import annotations

import time
from typing import Any, Final

from agentvault_tui.cli.device import print_device
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session

_POLL: Final = 0.5


@command("login", example="agentvault login", prints_data=True)
@pass_session
def login(session: Session) -> int:
    """Sign in by device flow: prints a code and waits for the tenant's answer."""
    client, out = session.client, session.out
    started = client.post("/api/auth/login")
    if session.json:
        out.json(started)
    else:
        print_device(out, started["device"])
    me = started
    while me["pending"]:
        time.sleep(_POLL)
        me = client.get("/api/auth/me")
    if session.json:
        out.json(me)
    else:
        _print_me(out, me)
    return 0 if me["user"] and not me["problem"] else 1


@command("logout", example="agentvault logout", prints_data=True)
@pass_session
def logout(session: Session) -> None:
    """Sign out, and end a sign-in under way."""
    me = session.client.post("/api/auth/logout")
    if session.json:
        session.out.json(me)
    else:
        session.out.line("signed out")


@command("whoami", example="agentvault whoami --json", prints_data=True)
@pass_session
def whoami(session: Session) -> None:
    """Say who is signed in, and which local user the broker sees."""
    me = session.client.get("/api/auth/me")
    if session.json:
        session.out.json(me)
    else:
        _print_me(session.out, me)


def _print_me(out: Output, me: dict[str, Any]) -> None:
    user = me["user"]
    if user:
        out.fields(
            [
                ("signed in", out.cell(user["name"], "strong")),
                ("subject", user["sub"]),
                ("e-mail", user["email"]),
                ("roles", ", ".join(user["roles"])),
                ("factors", ", ".join(user["amr"])),
                ("until", user["expires_at"]),
            ]
        )
    else:
        out.line("not signed in: `agentvault login`; reading, denying and revoking")
        out.line("need only this socket")
    out.fields([("local user", me.get("local") or me["uid"])])
    if me["problem"]:
        out.fields([("last sign-in", out.cell(me["problem"], "wait", 500))])
