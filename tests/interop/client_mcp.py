"""The official MCP client as it comes from PyPI: led to the broker by a server."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken

SERVER = "https://mcp.test"


class Memory:
    """What the SDK keeps of a server, for as long as the program runs."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


async def tried(
    given: dict[str, Any], provider: OAuthClientProvider, scope: str
) -> Any:
    """Call a server that sends whoever has no token to the broker (RFC 9728).

    The scope that it names (RFC 6750 section 3) is what the SDK asks for; without one
    the SDK asks for all that the broker's metadata lists, whatever it was given.
    """

    def serve(request: httpx.Request) -> httpx.Response:
        if "well-known" in request.url.path:
            found = {
                "resource": f"{SERVER}/mcp",
                "authorization_servers": [given["issuer"]],
            }
            return httpx.Response(200, json=found)
        if token := request.headers.get("authorization"):
            return httpx.Response(200, json={"presented": token.partition(" ")[2]})
        lead = (
            f'Bearer resource_metadata="{SERVER}/.well-known/oauth-protected-resource"'
        )
        lead += f', scope="{scope}"' if scope else ""
        return httpx.Response(401, headers={"WWW-Authenticate": lead})

    mounts = {SERVER: httpx.MockTransport(serve)}
    async with httpx.AsyncClient(auth=provider, mounts=mounts, timeout=20) as http:
        try:
            return (await http.post(f"{SERVER}/mcp", json={})).json()
        except OAuthFlowError as error:
            return {"raised": type(error).__name__, "told": str(error)}


async def main() -> None:
    given = json.load(sys.stdin)
    where = f"{given['issuer']}/.well-known/oauth-authorization-server"
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.get(where)
    metadata = OAuthMetadata.model_validate_json(answer.content)

    def agent() -> ClientCredentialsOAuthProvider:
        return ClientCredentialsOAuthProvider(
            server_url=f"{SERVER}/mcp",
            storage=Memory(),
            client_id=given["client_id"],
            client_secret=given["client_secret"],
            scopes="write:calendar",
            issuer=str(metadata.issuer),
        )

    said = {
        "metadata": metadata.model_dump(mode="json", exclude_none=True),
        "token": await tried(given, agent(), "write:calendar"),
        "all": await tried(given, agent(), ""),
    }
    json.dump(said, sys.stdout)


asyncio.run(main())
