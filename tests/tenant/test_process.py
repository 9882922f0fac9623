"""The tenant as `serve` runs it: a process of its own, reached over HTTP alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from auth0_double.running import DETAILS
from support.patience import PATIENT
from support.postgres import TEAM, Database
from support.tenant_store import open_users, share

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.vault import FlowTokens, TenantClient, is_approver


class Running:
    """A tenant process that said it is ready."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "agentvault_tui.tenant",
                "--home",
                str(home.data),
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=0,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.ready: dict[str, Any] = json.loads(line)
        self.issuer: str = self.ready["issuer"]

    def end(self, how: str = "eof") -> tuple[int, str]:
        """End it by closing its stdin or by a signal; return code and log."""
        if how != "eof":
            self.process.send_signal(getattr(signal, how))
        log = self.process.communicate(timeout=PATIENT)[1]
        return self.process.returncode, log


@contextmanager
def running(home: Home, *arguments: str) -> Iterator[Running]:
    tenant = Running(home, *arguments)
    try:
        yield tenant
    finally:
        if tenant.process.poll() is None:
            tenant.process.kill()
        tenant.process.communicate()


def add(home: Home, name: str) -> NewUser:
    """Add a user as the CLI does: from another process than the tenant's."""
    with open_users(home) as users:
        return users.add(name, approver=True)


def approve(issuer: str, user_code: str, user: NewUser) -> None:
    with Activation() as pages:
        pages.open(issuer, user_code)
        pages.sign_in(user.user.name, user.password)
        pages.one_time_code(pyotp.TOTP(user.otp_secret).now())
        pages.confirm()


@pytest.mark.slow
async def test_the_brokers_client_signs_in_at_the_process(home: Home) -> None:
    """The broker's own client starts, polls and verifies with nothing special."""
    with running(home) as tenant:
        ann = add(home, "ann@acme.test")
        began = datetime.now(UTC)
        client = TenantClient(tenant.issuer, tenant.ready["client_id"], SystemClock())
        flow = await client.start_device_flow(authorization_details=[DETAILS], ttl=120)
        assert (flow.expires_in, flow.interval) == (120, 1)
        await asyncio.to_thread(approve, tenant.issuer, flow.user_code, ann)
        answer = await client.poll_once(flow)
        assert isinstance(answer, FlowTokens)
        person = await client.verify_id_token(answer.id_token, not_before=began)
        await client.aclose()
        assert person.sub == ann.user.sub
        assert {"mfa", "pwd", "otp"} == set(person.amr)
        assert is_approver(person, ())
        assert is_approver(person, ("ann@acme.test",))
        code, log = tenant.end()
    assert code == 0
    _no_secrets(log, ann, flow.device_code, flow.user_code, answer.id_token)


def _no_secrets(log: str, user: NewUser, *secrets: str) -> None:
    lines = [json.loads(line) for line in log.splitlines()]
    messages = "\n".join(line["message"] for line in lines)
    for message in ("tenant started", "device code issued", "device code confirmed"):
        assert message in messages
    for secret in (user.password, user.otp_secret, *secrets):
        assert secret not in log


@pytest.mark.slow
def test_a_restart_keeps_port_keys_and_users(home: Home) -> None:
    """Port, keys and users are there again after SIGTERM."""
    with running(home) as tenant:
        ready = tenant.ready
        jwks = _get(ready["issuer"] + ".well-known/jwks.json")
        ann = add(home, "ann")
        assert tenant.end("SIGTERM")[0] == 0
    with running(home) as tenant:
        assert tenant.ready["issuer"] == ready["issuer"]
        # The client is the parent's, of one run of it: see tests/broker.
        assert tenant.ready["client_id"] != ready["client_id"]
        assert tenant.ready["pid"] == tenant.process.pid
        assert _get(ready["issuer"] + ".well-known/jwks.json") == jwks
        with open_users(home) as users:
            assert [user.sub for user in users.all()] == [ann.user.sub]
        assert tenant.end("SIGINT")[0] == 0


def _get(url: str) -> Any:
    return httpx.get(url, trust_env=False, timeout=PATIENT).json()


@pytest.mark.slow
def test_the_process_makes_private_files_under_any_umask(home: Home) -> None:
    """Everything the process makes is 0700 or 0600, whatever it inherited."""
    with running(home) as tenant:
        for path in home.data.rglob("*"):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
        assert tenant.end()[0] == 0


@pytest.mark.slow
def test_a_team_tenant_starts_while_its_store_is_away(
    tmp_path: Path, own_store: Database
) -> None:
    """It says that it is ready, answers 503, and serves once the store is there."""
    home = Home.locate(tmp_path / "home")
    share(home, own_store)
    home.config_file.write_text(
        f'[store]\nurl = "{own_store.url}"\n[team]\nname = "{TEAM}"\n'
    )
    own_store.cluster.stop()
    with running(home) as tenant:
        url = tenant.issuer + ".well-known/jwks.json"
        answer = httpx.get(url, trust_env=False, timeout=PATIENT)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        own_store.cluster.start()
        ends = time.monotonic() + PATIENT
        while (answer := httpx.get(url, trust_env=False)).status_code == 503:
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert len(answer.json()["keys"]) == 2
        code, log = tenant.end()
    assert code == 0
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_taken_port_is_replaced_and_logged(home: Home) -> None:
    """When last time's port is someone else's, another is taken and logged."""
    with running(home) as tenant:
        port = int(tenant.issuer.rstrip("/").rpartition(":")[2])
        tenant.end()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with running(home) as tenant:
            assert tenant.ready["issuer"] != f"http://127.0.0.1:{port}/"
            assert "the port of last time is taken" in tenant.end()[1]


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentvault_tui.tenant", *arguments],
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
        env={**os.environ, **environ},
    )


@pytest.mark.slow
def test_a_second_tenant_on_a_home_stops(home: Home) -> None:
    """A second process on the same home waits a little, then says why it stops."""
    with running(home) as tenant:
        second = _run("--home", str(home.data))
        assert second.returncode == 1
        assert "already" in second.stderr
        assert tenant.process.poll() is None


@pytest.mark.slow
def test_bad_options_exit_2_with_one_line(home: Home) -> None:
    """Wrong options and settings end with code 2 and no traceback."""
    for answer in (
        _run("--home", str(home.data), "--parent-fd", "x"),
        _run("--home", str(home.data), "--parent-fd", "0"),
        _run("--home", str(home.data), AGENTVAULT_LOG_LEVEL="LOUD"),
        _run("--home", str(home.data), AGENTVAULT_STEPUP_DEVICE_CODE_TTL="5000"),
    ):
        assert answer.returncode == 2
        assert answer.stdout == ""
        assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_the_process_ends_with_its_parent(home: Home) -> None:
    """When whoever started it is killed, stdin ends and so does the tenant."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'agentvault_tui.tenant',"
        " '--home', sys.argv[1]], stdin=subprocess.PIPE)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(home.data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout
    assert json.loads(parent.stdout.readline())["pid"]
    parent.kill()
    # Its end of the pipe closes when the tenant has ended.
    assert parent.stdout.read() == ""
    parent.communicate()
