"""npm's oidc-provider as the tenant, and people with browsers on its pages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Self

import httpx
from support.peers import INTEROP, NODE, with_node

from agentvault_tui.tenant.page_reader import read_page

URSULA = "auth0|ursula"
FACTORS = ("pwd", "mfa")

with_provider = with_node("oidc-provider")


@contextmanager
def oidc_provider(*, interval: int | None = None) -> Iterator[str]:
    """Run a provider of one's own and yield its issuer.

    Args:
        interval: seconds between polls, as its device flow says; else it says none.
    """
    named = [] if interval is None else [str(interval)]
    with subprocess.Popen(
        [str(NODE), str(INTEROP / "oidc_provider.mjs"), *named],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["issuer"]
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

    async def approve(self, flow: Shown, *amr: str, account: str = URSULA) -> None:
        """Sign in as *account* with these factors, and confirm."""
        login = (await self.answer(flow, confirm="yes")).headers["location"]
        form = {"account": account, "amr": list(amr or FACTORS)}
        back = await self.http.post(login, data=form)
        done = await self.http.get(back.headers["location"])
        assert "Sign-in Success" in done.text
