"""The whole demo for real: broker, tenant, agents, and a ledger that agrees."""

from __future__ import annotations

import asyncio
import base64
import errno
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import forked
from support.patience import PATIENT
from support.vault import serving

from agentvault_tui.model import StepUpStatus

AGENTVAULT = (sys.executable, "-P", "-m", "agentvault_tui.cli")
TOTALS = ("allowed", "denied", "escalated")
UNTIL = b"running until ctrl+c; counts follow\n"
"""Printed by a demo without a console and without an end."""


async def run(home: Path | None, *arguments: str) -> tuple[int, str, str]:
    where = ("--home", str(home)) if home else ()
    forking = partial(forked.run, *where, *arguments, env=dict(os.environ))
    done = await asyncio.to_thread(forking)
    return done.returncode, done.stdout, done.stderr


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def on_a_terminal(short: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the demo on a terminal; return it and our end of that terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [*AGENTVAULT, "demo"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={
            **os.environ,
            "TMPDIR": str(short),
            "XDG_STATE_HOME": str(short / "state"),
            "TERM": "xterm-256color",
        },
    )
    os.close(slave)
    return process, master


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_a_killed_demo_leaves_nothing_running(short: Path) -> None:
    """After SIGKILL broker and tenant let go of the home, and the console ends."""
    process, master = on_a_terminal(short)
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        read_until(terminal, b"Press Enter")
        terminal.write(b"\r")
        read_until(terminal, b"calendar-agent")
        process.kill()
        process.wait()
        read_until(terminal, None)  # the console was the last that held it
    (home,) = left_in(short)
    for lock in ("run/broker.lock", "tenant/tenant.lock"):
        with (home / lock).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # waits until its holder has ended
    assert process.returncode == -signal.SIGKILL
    with socket.socket(socket.AF_UNIX) as client:
        there = client.connect_ex(str(home / "run/agentvault.sock"))
    assert there in {errno.ECONNREFUSED, errno.ENOENT}


def test_the_console_opens_and_closing_it_ends_everything(short: Path) -> None:
    """On a terminal: how to approve and a QR, then the console; ctrl+q ends it all, and
    what happened is summed up, with the next command."""
    process, master = on_a_terminal(short)
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        page = read_until(terminal, b"Press Enter")
        assert b"/demo/approve" in page
        assert "█".encode() in page
        terminal.write(b"\r")
        read_until(terminal, b"opening the console")
        read_until(terminal, b"\x1b[?1049h")
        read_until(terminal, b"calendar-agent")
        terminal.write(b"\x11")
        read_until(terminal, b"\x1b[?1049l")
        ending = read_until(terminal, None).decode()
    assert process.wait() == 0
    assert re.search(r"requests of [1-6] agents in \d+ s: \d+ allowed", ending)
    assert "events verify" in ending
    assert ending.splitlines()[-1].endswith(": agentvault serve")
    assert not left_in(short)


def read_until(terminal: io.FileIO, sign: bytes | None) -> bytes:
    """Read until *sign* comes, or with None until the other side is closed."""
    seen = b""
    while sign is None or sign not in seen:
        try:
            seen += terminal.read(65_536)
        except OSError:  # what Linux says when the last writer has closed
            assert sign is None, seen[-2000:]
            break
    return seen


def operators_of(home: Path) -> httpx.AsyncClient:
    """Return a client of the operators' side of the broker on *home*."""
    transport = httpx.AsyncHTTPTransport(uds=str(home / "run" / "agentvault.sock"))
    return httpx.AsyncClient(
        transport=transport, base_url="http://agentvault", trust_env=False
    )


class Demo:
    """A demo without a console, on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is None:
            self._process = subprocess.Popen(
                [*AGENTVAULT, "--home", str(self.home), "demo", "--headless"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    def stop(self, number: signal.Signals) -> tuple[dict[str, Any], bytes]:
        """End it by a signal; return its summary, and what else it printed."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 0
        assert err.startswith(UNTIL)
        return dict(json.loads(out)), err.removeprefix(UNTIL)

    def close(self) -> None:
        if self._process is not None:
            summary, more = self.stop(signal.SIGINT)
            assert (summary["totals"]["escalated"] >= 1, more) == (True, b"")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo for the tests that use up different things of it."""
    with closing(Demo(tmp_path_factory.mktemp("d") / "h")) as demo:
        yield demo


@pytest.fixture
async def running(demo: Demo) -> AsyncIterator[tuple[Path, httpx.AsyncClient]]:
    """Run the demo, or go on with it; at its end it must have asked a person."""
    demo.start()
    async with operators_of(demo.home) as operators:
        yield demo.home, operators


async def stepup(
    operators: httpx.AsyncClient, action: str, *statuses: str
) -> dict[str, Any]:
    """Wait until a step-up for *action* has one of *statuses*."""
    while True:
        try:
            reply = await operators.get("/api/agents/stepup")
        except httpx.TransportError:
            await asyncio.sleep(0.1)
            continue
        for found in reply.json()["stepups"]:
            if found["action"] == action and found["status"] in statuses:
                return dict(found)
        await asyncio.sleep(0.1)


async def denial(operators: httpx.AsyncClient) -> None:
    """Wait until an agent was refused something."""
    while True:
        reply = await operators.get("/api/audit", params={"outcome": "denied"})
        if reply.json()["events"]:
            return
        await asyncio.sleep(0.1)


async def difference(operators: httpx.AsyncClient) -> None:
    """Wait until the shadow policy would have answered something otherwise."""
    while True:
        reply = await operators.get("/api/policy")
        if reply.json()["shadow"]["differences"]:
            return
        await asyncio.sleep(0.1)


async def test_a_held_payment_is_sent_once_and_a_revoke_cuts_a_download(
    running: tuple[Path, httpx.AsyncClient],
) -> None:
    """The held body is the real one, ``demo/approve`` proves who, a revoke cuts."""
    home, operators = running
    asked = await stepup(operators, "send:payment", "pending")
    assert asked["request"]["url"].endswith("/accounts/acct_42")
    held = (await operators.get(f"/api/agents/stepup/{asked['id']}/body")).json()
    assert json.loads(base64.b64decode(held["base64"]))["amount"] == 4200
    reply = await operators.post(
        "/api/agents/stepup",
        json={"id": asked["id"], "decision": "approve", "digest": asked["digest"]},
    )
    assert reply.status_code == 202
    unasked = await asyncio.create_subprocess_exec(
        home / "demo" / "approve",
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await unasked.communicate()
    assert (unasked.returncode, b"give --yes" in told) == (2, True)
    assert not (home / "demo" / "otp-used").exists(), "a one-time code is used up"
    approve = await asyncio.create_subprocess_exec(
        home / "demo" / "approve",
        "--yes",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await approve.communicate()
    assert approve.returncode == 0, said.decode()
    done = await stepup(operators, "send:payment", "redeemed")
    assert done["id"] == asked["id"]
    assert done["decided_by"]["name"].startswith("demo-approver")
    (paid,) = await results(operators, "action", "send:payment")
    assert (paid["detail"]["status"], paid["detail"]["ended"]) == (201, "done")
    assert modes(home / "demo") == {"0o600"}

    call = await download(operators)
    body = {"agent_id": call["agent_id"], "reason": "it takes everything"}
    cut = (await operators.post("/api/agents/revoke", json=body)).json()
    assert cut["calls_cut"] >= 1
    (taken,) = await results(operators, "decision_id", call["decision_id"])
    assert taken["detail"]["ended"] == "cut"


async def results(
    operators: httpx.AsyncClient, member: str, value: str
) -> list[dict[str, Any]]:
    """Wait for results of calls, those that *member* of their events names."""
    query = {"type": "gateway.result", "limit": 1000}
    async with asyncio.timeout(PATIENT):
        while True:
            answer = await operators.get("/api/audit", params=query)
            events = answer.json()["events"]
            if found := [event for event in events if event[member] == value]:
                return found
            await asyncio.sleep(0.1)


async def download(operators: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until an agent downloads everything, and return that call."""
    while True:
        for call in (await operators.get("/api/calls")).json()["calls"]:
            if call["path"].endswith("/export.zip") and call["bytes_in"]:
                return dict(call)
        await asyncio.sleep(0.1)


def modes(folder: Path) -> set[str]:
    """Return the modes of what holds factors and secrets, for their owner alone."""
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert found.pop("approve") == "0o700"
    assert {"password", "approver.json", "clients.json", "broker.log"} <= set(found)
    return set(found.values())


async def accounts(operators: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """Wait until so many accounts are connected, and each was used."""
    while True:
        try:
            reply = await operators.get("/api/connections")
            found: list[dict[str, Any]] = reply.json()["connections"]
            if len(found) >= count:
                used = await results(operators, "action", "read:contacts")
                if len({event["agent_id"] for event in used}) >= count:
                    return found
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)


async def upstream(operators: httpx.AsyncClient, agent_id: str) -> dict[str, Any]:
    """Wait until nothing of the agent's revocation is pending; return the agent."""
    while True:
        agent: dict[str, Any] = (await operators.get(f"/api/agents/{agent_id}")).json()
        if all(step["status"] != "pending" for step in agent["upstream"]):
            return agent
        await asyncio.sleep(0.1)


async def test_agents_use_their_owners_accounts_until_revoked(
    running: tuple[Path, httpx.AsyncClient],
) -> None:
    """Two share one account, one has its own; a revocation reaches tenant and provider.

    The shared account stays for the other; no token of it was ever outside.
    """
    _, operators = running
    found = {one["agent_name"]: one for one in await accounts(operators, 3)}
    assert set(found) == {"calendar-agent", "email-agent", "payments-agent"}
    warnings = (await operators.get("/api/status")).json()["warnings"]
    assert not [one for one in warnings if "gets no" in one]
    shared = found["calendar-agent"]["shared_with"]
    assert [other["name"] for other in shared] == ["email-agent"]
    assert found["payments-agent"]["shared_with"] == []
    ended = {}
    for name in ("calendar-agent", "payments-agent"):
        agent_id = found[name]["agent_id"]
        body = {"agent_id": agent_id, "reason": "test"}
        assert (await operators.post("/api/agents/revoke", json=body)).is_success
        ended[name] = await upstream(operators, agent_id)
    steps = {
        name: {step["step"]: step["status"] for step in agent["upstream"]}
        for name, agent in ended.items()
    }
    assert steps["calendar-agent"]["provider token"] == "left"
    assert steps["payments-agent"]["provider token"] == "confirmed"
    assert {agent["outside_until"] for agent in ended.values()} == {None}


async def test_headless_prints_what_the_ledger_holds(
    demo: Demo, running: tuple[Path, httpx.AsyncClient], tmp_path: Path
) -> None:
    """The summary equals the exported ledger, which verifies; a second run adds."""
    home, operators = running
    await stepup(operators, "send:payment", *StepUpStatus)
    await denial(operators)
    await difference(operators)
    limits = (await operators.get("/api/limits")).json()
    assert "bookings-an-hour" in {use["limit"] for use in limits["uses"]}
    summary, more = demo.stop(signal.SIGTERM)
    assert more == b""
    await run(home, "audit", "export", str(tmp_path / "x.jsonl"))
    lines = (tmp_path / "x.jsonl").read_text().splitlines()[1:]
    assert not any("policy.changed" in line for line in lines), "it voids what waits"
    events = [json.loads(line) for line in lines]
    held = Counter(outcome for event in events if (outcome := _outcome(event)))
    assert {name: held[name] for name in TOTALS} == summary["totals"]
    assert all(summary["totals"].values())
    assert summary["events"] == summary["head"] == len(events)
    by_agent: Counter[str] = Counter()
    for counts in summary["agents"].values():
        by_agent.update(counts)
    assert by_agent == Counter(summary["totals"])
    assert (await run(home, "audit", "verify"))[0] == 0
    told = (home / "events.jsonl").read_text()  # its sink of every event
    assert '"status":"Escalated"' in told

    code, out, err = await run(home, *("demo", "--headless", "--for", "1"))
    assert (code, err) == (0, "")
    assert json.loads(out)["totals"]["allowed"] > summary["totals"]["allowed"]


def _outcome(event: dict[str, Any]) -> str | None:
    """Find the outcome in an exported line, whose body may be nested."""
    body = event.get("event", event)
    found = json.loads(body) if isinstance(body, str) else body
    outcome: str | None = found["outcome"]
    return outcome


async def test_settings_that_know_no_such_connection_are_left(tmp_path: Path) -> None:
    """A home with settings of its own keeps them: the demo says what it lacks."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text('[console]\ntheme = "mono"\n')
    with closing(Demo(home)) as demo:
        demo.start()
        async with operators_of(home) as operators:
            await stepup(operators, "send:payment", "pending")
        summary, more = demo.stop(signal.SIGINT)
    assert summary["totals"]["allowed"]
    assert b"[connections.NAME]" in more
    assert "mono" in (home / "config.toml").read_text()
    assert "connections" not in (home / "config.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--headless", "--agents", "0"), "--agents is 0"),
        (("--headless", "--rate", "0"), "--rate is 0: above 0, at most 10000"),
        (("--headless", "--for", "soon"), "value for '--for'"),
    ],
)
async def test_demo_options_out_of_range_are_refused(
    arguments: tuple[str, ...], says: str
) -> None:
    """Bad options exit 2 with one line that names the option."""
    code, out, err = await run(None, "demo", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


async def test_foreign_agents_are_left_alone(tmp_path: Path) -> None:
    """A home with an agent of the same name, not the demo's, is refused."""
    home = tmp_path / "h"
    with serving(home, tenant=False) as vault:
        vault.register("email-agent", "read:email")
        busy = await run(home, *("demo", "--headless", "--for", "1"))
    code, _, err = await run(home, *("demo", "--headless", "--for", "1"))
    assert code == 1
    assert "email-agent" in err
    assert busy[0] == 1
    assert str(vault.ready["pid"]) in busy[2]
