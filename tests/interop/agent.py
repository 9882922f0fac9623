"""An agent on auth0-ai as it comes from PyPI: reads a tool's name a line, runs it.

Runs under an interpreter of its own, which has the SDK and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from auth0 import Auth0Error
from auth0_ai.authorizers.async_authorization.async_authorizer_base import (
    AsyncAuthorizerBase,
    get_async_authorization_credentials,
)
from auth0_ai.authorizers.token_vault_authorizer import (
    TokenVaultAuthorizerBase,
    TokenVaultAuthorizerParams,
    get_access_token_from_token_vault,
)
from auth0_ai.interrupts.auth0_interrupt import Auth0Interrupt

CREDENTIAL = (
    {"client_assertion_signing_key": os.environ["KEY"]}
    if "KEY" in os.environ
    else {"client_secret": os.environ["AUTH0_CLIENT_SECRET"]}
)
CONFIG = {
    "domain": os.environ["AUTH0_DOMAIN"],
    "client_id": os.environ["AUTH0_CLIENT_ID"],
    **CREDENTIAL,
    "protocol": os.environ.get("PROTOCOL", "http"),
}


def context(*_: Any, **__: Any) -> dict[str, str]:
    return {"thread_id": "t1", "tool_call_id": "c1", "tool_name": "tool"}


def from_vault(connection: str, scopes: list[str]) -> Any:
    async def tool() -> Any:
        return get_access_token_from_token_vault()

    params = TokenVaultAuthorizerParams(
        scopes=scopes,
        connection=connection,
        refresh_token="the agent has none that counts",
        login_hint="somebody",
    )
    return TokenVaultAuthorizerBase(params, CONFIG).protect(context, tool)


def asking(message: str) -> Any:
    async def tool() -> Any:
        credentials = get_async_authorization_credentials()
        return credentials and credentials["access_token"]

    params = {
        "scopes": ["send:payment"],
        "binding_message": message,
        "user_id": os.environ.get("AUTH0_USER", "auth0|ursula"),
    }
    return AsyncAuthorizerBase(params, CONFIG).protect(context, tool)


def told(error: Exception) -> dict[str, Any]:
    if isinstance(error, Auth0Interrupt):
        kind = type(error).__name__
        return {"interrupt": kind, "code": error.code, "message": str(error)}
    if isinstance(error, Auth0Error):
        return {"error": error.error_code, "message": error.message}
    return {"crash": type(error).__name__, "message": str(error)}


async def main() -> None:
    tools = {
        "calendar": from_vault(
            "google-oauth2", ["https://www.googleapis.com/auth/calendar"]
        ),
        "contacts": from_vault("google-oauth2", ["contacts"]),
        "bank": from_vault("bank", []),
        "workspace": from_vault("workspace", []),
        "workspace-anew": from_vault("workspace", []),
        "pay": asking("Pay #1"),
        "pay-again": asking("Pay #2"),
    }
    for line in sys.stdin:
        try:
            answer = {"result": await tools[line.strip()]()}
        except Exception as error:  # noqa: BLE001 - all of them are what is looked at
            answer = told(error)
        print(json.dumps(answer), flush=True)


asyncio.run(main())
