"""Operators elsewhere on another's DPoP; another's JOSE verifies our proofs."""

from __future__ import annotations

from joserfc.jwk import ECKey
from support.bench import Bench
from support.elsewhere import Stand
from support.peers import peer, with_node

from agentvault_tui.operator_api.remote import BoundSession
from agentvault_tui.web.local_ca import CaFiles


@with_node("oauth4webapi")
async def test_oauth4webapi_signs_in_and_jose_verifies_our_proofs(bench: Bench) -> None:
    """It reads the challenge, takes the nonce and binds the token as the RFC says."""
    key = ECKey.generate_key("P-256")
    async with Stand.open(bench) as stand:
        ours = await stand_in(stand)
        session = BoundSession(key, ours)
        at = f"{stand.url}/api/agents"
        headers = session.headers("GET", at, "a-nonce")
        given = {"url": stand.url, "proof": headers["DPoP"], "token": ours}
        ca = str(CaFiles.of(bench.home).ca)
        async with peer("operator.mjs", given, NODE_EXTRA_CA_CERTS=ca) as other:
            proved = await other.says()
            assert (proved["htm"], proved["htu"]) == ("GET", at)
            assert (proved["nonce"], proved["same_token"]) == ("a-nonce", True)
            assert proved["thumbprint"] == key.thumbprint()
            begun = await other.says()
            assert begun["challenge"].startswith('DPoP error="use_dpop_nonce"')
            assert begun["status"] == 202
            assert await other.says() == {"waiting": "invalid_token"}
            who = {"sub": "auth0|vera", "roles": ("viewer",), "amr": ("mfa", "otp")}
            bench.tenant.approve(who=who)
            while len(await bench.events("operator.login")) < 2:
                pass
            told = await other.told("signed in")
            assert told == {"agents": 200, "stolen": "invalid_token"}


async def stand_in(stand: Stand) -> str:
    """Return the token of somebody else's session."""
    olga = stand.operator()
    await olga.sign_in("viewer", name="olga")
    return olga.token
