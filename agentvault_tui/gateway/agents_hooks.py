"""``POST /hooks/{host}`` on the agents' listener, for hooks inside a confinement.

They reach no operators' socket, so they show the token of their run.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request

from agentvault_tui.broker.operators_api.wire import body_of
from agentvault_tui.broker.surroundings import Surroundings
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.gateway.admission import Admission
from agentvault_tui.gateway.hooks import HookCaller, HookDecider
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.operator_api.access import HookInfo, HookRequest
from agentvault_tui.web.exchange import Exchange
from agentvault_tui.web.forms import BodyError
from agentvault_tui.web.guard import BODY_CAP, read_body
from agentvault_tui.web.reply import Message, Receive, Scope, Send, json_reply

PREFIX: Final = b"/hooks/"


class AgentsHooks:
    """Decides tool calls for agents that show a token of their own."""

    def __init__(
        self, decider: HookDecider, admission: Admission, surroundings: Surroundings
    ) -> None:
        """Decide by *decider*; *admission* and *surroundings* say who asks."""
        self._decider = decider
        self._admission = admission
        self._surroundings = surroundings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange: Exchange = scope.pop("exchange")
        gone = asyncio.get_running_loop().create_future()

        def left() -> None:
            if not gone.done():
                gone.set_result(None)

        exchange.on_gone = left
        try:
            info = await self._decide(scope, receive, gone)
        except CallRefusedError as refusal:
            await refusal.reply().send(send)
        except BodyError as error:
            await _malformed(error.status, error.text).reply().send(send)
        except AgentVaultError as error:
            await _malformed(400, error.what).reply().send(send)
        else:
            await json_reply(200, msgspec.to_builtins(info)).send(send)

    async def _decide(
        self, scope: Scope, receive: Receive, gone: asyncio.Future[None]
    ) -> HookInfo:
        host = scope["raw_path"].removeprefix(PREFIX).decode("latin-1")
        if scope["method"] != "POST" or not host.replace("-", "").isalnum():
            raise CallRefusedError(404, "not_found", "not_found", "POST /hooks/HOST")
        shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, secret = shown.partition(" ")
        caller = await self._admission.authenticate(
            secret.strip() if scheme.lower() == "bearer" else None,
            {"host": host},
            source=self._surroundings.source_of(scope),
        )
        if caller.token.chain or caller.token.single_use:
            raise CallRefusedError(
                *(403, "access_denied", "not_for_this"),
                "hooks ask with a token of the agent's own run",
            )
        body = await read_body(receive, BODY_CAP)

        async def whole() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        call = await body_of(Request({**scope}, whole), HookRequest, deep=True)
        self._admission.check_live(caller)
        agent = caller.agent
        if call.agent not in {agent.id, agent.name}:
            raise CallRefusedError(
                *(403, "access_denied", "not_for_this"),
                "the token is another agent's than the call names",
            )
        return await self._decider.decide(
            host, agent, call, HookCaller(agent.name), gone
        )


def _malformed(status: int, text: str) -> CallRefusedError:
    return CallRefusedError(status, "invalid_request", "invalid_request", text)
