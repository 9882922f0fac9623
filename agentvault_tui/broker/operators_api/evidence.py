"""``/api/audit/{seq}``: one event with what proves it, and the story it belongs to."""

from __future__ import annotations

from typing import Final

from msgspec.structs import asdict
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import query_of, route, whole
from agentvault_tui.broker.shapes import event_info
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.ledger import Link
from agentvault_tui.model import Event
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.history import (
    EventProofInfo,
    LinkInfo,
    LinkList,
    StoryInfo,
)
from agentvault_tui.operator_api.requests import LinksQuery

_MOST_LINKS: Final = 200


def routes(broker: Broker) -> list[Route]:
    """Return the routes about single events."""

    async def show(request: Request) -> EventProofInfo:
        event = await _event(broker, request)
        (link,) = await broker.ledger.links([event.seq])
        return EventProofInfo(
            event=event_info(event),
            ledger=broker.ledger.ledger_id,
            **asdict(_link_info(link)),
        )

    async def links(request: Request) -> LinkList:
        found = await broker.ledger.links(_numbers(query_of(request, LinksQuery).seq))
        return LinkList(
            ledger=broker.ledger.ledger_id, links=tuple(map(_link_info, found))
        )

    async def story(request: Request) -> StoryInfo:
        found = await broker.ledger.story(await _event(broker, request))
        return StoryInfo(
            events=tuple(map(event_info, found.events)), complete=found.complete
        )

    return [
        route(calls.LINKS, links),
        route(calls.EVENT, show),
        route(calls.STORY, story),
    ]


def _link_info(link: Link) -> LinkInfo:
    return LinkInfo(
        seq=link.seq, body=link.body, hash=link.hash, previous_hash=link.previous
    )


async def _event(broker: Broker, request: Request) -> Event:
    event = await broker.ledger.event(request.path_params["seq"])
    if event is None:
        head = broker.ledger.head.seq
        raise NotFoundError("there is no such event", f"the last one is {head}")
    return event


def _numbers(listed: str) -> list[int]:
    parts = listed.split(",")
    if len(parts) > _MOST_LINKS:
        raise UsageError(f"'seq' may name {_MOST_LINKS} events at once")
    otherwise = "'seq' must be whole numbers with commas between them"
    return [whole(part, otherwise) for part in parts]
