"""An agent on auth0-ai-llamaindex as it comes: reads a tool's name a line, runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from auth0_ai.interrupts.auth0_interrupt import Auth0Interrupt
from auth0_ai_llamaindex.async_authorization import get_async_authorization_credentials
from auth0_ai_llamaindex.auth0_ai import Auth0AI, set_ai_context
from auth0_ai_llamaindex.token_vault import get_access_token_from_token_vault
from llama_index.core.tools import FunctionTool

ai = Auth0AI(
    {
        "domain": os.environ["AUTH0_DOMAIN"],
        "client_id": os.environ["AUTH0_CLIENT_ID"],
        "client_secret": os.environ["AUTH0_CLIENT_SECRET"],
        "protocol": "http",
    }
)


def calendar() -> Any:
    """Look into the calendar."""
    return get_access_token_from_token_vault()


def pay() -> Any:
    """Pay."""
    credentials = get_async_authorization_credentials()
    return credentials and credentials["access_token"]


vaulted = ai.with_token_vault(
    connection="google-oauth2",
    scopes=["https://www.googleapis.com/auth/calendar"],
    refresh_token=lambda *_, **__: "the agent has none that counts",
)
# Each call is another to it, so it waits for the person within one.
asking = ai.with_async_authorization(
    scopes=["send:payment"],
    binding_message="Pay #1",
    user_id="auth0|ursula",
    on_authorization_request="block",
)
TOOLS = {
    "calendar": vaulted(FunctionTool.from_defaults(fn=calendar)),
    "pay": asking(FunctionTool.from_defaults(fn=pay)),
}


async def main() -> None:
    set_ai_context("t1")
    for line in sys.stdin:
        try:
            output = await TOOLS[line.strip()].acall()
            # The wrapper returns the output of a tool as another tool's.
            answer = {"result": output.raw_output.raw_output}
        except Auth0Interrupt as error:
            kind = type(error).__name__
            answer = {"interrupt": kind, "code": error.code, "message": str(error)}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
