"""A phone's browser without a screen: it finds the tenant's host and keeps cookies."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from datetime import UTC, datetime
from html import unescape
from typing import Any, Self

import httpx
from support.patience import PATIENT

from agentvault_tui.home import Home
from agentvault_tui.settings import TenantSettings
from agentvault_tui.tenant.device_page_client import TenantPage, read_page
from agentvault_tui.web import PublicAddress
from agentvault_tui.web.local_ca import CaFiles, renew

HOST = "ops.example"
_OPTIONS = re.compile(r'<form id="([a-z-]+)"[^>]* data-options="([^"]*)"')


def public_settings(home: Home, now: datetime | None = None) -> TenantSettings:
    """Make a certificate for `HOST`, and the settings of a listener on a free port."""
    renew(home, [HOST], now=now or datetime.now(UTC))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return TenantSettings(
        listen=f"127.0.0.1:{port}",
        url=f"https://{HOST}:{port}/",
        tls_cert="keys/tls-cert.pem",
        tls_key="keys/tls-key.pem",
    )


def public_address(home: Home, now: datetime) -> PublicAddress:
    """Return where a tenant of *home* listens for phones."""
    found = PublicAddress.of(home, public_settings(home, now))
    assert found is not None
    return found


class Phone:
    """Opens pages at the tenant's URL, and sends their forms."""

    def __init__(self, home: Home, url: str) -> None:
        self.url = url
        self.netloc = url.split("/")[2]
        self.port = int(url.rstrip("/").rpartition(":")[2])
        trust = ssl.create_default_context(cafile=CaFiles.of(home).ca)
        # Tests set the clock: whether a certificate has lapsed is not this client's.
        trust.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME
        self.http = httpx.Client(verify=trust, trust_env=False, timeout=PATIENT)
        self.cookies: dict[str, str] = {}
        self.answer: httpx.Response

    @classmethod
    def at_desk(cls, url: str) -> Self:
        """Return a browser of the broker's own machine, for its `http://localhost`."""
        browser = cls.__new__(cls)
        browser.url, browser.netloc = url, url.split("/")[2]
        browser.port, browser.cookies = int(browser.netloc.partition(":")[2]), {}
        browser.http = httpx.Client(trust_env=False, timeout=PATIENT)
        return browser

    def get(self, path: str, host: str | None = None) -> httpx.Response:
        """Ask for *path* as a browser does that opened the tenant's URL."""
        return self._ask("GET", path, host=host)

    def open(self, path: str) -> TenantPage:
        """Open a page, and follow where it leads."""
        self.get(path)
        return self._page()

    def until(self, path: str, word: str) -> None:
        """Open a page again until it has *word*, which follows in a moment."""
        ends = time.monotonic() + PATIENT
        self.open(path)
        while word not in self.answer.text:
            assert time.monotonic() < ends, self.answer.text
            time.sleep(0.05)
            self.open(path)

    def send(self, form: str, *, to: str | None = None, **fields: str) -> TenantPage:
        """Send a form of the open page, or *to* elsewhere; follow where it leads."""
        found = read_page(self.answer.text).forms[form]
        data = {**found.fields, **fields}
        self._ask("POST", to or found.action.removeprefix("/"), data=data)
        return self._page()

    def options(self, form: str) -> dict[str, Any]:
        """Return what a form of the open page asks of a passkey."""
        found = dict(_OPTIONS.findall(self.answer.text))
        asked: dict[str, Any] = json.loads(unescape(found[form]))
        return asked

    def forget(self) -> None:
        """Be another browser."""
        self.cookies = {}

    def _page(self) -> TenantPage:
        while self.answer.status_code == 303:
            self.get(self.answer.headers["location"].removeprefix("/"))
        return read_page(self.answer.text)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        host: str | None = None,
        data: dict[str, str] | None = None,
    ) -> httpx.Response:
        headers = {"host": host or self.netloc}
        if method == "POST":
            headers["origin"] = self.url.rstrip("/")
        if self.cookies:
            headers["cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        self.answer = self.http.request(
            method,
            f"{self.url.partition(':')[0]}://127.0.0.1:{self.port}/{path}",
            headers=headers,
            data=data,
            extensions={"sni_hostname": HOST},
        )
        self.cookies.update(self.answer.cookies.items())
        self.http.cookies.clear()
        return self.answer
