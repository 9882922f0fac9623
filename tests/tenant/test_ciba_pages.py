"""Where a person answers a CIBA request: whose it is, what it takes, and the inbox."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.backchannel import MESSAGE, Asking
from support.sound_page import HOSTILE, sound
from support.tenant_admin import Admin, Person
from support.tenant_thread import TenantThread

from agentvault_tui.tenant.ciba.requests import CibaRequests
from agentvault_tui.tenant.login import answers
from agentvault_tui.tenant.page_reader import read_page
from agentvault_tui.tenant.store import Store
from agentvault_tui.text import visible


@pytest.fixture
def asking(tenant: TenantThread) -> Asking:
    return Asking(Admin(tenant), tenant.users.add("ursula@acme.test"))


@pytest.fixture
def mallory(asking: Asking) -> Person:
    added = asking.tenant.users.add("mallory@acme.test", approver=True)
    return Person(asking.tenant, added.user.name, added.password)


def pending(asking: Asking, token: str) -> bool:
    asking.tenant.clock.advance(5)
    said: str = asking.poll(token).json()["error"]
    return said == "authorization_pending"


def test_the_page_says_who_asks_for_what_before_and_after(asking: Asking) -> None:
    """Client, words, scopes and times, in full and inert, at the first page already."""
    path = f"clients/{asking.client['client_id']}"
    name = "<b>Bank</b>\u202e"
    assert asking.admin.call("PATCH", path, {"name": name}).status_code == 200
    asking.asked()
    first, last = asking.opened(), asking.signed_in()
    for page in (first, last):
        assert page.values["client"] == "<b>Bank</b>⟦U+202E⟧"
        assert page.values["message"] == MESSAGE
        assert page.values["scope"] == "openid"
        assert page.values["until"] > page.values["asked_at"]
    assert set(first.forms) == {"login", "cancel"}
    assert set(last.forms) == {"consent", "cancel"}
    assert last.values["user"] == "ursula@acme.test"


def test_each_page_is_sound_and_what_is_asked_stays_text(asking: Asking) -> None:
    """No value of the details becomes markup or a control; all are told."""
    body = {"identifier": "https://pay.test/", "allow_offline_access": True,
            "authorization_details": [{"type": "payment"}]}  # fmt: skip
    asking.admin.made("resource-servers", body)
    sent = [{"type": "payment", "to": text} for text in HOSTILE[:5]]
    asking.asked(
        audience="https://pay.test/",
        scope="openid offline_access",
        authorization_details=json.dumps(sent),
    )
    seen = []
    for page in (asking.opened, asking.signed_in):
        told = page()
        seen.append(asking.person.last)
        values = [value for name, value, _ in told.parameters if name == "to"]
        assert values == [visible(text, 4000) for text in HOSTILE[:5]]
        assert "Details, 5 of 5" in seen[-1].text
    assert "until someone takes it back" in seen[-1].text
    seen.append(asking.person.send("consent"))
    asking.asked()
    asking.inbox()
    seen.append(asking.person.last)
    asking.reject()
    seen.append(asking.person.last)
    for answer in seen:
        sound(answer)


def test_only_the_person_asked_for_gets_on(asking: Asking, mallory: Person) -> None:
    """Whoever else has the link is told so, with the right password too."""
    token = asking.asked()
    mallory.open("bc-verify", consent=asking.inbox()[0])
    answer = mallory.send("login", user=mallory.name, password=mallory.password)
    page = read_page(answer.text)
    assert (answer.status_code, page.error) == (403, "other_person")
    row = asking.admin.rows("f")[0]
    assert (row["user_name"], row["details"]["error"]) == (mallory.name, page.error)
    assert set(page.forms) == {"login", "cancel"}
    assert pending(asking, token)
    assert asking.accept().step == "login-accepted"


def test_a_password_alone_accepts_nothing(asking: Asking) -> None:
    """The consent form, sent with what an earlier page held, does nothing."""
    token = asking.asked()
    first = asking.opened()
    asking.person.send(
        "login", user=asking.person.name, password=asking.person.password
    )
    second = read_page(asking.person.last.text)
    for page in (first, second):
        answer = asking.person.http.post(
            "u/consent", data={"errand": page.forms["cancel"].fields["errand"]}
        )
        assert read_page(answer.text).error == "stale_form"
    wrong = read_page(asking.person.send("login-otp", otp="000000").text)
    assert wrong.error == "wrong_otp"
    assert pending(asking, token)


def test_another_browser_cannot_go_on(asking: Asking, mallory: Person) -> None:
    """The form of the last page, in a browser that did not get it, is worth nothing."""
    token = asking.asked()
    errand = asking.signed_in().forms["consent"].fields["errand"]
    mallory.open("agentvault/inbox")
    answer = mallory.http.post("u/consent", data={"errand": errand})
    assert read_page(answer.text).error == "stale_form"
    assert pending(asking, token)


def test_a_page_left_open_ends(asking: Asking) -> None:
    """Ten minutes after the factor the form is out of date."""
    token = asking.asked(requested_expiry="3600")
    asking.signed_in()
    asking.tenant.clock.advance(601)
    assert read_page(asking.person.send("consent").text).error == "stale_form"
    assert pending(asking, token)


def test_an_answer_is_given_once(asking: Asking) -> None:
    """A second form, the link, and the other answer find the request over."""
    token = asking.asked()
    page = asking.signed_in()
    link = {"errand": page.forms["consent"].fields["errand"]}
    assert read_page(asking.person.send("consent").text).step == "login-accepted"
    for path in ("u/consent", "u/cancel"):
        answer = asking.person.http.post(path, data=link)
        assert (answer.status_code, read_page(answer.text).error) == (410, "code_over")
    assert asking.inbox() == []
    assert asking.poll(token).status_code == 200
    for consent in ("", "cns_invented"):
        answer = asking.person.open("bc-verify", consent=consent)
        assert (answer.status_code, read_page(answer.text).error) == (410, "code_over")


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_no_is_free_at_every_step(asking: Asking, steps: int) -> None:
    """Before the password, before the code and at the end."""
    token = asking.asked()
    asking.signed_in() if steps == 2 else asking.opened()
    if steps == 1:
        asking.person.send(
            "login", user=asking.person.name, password=asking.person.password
        )
    assert read_page(asking.person.send("cancel").text).step == "login-rejected"
    assert asking.poll(token).json()["error"] == "access_denied"


def test_the_inbox_is_one_persons(asking: Asking, mallory: Person) -> None:
    """It takes the password, shows what waits for that person, newest first."""
    assert asking.inbox() == []
    for message in ("one", "two"):
        asking.asked(binding_message=message)
        asking.tenant.clock.advance(1)
    links = asking.inbox()
    shown = asking.person.last.text
    assert len(links) == 2
    assert shown.index("two") < shown.index("one")
    mallory.open("agentvault/inbox")
    wrong = read_page(mallory.send("login", user=asking.person.name, password="x").text)
    assert wrong.error == "wrong_sign_in"
    answer = mallory.send("login", user=mallory.name, password=mallory.password)
    assert "Nothing waits" in answer.text
    assert all(link not in answer.text for link in links)
    asking.tenant.clock.advance(300)
    assert asking.inbox() == []


def test_a_flood_does_not_swell_the_inbox(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are listed, and how many there are besides."""
    monkeypatch.setattr(answers, "_LISTED", 2)
    for message in ("alpha", "beta", "gamma"):
        asking.asked(binding_message=message)
        asking.tenant.clock.advance(1)
    assert len(asking.inbox()) == 2
    shown = asking.person.last.text
    assert "gamma" in shown
    assert "alpha" not in shown
    assert "1 older ones are not listed" in shown


def test_a_factor_older_than_the_request_proves_nothing(asking: Asking) -> None:
    """The store takes a yes only with a factor shown since it was asked for."""
    asking.asked()
    consent = asking.inbox()[0]
    sub = asking.user.user.sub
    store = Store(asking.tenant.home, checkpoints=False)
    requests = CibaRequests(store, asking.tenant.clock)
    found = requests.by_consent(consent)
    assert found is not None
    now = int(asking.tenant.clock.now().timestamp())
    assert not requests.accept(found, sub, now - 1)
    assert not requests.accept(found, "agentvault|other", now)
    assert not requests.accept(replace(found, key="0" * 64), sub, now)
    assert requests.accept(found, sub, now)
    store.close()


def test_where_the_inbox_is_stands_in_the_extensions(asking: Asking) -> None:
    """What is not Auth0's is named where nothing of Auth0's is."""
    issuer = asking.tenant.issuer
    said = asking.tenant.http.get(issuer + "agentvault/metadata").json()
    assert said["inbox"] == f"{issuer}agentvault/inbox"
    assert asking.tenant.http.get(said["inbox"]).status_code == 200
