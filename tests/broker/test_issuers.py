"""Agents that authenticate with their platform's token, and everybody who tries to."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.agents_http import BEARER, CIBA, DETAIL, Live, live_broker
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.workload import RSA, Platform, b64, jwk, key_for, platform, token

from agentvault_tui.broker.issuers import Issuer, Issuers
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import (
    ConflictError,
    SettingsError,
    TenantUnreachableError,
    UsageError,
)
from agentvault_tui.home import Home
from agentvault_tui.model import Agent
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.settings import IssuerSettings, Settings
from agentvault_tui.web.service_connection import Bounds

ISSUER = "https://token.actions.example"
AUDIENCE = "agentvault"
MAIN = "repo:acme/app:ref:refs/heads/main"
OTHER = key_for("ES256")


class Stand:
    """A broker with one issuer, and agents of its platform."""

    def __init__(self, live: Live, there: Platform) -> None:
        self.live, self.there, self.bench = live, there, live.bench

    async def agent(self, subject: str = f"ci:{MAIN}", name: str = "ci") -> Agent:
        return await self.bench.agent(name, "write:calendar", subject=subject)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return what a good token says; a change to `None` leaves it out."""
        now = int(self.bench.clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "sub": MAIN,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "jti": "one",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changes: Any) -> str:
        return token(RSA, "RS256", self.claims(**changes), kid="main")

    async def answer(self, text: str, **form: Any) -> int:
        return int((await self.live.assertion(text, **form)).status_code)


@pytest.fixture
async def there(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    patient = Bounds(connect=PATIENT, idle=PATIENT, whole=PATIENT)
    monkeypatch.setattr("agentvault_tui.broker.issuers._BOUNDS", patient)
    async with platform() as there:
        there.keys = [
            jwk(RSA, kid="main", alg="RS256", use="sig"),
            jwk(OTHER, kid="other"),
        ]
        yield there


def trust(bench: Bench, **issuers: IssuerSettings) -> None:
    bench.broker.admitting.issuers = Issuers(issuers, bench.home, bench.clock)


@pytest.fixture
async def stand(bench: Bench, there: Platform) -> AsyncIterator[Stand]:
    trust(bench, ci=IssuerSettings(ISSUER, AUDIENCE, there.url))
    async with live_broker(bench) as live:
        yield Stand(live, there)


async def test_a_platforms_token_authenticates_at_every_endpoint(stand: Stand) -> None:
    """Without a secret, at the token endpoint, for a step-up, for introspection and
    revocation, as often as the token is shown."""
    agent = await stand.agent()
    http, text = stand.live.http, stand.token()
    shown = {"client_assertion_type": BEARER, "client_assertion": text}
    got = await stand.live.assertion(text)
    assert got.status_code == 200, got.text
    assert await stand.answer(text, client_id=agent.client_id) == 200
    secret = got.json()["access_token"]
    told = await http.post("/oauth/introspect", data={**shown, "token": secret})
    assert told.json()["sub"] == agent.client_id
    held = await http.post("/bc-authorize", data={**shown, "scope": "write:calendar"})
    poll = {"grant_type": CIBA, "auth_req_id": held.json()["auth_req_id"]}
    waits = await http.post("/oauth/token", data={**shown, **poll})
    assert waits.json()["error"] == "authorization_pending"
    ended = await http.post("/oauth/revoke", data={**shown, "token": secret})
    assert ended.status_code == 200
    told = await http.post("/oauth/introspect", data={**shown, "token": secret})
    assert told.json() == {"active": False}
    wrong = {**shown, "client_assertion": text[:-8] + "AAAAAAAA", "token": secret}
    for path in ("/oauth/introspect", "/oauth/revoke", "/bc-authorize"):
        assert (await http.post(path, data=wrong)).status_code == 401


async def test_the_record_says_which_issuer_and_subject(stand: Stand) -> None:
    """At the registration what may, at each decision what did: a ``*`` names many."""
    await stand.agent("ci:repo:acme/*:ref:refs/heads/main")
    (registered,) = await stand.bench.events("agent.registered")
    assert registered.detail["credential"] == "subject"
    assert registered.detail["subject"] == "ci:repo:acme/*:ref:refs/heads/main"
    for repository in ("app", "site"):
        subject = f"repo:acme/{repository}:ref:refs/heads/main"
        assert await stand.answer(stand.token(sub=subject)) == 200
        decided = (await stand.bench.events("token.decision"))[-1]
        assert decided.detail["authenticated_as"] == f"ci:{subject}"
    # What a person is asked says it as well.
    details = json.dumps([DETAIL | {"action": "send:payment"}])
    asked = await stand.live.assertion(
        stand.token(), scope="send:payment", authorization_details=details
    )
    assert asked.status_code == 403
    decided = (await stand.bench.events("token.decision"))[-1]
    assert decided.detail["authenticated_as"] == f"ci:{MAIN}"


@pytest.mark.parametrize(
    "alg",
    [
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
        "Ed25519",
    ],
)
async def test_every_algorithm_of_the_contract_is_verified(
    stand: Stand, alg: str
) -> None:
    """Signed by another library, with a key that says its algorithm."""
    await stand.agent()
    key = key_for(alg)
    stand.there.keys = [jwk(key, kid="k", alg=alg)]
    assert await stand.answer(token(key, alg, stand.claims(), kid="k")) == 200


async def test_keys_that_do_not_say_their_algorithm(stand: Stand) -> None:
    """Of RSA only PKCS #1 v1.5; a curve has one; SPIFFE's ``use`` counts as well."""
    await stand.agent()
    curve = key_for("ES384")
    stand.there.keys = [
        jwk(RSA, kid="rsa", use="jwt-svid"),
        jwk(curve, kid="ec", key_ops=["verify"]),
    ]
    claims = stand.claims()
    assert await stand.answer(token(RSA, "RS512", claims, kid="rsa")) == 200
    assert await stand.answer(token(RSA, "PS256", claims, kid="rsa")) == 401
    assert await stand.answer(token(curve, "ES384", claims, kid="ec", typ=None)) == 200
    assert (
        await stand.answer(token(curve, "ES384", claims, kid="ec", typ="JOSE")) == 200
    )


KUBERNETES = {
    "aud": [AUDIENCE],
    "sub": "system:serviceaccount:payments:agent",
    "kubernetes.io": {
        "namespace": "payments",
        "node": {"name": "n1", "uid": "1"},
        "pod": {"name": "agent-1", "uid": "2"},
        "serviceaccount": {"name": "agent", "uid": "3"},
        "warnafter": 1_795_514_400,
    },
}
GITHUB = {"repository": "acme/app", "actor": "olga", "run_id": "77", "enterprise": None}


@pytest.mark.parametrize(
    ("subject", "more"),
    [
        ("ci:system:serviceaccount:payments:agent", KUBERNETES),
        ("ci:system:serviceaccount:payments:*", KUBERNETES),
        (f"ci:{MAIN}", GITHUB),
        (
            "ci:spiffe://acme.test/ns/*/agent",
            {"sub": "spiffe://acme.test/ns/prod/agent", "iat": None, "nbf": None},
        ),
    ],
    ids=["kubernetes", "kubernetes *", "github", "spiffe"],
)
async def test_tokens_as_the_platforms_make_them(
    stand: Stand, subject: str, more: dict[str, Any]
) -> None:
    """Nested claims, one audience in a list, and no times that are optional."""
    await stand.agent(subject)
    text = token(RSA, "RS256", stand.claims(**more), kid="main", x5t="AAAA")
    assert await stand.answer(text) == 200


NOW = 1_795_514_400
"""Where the tests' clock stands, in epoch seconds."""
GOOD: list[dict[str, Any]] = [
    {"exp": NOW + 1},
    {"exp": NOW + 86_400},
    {"iat": NOW + 60},
    {"nbf": NOW + 60},
    {"iat": NOW - 86_000},
    {"jti": None},
    {"iat": None, "nbf": None},
    {"aud": [AUDIENCE]},
]
UNPROVEN: list[dict[str, Any]] = [
    {"exp": NOW},
    {"exp": NOW - 1},
    {"exp": NOW + 86_401},
    {"exp": None},
    {"exp": str(NOW + 60)},
    {"exp": True},
    {"exp": 1e300},
    {"iat": NOW + 61},
    {"nbf": NOW + 61},
    {"iat": "now"},
    {"nbf": {}},
    {"aud": None},
    {"aud": "AgentVault"},
    {"aud": "agentvault/"},
    {"aud": []},
    {"aud": [AUDIENCE, AUDIENCE]},
    {"aud": [AUDIENCE, "https://evil.example"]},
    {"aud": {"agentvault": 1}},
    {"iss": None},
    {"iss": ISSUER + "/"},
    {"iss": ISSUER.upper()},
    {"iss": "https://token.actions.examp1e"},
    {"iss": [ISSUER]},
    {"sub": None},
    {"sub": ""},
    {"sub": [MAIN]},
    {"sub": MAIN.upper()},
    {"sub": MAIN.replace("acme", "\u0430cme")},
    {"sub": MAIN + " "},
    {"sub": MAIN + "\n"},
    {"sub": MAIN + "/x"},
    {"sub": "ci:" + MAIN},
]


async def test_a_token_must_say_all_of_it_exactly(stand: Stand) -> None:
    """What is missing, foreign, early, over, of another type or nearly right: 401."""
    assert stand.bench.clock.now().timestamp() == NOW
    await stand.agent()
    for changes in GOOD:
        assert await stand.answer(stand.token(**changes)) == 200, changes
    for changes in UNPROVEN:
        assert await stand.answer(stand.token(**changes)) == 401, changes


async def test_a_token_is_good_until_its_end(stand: Stand, clock: ManualClock) -> None:
    """To the second, whatever clocks may differ by."""
    await stand.agent()
    text = stand.token(exp=NOW + 10)
    clock.advance(9)
    assert await stand.answer(text) == 200
    clock.advance(1)
    assert await stand.answer(text) == 401


async def test_forged_tokens_are_refused(stand: Stand) -> None:
    """alg none, a public key as a secret, another algorithm, other keys and headers."""
    await stand.agent()
    claims = stand.claims()
    good = token(RSA, "RS256", claims, kid="main")
    head, payload, signed = good.split(".")
    forged = [
        good[:-8] + "AAAAAAAA",
        good + "=",
        f"{head}.{payload}",
        f"{head}.{payload}.",
    ]
    for name in ("none", "None", "nOnE", "", "HS256", "ES256K", "RSA1_5", 256, None):
        start = b64(json.dumps({"alg": name, "kid": "main"}).encode())
        forged += [f"{start}.{payload}.", f"{start}.{payload}.{signed}"]
    said = json.dumps(claims)[:-1]
    public = json.dumps(stand.there.keys[0]).encode()
    for secret in (public, stand.there.keys[0]["n"].encode()):
        start = b64(json.dumps({"alg": "HS256", "kid": "main"}).encode())
        made = hmac.digest(secret, f"{start}.{payload}".encode(), hashlib.sha256)
        forged.append(f"{start}.{payload}.{b64(made)}")
    forged += [
        token(RSA, "PS256", claims, kid="main"),
        token(RSA, "RS512", claims, kid="main"),
        token(RSA, "RS256", claims, kid="other"),
        token(OTHER, "ES256", claims, kid="main"),
        token(key_for("ES256"), "ES256", claims, kid="other"),
        token(RSA, "RS256", claims),  # several keys, and none is named
        token(RSA, "RS256", claims, kid=["main"]),
        token(RSA, "RS256", claims, kid=""),
        token(RSA, "RS256", claims, kid="main\u0000"),
        token(RSA, "RS256", claims, kid="../../main"),
        token(RSA, "RS256", claims, kid="MAIN"),
        token(RSA, "RS256", claims, kid="main", jku="https://evil.example/keys"),
        token(RSA, "RS256", claims, kid="main", x5u="https://evil.example/x"),
        token(RSA, "RS256", claims, kid="main", jwk=stand.there.keys[0]),
        token(RSA, "RS256", claims, kid="main", crit=["exp"]),
        token(RSA, "RS256", claims, kid="main", crit=[]),
        token(RSA, "RS256", claims, kid="main", b64=True),
        token(RSA, "RS256", claims, kid="main", typ="at+jwt"),
        token(RSA, "RS256", claims, kid="main", typ="client-authentication+jwt"),
        token(RSA, "RS256", f'{said},"sub":"{MAIN}"}}', kid="main"),
        token(RSA, "RS256", f'{said},"aud":"agentvault"}}', kid="main"),
        token(RSA, "RS256", "[]", kid="main"),
        token(RSA, "RS256", '{"iss":' + "[" * 900, kid="main"),
    ]
    for text in forged:
        assert await stand.answer(text) == 401, text
    twice = '{"alg":"RS256","alg":"RS256","kid":"main"}'
    start = b64(twice.encode())
    assert await stand.answer(f"{start}.{payload}.{signed}") == 401
    huge = token(RSA, "RS256", stand.claims(more="x" * 4000), kid="main")
    assert await stand.answer(huge) == 400
    assert await stand.answer(good) == 200


async def test_a_key_of_another_issuer_proves_nothing(
    bench: Bench, there: Platform
) -> None:
    """Two issuers: each has its own keys and its own agents, whatever tokens say."""
    async with platform() as second:
        second.keys = [jwk(OTHER, kid="main")]
        trust(
            bench,
            ci=IssuerSettings(ISSUER, AUDIENCE, there.url),
            two=IssuerSettings("https://two.example", AUDIENCE, second.url),
        )
        async with live_broker(bench) as live:
            stand = Stand(live, there)
            await stand.agent()
            mine = token(OTHER, "ES256", stand.claims(), kid="main")
            assert await stand.answer(mine) == 401
            known = stand.claims(iss="https://two.example")
            theirs = token(OTHER, "ES256", known, kid="main")
            assert await stand.answer(theirs) == 401  # no agent of that issuer
            other = await stand.agent(f"two:{MAIN}", "other")
            assert await stand.answer(theirs, client_id=other.client_id) == 200
            assert await stand.answer(stand.token(), client_id=other.client_id) == 401
            assert await stand.answer(stand.token()) == 200


async def test_one_issuer_with_two_audiences_is_two(
    bench: Bench, there: Platform
) -> None:
    """The same platform for two purposes: the audience says which."""
    trust(
        bench,
        ci=IssuerSettings(ISSUER, AUDIENCE, there.url),
        deploy=IssuerSettings(ISSUER, "deploy", there.url),
    )
    async with live_broker(bench) as live:
        stand = Stand(live, there)
        await stand.agent(f"deploy:{MAIN}")
        assert await stand.answer(stand.token()) == 401
        assert await stand.answer(stand.token(aud="deploy")) == 200


async def test_client_id_picks_else_exactly_one_agent_must_match(stand: Stand) -> None:
    """Two agents of one subject: neither without a word; nor by one that is not its."""
    one = await stand.agent(name="one")
    assert await stand.answer(stand.token()) == 200
    two = await stand.agent(name="two")
    stranger = await stand.agent("ci:repo:acme/site:ref:refs/heads/main", "three")
    assert await stand.answer(stand.token()) == 401
    for agent in (one, two):
        assert await stand.answer(stand.token(), client_id=agent.client_id) == 200
    for client_id in (stranger.client_id, "agt_none", f"ci:{MAIN}"):
        assert await stand.answer(stand.token(), client_id=client_id) == 401
    await revoke_agent(stand.bench.broker, two.id, "test", OPERATOR)
    got = await stand.live.assertion(stand.token())
    assert got.status_code == 200
    await revoke_agent(stand.bench.broker, one.id, "test", OPERATOR)
    refused = await stand.live.assertion(stand.token(), client_id=one.client_id)
    assert (refused.status_code, refused.json()["reason"]) == (403, "agent_revoked")


async def test_agents_with_secrets_and_keys_are_not_known_by_tokens(
    stand: Stand,
) -> None:
    """A platform that puts a client id into ``sub`` is none of ours, nor is a secret
    or an assertion of its own a way to an agent with a subject."""
    plain = await stand.live.caller("plain")
    assert await stand.answer(stand.token(sub=plain.agent.client_id)) == 401
    named = {"client_id": plain.agent.client_id}
    assert await stand.answer(stand.token(sub=plain.agent.client_id), **named) == 401
    agent = await stand.agent()
    own = stand.live.claims(agent.client_id)
    assert await stand.answer(token(RSA, "RS256", own, kid="main")) == 401
    for secret in ("", "None", f"ci:{MAIN}"):
        form = {"client_id": agent.client_id, "client_secret": secret, "scope": "x"}
        form["grant_type"] = "client_credentials"
        answer = await stand.live.http.post("/oauth/token", data=form)
        assert answer.status_code == 401


async def test_overlapping_subjects_are_refused_at_the_registration(
    stand: Stand,
) -> None:
    """One with ``*`` that shares a token with another's; also while that one is being
    recorded, and when a revoked one comes back."""
    first = await stand.agent("ci:repo:acme/*:ref:refs/heads/main", "first")
    for subject in (f"ci:{MAIN}", "ci:repo:acme/app:ref:refs/*/main"):
        with pytest.raises(ConflictError):
            await stand.agent(subject, "second")
    await stand.agent("ci:repo:acme/*:ref:refs/heads/dev", "dev")
    broker = stand.bench.broker
    await revoke_agent(broker, first.id, "test", OPERATOR)

    async def add(name: str) -> object:
        wanted = AgentRequest(
            name=name,
            owner="olga",
            scopes=("write:calendar",),
            subject="ci:repo:acme/*:ref:refs/*/main",
        )
        return await register(broker, wanted, OPERATOR)

    done = await asyncio.gather(add("a"), add("b"), return_exceptions=True)
    assert [type(one).__name__ for one in done] == ["Registered", "ConflictError"]
    with pytest.raises(ConflictError):
        await restore_agent(broker, first.id, OPERATOR)


async def test_what_cannot_be_a_subject_here_is_refused(stand: Stand) -> None:
    """An issuer that is not set up, a ``*`` for the owner, or a key beside it."""
    for subject, more in (
        (f"other:{MAIN}", {}),
        ("ci:repo:*/app:ref:refs/heads/main", {}),
        (MAIN, {}),
        (f"ci:{MAIN}", {"public_key": json.dumps(jwk(OTHER))}),
    ):
        with pytest.raises(UsageError):
            await stand.bench.agent("x", subject=subject, **more)


async def test_a_subject_survives_a_restart(stand: Stand, there: Platform) -> None:
    """Subject and overlap are known to the next process."""
    await stand.agent("ci:repo:acme/*:ref:refs/heads/main")
    async with stand.bench.restarted() as again:
        trust(again, ci=IssuerSettings(ISSUER, AUDIENCE, there.url))
        async with live_broker(again) as live:
            other = Stand(live, there)
            assert await other.answer(other.token()) == 200
            with pytest.raises(ConflictError):
                await other.agent(name="other")
        assert again.broker.health.state_problem is None


# Keys


async def test_a_rotated_key_is_fetched_once_for_all_who_wait(
    stand: Stand, clock: ManualClock
) -> None:
    """An unknown kid is asked for at once, then at most once in 30 s, however many
    kids tokens name, known ones going on meanwhile."""
    await stand.agent()
    assert await stand.answer(stand.token()) == 200
    assert stand.there.asked == 1
    new = key_for("ES256")
    stand.there.keys.append(jwk(new, kid="new"))
    rotated = token(new, "ES256", stand.claims(), kid="new")
    assert await stand.answer(rotated) == 200
    assert stand.there.asked == 2

    def strange(number: int) -> str:
        return token(new, "ES256", stand.claims(), kid=f"kid-{number}")

    answers = await asyncio.gather(*(stand.answer(strange(n)) for n in range(200)))
    assert set(answers) == {401}
    assert stand.there.asked == 2
    clock.advance(31)
    answers = await asyncio.gather(*(stand.answer(strange(n)) for n in range(200)))
    assert set(answers) == {401}
    assert stand.there.asked == 3
    assert await stand.answer(stand.token()) == 200


async def test_a_withdrawn_key_counts_no_more(stand: Stand, clock: ManualClock) -> None:
    """Within five minutes; the issuer is asked no more often without a reason."""
    await stand.agent()
    text = stand.token()
    assert await stand.answer(text) == 200
    stand.there.keys = stand.there.keys[1:]
    clock.advance(299)
    assert await stand.answer(text) == 200
    assert stand.there.asked == 1
    clock.advance(2)
    assert await stand.answer(text) == 401


async def test_kept_keys_go_on_for_an_hour_while_the_issuer_is_away(
    stand: Stand, clock: ManualClock
) -> None:
    """Then its agents hear 503 until it answers again; operators hear of it at once."""
    await stand.agent()
    assert await stand.answer(stand.token()) == 200
    stand.there.answer = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
    clock.advance(3599)
    assert await stand.answer(stand.token()) == 200
    told = (await stand.bench.read("/api/status")).json()["warnings"]
    assert any("the keys of the issuer ci cannot be had" in one for one in told)
    clock.advance(31)
    asked = stand.there.asked
    for _ in range(3):
        got = await stand.live.assertion(stand.token())
        assert (got.status_code, got.json()["error"]) == (
            503,
            "temporarily_unavailable",
        )
        assert got.headers["retry-after"]
    assert stand.there.asked == asked + 1  # tries follow each other in 5 s
    stand.there.answer = None
    clock.advance(6)
    assert await stand.answer(stand.token()) == 200
    told = (await stand.bench.read("/api/status")).json()["warnings"]
    assert not any("issuer" in one for one in told)


def answered(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)


BAD_ANSWERS = {
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n",
    "no JSON": answered(b"{]"),
    "no set": answered(b'{"keys":{}}'),
    "members twice": answered(b'{"keys":[],"keys":[]}'),
    "too long": answered(b" " * 400_000),
    "too many": answered(b'{"keys":[' + b"{}," * 100 + b"{}]}"),
    "cut off": answered(b"{", 4000),
    "no HTTP": b"hello\r\n\r\n",
    "a secret": answered(b'{"keys":[{"kty":"oct","k":"AAAA"}]}'),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_what_is_no_key_set_is_not_believed(stand: Stand, answer: bytes) -> None:
    """No redirect is followed, nothing large is read, and no key of it counts."""
    await stand.agent()
    stand.there.answer = answer.replace(b"{url}", stand.there.url.encode())
    assert await stand.answer(stand.token()) == 503
    assert stand.there.asked == 1


async def test_an_issuer_that_does_not_answer_holds_nobody_else_up(
    stand: Stand,
) -> None:
    """Agents with secrets go on while others wait for its keys."""
    await stand.agent()
    plain = await stand.live.caller("plain")
    stand.there.gate = asyncio.Event()
    waiting = asyncio.create_task(stand.live.assertion(stand.token()))
    await stand.bench.until(lambda: stand.there.asked == 1)
    assert (await plain.token()).status_code == 200
    assert not waiting.done()
    stand.there.gate.set()
    assert (await waiting).status_code == 200


async def test_an_issuer_that_does_not_answer_is_given_up(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for its keys hears 503 once the time for a fetch is over."""
    hasty = Bounds(connect=0.05, idle=0.05, whole=0.05)
    monkeypatch.setattr("agentvault_tui.broker.issuers._BOUNDS", hasty)
    await stand.agent()
    stand.there.gate = asyncio.Event()
    assert await stand.answer(stand.token()) == 503
    stand.there.gate.set()


async def test_keys_that_are_of_no_use_are_passed_over(stand: Stand) -> None:
    """Weak, for encryption, malformed, of a kind nobody knows, or two of one name."""
    await stand.agent()
    good = jwk(RSA, kid="main")
    point = jwk(OTHER, kid="x")
    stand.there.keys = [
        good,
        {**jwk(RSA, kid="enc"), "use": "enc"},
        {**jwk(RSA, kid="ops"), "key_ops": ["encrypt"]},
        {**jwk(RSA, kid="weak"), "n": good["n"][:40]},
        {**jwk(RSA, kid="three"), "e": "Aw"},
        {**point, "crv": "secp256k1"},
        {**point, "x": "AAAA"},
        {"kty": "AKP", "kid": "post"},
        {"kty": ["RSA"], "kid": "list"},
        jwk(OTHER, kid="twice"),
        jwk(RSA, kid="twice"),
        jwk(OTHER, kid=7),
        jwk(RSA, kid="alg", alg="HS256"),
        jwk(RSA, kid="alg2", alg=["RS256"]),
    ]
    claims = stand.claims()
    assert await stand.answer(token(RSA, "RS256", claims, kid="main")) == 200
    for kid in ("enc", "ops", "weak", "three", "list", "twice", "alg", "alg2"):
        assert await stand.answer(token(RSA, "RS256", claims, kid=kid)) == 401, kid
    for name in ("x", "twice", "7", 7):
        assert await stand.answer(token(OTHER, "ES256", claims, kid=name)) == 401, name


async def test_the_only_key_need_not_be_named(stand: Stand) -> None:
    """With one key in the set a token without kid is verified by it."""
    await stand.agent()
    stand.there.keys = [jwk(RSA)]
    assert await stand.answer(token(RSA, "RS256", stand.claims())) == 200
    assert await stand.answer(token(RSA, "RS256", stand.claims(), kid="x")) == 401


async def test_keys_in_a_file(
    bench: Bench, there: Platform, clock: ManualClock
) -> None:
    """As they are there, soon after a change; not where others could write them."""
    path = bench.home.config / "keys.json"
    path.write_text(json.dumps({"keys": there.keys}))
    path.chmod(0o644)
    trust(bench, ci=IssuerSettings(ISSUER, AUDIENCE, jwks_file="keys.json"))
    async with live_broker(bench) as live:
        stand = Stand(live, there)
        await stand.agent()
        assert await stand.answer(stand.token()) == 200
        path.write_text(json.dumps({"keys": there.keys[1:]}))
        clock.advance(6)
        assert await stand.answer(stand.token()) == 401
        path.write_text(json.dumps({"keys": there.keys}))
        path.chmod(0o666)
        bench.home.config.chmod(0o755)
        clock.advance(3700)
        assert await stand.answer(stand.token()) == 503
        bench.home.config.chmod(0o700)
        clock.advance(6)
        assert await stand.answer(stand.token()) == 200


async def test_a_token_that_expires_while_keys_are_fetched_is_refused(
    stand: Stand, there: Platform, clock: ManualClock
) -> None:
    """Its time is looked at once more when its signature has been verified."""
    await stand.agent()
    there.gate = asyncio.Event()
    answer = asyncio.create_task(stand.answer(stand.token()))
    async with asyncio.timeout(PATIENT):
        while not there.asked:  # noqa: ASYNC110 - a server counts
            await asyncio.sleep(0)
    clock.advance(601)
    there.gate.set()
    assert await answer == 401


async def test_a_file_of_keys_is_bounded(tmp_path: Path, clock: ManualClock) -> None:
    """One that is too long is not read to its end."""
    (tmp_path / "keys.json").write_bytes(b" " * 262_145)
    one = IssuerSettings(ISSUER, AUDIENCE, jwks_file="keys.json")
    with pytest.raises(TenantUnreachableError, match="too long"):
        await Issuer("ci", one, tmp_path, clock)._fetch()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('issuer = "i"\naudience = "a"', "either 'jwks_uri' or 'jwks_file'"),
        ('issuer = "i"\naudience = "a"\njwks_uri = "x"\njwks_file = "y"', "either"),
        ('audience = "a"\njwks_file = "y"', "needs 'issuer' and 'audience'"),
        ('issuer = "i"\njwks_file = "y"', "needs 'issuer' and 'audience'"),
        ('isuer = "i"', "did you mean issuer"),
    ],
)
def test_issuers_are_set_up_whole(tmp_path: Path, toml: str, words: str) -> None:
    """A setting that is missing, twice or misspelt is named."""
    home = Home.locate(tmp_path)
    home.config_file.write_text(f"[issuers.ci]\n{toml}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(home, {})
    assert words in caught.value.diagnosis()


@pytest.mark.parametrize(
    "url",
    ["http://keys.example/jwks", "ftp://keys.example/", "keys", "https://u@k.example/"],
)
def test_keys_come_over_tls_or_from_this_machine(tmp_path: Path, url: str) -> None:
    """Whoever stands between could send keys of their own."""
    home, one = Home.locate(tmp_path), IssuerSettings(ISSUER, AUDIENCE, url)
    with pytest.raises(SettingsError, match=r"issuers\.ci\.jwks_uri"):
        Issuers({"ci": one}, home, SystemClock())


def test_two_issuers_are_never_the_same(tmp_path: Path) -> None:
    """The same issuer and audience twice: a token would be of both."""
    one = IssuerSettings(ISSUER, AUDIENCE, jwks_file="keys.json")
    with pytest.raises(SettingsError, match="same issuer and audience"):
        Issuers({"a": one, "b": one}, Home.locate(tmp_path), SystemClock())
