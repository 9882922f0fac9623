"""A scripted broker on a real socket, for answers the real one gives only in time."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any, NamedTuple

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Asked(NamedTuple):
    """One call, as it reached the gateway."""

    at: float
    method: str
    path: str
    bearer: str
    prefer: str
    body: bytes


class ScriptedBroker:
    """Answers tokens and calls from lists; notes what was asked, and when."""

    def __init__(self) -> None:
        self.tokens: deque[tuple[int, dict[str, Any]]] = deque()
        """Answers of the token endpoint; when they are used up, it grants."""
        self.calls: deque[tuple[int, dict[str, Any], dict[str, str]]] = deque()
        self.provider: dict[str, dict[str, Any]] = {}
        """What a provider says of its tokens, at ``/provider``."""
        self.scopes: list[str] = []
        """What tokens were asked for."""
        self.asked: list[Asked] = []
        self.held: asyncio.Event | None = None
        """When set, calls wait for it."""
        self.idle = asyncio.Event()
        """Set once the script for calls is used up."""

    def will(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        """Answer the next call; a body with an error is the gateway's own."""
        ours = {"agentvault-error": body["error"]} if "error" in body else {}
        self.calls.append((status, body, {**ours, **(headers or {})}))

    @property
    def gaps(self) -> list[float]:
        """Seconds between one call and the next."""
        times = [asked.at for asked in self.asked]
        return [later - now for now, later in itertools.pairwise(times)]

    def app(self) -> Starlette:
        verbs = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(
            routes=[
                Route("/oauth/token", self._token, methods=["POST"]),
                Route("/gw/{path:path}", self._call, methods=verbs),
                Route("/provider/tokeninfo", self._token_info, methods=["GET"]),
            ]
        )

    async def _token(self, request: Request) -> Response:
        form = httpx.QueryParams((await request.body()).decode())
        self.scopes.append(form["scope"])
        granted = {"access_token": f"t{len(self.scopes)}", "expires_in": 3600}
        status, body = self.tokens.popleft() if self.tokens else (200, granted)
        return JSONResponse(body, status)

    async def _call(self, request: Request) -> Response:
        headers = request.headers
        self.asked.append(
            Asked(
                asyncio.get_running_loop().time(),
                request.method,
                request.path_params["path"],
                headers["authorization"].removeprefix("Bearer "),
                headers["prefer"],
                await request.body(),
            )
        )
        if self.held is not None:
            await self.held.wait()
        status, body, said = self.calls.popleft()
        if not self.calls:
            self.idle.set()
        return JSONResponse(body, status, said)

    async def _token_info(self, request: Request) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        found = self.provider.get(token)
        return JSONResponse(found or {"active": False}, 200 if found else 401)
