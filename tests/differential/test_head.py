"""HEAD requests: the gateway decides by the route whose handler the framework runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from support.gateway_stand import standing
from support.needs import need

from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import EventType
from differential.corpus import Case
from differential.driving import POLICY, ask
from differential.servers import SERVERS, Server

FRAMEWORKS = [one for one in SERVERS if one.name in {"express", "flask"}]
ROUTES = """
[credential]
kind = "none"
[[routes]]
method = "GET"
path = "/gets/{name}"
scope = "write:calendar"
[[routes]]
method = "*"
path = "/{rest*}"
scope = "read:calendar"
"""


@pytest.mark.parametrize("server", FRAMEWORKS, ids=lambda server: server.name)
async def test_a_head_request_has_the_scope_of_the_handler_that_it_runs(
    server: Server,
) -> None:
    """The framework runs the handler of GET; the row has the scope of that route."""
    reason = server.missing()
    need(reason is None, str(reason))
    with tempfile.TemporaryDirectory(prefix="d-") as folder:
        home = Home.locate(Path(folder) / "home")
        home.prepare()
        home.policy_file.write_text(POLICY)
        async with server.running() as running, standing(Path(folder)) as stand:
            origin = f"http://127.0.0.1:{running.port}"
            await stand.service(ROUTES, origin=origin)
            agent = await stand.agent("write:calendar", "read:calendar")
            token = await stand.token(agent, "write:calendar read:calendar")
            for number, path in enumerate((b"/gets/a", b"/other/a")):
                case = Case(b"HEAD", path, (), b"", "none")
                assert (await ask(stand, case, token, number)).status < 500
            await stand.settled()
            page = await stand.bench.ledger.events(EventQuery(after=0, limit=500))
    assert [one.get("handler") is None for one in running.reports] == [False, True]
    attempts = [one for one in page.events if one.type is EventType.GATEWAY_ATTEMPT]
    assert [one.action for one in attempts] == ["write:calendar", "read:calendar"]
