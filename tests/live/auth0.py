"""`make live-auth0`: the whole of it against a real tenant, with a transcript.

Runs the same command lines a person would type: plan, apply, doctor, a sign-in and an
approved payment by device flow, and a revocation until the tenant was seen to have
done it. Writes what was said, secrets removed, so that a run can be shown to someone
who has no tenant.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from agentvault_tui.cli.auth0_credential import from_descriptor, from_prompt
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.home import Home
from agentvault_tui.vault.kept_clients import ClientSecretsFile

PROGRAM: Final = (sys.executable, "-P", "-m", "agentvault_tui.cli")
AGENT: Final = f"live-{secrets.token_hex(4)}"
"""Another each time: names of agents are given once."""
PAYMENT: Final = {
    "type": "agentvault:action",
    "action": "send:payment",
    "resource": "live:nowhere",
    "parameters": {"amount": 1, "currency": "USD"},
    "reason": "make live-auth0",
}
CIBA: Final = "urn:openid:params:grant-type:ciba"
PATIENCE: Final = 120.0
"""Seconds in which a tenant is to have done what a revocation asks of it."""
GONE: Final = "[removed]"
_PATTERNS: Final = (
    re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(r"\bav_\w_[\w-]+"),
    re.compile(r"[\w.+-]+@[\w.-]+\.\w+"),
    re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL),
)
"""Tokens, e-mail addresses and keys, whoever's they are."""


class Transcript:
    """What was typed and said: to the screen as it is, to the file without secrets."""

    def __init__(self, path: Path) -> None:
        self.secrets: set[str] = set()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        os.fchmod(descriptor, 0o600)  # also where it is an earlier run's
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")

    def say(self, line: str) -> None:
        print(line, flush=True)
        self._file.write(self.redacted(line) + "\n")
        self._file.flush()

    def redacted(self, text: str) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, GONE)
        for pattern in _PATTERNS:
            text = pattern.sub(GONE, text)
        return text


class Live:
    """One run: a home, a credential, and the transcript."""

    def __init__(
        self, home: Path, credential: Mapping[str, str], transcript: Transcript
    ) -> None:
        self.home = home
        self.credential = dict(credential)
        self.transcript = transcript
        transcript.secrets |= set(self.credential.values())
        self.failed: list[str] = []

    def run(self, *argv: str, manages: bool = False) -> list[str]:
        """Run one command line, and write down what it says as it says it."""
        self.transcript.say(f"\n$ agentvault {' '.join(argv)}")
        with self._descriptor(manages) as (extra, passed):
            process = subprocess.Popen(
                [*self.line(*argv), *extra],
                pass_fds=passed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            said = []
            for row in process.stdout:
                self.learn(row)
                said.append(row.rstrip("\n"))
                self.transcript.say(said[-1])
        code = process.wait()
        self.transcript.say(f"exit {code}")
        self.hold(code == 0, " ".join(argv))
        return said

    def line(self, *argv: str) -> list[str]:
        """Return one command line on this home."""
        return [*PROGRAM, "--home", str(self.home), *argv]

    def hold(self, so: bool, what: str) -> None:
        """Note *what* as failed unless it is *so*."""
        if not so:
            self.failed.append(what)

    @contextmanager
    def _descriptor(self, manages: bool) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Hand the credential on by a pipe: it is in no argument and no variable."""
        if not manages:
            yield [], ()
            return
        reader, writer = os.pipe()
        os.write(writer, json.dumps(self.credential).encode())
        os.close(writer)
        try:
            yield ["--credential-fd", str(reader)], (reader,)
        finally:
            os.close(reader)

    def learn(self, row: str) -> None:
        """Know the secrets of this home and of a *row*, before it is written."""
        for path in (self.home / "keys").glob("auth0-*.json"):
            for one in json.loads(path.read_text()).values():
                self.transcript.secrets |= secrets_in(one)
        try:
            self.transcript.secrets |= secrets_in(json.loads(row))
        except ValueError:
            return


def secrets_in(value: Any) -> set[str]:
    """The members of an object that nobody else may read."""
    members = value if isinstance(value, dict) else {}
    names = ("client_secret", "worker_key", "access_token")
    return {members[name] for name in names if members.get(name)}


def provisioned(live: Live) -> None:
    """Bring the tenant to what is needed, and see that nothing is left to do."""
    live.run("auth0", "plan", manages=True)
    live.run("auth0", "apply", "--yes", manages=True)
    left = live.run("auth0", "plan", manages=True)[-1]
    live.hold(not re.search("to (create|change)", left), "a plan with nothing to do")
    live.run("auth0", "doctor", manages=True)


def people(live: Live) -> None:
    """Sign in, approve one payment, and revoke: what needs a person and a browser."""
    serve = subprocess.Popen(
        live.line("serve", "--listen", "127.0.0.1:0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert serve.stdout is not None
        said = json.loads(serve.stdout.readline())
        live.run("login")
        live.run("whoami")
        agent = Agent(live, said["agents_url"].rstrip("/"))
        agent.pay()
        live.run("agents", "revoke", AGENT, "--reason", "make live-auth0")
        refused = agent.ask(grant_type="client_credentials", scope="send:payment")
        live.hold(refused.get("reason") == "agent_revoked", "the agent's refusal")
        ended_there(live)
        live.run("auth0", "plan", manages=True)
        live.run("audit", "verify")
    finally:
        serve.terminate()
        serve.wait(15)


class Agent:
    """An agent of the broker's, with an application of its own on the tenant."""

    def __init__(self, live: Live, url: str) -> None:
        self.live = live
        self.endpoint = f"{url}/oauth/token"
        made = live.run(
            "agents", "add", AGENT, "--owner", "live@agentvault.test",
            "--scope", "send:payment", "--json",
        )  # fmt: skip
        # The agent's own application on the tenant, which the revocation is about.
        live.run("auth0", "apply", "--yes", manages=True)
        agent = json.loads(made[-1])
        self.auth = (agent["client_id"], agent["client_secret"])

    def ask(self, **form: str) -> dict[str, Any]:
        """Ask the token endpoint, and write down what it answers."""
        answer = httpx.post(self.endpoint, data=form, auth=self.auth, trust_env=False)
        body: dict[str, Any] = answer.json()
        self.live.transcript.secrets |= secrets_in(body)
        told = f"agent: {form['grant_type']} -> {json.dumps(body)}"
        self.live.transcript.say(told)
        return body

    def pay(self) -> None:
        """Ask for a payment, have it approved, and fetch the token: once."""
        held = self.ask(
            grant_type="client_credentials",
            scope="send:payment",
            authorization_details=json.dumps([PAYMENT]),
        )
        self.live.run("stepup", "approve", held["auth_req_id"])
        given = self.ask(grant_type=CIBA, auth_req_id=held["auth_req_id"])
        whole = given.get("authorization_details") == [PAYMENT]
        self.live.hold("access_token" in given and whole, "the payment's token")
        again = self.ask(grant_type=CIBA, auth_req_id=held["auth_req_id"])
        self.live.hold(again.get("error") == "invalid_grant", "one token, and no more")


def ended_there(live: Live) -> None:
    """Wait until no step of the revocation is open at the tenant, and show them."""
    deadline = time.monotonic() + PATIENCE
    steps: list[dict[str, Any]] = [{"status": "pending"}]
    while any(one["status"] == "pending" for one in steps):
        if time.monotonic() > deadline:
            break
        shown = subprocess.check_output(live.line("agents", "show", AGENT, "--json"))
        steps = json.loads(shown)["upstream"]
    done = {one["step"] for one in steps if one["status"] == "confirmed"}
    live.run("agents", "show", AGENT)
    live.hold({"vault grant", "client secret"} <= done, "the end at the tenant")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; return 1 when a step failed."""
    parser = argparse.ArgumentParser(prog="make live-auth0", description=__doc__)
    parser.add_argument("--issuer", required=True, help="https://acme.eu.auth0.com/")
    parser.add_argument("--home", required=True, type=Path, help="kept for later runs")
    parser.add_argument("--transcript", type=Path, default=Path("auth0-transcript.txt"))
    parser.add_argument("--credential-fd", type=int)
    parser.add_argument("--without-people", action="store_true")
    given = parser.parse_args(argv)
    home = given.home.expanduser().absolute()
    Home.locate(home).prepare()
    settings = home / "config.toml"
    if not settings.exists():
        settings.write_text(f"[tenant]\nissuer = {json.dumps(given.issuer)}\n")
    try:
        ClientSecretsFile(Home.locate(home), given.issuer)
        credential = (
            from_prompt()
            if given.credential_fd is None
            else from_descriptor(given.credential_fd)
        )
    except AgentVaultError as error:
        print(error.diagnosis(), file=sys.stderr)
        return error.exit_code
    live = Live(home, credential, Transcript(given.transcript))
    provisioned(live)
    if not given.without_people:
        people(live)
    ended = f"failed: {', '.join(live.failed)}" if live.failed else "all of it ran"
    live.transcript.say(f"\n{ended}")
    return 1 if live.failed else 0


if __name__ == "__main__":
    sys.exit(main())
