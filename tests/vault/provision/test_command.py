"""`agentvault auth0` as it is typed: credentials, exit codes, and no secret."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import pytest
from keyring.backends.chainer import ChainerBackend
from support.command_line import PROGRAM, plain_environment
from support.dict_tenant import ADMIN, DictTenant
from support.provisioning import CREDENTIAL, Call, configure
from support.terminal import Terminal

from agentvault_tui.cli.app import run
from agentvault_tui.vault.provision.needs import READING_SCOPES

HERE = {"issuer": "https://a.test/"}
WORKERS = {
    **HERE,
    "connections": ["b"],
    "workers": ["a b c"],
    "worker_ips": ["203.0.113.7"],
}
OURS = ("AGENTVAULT_HOME", "AGENTVAULT_TENANT_RATE")


@pytest.mark.slow
def test_plan_apply_and_doctor_agree(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """What plan says apply does, then plan has nothing left and the doctor no fault."""
    planned = auth0("plan", "--json")
    assert planned.code == 0
    assert tenant.writes == []
    counts = planned.json["counts"]
    applied = auth0("apply", "--yes", "--json")
    assert applied.code == 0, applied.err
    *done, end = applied.lines
    assert len(done) == counts["create"] + counts["change"]
    console = tenant.named("clients", "AgentVault console")["client_id"]
    assert (end["ok"], end["client_id"]) == (True, console)
    assert Path(end["kept_in"]).parent == home / "keys"
    again = auth0("plan", "--json").json["counts"]
    assert (again["create"], again["change"]) == (0, 0)
    doctor = auth0("doctor", "--json")
    assert (doctor.code, doctor.json["ok"]) == (0, True)
    everything = [planned, applied, doctor]
    for secret in (*tenant.secrets, ADMIN[1], "provider-secret", "management-token"):
        assert all(secret not in one.out + one.err for one in everything)


@pytest.mark.slow
@pytest.mark.parametrize("line", ["doctor", "apply --yes"])
def test_a_closed_pipe_is_no_error(home: Path, tenant: DictTenant, line: str) -> None:
    """`auth0 doctor | head` ends quietly, its connections to the tenant closed."""
    given, giving = os.pipe()
    os.write(giving, json.dumps(CREDENTIAL).encode())
    os.close(giving)
    with subprocess.Popen(
        [*PROGRAM, "auth0", *line.split(), "--credential-fd", str(given)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**plain_environment(), **{n: os.environ[n] for n in OURS}},
        pass_fds=(given,),
    ) as process:
        os.close(given)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.slow
def test_apply_prints_the_plan_and_each_object(home: Path, auth0: Call) -> None:
    """The plan with its marks, a line for each object, and where the secrets are."""
    answer = auth0("apply", "--yes")
    lines = answer.out.splitlines()
    assert "  + client.console  AgentVault console" in lines
    assert "ok: create client.console" in lines
    assert lines[-1].startswith("secrets are in ")


@pytest.mark.slow
def test_print_secrets_prints_new_secrets_once(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """Once, each with its application; the next run has none to print."""
    first = auth0("apply", "--yes", "--json", "--print-secrets")
    printed = [line for line in first.lines if "client_secret" in line]
    assert [one["application"] for one in printed] == ["management"]
    assert [one["client_secret"] for one in printed] == tenant.secrets
    second = auth0("apply", "--yes", "--json", "--print-secrets")
    assert "client_secret" not in second.out


@pytest.mark.slow
def test_an_interrupted_apply_is_finished_by_the_next(
    home: Path, tenant: DictTenant, auth0: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit 1; what was done stays done."""
    tenant.fail_after = 6
    broken = auth0("apply", "--yes", "--json")
    assert broken.code == 1
    assert broken.err.count("\n") == 1
    assert len(broken.lines) > 0
    tenant.fail_after = -1
    ended = auth0("apply", "--yes", "--json")
    assert ended.code == 0
    assert not {line["address"] for line in broken.lines} & {
        line.get("address") for line in ended.lines
    }


@pytest.mark.slow
def test_yes_adopts_no_application_unseen(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """A mark is easily set: with --yes nobody would see whose rights are given away."""
    assert auth0("apply", "--yes").code == 0
    (kept,) = (home / "keys").glob("auth0-*.json")
    kept.unlink()
    tenant.writes.clear()
    answer = auth0("apply", "--yes")
    assert answer.code == 2
    management = tenant.named("clients", "AgentVault management")
    assert management["client_id"] in answer.err
    assert "without --yes" in answer.err
    assert tenant.writes == []
    assert not kept.exists()


@pytest.mark.slow
def test_a_plan_refusal_exits_1_where_it_is_needed(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """Without security keys all works, exit 0; without the Actions nothing does, 1."""
    factor = "/api/v2/guardian/factors/webauthn-roaming"
    tenant.plan_lacks[factor] = "insufficient_entitlement"
    answer = auth0("apply", "--yes")
    assert answer.code == 0
    (told,) = [one for one in answer.out.splitlines() if "refused" in one]
    assert told.startswith("warning: refused factor.webauthn-roaming: ")
    assert "insufficient_entitlement" in told
    assert auth0("doctor").code == 0
    tenant.bindings.clear()
    tenant.plan_lacks = {
        "/api/v2/actions/triggers/post-login/bindings": "trial_expired"
    }
    answer = auth0("apply", "--yes", "--json")
    assert answer.code == 1
    (refused,) = [one for one in answer.lines if one.get("step") == "refused"]
    assert refused["address"] == "flow.post-login"
    assert "trial_expired" in refused["note"]


def test_apply_without_a_terminal_needs_yes(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """Without a terminal there is nobody to ask."""
    answer = auth0("apply")
    assert answer.code == 2
    assert "--yes" in answer.err
    assert tenant.writes == []


def test_every_scope_that_is_missing_is_named_before_the_first_write(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """A run that would fail half-way does not begin."""
    tenant.granted = " ".join({*READING_SCOPES, "create:clients"})
    answer = auth0("apply", "--yes")
    assert answer.code == 1
    for scope in ("create:roles", "update:actions", "update:tenant_settings"):
        assert scope in answer.err
    assert "read:clients" not in answer.err
    assert tenant.writes == []


def test_a_scope_refused_by_a_call_is_named(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """Its own refusal is read: which scope, and what to do."""
    tenant.without = frozenset({"read:connections"})
    answer = auth0("plan")
    assert answer.code == 1
    assert "read:connections" in answer.err
    doctor = auth0("doctor", "--json")
    lacking = [one for one in doctor.json["findings"] if one["level"] == "fault"]
    said = [one["what"] for one in lacking]
    assert said.count("the credential lacks read:connections") == 1


def test_every_scope_missing_from_a_token_is_named(
    home: Path, tenant: DictTenant, auth0: Call
) -> None:
    """Also before the first call: not one scope a run, until there is none left."""
    payload = base64.urlsafe_b64encode(b'{"scope": "read:clients read:roles"}').decode()
    answer = auth0("plan", credential={"access_token": f"e30.{payload}.x"})
    assert answer.code == 1
    for scope in READING_SCOPES:
        assert (scope in answer.err) is (scope not in {"read:clients", "read:roles"})


@pytest.mark.parametrize("token", ["e30", "e30.!!!.x", "e30.WzFd.x", "a.e30.b"])
def test_a_token_without_scopes_is_tried(home: Path, auth0: Call, token: str) -> None:
    """Whatever it holds is read without a fault, and refused by whom it is for."""
    answer = auth0("plan", credential={"access_token": token})
    assert answer.code == 1
    assert "token" in answer.err
    assert token not in answer.err


def test_a_wrong_secret_is_refused_in_one_line_without_it(
    home: Path, auth0: Call
) -> None:
    """Exit 1, the tenant's word, and the secret nowhere."""
    wrong = {"client_id": "admin", "client_secret": "wrong-secret"}
    answer = auth0("plan", credential=wrong)
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "wrong-secret" not in answer.err


def test_an_expired_access_token_is_refused(home: Path, auth0: Call) -> None:
    """Someone else got it, so what to do is to get another."""
    assert auth0("plan", credential={"access_token": "management-token"}).code == 0
    answer = auth0("plan", credential={"access_token": "old-token"})
    assert answer.code == 1
    assert "invalid_token" in answer.err
    assert "old-token" not in answer.err
    doctor = auth0("doctor", "--json", credential={"access_token": "old-token"})
    assert doctor.code == 1
    told = [one for one in doctor.json["findings"] if one["area"] == "credential"]
    assert [one["level"] for one in told] == ["fault"]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s3cret-by-itself",
        '{"client_id": "x"}',
        '{"client_id": "x", "client_secret": ""}',
        '{"client_id": "x", "client_secret": "s3cret", "more": "y"}',
        '["s3cret"]',
        "[" * 50_000,
        "x" * 70_000,
    ],
)
def test_a_malformed_credential_is_not_quoted(
    home: Path, auth0: Call, given: str
) -> None:
    """What was given by mistake may be a secret all the same."""
    answer = auth0("plan", credential=given[:60_000])
    assert answer.code == 2
    assert "client_id" in answer.err
    assert "s3cret" not in answer.err


def test_a_closed_descriptor_is_wrong_usage(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the way to open one."""
    assert run(["auth0", "plan", "--credential-fd", "973"]) == 2
    assert "3< FILE" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no Auth0 tenant is set"),
        ({"issuer": "http://acme.eu.auth0.com/"}, "does not use https"),
        ({"issuer": "acme.eu.auth0.com"}, "is not an issuer"),
        ({"issuer": "https://a.test/", "domain": "https://b.test"}, "tenant.domain"),
        ({**HERE, "rate": 0}, "tenant.rate"),
        ({**HERE, "workers": ["a b c"]}, "go together"),
        ({**HERE, "worker_ips": ["203.0.113.7"]}, "go together"),
        ({**WORKERS, "workers": ["a b"]}, "tenant.workers has a b"),
        ({**WORKERS, "workers": ["a d c"]}, "names the connection d"),
        (WORKERS, "no agent that is served"),
        ({**WORKERS, "worker_ips": ["203.0.113.7"] * 11}, "at most 10"),
        ({**WORKERS, "worker_ips": ["203.0.113.x"]}, "worker_ips has 203.0.113.x"),
        ({**WORKERS, "worker_ips": ["8.8.8.8/0"]}, "which is everywhere"),
    ],
)
def test_bad_tenant_settings_are_refused(
    home: Path, auth0: Call, settings: dict[str, Any], said: str
) -> None:
    """Exit 2, and which one it is."""
    configure(home, **settings)
    answer = auth0("plan")
    assert answer.code == 2
    assert said in answer.err


def test_doctor_without_a_tenant_has_one_fault(home: Path, auth0: Call) -> None:
    """It says that nothing answers, and guesses at nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configure(home, issuer=f"http://127.0.0.1:{port}/")
    answer = auth0("doctor", "--json")
    assert answer.code == 1
    (finding,) = answer.json["findings"]
    assert finding["level"] == "fault"
    assert "cannot be reached" in finding["what"]


def test_doctor_names_plain_http(home: Path, auth0: Call) -> None:
    """It is a finding like any other, with its remedy."""
    configure(home, issuer="http://acme.eu.auth0.com/")
    answer = auth0("doctor", "--json")
    assert answer.code == 1
    (finding,) = answer.json["findings"]
    assert "does not use https" in finding["what"]


@pytest.mark.slow
def test_the_prompt_hides_the_secret(home: Path, tenant: DictTenant) -> None:
    """Client id, secret without echo, the plan, and a yes."""
    env = plain_environment(
        AGENTVAULT_HOME=str(home),
        AGENTVAULT_TENANT_RATE="1000",
        PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring",
    )
    with Terminal([*PROGRAM, "auth0", "apply"], env) as terminal:
        terminal.see("Client id")
        terminal.write(f"{ADMIN[0]}\n")
        terminal.see("Client secret")
        terminal.write(f"{ADMIN[1]}\n")
        terminal.see("Do these")
        terminal.write("n\n")
        assert terminal.finish() == 1
        assert ADMIN[1] not in terminal.text
    assert tenant.writes == []


class _Memory(keyring.backend.KeyringBackend):
    """A keyring that lasts as long as a test."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class _Weak(_Memory):
    """One that writes what it is given in clear."""

    priority = 0.5  # type: ignore[assignment]


@pytest.fixture
def ring() -> Iterator[_Memory]:
    """The system's keyring, for a while."""
    before = keyring.get_keyring()
    made = _Memory()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_credential_in_the_keyring_is_used_and_taken_out(
    home: Path, ring: _Memory, auth0: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    """Kept once, then no descriptor is needed until it is forgotten."""
    assert auth0("remember").code == 0
    assert run(["auth0", "plan", "--json"]) == 0
    assert "create" in capfd.readouterr().out
    assert run(["auth0", "forget"]) == 0
    assert ring.held == {}
    assert run(["auth0", "plan"]) == 2
    assert run(["auth0", "forget"]) == 4


def test_forget_removes_a_damaged_keyring_entry(
    home: Path, ring: _Memory, auth0: Call
) -> None:
    """Whatever an older version or another program left there."""
    assert auth0("remember").code == 0
    ((service, issuer),) = ring.held
    ring.held[service, issuer] = '{"client_id": "x"}'
    assert run(["auth0", "forget"]) == 0
    assert ring.held == {}


@pytest.mark.parametrize("chained", [False, True])
def test_without_a_keyring_remember_fails(
    home: Path, auth0: Call, chained: bool
) -> None:
    """A file in clear is no keyring, and two of them in a chain are none either."""
    before = keyring.get_keyring()
    weak = _Weak()

    class Chain(ChainerBackend):
        backends = (weak, _Weak())

    assert Chain.priority > weak.priority
    keyring.set_keyring(Chain() if chained else weak)
    try:
        answer = auth0("remember")
    finally:
        keyring.set_keyring(before)
    assert answer.code == 4
    assert weak.held == {}
