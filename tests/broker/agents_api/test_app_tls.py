"""The agents' HTTP over TLS: what it calls itself, and what an assertion calls it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from joserfc.jwk import ECKey
from support.agents_http import Live, live_broker, public, sign
from support.bench import Bench

from agentvault_tui.web.local_ca import CaFiles, renew
from agentvault_tui.web.tls import ServerTls

KEY = ECKey.generate_key("P-256")


@pytest.fixture
async def secure(bench: Bench) -> AsyncIterator[Live]:
    renew(bench.home, now=datetime.now(UTC))
    files = CaFiles.of(bench.home)
    trust = ssl.create_default_context(cafile=str(files.ca))
    async with live_broker(bench, tls=ServerTls(files.leaf), verify=trust) as live:
        yield live


async def test_over_tls_the_issuer_is_https(secure: Live) -> None:
    """Issuer and endpoints are https, by whichever loopback name it was reached."""
    port = secure.http.base_url.port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        answer = await secure.http.get(
            "/.well-known/oauth-authorization-server", headers={"host": name}
        )
        found = answer.json()
        assert found["issuer"] == f"https://{name}"
        urls = [value for key, value in found.items() if key.endswith("_endpoint")]
        assert urls
        assert all(url.startswith(f"https://{name}/") for url in urls)


async def test_a_secret_is_taken_and_a_token_given(secure: Live) -> None:
    """The whole of it works over TLS, and Host is judged as ever."""
    caller = await secure.caller("agent")
    assert (await caller.token()).status_code == 200
    elsewhere = await secure.http.get("/healthz", headers={"host": "evil.test"})
    assert elsewhere.status_code == 421


@pytest.mark.parametrize(
    ("audience", "status"),
    [
        ("https://127.0.0.1:{port}", 200),
        ("https://127.0.0.1:{port}/oauth/token", 200),
        ("https://localhost:{port}/", 200),
        ("https://[::1]:{port}/bc-authorize", 200),
        # Another listener may speak http there, and be someone else's.
        ("http://127.0.0.1:{port}/oauth/token", 401),
        ("https://127.0.0.1/oauth/token", 401),
        ("https://evil.test:{port}/oauth/token", 401),
    ],
)
async def test_assertions_name_the_https_form(
    secure: Live, audience: str, status: int
) -> None:
    """``private_key_jwt`` is for what the listener calls itself, and nothing else."""
    caller = await secure.caller("keyed", public_key=public(KEY))
    named = audience.format(port=secure.http.base_url.port)
    claims = secure.claims(caller.agent.client_id, aud=named)
    answer = await secure.assertion(sign(claims, KEY, "ES256"))
    assert answer.status_code == status
