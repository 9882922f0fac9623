"""A web application on auth0-server-python as it comes, whose user connects an account.

Runs under an interpreter of its own, which has the SDK and nothing of ours. Reads what
it is given, then a word a line and where the browser ended, if it was anywhere.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from auth0_server_python.auth_server.server_client import ServerClient
from auth0_server_python.auth_types import (
    ConnectAccountOptions,
    StartInteractiveLoginOptions,
)
from auth0_server_python.error import AccessTokenForConnectionError, MyAccountApiError
from auth0_server_python.store import StateStore, TransactionStore


class Kept:
    """What the SDK has a web framework keep."""

    def __init__(self) -> None:
        self._options, self._kept = {"secret": "s"}, {}

    async def set(self, identifier: str, state: Any, *_: Any, **__: Any) -> None:
        self._kept[identifier] = state

    async def get(self, identifier: str, *_: Any, **__: Any) -> Any:
        return self._kept.get(identifier)

    async def delete(self, identifier: str, *_: Any, **__: Any) -> None:
        self._kept.pop(identifier, None)

    async def delete_by_logout_token(self, *_: Any, **__: Any) -> None:
        self._kept.clear()


class States(Kept, StateStore):
    pass


class Transactions(Kept, TransactionStore):
    pass


def plain(found: Any) -> Any:
    if hasattr(found, "model_dump"):
        return {
            "typed": type(found).__name__,
            **found.model_dump(mode="json", exclude_none=True),
            "unknown": sorted(found.model_extra or {}),
        }
    return found if isinstance(found, str) else None


async def main() -> None:
    given = json.loads(sys.stdin.readline())
    client = ServerClient(
        domain=given["domain"],
        client_id=given["client_id"],
        client_secret=given["client_secret"],
        redirect_uri=given["redirect_uri"],
        secret="of this run",
        state_store=States(),
        transaction_store=Transactions(),
        authorization_params={"scope": "openid profile offline_access"},
    )
    wanted = ConnectAccountOptions(
        connection="workspace", scopes=["calendar.read", "calendar.write"]
    )
    does = {
        "login": lambda _: client.start_interactive_login(
            StartInteractiveLoginOptions()
        ),
        "logged in": client.complete_interactive_login,
        "connect": lambda _: client.start_connect_account(wanted),
        "connected": client.complete_connect_account,
        "connections": lambda _: client.list_connected_account_connections(),
        "accounts": lambda _: client.list_connected_accounts(),
        "token": lambda _: client.get_access_token_for_connection(
            {"connection": "workspace"}
        ),
        "disconnect": client.delete_connected_account,
    }
    for line in sys.stdin:
        what, _, argument = line.strip().partition(": ")
        try:
            answer = {"said": plain(await does[what](argument))}
        except (AccessTokenForConnectionError, MyAccountApiError) as error:
            answer = {"raised": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
