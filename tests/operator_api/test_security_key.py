"""A security key at this machine: it signs, or says why not, and holds nothing up."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
from threading import Event
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.ctap import CtapError
from support.authenticator import UV, Authenticator
from support.security_key import PIN, SoftKey

from agentvault_tui.encoder import to_base64url
from agentvault_tui.operator_api import security_key
from agentvault_tui.operator_api.security_key import SecurityKeyError, SecurityKeys
from agentvault_tui.operator_api.sessions import KeyChallenge

URL = "http://localhost:8750/"


def challenge(key: SoftKey, **more: Any) -> KeyChallenge:
    members = {
        "rp_id": "localhost",
        "origin": URL.rstrip("/"),
        "challenge": to_base64url(bytes(range(32))),
        "credentials": (to_base64url(key.passkey.id),),
    }
    return KeyChallenge(**members | more)


def keys(*devices: SoftKey) -> SecurityKeys:
    return SecurityKeys(lambda: [lambda one=one: one for one in devices])


def nothing() -> None:
    return None


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


@pytest.fixture
def key() -> SoftKey:
    return SoftKey(Authenticator(URL))


async def test_it_signs_the_challenge_of_the_tenant(key: SoftKey) -> None:
    """What it signs is the client data with that challenge, at that origin."""
    touches: list[str] = []
    assert await keys(key).needs_pin()
    told = json.loads(
        await keys(key).sign(challenge(key), PIN, lambda: touches.append("touch"))
    )
    response = {name: decoded(value) for name, value in told["response"].items()}
    client = json.loads(response["clientDataJSON"])
    assert (client["type"], client["origin"]) == ("webauthn.get", URL.rstrip("/"))
    assert decoded(client["challenge"]) == bytes(range(32))
    signed = response["authenticatorData"]
    signed += hashlib.sha256(response["clientDataJSON"]).digest()
    public = key.passkey.key.public_key()
    public.verify(response["signature"], signed, ec.ECDSA(hashes.SHA256()))
    assert decoded(told["rawId"]) == key.passkey.id
    assert touches == ["touch"]
    assert key.closed == 2


async def test_a_key_that_verifies_by_itself_needs_no_pin(key: SoftKey) -> None:
    """A key with a fingerprint sensor is only touched."""
    key.options = {"up": True, "uv": True}
    assert not await keys(key).needs_pin()
    assert await keys(key).sign(challenge(key), "", nothing)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rp_id": "bank.example"}, "the key refused"),
        ({"rp_id": "bank.example", "origin": "https://bank.example"}, "none of your"),
        ({"origin": "http://acme.test"}, "the key refused"),
        ({"credentials": (to_base64url(b"another"),)}, "none of your passkeys"),
    ],
)
async def test_nothing_is_signed_for_another_site(
    key: SoftKey, more: dict[str, Any], words: str
) -> None:
    """Neither for an RP id that is not of the origin, nor with another credential."""
    with pytest.raises(SecurityKeyError, match=words):
        await keys(key).sign(challenge(key, **more), PIN, nothing)
    assert key.passkey.counter == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (CtapError.ERR.PIN_INVALID, "is wrong"),
        (CtapError.ERR.PIN_AUTH_BLOCKED, "three wrong PINs"),
        (CtapError.ERR.PIN_BLOCKED, "is blocked"),
    ],
)
async def test_a_wrong_pin_is_named_as_that(
    key: SoftKey, answer: CtapError.ERR, words: str
) -> None:
    """Each refusal of the key says what to do."""
    key.wrong = answer
    with pytest.raises(SecurityKeyError, match=words):
        await keys(key).sign(challenge(key), "0000", nothing)


async def test_a_key_that_verifies_nobody_is_not_asked_to_sign(key: SoftKey) -> None:
    """Without a PIN and without a sensor it proves possession alone."""
    key.options = {"up": True, "clientPin": False}
    with pytest.raises(SecurityKeyError, match="cannot verify"):
        await keys(key).needs_pin()
    with pytest.raises(SecurityKeyError, match="cannot verify"):
        await keys(key).sign(challenge(key), "", nothing)


@pytest.mark.parametrize("at", ["info", "pin", "sign"])
async def test_a_key_that_is_removed_midway_is_told(key: SoftKey, at: str) -> None:
    """At every command it may be gone."""
    key.gone_at = at
    with pytest.raises(SecurityKeyError, match="removed"):
        await keys(key).sign(challenge(key), PIN, nothing)


async def test_none_or_several_keys_sign_nothing(key: SoftKey) -> None:
    """Of two it cannot be known which one is meant."""
    with pytest.raises(SecurityKeyError, match="no security key"):
        await keys().needs_pin()
    with pytest.raises(SecurityKeyError, match="several"):
        await keys(key, key).needs_pin()
    assert await keys(key).attached()
    assert not await keys().attached()


async def test_a_touch_that_does_not_come_ends_in_time(
    key: SoftKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is told to stop waiting, and the dialog goes on."""
    monkeypatch.setattr(security_key, "_TOUCH_S", 0.05)
    gave_up = Event()

    def untouched(stop: Event) -> bool:
        stop.wait()
        gave_up.set()
        return False

    key.touched = untouched
    with pytest.raises(SecurityKeyError, match="not touched in time"):
        await keys(key).sign(challenge(key), PIN, nothing)
    assert await asyncio.to_thread(gave_up.wait, 10)


async def test_giving_up_cancels_the_thread(key: SoftKey) -> None:
    """A cancelled task has its key cancelled; nothing is signed."""
    waits, gave_up = asyncio.Event(), Event()

    def untouched(stop: Event) -> bool:
        stop.wait()
        gave_up.set()
        return False

    key.touched = untouched
    task = asyncio.create_task(keys(key).sign(challenge(key), PIN, waits.set))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(gave_up.wait, 10)
    assert key.passkey.counter == 0


async def test_what_was_not_verified_is_passed_on_as_that(key: SoftKey) -> None:
    """The console judges no flag: the tenant does, and refuses it."""
    key.passkey.flags = UV
    told = json.loads(await keys(key).sign(challenge(key), PIN, nothing))
    assert decoded(told["response"]["authenticatorData"])[32] == UV


def test_without_fido2_no_key_is_listed_and_the_console_starts() -> None:
    """The package is optional; neither it nor libudev is needed to start."""
    program = """
import sys
sys.modules["fido2"] = None
from agentvault_tui.operator_api.security_key import SecurityKeys
import agentvault_tui.console.app, agentvault_tui.console.dialogs.stepup, asyncio
print(asyncio.run(SecurityKeys().attached()), "fido2.hid" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
