"""The environment's proxy and authorities: for tenant and providers, and them alone."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.forward_proxy import ACCOUNT, ForwardProxy, forward_proxy
from support.manual_clock import ManualClock
from support.rogue_tenant import CLIENT_ID, DISCOVERY, Answer, RogueTenant

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.model.finding import Level
from agentvault_tui.vault import Secret, Tenant, TenantClient
from agentvault_tui.vault.egress import route
from agentvault_tui.vault.provider import Endpoints, ProviderClient, ProviderRevoked
from agentvault_tui.vault.provision import checks
from agentvault_tui.vault.wire import verifier
from agentvault_tui.web.local_ca import CaFiles, renew

HOST = "acme.eu.auth0.test"
VARIABLES = (
    *("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which nothing leads anywhere."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> CaFiles:
    """A company's own authority, and a certificate of it for the tenant's host."""
    home = Home(tmp_path, tmp_path)
    home.prepare()
    renew(home, [HOST], now=datetime.now(UTC))
    return CaFiles.of(home)


@pytest.fixture
async def outside(authority: CaFiles) -> AsyncIterator[tuple[RogueTenant, int]]:
    """A tenant that speaks TLS and that no DNS knows, and its port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.leaf.cert, authority.leaf.key)
    tenant = RogueTenant()
    port = await tenant.start(tls)
    tenant.issuer = f"https://{HOST}/"
    yield tenant, port
    await tenant.stop()


@pytest.fixture
async def proxy(outside: tuple[RogueTenant, int]) -> AsyncIterator[ForwardProxy]:
    """The one way there."""
    async with forward_proxy({f"{HOST}:443": outside[1]}) as running:
        yield running


@pytest.fixture
def company(
    monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy, authority: CaFiles
) -> pytest.MonkeyPatch:
    """The environment of a company's machine."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{ACCOUNT}@{proxy.url}")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    return monkeypatch


@pytest.mark.usefixtures("company")
async def test_the_tenant_is_reached_through_the_proxy_by_the_authority(
    outside: tuple[RogueTenant, int], proxy: ForwardProxy, clock: ManualClock
) -> None:
    """A tunnel to its host and port, opened with the proxy's account."""
    client = TenantClient(f"https://{HOST}/", CLIENT_ID, clock)
    assert (await client.start_device_flow(ttl=120)).user_code == "KDRT-WZNB"
    await client.aclose()
    assert set(proxy.asked) == {f"CONNECT {HOST}:443"}
    sent = [request.headers for request in outside[0].requests]
    assert sent
    assert not any("proxy-authorization" in one for one in sent)


@pytest.mark.usefixtures("company")
async def test_a_provider_is_reached_through_the_proxy(
    outside: tuple[RogueTenant, int], proxy: ForwardProxy
) -> None:
    """A revocation at Google goes the way that everything goes."""
    outside[0].script("/revoke", Answer({}))
    provider = ProviderClient(Endpoints(f"https://{HOST}/revoke"), "google-oauth2")
    assert await provider.revoke(Secret("a-token")) == ProviderRevoked()
    await provider.aclose()
    assert proxy.asked == [f"CONNECT {HOST}:443"]


@pytest.mark.parametrize("change", ["SSL_CERT_FILE", "HTTPS_PROXY", "account"])
async def test_an_unreachable_proxy_is_named_without_its_credentials(
    company: pytest.MonkeyPatch,
    proxy: ForwardProxy,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    """No authority, no proxy or no account: an outage, and nothing secret in it."""
    caplog.set_level(logging.DEBUG)
    if change == "account":
        company.setenv("HTTPS_PROXY", f"http://svc:wrong-secret@{proxy.url}")
    else:
        company.delenv(change)
    tenant = Tenant(f"https://{HOST}/", clock, timeout=5.0)
    with pytest.raises(TenantUnreachableError) as caught:
        await tenant.metadata()
    await tenant.aclose()
    told = caught.value.diagnosis()
    said = {
        "SSL_CERT_FILE": "SSL_CERT_FILE names its authority",
        "HTTPS_PROXY": "cannot be reached",
        "account": "407",
    }[change]
    assert said in told
    assert ("through the proxy http://127.0.0.1" in told) == (change != "HTTPS_PROXY")
    written = told + caplog.text + repr(caught.value) + tenant.way + repr(tenant)
    for secret in ("proxy-secret", "wrong-secret", "svc"):
        assert secret not in written


@pytest.mark.usefixtures("company")
async def test_doctor_says_which_proxy_and_authority(
    authority: CaFiles, proxy: ForwardProxy, clock: ManualClock
) -> None:
    """And asks no DNS here for a host that only the proxy knows."""
    asked: list[tuple[str, int]] = []

    async def look_up(host: str, port: int) -> object:
        asked.append((host, port))
        return None

    tenant = Tenant(f"https://{HOST}/", clock)
    found = [one async for _, one in checks.reach(tenant, look_up)]
    await tenant.aclose()
    assert asked == [("127.0.0.1", int(proxy.url.rpartition(":")[2]))]
    (told,) = [one.what for one in found if "through the proxy" in one.what]
    assert f"http://{proxy.url} (HTTPS_PROXY)" in told
    assert f"{authority.ca} (SSL_CERT_FILE)" in told
    assert "proxy-secret" not in "".join(str(one) for one in found)
    assert Level.FAULT not in {one.level for one in found}


async def test_loopback_is_never_proxied(
    company: pytest.MonkeyPatch,
    tenant: RogueTenant,
    proxy: ForwardProxy,
    clock: ManualClock,
) -> None:
    """The embedded tenant is reached directly, whatever the environment says."""
    company.setenv("ALL_PROXY", f"http://{proxy.url}")
    company.setenv("HTTP_PROXY", f"http://{proxy.url}")
    client = TenantClient(tenant.issuer, CLIENT_ID, clock)
    assert await client.probe()
    await client.aclose()
    assert tenant.asked(DISCOVERY) == 1
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_spelling_of_loopback_is_proxied(host: str, scheme: str) -> None:
    """Nor does a variable that is set to something unusable matter there."""
    environ = dict.fromkeys(VARIABLES, "socks5://x")
    found = route(f"{scheme}://{host}:8443/", environ)
    assert str(found) == "directly, trusting certifi's authorities"


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p.test:3128"}, "http://p.test:3128"),
        ({"HTTPS_PROXY": "p.test:3128"}, "http://p.test:3128"),
        ({"HTTPS_PROXY": "https://p.test"}, "https://p.test"),
        ({"HTTPS_PROXY": "http://u:p%40ss@p.test:1/"}, "http://p.test:1"),
        ({"https_proxy": "a.test:1", "HTTPS_PROXY": "b.test:1"}, "http://a.test:1"),
        ({"ALL_PROXY": "a.test:1"}, "http://a.test:1"),
        ({"HTTP_PROXY": "a.test:1", "http_proxy": "a.test:1"}, ""),
        ({"HTTPS_PROXY": ""}, ""),
        ({"HTTPS_PROXY": "a.test:1", "NO_PROXY": "*"}, ""),
        ({"HTTPS_PROXY": "a.test:1", "NO_PROXY": "auth0.test"}, ""),
        ({"HTTPS_PROXY": "a.test:1", "no_proxy": ".auth0.test, other"}, ""),
        ({"HTTPS_PROXY": "a.test:1", "NO_PROXY": f"{HOST}:443"}, ""),
        ({"HTTPS_PROXY": "a.test:1", "NO_PROXY": f"{HOST}:8443"}, "http://a.test:1"),
        ({"HTTPS_PROXY": "a.test:1", "NO_PROXY": "h0.test"}, "http://a.test:1"),
    ],
)
def test_proxy_variables_are_read_as_curl_reads_them(
    environ: dict[str, str], shown: str
) -> None:
    """The small letters first; a host of NO_PROXY stands for what is below it."""
    assert route(f"https://{HOST}/", environ).proxy_shown == shown


@pytest.mark.parametrize(
    "named",
    [
        *("socks5://svc:s3cret@p.test:1080", "ftp://svc:s3cret@p.test"),
        *("http://svc:s3cret@", "http://svc:s3cret@p.test:port", "svc:s3cret@"),
        *("http://svc:s3cret@p.test:99999", "http://svc:s3cret word@p.test"),
        *("http://svc:s3cret@[::1", "http://svc:s3cret\n@p.test"),
        *("http://svc:12/s3cret@proxy.test:3128", "http://svc:12?s3cret@proxy.test"),
        *("http://svc:12#s3cret@proxy.test", "http://svc:s3cret@999.1.1.1:3128"),
        "svc:s3cret@proxy.test:99999",
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock, named: str
) -> None:
    """Nothing goes past it, and its account is not quoted.

    A part of a password that stands before a slash is not taken for a host.
    """
    monkeypatch.setenv("HTTPS_PROXY", named)
    tenant = Tenant(f"https://{HOST}/", clock)
    with pytest.raises(TenantUnreachableError, match="HTTPS_PROXY names") as caught:
        await tenant.metadata()
    assert tenant.reachable is False
    written = (caught.value.diagnosis() + tenant.way).replace("3128", "")
    assert not [one for one in ("svc", "s3cret", "12") if one in written]
    ((_, finding),) = [one async for one in checks.reach(tenant)]
    assert finding.level is Level.FAULT


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_unreadable_certificate_authorities_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
    clock: ManualClock,
    tmp_path: Path,
    name: str,
    content: str | None,
) -> None:
    """It does not fall back on others, and says which variable it is."""
    path = tmp_path / "authorities"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    tenant = Tenant(f"https://{HOST}/", clock)
    with pytest.raises(TenantUnreachableError, match=f"{name} names"):
        await tenant.metadata()


async def test_ca_variables_of_other_programs_are_ignored_with_a_warning(
    company: pytest.MonkeyPatch, authority: CaFiles, clock: ManualClock
) -> None:
    """REQUESTS_CA_BUNDLE is of requests: doctor names the variable that counts."""
    company.delenv("SSL_CERT_FILE")
    company.setenv("REQUESTS_CA_BUNDLE", str(authority.ca))

    async def look_up(_: str, __: int) -> object:
        return None

    tenant = Tenant(f"https://{HOST}/", clock)
    found = [one async for _, one in checks.reach(tenant, look_up)]
    await tenant.aclose()
    (told,) = [one for one in found if "REQUESTS_CA_BUNDLE" in one.what]
    assert told.level is Level.WARNING
    assert "SSL_CERT_FILE" in told.remedy
    assert found[-1].level is Level.FAULT
    assert "trusting certifi's authorities" in tenant.way


def test_sslkeylogfile_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SSLKEYLOGFILE would let whoever reads it read every token."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert verifier(route(f"https://{HOST}/")).keylog_filename is None
