"""TLS on real sockets: who may speak, until when, and what is said to who may not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from support.patience import until
from support.web_kit import QUICK, Serve, read_all, talk

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.web import Server
from agentvault_tui.web.local_ca import CaFiles, renew
from agentvault_tui.web.places import Limits
from agentvault_tui.web.tls import ServerTls, TlsFiles

GET = b"GET / HTTP/1.1\r\nHost: @\r\n\r\n"
HELLO = bytes.fromhex("1603010200010001fc0303")
"""How a ClientHello of 508 bytes begins."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CaFiles:
    home = Home.locate(tmp_path_factory.mktemp("tls") / "home")
    home.prepare()
    renew(home, now=datetime.now(UTC))
    return CaFiles.of(home)


@pytest.fixture
def tls(files: CaFiles) -> ServerTls:
    return ServerTls(files.leaf)


@pytest.fixture(scope="module")
def trust(files: CaFiles) -> ssl.SSLContext:
    """An agent that knows the authority, as strict as Python 3.13 is."""
    context = ssl.create_default_context(cafile=str(files.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def secure(
    port: int, trust: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=trust)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_client_that_checks_everything_is_served(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext, name: str
) -> None:
    """The listener says https, and httpx with the authority alone accepts it."""
    listener = await serve(tls=tls)
    assert listener.url == f"https://127.0.0.1:{listener.port}"
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        url = f"https://{name}:{listener.port}/"
        answers = [await client.post(url, content=b"12345") for _ in range(3)]
    assert [(a.status_code, a.json()["length"]) for a in answers] == [(200, 5)] * 3


async def test_a_client_that_does_not_know_the_authority_refuses(
    serve: Serve, tls: ServerTls
) -> None:
    """Nothing vouches for the certificate but the home's own authority."""
    listener = await serve(tls=tls)
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(listener.url)


@pytest.mark.parametrize(
    ("least", "most"),
    [(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), (ssl.TLSVersion.TLSv1_3,) * 2],
)
async def test_tls_1_2_and_1_3_are_spoken(
    serve: Serve,
    tls: ServerTls,
    files: CaFiles,
    least: ssl.TLSVersion,
    most: ssl.TLSVersion,
) -> None:
    """TLS 1.2 and 1.3 are served; who offers HTTP/2 beside is given HTTP/1.1."""
    trust = ssl.create_default_context(cafile=str(files.ca))
    trust.minimum_version, trust.maximum_version = least, most
    trust.set_alpn_protocols(["h2", "http/1.1"])
    listener = await serve(tls=tls)
    _, writer = await secure(listener.port, trust)
    spoken = writer.get_extra_info("ssl_object")
    assert spoken.version() == least.name.replace("_", ".")
    assert spoken.selected_alpn_protocol() == "http/1.1"
    writer.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_an_old_version_is_refused(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext
) -> None:
    """TLS 1.1 does not get through the handshake, and the listener goes on."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    listener = await serve(tls=tls)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await secure(listener.port, old)
    _, writer = await secure(listener.port, trust)
    writer.close()


@pytest.mark.parametrize(
    "sent", [GET, b"POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\n\r\nabcd", b"?"]
)
async def test_plain_http_is_told_so_and_closed(
    serve: Serve, tls: ServerTls, sent: bytes
) -> None:
    """Who forgets the s reads why, in the shape of every other error."""
    listener = await serve(tls=tls)
    head, _, body = (await talk(listener, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert b'"this port speaks TLS: ask with https"' in body
    assert not listener.connections


async def test_a_plain_client_library_reads_the_refusal(
    serve: Serve, tls: ServerTls
) -> None:
    """The answer is not lost to a reset, also when a body is still on its way."""
    listener = await serve(tls=tls)
    async with httpx.AsyncClient(trust_env=False) as client:
        url = listener.url.replace("https", "http")
        answer = await client.post(url, content=b"x" * 20_000)
    assert answer.status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    "pieces",
    [(), (HELLO[:1],), (HELLO,), (HELLO, b"\x00" * 100)],
    ids=["silent", "one byte", "a record's head", "half a hello"],
)
async def test_a_handshake_has_the_deadline_of_headers(
    serve: Serve, tls: ServerTls, pieces: tuple[bytes, ...]
) -> None:
    """Who connects and does not get on with it is hung up on, without a word."""
    listener = await serve(tls=tls, limits=QUICK)
    assert await talk(listener, *pieces) == b""


@pytest.mark.slow
async def test_a_trickled_handshake_does_not_move_the_deadline(
    serve: Serve, tls: ServerTls
) -> None:
    """One byte of a hello now and then is no progress (slowloris)."""
    listener = await serve(tls=tls, limits=QUICK)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(HELLO)
    ended = asyncio.create_task(read_all(reader))
    async with asyncio.timeout(30):
        while not ended.done():
            writer.write(b"\x00")
            await asyncio.wait({ended}, timeout=0.05)
    assert await ended == b""
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16" + b"\xff" * 200,
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x03\xff\xff" + b"a" * 70_000,
    ],
    ids=["no record", "a hello of nothing", "too long a record"],
)
async def test_a_malformed_handshake_ends_only_its_own_connection(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext, sent: bytes
) -> None:
    """What is no handshake is closed at once, and the next client is served."""
    listener = await serve(tls=tls, limits=Limits(head_seconds=60))
    await talk(listener, sent)
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        assert (await client.get(listener.url)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 9\r\n",
        b"POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 9\r\n\r\nab",
    ],
    ids=["silent", "method", "headers", "body"],
)
async def test_deadlines_hold_inside_tls(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext, sent: bytes
) -> None:
    """A finished handshake buys no time: headers and body have their own."""
    listener = await serve(tls=tls, limits=QUICK)
    reader, writer = await secure(listener.port, trust)
    writer.write(sent.replace(b"@", b"127.0.0.1:%d" % listener.port))
    async with asyncio.timeout(30):
        assert await read_all(reader) == b""
    writer.close()


async def test_idle_connections_of_one_user_shut_no_other_out(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext
) -> None:
    """With every place taken by a silent peer, one that speaks is still served."""
    few = Limits(head_seconds=60, connections=8)
    listener = await serve(tls=tls, limits=few)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            silent = stack.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", listener.port))
        client = httpx.AsyncClient(verify=trust, trust_env=False)
        await stack.enter_async_context(client)
        for _ in range(3):
            assert (await client.get(listener.url)).status_code == 200
            assert len(listener.connections) <= 8


async def test_stopping_waits_for_no_handshake(
    server: Server, serve: Serve, tls: ServerTls
) -> None:
    """A listener that stops hangs up on whoever has not finished."""
    listener = await serve(tls=tls, limits=Limits(head_seconds=60))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(HELLO)
    silent, idle = await asyncio.open_connection("127.0.0.1", listener.port)
    async with asyncio.timeout(10):
        await server.stop(0.1)
        assert await read_all(reader) == b""
        assert await read_all(silent) == b""
    writer.close()
    idle.close()


async def test_an_origin_is_ours_by_its_scheme_too(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext
) -> None:
    """A page of http://127.0.0.1 is another site to https://127.0.0.1."""
    listener = await serve(tls=tls)
    async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
        own = await client.get(listener.url, headers={"origin": listener.url})
        plain = listener.url.replace("https", "http")
        other = await client.get(listener.url, headers={"origin": plain})
        named = await client.get(listener.url, headers={"host": "evil.test"})
    assert [own.status_code, other.status_code, named.status_code] == [200, 403, 421]


async def test_a_renewed_certificate_is_shown_without_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    """The next connection sees the new one; half of a renewal changes nothing."""
    home = Home.locate(tmp_path / "home")
    home.prepare()
    renew(home, now=datetime.now(UTC))
    leaf = CaFiles.of(home).leaf
    trust = ssl.create_default_context(cafile=str(CaFiles.of(home).ca))
    listener = await serve(tls=ServerTls(leaf))

    async def shown() -> bytes:
        _, writer = await secure(listener.port, trust)
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return certificate

    before, key = await shown(), leaf.key.read_bytes()
    renew(home, now=datetime.now(UTC))
    after, new_key = await shown(), leaf.key.read_bytes()
    assert before != after
    leaf.key.write_bytes(key)
    assert await shown() == after
    leaf.key.write_bytes(new_key)
    assert await shown() == after


def test_a_key_that_others_can_read_is_refused(files: CaFiles, tmp_path: Path) -> None:
    """Mode 0600, ours, a file, no passphrase, and of this certificate; else why not."""
    key = tmp_path / "key.pem"
    key.write_bytes(files.leaf.key.read_bytes())
    for mode in (0o640, 0o604, 0o660, 0o777):
        key.chmod(mode)
        with pytest.raises(SettingsError, match="open to others"):
            ServerTls(TlsFiles(files.leaf.cert, key))
    key.chmod(0o400)
    if os.geteuid() == 0:
        os.chown(key, 12_345, -1)
        with pytest.raises(SettingsError, match="belongs to uid 12345"):
            ServerTls(TlsFiles(files.leaf.cert, key))
        os.chown(key, 0, -1)
    assert ServerTls(TlsFiles(files.leaf.cert, key)).context()


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("none.pem", "key.pem", "cannot be read"),
        ("cert.pem", "none.pem", "cannot be read"),
        ("cert.pem", ".", "is not a file"),
        ("cert.pem", "other.pem", "key values mismatch"),
        ("rubbish.pem", "key.pem", "no certificate and its key"),
        ("cert.pem", "rubbish.pem", "no certificate and its key"),
        ("cert.pem", "locked.pem", "is encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    files: CaFiles, tmp_path: Path, cert: str, key: str, why: str
) -> None:
    """Each fault is a sentence with a remedy, and never the key."""
    from cryptography.hazmat.primitives import serialization as pem  # noqa: PLC0415

    ours = pem.load_pem_private_key(files.leaf.key.read_bytes(), None)
    locked = ours.private_bytes(
        pem.Encoding.PEM,
        pem.PrivateFormat.PKCS8,
        pem.BestAvailableEncryption(b"secret"),
    )
    for name, content in {
        "cert.pem": files.leaf.cert.read_bytes(),
        "key.pem": files.leaf.key.read_bytes(),
        "other.pem": files.ca_key.read_bytes(),
        "rubbish.pem": b"-----BEGIN NOTHING-----\n\x00\xff",
        "locked.pem": locked,
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    with pytest.raises(SettingsError, match=why) as error:
        ServerTls(TlsFiles(tmp_path / cert, tmp_path / key))
    assert error.value.remedy or key == "."
    assert "PRIVATE" not in error.value.diagnosis()


def test_a_certificate_that_others_could_write_is_not_shown(
    files: CaFiles, tmp_path: Path
) -> None:
    """They could make the listener present another chain, or none."""
    cert = tmp_path / "cert.pem"
    cert.write_bytes(files.leaf.cert.read_bytes())
    cert.chmod(0o666)
    with pytest.raises(SettingsError, match="others can write to"):
        ServerTls(TlsFiles(cert, files.leaf.key))


async def test_a_peer_that_never_says_goodbye_is_let_go(
    serve: Serve, tls: ServerTls, trust: ssl.SSLContext
) -> None:
    """A close the peer does not answer ends the connection all the same."""
    listener = await serve(tls=tls, limits=replace(QUICK, idle_seconds=0.1))
    raw = socket.create_connection(("127.0.0.1", listener.port))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(raw, outgoing.read())
                incoming.write(await loop.sock_recv(raw, 65_536))
        client.write(GET.replace(b"@", b"127.0.0.1:%d" % listener.port))
        await loop.sock_sendall(raw, outgoing.read())
        # Reads nothing of TLS any more: neither the answer nor the goodbye.
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(raw, 65_536):
                pass
        await until(lambda: not listener.connections)
    raw.close()
    assert not listener.connections
