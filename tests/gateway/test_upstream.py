"""Services that are elsewhere, down, slow, hostile or rubbish, through ``/gw/``."""

from __future__ import annotations

import asyncio
import encodings
import gzip
import socket
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from support.gateway_stand import SECRET, Answer, Received, Stand, Upstream, answers, ok
from support.tls_front import trusted

from agentvault_tui.gateway import gateway as gateway_module
from agentvault_tui.gateway import upstream as upstream_module
from agentvault_tui.gateway.upstream import Upstream as Reached
from agentvault_tui.home import Home
from agentvault_tui.model import Agent
from agentvault_tui.web.local_ca import CaFiles
from agentvault_tui.web.reach import may_reach
from agentvault_tui.web.service_connection import Bounds

SERVICE = """
[credential]
kind = "bearer"
secret = "key"
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "read:calendar"
[[routes]]
method = "PUT"
path = "/{rest*}"
scope = "write:calendar"
"""

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    return await stand.agent("read:calendar", "write:calendar")


@pytest.fixture
async def headers(stand: Stand, agent: Agent) -> dict[str, str]:
    token = await stand.token(agent, "read:calendar write:calendar")
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines in tenths, and small caps."""
    bounds = Bounds(connect=0.3, idle=0.3, whole=5.0, answer_bytes=1_000_000)
    monkeypatch.setattr(
        gateway_module,
        "Upstream",
        lambda service, **more: Reached(service, bounds, **more),
    )


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:4700::1111", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("169.254.169.254", False, True),
        ("100.64.0.1", False, True),
        ("::1", False, True),
        ("fe80::1%eth0", False, True),
        ("fd00::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("64:ff9b::7f00:1", False, True),
        ("64:ff9b::5db8:d822", True, True),
        ("2002:7f00:1::1", False, True),
        ("fec0::1", False, True),
        ("::127.0.0.1", False, True),
        ("64:ff9b:1::7f00:1", False, True),
        ("4000::1", False, True),
        ("0.0.0.0", False, False),  # noqa: S104 - refused
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
        ("255.255.255.255", False, False),
        ("::ffff:224.0.0.1", False, False),
    ],
)
def test_only_addresses_a_service_may_have_are_reached(
    address: str, public: bool, private: bool
) -> None:
    """Private ones need allow_private; what stands for many or for none never goes."""
    assert may_reach(address, private=False) is public
    assert may_reach(address, private=True) is private


async def test_a_private_address_is_refused_after_resolution(
    stand: Stand, headers: dict[str, str]
) -> None:
    """A name or literal for loopback is upstream_refused; nobody is connected to."""
    for host in ("localhost", "127.0.0.1"):
        head = f'origin = "http://{host}:{stand.upstream.port}"\nallow_http = true\n'
        await stand.service(SERVICE, head=head)
        reply = await stand.client.get("/gw/api/x", headers=headers)
        assert (reply.status_code, reply.json()["error"]) == (502, "upstream_refused")
    assert stand.upstream.connections == 0
    assert ("result", "failed") in await stand.records()


async def test_a_name_is_resolved_once_a_connection(
    stand: Stand, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise the second time is connected to as it was checked;
    one that names an address it may not have among others is not connected to at all.
    """
    answers = [["127.0.0.1"], ["127.0.0.1", "0.0.0.0"]]  # noqa: S104
    asked: list[str] = []

    async def resolve(_: Any, host: Any, port: Any, **__: Any) -> list[Any]:
        if host == "api.test":
            asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    origin = f"http://api.test:{stand.upstream.port}"
    await stand.service(SERVICE, origin=origin)
    monkeypatch.setattr(uvloop.Loop, "getaddrinfo", resolve)
    stand.upstream.answer = says(OK + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert (await stand.client.get("/gw/api/x", headers=headers)).status_code == 200
    host = f"api.test:{stand.upstream.port}"
    assert stand.upstream.received[0].header("host") == host
    assert len(asked) == 1
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (502, "upstream_refused")
    assert len(asked) == 2
    assert stand.upstream.connections == 1


async def test_the_environment_decides_nothing(
    stand: Stand, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables, netrc and authorities of the environment are not read."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    await stand.service(SERVICE)
    assert (await stand.client.get("/gw/api/x", headers=headers)).status_code == 200


async def test_a_certificate_is_verified_by_the_services_own_authorities(
    stand: Stand, headers: dict[str, str], short: Path
) -> None:
    """Self-signed, unknown and of another name are refused before a byte is sent."""
    other = Home.locate(short / "tls")
    other.prepare()
    tls, _, _ = trusted(other)
    secure = Upstream()
    await secure.start(tls.context())
    origin = f"https://127.0.0.1:{secure.port}"
    head = f'origin = "{origin}"\nallow_private = true\n'
    await stand.service(SERVICE, head=head)
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (502, "upstream_unreachable")
    assert secure.received == []
    authority = CaFiles.of(other).ca
    await stand.service(SERVICE, head=f'{head}ca_file = "{authority}"\n')
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert reply.status_code == 200, reply.text
    await secure.stop()


async def test_a_redirect_is_passed_on_and_not_followed(
    stand: Stand, headers: dict[str, str]
) -> None:
    """A service that points at a metadata address gets one request, and no other."""
    await stand.service(SERVICE)
    place = "http://169.254.169.254/latest/meta-data/"
    head = f"307 Temporary Redirect\r\nLocation: {place}"
    stand.upstream.answer = answers(head.encode(), b"")
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.headers["location"]) == (307, place)
    assert len(stand.upstream.received) == 1


def says(*pieces: bytes) -> Answer:
    """Answer with these bytes, a while between them, and hang up."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    return answer


KEY = SECRET.encode()
HALVES = KEY[:9], KEY[9:]
PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\n"
CASES = {
    "closes before it answers": b"",
    "answers rubbish": b"\x00\x01 rubbish\r\n\r\n",
    "speaks no HTTP": b"220 smtp ready\r\n",
    "breaks off its head": b"HTTP/1.1 200 OK\r\nX-",
    "has a head without end": OK + b"X: " + b"y" * 100_000,
    "has two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "changes protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    # RFC 9110 section 15.3.7: 206 answers a request with Range alone.
    "sends a part that was not asked for": PART + b"Content-Length: 2\r\n\r\nok",
    "would steer a terminal": OK + b"X-E: \x1b]0;x\x07\r\nContent-Length: 0\r\n\r\n",
    "echoes in a header": OK
    + b"X-Echo: %b\r\nContent-Length: 0\r\n\r\n" % SECRET.encode(),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_service_without_an_answer_is_told_by_a_code(
    stand: Stand, headers: dict[str, str], case: str, quick: None
) -> None:
    """Whatever it sends instead of an answer, the agent reads a code of ours."""
    code = "credential_echoed" if "echoes" in case else "upstream_reset"
    await stand.service(SERVICE)
    stand.upstream.answer = says(CASES[case])
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (502, code), reply.text
    assert reply.headers["agentvault-error"] == code
    result = await stand.result()
    assert (result.detail["ended"], result.reason) == ("failed", code)


async def broken(stand: Stand, headers: dict[str, str]) -> bytes:
    """Read an answer that breaks off, and return what came of it."""
    got = b""
    async with stand.client.stream("GET", "/gw/api/x", headers=headers) as reply:
        assert reply.status_code == 200
        try:
            async for piece in reply.aiter_raw():
                got += piece
        except httpx.TransportError:
            return got
    raise AssertionError("it looked whole")


async def test_a_service_that_is_down_or_slow(
    stand: Stand, headers: dict[str, str], quick: None
) -> None:
    """Nobody there is upstream_unreachable, no answer in time upstream_timeout."""
    gone = Upstream()
    await gone.start()
    await gone.stop()
    await stand.service(SERVICE, origin=f"http://127.0.0.1:{gone.port}")
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (502, "upstream_unreachable")
    await stand.service(SERVICE)

    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3_600)

    stand.upstream.answer = silent
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (504, "upstream_timeout")


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"Content-Length: 100\r\n\r\nhalf",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"zz\r\n"),
        (OK + b"Content-Length: 90\r\n\r\nhalf ", *HALVES, b" rest"),
    ],
    ids=["short", "no end", "bad chunk", "echo after the first byte"],
)
async def test_an_answer_that_goes_wrong_midway_is_cut(
    stand: Stand, headers: dict[str, str], pieces: tuple[bytes, ...], quick: None
) -> None:
    """The agent's connection breaks off: what it has never looks whole."""
    await stand.service(SERVICE)
    stand.upstream.answer = says(*pieces)
    got = await broken(stand, headers)
    assert HALVES[0] not in got
    result = await stand.result()
    assert result.detail["ended"] == "failed"


async def test_an_endless_answer_ends_at_a_cap(
    stand: Stand, headers: dict[str, str], quick: None
) -> None:
    """A service that sends without end is cut off once it has sent the most."""
    await stand.service(SERVICE)

    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()
            await asyncio.sleep(0)

    stand.upstream.answer = endless
    assert 0 < len(await broken(stand, headers)) <= 1_200_000


@pytest.mark.parametrize(
    "coding",
    ["gzip", "deflate", "raw", "br", "gzip, gzip", "identity", "", "Identity,"],
)
async def test_a_credential_does_not_pass_compressed(
    stand: Stand, headers: dict[str, str], coding: str
) -> None:
    """A service that compresses unasked what it was sent echoes the credential too."""
    await stand.service(SERVICE)
    text = b'{"authorization": "Bearer ' + SECRET.encode() + b'"}'
    bits = {"deflate": 15, "raw": -15}.get(coding, 31)
    packer = zlib.compressobj(wbits=bits)
    packed = packer.compress(b"x" * 300_000 + text) + packer.flush()
    named = {"raw": "deflate"}.get(coding, coding).encode()
    head = b"200 OK\r\nContent-Encoding: " + named
    stand.upstream.answer = answers(head, packed)
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert reply.headers["agentvault-error"] == "credential_echoed"


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        *(("utf-16", "utf-16"), ('"UTF-16LE"', "utf-16-le"), ("utf-32be", "utf-32-be")),
        *(("utf-7", "utf-7"), ("ibm500", "ibm500"), ("latin-1", "latin-1")),
        *(("utf-16; charset=utf-32", "utf-32"), ("no-such-charset", "utf-8")),
        *(("\xe9", "utf-8"), ("utf-8; charset=utf-7", "utf-7")),
    ],
)
async def test_a_credential_does_not_pass_in_another_charset(
    stand: Stand, headers: dict[str, str], charset: str, codec: str
) -> None:
    """It is searched as declared; a charset that hides the credential is refused."""
    await stand.service(SERVICE)
    text = f"you sent {''.join(f'&#{ord(one)};' for one in SECRET)}".encode(codec)
    head = f"200 OK\r\nContent-Type: text/html; charset={charset}"
    stand.upstream.answer = answers(head.encode(), text)
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert reply.status_code == 502
    assert reply.headers["agentvault-error"] == "credential_echoed"


async def test_names_of_unknown_charsets_are_not_retained(
    stand: Stand, headers: dict[str, str]
) -> None:
    """A service may send another one in each answer."""
    await stand.service(SERVICE)

    head = b"200 OK\r\nContent-Type: text/plain; charset=agentvault-unknown"
    stand.upstream.answer = answers(head, b"ok")
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert reply.content == b"ok"
    assert not {one for one in encodings._cache if "agentvault" in one}  # type: ignore[attr-defined]


@pytest.mark.parametrize("charset", ["utf-16", "utf-8", "shift_jis", "iso-2022-jp"])
async def test_an_answer_in_another_charset_passes_as_it_is(
    stand: Stand, headers: dict[str, str], charset: str
) -> None:
    """Byte for byte, with an odd byte at its end too."""
    await stand.service(SERVICE)
    text = "sk_live, and no more. ".encode(charset) * 5_000 + b"s"
    head = f"200 OK\r\nContent-Type: text/plain; charset={charset}"
    stand.upstream.answer = answers(head.encode(), text)
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert (reply.status_code, reply.content) == (200, text)


async def test_a_compressed_answer_passes_unread(
    stand: Stand, headers: dict[str, str]
) -> None:
    """Nothing is decompressed on the way: a bomb stays as small as it was sent."""
    await stand.service(SERVICE)
    bomb = gzip.compress(b"\0" * 2**24)
    stand.upstream.answer = answers(b"200 OK\r\nContent-Encoding: gzip", bomb)
    async with stand.client.stream("GET", "/gw/api/x", headers=headers) as reply:
        assert reply.headers["content-encoding"] == "gzip"
        got = b"".join([piece async for piece in reply.aiter_raw()])
    assert got == bomb


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_slow_search_waits_for_its_turn(
    stand: Stand, headers: dict[str, str], coding: str
) -> None:
    """One agent's answers full of escapes are searched one part in a turn of all."""
    await stand.service(SERVICE)
    text = b"%41" * 20_000
    body = gzip.compress(text) if coding == "gzip" else text
    sent = asyncio.Event()

    async def escapes(_: Received, writer: asyncio.StreamWriter) -> None:
        named = b"Content-Encoding: " + coding.encode()
        writer.write(OK + named + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        sent.set()

    stand.upstream.answer = escapes
    with stand.bench.broker.admitting.pieces.paused():
        ask = asyncio.create_task(stand.client.get("/gw/api/x", headers=headers))
        await asyncio.wait_for(sent.wait(), 10)
        # Its head goes ahead, and no piece of it follows.
        assert not (await asyncio.wait({ask}, timeout=0.5))[0]
    assert (await ask).content == text


async def test_headers_of_one_hop_stay_there(
    stand: Stand, headers: dict[str, str]
) -> None:
    """What is of the connection, of proxies or of cookies passes neither way."""
    await stand.service(SERVICE)
    stand.upstream.answer = answers(
        b"200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n"
        b"Set-Cookie: session=credential\r\nAgentVault-Decision: dec_forged\r\n"
        b'WWW-Authenticate: Bearer resource_metadata="https://evil.test/"\r\n'
        b"Date: Tue, 24 Nov 2026 00:00:00 GMT\r\nKeep-Alive: timeout=5",
        b"",
    )
    said = {
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Proxy-Authorization": "Basic eA==",
        "Connection": "x-mine",
        "X-Mine": "1",
        "TE": "trailers",
        "X_Forwarded_For": "1.2.3.4",
        "X-Original-URL": "/admin",
        "X-Rewrite-URL": "/admin",
        "X-HTTP-Host-Override": "admin.test",
        "X-Real-IP": "1.2.3.4",
        "Via": "1.1 proxy",
        "Proxy-Status": "ok",
        "AgentVault-Decision": "dec_mine",
        "Accept-Encoding": "br",
        "Accept": "kept/one",
    }
    reply = await stand.client.get("/gw/api/x", headers={**headers, **said})
    sent = dict(stand.upstream.received[0].headers)
    names = {name.lower() for name in said} - {"accept", "accept-encoding"}
    assert ("accept-encoding", "br") not in stand.upstream.received[0].headers
    assert sent["accept-encoding"] == "identity"
    assert not names & sent.keys()
    assert sent["accept"] == "kept/one"
    assert reply.headers["x-end"] == "2"
    dropped = {"x-hop", "set-cookie", "keep-alive", "www-authenticate"}
    assert not dropped & reply.headers.keys()
    assert reply.headers.get_list("date") == ["Tue, 24 Nov 2026 00:00:00 GMT"]
    assert reply.headers["agentvault-decision"] != "dec_forged"
    assert reply.headers["cache-control"] == "private"


async def test_one_agent_leaves_a_share_of_a_services_connections(
    stand: Stand, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it has all but one share; then it is 503 at once, and another is served."""
    monkeypatch.setattr(upstream_module, "_CONNECTIONS", 16)
    await stand.service(SERVICE)
    begun, release = list[None](), asyncio.Event()

    async def hold(_: Received, writer: asyncio.StreamWriter) -> None:
        begun.append(None)
        await release.wait()
        await ok(_, writer)

    stand.upstream.answer = hold
    held = [
        asyncio.create_task(stand.client.get("/gw/api/x", headers=headers))
        for _ in range(14)
    ]
    await stand.bench.until(lambda: len(begun) == 14)
    refused = await stand.client.get("/gw/api/x", headers=headers)
    assert refused.status_code == 503
    assert refused.json()["error"] == "temporarily_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    other = await stand.agent("read:calendar", name="other")
    token = await stand.token(other, "read:calendar")
    shown = {"Authorization": f"Bearer {token}"}
    held.append(asyncio.create_task(stand.client.get("/gw/api/x", headers=shown)))
    await stand.bench.until(lambda: len(begun) == 15)
    release.set()
    assert {one.status_code for one in await asyncio.gather(*held)} == {200}
    assert (await stand.client.get("/gw/api/x", headers=headers)).status_code == 200
