"""HTTP to the tenant: one origin, no redirects, bounded answers, nothing logged."""

from __future__ import annotations

import asyncio
import gzip
import logging
import traceback
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.rogue_tenant import (
    CLIENT_ID,
    DEVICE,
    DISCOVERY,
    TOKEN,
    Answer,
    Request,
    RogueTenant,
    rogue_tenant,
)

from agentvault_tui.errors import (
    SettingsError,
    TenantCredentialError,
    TenantUnreachableError,
)
from agentvault_tui.vault import Secret, Tenant, TenantClient
from agentvault_tui.vault.issuer import check_issuer, origin
from agentvault_tui.vault.provider import (
    Endpoints,
    ProviderClient,
    RevocationPending,
    RevocationRefused,
)

GARBAGE = [
    Answer(raw=b"\x00\xff\x16\x03\x01 this is no HTTP\r\n\r\n"),
    Answer(raw=b""),
    Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    Answer(raw=b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 20_000 + b"\r\n"),
    Answer(b"<html>It works!</html>"),
    Answer(b""),
    Answer(b"[1, 2]"),
    Answer(b"\xff\xfe\x00"),
    Answer(b"[" * 60_000),
    Answer(b'{"issuer": NaN}'),
    Answer({"error": "x"}, 500),
    Answer({}, 404),
    Answer(b"{" + b" " * 70_000 + b"}"),
    Answer(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    Answer(status=307, headers={"Location": "/elsewhere"}),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
async def test_an_unreadable_answer_is_an_outage(
    tenant: RogueTenant, client: TenantClient, answer: Answer
) -> None:
    """Whatever bytes come back, the broker is told in one sentence it can show."""
    tenant.script(DISCOVERY, answer)
    with pytest.raises(TenantUnreachableError) as caught:
        await client.start_device_flow(ttl=120)
    assert caught.value.diagnosis().isprintable()
    assert len(caught.value.diagnosis()) < 300
    assert not await client.probe()
    tenant.script(DISCOVERY, Answer(tenant.discovery()))
    assert await client.probe()
    assert client.reachable


async def test_redirects_are_not_followed(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """A tenant cannot send the client anywhere else, not even on itself."""
    tenant.script(DISCOVERY, Answer(status=301, headers={"Location": "/oauth/token"}))
    with pytest.raises(TenantUnreachableError, match="redirect, which is not followed"):
        await client.start_device_flow(ttl=120)
    assert [request.path for request in tenant.requests] == [DISCOVERY]


async def test_nothing_is_sent_to_another_origin(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """Whatever URL a caller was led to, a token goes to the tenant alone."""
    async with rogue_tenant() as other:
        for url in (f"{other.issuer}api/v2/clients", tenant.issuer[:-1] + "1/x"):
            with pytest.raises(TenantUnreachableError, match="not on the tenant"):
                await wired.send("GET", url, bearer=Secret("at"))
        assert other.requests == []
    assert tenant.requests == []


async def test_an_outage_is_reported_until_the_tenant_answers(
    tenant: RogueTenant, clock: ManualClock
) -> None:
    """Reachability is unknown, then false, and true again after an answer."""
    client = TenantClient(tenant.issuer, CLIENT_ID, clock)
    assert client.reachable is None
    assert await client.probe()
    assert client.reachable is True
    await tenant.stop()
    assert not await client.probe()
    assert client.reachable is False
    await client.aclose()


async def test_a_name_that_does_not_resolve_is_an_outage(clock: ManualClock) -> None:
    """A wrong domain, or no DNS at all, is told in one sentence."""
    client = TenantClient("https://nowhere.invalid/", CLIENT_ID, clock, timeout=3.0)
    with pytest.raises(TenantUnreachableError, match="the tenant") as caught:
        await client.start_device_flow(ttl=120)
    assert caught.value.diagnosis().isprintable()
    await client.aclose()


@pytest.mark.parametrize("answer", [Answer(hang=True), Answer({}, drip=0.01)])
async def test_a_slow_tenant_is_cut_off_at_the_deadline(
    tenant: RogueTenant, clock: ManualClock, answer: Answer
) -> None:
    """Silence and a byte now and then both end when the whole exchange is overdue."""
    tenant.script(DISCOVERY, answer)
    client = TenantClient(tenant.issuer, CLIENT_ID, clock, timeout=0.2)
    with pytest.raises(TenantUnreachableError, match=r"within 0\.2 s"):
        await client.start_device_flow(ttl=120)
    await client.aclose()


async def test_an_endless_answer_is_cut_off_at_the_cap(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """A body without end costs 64 KiB and no more."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    tenant.script(DISCOVERY, Answer(raw=head + b" " * 5_000_000))
    with pytest.raises(TenantUnreachableError, match="more than 64 KiB"):
        await client.start_device_flow(ttl=120)


async def test_netrc_and_proxy_variables_are_not_used_on_loopback(
    tenant: RogueTenant, clock: ManualClock, monkeypatch: Any, tmp_path: Any
) -> None:
    """Proxies, netrc and certificate variables of the shell change nothing."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("SSL_CERT_FILE", str(netrc))
    client = TenantClient(tenant.issuer, CLIENT_ID, clock)
    assert await client.probe()
    assert "authorization" not in tenant.requests[0].headers
    await client.aclose()


async def test_cookies_are_not_kept(tenant: RogueTenant, client: TenantClient) -> None:
    """What the tenant sets on one answer is not sent with the next request."""
    cookie = {"Set-Cookie": "did=1; Path=/"}
    tenant.script(DISCOVERY, Answer(tenant.discovery(), headers=cookie))
    await client.probe()
    await client.probe()
    assert all("cookie" not in request.headers for request in tenant.requests)


async def test_codes_and_tokens_are_in_no_log_and_no_repr(
    tenant: RogueTenant, client: TenantClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Even at DEBUG, neither the device code nor a token is written anywhere."""
    caplog.set_level(logging.DEBUG)
    tenant.script(TOKEN, Answer({"id_token": "ey-very-secret", "access_token": "at"}))
    flow = await client.start_device_flow(ttl=120)
    result = await client.poll_once(flow)
    written = caplog.text + repr(flow) + repr(result) + repr(client)
    assert not [one for one in caplog.records if one.name.startswith("http")]
    for secret in (flow.device_code, "ey-very-secret"):
        assert secret not in written


async def test_closing_during_a_request_leaves_nothing_open(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """A cancelled request raises just that, and the client works on."""
    await client.start_device_flow(ttl=120)
    tenant.script(DEVICE, Answer(hang=True))
    tenant.arrived.clear()
    task = asyncio.create_task(client.start_device_flow(ttl=120))
    await tenant.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tenant.script(DEVICE, Answer(tenant.device()))
    assert (await client.start_device_flow(ttl=120)).user_code == "KDRT-WZNB"


@pytest.mark.parametrize(
    ("issuer", "written"),
    [
        ("https://acme.eu.auth0.com/", "https://acme.eu.auth0.com/"),
        ("https://acme.eu.auth0.com", "https://acme.eu.auth0.com/"),
        ("http://127.0.0.1:7718", "http://127.0.0.1:7718/"),
        ("http://localhost:7718/", "http://localhost:7718/"),
        ("http://[::1]:7718/", "http://[::1]:7718/"),
        ("https://id.example/realms/a", "https://id.example/realms/a/"),
    ],
)
def test_issuers_are_written_as_auth0_does(issuer: str, written: str) -> None:
    """https anywhere, http on loopback, always with the slash at the end."""
    assert check_issuer(issuer) == written


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "acme.eu.auth0.com",
        "http://acme.eu.auth0.com/",
        "http://127.0.0.1.evil.test/",
        "http://localhost.evil.test/",
        "http://2130706433/",
        "ftp://127.0.0.1/",
        "https://",
        "https://user@acme.test/",
        "https://acme.test@evil.test/",
        "https://acme.test/?a=b",
        "https://acme.test/?",
        "https://acme.test/#",
        "https://acme.test:99999/",
        "https://acme.test:x/",
        "https://acme.test\\@evil.test/",
        "https://acme.te st/",
        "https://\u0430cme.test/",
        "https://acme.test/\n",
        "https://[::1/",
        "https://" + "a" * 3000,
    ],
)
def test_other_issuers_are_refused_with_an_example(issuer: str) -> None:
    """Plain http, user information, extras and hidden characters are no issuer."""
    with pytest.raises(SettingsError) as caught:
        TenantClient(issuer, CLIENT_ID, ManualClock.__new__(ManualClock))
    assert "tenant.issuer is a URL such as" in caught.value.diagnosis()
    assert caught.value.diagnosis().isprintable()


@given(st.text())
def test_any_text_is_a_url_with_an_origin_or_none(text: str) -> None:
    """Whatever is taken for a URL is split or refused, without an exception."""
    for url in (text, "https://" + text, "http://127.0.0.1:" + text):
        found = origin(url)
        assert found is None or found[0] in {"http", "https"}


@pytest.mark.parametrize("token", ["a b", "a\nX-Admin: 1", "ä", "", "tok,en"])
async def test_a_malformed_bearer_token_is_not_sent_and_not_quoted(
    tenant: RogueTenant, wired: Tenant, token: str
) -> None:
    """RFC 6750 section 2.1: else it could add a header, or end in an error's text."""
    with pytest.raises(TenantCredentialError) as caught:
        await wired.send("GET", f"{tenant.issuer}api/v2/x", bearer=Secret(token))
    assert not token or token not in caught.value.diagnosis()
    assert tenant.requests == []


SECRET = "ya29.a0/b+c=="


async def test_a_token_quoted_by_a_provider_is_redacted(tenant: RogueTenant) -> None:
    """Neither its error code nor bytes that are no HTTP carry it into the audit."""
    provider = ProviderClient(Endpoints(f"{tenant.issuer}revoke"), "workspace")
    tenant.script(
        "/revoke",
        lambda asked: Answer({"error": asked.form["token"]}, 400),
        lambda asked: Answer({"error": asked.form["token"]}, 200),
        lambda asked: Answer(raw=f"HTTP/9 {asked.form['token']}\r\n\r\n".encode()),
    )
    refused = await provider.revoke(Secret(SECRET))
    assert isinstance(refused, RevocationRefused)
    accepted = await provider.revoke(Secret(SECRET))
    broken = await provider.revoke(Secret(SECRET))
    assert isinstance(broken, RevocationPending)
    for said in (refused, accepted, broken):
        assert SECRET not in str(said)
    assert "hidden" in refused.problem
    assert "hidden" in broken.problem
    await provider.aclose()


@pytest.mark.parametrize("member", ["refresh_token", "client_secret", "bearer"])
async def test_each_kind_of_secret_is_redacted_from_a_refusal(
    tenant: RogueTenant, wired: Tenant, member: str
) -> None:
    """As it is, escaped as JSON has it, in an address, in a name, and in a list."""

    def quotes(asked: Request) -> Answer:
        sent = asked.headers.get("authorization", "").removeprefix("Bearer ")
        sent = asked.form.get(member, sent)
        said = {"error": "x", "list": [{sent: sent}], "uri": f"?t={quote(sent, '')}"}
        return Answer(said, 401)

    tenant.script(TOKEN, quotes)
    url, bearer = f"{tenant.issuer}oauth/token", member == "bearer"
    reply = await wired.send(
        "POST",
        url,
        form=None if bearer else {"grant_type": "refresh_token", member: SECRET},
        bearer=Secret(SECRET) if bearer else None,
    )
    assert reply.error == "x"
    assert "hidden" in str(reply.value)
    assert SECRET not in str(reply.value)
    assert quote(SECRET, "") not in str(reply.value)


async def test_a_success_keeps_the_refresh_token_it_repeats(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """RFC 6749 section 6: the same one again is the one to keep."""
    tenant.script(TOKEN, lambda asked: Answer(asked.form))
    url = f"{tenant.issuer}oauth/token"
    reply = await wired.send("POST", url, form={"refresh_token": SECRET})
    assert reply.json()["refresh_token"] == SECRET


async def test_a_traceback_of_an_outage_does_not_quote_the_tenant(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """Logs have tracebacks: what httpx could not read is in none."""
    tenant.script(
        TOKEN, lambda asked: Answer(raw=f"{asked.form['code']}\r\n\r\n".encode())
    )
    url = f"{tenant.issuer}oauth/token"
    with pytest.raises(TenantUnreachableError) as caught:
        await wired.send("POST", url, form={"code": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
