"""``/api/audit/{seq}``: one event with what proves it, and the story it belongs to."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import answer, whole
from agentvault_tui.broker.shapes import event_shape
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.ledger import Link
from agentvault_tui.model import Event

_MOST_LINKS: Final = 200


def routes(broker: Broker) -> list[Route]:
    """Return the routes about single events."""

    async def show(request: Request) -> Response:
        event = await _event(broker, request)
        (link,) = await broker.ledger.links([event.seq])
        shape = {"event": event_shape(event), "ledger": broker.ledger.ledger_id}
        return answer(shape | link_shape(link))

    async def links(request: Request) -> Response:
        found = await broker.ledger.links(_numbers(request))
        shapes = [link_shape(link) for link in found]
        return answer({"ledger": broker.ledger.ledger_id, "links": shapes})

    async def story(request: Request) -> Response:
        found = await broker.ledger.story(await _event(broker, request))
        shapes = [event_shape(event) for event in found.events]
        return answer({"events": shapes, "complete": found.complete})

    return [
        Route("/api/audit/links", links, methods=["GET"]),
        Route("/api/audit/{seq:int}", show, methods=["GET"]),
        Route("/api/audit/{seq:int}/story", story, methods=["GET"]),
    ]


def link_shape(link: Link) -> dict[str, Any]:
    """Return what it takes to compute a link of the chain again."""
    return {
        "seq": link.seq,
        "body": link.body,
        "hash": link.hash,
        "previous_hash": link.previous,
    }


async def _event(broker: Broker, request: Request) -> Event:
    event = await broker.ledger.event(request.path_params["seq"])
    if event is None:
        head = broker.ledger.head.seq
        raise NotFoundError("there is no such event", f"the last one is {head}")
    return event


def _numbers(request: Request) -> list[int]:
    parts = request.query_params.get("seq", "").split(",")
    if len(parts) > _MOST_LINKS:
        raise UsageError(f"'seq' may name {_MOST_LINKS} events at once")
    otherwise = "'seq' must be whole numbers with commas between them"
    return [whole(part, otherwise) for part in parts]
