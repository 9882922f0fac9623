"""Which keys may be registered."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from support.agents_http import Key, public

from agentvault_tui.broker.public_key import parse_public_key, read_key_set, verifier
from agentvault_tui.errors import UsageError

GOOD: list[Key] = [
    OKPKey.generate_key("Ed25519"),
    ECKey.generate_key("P-256"),
    RSAKey.generate_key(2048),
]


@pytest.mark.parametrize("key", GOOD, ids=["Ed25519", "P-256", "RSA"])
def test_pem_and_jwk_of_one_key_are_stored_alike(key: Key) -> None:
    """One canonical JWK, whatever came in, and reading it again changes nothing."""
    pem = key.as_pem(private=False).decode()
    stored = parse_public_key(pem)
    noisy = {**key.as_dict(private=False), "kid": "x", "use": "sig", "alg": "y"}
    assert parse_public_key(json.dumps(noisy, indent=2)) == stored
    assert parse_public_key(f"\n{pem}\n") == stored
    assert parse_public_key(stored) == stored
    assert json.loads(stored).keys() <= {"kty", "crv", "x", "y", "n", "e"}
    assert verifier(stored).key.thumbprint() == key.thumbprint()


def _refused() -> dict[str, str]:
    ed, ec, big = GOOD
    point = json.loads(public(ec))
    number = json.loads(public(big))
    spki = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    small = weak.public_key().public_bytes(*spki)
    dss = dsa.generate_private_key(1024)  # noqa: S505 - of no size is it accepted
    other = dss.public_key().public_bytes(*spki)
    return {
        "private PEM": ec.as_pem(private=True).decode(),
        "private JWK": json.dumps(ed.as_dict(private=True)),
        "private RSA JWK": json.dumps(big.as_dict(private=True)),
        "symmetric": json.dumps(OctKey.generate_key(256).as_dict()),
        "RSA 1024": small.decode(),
        "RSA e=3": json.dumps({**number, "e": "Aw"}),
        "RSA e=1": json.dumps({**number, "e": "AQ"}),
        "RSA even": json.dumps({**number, "n": number["n"][:-1] + "A"}),
        "DSA": other.decode(),
        "P-384": public(ECKey.generate_key("P-384")),
        "P-384 PEM": ECKey.generate_key("P-384").as_pem(private=False).decode(),
        "X25519": public(OKPKey.generate_key("X25519")),
        "Ed448": public(OKPKey.generate_key("Ed448")),
        "off the curve": json.dumps({**point, "x": point["y"]}),
        "short": json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
        "padded": json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "=" * 43}),
        "number": json.dumps({"kty": "OKP", "crv": "Ed25519", "x": 1}),
        "encryption": json.dumps({**point, "use": "enc"}),
        "kty list": json.dumps({**point, "kty": ["EC"]}),
        "two keys": json.dumps({"keys": [point]}),
        "twice": public(ec)[:-1] + ',"kty":"EC"}',
        "array": "[]",
        "empty": "",
        "words": "ssh-ed25519 AAAA",
        "broken PEM": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "long": "{" + " " * 9000,
    }


def test_a_key_we_cannot_rely_on_is_refused() -> None:
    """Private, symmetric, weak, foreign and broken keys; the remedy says what to do."""
    for name, text in _refused().items():
        with pytest.raises(UsageError) as caught:
            pytest.fail(f"{name} was taken: {parse_public_key(text)}")
        assert caught.value.remedy, name
        assert len(caught.value.diagnosis()) < 300, name


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda t: "{" + t))
def test_no_text_raises_anything_else(text: str) -> None:
    """An operator's wrong file is a usage error, never a traceback."""
    with pytest.raises(UsageError):
        parse_public_key(text)


_WORDS = st.sampled_from(["RSA", "EC", "P-521", "sig", "RS256", "AQAB", "", "A" * 400])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner),
    max_leaves=4,
)
_MEMBERS = st.sampled_from(
    ["kty", "crv", "use", "alg", "kid", "key_ops", "n", "e", "x"]
)
_SOUND = st.sampled_from([key.as_dict(private=False) for key in GOOD])
_CHANGED = st.builds(
    lambda key, change: {**key, **change},
    _SOUND,
    st.dictionaries(_MEMBERS, _VALUES, max_size=2),
)


@given(st.lists(_CHANGED | _VALUES, max_size=3) | _VALUES, st.none() | _WORDS)
def test_any_key_set_is_read_or_refused(keys: object, kid: str | None) -> None:
    """Whatever an issuer sends, and whatever key a token names, is no fault of ours."""
    try:
        found = read_key_set(json.dumps({"keys": keys}))
    except ValueError:
        return
    key = found.get(kid)
    assert key is None or isinstance(key.algorithms, tuple)
