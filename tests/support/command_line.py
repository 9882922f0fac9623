"""What `agentvault` tests pass around: answers, the broker, an agent that asks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from support.patience import PATIENT

PROGRAM = (sys.executable, "-P", "-m", "agentvault_tui.cli")
HOSTILE = "\x1b[2J\x1b]52;c;eA==\x07[bold]\u202eevil\u200b\nline\x9b31m"


def plain_environment(**extra: str) -> dict[str, str]:
    """Return an environment without anything that would change the answers."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENTVAULT_", "LC_"))
        # Other tests' libraries leave COLUMNS and LINES behind.
        and name not in {"NO_COLOR", "COLUMNS", "LINES", "TMUX"}
    }
    return {**kept, "LANG": "C.UTF-8", "TERM": "xterm-256color", **extra}


@contextmanager
def running(
    argv: Sequence[str], env: Mapping[str, str], stderr: int | None = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run one command line as a process, and leave nothing of it behind."""
    with subprocess.Popen(
        [*PROGRAM, *argv],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=dict(env),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON it printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The JSON Lines it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Broker:
    """The running broker."""

    home: Path
    url: str
    pid: int

    @property
    def env(self) -> dict[str, str]:
        return plain_environment(AGENTVAULT_HOME=str(self.home))

    @contextmanager
    def service(self, name: str, text: str) -> Iterator[Path]:
        """Have a service file in the home, which the broker reads when asked."""
        path = self.home / "services" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        yield path
        path.unlink()


@dataclass
class Agent:
    """A registered agent, with its secret."""

    broker: Broker
    name: str
    id: str
    secret: str

    def ask(
        self, scope: str, parameters: dict[str, Any], reason: str = ""
    ) -> dict[str, Any]:
        """Ask for a token, as any OAuth client would."""
        details = {
            "type": "agentvault:action",
            "action": scope,
            "resource": "stripe:acct_42",
            "parameters": parameters,
            **({"reason": reason} if reason else {}),
        }
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "authorization_details": json.dumps([details]),
        }
        pair = base64.b64encode(f"{self.id}:{self.secret}".encode()).decode()
        headers = {
            "Authorization": f"Basic {pair}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        connection = HTTPConnection(urlsplit(self.broker.url).netloc, timeout=PATIENT)
        with closing(connection):
            connection.request("POST", "/oauth/token", urlencode(form), headers)
            return dict(json.load(connection.getresponse()))
