"""The embedded tenant at an address that phones reach, as a process of its own."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from support.patience import PATIENT
from support.phone import HOST, Phone, public_settings

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.vault import TenantClient
from agentvault_tui.web.local_ca import CaFiles, renew

from .test_process import Running, running


def configure(home: Home) -> str:
    """Write the settings of a tenant on a free port; return its URL."""
    made = public_settings(home)
    home.config_file.write_text(
        f'[tenant]\nlisten = "{made.listen}"\nurl = "{made.url}"\n'
        f'tls_cert = "{made.tls_cert}"\ntls_key = "{made.tls_key}"\n'
    )
    return made.url


@pytest.fixture
def public(home: Home) -> Iterator[tuple[Running, Phone]]:
    url = configure(home)
    with running(home) as tenant:
        phone = Phone(home, url)
        yield tenant, phone
        phone.http.close()


@pytest.mark.slow
async def test_phones_and_the_broker_reach_the_same_issuer(
    public: tuple[Running, Phone],
) -> None:
    """The issuer is `url`; the broker reaches it on loopback, whatever DNS says."""
    tenant, phone = public
    assert tenant.issuer == phone.url
    metadata = phone.get(".well-known/openid-configuration").json()
    assert metadata["issuer"] == phone.url
    client = TenantClient(
        tenant.issuer,
        tenant.ready["client_id"],
        SystemClock(),
        local=tenant.ready["local"],
    )
    flow = await client.start_device_flow(ttl=60)
    await client.aclose()
    assert flow.verification_uri == f"{phone.url}activate"
    page = phone.get(f"activate?user_code={flow.user_code}")
    assert page.status_code == 200
    assert "Secure" in page.headers["set-cookie"]
    assert "on this machine" not in page.text


@pytest.mark.slow
def test_the_management_api_is_on_loopback_alone(public: tuple[Running, Phone]) -> None:
    """What manages people and clients is not there for whoever reaches `listen`."""
    tenant, phone = public
    assert phone.get("api/v2/logs").status_code == 404
    local = tenant.ready["local"]
    assert httpx.get(f"{local}api/v2/logs", trust_env=False).status_code == 401
    # Nor does the loopback name open it from outside (DNS rebinding).
    answer = phone.get("api/v2/logs", host=local.split("/")[2])
    assert answer.status_code == 421


@pytest.mark.slow
def test_it_speaks_tls_1_3_alone_and_shows_a_renewed_certificate(
    public: tuple[Running, Phone], home: Home
) -> None:
    """TLS 1.2 fails, and a renewal needs no restart."""
    _, phone = public

    def handshake(most: ssl.TLSVersion) -> bytes:
        context = ssl.create_default_context(cafile=CaFiles.of(home).ca)
        context.maximum_version = most
        with (
            socket.create_connection(("127.0.0.1", phone.port), PATIENT) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True) or b""

    with pytest.raises(ssl.SSLError):
        handshake(ssl.TLSVersion.TLSv1_2)
    before = handshake(ssl.TLSVersion.TLSv1_3)
    renew(home, [HOST], now=datetime.now(UTC))
    assert handshake(ssl.TLSVersion.TLSv1_3) != before


@pytest.mark.slow
def test_a_certificate_for_another_host_stops_the_start_in_one_line(home: Home) -> None:
    """Nobody serves a page that every phone would refuse."""
    configure(home)
    renew(home, ["other.example"], now=datetime.now(UTC), new_ca=True)
    ended = subprocess.run(
        [sys.executable, "-m", "agentvault_tui.cli", "--home", str(home.data), "serve"],
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
    )
    assert ended.returncode != 0
    lines = [one for one in ended.stderr.splitlines() if not one.startswith("{")]
    assert len(lines) == 1
    assert "not for ops.example but for" in lines[0]
