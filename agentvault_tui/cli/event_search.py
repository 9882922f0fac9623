"""Finds events by the options of ``audit search`` and by the console's filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

import click
from msgspec.structs import replace

from agentvault_tui.cli.lookup import agent_names, agent_pages, find_agent
from agentvault_tui.cli.output import Output
from agentvault_tui.clock import SystemClock, iso
from agentvault_tui.errors import NotFoundError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.client import OperatorClient
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.moments import FORMS, FORMS_AHEAD, read_moment

_PAGE: Final = 1000


class Moment(click.ParamType[str]):
    """An option that is a moment; the command receives it as the wire writes it."""

    name = "time"

    def __init__(self, *, ahead: bool = False) -> None:
        """Read lengths and times of day as past, or as *ahead*."""
        self._ahead = ahead

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Parse a moment; fail with the accepted forms."""
        now, forms = SystemClock().now(), FORMS_AHEAD if self._ahead else FORMS
        if (moment := read_moment(str(value), now, ahead=self._ahead)) is None:
            self.fail(f"'{value}' is not a time: write {forms}", param, ctx)
        return iso(moment)


def search_options(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options that choose events, and TEXT, to a command."""
    earlier = "Not before: a time, or 10m, 2h, 3d ago."
    for option in (
        click.argument("text", nargs=-1),
        click.option("--until", type=Moment(), help="Before: a time, or 10m, 2h ago."),
        click.option("--since", type=Moment(), help=earlier),
        click.option("--type", help="Only this type, such as token.decision."),
        click.option(
            "--outcome", help="Only this outcome: allowed, denied or escalated."
        ),
        click.option(
            "--agent",
            help="Only this agent's: id or unique name.",
            shell_complete=agent_names,
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class EventFilter:
    """Chooses events of the ledger; without anything given, all."""

    query: AuditQuery = field(default_factory=AuditQuery)
    """The part that the broker looks for."""
    holds: Callable[[EventInfo], bool] | None = None
    """The part that is checked here; None for nothing."""
    described: str = ""
    """The filter in words, as it was typed."""

    @classmethod
    def of(
        cls,
        client: OperatorClient,
        out: Output,
        *,
        text: tuple[str, ...],
        agent: str | None,
        **options: str | None,
    ) -> Self:
        """Read the values of `search_options`.

        Raises:
            NotFoundError: no agent, or several, have that name.
        """
        query, holds = _of_text(client, out, " ".join(text))
        query.agent = _agent_id(client, agent) if agent else query.agent
        for name, value in options.items():
            if value:
                setattr(query, name, value)
        given = {"agent": agent, **options}
        words = [f"{name}:{value}" for name, value in given.items() if value]
        return cls(query, holds, " ".join([*words, *text]))

    def oldest_first(
        self, client: OperatorClient, after: int = 0
    ) -> Iterator[EventInfo]:
        """Yield the events behind number *after*."""
        cursor: int | None = after
        while cursor is not None:
            query = replace(self.query, after=cursor, limit=_PAGE)
            page = client.call(calls.AUDIT, query)
            yield from filter(self.holds, page.events) if self.holds else page.events
            cursor = page.next

    def newest(
        self, client: OperatorClient, before: int, number: int
    ) -> list[EventInfo]:
        """Return the latest *number* events below *before*, oldest first."""
        events: list[EventInfo] = []
        cursor: int | None = before
        while cursor is not None and len(events) < number:
            limit = _PAGE if self.holds else min(number - len(events), _PAGE)
            query = replace(self.query, before=cursor, limit=limit)
            page = client.call(calls.AUDIT, query)
            events += filter(self.holds, page.events) if self.holds else page.events
            cursor = page.next
        return events[:number][::-1]


def _agent_id(client: OperatorClient, word: str) -> str:
    """Find an agent; an unknown id may still be in the ledger."""
    try:
        return find_agent(client, word).id
    except NotFoundError:
        if word.startswith("agt_"):
            return word
        raise


def _of_text(
    client: OperatorClient, out: Output, text: str
) -> tuple[AuditQuery, Callable[[EventInfo], bool] | None]:
    """Read TEXT as the console's filter if it names a key of one, else as it is.

    Returns:
        the query for the broker, and the check of the rest.
    """
    wanted = Filter.parse(text)
    if not any(term.key for term in wanted.terms):
        return AuditQuery(q=text or None), None
    if wanted.problem:
        out.note(f"in the filter, {wanted.problem}")
    directory = Directory(SystemClock())
    directory.intake.learn(client.call(calls.POLICY).catalogue)
    for page in agent_pages(client):
        for agent in page.agents:
            directory.add(agent)
    now = directory.clock.now()

    def holds(event: EventInfo) -> bool:
        return wanted.event(directory.intake.event(event), directory, now)

    return wanted.query(directory.agents, now, text=True), holds
