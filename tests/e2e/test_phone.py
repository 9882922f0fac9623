"""A person with a phone: from the link in an alert to an approved action."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.alert_stand import WEBHOOK_SECRET
from support.authenticator import Authenticator
from support.chromium import Tab, chromium, needs_chromium
from support.gateway_stand import Upstream
from support.patience import PATIENT
from support.phone import HOST, Phone, public_settings
from support.vault import PAYMENT, Client, Vault, fresh_code, serving
from support.vault_stepups import hold, start, stepup_until

from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import read_page
from agentvault_tui.web.local_ca import CaFiles

pytestmark = pytest.mark.slow
WIDTHS = (320, 390, 430)


ALERTS = """
[sinks.hook]
kind = "webhook"
url = "http://127.0.0.1:{}/"
secret = "hook"
allow_private = true
[[routes]]
sinks = ["hook"]
events = ["needs_person"]
"""
RULE = '[[stepup.rules]]\napprovals = 2\nscopes = ["payments"]\nno_self = true\n'


@pytest.fixture
def public(short: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Vault, str]]:
    home = Home.locate(short)
    home.prepare()
    made = public_settings(home)
    home.config_file.write_text(
        '[broker]\ntls = "false"\n'
        f'[tenant]\nlisten = "{made.listen}"\nurl = "{made.url}"\n'
        f'tls_cert = "{made.tls_cert}"\ntls_key = "{made.tls_key}"\n'
        f"{getattr(request, 'param', '')}"
    )
    with serving(short) as vault:
        yield vault, made.url


def open_page(phone: Phone, request_id: str, user: dict[str, str]) -> None:
    """Sign in at the step-up's page, which is there a moment after the request."""
    phone.open(f"approve/{request_id}")
    phone.send("sign-in", user=user["user"], password=user["password"])
    phone.until(f"approve/{request_id}", 'data-step="approve"')


def looking(
    public: tuple[Vault, str],
) -> tuple[Vault, Client, dict[str, str], Phone, str]:
    """Have alice look at the page of a payment that waits; she may approve it."""
    vault, url = public
    agent = vault.register("payer", "send:payment")
    user = vault.approver("alice")
    phone = Phone(Home.locate(vault.home), url)
    request_id = hold(agent)
    open_page(phone, request_id, user)
    return vault, agent, user, phone, request_id


def test_a_link_works_before_anybody_is_at_the_console(
    public: tuple[Vault, str],
) -> None:
    """Password and one-time code approve; the page says what came of it."""
    vault, agent, user, phone, request_id = looking(public)
    server = vault.register("api", resource_server=True)
    found = vault.operator.get(f"/api/agents/stepup/{request_id}").json()
    assert f'data-field="fingerprint">{found["fingerprint"]}<' in phone.answer.text
    phone.send("factors", password=user["password"], otp=fresh_code(user))
    decided = stepup_until(vault, request_id, "approved")
    assert decided["decided_by"]["name"] == "alice"
    token = agent.poll(request_id).json()["access_token"]
    assert server.introspect(token)["active"]
    phone.until(f"approve/{request_id}", "Approved, and used")
    phone.http.close()


def test_a_no_on_the_page_denies_and_names_the_person(
    public: tuple[Vault, str],
) -> None:
    """It needs no factor, and the agent hears it."""
    vault, agent, _, phone, request_id = looking(public)
    phone.send("deny")
    denied = stepup_until(vault, request_id, "denied")
    assert denied["decided_by"]["name"] == "alice"
    assert agent.poll(request_id).json()["error"] == "access_denied"
    phone.http.close()


def test_without_a_browser_the_tenant_is_reached_on_loopback(
    public: tuple[Vault, str],
) -> None:
    """The command line approves also where nobody here resolves the host of `url`."""
    vault, _ = public
    agent = vault.register("payer", "send:payment")
    user = vault.approver("alice")
    request_id = hold(agent)
    code = start(vault, request_id)["device"]["user_code"]
    password = vault.home / "password"
    password.touch(mode=0o600)
    password.write_text(user["password"])
    line = ("tenant", "activate", code, "--user", "alice", "--yes")
    given = ("--password-file", str(password), "--otp", fresh_code(user))
    answer = vault.cli(*line, *given)
    assert answer.returncode == 0, answer.stderr
    assert stepup_until(vault, request_id, "approved")["decided_by"]["name"] == "alice"


def test_what_the_console_decides_ends_the_page(public: tuple[Vault, str]) -> None:
    """A code asked for at the console leads to the same page; a denial ends both."""
    vault, _, user, phone, request_id = looking(public)
    form = phone.answer
    device = start(vault, request_id)["device"]
    assert device["verification_uri_complete"] == f"{public[1]}approve/{request_id}"
    assert phone.open(f"approve/{request_id}").step == "approve"
    body = {"id": request_id, "decision": "deny", "reason": "no invoice"}
    assert vault.operator.post("/api/agents/stepup", json=body).status_code == 200
    phone.until(f"approve/{request_id}", 'data-step="approve-result"')
    assert "Denied" in phone.answer.text
    phone.answer = form
    page = phone.send("factors", password=user["password"], otp=fresh_code(user))
    assert page.step == "approve-result"
    assert stepup_until(vault, request_id, "denied")["denial"] == "no invoice"
    phone.http.close()


def test_a_passkey_approves_again_after_the_broker_was_killed(
    public: tuple[Vault, str],
) -> None:
    """Its person touches it once more, if the broker recorded no approval before."""
    vault, url = public
    agent, user = vault.register("payer", "send:payment"), vault.approver("alice")
    phone, key = Phone(Home.locate(vault.home), url), Authenticator(url, synced=True)
    told = vault.cli("tenant", "user", "passkey", "alice", "--json")
    phone.open(json.loads(told.stdout)["link"].removeprefix(url))
    phone.send("create", credential=key.create(phone.options("create")))
    request_id = hold(agent)
    open_page(phone, request_id, user)
    vault.process.send_signal(signal.SIGSTOP)
    phone.send("passkey", credential=key.get(phone.options("passkey")))
    assert phone.answer.status_code == 200
    vault.kill()
    with serving(vault.home) as later:
        phone.until(f"approve/{request_id}", 'data-step="approve"')
        phone.send("passkey", credential=key.get(phone.options("passkey")))
        decided = stepup_until(later, request_id, "approved")
        assert decided["decided_by"]["name"] == "alice"
    phone.http.close()


def test_a_series_is_chosen_and_approved_on_the_page(public: tuple[Vault, str]) -> None:
    """Its page has another fingerprint; the next ones within it need nobody."""
    vault, agent, user, phone, request_id = looking(public)
    page = f"approve/{request_id}"
    before = read_page(phone.answer.text).values["fingerprint"]
    many = {"count": "2", "minutes": "10"}
    phone.send("repeat", **many, **{"max-amount": "1"})
    phone.until(page, "the request itself has amount")
    phone.send("repeat", **many, **{"max-amount": "9000"})
    phone.until(page, 'data-field="repeat"')
    shown = read_page(phone.answer.text).values
    assert shown["repeat"] == "the next 2 like it within 600 s, amount up to 9,000"
    assert shown["fingerprint"] != before
    known = vault.operator.get(f"/api/agents/stepup/{request_id}").json()
    assert known["fingerprint"] == shown["fingerprint"]
    assert known["repeat"]["count"] == 2
    phone.send("once")
    phone.until(page, 'data-step="approve"')
    assert read_page(phone.answer.text).values["fingerprint"] == before
    phone.send("repeat", **many, **{"max-amount": "9000"})
    phone.until(page, 'data-field="repeat"')
    phone.send("factors", password=user["password"], otp=fresh_code(user))
    decided = stepup_until(vault, request_id, "approved")
    assert decided["decided_by"]["name"] == "alice"
    assert agent.poll(request_id).status_code == 200
    for amount in (9000, 4200):
        asked = {**PAYMENT, "parameters": {"amount": amount, "currency": "USD"}}
        assert agent.token("send:payment", asked).status_code == 200
    hold(agent)  # of somebody again: the two are used
    phone.http.close()


@pytest.mark.parametrize("public", [RULE], indirect=True)
def test_two_people_approve_and_the_owner_is_not_one_of_them(
    public: tuple[Vault, str],
) -> None:
    """The page, the command line and the API show who has and who may still."""
    vault, url = public
    agent = vault.register("payer", "send:payment")  # olga's
    people = {name: vault.approver(name) for name in ("alice", "bob", "olga")}
    phones = {name: Phone(Home.locate(vault.home), url) for name in people}
    request_id = hold(agent)
    open_page(phones["olga"], request_id, people["olga"])
    assert "This is your own request" in phones["olga"].answer.text
    for name, have in (("alice", 0), ("bob", 1)):
        phone = phones[name]
        open_page(phone, request_id, people[name])
        phone.until(f"approve/{request_id}", f'data-field="have">{have}<')
        phone.send(
            "factors", password=people[name]["password"], otp=fresh_code(people[name])
        )
        if name == "alice":
            shown = f"/api/agents/stepup/{request_id}"
            while not (told := vault.operator.get(shown).json()["approvals"])["have"]:
                time.sleep(0.05)
            assert (told["have"], told["need"], told["by"][0]["name"]) == (
                1,
                2,
                "alice",
            )
            assert "alice and the owner olga" in told["may"]
            listed = vault.cli("stepup", "show", request_id).stdout
            assert "1 of 2 (alice)" in listed
            assert vault.operator.get(shown).json()["status"] == "pending"
    decided = stepup_until(vault, request_id, "approved")
    assert [one["name"] for one in decided["decided_by"]] == ["alice", "bob"]
    assert agent.poll(request_id).status_code == 200
    for phone in phones.values():
        phone.http.close()


async def fits(tab: Tab) -> None:
    """See that a phone's width is enough, and that all facts are above the button."""
    for width in WIDTHS:
        await tab.resize(width)
        assert await tab.run("document.documentElement.scrollWidth") == width
        assert await tab.run(
            "document.querySelector('[data-field=fingerprint]')"
            ".getBoundingClientRect().bottom"
            " < document.querySelector('#passkey').getBoundingClientRect().top"
        )


async def approve_series(tab: Tab, page: str) -> None:
    """Choose two more on the page, and approve with the passkey what comes of it."""
    challenge = "document.querySelector('#passkey').dataset.options"
    await tab.open(page)
    await tab.step("approve")
    await tab.run("document.querySelector('#repeat').parentElement.open = true")
    await tab.type(**{"count": "2", "minutes": "10", "max-amount": "9000"})
    await fits(tab)
    alone = await tab.run(challenge)
    await tab.press("repeat")
    await tab.until("!!document.querySelector('[data-field=repeat]')")
    assert await tab.run(challenge) != alone
    await fits(tab)
    await tab.press("passkey")
    await tab.until("!!document.querySelector('[data-status=approved]')")


@needs_chromium
async def test_a_person_approves_with_a_passkey_in_chromium(
    public: tuple[Vault, str], tmp_path: Path
) -> None:
    """From the alert to approved: two touches, no resource of anybody else."""
    vault, url = public
    sink = Upstream()
    await sink.start()
    to = [f"http://127.0.0.1:{sink.port}"]
    secret = {"name": "hook", "value": WEBHOOK_SECRET, "for": to}
    assert vault.operator.post("/api/secrets", json=secret).is_success
    (vault.home / "alerts.toml").write_text(ALERTS.format(sink.port))
    async with asyncio.timeout(PATIENT):
        while not vault.operator.get("/api/alerts").json()["sinks"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    certificate = CaFiles.of(Home.locate(vault.home)).leaf.cert
    agent = vault.register("payer", "send:payment")
    vault.approver("alice")
    told = vault.cli("tenant", "user", "passkey", "alice", "--json")
    link = json.loads(told.stdout)["link"]
    async with chromium(tmp_path / "profile", HOST, certificate) as tab:
        await tab.begin(WIDTHS[0])
        await tab.open(link)
        await tab.step("passkey")
        await tab.press("create")
        await tab.step("passkey-done")
        request_id = await asyncio.to_thread(hold, agent)
        async with asyncio.timeout(PATIENT):
            while not sink.received:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        page = json.loads(sink.received[0].body)["data"]["page"]
        assert page == f"{url}approve/{request_id}"
        await tab.open(page)
        await tab.step("approve-sign-in")
        await tab.press("passkey-sign-in")
        await tab.step("approve")
        await fits(tab)
        await tab.press("passkey")
        await tab.step("approve-result")
        await tab.until("!!document.querySelector('[data-status=approved]')")
        await approve_series(
            tab, f"{url}approve/{await asyncio.to_thread(hold, agent)}"
        )
        hosts = {one.split("/")[2] for one in tab.requested if "//" in one}
    decided = stepup_until(vault, request_id, "approved")
    assert decided["decided_by"]["amr"][1:] == ["user", "mfa"]
    assert hosts == {url.split("/")[2]}
    await sink.stop()
