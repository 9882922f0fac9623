"""Where a browser ends: another local process must not keep it from us."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support.patience import PATIENT

from agentvault_tui.cli import connections as callback
from agentvault_tui.cli.connections import listening
from agentvault_tui.errors import RefusedError


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal nobody has typed into yet: what is written here is typed there."""
    keys, screen = os.pipe()
    with os.fdopen(keys) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield screen
    os.close(screen)


def asked(port: int, path: str, host: str) -> int:
    """Ask as a browser does; return the status."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENT)) as connection:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/callback?code=theirs", "evil.example"),
        ("/callback?code=theirs", "localhost:{port}"),
        ("/other?code=theirs", "127.0.0.1:{port}"),
        ("/callback", "127.0.0.1:{port}"),
    ],
)
def test_the_callback_takes_only_its_own_host_and_path(
    path: str, host: str, typing: int
) -> None:
    """Under another name, which a rebinding site has, or at another path: nothing."""
    statuses: list[int] = []

    def browse(port: int) -> None:
        ours = f"127.0.0.1:{port}"
        statuses.append(asked(port, path, host.format(port=port)))
        statuses.append(asked(port, "/callback?code=ours&state=s", ours))

    with listening(0) as back:
        port = int(back.address.split(":")[2].split("/")[0])
        browser = threading.Thread(target=browse, args=(port,))
        browser.start()
        came = back.next(20)
        browser.join(20)
    assert came == f"http://127.0.0.1:{port}/callback?code=ours&state=s"
    assert statuses == [404, 200]


def test_a_pasted_address_is_read_when_the_port_is_taken(typing: int) -> None:
    """Two at once are two answers, one after the other."""
    with listening(0) as first:
        port = int(first.address.split(":")[2].split("/")[0])
        with listening(port) as second:
            assert not second.listens
            assert second.address == first.address
            os.write(typing, b"  http://127.0.0.1/callback?code=1 \r\nhttp://two\n")
            assert second.next(20) == "http://127.0.0.1/callback?code=1"
            assert second.next(20) == "http://two"


def test_a_pasted_address_is_read_while_the_port_is_flooded(typing: int) -> None:
    """What a person pastes counts also while another local program has a request in."""
    with listening(0) as back:
        port = int(back.address.split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as rogue:
            name = f"Host: 127.0.0.1:{port}"
            rogue.sendall(f"GET /callback?state=no HTTP/1.1\r\n{name}\r\n\r\n".encode())
            os.write(typing, b"http://127.0.0.1/callback?code=1\n")
            assert back.next(20) == "http://127.0.0.1/callback?code=1"


@pytest.mark.slow
def test_a_slow_request_does_not_block_the_callback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte now and then is hung up on as a whole, however soon each byte comes."""
    monkeypatch.setattr(callback, "_SLOWEST", 0.2)
    cut = threading.Event()

    def drip(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as rogue:
            try:
                for _ in range(200):
                    rogue.sendall(b"G")
                    rogue.settimeout(0.05)
                    try:
                        if rogue.recv(1) == b"":
                            break
                    except TimeoutError:
                        continue
                else:
                    return
            except OSError:
                pass
            cut.set()

    with Path(os.devnull).open() as nothing, listening(0) as back:
        monkeypatch.setattr("sys.stdin", nothing)
        port = int(back.address.split(":")[2].split("/")[0])
        rogue = threading.Thread(target=drip, args=(port,))
        rogue.start()
        with pytest.raises(RefusedError):
            back.next(1.0)
        rogue.join(20)
    assert cut.is_set()


GOOD = "/callback?code=abc&state=xyz"


def ask(port: int, target: str, **headers: str) -> int:
    """Send one request as a browser or another program would; return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENT)
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_callback_ignores_requests_that_are_no_navigation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other names, paths, parts of pages and endless addresses end no sign-in."""
    statuses: list[int] = []

    def come(port: int) -> None:
        for target, headers in (
            (GOOD, {"Host": f"evil.test:{port}"}),
            (GOOD, {"Host": f"localhost:{port}"}),
            (GOOD, {"Host": "127.0.0.1"}),
            (GOOD, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
            (GOOD, {"Sec-Fetch-Mode": "cors"}),
            ("/callback", {}),
            ("/callback?", {}),
            ("/other?code=abc&state=xyz", {}),
            (f"/callback?{'a' * 65_000}", {}),
            (f"http://evil.test{GOOD}", {}),
            (GOOD, {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}),
        ):
            statuses.append(ask(port, target, **headers))

    with Path(os.devnull).open() as nothing, listening(0) as back:
        monkeypatch.setattr("sys.stdin", nothing)
        port = int(back.address.split(":")[2].split("/")[0])
        browser = threading.Thread(target=come, args=(port,))
        browser.start()
        assert back.next(20.0) == f"http://127.0.0.1:{port}{GOOD}"
        browser.join(20)
    assert statuses == [404] * 10 + [200]
