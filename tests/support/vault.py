"""A real vault: `agentvault serve` as a process, and clients for both of its faces."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest
from support.command_line import plain_environment
from support.forked import Forked, run
from support.patience import PATIENT

from agentvault_tui.tenant.device_page_client import Activation, read_page

PAYMENT = {
    "type": "agentvault:action",
    "action": "send:payment",
    "resource": "stripe:acct_42",
    "parameters": {"amount": 4200, "currency": "USD"},
    "reason": "Invoice 1881",
}
NOWHERE = {
    "AGENTVAULT_TENANT_ISSUER": "http://127.0.0.1:9/",
    "AGENTVAULT_TENANT_CLIENT_ID": "console",
}
CIBA = "urn:openid:params:grant-type:ciba"


class Client:
    """One registered OAuth client."""

    def __init__(self, url: str, client_id: str, secret: str) -> None:
        self.id, self.secret = client_id, secret
        self.agent_id = ""
        self.http = httpx.Client(
            base_url=url, auth=(client_id, secret), trust_env=False, timeout=PATIENT
        )

    def token(self, scope: str, *details: dict[str, Any]) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": scope}
        if details:
            form["authorization_details"] = json.dumps(details)
        return self.http.post("/oauth/token", data=form)

    def poll(self, auth_req_id: str) -> httpx.Response:
        form = {"grant_type": CIBA, "auth_req_id": auth_req_id}
        return self.http.post("/oauth/token", data=form)

    def introspect(self, token: str) -> dict[str, Any]:
        answer = self.http.post("/oauth/introspect", data={"token": token})
        return dict(answer.json())


class Vault:
    """A running broker and its home."""

    def __init__(self, home: Path, process: Forked) -> None:
        self.home, self.process = home, process
        self.ready: dict[str, Any] = json.loads(process.stdout.readline())
        self.operator = httpx.Client(
            transport=httpx.HTTPTransport(uds=self.ready["operator_socket"]),
            base_url="http://broker",
            timeout=PATIENT,
        )
        self._clients: list[Client] = []

    def register(self, name: str, *scopes: str, **more: Any) -> Client:
        body = {"name": name, "owner": "olga", "scopes": list(scopes), **more}
        answer = self.operator.post("/api/agents", json=body)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        client = Client(
            self.ready["agents_url"], made["client_id"], made["client_secret"]
        )
        client.agent_id = made["id"]
        self._clients.append(client)
        return client

    def again(self, client: Client) -> Client:
        """Return *client*, speaking to this broker after a restart."""
        auth = client.http.auth
        client.http.close()
        client.http = httpx.Client(
            base_url=self.ready["agents_url"],
            auth=auth,
            trust_env=False,
            timeout=PATIENT,
        )
        self._clients.append(client)
        return client

    def approver(self, name: str) -> dict[str, str]:
        argv = ("tenant", "user", "add", name, "--approver", "--json")
        return dict(json.loads(self.cli(*argv).stdout))

    def cli(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return run("--home", str(self.home), *argv, env=plain_environment())

    def activate(self, device: dict[str, Any], user: dict[str, str]) -> None:
        """Be the person: open the page, sign in, give the code, confirm."""
        with Activation() as page:
            page.open(self.ready["tenant"], device["user_code"])
            page.sign_in(user["user"], user["password"])
            page.one_time_code(fresh_code(user))
            page.confirm()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.operator.close()
        for client in self._clients:
            client.http.close()


def fresh_code(user: dict[str, str]) -> str:
    """Return a one-time code not used before, accepted for 15 s to come at least.

    The tenant accepts the step before, the present one and the next (RFC 6238 section
    5.2), so the step before is only taken while the present one is young.
    """
    last = int(user.get("otp_step", 0))
    while (
        step := max(int(time.time() + 15) // 30 - 1, last + 1)
    ) > time.time() // 30 + 1:
        time.sleep(0.2)  # until the app shows another
    user["otp_step"] = str(step)
    return pyotp.TOTP(user["otp_secret"]).generate_otp(step)


def consent(page: str, user: dict[str, str]) -> str:
    """Sign in and say yes, as a person does; return where the browser is sent."""
    parts = urlsplit(page)
    origin = f"{parts.scheme}://{parts.netloc}"
    with httpx.Client(base_url=origin, trust_env=False, timeout=PATIENT) as browser:
        last = browser.get(page)
        fields = {"user": user["user"], "password": user["password"]}
        for form, given in (("login", fields), ("consent", {})):
            found = read_page(last.text).forms[form]
            last = browser.post(
                found.action, data={**found.fields, **given}, headers={"origin": origin}
            )
        return str(last.headers["location"])


@contextmanager
def serving(
    home: Path, room: int | None = None, *, tenant: bool = True, **env: str
) -> Iterator[Vault]:
    """Run `agentvault serve` on *home* and leave nothing of it behind.

    With *room* no file of it may have more bytes, from its start on. Without a *tenant*
    it asks one that never answers: each start is a process less.
    """
    if not tenant:
        env = {**NOWHERE, **env}
    argv = ("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    with Forked(argv, plain_environment(**env), room) as process:
        vault = Vault(home, process)
        try:
            yield vault
        finally:
            vault.close()
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENT)


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """One for all tests of a module that has no other."""
    with tempfile.TemporaryDirectory(prefix="h-") as home, serving(Path(home)) as vault:
        yield vault
