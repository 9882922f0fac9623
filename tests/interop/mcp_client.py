"""The official Python client of MCP, 2.x or 1.x, as an agent's host uses it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

GIVEN = json.loads(sys.stdin.readline())


def bearer() -> dict[str, str]:
    return {"authorization": f"Bearer {GIVEN['token']}"}


@asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    try:
        from mcp.client import Client  # noqa: PLC0415
    except ImportError:
        from mcp import ClientSession  # noqa: PLC0415
        from mcp.client.streamable_http import streamablehttp_client  # noqa: PLC0415

        async with (
            streamablehttp_client(GIVEN["url"], headers=bearer()) as (reads, writes, _),
            ClientSession(reads, writes) as session,
        ):
            begun = await session.initialize()
            session.protocol_version = begun.protocolVersion
            yield session
        return
    import httpx2  # noqa: PLC0415
    from mcp.client.streamable_http import streamable_http_client  # noqa: PLC0415

    by_token = "token" in GIVEN
    known: Any = {"headers": bearer()} if by_token else {"auth": provider()}
    async with httpx2.AsyncClient(timeout=60, **known) as http:
        transport = streamable_http_client(GIVEN["url"], http_client=http)
        forms = {"elicitation_callback": accept} if "forms" in GIVEN else {}
        async with Client(transport, mode=GIVEN["mode"], **forms) as client:
            yield client


asked: list[str] = []


async def accept(_: Any, params: Any) -> Any:
    from mcp_types import ElicitResult  # noqa: PLC0415

    asked.append(params.message)
    return ElicitResult(action="accept", content={})


def provider() -> Any:
    from mcp.client.auth.extensions.client_credentials import (  # noqa: PLC0415
        ClientCredentialsOAuthProvider,
    )

    class Store:
        tokens: Any = None
        info: Any = None

        async def get_tokens(self) -> Any:
            return self.tokens

        async def set_tokens(self, tokens: Any) -> None:
            self.tokens = tokens

        async def get_client_info(self) -> Any:
            return self.info

        async def set_client_info(self, info: Any) -> None:
            self.info = info

    return ClientCredentialsOAuthProvider(
        GIVEN["url"],
        Store(),
        GIVEN["client_id"],
        GIVEN["client_secret"],
        issuer=GIVEN["issuer"],
    )


async def main() -> None:
    heard: list[str] = []

    async def on_progress(
        progress: float, total: float | None, message: str | None
    ) -> None:
        heard.append(message or f"{progress:g} of {total or 0:g}")

    async with connected() as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

        async def call(name: str, path: str = "/a") -> list[Any]:
            arguments = {"path": path}
            result = await client.call_tool(
                name, arguments, progress_callback=on_progress
            )
            said = result.model_dump(by_alias=True)
            return [said["content"][0]["text"], bool(said.get("isError"))]

        told: dict[str, Any] = {"tools": tools}
        if "forms" in GIVEN:
            told |= {"held": await call("delete_file"), "asked": asked}
            print(json.dumps(told), flush=True)
            return
        told |= {
            "version": client.protocol_version,
            "read": await call("read_file"),
            "slow": await call("slow_read"),
            "steps": [*heard],
            "held": await call("delete_file"),
            "refused": await call("format_disk"),
        }
    print(json.dumps(told), flush=True)


asyncio.run(main())
