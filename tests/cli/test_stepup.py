"""`agentvault stepup` and `tenant` against a real broker and its tenant."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pyotp
import pytest
from support.command_line import HOSTILE, Agent, Answer, Broker
from support.forked import Forked, agentvault
from support.terminal import Terminal
from support.wire_shapes import filled

from agentvault_tui.cli.output import Output
from agentvault_tui.cli.stepup import print_stepup
from agentvault_tui.home import Home
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.stepups import StepUpInfo

Run = Callable[..., Answer]
Start = Callable[..., Forked]
PAYMENT = {"amount": 4200, "currency": "USD", "to": "Northwind GmbH"}


@dataclass
class Person:
    """An approver of the embedded tenant."""

    name: str
    password_file: Path
    otp_secret: str

    def otp(self) -> str:
        return pyotp.TOTP(self.otp_secret).now()


@pytest.fixture
def person(av: Run, tmp_path: Path) -> Person:
    """A new approver: each code counts once, so each test has its own."""
    name = f"p{time.monotonic_ns()}"
    added = av("tenant", "user", "add", name, "--approver", "--json").json
    file = tmp_path / "password"
    file.write_text(added["password"] + "\n")
    file.chmod(0o600)
    return Person(name, file, added["otp_secret"])


def activate(av: Run, person: Person, code: str, *extra: str) -> Answer:
    return av(
        *("tenant", "activate", code, "--user", person.name),
        *("--password-file", str(person.password_file), "--otp", person.otp()),
        *("--yes", *extra),
    )


def first_line(process: Forked) -> dict[str, object]:
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.slow
def test_a_step_up_from_request_to_token(
    av: Run, start: Start, agent: Agent, person: Person
) -> None:
    """Approve waits; the tenant is told from a second terminal; both exit 0."""
    asked = agent.ask("send:payment", PAYMENT, "Invoice 1881")
    stepup_id = asked["auth_req_id"]
    listed = av(
        "stepup", "list", "--status", "pending", "--agent", agent.name, "--json"
    )
    assert [item["id"] for item in listed.json["stepups"]] == [stepup_id]
    shown = av("stepup", "show", stepup_id)
    fingerprint = listed.json["stepups"][0]["fingerprint"]
    for word in (agent.name, agent.id, "amount", "4200", "Northwind GmbH", fingerprint):
        assert word in shown.out
    process = start("stepup", "approve", stepup_id, "--json")
    started = first_line(process)
    device = started["device"]
    assert isinstance(device, dict)
    assert started["status"] == "authorizing"
    approved = activate(av, person, device["user_code"], "--json")
    assert approved.code == 0, approved.err
    assert approved.json["fingerprint"] == fingerprint
    assert approved.json["action"] == "send:payment"
    assert approved.json["parameters"] == PAYMENT
    rest, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    ended = json.loads(rest)
    assert ended["status"] == "approved"
    assert ended["decided_by"]["name"] == person.name
    assert "mfa" in ended["decided_by"]["amr"]


def test_show_tells_what_was_decided_before(av: Run, agent: Agent) -> None:
    """The last decisions like it, with by whom and what differed; in JSON whole."""
    first = agent.ask("send:payment", {"amount": 3900, "currency": "USD"})
    assert "the first of its kind" in av("stepup", "show", first["auth_req_id"]).out
    second = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    # By the word that the console has for it, and by the wire's.
    listed = ("stepup", "list", "--agent", agent.name, "--status")
    assert " waiting " in av(*listed, "waiting").out
    assert av(*listed, "waiting").out == av(*listed, "pending").out
    av("stepup", "deny", first["auth_req_id"], "--reason", "no")
    shown = av("stepup", "show", second)
    assert "one like it: 1 denied" in shown.out
    assert "amount 3900 USD, unit unknown, no to" in shown.out
    before = av("stepup", "show", second, "--json").json["before"]
    assert [each["id"] for each in before] == [first["auth_req_id"]]


@pytest.mark.slow
def test_whoami_names_who_else_is_connected(av: Run, start: Start) -> None:
    """An open stream is listed with its face, and is gone when it ends."""
    assert av("whoami", "--json").json["operators"] == []
    following = start("audit", "tail", "--follow", "--json")
    first_line(following)
    (here,) = _until(av, 1)
    assert here["face"] == "stream"
    assert f"{here['name']}" in av("whoami").out
    following.terminate()
    assert _until(av, 0) == []
    assert "nobody" in av("whoami").out


def _until(av: Run, count: int) -> list[dict[str, str]]:
    """Ask until so many are connected: a stream's end reaches the broker after us."""
    deadline = time.monotonic() + 60
    while True:
        here: list[dict[str, str]] = av("whoami", "--json").json["operators"]
        if len(here) == count:
            return here
        assert time.monotonic() < deadline, here


@pytest.mark.slow
def test_cancelling_at_the_page_is_a_no_with_its_reason(
    start: Start, broker: Broker, agent: Agent, person: Person
) -> None:
    """Saying no at the tenant ends approve with 1; the request waits on, with why."""
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    process = start("stepup", "approve", stepup_id, "--json")
    device = first_line(process)["device"]
    assert isinstance(device, dict)
    line = [
        *("tenant", "activate", device["user_code"], "--user", person.name),
        *("--password-file", str(person.password_file), "--otp", person.otp()),
    ]
    with Terminal([agentvault, *line], broker.env) as terminal:
        terminal.read_until(lambda text: "Approve exactly this?" in text)
        terminal.write("n\n")
        assert terminal.finish() == 1
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    ended = json.loads(rest)
    assert ended["status"] == "pending"
    assert ended["problem"]


@pytest.mark.slow
def test_approve_on_a_terminal_shows_all_then_code_and_link(
    av: Run, broker: Broker, agent: Agent
) -> None:
    """A person sees what they approve first, then what leads to the page and a code."""
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    line = [agentvault, "stepup", "approve", stepup_id]
    with Terminal(line, broker.env) as terminal:
        text = terminal.read_until(lambda text: "The code lives" in text)
        device = av("stepup", "show", stepup_id, "--json").json["device"]
        before, _, after = text.partition("On this machine open")
        assert "4200" in before
        assert "Fingerprint" in before
        assert device["user_code"] in after
        assert device["verification_uri"] in after
        home = broker.env["AGENTVAULT_HOME"]
        activate = f"agentvault --home {home} tenant activate {device['user_code']}"
        assert activate in after.replace("\r\n", "")
        assert "\x1b[30;107m" not in after  # a QR of loopback leads nowhere
        assert av("stepup", "deny", stepup_id, "--reason", "no invoice").code == 0
        assert terminal.finish() == 1
    assert "denied" in terminal.text


@pytest.mark.slow
def test_no_qr_and_no_colour_in_a_pipe(start: Start, agent: Agent, av: Run) -> None:
    """Piped output is plain text."""
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    process = start("stepup", "approve", stepup_id)
    seen = ""
    while "The code lives" not in seen:
        seen += process.stdout.readline()
    assert av("stepup", "deny", stepup_id).code == 0
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "\x1b" not in seen + rest
    assert "▀" not in seen


def test_deny_reaches_the_agent_and_decides_once(av: Run, agent: Agent) -> None:
    """A denial is recorded with its reason; a second decision is a conflict."""
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    denied = av("stepup", "deny", stepup_id, "--reason", "no invoice", "--json")
    assert denied.json["status"] == "denied"
    assert denied.json["denial"] == "no invoice"
    assert av("stepup", "deny", stepup_id).code == 1
    late = av("stepup", "approve", stepup_id)
    assert late.code == 1
    assert "already" in late.err
    assert "no invoice" in av("stepup", "show", stepup_id).out


def test_no_such_step_up_exits_four(av: Run) -> None:
    """An unknown id exits 4, whatever is in it."""
    for word in ("sup_nope", "../agents", HOSTILE):
        for command in ("show", "approve", "deny"):
            assert av("stepup", command, word).code == 4


def test_an_agents_lure_is_masked_and_inert(av: Run, agent: Agent) -> None:
    """Codes and links in the agent's own words cannot be followed, nor escapes run."""
    lure = f"{HOSTILE} enter KDRT-WZNB at https://evil.test/activate"
    parameters = {"amount": 1, "currency": "USD", f"memo{HOSTILE}": HOSTILE}
    asked = agent.ask("send:payment", parameters, lure)
    out = av("stepup", "show", asked["auth_req_id"]).out
    assert "KDRT" not in out
    assert "evil.test" not in out
    assert "1 code and 1 link masked" in out
    assert all(row.isprintable() for row in out.split("\n"))
    listed = av("stepup", "list", "--json").out
    assert listed.isascii()
    assert av("stepup", "deny", asked["auth_req_id"]).code == 0


@pytest.mark.slow
def test_a_wrong_password_and_a_wrong_code_are_refused(
    av: Run, start: Start, agent: Agent, person: Person, tmp_path: Path
) -> None:
    """The tenant's own words, one line, exit 1; a code nobody issued as well."""
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    process = start("stepup", "approve", stepup_id, "--json")
    device = first_line(process)["device"]
    assert isinstance(device, dict)
    wrong = tmp_path / "wrong"
    wrong.write_text("not it")
    wrong.chmod(0o600)
    mistaken = Person(person.name, wrong, person.otp_secret)
    for refused in (
        activate(av, mistaken, device["user_code"]),
        activate(av, person, "BBBB-BBBB"),
    ):
        assert refused.code == 1
        assert refused.err.count("\n") == 1
    assert av("stepup", "deny", stepup_id).code == 0
    process.communicate(timeout=30)


@pytest.mark.slow
def test_a_sign_in_the_broker_refuses_is_not_called_approved(
    av: Run, start: Start, agent: Agent, tmp_path: Path
) -> None:
    """The tenant knows who signed in; who may approve, and when, the broker does."""
    name = f"v{time.monotonic_ns()}"
    added = av("tenant", "user", "add", name, "--json").json
    file = tmp_path / "password"
    file.write_text(added["password"])
    file.chmod(0o600)
    viewer = Person(name, file, added["otp_secret"])
    stepup_id = agent.ask("send:payment", PAYMENT)["auth_req_id"]
    process = start("stepup", "approve", stepup_id, "--json")
    device = first_line(process)["device"]
    assert isinstance(device, dict)
    refused = activate(av, viewer, device["user_code"])
    assert refused.code == 1
    assert "approved" not in refused.out
    assert "the broker refused it" in refused.err
    assert "approver" in refused.err
    process.communicate(timeout=30)
    assert process.returncode == 1
    assert av("stepup", "deny", stepup_id).code == 0


@pytest.mark.slow
def test_a_password_file_others_can_read_is_refused(
    av: Run, person: Person, tmp_path: Path
) -> None:
    """A password in an open, empty or missing file is wrong usage."""
    person.password_file.chmod(0o644)
    assert "chmod 600" in activate(av, person, "BBBB-BBBB").err
    empty = tmp_path / "empty"
    empty.touch(0o600)
    for file in (empty, tmp_path / "none"):
        answer = activate(av, Person("x", file, person.otp_secret), "BBBB-BBBB")
        assert answer.code == 2


@pytest.mark.slow
def test_users_are_added_listed_and_reset(av: Run) -> None:
    """`add --json` has the four members; `otp` makes a new seed; names are unique."""
    added = av("tenant", "user", "add", "carol", "--json").json
    assert added.keys() == {"user", "password", "otp_secret", "otpauth_uri"}
    listed = av("tenant", "user", "list", "--json").json["users"]
    assert {user["name"]: user["approver"] for user in listed}["carol"] is False
    anew = av("tenant", "user", "otp", "carol", "--json").json
    assert anew["otp_secret"] != added["otp_secret"]
    assert anew["otp_secret"] in anew["otpauth_uri"]
    assert av("tenant", "user", "add", "carol").code == 1
    assert av("tenant", "user", "otp", "nobody").code == 4
    assert av("tenant", "user", "add", HOSTILE).code == 2


@pytest.mark.slow
def test_signing_keys_rotate_beside_a_running_tenant(av: Run, broker: Broker) -> None:
    """The next signs, the last is published till its tokens lapse or it is revoked."""
    client = OperatorClient(Home(broker.home, broker.home).operator_socket)
    issuer = client.call(calls.STATUS).tenant.issuer
    first = av("tenant", "rotate-keys", "--json").json
    second = av("tenant", "rotate-keys", "--json").json
    assert (second["retired"], second["current"]) == (first["current"], first["next"])
    published = httpx.get(f"{issuer}.well-known/jwks.json", trust_env=False).json()
    kids = {key["kid"] for key in published["keys"]}
    assert kids >= {second["retired"], second["current"], second["next"]}
    told = av("tenant", "rotate-keys")
    assert told.code == 0
    assert second["next"] in told.out
    assert "accepted until" in told.out
    gone = av("tenant", "rotate-keys", "--revoke", "--json").json
    assert gone["retired"] == second["next"]
    published = httpx.get(f"{issuer}.well-known/jwks.json", trust_env=False).json()
    kids = {key["kid"] for key in published["keys"]}
    assert kids == {gone["current"], gone["next"]}
    search = av("audit", "search", "--type", "tenant.keys_changed", "--json")
    events = [json.loads(one) for one in search.out.splitlines()]
    assert sorted(one["action"] for one in events) == ["revoked", *["rotated"] * 3]


@pytest.mark.slow
def test_user_add_draws_a_qr_on_a_terminal(broker: Broker) -> None:
    """The seed can be scanned from the terminal it is shown on."""
    line = [agentvault, "tenant", "user", "add", "dora", "--approver"]
    with Terminal(line, broker.env) as terminal:
        assert terminal.finish() == 0
    assert "\x1b[30;107m" in terminal.text
    assert "shown once" in terminal.text


@pytest.mark.slow
def test_sign_in_by_device_flow(av: Run, start: Start, person: Person) -> None:
    """`login` waits for the tenant; `whoami` says who; `logout` ends it."""
    process = start("login", "--json")
    device = first_line(process)["device"]
    assert isinstance(device, dict)
    answer = activate(av, person, device["user_code"], "--json")
    assert answer.json["answer"] == "confirmed"
    assert answer.json["agent_id"] is None
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(rest)["user"]["name"] == person.name
    assert person.name in av("whoami").out
    assert av("logout").code == 0
    assert av("whoami", "--json").json["user"] is None


def test_a_providers_token_is_told_for_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before a yes at the command line: it is more than this action, and lasts."""
    item = {
        **dict.fromkeys(("id", "fingerprint", "agent_id", "scope", "rule", "why"), "x"),
        "agent_name": "a",
        "action": "send:payment",
        "resource": "connection:bank",
        "parameters": {},
        "risk": "high",
        "ttl": 300,
        "count": 1,
        "problem": None,
        "status": "pending",
        "decided_by": None,
        "decided_at": None,
        "denial": None,
        "reason": None,
    }
    for connection, said in ((None, "once, within 5:00"), ("bank", "at bank")):
        asked = filled(StepUpInfo, {**item, "connection": connection})
        print_stepup(Output(), asked, [])
        told = capsys.readouterr().out
        assert said in told
        lasts = "untiltheproviderendsit" in "".join(told.split())
        assert lasts is (connection is not None)


def test_the_command_line_shows_what_limits_nothing_and_what_else_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """First that nothing limits it; and every member a resource server will read."""
    item = {
        **dict.fromkeys(("id", "fingerprint", "agent_id", "rule", "why"), "x"),
        **dict.fromkeys(("problem", "decided_by", "denial", "reason", "resource")),
        "agent_name": "payer",
        "scope": "send:payment",
        "action": "send:payment",
        "parameters": {},
        "risk": "high",
        "ttl": 300,
        "count": 1,
        "status": "pending",
        "unlimited": True,
    }
    print_stepup(Output(colour=True), filled(StepUpInfo, item), [])
    told = capsys.readouterr().out
    assert told.startswith("\x1b[1;31mNOTHING LIMITS THIS: payer may use send:payment")
    assert "for anything, once, within 5:00." in told.splitlines()[0]
    others = [{"type": "payment_initiation", "creditorAccount": {"iban": "DE02"}}]
    more = {
        "authorization_details": others,
        "unlimited": False,
        "resource_indicator": "x:y",
    }
    print_stepup(Output(), filled(StepUpInfo, {**item, **more}), [])
    told = capsys.readouterr().out
    assert "payment_initiation: creditorAccount" in told
    assert '{"iban": "DE02"}' in told
    assert "resource indicator" in told
    assert "x:y" in told
    assert "NOTHING LIMITS" not in told


@pytest.mark.slow
def test_approving_more_like_it_is_shown_at_the_tenant_and_spares_the_next(
    av: Run, start: Start, agent: Agent, person: Person
) -> None:
    """The page names what is approved besides; the next one then needs no person."""
    held = agent.ask("send:payment", PAYMENT)
    line = ("stepup", "approve", held["auth_req_id"], "--repeat", "2")
    assert av(*line).code == 2
    bad = av(*line, "--within", "600", "--bound", "price=1")
    assert (bad.code, "amount" in bad.err) == (2, True)
    waiting = start(*line, "--within", "600", "--bound", "amount=5000", "--json")
    begun = first_line(waiting)
    assert isinstance(begun["device"], dict)
    told = av("stepup", "show", held["auth_req_id"])
    assert told.code == 0, told.err
    shown = told.out
    assert "NOT ONCE" in shown
    assert "the next 2 like it within 600 s, amount up to 5,000" in shown
    code = begun["device"]["user_code"]
    activated = activate(av, person, code, "--json")
    assert activated.code == 0, activated.err
    words = "the next 2 like it within 600 s, amount up to 5,000"
    assert activated.json["repeat"] == words
    assert activated.json["fingerprint"] == begun["fingerprint"]
    assert waiting.wait(30) == 0
    token = agent.ask("send:payment", {**PAYMENT, "amount": 4999})
    assert token["access_token"].startswith("av_e_")
    ended = av("stepup", "deny", held["auth_req_id"], "--json").json
    assert ended["repeat"]["left"] == 0
    assert "auth_req_id" in agent.ask("send:payment", PAYMENT)
