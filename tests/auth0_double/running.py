"""Runs the double on a real socket in a thread, under a manual clock."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pyotp
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.tenant_store import CHEAP, open_store, open_users, seal_of

from agentvault_tui.clock import Clock
from agentvault_tui.home import Home
from agentvault_tui.settings import StepUpSettings
from agentvault_tui.tenant.device_page_client import Activation
from agentvault_tui.tenant.parts import HOST, Run
from agentvault_tui.tenant.process import LIMITS
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.web import PublicAddress, Server, public_socket, run
from agentvault_tui.web.sockets import tcp_socket
from auth0_double.faults import FaultSwitch
from auth0_double.tenant import DoubleRun, double

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
START = datetime(2026, 11, 24, 10, 0, 0, tzinfo=UTC)
DETAILS = {
    "type": "agentvault:stepup",
    "agent_id": "agt_9x7k2m4q8r5t1v3w",
    "agent_name": "payments-agent",
    "action": "send:payment",
    "resource": "stripe:acct_42",
    "parameters": {"amount": 4200, "currency": "USD"},
    "risk": "high",
    "why": "A payment leaves for good.",
    "fingerprint": "7F3A",
    "requested_at": "2026-11-24T10:00:00Z",
    "requested_on": "ops-1",
}


class TenantThread:
    """One tenant; `stop` and `start` are a restart on the same port."""

    def __init__(
        self,
        home: Home,
        run: Run | None = None,
        now: datetime = START,
        clock: Clock | None = None,
        *,
        public: PublicAddress | None = None,
        settings: StepUpSettings | None = None,
        localhost: bool = False,
    ) -> None:
        self.localhost = localhost
        self.public = public
        self.settings = settings or StepUpSettings()
        self.home = home
        self.clock: Any = clock or ManualClock(now)
        self.port = 0
        self.run = run or DoubleRun()
        self.client_id = self.run.client_id
        self.faults = FaultSwitch(self.clock)
        self.users = open_users(home, clock=self.clock)
        self.http = httpx.Client(trust_env=False, timeout=PATIENT)
        self.browsers: list[httpx.Client] = []
        self.start()

    def browser(self) -> httpx.Client:
        """Return a client with cookies of its own, closed with the tenant."""
        made = httpx.Client(base_url=self.issuer, trust_env=False, timeout=PATIENT)
        self.browsers.append(made)
        return made

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: run(self._main(ready)))
        self._thread.start()
        assert ready.wait(PATIENT)

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        store = open_store(self.home)
        bound = tcp_socket(HOST, self.port)
        self.port = bound.getsockname()[1]
        parts, app, outside = double(
            store,
            seal_of(self.home),
            self.port,
            self.clock,
            self.faults,
            settings=self.settings,
            public=self.public,
            localhost=self.localhost,
            run=replace(self.run, client_id=self.client_id),
            hasher=CHEAP,
        )
        self.issuer = parts.local
        async with Server(self.clock) as server:
            if self.public is not None:
                reached = public_socket(self.public.address, self.public.port)
                tls = self.public.tls(self.clock)
                await server.listen(outside, reached, tls=tls, limits=LIMITS)
            await server.listen(app, bound, limits=LIMITS)
            ready.set()
            await self._stopped.wait()
        store.close()

    def stop(self) -> None:
        self.http.close()
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(PATIENT)
        assert not self._thread.is_alive()

    def restart(self) -> None:
        self.stop()
        self.http = httpx.Client(trust_env=False, timeout=PATIENT)
        self.start()

    def close(self) -> None:
        self.users.close()
        for browser in self.browsers:
            browser.close()
        self.stop()

    def post(self, path: str, **form: str) -> httpx.Response:
        return self.http.post(self.issuer + path, data=form)

    def ask(self, **form: str) -> httpx.Response:
        form = {"client_id": self.client_id, "scope": "openid profile email", **form}
        return self.post("oauth/device/code", **form)

    def flow(self, details: dict[str, Any] | None = DETAILS) -> dict[str, Any]:
        """Start a device flow."""
        extra = {}
        if details is not None:
            extra["authorization_details"] = json.dumps([details])
        answer = self.ask(**extra)
        assert answer.status_code == 200, answer.text
        started: dict[str, Any] = answer.json()
        return started

    def poll(self, flow: dict[str, Any], **form: str) -> httpx.Response:
        base = {"grant_type": GRANT, "client_id": self.client_id}
        return self.post(
            "oauth/token", **{**base, "device_code": flow["device_code"], **form}
        )

    def otp(self, user: NewUser, steps: int = 0) -> str:
        """Return the code the user's app shows, now or some 30-second steps off."""
        return pyotp.TOTP(user.otp_secret).at(self.clock.now(), counter_offset=steps)

    def provider_refresh_token(self, user_id: str) -> str:
        """Return what the vault holds, as a thief of store and key would read it."""
        store = open_store(self.home, checkpoints=False)
        row = store.all(
            "SELECT id, version, sealed FROM connected_accounts WHERE user_id = ?",
            user_id,
        )[0]
        store.close()
        seal = seal_of(self.home)
        raw = seal.open("provider tokens", row["id"], row["version"], row["sealed"])
        token: str = json.loads(raw)["refresh_token"]
        return token

    def approve(self, flow: dict[str, Any], user: NewUser) -> None:
        """Walk all the pages."""
        with Activation() as pages:
            pages.open(self.issuer, flow["user_code"])
            pages.sign_in(user.user.name, user.password)
            pages.one_time_code(self.otp(user))
            pages.confirm()
