"""One hostile corpus through the gateway to real servers: each reads the call's row."""

from __future__ import annotations

import pytest
from support.needs import need

from differential.corpus import corpus
from differential.driving import HEADING, drive
from differential.servers import SERVERS, Server

CASES = 500
SEED = 21


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_server_reads_the_call_in_the_ledger(server: Server) -> None:
    """A server's report equals the call in the ledger, or nothing reached the server.

    The 500 cases are dealt out to all servers, and are the same ones in every run.
    """
    reason = server.missing()
    need(reason is None, str(reason))
    here = [one for one in SERVERS if one is server or one.missing() is None]
    seed = SEED + SERVERS.index(server)
    tally = await drive(server, corpus(-(-CASES // len(here)), seed))
    shown = "\n".join(tally.differences[:5])
    assert not tally.differences, f"seed {seed}\n{HEADING}\n{tally.row()}\n{shown}"
    assert tally.forwarded * 5 > tally.cases, "hardly any case was forwarded"
    assert tally.unread * 10 <= tally.forwarded, "the server refuses what it is sent"
    assert len(tally.kinds) >= (1 if server.rules.lazy else 3), tally.kinds
