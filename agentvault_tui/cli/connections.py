"""``agentvault connections``: accounts at providers that agents use."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Final

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_names, find_agent
from agentvault_tui.cli.output import Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import RefusedError, UsageError
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.shapes import AgentRef, ConnectionInfo, ConnectStepInfo

PORT: Final = 7719
"""The addresses that `auth0 apply` registers: Auth0 compares the whole of a client's
addresses."""
PATH: Final = "/callback"
_HOST: Final = "127.0.0.1"
_SLOWEST: Final = 5.0
_LONGEST: Final = 16_384
_LONGEST_QUERY: Final = 3800
"""The broker's limit; a longer answer is none, and would only be refused there."""
_PAGE: Final = b"""<!doctype html><meta charset="utf-8"><title>AgentVault</title>
<p>Go back to the terminal. You can close this page.</p>
"""
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Length": str(len(_PAGE)),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'",
}


class _Handler(BaseHTTPRequestHandler):
    """Takes one GET; whatever else is asked here gets nothing."""

    timeout = _SLOWEST
    server: _CallbackServer

    def setup(self) -> None:
        """Bound the whole request in time, not each read."""
        self._deadline = threading.Timer(_SLOWEST, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()
        super().setup()

    def finish(self) -> None:
        """Cancel the deadline."""
        self._deadline.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """Store the callback's address, and answer with a page."""
        here = self.server.name
        path, _, query = self.path.partition("?")
        # Another name for this address is another site's page speaking (rebinding); a
        # browser that sends a person here goes to a page, and loads no part of one.
        elsewhere = self.headers.get("Host") != here
        part = self.headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        if path != PATH or not 0 < len(query) <= _LONGEST_QUERY or elsewhere or part:
            self.send_error(404)
            return
        self.server.address = f"http://{here}{self.path}"
        self.send_response(200)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *_: object) -> None:
        """Log nothing: the request line holds a code."""


class _CallbackServer(TCPServer):
    """One socket, one request at a time."""

    allow_reuse_address = True
    address: str = ""

    @property
    def name(self) -> str:
        """Host and port, as the browser names them."""
        return f"{_HOST}:{self.server_address[1]}"

    def take(self) -> str:
        """Serve one request; return the callback's address, if it was one."""
        self.address = ""
        self.handle_request()
        return self.address

    def handle_error(self, *_: object) -> None:
        """Ignore a browser that hung up."""


class Callback:
    """The next address at which a browser ends, whichever way it reaches us."""

    def __init__(self, port: int, listener: _CallbackServer | None) -> None:
        self._listener = listener
        self._name = listener.name if listener else f"{_HOST}:{port}"
        self._typed = b""
        self._input_open = True

    @property
    def address(self) -> str:
        """The redirect URI."""
        return f"http://{self._name}{PATH}"

    @property
    def listens(self) -> bool:
        """Whether the browser reaches this process; else the address is pasted."""
        return self._listener is not None

    def next(self, seconds: float) -> str:
        """Wait for the next address; none in time is a `RefusedError`."""
        end = time.monotonic() + seconds
        while True:
            if line := self._line():
                return line
            sources: list[int | socket.socket] = []
            sources += [self._listener.socket] if self._listener else []
            sources += [sys.stdin.fileno()] if self._input_open else []
            left = end - time.monotonic()
            if not sources or left <= 0:
                raise RefusedError("the browser did not come back", "begin again")
            ready, _, _ = select.select(sources, [], [], left)
            # The terminal first: whoever keeps knocking must not keep it from being
            # read.
            if self._input_open and sys.stdin.fileno() in ready:
                self._read()
            elif (
                self._listener
                and self._listener.socket in ready
                and (address := self._listener.take())
            ):
                return address

    def _read(self) -> None:
        # Not sys.stdin: what it buffers, select does not see.
        data = os.read(sys.stdin.fileno(), 4096)
        self._input_open = bool(data) and len(self._typed) < _LONGEST
        self._typed += data

    def _line(self) -> str:
        """Return a pasted line, stripped."""
        line, newline, rest = self._typed.partition(b"\n")
        if not newline and self._input_open:
            return ""
        self._typed = rest
        return line.decode("utf-8", "replace").strip()


@contextmanager
def listening(port: int) -> Iterator[Callback]:
    """Listen on *port* for a block; 0 picks one. A taken port leaves pasting."""
    try:
        listener = _CallbackServer((_HOST, port), _Handler)
    except OSError:
        yield Callback(port, None)
        return
    listener.timeout = 0
    with listener:
        yield Callback(port, listener)


@group("connections", example="agentvault connections list")
def connections() -> None:
    """Connect and disconnect accounts that agents use through Token Vault."""


@connections.command(
    "add",
    example="agentvault connections add calendar-agent google-oauth2 "
    "--scope https://www.googleapis.com/auth/calendar",
)
@click.argument("ref", metavar="AGENT", shell_complete=agent_names)
@click.argument("connection", metavar="CONNECTION")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope of the provider, such as calendar.read; repeat it.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The local port that the browser returns to.",
)
@pass_session
def add_connection(
    session: CliSession, ref: str, connection: str, scopes: tuple[str, ...], port: int
) -> None:
    """Connect an account: a page to sign in at, then one to allow it.

    The person who signs in first becomes the vault user: a user of the tenant whose
    accounts this agent may use. Without a browser on this machine, open the pages on
    another, and paste the address at which each of them ends.
    """
    client, out = session.client, session.out
    agent = find_agent(client, ref)
    with listening(port) as callback:
        wanted = requests.ConnectRequest(
            agent_id=agent.id,
            connection=connection,
            scopes=scopes,
            redirect_uri=callback.address,
        )
        step = client.call(calls.CONNECT, wanted)
        while step.step != "done":
            _show_step(session, step, callback)
            step = _next(session, step, callback)
    if session.json:
        out.json(step)
    elif step.connection:
        _print_account(out, step.connection)


@connections.command("list", example="agentvault connections list --json")
@click.option(
    "--agent", help="Only this agent's: id or unique name.", shell_complete=agent_names
)
@pass_session
def list_connections(session: CliSession, agent: str | None) -> None:
    """List accounts with their owners, scopes, and the agents that share one."""
    client, out = session.client, session.out
    agent_id = find_agent(client, agent).id if agent else None
    answer = client.call(calls.CONNECTIONS, requests.ConnectionQuery(agent=agent_id))
    if out.print_json(answer):
        return
    if not answer.connections:
        out.line("no accounts yet: `agentvault connections add AGENT CONNECTION`")
        return
    out.table(
        (
            *("AGENT", "CONNECTION", "ACCOUNT", "USER", "STANDS FOR"),
            *("AT THE PROVIDER", "SINCE", "SHARED WITH"),
        ),
        [
            [
                out.cell(one.agent_name, "strong", 40),
                *(one.connection, one.account),
                out.cell(one.user_name or one.user, limit=40),
                " ".join(one.scopes),
                out.cell(" ".join(one.provider_scopes), limit=60),
                "being removed" if one.removing else short_time(one.since),
                _names(one.shared_with),
            ]
            for one in answer.connections
        ],
        keep=("ACCOUNT",),
    )


@connections.command(
    "remove", example="agentvault connections remove calendar-agent google-oauth2"
)
@click.argument("ref", metavar="AGENT", shell_complete=agent_names)
@click.argument("connection", metavar="CONNECTION")
@click.option(
    "--shared", is_flag=True, help="Also if other agents use the same account."
)
@pass_session
def remove_connection(
    session: CliSession, ref: str, connection: str, shared: bool
) -> None:
    """Disconnect an account: at once here, then deleted in Token Vault.

    If the tenant did not answer, run it again: it continues where it stopped.
    """
    client, out = session.client, session.out
    agent = find_agent(client, ref)
    body = requests.RemoveRequest(
        agent_id=agent.id, connection=connection, shared=shared
    )
    removed = client.call(calls.REMOVE, body)
    if out.print_json(removed):
        return
    out.line("closed here: no token of this account is given out any more")
    out.line(
        {
            "deleted": "deleted in Token Vault",
            "gone": "it was gone from Token Vault already",
            "left": "left in Token Vault: its user is not signed in here, "
            "and nobody else can delete it",
        }[removed.at_tenant]
    )
    if removed.also:
        out.line("cut too: ", out.cell(_names(removed.also), "strong"))
    if removed.outside_until:
        until = out.cell(removed.outside_until, "wait")
        out.line("a token handed out before works at the provider until ", until)


def _show_step(session: CliSession, step: ConnectStepInfo, callback: Callback) -> None:
    """Print the page to open."""
    out = session.out
    if out.print_json(step):
        return
    what = (
        "Sign in as the agent's vault user"
        if step.step == "sign_in"
        else "Allow the account at its provider"
    )
    out.line(f"{what}. Open in a browser:\n")
    out.line(out.cell(step.page, "strong", 4000), "\n")
    if callback.listens:
        out.line("and come back here. With the browser on another machine, paste")
        out.line("the address at which it ended:")
    else:
        out.line("Its last address cannot be reached here: another program has the")
        out.line("port. Paste that address:")


def _next(
    session: CliSession, step: ConnectStepInfo, callback: Callback
) -> ConnectStepInfo:
    """Wait for the callback; ask again for an address that is not this step's."""
    ends = parse_iso(str(step.expires_at))
    while True:
        left = (ends - datetime.now(UTC)).total_seconds()
        reached = requests.ContinueRequest(id=str(step.id), address=callback.next(left))
        try:
            return session.client.call(calls.CONTINUE, reached)
        except UsageError as error:
            session.out.note(error.diagnosis())


def _print_account(out: Output, account: ConnectionInfo) -> None:
    shared = _names(account.shared_with)
    out.fields(
        [
            ("connected", out.cell(account.connection, "strong")),
            ("account", account.account),
            ("agent", out.cell(account.agent_name)),
            ("vault user", out.cell(account.user_name)),
            ("at the provider", " ".join(account.provider_scopes)),
            ("its owner there", out.cell(account.provider_user, limit=80))
            if account.provider_user
            else None,
            ("stands for", " ".join(account.scopes)),
            ("shared with", shared) if shared else None,
        ]
    )


def _names(agents: Iterable[AgentRef]) -> str:
    return ", ".join(agent.name for agent in agents)
