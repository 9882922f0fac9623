"""Headless Chromium with a virtual authenticator, over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.needs import needs
from support.patience import PATIENT

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = needs(PROGRAM, "Chromium", "apt-get install chromium")
PASSKEYS = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Tab:
    """One page, of a phone's size."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = ""
        self.requested: list[str] = []
        """Every URL that a page asked for."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol; return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        while True:
            told = json.loads((await self._socket.receive(PATIENT)).data)
            if told.get("method") == "Network.requestWillBeSent":
                self.requested.append(told["params"]["request"]["url"])
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])

    async def begin(self, width: int) -> None:
        """Open a tab that is *width* pixels wide, with an authenticator."""
        made = await self.call("Target.createTarget", url="about:blank")
        target = {"targetId": made["targetId"], "flatten": True}
        attached = await self.call("Target.attachToTarget", **target)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "WebAuthn"):
            await self.call(f"{domain}.enable")
        await self.call("WebAuthn.addVirtualAuthenticator", options=PASSKEYS)
        await self.resize(width)

    async def resize(self, width: int) -> None:
        """Be a phone of *width* pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=700,
            deviceScaleFactor=2,
            mobile=True,
        )

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """Return what *script* evaluates to."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
        return (await self.call("Runtime.evaluate", **asked))["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until *script* is true on whatever page is there; return its value."""
        async with asyncio.timeout(PATIENT):
            while True:
                # A page may go while it is asked: then the next one is.
                with contextlib.suppress(AssertionError):
                    if found := await self.run(script):
                        return found
                await asyncio.sleep(0.02)

    async def step(self, name: str) -> None:
        """Wait for the page of that step."""
        await self.until(
            "document.readyState == 'complete' &&"
            f" document.querySelector('main')?.dataset.step == '{name}'"
        )

    async def press(self, form: str) -> None:
        """Press the button of a form, as a finger does."""
        await self.run(f"document.querySelector('#{form} input[type=submit]').click()")

    async def type(self, **fields: str) -> None:
        """Fill fields by their names."""
        for name, value in fields.items():
            await self.run(f"document.getElementsByName({name!r})[0].value = {value!r}")


def public_key_pin(certificate: Path) -> str:
    """Return what makes Chromium trust *certificate*: its key's SHA-256."""
    read = x509.load_pem_x509_certificate(certificate.read_bytes())
    key = read.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


@asynccontextmanager
async def chromium(
    folder: Path, host: str = "", certificate: Path | None = None
) -> AsyncIterator[Tab]:
    """Run Chromium; *host* is this machine, and *certificate* is trusted."""
    # It leaves files where temporary ones are, and a socket, whose path is to be short.
    temporary = await asyncio.to_thread(tempfile.mkdtemp, prefix="c-")
    process = await asyncio.to_thread(_start, folder, temporary, host, certificate)
    try:
        where = await asyncio.to_thread(_devtools, process)
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(where, max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            yield tab
            tab._session = ""
            await tab.call("Browser.close")
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)


def _start(
    folder: Path, temporary: str, host: str, certificate: Path | None
) -> subprocess.Popen[str]:
    assert PROGRAM is not None
    trusted = []
    if certificate is not None:
        pin = public_key_pin(certificate)
        trusted = [
            f"--host-resolver-rules=MAP {host} 127.0.0.1",
            f"--ignore-certificate-errors-spki-list={pin}",
        ]
    # Without a sandbox: it opens our own pages alone, also where a container has none.
    return subprocess.Popen(
        [
            *(PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--no-first-run", "--remote-debugging-port=0", "about:blank"),
            f"--user-data-dir={folder}",
            *trusted,
        ],
        env={**os.environ, "TMPDIR": temporary},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _devtools(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if "DevTools listening on " in line:
            return line.partition(" on ")[2].strip()
    raise AssertionError("Chromium did not start")
