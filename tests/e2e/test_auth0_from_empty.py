"""docs/auth0.md as it is read: from an empty tenant to an approved payment and its end.

`make live-auth0` itself, on a tenant that is empty and not Auth0's: every step is a
command line that a person types, and the tenant is reached by its wire alone.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from auth0_double.running import TenantThread
from auth0_double.tenant import DoubleRun
from support.command_line import plain_environment
from support.forked import run
from support.patience import PATIENT

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.vault.credentials import VAULT_GRANT

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "live" / "auth0.py"
DOCUMENTED = (TESTS.parent / "docs" / "auth0.md").read_text()
CREDENTIAL = {"client_id": "setup", "client_secret": "the-setup-secret"}
CODE = re.compile(r"and enter +(\S+)")


def documented_scopes() -> set[str]:
    """Return what a reader grants: not what only options need."""
    told = DOCUMENTED.partition("Only with")[0]
    return set(re.findall(r"\b(?:create|read|update|delete):[a-z_]+", told))


@pytest.fixture
def there(short: Path) -> Path:
    """The tenant's own home."""
    made = short / "tenant"
    made.mkdir(0o700)
    return made


@pytest.fixture
def issuer(there: Path) -> Iterator[str]:
    """A tenant on which nobody has set anything up yet."""
    run = DoubleRun("", *CREDENTIAL.values(), documented_scopes())
    running = TenantThread(Home.locate(there), run, clock=SystemClock())
    yield running.issuer
    running.close()


def approver(there: Path, name: str) -> dict[str, str]:
    """Make a user with role and factor, which on Auth0 the Dashboard does."""
    argv = ("--home", str(there), "tenant", "user", "add", name, "--approver", "--json")
    return dict(json.loads(run(*argv, env=plain_environment()).stdout))


def test_every_command_the_page_names_leads_on_to_the_next(
    issuer: str, there: Path, short: Path
) -> None:
    """Two people approve on the pages; the transcript tells it all, and no secret."""
    people = [approver(there, name) for name in ("alice@acme.test", "bob@acme.test")]
    home, transcript = short / "home", short / "transcript.txt"
    transcript.touch(0o644)  # an earlier run's, that anyone may read
    home.mkdir(0o700)
    settings = home / "config.toml"
    settings.write_text(f"[tenant]\nissuer = {json.dumps(issuer)}\nrate = 1000\n")
    ended = run_live(issuer, people, home, transcript)
    told = transcript.read_text()
    assert ended == 0, told
    assert told.endswith("all of it ran\n")
    first, _, rest = told.partition("auth0 apply")
    for made in ("client.console", "client.management"):
        assert f"+ {made} " in first
        assert f"ok: create {made}" in rest
    assert "roles      approver" in told
    assert "approved sup_" in told
    assert '"access_token": "[removed]"' in told
    done = re.findall(r"(?:vault grant|client secret) +confirmed", told)
    assert len(done) == 2
    assert "left alone" in told
    assert re.search(r"^ok: \d+ events", told, re.MULTILINE)
    assert_no_secrets(told, home, people)
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600
    (agent,) = [one for one in applications(issuer) if "agent live" in one["name"]]
    assert VAULT_GRANT not in agent["grant_types"]


def run_live(
    issuer: str, people: list[dict[str, str]], home: Path, transcript: Path
) -> int:
    """Run the script, and approve each code it shows, each by another person."""
    reader, writer = os.pipe()
    os.write(writer, json.dumps(CREDENTIAL).encode())
    os.close(writer)
    line = [
        *(sys.executable, str(SCRIPT), "--issuer", issuer, "--home", str(home)),
        *("--transcript", str(transcript), "--credential-fd", str(reader)),
    ]
    with subprocess.Popen(
        line,
        env=plain_environment(),
        pass_fds=(reader,),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.close(reader)
        assert process.stdout is not None
        for row in process.stdout:
            if (found := CODE.match(row)) is not None:
                approve(issuer, found[1], people.pop())
    return process.returncode


def approve(issuer: str, user_code: str, user: dict[str, str]) -> None:
    """Walk all the pages: code, password, second factor, yes."""
    with Activation() as pages:
        pages.open(issuer, user_code)
        pages.sign_in(user["user"], user["password"])
        pages.one_time_code(pyotp.TOTP(user["otp_secret"]).now())
        pages.confirm()


def assert_no_secrets(told: str, home: Path, people: list[dict[str, str]]) -> None:
    """Neither ours, nor the people's, nor a token or an address of anyone's."""
    (kept,) = (home / "keys").glob("auth0-*.json")
    given = [one.get("client_secret") for one in json.loads(kept.read_text()).values()]
    secrets = [CREDENTIAL["client_secret"], *filter(None, given)]
    assert len(secrets) == 3
    assert not [secret for secret in secrets if secret in told]
    for word in ("av_t_", "av_e_", "av_s_", "@acme.test"):
        assert word not in told


def applications(issuer: str) -> list[dict[str, Any]]:
    """Ask the tenant itself which applications it has."""
    form = {"grant_type": "client_credentials", "audience": f"{issuer}api/v2/"}
    with httpx.Client(base_url=issuer, trust_env=False, timeout=PATIENT) as http:
        token = http.post("oauth/token", data={**form, **CREDENTIAL}).json()
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        found: list[dict[str, Any]] = http.get("api/v2/clients", headers=bearer).json()
        return found
