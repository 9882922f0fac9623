"""One request on a phone: it fits, everybody can use it, and it needs no script."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.chromium import Tab, chromium, needs_chromium
from support.needs import needs
from support.phone import HOST, Phone
from support.vault import PAYMENT, Client, Vault, fresh_code
from support.vault_stepups import stepup_until

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles

from .test_phone import open_page, public

__all__ = ["public"]
pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 390, 844
AXE = Path(
    os.environ.get("AGENTVAULT_AXE")
    or Path(__file__).parents[1] / "interop/node_modules/axe-core/axe.min.js"
)
needs_axe = needs(AXE.exists(), "axe-core", "make interop")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
INVOICE = {"amount": 4200, "currency": "USD", "to": "Northwind GmbH", "invoice": "1881"}


def pay(agent: Client) -> str:
    """Have an agent ask for a payment with all that a usual one says."""
    asked = {**PAYMENT, "parameters": INVOICE}
    return str(agent.token("send:payment", asked).json()["auth_req_id"])


async def picture(tab: Tab, name: str) -> None:
    """Write what the phone shows, where somebody wants to look at it."""
    if folder := os.environ.get("AGENTVAULT_PICTURES"):
        taken = await tab.call("Page.captureScreenshot", format="png")
        path = Path(folder) / f"{name}.png"
        await asyncio.to_thread(path.write_bytes, base64.b64decode(taken["data"]))


async def see(tab: Tab, name: str) -> None:
    """Look at a page as axe does, in both colour schemes, with everything unfolded."""
    await picture(tab, name)
    axe = await asyncio.to_thread(AXE.read_text)
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await tab.call("Emulation.setEmulatedMedia", features=[feature])
        for unfolded in (False, True):
            wanted = str(unfolded).lower()
            await tab.run(
                f"document.querySelectorAll('details').forEach(d => d.open = {wanted})"
            )
            await tab.run(axe)
            found = await tab.run(
                "axe.run(document, {runOnly: {type: 'tag', values: "
                f"{list(RULES)!r}}}}}).then(r => JSON.stringify(r.violations.map("
                "v => [v.id, v.impact, v.nodes.map(n => n.html)])))"
            )
            assert found == "[]", (name, scheme, found)
    await tab.run("document.querySelectorAll('details').forEach(d => d.open = false)")


@needs_chromium
@needs_axe
async def test_every_page_of_a_request_passes_axe_and_one_fits_the_screen(
    public: tuple[Vault, str], tmp_path: Path
) -> None:
    """WCAG 2.2 AA on the way from the sign-in to what happened, at 390 by 844."""
    vault, url = public
    agent = vault.register("payments-agent", "send:payment")
    user = vault.approver("alice")
    certificate = CaFiles.of(Home.locate(vault.home)).leaf.cert
    asked = await asyncio.to_thread(pay, agent)
    async with chromium(tmp_path / "profile", HOST, certificate) as tab:
        await tab.begin(WIDTH)
        await tab.call("Page.setBypassCSP", enabled=True)
        await tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH, height=HEIGHT, deviceScaleFactor=2, mobile=True,
        )  # fmt: skip
        await tab.open(url)
        await tab.step("approve-sign-in")
        await see(tab, "sign-in")
        await tab.type(user=user["user"], password=user["password"])
        await tab.press("sign-in")
        await tab.step("inbox")
        assert "pay 4200 USD (unit unknown) to Northwind GmbH" in await tab.run(
            "document.querySelector('[data-request]').textContent"
        )
        await see(tab, "inbox")
        await tab.run("document.querySelector('[data-request]').click()")
        await tab.step("approve")
        await picture(tab, "request")
        assert await tab.run("document.documentElement.scrollWidth") == WIDTH
        for what in (".decide", ".stop > summary", "[data-field=fingerprint]"):
            low = f"document.querySelector('{what}').getBoundingClientRect().bottom"
            assert await tab.run(low) <= HEIGHT, what
        before = await tab.run("document.querySelector('time').textContent")
        await tab.until(f"document.querySelector('time').textContent != {before!r}")
        await see(tab, "request")
        await tab.run("document.querySelector('#reason').value = 'no such invoice'")
        await tab.press("deny")
        await tab.step("approve-result")
        assert await tab.run("document.querySelector('[data-status]').dataset.status")
        await tab.until("!!document.querySelector('[data-status=denied]')")
        assert "no such invoice" in await tab.run("document.body.textContent")
        assert not await tab.run("!!document.querySelector('meta[http-equiv]')")
        await see(tab, "denied")
        await tab.open(url)
        await tab.step("inbox")
        await tab.until("!!document.querySelector('[data-status=denied]')")
        await see(tab, "inbox-later")
        for path in ("activate", "approve/sup_0123456789abcdef"):
            await tab.open(f"{url}{path}")
            await tab.until("document.readyState == 'complete'")
            await see(tab, path.replace("/", "-"))
    denied = await asyncio.to_thread(stepup_until, vault, asked, "denied")
    assert denied["denial"] == "no such invoice"


def signed_in(public: tuple[Vault, str]) -> tuple[Vault, Client, dict[str, str], Phone]:
    vault, url = public
    agent = vault.register("payer", "send:payment")
    return vault, agent, vault.approver("alice"), Phone(Home.locate(vault.home), url)


def test_without_a_script_the_answer_says_what_came_of_it_at_once(
    public: tuple[Vault, str],
) -> None:
    """No page loads itself again, and none names what runs the tenant."""
    _, agent, user, phone = signed_in(public)
    asked = pay(agent)
    open_page(phone, asked, user)
    assert re.search(r"Decide within <time[^>]*>4:[0-5]\d</time>", phone.answer.text)
    phone.send("factors", password=user["password"], otp=fresh_code(user))
    assert 'data-status="approved"' in phone.answer.text
    assert "Not used yet" in phone.answer.text
    assert agent.poll(asked).status_code == 200
    for path in ("", f"approve/{asked}", "activate"):
        phone.open(path)
        assert "http-equiv" not in phone.answer.text
        assert "embedded" not in phone.answer.text
    phone.http.close()


def test_the_inbox_lists_what_waits_newest_first_and_what_was_decided(
    public: tuple[Vault, str],
) -> None:
    """And shows nothing to whoever is not signed in, or has no role."""
    _, agent, user, phone = signed_in(public)
    first, second = pay(agent), hold_other(agent)
    assert first not in phone.get("").text
    open_page(phone, second, user)
    phone.until("", first)
    listed = re.findall(r'data-request="(\w+)"', phone.answer.text)
    assert listed == [second, first]
    phone.open(f"approve/{second}")
    phone.send("deny", reason="twice")
    phone.until("", 'data-status="denied"')
    assert re.findall(r'data-request="(\w+)"', phone.answer.text) == [first]
    phone.send("leave")
    assert first not in phone.answer.text
    phone.http.close()


def hold_other(agent: Client) -> str:
    time.sleep(0.01)  # of another millisecond
    asked = {**PAYMENT, "parameters": {**INVOICE, "amount": 7}}
    return str(agent.token("send:payment", asked).json()["auth_req_id"])


def test_stopping_an_agent_denies_its_request_and_revokes_it(
    public: tuple[Vault, str],
) -> None:
    """It needs no factor, is recorded under the person, and the page says so."""
    vault, agent, user, phone = signed_in(public)
    asked = pay(agent)
    open_page(phone, asked, user)
    phone.send("stop")
    phone.until(f"approve/{asked}", "data-stopped")
    found: list[Any] = vault.operator.get("/api/agents").json()["agents"]
    assert [one["status"] for one in found if one["name"] == "payer"] == ["revoked"]
    audit = vault.operator.get("/api/audit?type=agent.revoked").json()["events"]
    assert audit[0]["actor"]["name"] == "alice"
    assert stepup_until(vault, asked, "denied")["decided_by"]["name"] == "alice"
    phone.http.close()
