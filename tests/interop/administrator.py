"""An administrator on auth0-python 6 as it comes: reads what to use, tells what it got.

Runs under an interpreter of its own, which has the SDK and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from auth0.authentication import GetToken
from auth0.management import ManagementClient
from sdk_answers import told


def management(given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    api = ManagementClient(
        domain=given["domain"],
        client_id=given["management_id"],
        client_secret=given["management_secret"],
        audience=given["audience"],
    )
    agent, user = given["client_id"], given["user_id"]

    def newest() -> str:
        return str(next(iter(api.users.refresh_token.list(user))).id)

    return {
        "clients": lambda: api.clients.list(per_page=1, include_totals=True),
        "client": lambda: api.clients.get(agent),
        "renamed": lambda: api.clients.update(agent, name="Agent: renamed"),
        "no client": lambda: api.clients.get("nobody"),
        "nameless": lambda: api.clients.update(agent, name=""),
        "user": lambda: api.users.get(user),
        "accounts": lambda: api.users.connected_accounts.list(user),
        "refresh tokens": lambda: api.users.refresh_token.list(user),
        "refresh token": lambda: api.refresh_tokens.get(newest()),
        "refresh token deleted": lambda: api.refresh_tokens.delete(newest()),
        "refresh tokens but one": lambda: api.users.refresh_token.list(user),
        "logs": lambda: api.logs.list(per_page=5, sort="date:-1", include_totals=True),
        "rotated": lambda: api.clients.rotate_secret(agent),
        "a wrong token": lambda: ManagementClient(
            domain=given["domain"], token="nonsense"
        ).clients.get(agent),
    }


def authentication(given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    def client(name: str, secret: str) -> GetToken:
        return GetToken(given["domain"], given[name], client_secret=given[secret])

    agent = client("client_id", "client_secret")
    own = client("management_id", "management_secret")
    wrong = client("management_id", "client_secret")
    return {
        "client credentials": lambda: own.client_credentials(given["audience"]),
        "wrong secret": lambda: wrong.client_credentials(given["audience"]),
        "refreshed": lambda: agent.refresh_token(given["refresh_token"]),
        "no such token": lambda: agent.refresh_token("nonsense"),
    }


def main() -> None:
    given = json.load(sys.stdin)
    calls = {**authentication(given), **management(given)}
    said = {name: told(call) for name, call in calls.items()}
    for when, secret in (
        ("the secret before", given["client_secret"]),
        ("the new secret", said["rotated"]["client_secret"]),
    ):
        agent = GetToken(given["domain"], given["client_id"], secret)
        said[f"with {when}"] = told(lambda agent=agent: agent.refresh_token("nonsense"))
    json.dump(said, sys.stdout)


main()
