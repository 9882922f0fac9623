"""A model that asks for the tool calls of a script, as its host's own API says them.

Speaks Anthropic's Messages, OpenAI's Responses and Gemini's generateContent. Which call
comes next is the number of results in the conversation, so that a request that is sent
again gets the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from support.http_server import http_server


class Call(NamedTuple):
    """One call of a tool that the model asks for."""

    tool: str
    arguments: dict[str, Any]
    before: Callable[[], object] = lambda: None
    """Is called once, when the host asks what comes next."""
    namespace: str = ""
    """Of the tool, where the API has one."""


class Model:
    """What is running: where it is, and what the model was told."""

    def __init__(self, calls: Sequence[Call]) -> None:
        """Take the calls, the first one first."""
        self.calls = calls
        self.url = ""
        self.results: list[str] = []
        """Of the calls so far, as JSON of what the host sent."""

    def next(self, results: Iterable[object], tools: object) -> Call | None:
        """Return the next call; nothing where all are made, or no tool is offered."""
        told = [json.dumps(result) for result in results]
        if not tools:
            return None  # for the host itself: a title, a summary
        new = len(told) > len(self.results) or not told
        if len(told) >= len(self.results):
            self.results = told
        if len(told) >= len(self.calls):
            return None
        call = self.calls[len(told)]
        if new:
            call.before()
        return call


@contextmanager
def scripted_model(*calls: Call) -> Iterator[Model]:
    """Run a model that makes *calls*, one in each answer, and then says it is done."""
    model = Model(calls)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            for end, answer in _APIS.items():
                if self.path.partition("?")[0].endswith(end):
                    events = list(answer(model, asked))
                    streamed = bool(asked.get("stream")) or "stream" in end
                    return self._send(events if streamed else events[-1:], streamed)
            return self.send_error(404)

        def _send(self, events: list[dict[str, Any]], streamed: bool) -> None:
            body = b""
            for event in events:
                text = json.dumps(event)
                named = f"event: {event['type']}\n" if "type" in event else ""
                body += (f"{named}data: {text}\n\n" if streamed else text).encode()
            self.send_response(200)
            kind = "text/event-stream" if streamed else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http_server(Handler) as model.url:
        yield model


def _messages(model: Model, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    results = [
        block["content"]
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    ]
    call = model.next(results, asked.get("tools"))
    block: dict[str, Any] = {"type": "text", "text": "Done."}
    delta = {"type": "text_delta", "text": "Done."}
    if call:
        block = {"type": "tool_use", "id": f"toolu_{len(results)}", "name": call.tool}
        block["input"] = call.arguments
        text = json.dumps(call.arguments)
        delta = {"type": "input_json_delta", "partial_json": text}
    usage = {"input_tokens": 1, "output_tokens": 1}
    end = {"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant"}
    message |= {"model": "m", "content": [block], "usage": usage, **end}
    begun: dict[str, Any] = message | {"content": [], "stop_reason": None}
    empty = {**block, "input": {}} if call else {**block, "text": ""}
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": end, "usage": usage}
    yield {"type": "message_stop"} if asked.get("stream") else message


def _responses(model: Model, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    outputs = [i for i in asked["input"] if i.get("type", "").endswith("_output")]
    call = model.next((item["output"] for item in outputs), asked.get("tools"))
    item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant"}
    item["content"] = [{"type": "output_text", "text": "Done.", "annotations": []}]
    if call:
        item = {"type": "function_call", "id": "fc_1", "call_id": f"c_{len(outputs)}"}
        item |= {"name": call.tool, "arguments": json.dumps(call.arguments)}
        item |= {"namespace": call.namespace} if call.namespace else {}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    whole = {"id": "resp_1", "status": "completed", "output": [item], "usage": usage}
    yield {"type": "response.created", "response": {"id": "resp_1"}}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


def _generate_content(model: Model, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    parts = [part for content in asked["contents"] for part in content["parts"]]
    results = [p["functionResponse"] for p in parts if "functionResponse" in p]
    call = model.next(results, asked.get("tools"))
    part: dict[str, Any] = {"text": "Done."}
    if call:
        part = {"functionCall": {"name": call.tool, "args": call.arguments}}
    content = {"role": "model", "parts": [part]}
    yield {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}


_APIS: dict[str, Callable[[Model, dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "/v1/messages": _messages,
    "/v1/responses": _responses,
    ":generateContent": _generate_content,
    ":streamGenerateContent": _generate_content,
}
