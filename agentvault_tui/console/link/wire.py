"""HTTP to the broker over its Unix socket: one request, one answer, errors in words.

httpx is imported on first use, so that the first frame need not wait for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from agentvault_tui.console.state.records import Json
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.operator_api.sse import Decoder, Frame, OverlongError
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

_TIMEOUT: Final = 5.0
_AT_ONCE: Final = 0.001
"""Seconds within which a chunk comes that was here already."""
_MUCH: Final = 32_768
"""Bytes in one read that say there is a backlog."""
_REMEDY: Final = "start one with: agentvault serve"


class Wire:
    """The socket."""

    def __init__(self, socket: Path, pause: float) -> None:
        """Speak through *socket*; read a busy stream only every *pause* seconds."""
        self.socket = socket
        self._pause = pause
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, path: str, **query: object) -> Json:
        """Read *path*; query members that are None or empty are left out."""
        given = {
            name: str(value)
            for name, value in query.items()
            if value is not None and value != ""
        }
        return await self._request("GET", path, params=given)

    async def post(self, path: str, body: Json) -> Json:
        """Do what *path* does."""
        return await self._request("POST", path, json=body)

    async def events(self, after: int, face: str) -> AsyncIterator[list[Frame]]:
        """Yield the frames after that number, as they come, many at a time.

        *face* is what this is to the other operators.

        The first list is empty: the broker has accepted.

        Raises:
            UnreachableError: the stream ended.
        """
        import httpx  # noqa: PLC0415 - see the module's docstring

        timeout = httpx.Timeout(_TIMEOUT, read=None)
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        try:
            async with self._open().stream(
                "GET",
                "/api/events",
                params={"as": face},
                headers=headers,
                timeout=timeout,
            ) as answer:
                await self._refuse(answer)
                yield []
                decoder, loop = Decoder(), asyncio.get_running_loop()
                asked = loop.time()
                async for chunk in answer.aiter_bytes():
                    waited = loop.time() - asked > _AT_ONCE
                    yield decoder.feed(chunk)
                    # What is here already is taken at once, however small its chunks:
                    # a pause after each would let a flood run ever further ahead.
                    if waited and len(chunk) < _MUCH:
                        await asyncio.sleep(self._pause)
                    asked = loop.time()
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except OverlongError as error:
            raise UnreachableError("the broker's stream has no end of line") from error
        raise UnreachableError("the broker closed the connection", _REMEDY)

    async def _request(self, method: str, path: str, **more: Any) -> Json:
        import httpx  # noqa: PLC0415 - see the module's docstring

        try:
            answer = await self._open().request(method, path, **more)
            await self._refuse(answer)
            data = answer.json()
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except ValueError as error:
            raise UnreachableError("the broker's answer is not JSON", "") from error
        if not isinstance(data, dict):
            raise UnreachableError("the broker's answer is not an object", "")
        return data

    def _open(self) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415 - see the module's docstring

        if self._client is None:
            logging.getLogger("httpx").setLevel(logging.WARNING)
            self._client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(self.socket)),
                base_url="http://agentvault",
                timeout=_TIMEOUT,
                trust_env=False,
            )
        return self._client

    async def _refuse(self, answer: httpx.Response) -> None:
        """Raise what an answer that is not a success says (RFC 9457)."""
        if answer.is_success:
            return
        await answer.aread()
        try:
            problem = answer.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {"detail": f"the broker answered {answer.status_code}"}
        what = visible(problem.get("detail") or "refused", 300)
        remedy = visible(problem.get("remedy") or "", 300)
        raise _ERRORS.get(answer.status_code, RefusedError)(what, remedy)


_ERRORS: Final[dict[int, type[AgentVaultError]]] = {
    400: UsageError,
    404: NotFoundError,
    409: ConflictError,
}


def _unreachable(error: Exception) -> UnreachableError:
    import httpx  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"the broker did not answer within {_TIMEOUT:.0f} s")
    if isinstance(error, httpx.ConnectError):
        return UnreachableError("no broker answers at its socket", _REMEDY)
    return UnreachableError("the connection to the broker broke", _REMEDY)


def objects(page: Json, name: str) -> list[Json]:
    """Return the objects listed under *name*, whatever else stands there."""
    rows = page.get(name)
    return [row for row in rows if isinstance(row, dict)] if rows else []


def integer(raw: object) -> int:
    """Return a whole number, 0 when it is none."""
    return raw if isinstance(raw, int) else 0


def real(raw: object) -> float:
    """Return a number, 0 when it is none."""
    return float(raw) if isinstance(raw, int | float) else 0.0


def read_frames(frames: list[Frame]) -> list[Any]:
    """Read the JSON of frames.

    Raises:
        UnreachableError: one of them is none.
    """
    try:
        return [json.loads(frame.data) for frame in frames]
    except ValueError as error:
        raise UnreachableError("the broker's stream is not JSON") from error
