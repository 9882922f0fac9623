"""One hostile corpus through the gateway to real servers: each reads the call's row."""

from __future__ import annotations

import os

import pytest

from differential.corpus import corpus
from differential.driving import HEADING, drive
from differential.servers import SERVERS, Server

FEWEST = 5
"""Servers that CI installs: a skip says nothing about a gateway."""
CASES = 500
SEED = 21


@pytest.mark.skipif("CI" not in os.environ, reason="other machines may have fewer")
def test_ci_has_at_least_five_servers() -> None:
    """A run of CI without the servers would prove nothing and be green."""
    missing = {one.name: one.missing() for one in SERVERS if one.missing()}
    assert len(SERVERS) - len(missing) >= FEWEST, missing


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
async def test_a_server_reads_the_call_in_the_ledger(server: Server) -> None:
    """A server's report equals the call in the ledger, or nothing reached the server.

    The 500 cases are dealt out to all servers, and are the same ones in every run.
    """
    if reason := server.missing():
        pytest.skip(reason)
    here = [one for one in SERVERS if one is server or one.missing() is None]
    seed = SEED + SERVERS.index(server)
    tally = await drive(server, corpus(-(-CASES // len(here)), seed))
    shown = "\n".join(tally.differences[:5])
    assert not tally.differences, f"seed {seed}\n{HEADING}\n{tally.row()}\n{shown}"
    assert tally.forwarded * 5 > tally.cases, "hardly any case was forwarded"
    assert tally.unread * 10 <= tally.forwarded, "the server refuses what it is sent"
    assert len(tally.kinds) >= (1 if server.rules.lazy else 3), tally.kinds
