"""The embedded tenant under the broker: killed and started again, it is the same."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pyotp
import pytest
from auth0_double.running import DETAILS
from support.patience import PATIENT
from support.ports import bind_error

from agentvault_tui import process as process_module
from agentvault_tui.broker.tenant_process import (
    Announcement,
    TenantProcess,
    team_client_id,
)
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.home import Home, put_private
from agentvault_tui.process import start_tenant
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.users import UserStore
from agentvault_tui.vault import FlowTokens, TenantClient


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home")


@pytest.fixture
async def process(home: Home) -> AsyncIterator[TenantProcess]:
    process = TenantProcess(home)
    yield process
    await process.stop()


def pid(process: TenantProcess) -> int:
    assert process._child is not None
    return process._child.process.pid


async def kill(process: TenantProcess) -> int:
    """Kill the child; return once it is gone, well before its successor is there."""
    killed = pid(process)
    os.kill(killed, signal.SIGKILL)
    await process._ended.wait()
    return killed


def bind_errors(found: Announcement) -> set[int | None]:
    """Try to take the tenant's port as another program would; return the errnos."""
    port = urlsplit(found.issuer).port or 0
    return {bind_error(host, port) for host in ("127.0.0.1", "::1")}


@pytest.mark.slow
async def test_nobody_takes_its_port_while_it_is_started_again(
    process: TenantProcess,
) -> None:
    """Killed, its port stays ours, and who asks meanwhile is answered by the next."""
    found = await process.start()
    client = TenantClient(found.issuer, found.client_id, SystemClock(), timeout=PATIENT)
    first = await kill(process)
    assert bind_errors(found) == {errno.EADDRINUSE}
    assert await client.probe()  # waits for the successor
    assert pid(process) != first
    await kill(process)
    assert bind_errors(found) == {errno.EADDRINUSE}
    assert await client.probe()
    await client.aclose()
    await process.stop()
    assert bind_errors(found) == {None}


@pytest.mark.slow
async def test_an_approval_under_way_outlives_the_tenant(
    process: TenantProcess, home: Home
) -> None:
    """The code of a killed tenant is approved at its successor, by the same client."""
    found = await process.start()
    client = TenantClient(found.issuer, found.client_id, SystemClock(), timeout=PATIENT)
    flow = await client.start_device_flow(authorization_details=[DETAILS], ttl=120)
    await kill(process)
    with UserStore(home, Settings()) as users:
        ann = users.add("ann", approver=True)

    def approve() -> None:
        with Activation() as pages:
            pages.open(found.issuer, flow.user_code)
            pages.sign_in("ann", ann.password)
            pages.one_time_code(pyotp.TOTP(ann.otp_secret).now())
            pages.confirm()

    await asyncio.to_thread(approve)
    assert isinstance(await client.poll_once(flow), FlowTokens)
    await client.aclose()


@pytest.mark.slow
async def test_a_team_key_that_changed_gives_a_running_tenant_another_client(
    process: TenantProcess, home: Home
) -> None:
    """It goes on with the client that follows from the new key, and with no other."""
    found = await process.start()
    clock = SystemClock()
    client = TenantClient(found.issuer, found.client_id, clock, timeout=PATIENT)
    before = TenantClient(found.issuer, found.client_id, clock, timeout=PATIENT)
    first = pid(process)
    put_private(home.team_key, bytes(range(32)), replace=False)
    await process.follow_key(client)
    assert client.client_id == team_client_id(home) != found.client_id
    assert (await client.start_device_flow(ttl=120)).user_code
    assert pid(process) == first
    with pytest.raises(TenantError):
        await before.start_device_flow(ttl=120)
    await process.follow_key(client)
    await kill(process)
    assert await client.probe()  # waits for the successor, which is the same client
    assert (await client.start_device_flow(ttl=120)).user_code
    for one in (client, before):
        await one.aclose()


@pytest.mark.slow
async def test_the_client_id_is_of_one_run(home: Home) -> None:
    """Each broker has its own, and it stands in no file."""
    seen = set()
    for _ in range(2):
        process = TenantProcess(home)
        found = await process.start()
        seen.add(found.client_id)
        for path in home.data.rglob("*"):
            if path.is_file():
                assert found.client_id.encode() not in path.read_bytes()
        await process.stop()
    assert len(seen) == 2


@pytest.mark.slow
async def test_a_child_that_is_not_told_touches_nothing(home: Home) -> None:
    """It is started before the home's lock is taken: another broker may have it."""
    child = start_tenant(home)
    child.close()
    assert await asyncio.to_thread(child.process.wait, PATIENT) == 0
    assert child.process.stdout is not None
    assert child.process.stdout.read() == b""
    child.close()
    assert not home.data.exists()


@pytest.mark.slow
async def test_a_child_that_was_started_before_is_the_tenant(home: Home) -> None:
    """It takes no second process, and its successor is the same tenant."""
    child = start_tenant(home)
    process = TenantProcess(home, child)
    found = await process.start()
    assert pid(process) == child.process.pid
    await kill(process)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENT) as http:
        path = f"{found.issuer}.well-known/openid-configuration"
        assert (await http.get(path)).json()["issuer"] == found.issuer
    await process.stop()


async def test_a_tenant_that_does_not_start_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before it was ready, the broker says so and leaves nothing behind."""
    monkeypatch.setattr(process_module.sys, "executable", "/bin/false")
    process = TenantProcess(home)
    with pytest.raises(TenantUnreachableError, match="did not start"):
        await process.start()
    await process.stop()


@pytest.mark.slow
async def test_the_broker_can_manage_it(home: Home) -> None:
    """With a credential of this run, which no file, argument or environment has."""
    process = TenantProcess(home)
    found = await process.start()
    assert found.management is not None
    secret = found.management.secret.reveal()
    async with httpx.AsyncClient(
        base_url=found.issuer, trust_env=False, timeout=PATIENT
    ) as http:
        said = await http.post("oauth/token", data=_management(found))
        token = said.json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        answer = await http.get("api/v2/roles/viewer/users", headers=headers)
        assert (answer.status_code, answer.json()) == (200, [])
        await kill(process)
        # The successor knows the same credential, and so the same broker.
        again = await http.post("oauth/token", data=_management(found))
        assert again.status_code == 200
    assert secret.encode() not in arguments(pid(process))
    for path in home.data.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
    assert secret not in repr(found)
    await process.stop()


def arguments(pid: int) -> bytes:
    """Return a process's arguments; nothing where there is no /proc."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes() if path.exists() else b""


def _management(found: Announcement) -> dict[str, str]:
    assert found.management is not None
    return {
        "grant_type": "client_credentials",
        "audience": f"{found.issuer}api/v2/",
        "client_id": found.management.client_id,
        "client_secret": found.management.secret.reveal(),
    }
