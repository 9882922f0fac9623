"""MCP on standard input and output, each message sent on to the broker's endpoint."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, cast

import httpx

from agentvault_tui.errors import AgentVaultError
from agentvault_tui.web.reply import encode_header

_LINE_BYTES: Final = 10 * 2**20
_AWAY: Final = -32603
_TRIES: Final = 3
"""Of one message that was refused for its token or session, before it was decided."""
_ENDING: Final = 30.0
"""Seconds that requests have to end in after standard input has."""
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_NAMES: Final = ("name", "uri", "taskId")


class McpBridge:
    """One host's connection, over any number of requests at a time."""

    def __init__(self, url: str, issue: Callable[[], str], ca: Path | None) -> None:
        """Send nothing yet.

        Args:
            url: of the server at the broker.
            issue: returns a token of the agent that is good there.
            ca: an authority for https, instead of the system's.
        """
        self._url = url
        self._issue = issue
        self._ca = ca
        self._token: str | None = None
        self._renewing = asyncio.Lock()
        self._session: str | None = None
        self._version: str | None = None
        self._handshake: list[bytes] = []
        """The message that began the session, to begin it again after a restart."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._begun: asyncio.Task[None] | None = None
        """Which does the handshake; what comes after it waits for its end."""

    def run(self) -> int:
        """Serve until standard input ends; return the exit code."""
        with suppress(KeyboardInterrupt):
            asyncio.run(self._serve())
        return 0

    async def _serve(self) -> None:
        reader = asyncio.StreamReader(limit=_LINE_BYTES)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
            )
        except ValueError:  # a file
            reader.feed_data(sys.stdin.buffer.read())
            reader.feed_eof()
        trust: ssl.SSLContext | bool = True
        if self._url.startswith("https:") and self._ca is not None:
            trust = ssl.create_default_context(cafile=str(self._ca))
        timeout = httpx.Timeout(10.0, read=None)
        async with httpx.AsyncClient(
            verify=trust, timeout=timeout, trust_env=False
        ) as http:
            tasks: set[asyncio.Task[None]] = set()
            try:
                while line := await reader.readline():
                    if not line.strip():
                        continue
                    task = self._take(http, line.strip())
                    if task is not None:
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
            except ValueError:
                _say(_error(None, -32700, "the line is too long"))
            if tasks:
                _, left = await asyncio.wait(tasks, timeout=_ENDING)
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    def _take(self, http: httpx.AsyncClient, line: bytes) -> asyncio.Task[None] | None:
        """Begin to answer one line."""
        try:
            message = json.loads(line)
            method, id_ = message.get("method"), message.get("id")
            params = message.get("params") or {}
            key = json.dumps(params.get("requestId") if id_ is None else id_)
        except (ValueError, AttributeError, RecursionError):
            _say(_error(None, -32700, "the line is no message of JSON-RPC"))
            return None
        if id_ is None and method == "notifications/cancelled":
            # By closing its stream: of a request that stands alone it is the only way.
            if running := self._running.pop(key, None):
                running.cancel()
            return None
        if method == "initialize":
            self._handshake, self._session, self._version = [line], None, None
        elif method == "notifications/initialized":
            self._handshake.append(line)
        task = asyncio.create_task(self._answer(http, line, message, self._begun))
        if method == "initialize":
            self._begun = task
        if id_ is not None:
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: str, done: asyncio.Task[None]) -> None:
        if self._running.get(key) is done:
            del self._running[key]

    async def _answer(
        self,
        http: httpx.AsyncClient,
        line: bytes,
        message: dict[str, object],
        begun: asyncio.Task[None] | None,
    ) -> None:
        """Send one message on, once the handshake is done, and say what comes back."""
        if begun is not None:
            await asyncio.wait({begun})
        id_, text = message.get("id"), ""
        try:
            for _ in range(_TRIES):
                again = await self._post(http, line, message)
                if again is None:
                    return
                text = again
        except AgentVaultError as error:
            text = error.diagnosis()
        except httpx.ConnectError:
            text = "the broker does not answer: is `agentvault serve` running?"
        except httpx.HTTPError:
            text = "the broker broke the answer off: this call was cut"
        if id_ is None:
            return
        if message.get("method") == "tools/call":
            content = [{"type": "text", "text": f"AgentVault: {text}"}]
            result = {"content": content, "isError": True, "resultType": "complete"}
            _say({"jsonrpc": "2.0", "id": id_, "result": result})
        else:
            _say(_error(id_, _AWAY, text))

    async def _post(
        self, http: httpx.AsyncClient, line: bytes, message: dict[str, object]
    ) -> str | None:
        """Send a message; return why to try again, or nothing when it was answered."""
        token = await self._live_token()
        headers = self._headers(message, token)
        async with http.stream(
            "POST", self._url, content=line, headers=headers
        ) as answer:
            kind = answer.headers.get("content-type", "")
            if message.get("method") == "initialize" and answer.is_success:
                self._session = answer.headers.get("mcp-session-id")
            if kind.startswith("text/event-stream"):
                events = cast("AsyncGenerator[str, None]", answer.aiter_lines())
                async with aclosing(events) as lines:
                    async for one in lines:
                        if one.startswith("data:"):
                            _write(one.removeprefix("data:").strip())
                return None
            text = (await answer.aread()).decode(errors="replace")
        reply = _object(text)
        if "jsonrpc" in reply:
            if message.get("method") == "initialize":
                self._version = _agreed_version(reply)
            _write(text)
            return None
        if answer.status_code in {202, 204}:
            return None
        why = str(reply.get("error_description") or f"HTTP {answer.status_code}")
        if answer.status_code in {401, 403}:
            self._spent(token)
        elif answer.status_code == 404 and self._session is not None:
            await self._begin_again(http)
        else:
            raise AgentVaultError(why)
        return why

    async def _begin_again(self, http: httpx.AsyncClient) -> None:
        """Do the host's handshake again, of which it need not know."""
        self._session = self._version = None
        for line in self._handshake:
            message = json.loads(line)
            headers = self._headers(message, await self._live_token())
            answer = await http.post(self._url, content=line, headers=headers)
            if "id" in message and answer.is_success:
                self._session = answer.headers.get("mcp-session-id")
                self._version = _agreed_version(_object(answer.text))

    async def _live_token(self) -> str:
        """Return a token of the agent, good at this server alone.

        Raises:
            AgentVaultError: there is none.
        """
        async with self._renewing:
            if self._token is None:
                self._token = await asyncio.to_thread(self._issue)
            return self._token

    def _spent(self, token: str) -> None:
        if self._token == token:
            self._token = None

    def _headers(self, message: dict[str, object], token: str) -> dict[str, str]:
        """Return the headers of HTTP that a message has there."""
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        version = meta.get(_VERSION) if isinstance(meta, dict) else None
        if isinstance(version, str):
            headers["MCP-Protocol-Version"] = encode_header(version)
            headers["Mcp-Method"] = encode_header(str(message.get("method")))
            assert isinstance(params, dict)  # noqa: S101 - it has _meta
            named = next((params[n] for n in _NAMES if n in params), None)
            if isinstance(named, str):
                headers["Mcp-Name"] = encode_header(named)
        elif self._session is not None:
            headers["Mcp-Session-Id"] = self._session
            if self._version:
                headers["MCP-Protocol-Version"] = self._version
        return headers


def _object(text: str) -> dict[str, object]:
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}


def _agreed_version(message: dict[str, object]) -> str | None:
    """Return the revision that an answer to ``initialize`` names, if it is one."""
    result = message.get("result")
    agreed = result.get("protocolVersion") if isinstance(result, dict) else None
    return agreed if isinstance(agreed, str) else None


def _error(id_: object, code: int, text: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": text}}


def _say(value: dict[str, object]) -> None:
    _write(json.dumps(value))


def _write(line: str) -> None:
    """Write one message; it has no line end inside."""
    sys.stdout.buffer.write(line.replace("\n", " ").encode() + b"\n")
    sys.stdout.buffer.flush()
