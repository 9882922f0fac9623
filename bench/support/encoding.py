"""What one JSON call costs the gateway to read and encode, in this process.

Before there was a request object, a body was parsed to decide about it, and the bytes
that had been received were forwarded. That is measured here too, in alternate rounds.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

from support.service import service_file

from agentvault_tui import strict_json
from agentvault_tui.gateway.content import Fields
from agentvault_tui.gateway.headers import RequestHeaders
from agentvault_tui.gateway.parameters import RequestParts, read_parameters
from agentvault_tui.gateway.request import ServiceRequest, read_body, read_head
from agentvault_tui.gateway.routes import match
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.gateway.target import parse_target
from agentvault_tui.policy import shipped_catalogue

CALLS, ROUNDS = 1_000, 15


def body(number: int) -> bytes:
    """Return the JSON of about 1 kB that call *number* sends."""
    times = ("09:30", "10:30")
    start, end = (
        {"dateTime": f"2027-01-02T{one}:00Z", "timeZone": "Europe/Berlin"}
        for one in times
    )
    event = {
        "count": number % 40,
        "title": f"Review {number}",
        "description": "What was decided, and what is open. " * 11,
        "attendees": [
            {"email": f"p{number + n}@acme.test", "optional": n % 2 == 0}
            for n in range(8)
        ],
        "start": start,
        "end": end,
        "rate": 12.50,
    }
    return json.dumps(event).encode()


def encoding_cost() -> tuple[float, float]:
    """Return microseconds of processor time a call, as before and from the object.

    Before: route, body and parameters are read to decide, and the received bytes are
    what is sent. From the object: everything that the decision, the row and the wire
    have is computed.
    """
    text = service_file("http://127.0.0.1:1", "allow_http = true")
    service = parse_service("bench", text, shipped_catalogue(), Path("/"))
    bodies = [body(number) for number in range(CALLS)]

    def forwarded(number: int, raw: bytes) -> object:
        target = parse_target(b"/events/e%d" % number)
        found, value = match(service, "POST", target), strict_json.loads(raw)
        assert found is not None
        assert found.route is not None
        fields = Fields("json", value)
        captures = found.captures
        return read_parameters(
            RequestParts(found.route, captures, target, RequestHeaders(), fields)
        )

    def encoded(number: int, raw: bytes) -> object:
        headers = [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(raw)),
        ]
        target = b"/events/e%d" % number
        head = read_head(service, "POST", target, headers, has_body=True)
        request = ServiceRequest(head, read_body(head.job(), raw).content)
        return request.detail(), request.lines(), head.target.encoded

    def cost(function: Callable[[int, bytes], object]) -> float:
        started = time.process_time()
        for number, raw in enumerate(bodies):
            function(number, raw)
        return (time.process_time() - started) / CALLS * 1e6

    # As `serve` does; else collections would count that no call of a broker waits for.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    rounds = [(cost(forwarded), cost(encoded)) for _ in range(ROUNDS)]
    # The least: what shares a processor makes a round longer, and never shorter.
    before, after = map(min, zip(*rounds, strict=True))
    return before, after
