"""The store's time decides in a team, whatever clocks of its machines say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joserfc.jwk import ECKey
from support.agents_http import BEARER, public, sign
from support.manual_clock import ManualClock
from support.postgres import Database
from support.team_brokers import ISSUER, brokers_of, known

from agentvault_tui.broker.follow import join_team
from agentvault_tui.clock import SharedClock, iso

KEY = ECKey.generate_key("P-256")
MINUTES = 600.0


def machine(off: float) -> SharedClock:
    """Return the team's clock of a machine whose own clock is *off* by seconds."""
    return SharedClock(ManualClock(datetime.now(UTC) + timedelta(seconds=off)))


@pytest.mark.parametrize("off", [-MINUTES, MINUTES, 40.0, 20.0])
async def test_a_broker_whose_clock_is_off_decides_as_the_others_and_is_told_of(
    short: Path, store: Database, off: float
) -> None:
    """What another broker would take it takes, and what is over there is over."""
    clocks = [machine(0), machine(off)]
    async with brokers_of(short, clocks, [store.settings] * 2) as (right, wrong):
        agent = await right.agent("keyed", "read:calendar", public_key=public(KEY))
        await known([wrong])
        now = int(datetime.now(UTC).timestamp())
        told = []
        for number, ends in enumerate((now + 60, now - 300)):
            claims = {
                "iss": agent.client_id,
                "sub": agent.client_id,
                "aud": f"{ISSUER}/oauth/token",
                "iat": ends - 60,
                "exp": ends,
                "jti": f"{number}",
            }
            form = {
                "grant_type": "client_credentials",
                "scope": "read:calendar",
                "client_assertion_type": BEARER,
                "client_assertion": sign(claims, KEY, "ES256"),
            }
            told.append((await wrong.http.post("/oauth/token", data=form)).status_code)
        assert told == [200, 401]
        for one in (wrong, right):
            await join_team(one.bench.broker, one.bench.ledger.shared)  # type: ignore[arg-type]
        other, team = wrong.bench.broker.team.brokers, right.bench.broker.team.brokers
        assert team is not None
        assert other is not None
        await other.join()  # the first time it had not asked the store yet
        await team.join()
        reasons = [why for member, why in team.standing() if member.id != team.id]
        if abs(off) < 30:
            assert reasons == [None]
        else:
            # Its clock stands still while the store's goes on.
            pattern = r"^its clock differs by ([+-]\d+) s$"
            (number,) = re.findall(pattern, str(reasons[0]))
            assert int(number) == pytest.approx(off, abs=5)


async def test_a_primary_whose_clock_is_behind_revives_nothing(
    short: Path, store: Database
) -> None:
    """After a failover its time is held at the last event's until it has passed."""
    every = [machine(0)], [store.settings]
    async with brokers_of(short, *every) as (before,):
        agent = await before.agent("one", "read:calendar")
        server = await before.agent("api", resource_server=True)
        token = (await before.token(agent, "read:calendar")).json()["access_token"]
        assert await before.active(server, token)
        secrets = before.secrets
    # The primary's clock was two hours ahead of the one that is promoted now.
    ahead = iso(datetime.now(UTC) + timedelta(hours=2))
    store.run("UPDATE agentvault.head SET time = %s", ahead)
    async with brokers_of(short, [machine(0)], [store.settings]) as (after,):
        after.secrets.update(secrets)
        assert not await after.active(server, token)
        (event, *_) = reversed(await after.bench.events())
        assert iso(event.time) <= ahead
        fresh = (await after.token(agent, "read:calendar")).json()["access_token"]
        assert await after.active(server, fresh)
        (event, *_) = reversed(await after.bench.events())
        assert iso(event.time) == ahead
