"""Operators on other machines: who is admitted, and each way in that there is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from support.bench import OPERATOR, Bench
from support.elsewhere import HOST, Elsewhere, Stand
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.stepups import hold
from support.web_kit import read_all

from agentvault_tui.web.places import Limits


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    async with Stand.open(bench) as stand:
        yield stand


async def signed_in(stand: Stand, *roles: str) -> Elsewhere:
    operator = stand.operator()
    await operator.sign_in(*roles)
    return operator


def refused(answer: httpx.Response, error: str) -> None:
    """Insist on the answer of RFC 9449 section 7.1, as a problem document."""
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith(f'DPoP error="{error}"')
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["dpop-nonce"]
    assert answer.json()["error"] == error


async def test_a_session_is_a_token_and_the_key_it_was_begun_with(stand: Stand) -> None:
    """A nonce is given first; nothing is shown until a person has signed in."""
    olga = stand.operator()
    proof = olga.proof("POST", "/api/auth/session", nonce=None)
    first = await olga.ask("POST", "/api/auth/session", proof=proof)
    refused(first, "use_dpop_nonce")
    begun = await olga.begin()
    assert begun.status_code == 202
    assert begun.json()["device"]["user_code"]
    assert (await olga.get("/api/auth/me")).json()["pending"]
    refused(await olga.get("/api/agents"), "invalid_token")
    stand.bench.tenant.approve(
        who={"sub": "auth0|olga", "roles": ("viewer",), "amr": ("mfa", "otp")}
    )
    while (await olga.get("/api/auth/me")).json()["pending"]:
        pass
    assert (await olga.get("/api/agents")).json()["agents"] == []
    (login,) = await stand.bench.events("operator.login")
    assert login.detail["uid"].startswith("key:")
    assert login.detail["address"] == "127.0.0.1"


def hmac_by_public_key(o: Elsewhere) -> str:
    secret = OctKey.import_key(json.dumps(o.key.as_dict(private=False)))
    return o.proof("GET", "/api/agents", key=secret, header={"alg": "HS256"})


def by_rsa(o: Elsewhere) -> str:
    key = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "jwk": key.as_dict(private=False)}
    return o.proof("GET", "/api/agents", key=key, header=header)


def at(**changes: Any) -> Any:
    return lambda o: o.proof("GET", "/api/agents", **changes)


BAD: dict[str, Any] = {
    "another method": lambda o: o.proof("POST", "/api/agents"),
    "another path": lambda o: o.proof("GET", "/api/status"),
    "another host": at(htu="https://elsewhere.example/api/agents"),
    "no URL": at(htu=None),
    "made early": at(iat=1_795_514_400 - 61),
    "made late": at(iat=1_795_514_400 + 61),
    "no time": at(iat=None),
    "a time in words": at(iat="now"),
    "no ath": at(ath=None),
    "ath of another token": at(ath="x" * 43),
    "no jti": at(jti=None),
    "an endless jti": at(jti="j" * 513),
    "a plain JWT": at(header={"typ": "JWT"}),
    "a private key in it": lambda o: o.proof(
        "GET", "/api/agents", header={"jwk": o.key.as_dict(private=True)}
    ),
    "no key in it": at(header={"jwk": "none"}),
    "crit": at(header={"crit": ["exp"], "exp": 1}),
    "another's signature": at(key=ECKey.generate_key("P-256")),
    "HMAC by the public key": hmac_by_public_key,
    "RSA": by_rsa,
    "unsigned": lambda o: o.proof("GET", "/api/agents").rpartition(".")[0] + ".",
    "no JWT": lambda _: "proof",
    "two in one": lambda o: f"{o.proof('GET', '/api/agents')}, x",
}


async def test_a_proof_that_is_not_for_this_request_is_refused(stand: Stand) -> None:
    """Each claim and header of RFC 9449 section 4.3 is checked."""
    olga = await signed_in(stand, "approver")
    for name, make in BAD.items():
        answer = await olga.get("/api/agents", proof=make(olga))
        assert answer.status_code == 401, name
        refused(answer, "invalid_dpop_proof")
    assert (await olga.get("/api/agents")).status_code == 200


async def test_a_proof_counts_once(stand: Stand) -> None:
    """A replayed one is refused, also by whoever has the token."""
    olga = await signed_in(stand, "viewer")
    proof = olga.proof("GET", "/api/agents")
    assert (await olga.get("/api/agents", proof=proof)).status_code == 200
    refused(await olga.get("/api/agents", proof=proof), "invalid_dpop_proof")


async def test_two_proofs_in_one_request_are_refused(stand: Stand) -> None:
    """RFC 9449 section 4.3, number 1."""
    olga = await signed_in(stand, "viewer")
    proofs = [("DPoP", olga.proof("GET", "/api/agents")) for _ in range(2)]
    token = ("Authorization", f"DPoP {olga.token}")
    answer = await olga.http.get("/api/agents", headers=[*proofs, token])
    refused(answer, "invalid_dpop_proof")
    one = await olga.http.get("/api/agents", headers=[proofs[0], token])
    assert one.status_code == 200


async def test_a_nonce_is_of_this_broker_and_of_the_last_minutes(
    stand: Stand, clock: ManualClock
) -> None:
    """A proof made ahead of time, or for another broker, is of no use."""
    olga = await signed_in(stand, "viewer")
    first = olga.nonce
    for nonce in ("", "x" * 32, None):
        proof = olga.proof("GET", "/api/agents", nonce=nonce)
        refused(await olga.get("/api/agents", proof=proof), "use_dpop_nonce")
    clock.advance(61)
    proof = olga.proof("GET", "/api/agents", nonce=first)
    answer = await olga.get("/api/agents", proof=proof)
    assert answer.status_code == 200
    assert answer.headers["dpop-nonce"] != first
    clock.advance(61)
    proof = olga.proof("GET", "/api/agents", nonce=first)
    refused(await olga.get("/api/agents", proof=proof), "use_dpop_nonce")
    assert (await olga.get("/api/agents")).status_code == 200


async def test_a_key_is_of_no_use_without_its_session_nor_a_session_without_its_key(
    stand: Stand,
) -> None:
    """Whoever stole one of the two is told nothing and changes nothing."""
    olga = await signed_in(stand, "approver")
    thief = stand.operator()
    thief.nonce = olga.nonce
    thief.token = olga.token  # a session without its key
    refused(await thief.get("/api/agents"), "invalid_token")
    refused(await thief.get("/api/status"), "invalid_token")
    (told,) = await stand.bench.events("operator.refused")  # once, however often
    assert told.actor.name == "vera"
    assert "may be stolen" in (told.reason or "")
    thief.key, thief.token = olga.key, ""  # a key without its session
    refused(await thief.get("/api/agents"), "invalid_token")
    thief.token = "av_s_" + "x" * 43
    refused(await thief.get("/api/agents"), "invalid_token")
    bearer = {"Authorization": f"Bearer {olga.token}"}
    proof = olga.proof("GET", "/api/agents")
    answer = await thief.http.get("/api/agents", headers={**bearer, "DPoP": proof})
    refused(answer, "invalid_token")
    thief.token = ""
    again = await thief.begin()  # nor does the key begin another one
    assert again.status_code == 409
    assert (await olga.get("/api/agents")).status_code == 200


async def test_a_session_of_another_broker_is_none_here(
    bench: Bench, stand: Stand
) -> None:
    """Sessions live in one broker's memory, as its nonces do."""
    olga = await signed_in(stand, "approver")
    async with Stand.open(bench) as other:
        guest = other.operator()
        guest.key, guest.token = olga.key, olga.token
        proof = olga.proof("GET", "/api/agents", htu=f"{other.url}/api/agents")
        refused(await guest.get("/api/agents", proof=proof), "use_dpop_nonce")
        refused(await guest.get("/api/agents"), "invalid_token")
    assert (await olga.get("/api/agents")).status_code == 200


async def test_nothing_is_shown_or_done_without_a_role(stand: Stand) -> None:
    """Whatever `operators.roles` says: at the socket it is ``auto`` here."""
    agent = await stand.bench.agent("payer")
    nobody = await signed_in(stand)
    for path in ("/api/agents", "/api/status", "/api/events", "/api/audit"):
        answer = await nobody.get(path)
        assert (answer.status_code, answer.json()["needed_role"]) == (403, "viewer")
    cut = await nobody.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    assert cut.status_code == 403
    assert (await nobody.get("/api/auth/me")).json()["role"] is None
    assert stand.bench.broker.registry.agent(agent.id).status.value == "active"


async def test_a_viewer_looks_and_changes_nothing(stand: Stand) -> None:
    """However the path is spelled; what is no route is none."""
    agent = await stand.bench.agent("payer")
    viewer = await signed_in(stand, "viewer")
    assert (await viewer.get("/api/agents")).status_code == 200
    asked = {"agent_id": agent.id, "action": "send:payment"}
    assert (await viewer.post("/api/policy/explain", **asked)).status_code == 200
    for path, body in (
        ("/api/agents/revoke", {"all": True, "reason": "r"}),
        ("/api/policy/reset", {}),
        ("/api/agents/revoke%0A", {"all": True, "reason": "r"}),
    ):
        answer = await viewer.post(path, **body)
        assert (answer.status_code, answer.json()["needed_role"]) == (403, "operator")
    assert len(await stand.bench.events("operator.refused")) == 3
    assert (await viewer.post("/api/nothing")).status_code == 404
    me = (await viewer.get("/api/auth/me")).json()
    assert set(me["refused"]) == {"revoke", "restore", "approve", "people"}


async def test_an_approver_revokes_and_begins_an_approval(stand: Stand) -> None:
    """Under their own name; what loosens waits, see test_changes."""
    approver = await signed_in(stand, "approver")
    agent, stepup = await hold(stand.bench, "payer")
    cut = await approver.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    assert cut.status_code == 200
    _, stepup = await hold(stand.bench, "second")
    asked = {"id": stepup.id, "decision": "approve", "digest": stepup.digest}
    begun = await approver.post("/api/agents/stepup", **asked)
    assert begun.status_code == 202
    (event,) = await stand.bench.events("agent.revoked")
    assert event.actor.id == "auth0|vera"


@pytest.mark.parametrize("path", ["/api/auth/login", "/api/tenant/people"])
@pytest.mark.parametrize("end", ["", "%0A"])
async def test_the_first_approver_is_made_at_the_socket(
    stand: Stand, path: str, end: str
) -> None:
    """People of the tenant change on the broker's machine, however it is spelled."""
    approver = await signed_in(stand, "approver")
    body = {"change": "role", "user": "eve", "sub": "s", "roles": ["approver"]}
    answer = await approver.post(path + end, **body)
    assert answer.status_code in {404, 409}, answer.text
    assert await stand.bench.events("tenant.user_changed") == []


async def test_who_decided_nothing_for_15_minutes_looks_on_and_cuts(
    stand: Stand, clock: ManualClock
) -> None:
    """An unattended console gives nothing, and a decision does not unlock it."""
    operator = await signed_in(stand, "operator")
    agent = await stand.bench.agent("payer")
    clock.advance(15 * 60)
    assert (await operator.get("/api/agents")).status_code == 200
    cut = {"agent_id": agent.id, "reason": "r"}
    assert (await operator.post("/api/agents/revoke", **cut)).status_code == 200
    back = await operator.post("/api/agents/restore", agent_id=agent.id)
    assert back.status_code == 403
    assert "nothing was decided for 15 minutes" in back.json()["detail"]
    await operator.http.aclose()
    again = await signed_in(stand, "operator")
    back = await again.post("/api/agents/restore", agent_id=agent.id)
    assert back.status_code == 200


@pytest.mark.parametrize("how", ["signed out", "12 hours", "changed"])
async def test_a_stream_ends_with_its_session(
    stand: Stand, clock: ManualClock, how: str
) -> None:
    """Nothing that happens afterwards is told to whoever holds it open."""
    operator = await signed_in(stand, "viewer")
    await operator.get("/api/status")
    headers = {
        "DPoP": operator.proof("GET", "/api/events"),
        "Authorization": f"DPoP {operator.token}",
    }
    async with operator.http.stream("GET", "/api/events", headers=headers) as stream:
        assert stream.status_code == 200
        chunks = stream.aiter_bytes()
        await anext(chunks)
        match how:
            case "signed out":
                assert (await operator.post("/api/auth/logout")).status_code == 200
            case "12 hours":
                clock.advance(12 * 3600)
            case "changed":
                stand.sessions.end_of("auth0|vera")
                await stand.sessions.end_due()
        async with asyncio.timeout(PATIENT):
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in chunks:
                    pass
    refused(await operator.get("/api/agents"), "invalid_token")


async def test_strangers_begin_few_sign_ins(stand: Stand, clock: ManualClock) -> None:
    """Each is a code at the tenant and an event: four an address while they live."""
    for _ in range(4):
        assert (await stand.operator().begin()).status_code == 202
    full = await stand.operator().begin()
    assert (full.status_code, full.json()["error"]) == (503, "slow_down")
    clock.advance(900 + 31)
    assert (await stand.operator().begin()).status_code == 202


async def test_tls_before_1_3_is_refused(stand: Stand) -> None:
    """A client that speaks nothing newer than 1.2 gets no handshake."""
    context = stand.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection(
            "127.0.0.1", stand.listener.port, ssl=context, server_hostname=HOST
        )


async def test_another_host_and_a_page_of_another_site_are_refused(
    stand: Stand,
) -> None:
    """Even with a proof: ``Host`` is that of `operators.url`, and no page has one."""
    viewer = await signed_in(stand, "viewer")
    foreign = await viewer.get("/api/agents", headers={"Host": "evil.example"})
    assert foreign.status_code == 421
    page = await viewer.get("/api/agents", headers={"Origin": "https://evil.example"})
    assert page.status_code == 403
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    preflight = await viewer.http.options("/api/agents", headers=asked)
    refused(preflight, "invalid_token")
    assert not [h for h in preflight.headers if h.startswith("access-control")]


async def test_a_stranger_is_answered_before_a_body_is_read(stand: Stand) -> None:
    """Nothing of it is kept: a declared gigabyte and an endless one get their 401."""
    for length in ("content-length: 1073741824", "transfer-encoding: chunked"):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", stand.listener.port, ssl=stand.trust(), server_hostname=HOST
        )
        head = f"POST /api/agents HTTP/1.1\r\nhost: {HOST}\r\n{length}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(PATIENT):
            assert b" 401 " in await reader.readline()
        writer.close()


async def test_a_request_that_never_becomes_whole_is_dropped(bench: Bench) -> None:
    """The deadlines of the other listeners hold here: headers, and the handshake."""
    async with Stand.open(bench, Limits(head_seconds=0.5)) as stand:
        port = stand.listener.port
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        # On a slow machine the handshake itself may be what takes too long.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=stand.trust(), server_hostname=HOST
            )
            writer.write(b"GET / HTTP/1.1\r\n")
            async with asyncio.timeout(PATIENT):
                assert await read_all(reader) == b""
            writer.close()
        async with asyncio.timeout(PATIENT):
            assert await read_all(silent) == b""
        other.close()


async def test_ed25519_keys_sign_proofs_too(stand: Stand) -> None:
    """It is the other kind of key that is offered (RFC 9864)."""
    operator = stand.operator()
    operator.key = OKPKey.generate_key("Ed25519")
    real = operator.proof
    operator.proof = lambda *a, **k: real(*a, header={"alg": "Ed25519"}, **k)  # type: ignore[method-assign]
    await operator.sign_in("viewer")
    assert (await operator.get("/api/agents")).status_code == 200


async def streams(operator: Elsewhere, count: int, stack: Any) -> list[int]:
    """Open event streams that stay open; return their statuses."""
    found = []
    for _ in range(count):
        headers = {
            "DPoP": operator.proof("GET", "/api/events"),
            "Authorization": f"DPoP {operator.token}",
        }
        stream = operator.http.stream("GET", "/api/events", headers=headers)
        found.append((await stack.enter_async_context(stream)).status_code)
    return found


async def test_a_session_has_eight_event_streams_and_viewers_32(stand: Stand) -> None:
    """One more is 503, other sessions have theirs, and one that ends makes room."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            vera = await signed_in(stand, "viewer")
            async with contextlib.AsyncExitStack() as ended:
                assert await streams(vera, 1, ended) == [200]
            async with asyncio.timeout(PATIENT):
                while (await streams(vera, 1, stack)) != [200]:
                    pass
            assert await streams(vera, 8, stack) == [200] * 7 + [503], number
        last = await signed_in(stand, "viewer")
        assert await streams(last, 1, stack) == [503]
        olga = await signed_in(stand, "approver")
        assert await streams(olga, 9, stack) == [200] * 8 + [503]
        assert (await last.get("/api/status")).status_code == 200


async def test_a_slow_tenant_holds_nobody_but_who_waits_for_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers' sign-ins are counted first, hold no lock, and use two places."""
    hang, asked = asyncio.Event(), 0
    start = stand.bench.tenant.start_device_flow

    async def slow(**more: Any) -> Any:
        nonlocal asked
        if more["origin"]:
            asked += 1
            await hang.wait()
        return await start(**more)

    monkeypatch.setattr(stand.bench.tenant, "start_device_flow", slow)
    strangers = [asyncio.create_task(stand.operator().begin()) for _ in range(4)]
    async with asyncio.timeout(PATIENT):
        while len(stand.sessions._starting) < 4:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
        assert (await stand.operator().begin()).status_code == 503
        assert (await stand.sessions.login(OPERATOR)).user_code
    assert asked == 2
    hang.set()
    assert [(await one).status_code for one in strangers] == [202] * 4


async def test_a_role_has_half_of_the_places_and_revoking_has_its_own(
    bench: Bench,
) -> None:
    """Requests of one role at work leave room for others, and for each revocation.

    A grant on the path of a revocation has none of that room.
    """
    limits = Limits(connections=6)
    async with (
        Stand.open(bench, limits=limits) as stand,
        contextlib.AsyncExitStack() as stack,
    ):
        agent = await bench.agent("payer")
        olga, oscar = [await signed_in(stand, "operator") for _ in range(2)]
        vera = await signed_in(stand, "viewer")
        assert await streams(olga, 2, stack) == [200] * 2
        assert await streams(oscar, 1, stack) == [200]
        refused = await oscar.get("/api/status")
        assert refused.status_code == 503
        assert "role has too many" in refused.json()["detail"]
        assert (await vera.get("/api/status")).status_code == 200
        scopes, one = "/api/agents/scopes", {"agent_id": agent.id}
        less = sorted(bench.broker.registry.agent(agent.id).scopes)[:1]
        for path, asked in (
            (scopes, {**one, "grant": ["read:finance"]}),
            ("/api/agents/delegates", {**one, "to": agent.id, "scopes": less}),
            ("/api/agents/stepup", {"id": "stp_1", "decision": "approve"}),
            ("/api/changes", {"id": "chg_1", "decision": "approve"}),
        ):
            refused = await oscar.post(path, **asked)
            assert (refused.status_code, path) == (503, path)
            assert "role has too many" in refused.json()["detail"]
        ended = await oscar.post(scopes, **one, ungrant=less)
        assert ended.status_code == 200, ended.text
        body = {"agent_id": agent.id, "reason": "now"}
        revoked = await oscar.post("/api/agents/revoke", **body)
        assert revoked.status_code == 200, revoked.text
