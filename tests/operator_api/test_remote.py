"""A broker elsewhere from the client's side: its URL, and where a session is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import pytest
from support.bench import Bench
from support.elsewhere import Stand
from support.manual_clock import ManualClock
from support.patience import PATIENT

from agentvault_tui.errors import (
    AgentVaultError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls, holder
from agentvault_tui.operator_api.async_client import AsyncOperatorClient
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.remote import BoundSession, RemoteBroker
from agentvault_tui.operator_api.requests import RevokeRequest
from agentvault_tui.operator_api.shapes import AgentInfo
from agentvault_tui.web.local_ca import CaFiles

URL = "https://ops.example:7719"
DENIED = {"WWW-Authenticate": 'DPoP error="invalid_token"'}


class _Memory(keyring.backend.KeyringBackend):
    """A keyring that lasts as long as a test."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture(params=["keyring", "process"])
def place(
    request: pytest.FixtureRequest, short: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Have a keyring; or none, and a folder for the socket of a process."""
    before = keyring.get_keyring()
    sealed = request.param == "keyring"
    keyring.set_keyring(_Memory() if sealed else keyring.backends.fail.Keyring())
    short.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    yield short
    RemoteBroker(URL).forget()
    keyring.set_keyring(before)


def signed_in(token: str, seconds: float = 3600) -> RemoteBroker:
    broker = RemoteBroker(URL)
    broker.begin()
    broker.begun(token)
    broker.keep(seconds)
    return broker


def token(broker: RemoteBroker) -> str:
    return broker.headers("GET", "/api/agents")["Authorization"]


def test_a_session_is_there_for_the_next_command_until_it_is_forgotten(
    place: Path,
) -> None:
    """Another sign-in takes its place; without any a command says what to do."""
    signed_in("av_s_first")
    assert token(RemoteBroker(URL)) == "DPoP av_s_first"
    signed_in("av_s_second")
    assert token(RemoteBroker(URL)) == "DPoP av_s_second"
    with pytest.raises(RefusedError, match="not signed in"):
        token(RemoteBroker("https://other.example"))
    RemoteBroker(URL).forget()
    with pytest.raises(RefusedError, match="not signed in") as caught:
        token(RemoteBroker(URL))
    assert caught.value.remedy == f"agentvault --connect {URL} login"


def test_nothing_of_it_is_in_a_file(place: Path) -> None:
    """The one thing there may be is a socket of its user alone."""
    signed_in("av_s_secret")
    for path in place.glob("**/*"):
        assert not path.is_file()
        if path.is_socket():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_session_that_is_over_is_forgotten_and_a_newer_one_is_used(
    place: Path,
) -> None:
    """A console that is open goes on after a sign-in in another terminal."""
    console = signed_in("av_s_old")
    signed_in("av_s_new")
    assert token(console) == "DPoP av_s_old"
    assert not console.renews(401, DENIED)
    assert token(console) == "DPoP av_s_new"
    assert not console.renews(401, DENIED)
    with pytest.raises(RefusedError):
        token(RemoteBroker(URL))


@pytest.mark.parametrize("place", ["keyring"], indirect=True)
@pytest.mark.parametrize(
    "kept", ["x", "[]", "{}", '{"key": {}, "token": ""}', '{"key": 1, "token": ""}']
)
def test_what_is_kept_and_no_session_counts_as_none(place: Path, kept: str) -> None:
    """A command says that nobody is signed in, and the next sign-in replaces it."""
    signed_in("av_s_first")
    ring = keyring.get_keyring()
    assert isinstance(ring, _Memory)
    ring.kept = dict.fromkeys(ring.kept, kept)
    with pytest.raises(RefusedError, match="not signed in"):
        token(RemoteBroker(URL))
    signed_in("av_s_second")
    assert token(RemoteBroker(URL)) == "DPoP av_s_second"


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_the_process_ends_with_the_session(place: Path) -> None:
    """It takes its socket with it."""
    signed_in("av_s_short", seconds=1)
    ends = time.monotonic() + PATIENT
    while [path for path in place.glob("**/*.sock") if path.exists()]:
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_the_process_is_hardened_and_outlives_its_terminal(place: Path) -> None:
    """It leaves no core dump, and a hangup of the session it came from is not its."""
    signed_in("av_s_kept")
    (socket_path,) = place.glob("**/*.sock")
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(socket_path))
        credentials = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    (pid, _, _) = struct.unpack("3i", credentials)
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert os.getsid(pid) != os.getsid(0)


def test_who_asks_nothing_keeps_nobody_waiting(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is for the next one who asks, after a moment."""
    monkeypatch.setattr(holder, "_PATIENCE", 0.01)
    with contextlib.ExitStack() as ending:
        bound, silent, asking = (
            ending.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)
        )
        bound.bind(str(short / "s"))
        bound.listen()
        silent.connect(str(short / "s"))
        assert holder._answered(bound, memoryview(b"secret"))
        asking.connect(str(short / "s"))
        asking.sendall(holder.GET)
        assert holder._answered(bound, memoryview(b"secret"))
        assert asking.recv(64) == b"secret"


@pytest.mark.parametrize("place", ["process"], indirect=True)
def test_a_folder_that_others_reach_holds_no_session(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is open, nor none: the session would be for them too."""
    place.chmod(0o755)
    with pytest.raises(SettingsError, match="XDG_RUNTIME_DIR"):
        signed_in("av_s_open")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(SettingsError, match="XDG_RUNTIME_DIR"):
        signed_in("av_s_none")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://ops.example", "ops.example", "https://", "https://a/b", ""),
        *(
            "https://u@a",
            "https://a:x",
            "https://a?b",
            "https://a#b",
            "https://a?",
            "https://a:0",
            "https://a:99999",
            "https://a b",
            "https://a..b",
            f"https://{'a' * 64}.example",
        ),
    ],
)
def test_what_is_no_origin_is_refused(url: str) -> None:
    """Only https, and only host and port."""
    with pytest.raises(AgentVaultError, match="names no broker"):
        RemoteBroker(url)


def test_the_url_is_spelled_as_the_broker_spells_it() -> None:
    """In lower case, without the default port, with brackets: proofs are for it."""
    assert RemoteBroker("https://Ops.Example:443/").url == "https://ops.example"
    assert RemoteBroker("https://[FD00::1]:7719").url == "https://[fd00::1]:7719"


def test_a_stream_from_elsewhere_that_falls_silent_ends() -> None:
    """No network says that a broker is gone; one that is there says so every 5 s."""
    client = OperatorClient(RemoteBroker(URL))
    assert client._connection(None).timeout == 30
    assert client._connection(90).timeout == 90


def test_a_session_shows_nothing_of_itself() -> None:
    """No repr, so no log or traceback, has the token or the key."""
    session = BoundSession.new()
    session.token = "av_s_secret"
    assert "secret" not in f"{session!r} {session}"


@pytest.fixture
async def stand(short: Path) -> AsyncIterator[Stand]:
    """A broker whose clock stands at the real time, by which proofs are made."""
    clock = ManualClock(datetime.now(UTC))
    bench = await Bench.open(Home.locate(short / "home"), clock)
    async with Stand.open(bench) as stand:
        yield stand
    await bench.close()


async def drained(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_calls_at_once_outlive_their_nonce_and_end_with_the_session(
    stand: Stand,
) -> None:
    """Each is made again with the nonce it is given; a stream goes on meanwhile."""
    broker = RemoteBroker(stand.url, str(CaFiles.of(stand.bench.home).ca))
    async with contextlib.aclosing(AsyncOperatorClient(broker)) as client:
        broker.begin()
        broker.begun((await client.call(calls.SIGN_IN)).access_token)
        who = {"sub": "auth0|vera", "roles": ("operator",), "amr": ("mfa", "otp")}
        stand.bench.tenant.approve(who=who)
        while (await client.call(calls.ME)).pending:
            pass
        stream = client.events(0, "console")
        assert await anext(stream) == []
        for _ in range(3):
            stand.bench.clock.advance(61)
            stand.bench.clock.jump_wall(-61)
            asked = (client.call(calls.STATUS) for _ in range(8))
            assert len(await asyncio.gather(*asked)) == 8
        agent = await stand.bench.agent("payer")
        cut = RevokeRequest(agent_id=agent.id, reason="r")
        assert (await client.call(calls.REVOKE, cut)).agent
        async with asyncio.timeout(PATIENT):
            while not any(isinstance(one, AgentInfo) for one in await anext(stream)):
                pass
        await client.call(calls.LOGOUT)
        with pytest.raises(UnreachableError):
            await asyncio.wait_for(drained(stream), PATIENT)
        with pytest.raises(RefusedError):
            await client.call(calls.STATUS)


async def test_an_authority_that_is_not_named_vouches_for_nothing(stand: Stand) -> None:
    """Command line and console say that it is the certificate, and what to do."""
    broker = RemoteBroker(stand.url)
    broker.begin()
    async with contextlib.aclosing(AsyncOperatorClient(broker)) as client:
        with pytest.raises(UnreachableError, match="is not trusted") as caught:
            await client.call(calls.SIGN_IN)
    assert "--ca-file" in caught.value.remedy
    with pytest.raises(UnreachableError, match="is not trusted"):
        await asyncio.to_thread(OperatorClient(broker).call, calls.SIGN_IN)
