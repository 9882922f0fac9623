"""npm's oidc-provider as the tenant, and people with browsers on its pages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

import httpx
from support.patience import PATIENT
from support.peers import INTEROP, NODE, with_node

from agentvault_tui.tenant.device_page_client import read_page
from agentvault_tui.vault import (
    RegisteredClient,
    Secret,
    Tenant,
    begin_sign_in,
    finish_sign_in,
)
from agentvault_tui.vault.credentials import VAULT_GRANT

URSULA = "auth0|ursula"
FACTORS = ("pwd", "mfa")
CALENDAR = "https://www.googleapis.com/auth/calendar"
BACK = "http://127.0.0.1:7719/callback"
"""Where applications have browsers end; nothing listens there."""

with_provider = with_node("oidc-provider")


class Provider:
    """A provider that runs, and what only its tests may tell it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer: str = self._says()["issuer"]
        # A connection kept would be one that `down` cut.
        one_each = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(
            base_url=self.issuer, trust_env=False, timeout=PATIENT, limits=one_each
        )

    def tell(self, what: str, **form: str) -> Any:
        """Have it do one of its tests' own things; return what it says."""
        answer = self.http.post(what, data=form)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def register(self, **metadata: Any) -> dict[str, Any]:
        """Register an agent's application (RFC 7591), which may use Token Vault."""
        asked = {
            "grant_types": ["authorization_code", "refresh_token", VAULT_GRANT],
            "redirect_uris": [BACK],
            "token_endpoint_auth_method": "client_secret_post",
            **metadata,
        }
        answer = self.http.post("oidc/register", json=asked)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def asked(self, path: str) -> int:
        """Count the requests for *path* until now."""
        return int(self.tell("asked").get(path, 0))

    def down(self) -> None:
        """Stop listening, and cut whoever is connected."""
        self._ordered("down")

    def up(self) -> None:
        """Listen again, at the same address."""
        self._ordered("up")

    def ahead(self, seconds: float) -> None:
        """Let its clock be before the machine's by so much."""
        self._ordered("ahead", str(seconds))

    def _ordered(self, *order: str) -> None:
        assert self._process.stdin is not None
        print(*order, file=self._process.stdin, flush=True)
        assert self._says() == order[0]

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


async def signed_in_at(
    tenant: Tenant, credential: RegisteredClient, account: str = URSULA
) -> Secret:
    """Have *account* sign in at an application; return the refresh token it got."""
    begun = await begin_sign_in(tenant, credential.client_id, BACK)
    async with Person(tenant.issuer) as person:
        code, state = query_of(await person.sign_in(begun.page, account))
    found = await finish_sign_in(tenant, credential, begun, code=code, state=state)
    return found.refresh_token


def query_of(address: str) -> tuple[str, str]:
    """Return code and state of the address at which a sign-in ended."""
    assert address.startswith(BACK)
    query = parse_qs(urlsplit(address).query)
    return query["code"][0], query["state"][0]


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
        self.http = httpx.AsyncClient(base_url=issuer, trust_env=False, timeout=PATIENT)

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
        said = {"account": account, "amr": list(amr or FACTORS), "role": list(roles)}
        await self._confirm(flow, said)

    async def approve_again(self, flow: Shown) -> None:
        """Confirm as whoever is still signed in in this browser."""
        await self._confirm(flow, {})

    async def sign_in(self, page: str, account: str = URSULA) -> str:
        """Sign in at an application's page; return where the browser ended."""
        said = {"account": account, "amr": list(FACTORS)}
        done = await self._say(await self.http.get(page), said)
        return done.headers["location"]

    async def _confirm(self, flow: Shown, said: dict[str, Any]) -> None:
        done = await self._say(await self.answer(flow, confirm="yes"), said)
        assert "Sign-in Success" in done.text

    async def _say(self, asked: httpx.Response, said: dict[str, Any]) -> httpx.Response:
        """Answer the page that *asked* leads to; return the one after."""
        back = await self.http.post(asked.headers["location"], data=said)
        return await self.http.get(back.headers["location"])
