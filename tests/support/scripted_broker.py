"""A scripted broker on a real socket, for answers the real one gives only in time."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class ScriptedBroker:
    """Answers each endpoint from a list, in order; notes what was asked, and when."""

    def __init__(self) -> None:
        self.token: deque[tuple[int, dict[str, Any], dict[str, str]]] = deque()
        self.claims: dict[str, dict[str, Any]] = {}
        self.provider: dict[str, dict[str, Any]] = {}
        """What a provider says of its tokens, at ``/provider``."""
        self.asked: list[tuple[float, dict[str, Any]]] = []
        self.introspected: list[str] = []
        self.handed_back: list[str] = []
        self.idle = asyncio.Event()
        """Set once the script for the token endpoint is used up."""

    def will(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        self.token.append((status, body, headers or {}))

    @property
    def gaps(self) -> list[float]:
        """Seconds between one question at the token endpoint and the next."""
        times = [time for time, _ in self.asked]
        return [later - now for now, later in itertools.pairwise(times)]

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/oauth/token", self._token, methods=["POST"]),
                Route("/oauth/introspect", self._introspect, methods=["POST"]),
                Route("/oauth/revoke", self._revoke, methods=["POST"]),
                Route("/provider/tokeninfo", self._token_info, methods=["GET"]),
            ]
        )

    async def _token(self, request: Request) -> Response:
        if request.headers["content-type"] == "application/json":
            form = await request.json()
        else:
            form = await _form(request)
        self.asked.append((asyncio.get_running_loop().time(), form))
        status, body, headers = self.token.popleft()
        if not self.token:
            self.idle.set()
        return JSONResponse(body, status, headers)

    async def _introspect(self, request: Request) -> Response:
        token = (await _form(request))["token"]
        self.introspected.append(token)
        return JSONResponse(self.claims.get(token, {"active": False}))

    async def _token_info(self, request: Request) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        found = self.provider.get(token)
        return JSONResponse(found or {"active": False}, 200 if found else 401)

    async def _revoke(self, request: Request) -> Response:
        self.handed_back.append((await _form(request))["token"])
        return Response()


async def _form(request: Request) -> dict[str, str]:
    return dict(httpx.QueryParams((await request.body()).decode()))
