"""A service behind the gateway of a broker: its file, its upstream, and a token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support.load import connect
from support.vault import AGENTVAULT, Client, Vault

SCOPE, READS = "write:calendar", "read:calendar"
_SERVICE = """
origin = "{origin}"
{more}
allow_private = true
[credential]
kind = "bearer"
secret = "bench"
[[routes]]
method = "POST"
path = "/events/{{id}}"
scope = "write:calendar"
resource = "calendar:{{id}}"
[routes.parameters]
count = "body:/count"
[[routes]]
method = "POST"
path = "/parts/{{id}}"
scope = "write:calendar"
resource = "calendar:{{id}}"
body = "multipart"
[routes.parameters]
count = "body:/count"
[[routes]]
method = "GET"
path = "/bytes/{{n}}"
scope = "read:calendar"
[[routes]]
method = "GET"
path = "/noise/{{n}}"
scope = "read:calendar"
"""
_LINE = [sys.executable, str(Path(__file__).with_name("upstream.py"))]


@contextlib.contextmanager
def upstream(*certificate: Path) -> Iterator[int]:
    """Run the upstream in a process of its own; yield its port.

    Args:
        certificate: files of a certificate and its key, if it is to speak TLS.
    """
    line = [*_LINE, *map(str, certificate)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def set_up(ours: Vault, port: int) -> None:
    """Give the broker the service ``bench``, and its secret."""
    add_service(ours, "bench", f"http://127.0.0.1:{port}", "allow_http = true")
    subprocess.run(
        [*AGENTVAULT, "--home", str(ours.home), "secrets", "set", "bench"],
        input="sk_live_0123456789abcdefghijklmnop",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def add_service(ours: Vault, name: str, origin: str, *more: str) -> None:
    """Write a service's file, with *more* lines at its top."""
    (ours.home / "services").mkdir(exist_ok=True)
    text = service_file(origin, *more)
    (ours.home / "services" / f"{name}.toml").write_text(text)


def service_file(origin: str, *more: str) -> str:
    """Return the text of a service's file, with *more* lines at its top."""
    return _SERVICE.format(origin=origin, more="\n".join(more))


async def token_of(ours: Vault, client: Client, scope: str) -> str:
    """Return a token of *client*."""
    line = await connect(ours.agents)
    _, body = await line.ask(client.token_request(scope))
    line.close()
    return str(json.loads(body)["access_token"])


async def in_force(ours: Vault, files: int) -> None:
    """Wait until so many files of services and MCP servers are active."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        found = await ours.operate("GET", "/api/audit?type=service.changed")
        if len(found["events"]) >= files:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"no {files} files are active: {ours.home / 'broker.log'}")
