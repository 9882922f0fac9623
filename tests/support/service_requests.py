"""Requests of agents, read as the gateway reads them."""

from __future__ import annotations

from agentvault_tui.gateway import Service
from agentvault_tui.gateway.request import (
    BodyReading,
    RequestHead,
    ServiceRequest,
    read_body,
    read_head,
)
from agentvault_tui.model import Action

JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")
ROUNDED = (
    *("9007199254740992", "-9007199254740992", "9007199254740993", str(10**30)),
    *("9007199254740993.0", "9007199254740993e0", "-90071992547409935e-1"),
)
"""Numbers in whose place JavaScript reads another one, or reads it for others too."""


def read_request(
    service: Service,
    method: str,
    target: str,
    *headers: tuple[bytes, bytes],
    body: bytes = b"",
) -> tuple[ServiceRequest, BodyReading]:
    """Read one request; raise UnreadableRequestError where the gateway refuses it."""
    head: RequestHead = read_head(
        service, method, target.encode(), headers, has_body=bool(body)
    )
    reading = read_body(head.job(elevated=True), body)
    head = head.read_as(reading.case)
    return ServiceRequest(head, reading.content), reading


def action_of(
    service: Service,
    method: str,
    target: str,
    *headers: tuple[bytes, bytes],
    body: bytes = b"",
) -> Action:
    """Return the action that one request is."""
    request, reading = read_request(service, method, target, *headers, body=body)
    return request.head.actions(reading)[0]
