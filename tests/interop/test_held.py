"""The usual OAuth 2 clients, unmodified: agents with a key, held for a person."""

from __future__ import annotations

from typing import Any

from joserfc.jwk import ECKey
from support.agents_http import DETAIL, Live, live_broker, public
from support.bench import OPERATOR, Bench
from support.peers import peer, with_node, with_python
from support.tls_front import trusted

from agentvault_tui.broker.usecases.stepup_end import deny

OTHER = {**DETAIL, "parameters": {"amount": 7, "currency": "USD"}}


async def given(live: Live, details: Any) -> dict[str, Any]:
    """Register an agent by its public key; return what its program needs."""
    key = ECKey.generate_key("P-256", auto_kid=True)
    caller = await live.caller("keyed", public_key=public(key))
    return {
        "issuer": live.url.rstrip("/"),
        "client_id": caller.agent.client_id,
        "jwk": key.as_dict(private=True),
        "details": details,
    }


@with_node("openid-client")
async def test_openid_client_polls_for_a_yes_and_a_no(bench: Bench) -> None:
    """Held by either endpoint, it waits out its interval and gets what was decided."""
    tls, trust, env = trusted(bench.home)
    async with (
        live_broker(bench, tls=tls, verify=trust) as live,
        peer("held.mjs", await given(live, [DETAIL, OTHER]), **env) as agent,
    ):
        held, begun = await agent.says(), await agent.says()
        assert held["error"] == "insufficient_user_authentication"
        assert (held["interval"], begun["interval"]) == (2, 2)
        broker = bench.broker
        await bench.until(lambda: len(broker.stepups.polled) == 2)
        bench.clock.advance(2)
        await deny(broker, begun["auth_req_id"], "not this month", OPERATOR)
        await live.approve(held["auth_req_id"])
        token, active, denied = [await agent.says() for _ in range(3)]
    assert token["expires_in"] == 300
    assert token["authorization_details"] == active["authorization_details"] == [DETAIL]
    assert (active["active"], active["elevated"]) == (True, True)
    assert denied["error"] == "access_denied"
    assert "not this month" in denied["error_description"]


@with_python("authlib")
async def test_authlib_polls_by_hand(bench: Bench) -> None:
    """Each word of the answer is one authlib knows, from pending to spent."""
    async with (
        live_broker(bench) as live,
        peer("held_authlib.py", await given(live, DETAIL)) as agent,
    ):
        an_hour = await agent.told("ask as authlib signs by itself")
        assert an_hour["raised"] == "invalid_client"
        held = await agent.told("ask")
        assert held["raised"] == "insufficient_user_authentication"
        words = [(await agent.told("poll"))["raised"] for _ in range(2)]
        assert words == ["authorization_pending", "slow_down"]
        await live.approve(held["auth_req_id"])
        token = await agent.told("poll")
        assert token["authorization_details"] == [DETAIL]
        assert (await agent.told("introspect"))["active"] is True
        assert (await agent.told("poll"))["raised"] == "invalid_grant"
