"""Call-outs: services of the team's own that may answer stricter than policy.

Each is asked over HTTP as an AuthZEN evaluation, within its budget. Whatever is not
clearly an answer denies.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from agentvault_tui.broker.secret_uses import OpenSecret, SecretUse, no_secret
from agentvault_tui.clock import Clock
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model import Outcome, new_id
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.policy.limits import HookTable
from agentvault_tui.strict_json import loads
from agentvault_tui.text import visible
from agentvault_tui.web.reach import service_connection, trust
from agentvault_tui.web.service_connection import (
    Bounds,
    ServiceConnection,
    UpstreamError,
)
from agentvault_tui.web.webhooks import webhook_headers

HOOK_DENIED: Final = "hook_denied"
HOOK_FAILED: Final = "hook_failed"
_MOST: Final = 65_536
"""Bytes of an answer's body."""
_KEPT_SECONDS: Final = 4.0
"""An idle connection is used again: common servers end theirs after five."""
_IDLE_CONNECTIONS: Final = 8
_AT_ONCE: Final = 8
"""Evaluations of one request that a webhook gets at once."""
_MOST_EVALUATIONS: Final = 64
"""Of one request; one with more actions is denied."""
_PATH: Final = "/access/v1/evaluation"
"""The host of requests if the URL is a socket (AuthZEN section 10.1)."""


class CallOutAnswer(NamedTuple):
    """The answer of one webhook."""

    hook: HookTable
    outcome: Outcome
    reason: str
    """The stable code; empty where it lets the decision be."""
    why: str
    ms: int

    def recorded(self) -> dict[str, object]:
        """Return it as a decision's event has it."""
        failed = self.reason == HOOK_FAILED
        verdict = "failed" if failed else self.outcome.value
        return {"id": self.hook.id, "verdict": verdict, "ms": self.ms}


class LastAsked(NamedTuple):
    """The time of the last call of a webhook, and its answer."""

    at: datetime
    answer: CallOutAnswer


class CallOuts:
    """Calls decision webhooks, over persistent connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.open_secret: OpenSecret = no_secret
        self.last: dict[str, LastAsked] = {}
        """How each answered last, by its id."""
        self._idle: dict[str, list[ServiceConnection]] = {}
        self._trust: ssl.SSLContext | None = None

    async def ask(
        self, questions: Sequence[tuple[HookTable, Sequence[Mapping[str, Any]]]]
    ) -> list[CallOutAnswer]:
        """Call all webhooks of a request at once.

        Args:
            questions: webhooks, each with an evaluation (AuthZEN section 6.1) for each
                action of the request that is in its scopes.

        Returns:
            the strictest answer of each webhook, with the time of all its calls.
        """
        every = (self._ask_each(hook, about) for hook, about in questions)
        return list(await asyncio.gather(*every))

    async def _ask_each(
        self, hook: HookTable, evaluations: Sequence[Mapping[str, Any]]
    ) -> CallOutAnswer:
        if len(evaluations) > _MOST_EVALUATIONS:
            why = f"The call-out {hook.id} checks {_MOST_EVALUATIONS} actions at most."
            return CallOutAnswer(hook, Outcome.DENIED, HOOK_FAILED, why, 0)
        answers: list[CallOutAnswer] = []
        ms = 0
        for first in range(0, len(evaluations), _AT_ONCE):
            bodies = map(to_json, evaluations[first : first + _AT_ONCE])
            batch = (self._ask(hook, body.encode()) for body in bodies)
            answers += (latest := await asyncio.gather(*batch))
            ms += max(one.ms for one in latest)
            if any(one.outcome is Outcome.DENIED for one in latest):
                break
        strictest = max(answers, key=lambda one: one.outcome.strictness)
        return strictest._replace(ms=ms)

    async def _ask(self, hook: HookTable, body: bytes) -> CallOutAnswer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(hook.budget_ms / 1000):
                answer = _read(await self._exchange(hook, body))
        except (
            *(UpstreamError, AgentVaultError, OSError, TimeoutError, ValueError),
        ) as error:
            late = isinstance(error, TimeoutError)
            what = f"no answer in {hook.budget_ms} ms" if late else visible(error, 120)
            why = f"The call-out {hook.id} failed: {what}."
            answer = Outcome.DENIED, HOOK_FAILED, why
        outcome, reason, why = answer
        why = why or f"The call-out {hook.id} says so."
        ms = round((loop.time() - began) * 1e3)
        result = CallOutAnswer(hook, outcome, reason, why, ms)
        self.last[hook.id] = LastAsked(self._clock.now(), result)
        return result

    async def _exchange(self, hook: HookTable, body: bytes) -> bytes:
        """Send *body* once; again only if a reused connection had ended."""
        now, idle = asyncio.get_running_loop().time(), self._idle.get(hook.url, [])
        while idle:
            connection = idle.pop()
            if connection.reusable and now - connection.idle_since < _KEPT_SECONDS:
                try:
                    return await self._over(connection, hook, body)
                except UpstreamError:
                    if connection.headers or connection.has_body:
                        raise
            else:
                connection.abort()
        return await self._over(await self._connected(hook), hook, body)

    async def _over(
        self, connection: ServiceConnection, hook: HookTable, body: bytes
    ) -> bytes:
        at = urlsplit(hook.url)
        headers = [
            ("Host", at.netloc or "localhost"),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        ]
        if hook.secret:
            key = self.open_secret(hook.secret, [ServerOrigin.of(at)]).reveal()
            headers += webhook_headers(key, new_id("msg"), self._clock.now(), body)
        target = _PATH
        if at.scheme != "unix":
            target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        try:
            connection.begin("POST")
            connection.send(target, headers, body, None)
            content = await read_content(connection, _MOST)
        except BaseException:
            connection.abort()
            raise
        idle = self._idle.setdefault(hook.url, [])
        if connection.reusable and len(idle) < _IDLE_CONNECTIONS:
            connection.idle_since = asyncio.get_running_loop().time()
            idle.append(connection)
        else:
            connection.abort()
        return content

    async def _connected(self, hook: HookTable) -> ServiceConnection:
        """Connect; addresses are checked once they are resolved, as for services."""
        at, budget = urlsplit(hook.url), hook.budget_ms / 1000
        bounds = Bounds(connect=budget, idle=budget, whole=budget)
        if at.scheme == "unix":
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: ServiceConnection(bounds), at.path
            )
            return connection
        secure = at.scheme == "https"
        if secure and self._trust is None:
            self._trust = trust("")
        return await service_connection(
            at.hostname or "",
            at.port or (443 if secure else 80),
            private=not secure,  # http is to loopback alone
            tls=self._trust if secure else None,
            bounds=bounds,
        )

    def aclose(self) -> None:
        """Close the persistent connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().abort()


def hook_uses(hooks: Iterable[HookTable]) -> Iterator[SecretUse]:
    """Return which secrets sign requests, and where to."""
    for hook in hooks:
        if hook.secret:
            origin = ServerOrigin.of(urlsplit(hook.url))
            yield SecretUse("hook", hook.id, hook.secret, (origin,))


async def read_content(connection: ServiceConnection, most: int) -> bytes:
    """Return the body of an answer, of *most* bytes.

    Raises:
        ValueError: it is another than 200, or too long.
        UpstreamError: it does not come.
    """
    await connection.answered()
    if connection.status != 200:
        raise ValueError(f"it answered {connection.status}")
    content = b""
    while piece := await connection.read():
        content += piece
        if len(content) > most:
            raise ValueError("its answer is too long")
    return content


def _read(content: bytes) -> tuple[Outcome, str, str]:
    """Read an answer (AuthZEN section 6.2); it may only make a decision stricter.

    Raises:
        ValueError: it is none.
    """
    answer = loads(content)
    context = answer.get("context", {}) if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(context, dict):
        raise ValueError("its answer is no object")  # noqa: TRY004 - as all else
    decision, step_up = answer.get("decision"), context.get("step_up")
    for value in (decision, step_up):
        if value is not None and not isinstance(value, bool):
            raise ValueError("its answer has a member that is not true or false")
    reason = context.get("reason")
    why = str(visible(reason, 200)) if isinstance(reason, str) else ""
    if decision is False:
        return Outcome.DENIED, HOOK_DENIED, why
    if step_up:
        return Outcome.ESCALATED, "stepup_required", why
    if decision is None:
        raise ValueError("its answer decides nothing")
    return Outcome.ALLOWED, "", why
