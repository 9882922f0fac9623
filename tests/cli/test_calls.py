"""`agentvault calls` of a broker whose agent has a call held, over real processes."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pyotp
import pytest
from support.command_line import Agent, Answer, Broker
from support.forked import Forked
from support.patience import PATIENT
from support.service_files import TRANSFERS

from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient

Run = Callable[..., Answer]
SLOW = """
origin = "http://127.0.0.1:{port}"
allow_http = true
allow_private = true
[[routes]]
method = "GET"
path = "/{{rest*}}"
scope = "read:calendar"
"""


@pytest.fixture
def service(broker: Broker, av: Run) -> Iterator[str]:
    text = f'origin = "https://api.calls.test"\n{TRANSFERS}'
    with broker.service("held", text):
        assert av("services", "show", "held", "--json").code == 0  # read by now
        yield "held"


def test_a_held_call_is_listed_shown_and_cut(
    av: Run, agent: Agent, broker: Broker, service: str, tmp_path: Path
) -> None:
    """It is listed and shown while it waits; cut, its agent hears so."""
    token = agent.ask("read:calendar", {})["access_token"]
    answers: list[tuple[int, Any]] = []

    def call() -> None:
        connection = HTTPConnection(urlsplit(broker.url).netloc, timeout=PATIENT)
        with closing(connection):
            connection.request(
                "POST",
                f"/gw/{service}/v1/transfers/a",
                '{"amount":1.50,"currency":"USD"}',
                {
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json",
                },
            )
            reply = connection.getresponse()
            answers.append((reply.status, json.load(reply)))

    asking = Thread(target=call)
    asking.start()
    listed: list[dict[str, Any]] = []
    while not listed:
        listed = av("calls", "--json").json["calls"]
    (one,) = listed
    assert (one["state"], one["service"], one["path"]) == (
        "held",
        "held",
        "/v1/transfers/a",
    )
    assert one["id"] in av("calls").out
    shown = av("stepup", "show", one["stepup_id"], "--save", str(tmp_path / "body"))
    assert "POST https://api.calls.test/v1/transfers/a" in shown.out
    assert "/amount = 1.50" in shown.out
    printed = av("stepup", "show", one["stepup_id"], "--json").out
    assert '"body":{"kind":"json","value":{"amount":1.50,"currency":"USD"}}' in printed
    with pytest.MonkeyPatch.context() as patch:
        call_of = OperatorClient.call

        def without_body(
            client: OperatorClient, asked: Any, *more: Any, **at: Any
        ) -> Any:
            if asked is calls.STEPUP_BODY:
                raise LedgerUnwritableError("the team's key is missing")
            return call_of(client, asked, *more, **at)

        patch.setattr(OperatorClient, "call", without_body)
        other = av("stepup", "show", one["stepup_id"])
    assert other.code == 0
    assert "POST https://api.calls.test/v1/transfers/a" in other.out
    assert "the body cannot be shown here: the team's key is missing" in other.err
    saved = tmp_path / "body"
    assert saved.read_bytes() == b'{"amount":1.50,"currency":"USD"}'
    assert saved.stat().st_mode & 0o777 == 0o600
    again = av("stepup", "show", one["stepup_id"], "--save", str(saved), "--json")
    assert again.code == 2
    assert "exists" in again.err
    assert av("calls", "--cut", one["id"], "--json").code == 0
    asking.join(PATIENT)
    ((status, body),) = answers
    assert (status, body["reason"]) == (403, "call_cut")
    assert av("calls", "--cut", one["id"]).code == 4
    assert "no call" in av("calls").out


@pytest.mark.slow
def test_the_second_factor_shows_a_held_call_as_the_first_screen_does(
    av: Run,
    start: Callable[..., Forked],
    agent: Agent,
    service: str,
    tmp_path: Path,
) -> None:
    """`tenant activate` shows request line, headers and each member of the body."""
    token = agent.ask("read:calendar", {})["access_token"]
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Prefer": "wait=0",
    }
    connection = HTTPConnection(urlsplit(agent.broker.url).netloc, timeout=PATIENT)
    with closing(connection):
        sent = '{"amount":2,"currency":"USD","to":"acct_9"}'
        path = f"/gw/{service}/v1/transfers/a"
        connection.request("POST", path, sent, headers)
        connection.getresponse().read()
    (one,) = av("stepup", "list", "--agent", agent.id, "--json").json["stepups"]
    first = av("stepup", "show", one["id"]).out
    added = av("tenant", "user", "add", f"h{agent.id}", "--approver", "--json").json
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(added["password"])
    process = start("stepup", "approve", one["id"], "--json")
    code = json.loads(process.stdout.readline())["device"]["user_code"]
    otp = pyotp.TOTP(added["otp_secret"]).now()
    shown = av(
        *("tenant", "activate", code, "--user", added["user"], "--otp", otp),
        *("--password-file", str(file), "--yes"),
    )
    assert shown.code == 0, shown.err
    facts = (
        "POST https://api.calls.test/v1/transfers/a",
        "application/json",
        '/to = "acct_9"',
        "/amount = 2",
        hashlib.sha256(sent.encode()).hexdigest(),
    )
    for fact in facts:
        assert fact in first
        assert fact in shown.out
    process.communicate(timeout=PATIENT)


def test_a_revocation_says_how_many_calls_it_cut(
    av: Run, agent: Agent, broker: Broker
) -> None:
    """A call whose service had it whole is among those that are cut."""
    token = av("token", "--agent", agent.id, "--json").json["access_token"]
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(PATIENT)
        text = SLOW.format(port=upstream.getsockname()[1])
        connection = HTTPConnection(urlsplit(broker.url).netloc, timeout=PATIENT)
        with broker.service("slow", text), closing(connection):
            assert av("services", "show", "slow", "--json").code == 0
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("GET", "/gw/slow/x", headers=headers)
            reached, _ = upstream.accept()
            with closing(reached):
                assert b"GET /x" in reached.recv(4096)
                answer = av("agents", "revoke", agent.id, "--reason", "test")
                assert "1 call (1 may have taken effect)" in answer.out
                assert connection.getresponse().status == 401
