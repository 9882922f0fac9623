"""Tokens that another's JOSE library signs, with the key set that it publishes."""

from __future__ import annotations

from support.agents_http import live_broker
from support.bench import Bench
from support.peers import peer, with_node

from agentvault_tui.broker.issuers import Issuers
from agentvault_tui.settings import IssuerSettings

ALGORITHMS = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]


@with_node("jose")
async def test_an_agent_authenticates_with_tokens_that_jose_signs(bench: Bench) -> None:
    """By every algorithm, and by none whose token another key signed."""
    now = int(bench.clock.now().timestamp())
    claims = {
        "iss": "https://platform.example",
        "sub": "repo:acme/app:ref:refs/heads/main",
        "aud": "agentvault",
        "iat": now,
        "exp": now + 300,
    }
    given = {"algorithms": ALGORITHMS, "claims": claims}
    async with peer("platform.mjs", given) as platform:
        told = await platform.says()
        one = IssuerSettings(claims["iss"], claims["aud"], told["url"])
        bench.broker.admitting.issuers = Issuers({"ci": one}, bench.home, bench.clock)
        await bench.agent("ci", "write:calendar", subject=f"ci:{claims['sub']}")
        async with live_broker(bench) as live:
            for alg, token in told["tokens"].items():
                assert (await live.assertion(token)).status_code == 200, alg
                signed = token.rpartition(".")[0]
                for other in told["tokens"].values():
                    if other != token:
                        forged = f"{signed}.{other.rpartition('.')[2]}"
                        assert (await live.assertion(forged)).status_code == 401
