"""Runs one of examples/guard_*.py with a model that calls the tool it is told to.

Each line of input is a call, as JSON; what the tool gave back is printed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
Ask = Callable[[str, dict[str, Any]], Awaitable[str]]


def langgraph(build: Any) -> Ask:
    from langchain_core.language_models import FakeMessagesListChatModel
    from langchain_core.messages import AIMessage, ToolMessage

    async def ask(tool: str, arguments: dict[str, Any]) -> str:
        call = {"name": tool, "args": arguments, "id": "call_1"}
        said = [AIMessage("", tool_calls=[call]), AIMessage("done")]
        agent = build(FakeMessagesListChatModel(responses=said))
        told = await agent.ainvoke({"messages": [("user", "go")]})
        (result,) = [m for m in told["messages"] if isinstance(m, ToolMessage)]
        return str(result.content)

    return ask


def openai_agents(build: Any) -> Ask:
    from agents import Runner, set_tracing_disabled
    from agents.items import ModelResponse, ToolCallOutputItem
    from agents.models.interface import Model
    from agents.usage import Usage
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    set_tracing_disabled(True)

    class Scripted(Model):
        def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
            text = ResponseOutputText(text="done", type="output_text", annotations=[])
            self.said: list[Any] = [
                ResponseFunctionToolCall(
                    name=tool,
                    arguments=json.dumps(arguments),
                    call_id="call_1",
                    type="function_call",
                ),
                ResponseOutputMessage(
                    id="m",
                    content=[text],
                    role="assistant",
                    status="completed",
                    type="message",
                ),
            ]

        async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
            return ModelResponse([self.said.pop(0)], Usage(), None)

        def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            raise NotImplementedError

    async def ask(tool: str, arguments: dict[str, Any]) -> str:
        told = await Runner.run(build(Scripted(tool, arguments)), "go")
        (result,) = [i for i in told.new_items if isinstance(i, ToolCallOutputItem)]
        return str(result.output)

    return ask


def pydantic_ai(build: Any) -> Ask:
    from pydantic_ai.messages import (
        ModelResponse,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
    )
    from pydantic_ai.models.function import FunctionModel

    async def ask(tool: str, arguments: dict[str, Any]) -> str:
        said = [ModelResponse([ToolCallPart(tool, arguments)])]

        def model(*_: Any) -> ModelResponse:
            return said.pop() if said else ModelResponse([TextPart("done")])

        told = await build(FunctionModel(model)).run("go")
        parts = [part for message in told.all_messages() for part in message.parts]
        (result,) = [part for part in parts if isinstance(part, ToolReturnPart)]
        return str(result.content)

    return ask


def adk(build: Any) -> Ask:
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.genai.types import Content, FunctionCall, Part
    from pydantic import Field

    class Scripted(BaseLlm):
        said: list[Any] = Field(default_factory=list)

        async def generate_content_async(
            self, *_: Any, **__: Any
        ) -> AsyncIterator[LlmResponse]:
            part = self.said.pop(0)
            yield LlmResponse(content=Content(role="model", parts=[part]))

    async def ask(tool: str, arguments: dict[str, Any]) -> str:
        call = Part(function_call=FunctionCall(name=tool, args=arguments))
        model = Scripted(model="scripted", said=[call, Part(text="done")])
        runner = InMemoryRunner(agent=build(model), app_name="app")
        service = runner.session_service
        session = await service.create_session(app_name="app", user_id="u")
        results = []
        async for event in runner.run_async(
            user_id="u",
            session_id=session.id,
            new_message=Content(role="user", parts=[Part(text="go")]),
        ):
            results += event.get_function_responses()
        (result,) = results
        return str((result.response or {})["result"])

    return ask


async def main(framework: str) -> None:
    example = importlib.import_module(f"guard_{framework}")
    ask: Ask = globals()[framework](example.build)
    loop = asyncio.get_running_loop()
    print(json.dumps({"ready": framework}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        call = json.loads(line)
        result = await ask(call["tool"], call["arguments"])
        print(json.dumps({"result": result}), flush=True)


asyncio.run(main(sys.argv[1]))
