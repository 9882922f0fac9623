"""A held call's body on the approval page: members, warnings, and what is left out."""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from auth0_double.running import DETAILS
from support.chromium import Tab, chromium, needs_chromium
from support.phone import HOST
from tenant.test_approve import PAGE, STEPUP, Stand, stand, stands

from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import TenantPage
from agentvault_tui.web.local_ca import CaFiles

__all__ = ["stand", "stands"]
WIDTHS = (320, 390, 430)


def request_of(kind: str, media_type: str, body: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(body).hexdigest()
    at = {"method": "POST", "url": "https://api.test/transfers"}
    said = {"body_kind": kind, "body_type": media_type, "body_encoding": None}
    return {**at, **said, "body_bytes": len(body), "body_sha256": digest}


JSON = ("json", "application/json")
TEXT = {"summary": "JSON, 9 bytes, 1 member", "members": [["/amount", "1.50"]]}


def members_of(stand: Stand) -> list[tuple[str, str]]:
    """Return the members of a body that the open page lists."""
    found = re.findall(
        r'<bdi data-body="name">(.*?)</bdi></th><td><bdi data-body="text">(.*?)</bdi>',
        stand.phone.answer.text,
    )
    return [(html.unescape(name), html.unescape(value)) for name, value in found]


def show(stand: Stand, kind: tuple[str, str], **body: Any) -> TenantPage:
    """Have the broker ask about a held call, and open its page."""
    ask_about(stand, kind, **body)
    return stand.sign_in(stand.alice)


def ask_about(stand: Stand, kind: tuple[str, str], **body: Any) -> None:
    request = request_of(*kind, b"some body")
    page = {**PAGE, "body": {**TEXT, **body}}
    stand.tenant.flow({**DETAILS, "request": request, "page": page})


def test_the_members_of_a_held_calls_body_are_on_the_page(stand: Stand) -> None:
    """With their digits, inert, and each name apart from its value."""
    hostile = ["<script>x</script>\x1b", "\u202e\n<b>"]
    page = show(stand, JSON, members=[["/amount", "1.50"], hostile])
    assert page.step == "approve"
    text = stand.phone.answer.text
    assert members_of(stand) == [
        ("/amount", "1.50"),
        ("<script>x</script>⟦U+001B⟧", "⟦U+202E⟧⏎<b>"),
    ]
    assert "<script>x" not in text
    assert "\x1b" not in text
    assert page.values["body"] == "JSON, 9 bytes, 1 member"
    assert "body_left" not in page.values
    assert "factors" in page.forms


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"left": 7, "cut": 2}, ["7 more members are not", "2 values are cut here"]),
        ({"too_large": True, "members": []}, ["too large for this page"]),
    ],
)
def test_a_body_that_is_not_shown_whole_says_so(
    stand: Stand, more: dict[str, Any], words: list[str]
) -> None:
    """With the command that shows all of it."""
    page = show(stand, JSON, **more)
    assert all(word in page.values["body_left"] for word in words)
    assert f"agentvault stepup show {STEPUP}" in stand.phone.answer.text


def test_a_body_that_the_broker_cannot_show_is_not_passed_over(stand: Stand) -> None:
    """Another broker has it, and cannot be asked now."""
    request = request_of(*JSON, b"x")
    stand.tenant.flow({**DETAILS, "request": request, "page": PAGE})
    page = stand.sign_in(stand.alice)
    assert "cannot be shown here now" in page.values["body_left"]


def test_opaque_content_is_the_first_thing_on_the_page(stand: Stand) -> None:
    """With type, size and SHA-256, in the colours of danger."""
    page = show(stand, ("opaque", "image/png"), summary="opaque", members=[])
    warning = page.values["warning"]
    assert warning.startswith("AgentVault cannot read this content: 9 bytes, image/png")
    assert hashlib.sha256(b"some body").hexdigest() in warning
    text = stand.phone.answer.text
    first = text.index("<p", text.index("<main"))
    assert text[first:].startswith('<p class="problem"><bdi data-field="warning">')


def test_a_lost_body_can_only_be_denied(stand: Stand) -> None:
    """No form approves it, and none that is sent all the same does."""
    lost = {"summary": "9 bytes, lost", "members": [], "warning": "It is lost."}
    show(stand, JSON)
    ask_about(stand, JSON, **lost, lost=True)  # the broker has restarted
    factors = {"password": stand.alice.password, "otp": stand.tenant.otp(stand.alice)}
    page = stand.phone.send("factors", **factors)
    assert page.error == "not_yours"
    assert page.values["lost"] == "It is lost."
    assert {"passkey", "factors", "repeat"}.isdisjoint(page.forms)
    assert "deny" in page.forms
    assert "can only be denied" in stand.phone.answer.text


def test_a_lost_body_can_be_denied_on_the_page(stand: Stand) -> None:
    """A person says no without having seen it."""
    show(stand, JSON, summary="9 bytes, lost", warning="It is lost.", lost=True)
    assert stand.phone.send("deny").step == "approve-result"


@pytest.mark.parametrize(
    "change",
    [
        {"summary": ""},
        {"members": [["a", "b"]] * 201},
        {"members": [["a"]]},
        {"left": -1},
        {"more": 1},
    ],
)
def test_a_body_that_is_told_wrongly_starts_no_flow(
    stand: Stand, change: dict[str, Any]
) -> None:
    """A person is not asked about a body that the page cannot show as it is."""
    page = {**PAGE, "body": {**TEXT, **change}}
    asked = {**DETAILS, "request": request_of(*JSON, b"x"), "page": page}
    answer = stand.tenant.ask(authorization_details=json.dumps([asked]))
    assert answer.json()["error"] == "invalid_authorization_details"


async def fits(tab: Tab) -> None:
    """See that a phone's width is enough."""
    for width in WIDTHS:
        await tab.resize(width)
        assert await tab.run("document.documentElement.scrollWidth") == width


@needs_chromium
async def test_a_body_fits_a_phone_in_chromium(
    stand: Stand, home: Home, tmp_path: Path
) -> None:
    """Long names and values wrap, and a warning is the first thing that is seen."""
    certificate = CaFiles.of(home).leaf.cert
    async with chromium(tmp_path / "profile", HOST, certificate) as tab:
        await tab.begin(WIDTHS[0])
        long = ["/memo/" + "n" * 200, '"' + "x" * 900]
        ask_about(stand, JSON, members=[long, ["/amount", "1.50"]])
        await tab.open(f"{stand.url}approve/{STEPUP}")
        await tab.step("approve-sign-in")
        await tab.type(user=stand.alice.user.name, password=stand.alice.password)
        await tab.press("sign-in")
        await tab.step("approve")
        await fits(tab)
        ask_about(stand, ("opaque", "application/" + "x" * 120), members=[])
        await tab.open(f"{stand.url}approve/{STEPUP}")
        await tab.until("!!document.querySelector('[data-field=warning]')")
        await fits(tab)
        assert await tab.run(
            "document.querySelector('[data-field=warning]')"
            ".getBoundingClientRect().bottom <="
            " document.querySelector('[data-field=agent_name]')"
            ".getBoundingClientRect().top"
        )
