"""What docs/protect-your-api.md shows protects an API as it stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.pages import DOCS, example
from support.vault import Client, Vault

PAGE = DOCS / "protect-your-api.md"
NUMBERS = count(1)
READ = ("read:calendar", "calendar:primary", {})
MAIL = ("send:email", "mail:outbox", {"recipients": ["ada@acme.test"], "n": 1})
PYTHON = """
import sys
for token, *wanted in json.loads(sys.stdin.read()):
    print(json.dumps(permits(claims_of(token), *wanted)))
"""
JAVASCRIPT = """
import { readFileSync } from "node:fs";
for (const [token, ...wanted] of JSON.parse(readFileSync(0)))
  console.log(permits(await claimsOf(token), ...wanted));
"""

Asked = tuple[str, str, str, dict[str, Any]]


@dataclass
class Api:
    """A resource server that runs an example, and an agent that calls it."""

    vault: Vault
    client: Client
    agent: Client
    argv: list[str]

    def permits(self, *asked: Asked) -> list[bool]:
        """Ask the example about tokens and what is to be done with each."""
        environment = {
            "PATH": os.environ["PATH"],
            "AGENTVAULT_URL": self.vault.ready["agents_url"].rstrip("/"),
            "CLIENT_ID": self.client.id,
            "CLIENT_SECRET": self.client.secret,
        }
        done = subprocess.run(
            self.argv,
            input=json.dumps(asked),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def token(self, scope: str, *action: Any) -> str:
        """Have a token, for exactly one action if it is given."""
        form = {"grant_type": "client_credentials", "scope": scope}
        if action:
            resource, parameters = action
            detail = {"type": "agentvault:action", "action": scope}
            detail |= {"resource": resource, "parameters": parameters}
            form["authorization_details"] = json.dumps([detail])
        reply = self.agent.http.post("/oauth/token", data=form)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["access_token"])


def as_python(_: Path) -> list[str]:
    return [sys.executable, "-c", example(PAGE, "python") + PYTHON]


def as_javascript(folder: Path) -> list[str]:
    program = folder / "example.mjs"
    program.write_text(example(PAGE, "javascript") + JAVASCRIPT)
    return ["node", str(program)]


@pytest.fixture(params=[as_python, as_javascript], ids=["python", "javascript"])
def api(request: pytest.FixtureRequest, vault: Vault, tmp_path: Path) -> Api:
    number = next(NUMBERS)
    make: Callable[[Path], list[str]] = request.param
    serves = ["read:calendar", "send:email"]
    return Api(
        vault,
        vault.register(f"api-{number}", resource_server=True, serves=serves),
        vault.register(f"agent-{number}", "read:calendar", "send:email", "read:email"),
        make(tmp_path),
    )


def test_the_example_permits_exactly_what_a_token_names(api: Api) -> None:
    """Once for a mail; as often as it likes for a read; never for anything else."""
    scope, resource, parameters = MAIL
    mail = [api.token(scope, resource, parameters) for _ in range(5)]
    read, bare = api.token(READ[0], *READ[1:]), api.token(READ[0])
    assert api.permits(
        (mail[0], scope, resource, dict(reversed(parameters.items()))),
        (mail[0], scope, resource, parameters),
        (mail[1], scope, resource, {**parameters, "n": 2}),
        (mail[2], scope, resource, {"recipients": parameters["recipients"]}),
        (mail[3], scope, "mail:other", parameters),
        (mail[4], *READ),
        (read, *READ),
        (read, *READ),
        (bare, *READ),
        (read, READ[0], "calendar:other", {}),
        ("av_t_unknown", *READ),
    ) == [True, *[False] * 5, True, True, True, False, False]


def test_another_servers_token_is_not_active_to_the_example(api: Api) -> None:
    """What the server was not registered for it neither sees nor consumes."""
    other = api.token("read:email", "mail:inbox", {})
    assert api.permits((other, "read:email", "mail:inbox", {})) == [False]
