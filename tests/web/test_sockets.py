"""Sockets we bind: where, with what mode, and for whom."""

# ruff: noqa: ASYNC240 - files are part of what is tested

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.needs import as_root
from support.patience import PATIENT
from support.ports import bind_error
from support.web_kit import Serve

from agentvault_tui.errors import ConflictError, SettingsError
from agentvault_tui.web import Receive, Scope, Send, Server, loopback_pair, sockets
from agentvault_tui.web.reply import json_reply
from agentvault_tui.web.sockets import tcp_peer_uid, tcp_socket, unix_socket

CONNECT = """
import os, socket, sys
if len(sys.argv) > 2: os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    print(s.recv(4096).partition(b"\\r\\n")[0].decode() or "closed")
except OSError as error:
    print(type(error).__name__)
"""

KEPT_OUT = {"closed", "ConnectionResetError", "BrokenPipeError"}


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose path a socket's name fits into."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        yield Path(folder) / "run" / "s.sock"


async def connect(path: Path, *uid: str) -> str:
    """Ask in another process, perhaps as another user."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONNECT, str(path), *uid, stdout=subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said.decode().strip()


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    peer = scope["state"]["peer"]
    await json_reply(200, {"uid": peer.uid, "pid": peer.pid}).send(send)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_unix_socket_is_ours_alone_under_any_umask(short: Path, umask: int) -> None:
    """The file is 0600 and its new folder 0700 before anyone can connect."""
    before = os.umask(umask)
    try:
        bound = unix_socket(short)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(short.stat().st_mode) == 0o600
    assert stat.S_IMODE(short.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(short))
    bound.close()


async def test_handlers_know_the_peer(server: Server, short: Path) -> None:
    """The kernel says who asks: our own uid and the client's pid."""
    await server.listen(who, unix_socket(short))
    transport = httpx.AsyncHTTPTransport(uds=str(short))
    async with httpx.AsyncClient(transport=transport) as client:
        said = (await client.get("http://operators/")).json()
    assert said == {"uid": os.geteuid(), "pid": os.getpid()}


@as_root
async def test_another_user_cannot_connect_to_the_unix_socket(
    server: Server, short: Path
) -> None:
    """Modes stop another uid, and where they do not, the peer check does."""
    await server.listen(who, unix_socket(short))
    assert await connect(short, "65534") == "PermissionError"
    short.parent.parent.chmod(0o755)
    short.parent.chmod(0o755)
    short.chmod(0o666)
    assert await connect(short, "65534") in KEPT_OUT
    assert await connect(short) == "HTTP/1.1 200 OK"


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(
    server: Server, short: Path
) -> None:
    """What a crash left behind does not stop a start; a second server is refused."""
    unix_socket(short).close()
    assert short.exists()
    await server.listen(who, unix_socket(short))
    with pytest.raises(ConflictError, match="already listens"):
        unix_socket(short)
    assert await connect(short) == "HTTP/1.1 200 OK"
    await server.stop()
    assert not short.exists()


async def test_stopping_leaves_a_successors_socket_alone(
    server: Server, short: Path
) -> None:
    """Only the file this process made is removed."""
    await server.listen(who, unix_socket(short))
    short.unlink()
    other = unix_socket(short)
    await server.stop()
    assert short.exists()
    other.close()


def test_what_is_not_a_socket_is_not_removed(short: Path) -> None:
    """A file in the way is the operator's to move."""
    short.parent.mkdir(mode=0o700)
    short.write_text("mine")
    with pytest.raises(SettingsError, match="not a socket"):
        unix_socket(short)
    assert short.read_text() == "mine"


def test_a_folder_that_others_can_write_in_is_refused(short: Path) -> None:
    """There, anyone could put a socket of their own in our place."""
    short.parent.mkdir()
    short.parent.chmod(0o777)
    with pytest.raises(SettingsError, match="others can write"):
        unix_socket(short)
    assert not short.exists()
    short.parent.chmod(0o1777)
    unix_socket(short).close()


def test_a_path_that_is_too_long_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The system would cut it."""
    with pytest.raises(SettingsError) as caught:
        unix_socket(tmp_path / ("x" * 100) / "s")
    assert "shorter" in caught.value.diagnosis()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "localhost", "x"])  # noqa: S104
def test_only_loopback_is_bound(host: str) -> None:
    """No flag or setting opens the broker to the network."""
    with pytest.raises(SettingsError):
        tcp_socket(host, 0)


def test_a_port_in_use_is_told(server: Server) -> None:
    """The second server says what is wrong and what to do."""
    with tcp_socket("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(ConflictError, match="in use") as caught:
            tcp_socket("127.0.0.1", first.getsockname()[1])
    assert "[broker] listen" in caught.value.diagnosis()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_ours_on_both_loopbacks(host: str) -> None:
    """Nobody can bind the other one, to be sent what is meant for localhost."""
    bound, held = loopback_pair(host, 0)
    port = bound.getsockname()[1]
    assert held is not None
    with bound, held:
        assert bind_error("127.0.0.1", port) == errno.EADDRINUSE
        assert bind_error("::1", port) == errno.EADDRINUSE
        with socket.socket(held.family) as localhost:
            # Refused at once, so that a client goes on to the other address.
            assert localhost.connect_ex((held.getsockname()[0], port)) != 0


def test_another_program_on_the_other_loopback_is_told() -> None:
    """The broker does not start beside it; where any port will do, another is taken."""
    with socket.socket(socket.AF_INET6) as stranger:
        stranger.bind(("::1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(ConflictError, match=r"on ::1 is in use") as caught:
            loopback_pair("127.0.0.1", port)
        assert "localhost" in caught.value.diagnosis()
        assert bind_error("127.0.0.1", port) is None  # nothing is left behind


def test_without_ipv6_one_loopback_is_enough(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that has no ::1 has nobody on it; the log says so."""
    monkeypatch.setitem(sockets._TWINS, "127.0.0.1", "2001:db8::1")
    with caplog.at_level(logging.INFO, "agentvault.web"):
        bound, held = loopback_pair("127.0.0.1", 0)
    bound.close()
    assert held is None
    assert "127.0.0.1 alone is held" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_tells_whose_a_connection_is(host: str) -> None:
    """While the other end is held open, and nothing after that."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((host, 0))
        server.listen()
        client.connect(server.getsockname()[:2])
        accepted, _ = server.accept()
        with accepted:
            assert tcp_peer_uid(accepted) == os.geteuid()
            client.close()
            assert tcp_peer_uid(accepted) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@as_root
def test_uids_that_are_lent_to_one_user_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user of containers has 65,536 of them, and would have as many places."""
    lent = tmp_path / "subuid"
    monkeypatch.setattr(sockets, "_SUBUIDS", lent)

    def told(uid: int) -> int | None:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            os.fchown(client.fileno(), uid, -1)
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                return tcp_peer_uid(accepted)

    assert told(165_541) == 165_541
    lent.write_text("mallory:165536:65536\nolga:100000:10\nodd\n\nx:1:y\nmallory:9:5\n")
    assert {told(uid) for uid in (165_536, 165_541, 231_071, 9, 13)} == {165_536}
    assert {told(uid) for uid in (100_000, 100_009)} == {100_000}
    assert [told(uid) for uid in (0, 8, 14, 100_010, 231_072)] == [
        *(0, 8, 14, 100_010, 231_072)
    ]
    lent.write_bytes(b"\xff:0:9999999\n")
    assert told(165_541) == 165_541


async def test_answers_do_not_wait_for_acknowledgements(serve: Serve) -> None:
    """TCP_NODELAY is on in every accepted connection."""
    listener = await serve()
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        await client.get(listener.url)
        (connection,) = listener.connections
        transport = connection.transport  # type: ignore[union-attr]
        accepted = transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_ipv6_loopback_is_served(server: Server) -> None:
    """Several listeners share one loop, on both families."""
    try:
        bound = tcp_socket("::1", 0)
    except SettingsError:
        pytest.skip("this machine has no ::1")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await json_reply(200, scope["server"][0]).send(send)

    six = await server.listen(app, bound)
    four = await server.listen(app, tcp_socket("127.0.0.1", 0))
    async with httpx.AsyncClient(timeout=PATIENT, trust_env=False) as client:
        assert (await client.get(six.url)).json() == "::1"
        assert (await client.get(four.url)).json() == "127.0.0.1"


async def test_a_connection_that_is_closed_can_be_aborted_again() -> None:
    """Cutting a call closes its connections; its end does so once more."""
    here, there = socket.socketpair()
    with there:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=here
        )
        sockets.abort(transport)
        there.settimeout(PATIENT)
        assert await asyncio.to_thread(there.recv, 1) == b""
        sockets.abort(transport)
