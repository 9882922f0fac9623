"""Who calls: one method, one error, and no assertion twice."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from support.agents_http import BEARER, Caller, Key, Live, b64, public, sign
from support.bench import Bench

from agentvault_tui.broker.assertion import FullError, ReplayStore

KEYS: dict[str, Key] = {
    "EdDSA": OKPKey.generate_key("Ed25519"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
    "ES256": ECKey.generate_key("P-256"),
    "RS256": RSAKey.generate_key(2048),
}
REFUSAL = (
    "client authentication failed: no client with this id and this secret or key is "
    "registered at this broker; one of another home is not known here"
)
GRANT = {"grant_type": "client_credentials", "scope": "write:calendar"}


def is_refused(answer: httpx.Response) -> bool:
    """Check that it looks as every failed authentication does."""
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Basic ")
    fault = answer.json()
    assert fault.pop("error") == "invalid_client"
    assert fault.pop("error_description") == REFUSAL
    return not fault


async def test_both_secret_methods_are_accepted(caller: Caller) -> None:
    """client_secret_basic and client_secret_post, in form and JSON."""
    post = {"client_id": caller.agent.client_id, "client_secret": caller.secret}
    http = caller.http
    assert (await caller.token()).status_code == 200
    for more in ({"data": {**GRANT, **post}}, {"json": {**GRANT, **post}}):
        assert (await http.post("/oauth/token", **more)).status_code == 200


async def test_basic_halves_are_form_decoded(caller: Caller) -> None:
    """RFC 6749 section 2.3.1, as clients that encode everything send it."""
    coded = "".join(f"%{byte:02X}" for byte in caller.secret.encode())
    answer = await caller.http.post(
        "/oauth/token", data=GRANT, auth=(quote_plus(caller.agent.client_id), coded)
    )
    assert answer.status_code == 200


async def test_the_body_may_repeat_the_client_id_of_the_header(caller: Caller) -> None:
    """A client_id is no method; another one than the header's is a failure."""
    assert (await caller.token(client_id=caller.agent.client_id)).status_code == 200
    assert is_refused(await caller.token(client_id="agt_other"))


HEADERS = [
    "Basic",
    "Basic !!!",
    "Basic " + b64(b"nocolon").decode(),
    "Basic " + b64(b"\xff:\xff").decode() + "==",
    "Basic JTphOiU=",
    "Bearer av_t_x",
    "Digest x",
    "",
    "Basic " + "A" * 8000,
]


async def test_a_header_that_proves_nothing_is_refused(live: Live) -> None:
    """Other schemes and broken encodings are an unknown client."""
    for header in HEADERS:
        headers = {"authorization": header}
        assert is_refused(
            await live.http.post("/oauth/token", data=GRANT, headers=headers)
        )


async def test_unknown_client_and_wrong_secret_look_the_same(
    live: Live, caller: Caller
) -> None:
    """Nothing in an answer tells whether a client id exists."""
    http, known = live.http, caller.agent.client_id
    keyed = await live.caller("keyed", public_key=public(KEYS["ES256"]))
    for client_id, secret in (
        (known, "wrong"),
        ("agt_0000000000000000", caller.secret),
        (keyed.agent.client_id, "0" * 64),
        (keyed.agent.client_id, ""),
        (known, ""),
        ("", ""),
        ("\u202eagt", "é"),
    ):
        answer = await http.post("/oauth/token", data=GRANT, auth=(client_id, secret))
        assert is_refused(answer)
    assert is_refused(await http.post("/oauth/token", data=GRANT))
    assert is_refused(
        await http.post("/oauth/token", data={**GRANT, "client_id": known})
    )
    odd = {**GRANT, "client_id": known, "client_secret": 1}
    assert is_refused(await http.post("/oauth/token", json=odd))


async def test_more_than_one_method_is_no_method(live: Live, caller: Caller) -> None:
    """RFC 6749 section 2.3: a client MUST NOT use more than one."""
    for more in (
        {"client_secret": caller.secret},
        {"client_assertion": "a.b.c", "client_assertion_type": BEARER},
    ):
        answer = await caller.token(**more)
        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_request"
    both = {"client_id": "x", "client_secret": "x", "client_assertion": "a.b.c"}
    answer = await live.http.post("/oauth/token", data={**GRANT, **both})
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    "path", ["/oauth/introspect", "/oauth/revoke", "/bc-authorize"]
)
async def test_every_endpoint_wants_to_know_who_calls(live: Live, path: str) -> None:
    """No endpoint that takes a token or a scope is open."""
    assert is_refused(
        await live.http.post(path, data={"token": "x", "scope": "write:calendar"})
    )


@pytest.mark.parametrize("alg", KEYS)
async def test_an_assertion_is_accepted_once(live: Live, alg: str) -> None:
    """EdDSA (by both its names), ES256 and RS256; the second use is a replay."""
    key = KEYS[alg]
    keyed = await live.caller("keyed", public_key=public(key))
    text = sign(live.claims(keyed.agent.client_id), key, alg)
    assert (await live.assertion(text)).status_code == 200
    assert is_refused(await live.assertion(text))
    other = sign(live.claims(keyed.agent.client_id), key, alg, kid="x", jku="http://x")
    named = {"client_id": keyed.agent.client_id}
    assert (await live.assertion(other, **named)).status_code == 200


async def test_a_jti_counts_once_whatever_else_changes(live: Live) -> None:
    """A new expiry does not make an old name new."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    one = live.claims(keyed.agent.client_id, jti="same")
    assert (await live.assertion(sign(one, key, "ES256"))).status_code == 200
    two = {**one, "exp": one["exp"] + 100}
    assert is_refused(await live.assertion(sign(two, key, "ES256")))


@pytest.mark.slow
async def test_the_audience_is_the_issuer_or_an_endpoint(live: Live) -> None:
    """RFC 7523 section 3, CIBA Core section 7.1; also as localhost, and as https."""
    key = KEYS["EdDSA"]
    keyed = await live.caller("keyed", public_key=public(key))
    https = live.url.replace("http://", "https://")
    for url in (live.url, live.url.replace("127.0.0.1", "localhost"), https):
        for path in ("", "/", "/oauth/token", "/bc-authorize"):
            for aud in (url + path, [url + path]):
                claims = live.claims(keyed.agent.client_id, aud=aud)
                answer = await live.assertion(sign(claims, key, "EdDSA"))
                assert answer.status_code == 200, aud


async def test_an_assertion_is_for_us_alone(live: Live) -> None:
    """Whoever else it is meant for, first or last, could use it here: refused."""
    key = KEYS["EdDSA"]
    keyed = await live.caller("keyed", public_key=public(key))
    other = "https://evil.example"
    for aud in ([live.url, other], [other, live.url], [live.url, live.url]):
        claims = live.claims(keyed.agent.client_id, aud=aud)
        assert is_refused(await live.assertion(sign(claims, key, "EdDSA")))


NOW = 1_795_514_400
"""Where the tests' clock stands, in epoch seconds."""


UNPROVEN: list[dict[str, Any]] = [
    {"iss": None},
    {"sub": None},
    {"aud": None},
    {"exp": None},
    {"jti": None},
    {"iss": "agt_other"},
    {"aud": "https://evil.example"},
    {"aud": "https://evil.example/oauth/token"},
    {"aud": []},
    {"aud": ["http://127.0.0.1:1", "https://evil.example"]},
    {"aud": 1},
    {"exp": NOW - 31},
    {"exp": NOW - 30},
    {"exp": NOW + 301},
    {"exp": NOW + 301, "iat": NOW + 2},
    {"exp": NOW + 290, "iat": NOW - 11},
    {"exp": True},
    {"exp": "1"},
    {"exp": -1},
    {"exp": 10**15},
    {"exp": [NOW]},
    {"iat": NOW + 31},
    {"iat": "now"},
    {"nbf": NOW + 31},
    {"nbf": {}},
    {"jti": ""},
    {"jti": 1},
    {"jti": "x" * 513},
]


async def test_an_assertion_must_say_all_of_it(live: Live) -> None:
    """Missing, foreign, late or long-lived: nobody's."""
    assert live.bench.clock.now().timestamp() == NOW
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    for changes in UNPROVEN:
        claims = live.claims(keyed.agent.client_id, **changes)
        answer = await live.assertion(sign(claims, key, "ES256"))
        assert answer.status_code == 401, changes
        assert is_refused(answer)


EDGES: list[dict[str, Any]] = [
    {"exp": NOW + 300},
    {"iat": None},
    {"nbf": NOW + 29},
    {"iat": NOW + 29},
    {"iat": NOW - 29},
]


async def test_an_assertion_at_the_edge_is_accepted(live: Live) -> None:
    """Five minutes ahead, and thirty seconds of difference between clocks."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    for changes in EDGES:
        claims = live.claims(keyed.agent.client_id, **changes)
        answer = await live.assertion(sign(claims, key, "ES256"))
        assert answer.status_code == 200, changes


async def test_an_assertion_made_for_longer_is_refused_near_its_end(
    live: Live, bench: Bench
) -> None:
    """Five minutes is the life an assertion may have, not what is left of it."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    life = {"iat": NOW + 50, "exp": NOW + 351}
    long = live.claims(keyed.agent.client_id, **life)
    fits = live.claims(keyed.agent.client_id, **{**life, "exp": NOW + 350})
    bench.clock.advance(100)
    assert is_refused(await live.assertion(sign(long, key, "ES256")))
    assert (await live.assertion(sign(fits, key, "ES256"))).status_code == 200


async def test_clocks_may_differ_by_half_a_minute(live: Live, bench: Bench) -> None:
    """An assertion is good for 29 s past its end and not for 31."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    texts = [sign(live.claims(keyed.agent.client_id), key, "ES256") for _ in range(2)]
    bench.clock.advance(60 + 29)
    assert (await live.assertion(texts[0])).status_code == 200
    bench.clock.advance(2)
    assert is_refused(await live.assertion(texts[1]))


@pytest.mark.parametrize("life", [30, 45, 59])
async def test_an_assertion_counts_once_for_as_long_as_it_is_accepted(
    live: Live, bench: Bench, life: int
) -> None:
    """Used, it is remembered past its end too: another's clock would still take it."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    claims = live.claims(keyed.agent.client_id, exp=NOW + life)
    text = sign(claims, key, "ES256")
    assert (await live.assertion(text)).status_code == 200
    bench.clock.advance(life + 29)
    assert is_refused(await live.assertion(text))
    fresh = sign({**claims, "jti": "another"}, key, "ES256")
    assert (await live.assertion(fresh)).status_code == 200


@pytest.mark.slow
async def test_an_assertion_with_a_bad_signature_is_refused(
    live: Live, caller: Caller
) -> None:
    """alg none, HMAC under the public key, another's key, another algorithm."""
    rsa, ec = KEYS["RS256"], KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(rsa))
    claims = live.claims(keyed.agent.client_id)
    payload = b64(json.dumps(claims).encode()).decode()
    good = sign(claims, rsa, "RS256")
    head, _, signature = good.split(".")
    forged = []
    for name in ("none", "None", "nOnE", "", "RS256"):
        start = b64(json.dumps({"alg": name}).encode()).decode()
        forged += [f"{start}.{payload}.", f"{start}.{payload}.AAAA"]
    for secret in (rsa.as_pem(private=False), rsa.as_der(private=False), public(rsa)):
        forged.append(_hmac(claims, secret))
    forged += [
        sign(claims, RSAKey.generate_key(2048), "RS256"),
        sign(claims, ec, "ES256"),
        sign(claims, rsa, "PS256"),
        sign(claims, rsa, "RS512"),
        sign(claims, rsa, "RS256", crit=["x"], x=1),
        sign(claims, rsa, "RS256", b64=False, crit=["b64"]),
        sign(claims, rsa, "RS256", b64=True),
        sign(claims, rsa, "RS256", typ="logout+jwt"),
        sign(claims, rsa, "RS256", typ=1),
        sign(claims, rsa, "RS256", alg=["RS256"]),
        good[:-4],
        good + "A",
        good + "!",
        good + "=",
        good[:-1] + chr(ord(good[-1]) + 1),
        good.replace(".", ". ", 1),
        f"{head}.{payload}",
        f".{payload}.{signature}",
        f"{head}..{signature}",
        "..",
        "x" * 4000,
        good + "\u202e",
        sign(b"[1]", rsa, "RS256"),
        sign(b'{"sub":' + b"[" * 2000, rsa, "RS256"),
        sign(json.dumps(claims).encode()[:-1] + b',"sub":"x"}', rsa, "RS256"),
    ]
    for text in forged:
        assert is_refused(await live.assertion(text))
    # A key in the header is passed over: this one is signed by the registered key.
    other = sign(claims, rsa, "RS256", jwk=json.loads(public(ec)))
    assert (await live.assertion(other)).status_code == 200
    # A client that has a secret has no key to be known by, nor has a stranger.
    for client_id in (caller.agent.client_id, "agt_0000000000000000"):
        for alg, key in KEYS.items():
            assert is_refused(
                await live.assertion(sign(live.claims(client_id), key, alg))
            )


async def test_an_assertion_of_another_type_or_client(live: Live) -> None:
    """The type is the one of RFC 7523, and a named client the one that signs."""
    key = KEYS["ES256"]
    keyed = await live.caller("keyed", public_key=public(key))
    for more in (
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2"},
        {"client_assertion_type": ""},
        {"client_id": "agt_other"},
    ):
        text = sign(live.claims(keyed.agent.client_id), key, "ES256")
        assert is_refused(await live.assertion(text, **more))


def test_one_client_cannot_fill_the_memory_of_another() -> None:
    """At its bound a client waits; others go on, and time frees the space."""
    store = ReplayStore(per_client=3)
    assert all(store.use("a", str(i), 1300.0, 1000.0, 1000.0) for i in range(3))
    assert not store.use("a", "0", 1300.0, 1000.0, 1000.0)
    with pytest.raises(FullError):
        store.use("a", "3", 1300.0, 1000.0, 1000.0)
    assert store.use("b", "0", 1300.0, 1000.0, 1000.0)
    assert not store.use("b", "0", 1310.0, 1299.0, 1299.0)
    assert store.use("a", "3", 1700.0, 1400.0, 1400.0)


def test_a_client_fills_its_memory_whenever_its_assertions_end() -> None:
    """Those that end soon and those that end late count together."""
    store = ReplayStore(per_client=3)
    for number in range(3):
        assert store.use("a", str(number), 1030.0 + 90 * number, 1000.0, 1000.0)
    with pytest.raises(FullError):
        store.use("a", "3", 1300.0, 1000.0, 1000.0)


def _hmac(claims: dict[str, Any], secret: bytes | str) -> str:
    """Sign as if the public key were a shared secret."""
    parts = ({"alg": "HS256"}, claims)
    signed = b".".join(b64(json.dumps(part).encode()) for part in parts)
    key = secret if isinstance(secret, bytes) else secret.encode()
    return (signed + b"." + b64(hmac.digest(key, signed, hashlib.sha256))).decode()
