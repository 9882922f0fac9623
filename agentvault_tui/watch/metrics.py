"""Metrics of a broker for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.health import BOUNDS, Histogram
from agentvault_tui.model import Outcome
from agentvault_tui.origins import parse_listen
from agentvault_tui.text import visible
from agentvault_tui.web import Server
from agentvault_tui.web.guard import RequestGuard, loopback_hosts
from agentvault_tui.web.reply import problem
from agentvault_tui.web.sockets import loopback_pair

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def route(broker: Broker) -> Route:
    """Return ``GET /metrics`` about *broker*."""

    async def endpoint(_: Request) -> Response:
        return Response("".join(_lines(broker)), headers={"Content-Type": _TYPE})

    return Route("/metrics", endpoint)


async def listen(broker: Broker, server: Server) -> Mapping[str, object]:
    """Serve metrics alone at ``[broker] metrics``, if that is set.

    Return its member of the first line of ``serve``.

    Raises:
        ConflictError: the port is taken.
    """
    wanted = broker.settings.broker.metrics
    if not wanted:
        return {}
    host, port = parse_listen(wanted)
    bound, held = loopback_pair(host, port)
    hosts = loopback_hosts(bound.getsockname()[1], host)
    app = RequestGuard(Starlette(routes=[route(broker)]), hosts=hosts, shape=problem)
    listener = await server.listen(app, bound, shape=problem, held=held)
    return {"metrics_url": f"{listener.url}/metrics"}


def _lines(broker: Broker) -> Iterator[str]:
    """Yield all metrics; those of decisions count the ledger's events."""
    yield _head("agentvault_decisions_total", "counter", "Requests decided.")
    yield from _decisions(broker)
    help_text = "How long policy, limits and call-outs took."
    yield from _histogram(
        "agentvault_decision_seconds", help_text, broker.health.decision_seconds
    )
    help_text = "How long a revocation took until it was in force."
    yield from _histogram(
        "agentvault_revocation_seconds", help_text, broker.health.revocation_seconds
    )
    gateway = broker.extensions.gateway
    gauges = (
        ("stepups_pending", "Step-ups that wait.", broker.stepups.open_count),
        ("ledger_head", "Sequence number of the last event.", broker.ledger.head.seq),
        ("ledger_writable", "Whether grants are recorded.", broker.ledger.writable),
        (
            "calls_in_flight",
            "Calls through the gateway under way.",
            gateway.in_flight if gateway else 0,
        ),
        ("alerts_dead", "Alerts that were given up.", broker.health.alerts_dead),
    )
    for name, help_text, value in gauges:
        yield _head(f"agentvault_{name}", "gauge", help_text)
        yield f"agentvault_{name} {int(value)}\n"


def _decisions(broker: Broker) -> Iterator[str]:
    counts = broker.registry.all_counts()
    for outcome in Outcome:
        label = f'outcome="{outcome.value}"'
        if not broker.settings.broker.metrics_by_agent:
            total = sum(getattr(one, outcome.value) for one in counts.values())
            yield f"agentvault_decisions_total{{{label}}} {total}\n"
            continue
        for agent_id, one in sorted(counts.items()):
            name = _escaped(broker.registry.agent(agent_id).name)
            whose = f'agent="{name}",agent_id="{agent_id}"'
            number = getattr(one, outcome.value)
            yield f"agentvault_decisions_total{{{whose},{label}}} {number}\n"


def _escaped(name: str) -> str:
    """Return a label's value: the format escapes backslash, quote and line feed."""
    return visible(name, 200).replace("\\", "\\\\").replace('"', '\\"')


def _histogram(name: str, help_text: str, histogram: Histogram) -> Iterator[str]:
    yield _head(name, "histogram", help_text)
    totals = list(accumulate(histogram.counts))
    for bound, total in zip((*BOUNDS, "+Inf"), totals, strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {total}\n'
    yield f"{name}_sum {histogram.seconds:.9f}\n{name}_count {totals[-1]}\n"


def _head(name: str, kind: str, help_text: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
