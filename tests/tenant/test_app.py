"""Whatever a stranger sends, the tenant answers below 500 and logs a line at most."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth0_double.running import START
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.phone import public_address
from support.tenant_store import CHEAP, open_store, seal_of

from agentvault_tui.home import Home
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.app import Surface, is_urgent
from agentvault_tui.tenant.parts import Parts, Run
from agentvault_tui.web import App

STEPUP = "sup_0123456789abcdef"
DEEP = "[" * 3_900
FORMS = {
    "/oauth/token": ("grant_type", "client_id", "client_secret", "device_code", "code"),
    "/oauth/revoke": ("token", "client_id"),
    "/oauth/device/code": ("client_id", "authorization_details", "origin", "scope"),
    "/userinfo": ("access_token",),
    "/activate": ("user_code", "form_token"),
    "/activate/sign-in": ("form_token", "user", "password"),
    "/activate/cancel": ("form_token",),
    "/u/login": ("state", "user", "password"),
    "/u/consent": ("state",),
    f"/approve/{STEPUP}/sign-in": ("user", "password"),
    f"/approve/{STEPUP}/passkey-sign-in": ("credential",),
    f"/approve/{STEPUP}/deny": ("form_token", "digest"),
    f"/approve/{STEPUP}/passkey": ("credential", "digest"),
    "/passkey/none": ("credential",),
    "/me/v1/connected-accounts/connect": ("connection",),
}


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def assertion(client_data: str) -> str:
    """Return a passkey's answer, as a browser sends it, over any client data."""
    response = {
        "clientDataJSON": encoded(client_data),
        "authenticatorData": encoded("x" * 40),
        "signature": "AA",
    }
    told = {"id": "AA", "rawId": "AA", "type": "public-key", "response": response}
    return json.dumps(told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "response", "clientDataJSON", "challenge", "type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.text(max_size=40),
    JSON.map(json.dumps),
    JSON.map(lambda value: assertion(json.dumps(value))),
    st.sampled_from(
        [
            DEEP,
            '{"a":' * 700,
            assertion("[" * 2_500),
            assertion("{}"),
            assertion('{"challenge":"AA"}'),
            assertion('{"challenge":[]}'),
            ".".join([encoded("[" * 2_500)] * 3),
            ".".join([encoded('{"alg":"RS256","kid":[]}')] * 3),
            ".".join([encoded('{"alg":"RS256"}'), encoded('{"exp":1e999}'), "AA"]),
            "9" * 3_900,
            "\x00",
            "\u202e\ud7ff",
        ]
    ),
)

HOWS = st.sampled_from(["form", "json", "token"])


@pytest.fixture
def app(home: Home) -> Iterator[tuple[App, str]]:
    store = open_store(home)
    public = public_address(home, START)
    run, clock = Run(), ManualClock(START)
    parts = Parts(
        *(store, seal_of(home), 7719, clock), run=run, public=public, hasher=CHEAP
    )
    yield Surface.of(parts, StepUpSettings()).public_app(), public.url.rstrip("/")
    store.close()


async def sent(app: App, url: str, **request: Any) -> int:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        answer = await http.post(url, **request)
    assert answer.status_code != 421
    return answer.status_code


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(sorted(FORMS)), TEXTS, st.sampled_from(["form", "json", "token"])
)
@example(f"/approve/{STEPUP}/passkey-sign-in", DEEP, "form")
@example(f"/approve/{STEPUP}/passkey-sign-in", assertion("[" * 2_500), "form")
@example("/passkey/none", DEEP, "form")
@example("/oauth/device/code", DEEP, "form")
@example("/userinfo", ".".join([encoded("[" * 2_500)] * 3), "token")
def test_no_part_that_a_stranger_sends_breaks_anything(
    app: tuple[App, str],
    caplog: pytest.LogCaptureFixture,
    path: str,
    text: str,
    how: str,
) -> None:
    """Forms, JSON, tokens and passkeys' answers: deep, odd, or of another type."""
    caplog.clear()
    request: dict[str, Any] = {"data": dict.fromkeys(FORMS[path], text)}
    if how == "json":
        body = text if text.startswith(("[", "{")) else json.dumps({"client_id": text})
        headers = {"content-type": "application/json"}
        request = {"content": body.encode("utf-8", "replace"), "headers": headers}
    elif how == "token":
        shown = text.encode("ascii", "replace")[:8_000].replace(b"\x00", b"")
        if not shown.decode().isprintable():
            shown = b"x"
        request["headers"] = {"authorization": b"Bearer " + shown}
    assert asyncio.run(sent(app[0], app[1] + path, **request)) < 500
    lines = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(lines) <= 1
    assert all(one.exc_info is None and len(one.getMessage()) < 500 for one in lines)


@pytest.mark.parametrize(
    ("method", "path", "urgent"),
    [
        ("POST", f"/approve/{STEPUP}/deny", True),
        ("POST", "/activate/cancel", True),
        ("GET", f"/approve/{STEPUP}/deny", False),
        ("POST", f"/approve/{STEPUP}/factors", False),
        ("POST", "/oauth/device/code", False),
    ],
)
def test_denying_has_connections_of_its_own(
    method: str, path: str, *, urgent: bool
) -> None:
    """Nothing that asks or approves uses them."""
    assert is_urgent({"method": method, "path": path}) is urgent
