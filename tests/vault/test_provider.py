"""A provider revokes a token for whoever shows it, and we trust no answer of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rogue_tenant import Answer, RogueTenant, rogue_tenant

from agentvault_tui.errors import SettingsError
from agentvault_tui.vault import Secret
from agentvault_tui.vault.provider import (
    PRESETS,
    Endpoints,
    ProviderClient,
    ProviderRevoked,
    RevocationPending,
    RevocationRefused,
    endpoints,
)
from agentvault_tui.vault.reply import TenantReply

TOKEN = Secret("ya29.a0-provider-token")
REVOKE, USERINFO = "/revoke", "/userinfo"


class Standing:
    """A provider on a real socket, and ours that speaks to it."""

    def __init__(self, rogue: RogueTenant, seconds: float, *, looks: bool) -> None:
        base = rogue.issuer.rstrip("/")
        at = Endpoints(base + REVOKE, base + USERINFO if looks else "")
        self.rogue, self.provider = rogue, ProviderClient(at, "acme", seconds)


@asynccontextmanager
async def standing(
    *answers: Answer, seconds: float = 5.0, looks: bool = False
) -> AsyncIterator[Standing]:
    async with rogue_tenant() as rogue:
        rogue.script(REVOKE, *answers)
        made = Standing(rogue, seconds, looks=looks)
        yield made
        await made.provider.aclose()


async def test_a_revocation_sends_the_token_alone() -> None:
    """A form with one field (RFC 7009 section 2.1): no client, nothing in the URL."""
    async with standing(Answer()) as here:
        assert await here.provider.revoke(TOKEN) == ProviderRevoked()
        (asked,) = here.rogue.requests
    assert asked.method == "POST"
    assert asked.form == {"token": TOKEN.reveal()}
    assert asked.query == {}
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer({"anything": 1}), ProviderRevoked()),
        (Answer({"error": "invalid_token"}, status=400), ProviderRevoked()),
        (Answer({"ok": True, "revoked": True}), ProviderRevoked()),
        (
            Answer({"ok": False, "error": "invalid_auth"}),
            RevocationPending("acme answered 200 invalid_auth"),
        ),
        (
            Answer({"ok": True, "revoked": False}),
            RevocationPending("acme answered 200"),
        ),
        (
            Answer(status=503, headers={"Retry-After": "17"}),
            RevocationPending("acme answered 503", 17.0),
        ),
        (Answer(status=429), RevocationPending("acme answered 429")),
        (Answer(status=500), RevocationPending("acme answered 500")),
        (Answer(status=202), RevocationPending("acme answered 202")),
        (
            Answer({"error": "invalid_client"}, status=401),
            RevocationRefused("acme answered 401 invalid_client"),
        ),
        (
            Answer({"error": "unsupported_token_type"}, status=400),
            RevocationRefused("acme answered 400 unsupported_token_type"),
        ),
        (Answer(b"<html>", status=404), RevocationRefused("acme answered 404")),
    ],
)
async def test_each_answer_of_a_revocation_endpoint_is_read(
    answer: Answer, said: object
) -> None:
    """200 and a dead token end it, a no is final, and all else is worth another try."""
    async with standing(answer) as here:
        assert await here.provider.revoke(TOKEN) == said


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(status=302, headers={"Location": "/elsewhere"}), "redirect"),
        (Answer(b"x" * 20_000), "more than"),
        (Answer(hang=True), "within"),
        (Answer(drip=0.05, body=b"y" * 100), "within"),
        (Answer(raw=b"no http"), "cannot be reached"),
    ],
)
async def test_an_unusable_answer_leaves_the_revocation_pending(
    answer: Answer, word: str
) -> None:
    """Not followed, not read on, not waited for; and no token is in what is told."""
    async with standing(answer, seconds=0.3) as here:
        said = await here.provider.revoke(TOKEN)
        assert here.rogue.asked("/elsewhere") == 0
    assert isinstance(said, RevocationPending)
    assert word in said.problem
    assert "acme" in said.problem
    assert TOKEN.reveal() not in said.problem


async def test_a_token_still_accepted_is_not_revoked() -> None:
    """Where it tells whose a token is, we look; then it is seen to be over."""
    async with standing(Answer(), looks=True) as here:
        here.rogue.script(USERINFO, Answer({"sub": "1093"}), Answer(status=401))
        said = await here.provider.revoke(TOKEN)
        assert said == RevocationPending("acme revoked it and still takes it")
        assert await here.provider.revoke(TOKEN) == ProviderRevoked()
        looked = here.rogue.sent(USERINFO)[0]
    assert looked.headers["authorization"] == f"Bearer {TOKEN.reveal()}"


@pytest.mark.parametrize(
    ("answer", "sub"),
    [
        (Answer({"sub": "1093", "email": "u@acme.test"}), "1093"),
        (Answer({"sub": "1093"}, status=403), ""),
        (Answer({"sub": "\x1b[1m"}), ""),
        (Answer({"sub": "1" * 256}), ""),
        (Answer({"sub": 1093}), ""),
        (Answer(["1093"]), ""),
        (Answer(hang=True), ""),
    ],
)
async def test_userinfo_tells_whose_a_token_is(answer: Answer, sub: str) -> None:
    """A plain subject is believed, and of anything else nobody is told."""
    async with standing(seconds=0.3, looks=True) as here:
        here.rogue.script(USERINFO, answer)
        assert await here.provider.whose(TOKEN) == sub


async def test_without_endpoints_no_provider_is_asked() -> None:
    """A provider without endpoints is told no token."""
    provider = ProviderClient(Endpoints(), "acme")
    said = await provider.revoke(TOKEN)
    assert said == RevocationRefused("no revocation endpoint of acme is known")
    assert await provider.whose(TOKEN) == ""
    assert TOKEN.reveal() not in repr((provider, said))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ok", "revoked", "error", "sub"]), inner, max_size=4
        )
    ),
)


@pytest.mark.slow
@given(status=st.integers(100, 599), value=_JSON, wait=st.none() | st.floats(0, 300))
def test_only_200_and_invalid_token_count_as_revoked(
    status: int, value: object, wait: float | None
) -> None:
    """Whatever comes, it was revoked by a 200 that says no no, or dead before."""
    provider = ProviderClient(Endpoints(), "acme")
    said = provider._read(TenantReply(status, value, retry_after=wait))
    body = value if isinstance(value, dict) else {}
    dead = status == 400 and body.get("error") == "invalid_token"
    may = status == 200 and body.get("ok") is not False
    assert isinstance(said, ProviderRevoked) <= (dead or may)
    assert isinstance(said, ProviderRevoked) or "acme" in said.problem


def test_a_configured_endpoint_goes_before_the_known_one() -> None:
    """Google's is known by its documentation, can be switched off, or replaced."""
    google = PRESETS["google-oauth2"]
    assert google.revocation == "https://oauth2.googleapis.com/revoke"
    assert google.ends_all
    assert endpoints("google-oauth2", "auto", "auto") == google
    off = endpoints("google-oauth2", "none", "none")
    assert off == Endpoints()
    own = endpoints("google-oauth2", "https://acme.test/r", "auto")
    assert own.revocation == "https://acme.test/r"
    assert not own.ends_all
    assert endpoints("github", "auto", "auto") == Endpoints()


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.test/revoke",
        "https://acme.test/revoke?token=",
        "https://acme.test/revoke#x",
        "https://user@acme.test/revoke",
        "ftp://acme.test/revoke",
        "acme.test/revoke",
        "",
        "https://acme.test/\x1b[1m",
    ],
)
def test_a_revocation_endpoint_must_use_https(url: str) -> None:
    """And to loopback; an address that is none is refused with the setting's name."""
    with pytest.raises(SettingsError, match=r"connections\.acme\.revocation_endpoint"):
        endpoints("acme", url, "auto")
    assert endpoints("acme", "http://127.0.0.1:7/r", "auto").revocation


async def test_a_call_that_is_cancelled_leaves_no_connection() -> None:
    """The broker stops while a provider hangs."""
    async with standing(Answer(hang=True)) as here:
        call = asyncio.create_task(here.provider.revoke(TOKEN))
        await here.rogue.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
