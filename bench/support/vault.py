"""A real ``agentvault serve`` on a home of its own, and its clients."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from support.load import connect, request

from agentvault_tui.policy.texts import shipped_policy

AGENTVAULT = [
    *(sys.executable, "-P", "-c"),
    "import sys; from agentvault_tui.cli import main; sys.exit(main())",
]
"""The program as an installation has it."""
_MEASURED = str(Path(__file__).with_name("turns.py"))


@dataclass(frozen=True)
class Vault:
    """A running broker."""

    home: Path
    agents: tuple[str, int]
    operators: str
    pid: int

    def cpu(self) -> Counter[str]:
        """Return the CPU seconds of each of the broker's threads (Linux: proc(5)).

        Returns:
            seconds by thread, the one of the event loop as ``loop``; empty elsewhere.
        """
        used: Counter[str] = Counter()
        for stat in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            name = "loop" if stat.parent.name == str(self.pid) else stat.parent.name
            used[name] = int(stat.read_text().split()[0]) / 1e9
        return used

    def written(self) -> int:
        """Return the bytes the broker had written to disk; 0 where /proc lacks."""
        try:
            counted = Path(f"/proc/{self.pid}/io").read_text()
        except OSError:
            return 0
        return int(counted.partition("\nwrite_bytes: ")[2].split()[0])

    @property
    def resident(self) -> float:
        """Megabytes resident; 0 where /proc is not there."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0.0
        line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def operate(self, method: str, path: str, body: Any = None) -> Any:
        """Call the operators' HTTP once."""
        raw = b"" if body is None else json.dumps(body).encode()
        line = await connect(self.operators)
        status, reply = await line.ask(
            request(method, path, raw, kind="application/json")
        )
        line.close()
        if status >= 400:
            raise SystemExit(f"{method} {path}: {status} {reply.decode()}")
        return json.loads(reply)

    async def register(self, name: str, *scopes: str, **more: Any) -> Client:
        """Register one agent."""
        agent = {"name": name, "owner": "bench@acme.test", "scopes": scopes, **more}
        reply = await self.operate("POST", "/api/agents", agent)
        host = "{}:{}".format(*self.agents)
        return Client(reply["id"], reply["client_id"], reply["client_secret"], host)

    async def head(self) -> int:
        """Return the ledger's last sequence number."""
        status = await self.operate("GET", "/api/status")
        return int(status["ledger"]["head"])


@dataclass(frozen=True)
class Client:
    """Credentials of one registered agent."""

    id: str
    client_id: str
    client_secret: str
    host: str
    """What the broker wants to see in ``Host``."""

    def __repr__(self) -> str:
        return f"Client({self.client_id})"

    @property
    def basic(self) -> str:
        """The Authorization header's value."""
        pair = f"{self.client_id}:{self.client_secret}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def token_request(self, scope: str) -> bytes:
        """Build a client_credentials request."""
        form = f"grant_type=client_credentials&scope={scope.replace(':', '%3A')}"
        return self._post("/oauth/token", form)

    def evaluation_request(self, scope: str, number: int) -> bytes:
        """Build an evaluation (AuthZEN) like no other's."""
        asked = {
            "action": {"name": scope, "properties": {"path": f"/srv/{number}"}},
            "resource": {"type": "file", "id": f"/srv/{number}"},
        }
        return request(
            "POST",
            "/access/v1/evaluation",
            json.dumps(asked).encode(),
            kind="application/json",
            host=self.host,
            Authorization=self.basic,
        )

    def action_request(self, scope: str, number: int) -> bytes:
        """Build a client_credentials request for an action like no other's.

        Args:
            scope: what is asked for, and the action it is asked for.
            number: tells it from every other request of the run.
        """
        parameters = {
            "title": f"Review {number} with the finance team",
            "start": f"2027-{number % 12 + 1:02}-{number % 28 + 1:02}T09:30:00Z",
            "minutes": 15 + number % 90,
            "amount": number * 7 % 100_003,
            "currency": ("USD", "EUR", "GBP")[number % 3],
            "recipients": [f"p{number + n}@acme.test" for n in range(number % 4 + 1)],
        }
        details = {
            "type": "agentvault:action",
            "action": scope,
            "resource": f"calendar:team-{number % 5_003}",
            "parameters": parameters,
            "reason": f"Ticket {number} asks for a slot",
        }
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "authorization_details": json.dumps([details]),
        }
        return self._post("/oauth/token", urlencode(form))

    def introspection(self, token: str) -> bytes:
        """Build an introspection request."""
        return self._post("/oauth/introspect", f"token={token}")

    def _post(self, path: str, form: str) -> bytes:
        return request(
            "POST", path, form.encode(), host=self.host, Authorization=self.basic
        )


_RESOURCES = """
@id("not-the-board")
@why("Nobody books the board's calendar.")
@optional("resource")
forbid (principal, action == Action::"write:calendar", resource)
when { context has resource && context.resource like "calendar:board*" };

@id("not-the-audit")
@why("The auditors' calendar is theirs.")
@optional("resource")
forbid (principal, action in Action::"writes", resource == Resource::"calendar:audit");
"""
"""Rules that read the resource."""


_UNBOUNDED = {
    "AGENTVAULT_LEDGER_DECISIONS_A_SECOND": "0",
    "AGENTVAULT_TOKENS_MAX_LIVE": "1000000",
}
"""A load of few agents stands for one of many: what bounds each would end it."""


@contextlib.contextmanager
def vault(
    kept: Path | None = None,
    turns: Path | None = None,
    *,
    resources: bool = False,
    bounded: bool = False,
) -> Iterator[Vault]:
    """Run a broker on a temporary home and remove both at the end, or on *kept*.

    Args:
        kept: the home, if it is there already.
        turns: the file that notes its loop's longest turn; see `turns`.
        resources: whether rules that read the resource follow the shipped ones.
        bounded: whether each agent's rate and tokens are bounded as by default.
    """
    home = kept or Path(tempfile.mkdtemp(prefix="av-bench-", dir=disk()))
    if resources:
        (home / "policy.cedar").write_text(f"{shipped_policy()}\n{_RESOURCES}")
    line = [sys.executable, "-P", _MEASURED, str(turns)] if turns else AGENTVAULT
    log = home / "broker.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*line, "--home", str(home), "serve", "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | ({} if bounded else _UNBOUNDED),
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the broker did not start: {log.read_text().strip()}")
        said = json.loads(line)
        url = urlsplit(said["agents_url"])
        agents = (str(url.hostname), int(url.port or 80))
        yield Vault(home, agents, said["operator_socket"], said["pid"])
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
        if kept is None:
            shutil.rmtree(home, ignore_errors=True)


def filesystem(path: Path) -> str:
    """Return the type of the file system that *path* lies on; fsync depends on it."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    best = max(
        (line.split()[1:3] for line in mounts),
        key=lambda mount: len(mount[0]) if path.is_relative_to(mount[0]) else -1,
    )
    return best[1]


def disk() -> str:
    """Return where temporary homes go: never in memory, or fsync would cost nothing."""
    usual = Path(tempfile.gettempdir())
    return str(Path.cwd() if filesystem(usual) == "tmpfs" else usual)
