"""npm's oidc-provider as the tenant, and people with browsers on its pages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self

import httpx
from support.peers import INTEROP, NODE, with_node

from agentvault_tui.tenant.page_reader import read_page

URSULA = "auth0|ursula"
FACTORS = ("pwd", "mfa")

with_provider = with_node("oidc-provider")


class Provider:
    """A provider that runs, and what only its tests may tell it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer: str = self._says()["issuer"]
        self.http = httpx.Client(base_url=self.issuer, trust_env=False, timeout=20)

    def tell(self, what: str, **form: str) -> Any:
        """Have it do one of its tests' own things; return what it says."""
        answer = self.http.post(what, data=form)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def asked(self, path: str) -> int:
        """Count the requests for *path* until now."""
        return int(self.tell("asked").get(path, 0))

    def down(self) -> None:
        """Stop listening, and cut whoever is connected."""
        self._ordered("down")

    def up(self) -> None:
        """Listen again, at the same address."""
        self._ordered("up")

    def _ordered(self, order: str) -> None:
        assert self._process.stdin is not None
        print(order, file=self._process.stdin, flush=True)
        assert self._says() == order

    def _says(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def oidc_provider(
    *, interval: int | None = None, keys: list[dict[str, Any]] | None = None
) -> Iterator[Provider]:
    """Run a provider of one's own.

    Args:
        interval: seconds between polls, which its device flow names and keeps to; else
            it does neither.
        keys: to sign with, the first of them; else one of its own.
    """
    chosen = {"interval": interval, "keys": keys}
    given = {name: value for name, value in chosen.items() if value is not None}
    with subprocess.Popen(
        [str(NODE), str(INTEROP / "oidc_provider.mjs"), json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
        text=True,
    ) as process:
        try:
            provider = Provider(process)
            with provider.http:
                yield provider
        finally:
            process.kill()


class Shown(Protocol):
    """What of a device flow a person is shown."""

    @property
    def user_code(self) -> str:
        """What they enter."""
        ...

    @property
    def verification_uri(self) -> str:
        """Where they enter it."""
        ...


class Person:
    """A browser of its own, on the provider's pages."""

    def __init__(self, issuer: str) -> None:
        self.http = httpx.AsyncClient(base_url=issuer, trust_env=False, timeout=20)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def answer(self, flow: Shown, **press: str) -> httpx.Response:
        """Open the address we show, enter the code, and press a button."""
        page = await self.http.get(flow.verification_uri)
        form = read_page(page.text).forms["op.deviceInputForm"]
        fields = {**form.fields, "user_code": flow.user_code, **press}
        return await self.http.post(form.action, data=fields)

    async def approve(
        self,
        flow: Shown,
        *amr: str,
        account: str = URSULA,
        roles: Sequence[str] = ("approver",),
    ) -> None:
        """Sign in as *account* with these factors, and confirm."""
        login = await self.answer(flow, confirm="yes")
        done = await self._signed_in(login, amr, account, roles)
        assert "Sign-in Success" in done.text

    async def approve_again(self, flow: Shown) -> None:
        """Confirm as whoever this browser is still signed in as."""
        done = await self.answer(flow, confirm="yes")
        assert "Sign-in Success" in done.text

    async def sign_in(self, page: str, *amr: str, account: str = URSULA) -> str:
        """Sign in at an application's page; return where the browser ended."""
        login = await self.http.get(page)
        done = await self._signed_in(login, amr, account, ())
        return done.headers["location"]

    async def _signed_in(
        self,
        login: httpx.Response,
        amr: tuple[str, ...],
        account: str,
        roles: Sequence[str],
    ) -> httpx.Response:
        """Say who it is on the page that *login* leads to; return the one after."""
        form = {"account": account, "amr": list(amr or FACTORS), "role": list(roles)}
        back = await self.http.post(login.headers["location"], data=form)
        return await self.http.get(back.headers["location"])
